/** The upload as one sees it: choosing and dropping files, each file's progress, what was not taken and why. */

import { get } from "./api.js";
import { complain } from "./dialogs.js";
import { announce, debounced, el, find, say } from "./dom.js";
import { bytes, count, duration } from "./format.js";
import { ensureProject, project, readProject } from "./project.js";
import { Upload, chosenItems, droppedItems } from "./upload.js";

const DRAW_MS = 80;
const LIST_MOST = 60; // rows shown at a time: what is on its way comes first
const READ_MS = 400;
const RESERVE = 200_000_000; // bytes that stay free on the server's disk

const section = find("[data-images]");
const drop = find("[data-drop]", section);
const panel = find("[data-uploading]", section);
const status = find("[data-upload-status]", section);
const rejectedBox = find("[data-rejected]", section);

let upload = null;
let preparing = null; // items that wait until it is known whether there is room
const rows = new Map(); // item -> its row

/** Send items to the open folder, creating it first. While an upload runs, they join it. */
export async function send(items) {
  if (!items.length) {
    say(status, "There was no file in it.");
    return;
  }
  if (preparing) {
    preparing.push(...items);
    return;
  }
  if (upload && upload.project === project.name && !panel.hidden) {
    upload.add(items);
    return;
  }
  if (upload && !panel.hidden) {
    say(status, `Wait until the upload into ${upload.project} is over.`);
    return;
  }
  rejectedBox.hidden = true;
  say(status, "");
  const folder = project.name;
  preparing = [...items];
  try {
    await checkRoom(preparing);
    await ensureProject();
    if (folder !== project.name) throw new Error("Another folder was opened meanwhile: drop the files again.");
  } catch (error) {
    preparing = null;
    say(status, error.whole ?? error.message);
    if (error.field) find("#output_dir")?.focus();
    return;
  }
  upload = new Upload(folder, { onChange: drawLater, onAnswer: readLater });
  upload.add(preparing);
  preparing = null;
  await watch();
}

/** Tell before a byte is sent when the disk has no room for it. */
async function checkRoom(items) {
  const size = items.reduce((sum, item) => sum + item.size, 0);
  const { disk } = await get("/api/resources");
  const room = (disk?.free ?? Infinity) - RESERVE;
  if (size <= room) return;
  throw new Error(
    `These files have ${bytes(size)}; the server's disk has room for ${bytes(Math.max(0, room))}. Free some space there, then try again.`,
  );
}

async function watch() {
  panel.hidden = false;
  rows.clear();
  find("[data-transfers]", panel).replaceChildren();
  upload.begun = performance.now();
  draw();
  await upload.finished;
  draw();
  const focused = panel.contains(document.activeElement);
  panel.hidden = true;
  report();
  if (focused) find("[data-select]", section).focus();
  if (upload.project === project.name) await readProject().catch(complain);
  announce("images:changed");
}

const readLater = debounced(() => upload.project === project.name && readProject().catch(complain), READ_MS);

// -- progress -----------------------------------------------------------------------------------------

let drawn = 0;
let timer = null;

function drawLater() {
  if (timer) return;
  timer = setTimeout(draw, Math.max(0, DRAW_MS - (performance.now() - drawn)));
}

function draw() {
  clearTimeout(timer);
  timer = null;
  drawn = performance.now();
  const { items, total, sent } = upload;
  const over = items.filter((item) => item.over).length;
  find("[data-upload-bar]", panel).value = total ? sent / total : over / Math.max(1, items.length);
  say(find("[data-upload-text]", panel), progressText(items, over, sent, total));
  drawRows(items);
}

function progressText(items, over, sent, total) {
  const percent = total ? Math.floor((100 * sent) / total) : 0;
  if (items.some((item) => item.state === "retrying")) return "The connection broke off. Trying again…";
  if (percent === 100 && over < items.length) return "Uploaded. The server is looking at the files…";
  const seconds = (performance.now() - upload.begun) / 1000;
  const speed = seconds > 1 ? ` · ${bytes(sent / seconds)}/s` : "";
  const left = seconds > 2 && sent ? ` · ${duration((seconds * (total - sent)) / sent)} left` : "";
  return `Uploading: ${over} of ${count(items.length, "file")}, ${bytes(sent)} of ${bytes(total)} (${percent} %)${speed}${left}`;
}

const WORDS = { waiting: "waiting", checking: "being looked at", retrying: "again in a moment", sending: "" };

