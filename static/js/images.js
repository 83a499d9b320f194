/** Step 1 of the page: the folder's images with their captions. Markup: <section data-images>. */

import { at, put, remove } from "./api.js";
import { complain, confirmed } from "./dialogs.js";
import { debounced, find, say } from "./dom.js";
import { bytes, count } from "./format.js";
import { ensureProject, project, readProject, wordsQuery } from "./project.js";
import { Upload, droppedFiles } from "./upload.js";

const TYPING_MS = 400;
const RETRY_MS = [2000, 5000, 10_000, 30_000];
const SLICE_MS = 12; // drawing many cards lets other things in this often
const SAVED_MARK_MS = 2500;

const section = find("[data-images]");
const drop = find("[data-drop]", section);
const list = find("[data-cards]", section);
const template = find("template[data-card]", section);
const picker = find("[data-files]", section);

const cards = new Map(); // image name -> Card, in the order of the list
let upload = null;
let lost = []; // files whose request broke off
let drawing = 0; // counts drawings, so that a newer one ends an older

const changed = () => document.dispatchEvent(new CustomEvent("images:changed"));

// -- one card -----------------------------------------------------------------------------------

/** One image with its caption, which is saved while it is typed. */
class Card {
  constructor(image) {
    this.node = template.content.firstElementChild.cloneNode(true);
    this.area = find("textarea", this.node);
    this.mark = find("[data-saved]", this.node);
    this.error = find("[data-card-error]", this.node);
    this.later = debounced(() => this.save(), TYPING_MS);
    this.dirty = false;
    this.saving = false;
    this.failures = 0;
    this.area.addEventListener("input", () => this.typed());
    this.area.addEventListener("blur", () => this.later.flush());
    find("[data-remove]", this.node).addEventListener("click", () => askToRemove(this));
    this.draw(image);
  }

  get url() {
    return at("projects", project.name, "images", this.image.name, "caption");
  }

  /** Where it stands in the list, from 1. */
  number(index) {
    if (this.index === index) return;
    this.index = index;
    const id = `caption-${index}`;
    const label = find(".card-label", this.node);
    label.htmlFor = this.area.id = id;
    label.textContent = `Caption for image ${index}`;
    this.error.id = `${id}-error`;
    this.area.setAttribute("aria-describedby", this.error.id);
    find("[data-remove]", this.node).setAttribute("aria-label", `Remove image ${index}, ${this.image.name}`);
    find("img", this.node).alt = `Image ${index}: ${this.image.name}`;
  }

  /** Show what the server knows; a caption that is being typed stays as it is. */
  draw(image) {
    const link = find(".card-picture", this.node);
    if (this.image?.thumb !== image.thumb) {
      find("img", this.node).src = image.thumb;
      link.href = image.url;
      link.title = image.name;
    }
    this.image = image;
    const size = `${image.width} × ${image.height} px · ${bytes(image.bytes)}`;
    say(find(".card-file", this.node), `${image.name} · ${size}`);
    if (!this.dirty && !this.saving && this.area.value !== image.caption) this.area.value = image.caption;
    this.drawFinal();
    const warnings = find(".card-warnings", this.node);
    warnings.replaceChildren(
      ...(image.warnings ?? []).map((text) =>
        Object.assign(document.createElement("li"), { textContent: text }),
      ),
    );
    warnings.hidden = !image.warnings?.length;
  }

  drawFinal() {
    say(find("[data-final]", this.node), this.image.final_text || "nothing: no caption, no trigger word");
  }

  typed() {
    this.dirty = true;
    say(this.mark, "");
    this.later();
  }

  async save() {
    if (this.saving || !this.dirty) return;
    const text = this.area.value;
    this.saving = true;
    this.dirty = false;
    this.tell("Saving…");
    try {
      const image = await put(`${this.url}?${wordsQuery()}`, { text });
      this.failures = 0;
      this.error.hidden = true;
      this.tell("Saved");
      setTimeout(() => this.mark.textContent === "Saved" && say(this.mark, ""), SAVED_MARK_MS);
      this.saving = false;
      this.draw({ ...image, caption: this.dirty ? this.area.value : image.caption });
      changed();
    } catch (error) {
      this.saving = false;
      this.failed(error);
    }
    if (this.dirty && !this.failures) this.later();
  }

