/** The LoRA files of a folder: epoch, loss, samples, download, the best one, deleting. Loaded when there are any. */

import { at, get, post, remove } from "./api.js";
import { closeOnBack } from "./back.js";
import { complain, confirmed, toast } from "./dialogs.js";
import { announce, el, icon, say } from "./dom.js";
import { bytes, count, loss, when } from "./format.js";
import { openSample, thumbOf } from "./gallery.js";
import { isLost, openFolds, redraw } from "./keepfocus.js";

const FEW = 6; // rows of a run that show at once

let shown = { panel: null, project: "", told: null, samples: new Map(), mark: "" };
const whole = new Set(); // runs all of whose files are shown
const pictures = new Map(); // file -> {link, mark}: the full view gives the focus back to the very link
let awaited = null; // {name, from}: a file that comes back, and the focus with it

/** Show the LoRA files of a folder as they are now; `samples` are those of the folder. */
export async function showOutputs(panel, project, samples) {
  if (project !== shown.project) {
    whole.clear();
    pictures.clear();
    awaited = null;
    shown.told = null;
    panel.hidden = true;
  }
  Object.assign(shown, { panel, project });
  const told = await get(at("projects", project, "outputs"));
  if (shown.project !== project) return;
  Object.assign(shown, { told, samples: new Map(samples.map((sample) => [sample.name, sample])) });
  draw();
}

// -- drawing ----------------------------------------------------------------------------------------

function draw() {
  const { panel, told } = shown;
  const mark = JSON.stringify([shown.project, told, [...whole]]);
  redraw(panel, () => {
    if (mark !== shown.mark) panel.replaceChildren(...contents(openFolds(panel)));
    panel.hidden = !told.files.length && !told.cards.length;
  });
  shown.mark = mark;
  if (awaited) welcome();
}

function contents(open) {
  const { told, samples } = shown;
  const runs = new Map(told.runs.map((run) => [run.id, run]));
  const [first, ...before] = grouped(told.files, runs);
  return [
    headOf(told.cards),
    ...(first ? [newest(first, samples)] : []),
    ...before.map((group) => folded(group, samples, open)),
    ...(told.files.some((file) => file.loss !== null) ? [explanation()] : []),
  ];
}

/** Lead to the row that came back, unless the person has gone on to something else. */
function welcome() {
  const { name, from } = awaited;
  const button = buttonOf(name, "delete");
  if (!button) return;
  awaited = null;
  if (isLost() || document.activeElement === from || shown.panel.contains(document.activeElement)) button.focus();
}

const buttonOf = (name, act) => shown.panel.querySelector(`[data-key="file ${CSS.escape(name)}"] [data-act="${act}"]`);

function headOf(cards) {
  const head = el("div", { className: "panel-head" }, el("h2", { textContent: "LoRA files" }));
  const links = cards.map((name) => {
    const own = name.slice("LORA_README.".length, -".md".length);
    const text = own && cards.length > 1 ? `Model card ${own}` : "Model card";
    const button = el("button", { type: "button", className: "button button-small button-bare", textContent: text });
    button.dataset.act = `card ${name}`;
    button.addEventListener("click", () => showCard(name).catch(complain));
    return button;
  });
  head.append(el("div", { className: "row" }, ...links));
  return head;
}

/** Files by run, in the order in which the server lists them. */
function grouped(files, runs) {
  const found = new Map();
  for (const file of files) {
    const key = file.run ?? "";
    if (!found.has(key)) found.set(key, { key, run: runs.get(file.run) ?? null, files: [] });
    found.get(key).files.push(file);
  }
  return [...found.values()];
}

function titleOf({ run, files }) {
  if (!run) return `From runs that are not on record (${count(files.length, "file")})`;
  const state = { running: ", under way", failed: ", failed", stopped: ", stopped", interrupted: ", interrupted" }[run.state] ?? "";
  return `${run.name}, run of ${when(run.started)}${state} (${count(files.length, "file")})`;
}

