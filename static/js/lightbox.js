/**
 * A sample in full: arrow keys and swipes lead along prompts and epochs, it can be zoomed, and laid over or beside
 * any other one. Loaded at first use; makes its own <dialog>.
 */

import { at, post } from "./api.js";
import { announce, el, icon, needStyle, say } from "./dom.js";
import { when } from "./format.js";
import { folder, groups, isBest, linkOf, place } from "./gallery.js";

const SWIPE_PX = 48;
const MOST_ZOOM = 8; // of 100 %
const STEP_ZOOM = 1.25;
const NEAR_PX = 28; // of the edge of the wipe, which can be taken there also while zoomed

const button = (label, mark, className = "icon-button lightbox-step") =>
  el("button", { type: "button", className, "aria-label": label, title: label }, icon(mark));

const toggle = (text) =>
  el("button", { type: "button", className: "button button-small", "aria-pressed": "false", textContent: text });

const pane = (letter) => {
  const image = el("img", { className: "lightbox-image", draggable: false, tabIndex: -1 });
  const tag = el("span", { className: "lightbox-tag small", "aria-hidden": "true" });
  return { letter, image, tag, node: el("div", { className: "lightbox-pane" }, image, tag) };
};

const a = pane("A");
const b = pane("B");
const edge = el("div", { className: "lightbox-edge", "aria-hidden": "true" });
const stage = el("div", { className: "lightbox-stage" }, a.node, b.node, edge);

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
const wipe = el("input", { type: "range", id: "lightbox-wipe", min: 0, max: 100, step: 1, value: 50 });
const swap = el("button", { type: "button", className: "button button-small", textContent: "Swap" });
const beside = el("input", { type: "checkbox" });
const besideLabel = el("label", { className: "check small lightbox-beside" }, beside, "Side by side");
const wipeBox = el("div", { className: "lightbox-wipe" }, el("label", { className: "small", htmlFor: "lightbox-wipe", textContent: "Wipe" }), wipe);
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
const checkpoint = el("a", { download: "" });
const best = el("button", { type: "button", className: "button button-small lightbox-best" }, icon("star"), "Best one");
const noCheckpoint = el("span", { className: "quiet" });
const dialog = el(
  "dialog",
  { className: "viewer lightbox", "aria-labelledby": "lightbox-title" },
  el("div", { className: "viewer-head" }, title, where, fullSize, compareButton, el("form", { method: "dialog" }, close)),
  el("div", { className: "lightbox-middle" }, back, stage, on),
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

const wide = matchMedia("(min-width: 900px)"); // enough for two beside one another
const isBeside = () => beside.checked && wide.matches;

let shown = null; // {group, row, column, sample}
let against = null; // what it is compared with, of the same shape, or null
let opener = null;
let moved = false;
let view = { scale: 1, x: 0, y: 0 }; // scale 1 fits; px from the middle

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
const words = (spot) => `${nameOf(spot)}, ${spot.row.prompt || `prompt ${spot.row.number + 1}`}`;

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
  fit();
  show(spot);
  dialog.showModal();
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
    if (!next && document.activeElement === control) a.image.focus(); // a disabled button hears no keys
    control.disabled = !next;
    if (next) new Image().src = next.sample.url; // at hand when it is asked for
  }
  name(later, "Later", beyond(spot, 0, 1));
  name(earlier, "Earlier", beyond(spot, 0, -1));
  drawComparison();
  trouble.hidden = true;
  say(spoken, against ? `${words(spot)}, compared with ${words(against)}` : words(spot));
}

function name(control, text, spot) {
  const label = spot ? `${text}: ${nameOf(spot)}` : text;
  control.title = label;
  control.setAttribute("aria-label", label);
}

function draw({ image, tag, letter }, spot) {
  if (image.getAttribute("src") !== spot.sample.url) image.src = spot.sample.url;
  image.alt = words(spot);
  say(tag, against ? `${letter}: ${nameOf(spot)}` : "");
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
    checkpoint.replaceChildren(icon("download"), `Download ${name}`);
  }
  say(noCheckpoint, epoch === 0 || step === 0 ? "Drawn before training, without a LoRA" : "No checkpoint was kept here");
}