  failed(error) {
    this.dirty = true;
    const again = error.status === 0 || error.status >= 500;
    this.tell("Not saved", "danger");
    this.error.hidden = false;
    say(this.error, `Not saved: ${error.whole}${again ? " Trying again…" : ""}`);
    if (!again) return;
    const wait = RETRY_MS[Math.min(this.failures, RETRY_MS.length - 1)];
    this.failures += 1;
    setTimeout(() => this.save(), wait);
  }

  tell(text, tone = "") {
    this.mark.dataset.tone = tone;
    say(this.mark, text);
  }

  /** The page goes away: send what is not saved, in a request that outlives it. */
  leave() {
    if (!this.dirty) return;
    const body = JSON.stringify({ text: this.area.value });
    fetch(this.url, {
      method: "PUT",
      keepalive: true,
      headers: { "Content-Type": "application/json" },
      body,
    });
  }
}

// -- the list -----------------------------------------------------------------------------------

/** Bring the cards in line with what the server lists; cards that stay keep focus and text. */
async function draw(images) {
  const turn = (drawing += 1);
  const names = new Set(images.map((image) => image.name));
  for (const [name, card] of cards) if (!names.has(name)) forget(name, card);
  const order = new Map();
  let until = performance.now() + SLICE_MS;
  for (const [index, image] of images.entries()) {
    if (performance.now() > until) {
      list.hidden = false;
      shown();
      await breath();
      until = performance.now() + SLICE_MS;
    }
    if (turn !== drawing) return;
    const card = cards.get(image.name) ?? new Card(image);
    if (cards.has(image.name)) card.draw(image);
    cards.set(image.name, card);
    order.set(image.name, card);
    card.number(index + 1);
    if (list.children[index] !== card.node) list.insertBefore(card.node, list.children[index] ?? null);
  }
  cards.clear();
  for (const [name, card] of order) cards.set(name, card);
  tally();
}

const breath = () => globalThis.scheduler?.yield?.() ?? new Promise((resolve) => setTimeout(resolve));

/** The first cards stand: the page below them will not move any more. */
function shown() {
  document.dispatchEvent(new CustomEvent("images:shown"));
}

function forget(name, card) {
  card.later.cancel();
  card.node.remove();
  cards.delete(name);
}

function renumber() {
  for (const [index, card] of [...cards.values()].entries()) card.number(index + 1);
}

function tally() {
  const total = cards.size;
  const empty = [...cards.values()].filter((card) => !card.area.value.trim()).length;
  const without = empty
    ? `, ${empty === total ? "none" : total - empty} with a caption`
    : ", all with a caption";
  say(find("[data-images-count]", section), total ? count(total, "image") + without : "");
  drop.toggleAttribute("data-empty", total === 0);
  list.hidden = total === 0;
  shown();
}

async function askToRemove(card) {
  const yes = await confirmed({
    title: `Remove ${card.image.name}?`,
    text: "The image, its caption and its caches are deleted from the folder.",
    yes: "Remove",
  });
  if (!yes) return;
  try {
    await remove(at("projects", project.name, "images", card.image.name));
  } catch (error) {
    complain(error);
    return;
  }
  const next = card.node.nextElementSibling ?? card.node.previousElementSibling;
  forget(card.image.name, card);
  renumber();
  tally();
  (
    find("textarea", next ?? section.ownerDocument.createElement("i")) ?? find("[data-select]", section)
  ).focus();
  changed();
}

function show(data) {
  for (const card of cards.values()) card.later.flush();
  const warnings = find("[data-project-warnings]", section);
  warnings.replaceChildren(
    ...(data?.warnings ?? []).map((text) =>
      Object.assign(document.createElement("li"), { textContent: text }),
    ),
  );
  warnings.hidden = !data?.warnings?.length;
  return draw(data?.images ?? []);
}

// -- uploading ----------------------------------------------------------------------------------