const keyOf = (group) => `run ${group.key}`;

function newest(group, samples) {
  const title = el("p", { className: "small quiet", textContent: titleOf(group) });
  return el("div", { data: { key: keyOf(group) } }, title, listOf(group, samples));
}

function folded(group, samples, open) {
  const best = group.files.some((file) => file.best);
  const title = el("summary", {}, icon("chevron"), titleOf(group) + (best ? ", with the best one" : ""));
  title.firstChild.classList.add("chevron");
  const key = keyOf(group);
  return el("details", { className: "disclosure small samples-run", open: open.has(key), data: { key } }, title, listOf(group, samples));
}

function listOf(group, samples) {
  const all = whole.has(group.key) || group.files.length <= FEW + 1;
  const rows = group.files.filter((file, place) => all || place < FEW || file.best);
  const list = el("ol", { className: "outputs" }, ...rows.map((file) => row(file, samples)));
  if (all) return list;
  const more = el("button", { type: "button", className: "button button-small button-bare", textContent: `Show all ${group.files.length} files` });
  more.addEventListener("click", () => {
    const [next] = group.files.filter((file) => !rows.includes(file));
    whole.add(group.key);
    draw();
    buttonOf(next.name, "download")?.focus();
  });
  return el("div", {}, list, more);
}

/** What a file is, as a person says it. */
function nameOf(file) {
  if (file.last) return file.epoch ? `Finished LoRA, epoch ${file.epoch}` : "Finished LoRA";
  return file.epoch ? `Epoch ${file.epoch}` : `Step ${file.step}`;
}

function row(file, samples) {
  const step = file.step && !nameOf(file).startsWith("Step") ? `step ${file.step}` : "";
  const facts = [
    file.loss === null ? "" : `loss ${loss(file.loss)}`,
    step,
    bytes(file.bytes),
    when(file.modified),
  ];
  const title = el("p", { className: "output-title" }, el("strong", { textContent: nameOf(file) }));
  if (file.best) title.append(el("span", { className: "tag", textContent: "Best", data: { tone: "good" } }));
  if (file.busy) title.append(el("span", { className: "tag", textContent: "In use by a run", data: { tone: "accent" } }));
  return el(
    "li",
    { className: "output", data: { key: `file ${file.name}` } },
    pictureOf(file, samples),
    el(
      "div",
      { className: "output-words" },
      title,
      el("p", { className: "mono output-name", textContent: file.name }),
      el("p", { className: "small quiet numbers", textContent: facts.filter(Boolean).join(" · ") }),
    ),
    el("div", { className: "output-acts" }, download(file), bestButton(file), deleteButton(file)),
  );
}

function pictureOf(file, samples) {
  const known = file.samples.map((name) => samples.get(name)).filter(Boolean);
  const [sample] = known.sort((a, b) => a.prompt_number - b.prompt_number);
  if (!sample) return el("span", { className: "output-picture", "aria-hidden": "true" });
  const mark = JSON.stringify([sample.name, sample.thumb, nameOf(file)]);
  if (pictures.get(file.name)?.mark !== mark) pictures.set(file.name, { link: pictureLink(file, sample), mark });
  return pictures.get(file.name).link;
}

function pictureLink(file, sample) {
  const image = thumbOf(sample, `Samples of ${nameOf(file)}`, 56);
  const link = el("a", { className: "output-picture", href: sample.url, target: "_blank", rel: "noopener", data: { act: "picture" } }, image);
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    openSample(sample.name, link);
  });
  return link;
}

const explanation = () =>
  el("p", {
    className: "small quiet outputs-note",
    textContent: "Loss: mean of the last 10 steps up to the file. Samples tell more than it does.",
  });

// -- what can be done -------------------------------------------------------------------------------

/** Say what became of a file; `what`: {gone}, {back} or {best} with its name, best null when none is any more. */
const changed = (project, what) => announce("outputs:changed", { project, ...what });