// -- comparing --------------------------------------------------------------------------------------

function compare(yes) {
  against = yes ? partner() : null;
  show(shown);
  if (yes) (isBeside() ? other : wipe).focus();
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
  edge.hidden = !on || isBeside();
  wipeBox.hidden = isBeside();
  if (!on) return;
  draw(b, against);
  fillOther();
  drawWipe();
}

/** Every sample of the folder by run and prompt; made anew only when there are others. */
function fillOther() {
  const mark = groups().map((group) => `${group.key} ${group.size}`).join();
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
  return el("optgroup", { label }, ...names.map((name) => new Option(name, row.cells.get(name).name)));
}

function drawWipe() {
  stage.style.setProperty("--wipe", `${wipe.value}%`);
  const text = `${100 - wipe.value} % ${against ? nameOf(against) : ""}`;
  wipe.setAttribute("aria-valuetext", `${wipe.value} % ${nameOf(shown)}, ${text}`);
}

function wipeTo(clientX) {
  const box = stage.getBoundingClientRect();
  wipe.value = String(Math.round((100 * (clientX - box.left)) / box.width));
  drawWipe();
}

const isWiping = () => Boolean(against) && !isBeside();

// -- zoom -------------------------------------------------------------------------------------------

/** The scale at which one pixel of the picture is one of the page. */
function fullScale() {
  const { naturalWidth: width, naturalHeight: height } = a.image;
  const box = a.node.getBoundingClientRect();
  return width && box.width ? 1 / Math.min(box.width / width, box.height / height) : 1;
}

function fit() {
  look({ scale: 1, x: 0, y: 0 });
}

function look({ scale, x, y }) {
  const most = Math.max(1, fullScale()) * MOST_ZOOM;
  const least = Math.min(1, fullScale());
  const kept = Math.min(Math.max(scale, least), most);
  const box = a.node.getBoundingClientRect();
  const room = { x: Math.max(0, (box.width * (kept - 1)) / 2), y: Math.max(0, (box.height * (kept - 1)) / 2) };
  const within = (value, limit) => Math.min(Math.max(value, -limit), limit);
  view = { scale: kept, x: within(x, room.x), y: within(y, room.y) };
  stage.style.setProperty("--zoom", String(view.scale));
  stage.style.setProperty("--x", `${view.x}px`);
  stage.style.setProperty("--y", `${view.y}px`);
  dialog.toggleAttribute("data-zoomed", view.scale > 1);
  fullSize.setAttribute("aria-pressed", String(isFull()));
}

const isFull = () => Math.abs(view.scale - fullScale()) < 0.001;

/** Zoom by a factor, the point under the pointer staying where it is (px of the window), else the middle. */
function zoom(factor, point = null) {
  const box = (point && paneAt(point) ? paneAt(point) : a.node).getBoundingClientRect();
  const [px, py] = point ? [point.x - box.left - box.width / 2, point.y - box.top - box.height / 2] : [0, 0];
  look({ scale: view.scale * factor, x: px - (px - view.x) * factor, y: py - (py - view.y) * factor });
}

const paneAt = ({ x }) => [b.node, a.node].find((node) => {
  const box = node.getBoundingClientRect();
  return !node.hidden && x >= box.left && x <= box.right;
});

const toFull = () => (isFull() ? fit() : zoom(fullScale() / view.scale));

// -- fingers and mouse ------------------------------------------------------------------------------

const pointers = new Map(); // id -> {x, y}
let gesture = null; // {kind: "swipe" | "pan" | "wipe" | "pinch", x, y}

function down(event) {
  if (event.button) return;
  event.preventDefault();
  stage.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  gesture = { kind: kindOf(event), x: event.clientX, y: event.clientY, gap: gap() };
  if (gesture.kind === "wipe") wipeTo(event.clientX);
}

