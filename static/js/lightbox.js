/**
 * A sample in full: arrow keys and swipes lead along prompts and epochs, it can be zoomed, and laid over or beside
 * any other one. Loaded at first use; makes its own <dialog>.
 */

import { at, post } from "./api.js";
import { closeOnBack } from "./back.js";
import { announce, el, find, icon, needStyle, say } from "./dom.js";
import { when } from "./format.js";
import { folder, groups, isBest, linkOf, place } from "./gallery.js";
import { Gestures } from "./gestures.js";
import { Wipe } from "./wipe.js";
import { Zoom } from "./zoom.js";

const STEP_ZOOM = 1.25;
const NAME_LENGTH = 16; // of a run's name where there is little room

const button = (label, mark, className = "icon-button viewer-step lightbox-step") =>
  el("button", { type: "button", className, "aria-label": label, title: label }, icon(mark));

const toggle = (text) =>
  el("button", { type: "button", className: "button button-small", "aria-pressed": "false", textContent: text });

const pane = (letter) => {
  const image = el("img", { className: "lightbox-image", draggable: false, tabIndex: -1 });
  const [label, run, began] = ["lightbox-tag-place", "lightbox-tag-run", "numbers"].map((className) => el("span", { className }));
  const tag = el("div", { className: "lightbox-tag small", "aria-hidden": "true" }, label, run, began);
  return { letter, image, tag, label, run, began, node: el("div", { className: "lightbox-pane" }, image, tag) };
};

const a = pane("A");
const b = pane("B");
const stage = el("div", { className: "lightbox-stage" }, a.node, b.node);
const wipe = new Wipe(stage);

const title = el("h2", { id: "lightbox-title" });
const where = el("span", { className: "small quiet numbers lightbox-place" });
const spoken = el("p", { className: "visually-hidden", role: "status" }); // each step, for ears
const trouble = el("p", { className: "field-error", role: "alert", hidden: true });
const compareButton = toggle("Compare");
const fullSize = toggle("100 %");
const close = el("button", { className: "icon-button", "aria-label": "Close" }, icon("close"));

const back = button("Prompt before", "back");
const on = button("Next prompt", "chevron");
const later = button("Later", "up", "icon-button");
const earlier = button("Earlier", "down", "icon-button");

const other = el("select", { className: "input", id: "lightbox-other" });
const swap = el("button", { type: "button", className: "button button-small", textContent: "Swap" });
const beside = el("input", { type: "checkbox" });
const besideLabel = el("label", { className: "check small lightbox-beside" }, beside, "Side by side");
const wipeBox = el("div", { className: "lightbox-wipe" }, el("label", { className: "small", htmlFor: "lightbox-wipe", textContent: "Wipe" }), wipe.slider);
const comparison = el(
  "div",
  { className: "lightbox-compare", role: "group", "aria-label": "Comparison", hidden: true },
  el("label", { className: "small", htmlFor: "lightbox-other", textContent: "Compare with" }),
  other,
  swap,
  besideLabel,
  wipeBox,
);

const prompt = el("p", { className: "lightbox-prompt" });
const facts = el("p", { className: "small quiet numbers" });
const open = el("a", { target: "_blank", rel: "noopener", textContent: "Open in a new tab" });
const checkpoint = el("a", { className: "lightbox-checkpoint", download: "" });
const best = el("button", { type: "button", className: "button button-small lightbox-best" }, icon("star"), "Best one");
const noCheckpoint = el("span", { className: "quiet" });
const dialog = el(
  "dialog",
  { className: "viewer lightbox", "aria-labelledby": "lightbox-title" },
  el("div", { className: "viewer-head" }, title, where, fullSize, compareButton, el("form", { method: "dialog" }, close)),
  el("div", { className: "viewer-stage lightbox-middle" }, back, stage, on),
  el(
    "div",
    { className: "viewer-foot" },
    comparison,
    trouble,
    spoken,
    el(
      "div",
      { className: "lightbox-about" },
      el("div", { className: "lightbox-words" }, prompt, facts),
      el("div", { className: "lightbox-course", role: "group", "aria-label": "Course of training" }, later, earlier),
    ),
    el("p", { className: "small lightbox-links" }, open, checkpoint, best, noCheckpoint),
    el("p", {
      className: "small quiet viewer-keys",
      textContent: "← → other prompts, ↑ later, ↓ earlier, + − zoom, 0 fit, 1 full size, C compare. Swipe on a touch screen.",
    }),
  ),
);
document.body.append(dialog);