const act = (mark, label, name, more = {}) =>
  el("button", { type: "button", className: "icon-button", "aria-label": label, title: label, data: { act: name }, ...more }, icon(mark));

function download(file) {
  const label = `Download ${nameOf(file)}: ${file.name}`;
  return el(
    "a",
    { className: "icon-button", href: file.url, download: file.name, "aria-label": label, title: label, data: { act: "download" } },
    icon("download"),
  );
}

function bestButton(file) {
  const button = act("star", `Best one: ${file.name}`, "best", { "aria-pressed": String(file.best) });
  button.addEventListener("click", async () => {
    const folder = shown.project;
    try {
      await post(at("projects", folder, "outputs", file.name, "best"), { best: !file.best });
      changed(folder, { best: file.best ? null : file.name });
    } catch (error) {
      complain(error);
    }
  });
  return button;
}

function deleteButton(file) {
  const button = act("trash", `Delete ${file.name}`, "delete");
  button.disabled = file.busy;
  if (file.busy) button.title = "A run under way needs this file";
  button.addEventListener("click", () => forget(file));
  return button;
}

async function forget(file) {
  const folder = shown.project;
  const sure = await confirmed({
    title: `Delete ${file.name}?`,
    text: `${nameOf(file)}, ${bytes(file.bytes)}. Its samples stay. Its room on the disk is free ten minutes later.`,
    yes: "Delete",
  });
  if (!sure) return;
  try {
    const { undo } = await remove(at("projects", folder, "outputs", file.name));
    toast(`${file.name} deleted.`, { undo: () => bringBack(folder, undo) });
    changed(folder, { gone: file.name });
  } catch (error) {
    complain(error);
  }
}

async function bringBack(folder, key) {
  const from = document.activeElement;
  try {
    const { restored } = await post(at("projects", folder, "outputs", "restore", key));
    toast(`${restored} is back.`);
    if (folder === shown.project) awaited = { name: restored, from };
    changed(folder, { back: restored });
  } catch (error) {
    complain(error);
  }
}

// -- the model card ---------------------------------------------------------------------------------

let dialog = null;

async function showCard(name) {
  const url = at("projects", shown.project, "files", name);
  const answer = await fetch(url);
  if (!answer.ok) throw new Error("The model card could not be read.");
  const text = await answer.text();
  dialog ??= cardDialog();
  say(dialog.querySelector("h2"), name);
  say(dialog.querySelector("pre"), text);
  const link = dialog.querySelector("a");
  [link.href, link.download] = [url, name];
  dialog.showModal();
  closeOnBack(dialog);
}

/** Copy what a node says; over plain HTTP by selecting it, which a dialog allows within itself only. */
async function copied(node) {
  try {
    await navigator.clipboard.writeText(node.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(node);
    return document.execCommand("copy");
  }
}

function cardDialog() {
  const copy = el("button", { type: "button", className: "button button-small" }, icon("copy"), "Copy");
  const text = el("pre", { className: "card-text mono", tabIndex: 0 });
  copy.addEventListener("click", async () => {
    say(copy.lastChild, (await copied(text)) ? "Copied" : "Can’t copy here");
    setTimeout(() => say(copy.lastChild, "Copy"), 2000);
  });
  const box = el(
    "dialog",
    { className: "dialog card-dialog", "aria-labelledby": "card-title" },
    el("h2", { id: "card-title" }),
    el("p", {
      className: "small quiet",
      textContent: "Markdown for Hugging Face. Edit the file in the folder if you like: a card you changed is not written over.",
    }),
    text,
    el(
      "form",
      { className: "row", method: "dialog" },
      copy,
      el("a", { className: "button button-small" }, icon("download"), "Download"),
      el("button", { className: "button button-small", textContent: "Close" }),
    ),
  );
  document.body.append(box);
  return box;
}