/** Rows of what is not over yet: what is on its way first, then what waits. */
function drawRows(items) {
  const open = items.filter((item) => !item.over);
  const shown = [
    ...open.filter((item) => item.state !== "waiting"),
    ...open.filter((item) => item.state === "waiting"),
  ].slice(0, LIST_MOST);
  const keep = new Set(shown);
  for (const [item, row] of rows) {
    if (keep.has(item)) continue;
    row.node.remove();
    rows.delete(item);
  }
  const list = find("[data-transfers]", panel);
  for (const [place, item] of shown.entries()) {
    const row = rows.get(item) ?? newRow(item);
    row.draw();
    if (list.children[place] !== row.node) list.insertBefore(row.node, list.children[place] ?? null);
  }
  say(find("[data-transfers-more]", panel), open.length > shown.length ? `and ${open.length - shown.length} more` : "");
}

function newRow(item) {
  const bar = el("progress", { className: "bar", max: 1, value: 0, "aria-label": item.name });
  const state = el("span", { className: "quiet numbers transfer-state" });
  const cancel = el("button", { type: "button", className: "link-button quiet", textContent: "Cancel" });
  cancel.append(el("span", { className: "visually-hidden", textContent: ` ${item.name}` }));
  cancel.addEventListener("click", () => upload.cancel(item));
  const node = el(
    "li",
    { className: "transfer small" },
    el("span", { className: "transfer-name", textContent: item.name, title: item.name }),
    bar,
    state,
    cancel,
  );
  const draw = () => {
    bar.value = item.share;
    say(state, WORDS[item.state] || `${Math.floor(100 * item.share)} %`);
  };
  rows.set(item, { node, draw });
  return { node, draw };
}

// -- the end --------------------------------------------------------------------------------------------

function report() {
  const items = upload.items.filter((item) => !item.reported);
  for (const item of items) item.reported = item.over && item.state !== "broken";
  const of = (...states) => items.filter((item) => states.includes(item.state));
  const archives = items.filter((item) => item.inner);
  const inside = (what) => archives.reduce((sum, item) => sum + item.held[what], 0);
  const added = of("added").filter((item) => !item.inner).length + inside("added");
  const present = of("present").length + inside("present");
  const captioned = of("captioned").length + inside("captions");
  const cancelled = of("cancelled").length;
  const parts = upload.project === project.name ? [] : [`${upload.project}:`];
  if (added) parts.push(`${count(added, "image")} added.`);
  if (captioned) parts.push(`${count(captioned, "caption")} came along.`);
  if (present) parts.push(`${count(present, "image")} ${present === 1 ? "was" : "were"} there already.`);
  if (cancelled) parts.push(`Upload cancelled: ${count(cancelled, "file")} not finished.`);
  say(status, parts.join(" "));
  const broken = of("broken");
  const bad = [...of("rejected"), ...broken, ...archives.flatMap((item) => item.inner)];
  showRejected(bad, broken.length);
}

/** List what was not taken, each with its reason; `broken`: how many of them can be sent again. */
export function showRejected(bad, broken = 0) {
  rejectedBox.hidden = bad.length === 0;
  find("[data-retry]", section).hidden = broken === 0;
  say(find("[data-rejected-title]", section), `Not added: ${count(bad.length, "file")}`);
  find("[data-rejected-list]", section).replaceChildren(...bad.map(rejectedRow));
}

function rejectedRow({ name, reason }) {
  return el("li", {}, el("span", { className: "mono", textContent: name }), ` – ${reason}`);
}

// -- choosing and dropping ------------------------------------------------------------------------------

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
    send(await droppedItems(event.dataTransfer));
  });
  // A file dropped beside the area must not replace the page.
  for (const type of ["dragover", "drop"]) {
    window.addEventListener(type, (event) => hasFiles(event) && event.preventDefault());
  }
}

function watchPaste() {
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length && !event.clipboardData.types.includes("text/plain")) send(chosenItems(files));
  });
}

function watchPicker(button, picker) {
  find(button, section).addEventListener("click", () => find(picker, section).click());
  find(picker, section).addEventListener("change", (event) => {
    send(chosenItems(event.target.files));
    event.target.value = "";
  });
}

/** Wire the upload up. */
export function startUploading() {
  watchPicker("[data-select]", "[data-files]");
  watchPicker("[data-select-folder]", "[data-folder-files]");
  watchDrops();
  watchPaste();
  find("[data-upload-cancel]", section).addEventListener("click", () => upload?.cancel());
  find("[data-rejected-close]", section).addEventListener("click", () => (rejectedBox.hidden = true));
  find("[data-retry]", section).addEventListener("click", () => {
    rejectedBox.hidden = true;
    upload.retry();
    watch();
  });
  find("[data-import]", section).addEventListener("click", () =>
    import("./importer.js").then(({ openImport }) => openImport()).catch(complain),
  );
  document.addEventListener("project:switching", () => {
    rejectedBox.hidden = true;
    say(status, "");
  });
  window.addEventListener("beforeunload", (event) => {
    if (upload && !panel.hidden) event.preventDefault();
  });
}