const wide = matchMedia("(min-width: 900px) and (min-height: 501px)"); // enough for two beside one another
const isBeside = () => beside.checked && wide.matches;

let shown = null; // {group, row, column, sample}
let against = null; // what it is compared with, of the same shape, or null
let opener = null;
let moved = false;

const zoom = new Zoom(stage, [a, b], () => {
  dialog.toggleAttribute("data-zoomed", zoom.scale > 1);
  fullSize.setAttribute("aria-pressed", String(zoom.isFull));
});
const gestures = new Gestures(stage, { zoom, wipe, isWiping: () => Boolean(against) && !isBeside(), swiped });

// -- where we are -----------------------------------------------------------------------------------

function found(name) {
  for (const group of groups()) {
    for (const row of group.rows) {
      for (const [column, sample] of row.cells) if (sample.name === name) return { group, row, column, sample };
    }
  }
  return null;
}

const nameOf = (spot) => place(spot.sample).name;
const isOfOther = (spot) => against && spot.group.key !== (spot === shown ? against : shown).group.key;
const among = (spot) => (isOfOther(spot) ? `, of ${spot.group.title}` : ""); // told only where runs differ
const words = (spot) => `${nameOf(spot)}, ${spot.row.prompt || `prompt ${spot.row.number + 1}`}${among(spot)}`;

/** A run by name and day, as short as can be: two runs of one LoRA have the same name. */
function runOf({ group: { run }, sample }) {
  if (!run) return { name: sample.lora ?? "Samples", began: "not on record" };
  const date = new Date(run.started * 1000);
  const year = date.getFullYear() === new Date().getFullYear() ? undefined : "numeric";
  const began = date.toLocaleString([], { year, month: "short", day: "numeric", hour: "numeric", minute: "2-digit" });
  return { name: run.name, began };
}

const shortened = (text) => (text.length > NAME_LENGTH ? `${text.slice(0, NAME_LENGTH - 1)}…` : text);

/** The next cell that is filled, `rows` prompts or `columns` places on; null at the end. */
function beyond({ group, row, column }, rows, columns) {
  const names = group.columns.map((one) => one.name);
  let [y, x] = [group.rows.indexOf(row), names.indexOf(column)];
  for (;;) {
    [y, x] = [y + rows, x + columns];
    if (!group.rows[y] || !names[x]) return null;
    const sample = group.rows[y].cells.get(names[x]);
    if (sample) return { group, row: group.rows[y], column: names[x], sample };
  }
}

/** Open the view on a sample by name. */
export async function openLightbox(name, from) {
  await needStyle("lightbox.css");
  const spot = found(name);
  if (!spot) return;
  [opener, moved, against] = [from, false, null];
  zoom.fit();
  show(spot);
  dialog.showModal();
  closeOnBack(dialog);
  a.image.focus();
}

/** The grids were drawn anew: what is shown may have a neighbour more. */
export function update() {
  if (!dialog.open) return;
  const spot = found(shown.sample.name);
  if (!spot) return dialog.close();
  if (against) against = found(against.sample.name);
  show(spot);
}

function go(rows, columns) {
  const next = beyond(shown, rows, columns);
  if (!next) return;
  moved = true;
  if (against?.group === shown.group && rows) follow(next);
  show(next);
}

/** To another prompt the comparison goes along, in its own column, if it was of the same prompt. */
function follow(next) {
  const sample = against.row === shown.row && next.row.cells.get(against.column);
  if (sample) against = { group: next.group, row: next.row, column: against.column, sample };
}

// -- drawing ----------------------------------------------------------------------------------------