/** Send files to the open folder, creating it first. */
export async function send(files) {
  if (!files.length) return;
  if (upload) {
    lost.push(...files);
    report(
      { added: [], rejected: [], captions: [], broken: [], cancelled: false },
      "These wait until the current upload is over.",
    );
    return;
  }
  find("[data-rejected]", section).hidden = true;
  try {
    await ensureProject();
  } catch (error) {
    say(find("[data-upload-status]", section), error.whole);
    find("#output_dir")?.focus();
    return;
  }
  lost = [];
  upload = new Upload(project.name, files, {
    onProgress: progress,
    onAdded: debounced(() => readProject(), 250),
  });
  find("[data-uploading]", section).hidden = false;
  const result = await upload.send();
  upload = null;
  find("[data-uploading]", section).hidden = true;
  report(result);
  await readProject().catch(complain);
  changed();
}

function progress({ sent, total, files, of }) {
  const bar = find("[data-upload-bar]", section);
  bar.value = sent / total;
  const percent = Math.floor((100 * sent) / total);
  const text = `Uploading: ${files} of ${count(of, "file")}, ${bytes(sent)} of ${bytes(total)} (${percent} %)`;
  say(
    find("[data-upload-text]", section),
    percent === 100 && files < of ? "Uploaded. The server is looking at the images…" : text,
  );
}

function report(result, waiting = "") {
  const parts = [];
  if (result.added.length) parts.push(`${count(result.added.length, "image")} added.`);
  if (result.captions.length) parts.push(`${count(result.captions.length, "caption")} came along.`);
  if (result.cancelled) parts.push("Upload cancelled.");
  say(find("[data-upload-status]", section), parts.join(" "));
  lost.push(...result.broken);
  const rows = [
    ...result.rejected,
    ...lost.map((file) => ({ name: file.name, reason: waiting || "The connection broke off." })),
  ];
  find("[data-rejected]", section).hidden = rows.length === 0;
  find("[data-retry]", section).hidden = lost.length === 0;
  say(find("[data-rejected-title]", section), `Not added: ${count(rows.length, "file")}`);
  find("[data-rejected-list]", section).replaceChildren(...rows.map(rejectedRow));
}

function rejectedRow({ name, reason }) {
  const item = document.createElement("li");
  const strong = document.createElement("span");
  strong.className = "mono";
  strong.textContent = name;
  item.append(strong, ` – ${reason}`);
  return item;
}

function watchDrops() {
  let depth = 0; // dragenter and dragleave also come from what lies inside
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  drop.addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    depth += 1;
    drop.dataset.over = "";
  });
  drop.addEventListener("dragleave", () => {
    depth = Math.max(0, depth - 1);
    if (!depth) delete drop.dataset.over;
  });
  drop.addEventListener("drop", async (event) => {
    event.preventDefault();
    depth = 0;
    delete drop.dataset.over;
    send(await droppedFiles(event.dataTransfer));
  });
  // A file dropped beside the area must not replace the page.
  for (const type of ["dragover", "drop"]) {
    window.addEventListener(type, (event) => hasFiles(event) && event.preventDefault());
  }
}

/** Save every caption that is still being typed; resolves when all are on the disk or have failed. */
export async function settleCaptions() {
  await Promise.all(
    [...cards.values()].filter((card) => card.dirty).map((card) => (card.later.cancel(), card.save())),
  );
}

/** Wire the section up. */
export function startImages() {
  find("[data-select]", section).addEventListener("click", () => picker.click());
  picker.addEventListener("change", () => {
    send([...picker.files]);
    picker.value = "";
  });
  find("[data-upload-cancel]", section).addEventListener("click", () => upload?.cancel());
  find("[data-rejected-close]", section).addEventListener(
    "click",
    () => (find("[data-rejected]", section).hidden = true),
  );
  find("[data-retry]", section).addEventListener("click", () => send(lost));
  watchDrops();
  document.addEventListener("project:switching", () => {
    for (const card of cards.values()) card.leave();
    for (const [name, card] of cards) forget(name, card);
    find("[data-rejected]", section).hidden = true;
    say(find("[data-upload-status]", section), "");
  });
  document.addEventListener("project:opened", (event) => show(event.detail.data));
  document.addEventListener("project:read", (event) => show(event.detail.data));
  document.addEventListener("input", (event) => list.contains(event.target) && tallyLater());
  window.addEventListener("pagehide", () => {
    for (const card of cards.values()) card.leave();
  });
}

const tallyLater = debounced(tally, 300);