function kindOf({ clientX, pointerType }) {
  if (pointers.size > 1) return "pinch";
  if (isWiping() && (view.scale <= 1 || nearEdge(clientX))) return "wipe";
  if (view.scale > 1) return "pan";
  return pointerType === "mouse" ? null : "swipe";
}

function nearEdge(clientX) {
  const box = stage.getBoundingClientRect();
  return Math.abs(clientX - box.left - (box.width * wipe.value) / 100) < NEAR_PX;
}

const middle = () => {
  const all = [...pointers.values()];
  return { x: all.reduce((sum, { x }) => sum + x, 0) / all.length, y: all.reduce((sum, { y }) => sum + y, 0) / all.length };
};

const gap = () => {
  const [one, two] = pointers.values();
  return two ? Math.hypot(one.x - two.x, one.y - two.y) : 0;
};

function move(event) {
  const last = pointers.get(event.pointerId);
  if (!last || !gesture) return;
  const before = middle();
  pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  const now = middle();
  if (gesture.kind === "wipe") wipeTo(event.clientX);
  if (gesture.kind === "pan" || gesture.kind === "pinch")
    look({ ...view, x: view.x + now.x - before.x, y: view.y + now.y - before.y });
  if (gesture.kind === "pinch" && gesture.gap) {
    zoom(gap() / gesture.gap, now);
    gesture.gap = gap();
  }
}

function up(event) {
  if (!pointers.delete(event.pointerId)) return;
  if (gesture?.kind === "swipe" && event.type === "pointerup") swiped(event.clientX - gesture.x, event.clientY - gesture.y);
  if (gesture?.kind === "pinch" && view.scale < 1.02 && view.scale >= 0.98) fit();
  gesture = pointers.size ? { kind: view.scale > 1 ? "pan" : null } : null;
}

function swiped(x, y) {
  if (Math.max(Math.abs(x), Math.abs(y)) < SWIPE_PX) return;
  if (Math.abs(x) > Math.abs(y)) go(x < 0 ? 1 : -1, 0);
  else go(0, y < 0 ? 1 : -1); // what comes up from below is what came later
}

// -- keys -------------------------------------------------------------------------------------------

const KEYS = {
  ArrowLeft: () => go(-1, 0),
  ArrowRight: () => go(1, 0),
  ArrowUp: () => go(0, 1),
  ArrowDown: () => go(0, -1),
  "+": () => zoom(STEP_ZOOM),
  "=": () => zoom(STEP_ZOOM),
  "-": () => zoom(1 / STEP_ZOOM),
  0: fit,
  1: toFull,
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
dialog.addEventListener("close", () => {
  const link = moved ? linkOf(shown.sample) : opener;
  const back = link?.checkVisibility() ? link : opener;
  pointers.clear();
  back?.focus();
  back?.scrollIntoView({ block: "nearest", inline: "nearest" });
});
stage.addEventListener("pointerdown", down);
stage.addEventListener("pointermove", move);
stage.addEventListener("pointerup", up);
stage.addEventListener("pointercancel", up);
stage.addEventListener("dblclick", (event) => (view.scale > 1 || isFull() ? fit() : zoom(Math.max(2, fullScale()), { x: event.clientX, y: event.clientY })));
stage.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / (event.ctrlKey ? 100 : 400)), { x: event.clientX, y: event.clientY });
  },
  { passive: false },
);
a.image.addEventListener("load", () => {
  drawFacts();
  look(view);
});
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
fullSize.addEventListener("click", toFull);
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
wipe.addEventListener("input", drawWipe);
const besideChanged = () => {
  drawComparison();
  fit();
};
beside.addEventListener("change", besideChanged);
wide.addEventListener("change", () => dialog.open && besideChanged());
back.addEventListener("click", () => go(-1, 0));
on.addEventListener("click", () => go(1, 0));
later.addEventListener("click", () => go(0, 1));
earlier.addEventListener("click", () => go(0, -1));
window.addEventListener("resize", () => dialog.open && look(view));