function show(spot) {
  shown = spot;
  const { group, row, sample } = spot;
  draw(a, spot);
  say(title, nameOf(spot));
  const prompts = group.rows.length > 1 ? `Prompt ${group.rows.indexOf(row) + 1} of ${group.rows.length}` : "";
  say(where, [prompts, group.title].filter(Boolean).join(" · "));
  say(prompt, row.prompt || "The prompt of this run is not known any more.");
  open.href = sample.url;
  drawFacts();
  drawCheckpoint(sample);
  const steps = [
    [back, beyond(spot, -1, 0)],
    [on, beyond(spot, 1, 0)],
    [later, beyond(spot, 0, 1)],
    [earlier, beyond(spot, 0, -1)],
  ];
  for (const [control, next] of steps) {
    control.disabled = !next;
    if (next) new Image().src = next.sample.url; // at hand when it is asked for
  }
  name(later, "Later", beyond(spot, 0, 1));
  name(earlier, "Earlier", beyond(spot, 0, -1));
  drawComparison();
  trouble.hidden = true;
  say(spoken, against ? `${words(spot)}, compared with ${words(against)}` : words(spot));
  keepFocus();
}

/** What had the focus may be hidden or disabled now, and would hear no keys. */
function keepFocus() {
  const focused = document.activeElement;
  if (dialog.open && (focused === document.body || focused.disabled || !focused.checkVisibility())) a.image.focus();
}

function name(control, text, spot) {
  const label = spot ? `${text}: ${nameOf(spot)}` : text;
  control.title = label;
  control.setAttribute("aria-label", label);
}

function draw({ image, tag, label, run, began, letter }, spot) {
  if (image.getAttribute("src") !== spot.sample.url) image.src = spot.sample.url;
  image.alt = words(spot);
  tag.hidden = !against;
  say(label, `${letter}: ${nameOf(spot)}`);
  const told = isOfOther(spot) ? runOf(spot) : { name: "", began: "" };
  say(run, told.name);
  say(began, told.began);
}

function drawFacts() {
  const { sample } = shown;
  const { naturalWidth: width, naturalHeight: height } = a.image;
  const parts = [
    sample.seed === null ? "seed not known" : `seed ${sample.seed}`,
    a.image.complete && width ? `${width} × ${height} px` : "",
    when(sample.modified),
    ...drawnWith(sample.options ?? ""),
  ];
  say(facts, parts.filter(Boolean).join(" · "));
}

const OPTIONS = {
  s: (value) => `${value} steps`,
  l: (value) => `guidance ${Number(value)}`,
  fs: (value) => `flow shift ${Number(value)}`,
  n: (value) => `without: ${value}`,
};

/** The options of a prompt line in words; size and seed are told of the picture itself. */
const drawnWith = (options) =>
  [...` ${options}`.matchAll(/ --([a-z]+) (.*?)(?= --|$)/g)]
    .map(([, letter, value]) => value.trim() && OPTIONS[letter]?.(value.trim()))
    .filter(Boolean);

function drawCheckpoint(sample) {
  const { checkpoint: name, epoch, step } = sample;
  best.hidden = !name;
  best.setAttribute("aria-pressed", String(isBest(sample)));
  checkpoint.hidden = !name;
  noCheckpoint.hidden = Boolean(name);
  if (name) {
    checkpoint.href = at("projects", folder(), "files", name);
    checkpoint.replaceChildren(icon("download"), el("span", { textContent: `Download ${name}`, title: name }));
  }
  say(noCheckpoint, epoch === 0 || step === 0 ? "Drawn before training, without a LoRA" : "No checkpoint was kept here");
}

// -- comparing --------------------------------------------------------------------------------------

function compare(yes) {
  against = yes ? partner() : null;
  show(shown);
  if (yes) (isBeside() ? other : wipe.slider).focus();
}

/** What one compares with first: the baseline of the prompt, or what was drawn before, or after, or any other. */
function partner() {
  const { group, row } = shown;
  const first = group.columns.map((one) => one.name).find((name) => row.cells.has(name));
  const near = first === shown.column ? (beyond(shown, 0, 1) ?? beyond(shown, 1, 0)) : null;
  return near ?? { group, row, column: first, sample: row.cells.get(first) };
}

function drawComparison() {
  const on = Boolean(against);
  compareButton.setAttribute("aria-pressed", String(on));
  comparison.hidden = !on;
  b.node.hidden = !on;
  dialog.toggleAttribute("data-comparing", on);
  dialog.toggleAttribute("data-beside", on && isBeside());
  wipe.edge.hidden = !on || isBeside();
  wipeBox.hidden = isBeside();
  if (!on) return;
  draw(b, against);
  fillOther();
  wipe.name(nameOf(shown) + among(shown), nameOf(against) + among(against));
}

/** Every sample of the folder by run and prompt; made anew only when there are others, or other runs. */
function fillOther() {
  const mark = [shown.group.key, ...groups().map((group) => `${group.key} ${group.size}`)].join();
  if (other.dataset.mark !== mark) {
    other.dataset.mark = mark;
    other.replaceChildren(...groups().flatMap((group) => group.rows.map((row) => optionsOf(group, row))));
  }
  other.value = against.sample.name;
}

function optionsOf(group, row) {
  const text = row.prompt ? `${row.number + 1}. ${row.prompt}` : `Prompt ${row.number + 1}`;
  const label = groups().length > 1 ? `${group.title}: ${text}` : text;
  const names = group.columns.map((column) => column.name).filter((name) => row.cells.has(name));
  const options = names.map((name) => {
    const sample = row.cells.get(name);
    const { name: run, began } = runOf({ group, sample });
    const isForeign = group !== shown.group; // closed, the list shows no label of a run
    return new Option(isForeign ? `${name} · ${began} · ${shortened(run)}` : name, sample.name);
  });
  return el("optgroup", { label }, ...options);
}

// -- fingers and keys -------------------------------------------------------------------------------

function swiped(x, y) {
  if (Math.abs(x) > Math.abs(y)) go(x < 0 ? 1 : -1, 0);
  else go(0, y < 0 ? 1 : -1); // what comes up from below is what came later
}

const KEYS = {
  ArrowLeft: () => go(-1, 0),
  ArrowRight: () => go(1, 0),
  ArrowUp: () => go(0, 1),
  ArrowDown: () => go(0, -1),
  "+": () => zoom.by(STEP_ZOOM),
  "=": () => zoom.by(STEP_ZOOM),
  "-": () => zoom.by(1 / STEP_ZOOM),
  0: () => zoom.fit(),
  1: () => zoom.toFull(),
  c: () => compare(!against),
};

function pressed(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.target.matches("select, input") && event.key !== "c") return; // they have a use for the keys
  const act = KEYS[event.key];
  if (!act || event.target === other) return;
  event.preventDefault();
  act();
}

dialog.addEventListener("keydown", pressed);
/** Where the focus goes on closing. What was there at the beginning may have been drawn anew since. */
function wayBack() {
  const links = [linkOf(shown.sample), find(`[data-key="${CSS.escape(shown.group.key)}"] > summary`), standIn(opener)];
  if (!moved) links.unshift(standIn(opener));
  return links.find((link) => link?.checkVisibility()) ?? find(".samples-scroll");
}

/** The element that stands in a drawing where `node` stood in the one before. */
function standIn(node) {
  const { key } = node.dataset;
  return node.isConnected || !key ? node : find(`[data-key="${CSS.escape(key)}"]`);
}

dialog.addEventListener("keydown", pressed);
dialog.addEventListener("close", () => {
  gestures.forget();
  const link = wayBack();
  link?.focus();
  link?.scrollIntoView({ block: "nearest", inline: "nearest" });
});
a.image.addEventListener("load", () => {
  drawFacts();
  zoom.again();
});
b.image.addEventListener("load", () => zoom.again());
best.addEventListener("click", async () => {
  const { sample } = shown;
  try {
    await post(at("projects", folder(), "outputs", sample.checkpoint, "best"), { best: !isBest(sample) });
    announce("outputs:changed"); // and so comes back, see update()
  } catch (error) {
    say(trouble, error.whole ?? error.message); // a message in the corner would lie behind
    trouble.hidden = false;
  }
});
fullSize.addEventListener("click", () => zoom.toFull());
compareButton.addEventListener("click", () => compare(!against));
swap.addEventListener("click", () => {
  const was = shown;
  const next = against;
  against = was;
  moved = true;
  show(next);
});
other.addEventListener("change", () => {
  against = found(other.value);
  show(shown);
});
const besideChanged = () => {
  drawComparison();
  zoom.fit();
  keepFocus();
};
beside.addEventListener("change", besideChanged);
wide.addEventListener("change", () => dialog.open && besideChanged());
back.addEventListener("click", () => go(-1, 0));
on.addEventListener("click", () => go(1, 0));
later.addEventListener("click", () => go(0, 1));
earlier.addEventListener("click", () => go(0, -1));
window.addEventListener("resize", () => dialog.open && zoom.again());
