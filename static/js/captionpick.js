/** Which images get a caption, and what becomes of the captions that are there. */

import { el, find, findAll, say } from "./dom.js";
import { count } from "./format.js";
import { allCards } from "./images.js";
import { targets } from "./workbench.js";

const WHICH = [
  ["empty", "Without a caption"],
  ["all", "All"],
  ["shown", "Those shown"],
  ["chosen", "Chosen"],
];
const MODES = [
  ["keep", "Keep them as they are"],
  ["replace", "Replace them"],
  ["append", "Put the new text behind them"],
];

const ticked = new Set(); // names, for as long as the folder is open
let which = "empty";
let mode = "keep";
let changed = () => {};
let last = null; // the box that was ticked last: a tick with Shift goes from there
let shifted = false;

const counts = new Map(); // which -> the node with how many those are
const choices = el("fieldset", {}, el("legend", { textContent: "Which images" }));
const tally = el("span", { className: "small numbers", role: "status" });
const none = el("button", { type: "button", className: "button button-small", textContent: "None" });
const all = el("button", { type: "button", className: "button button-small", textContent: "All" });
const grid = el("div", { className: "cap-grid", role: "group", "aria-label": "Images that get a caption" });
const chooser = el("div", { className: "cap-chooser" }, el("div", { className: "cap-line" }, none, all, tally), grid);
const modes = el("fieldset", {}, el("legend", { textContent: "Captions that are there" }));

/** The fields; `onChange` is called when something is another than before. */
export function buildPick(onChange) {
  changed = onChange;
  choices.append(...WHICH.map(([value, label]) => radioOf("caption-which", value, label, () => (which = value))));
  modes.append(...MODES.map(([value, label]) => radioOf("caption-mode", value, label, () => (mode = value))));
  none.addEventListener("click", () => tickAll(false));
  all.addEventListener("click", () => tickAll(true));
  wireGrid();
  document.addEventListener("project:switching", () => {
    ticked.clear();
    grid.replaceChildren();
    [which, mode] = ["empty", "keep"];
  });
  return el("div", { className: "cap-part" }, choices, chooser, modes);
}

function radioOf(name, value, label, take) {
  const radio = el("input", { type: "radio", name, value });
  const number = el("span", { className: "quiet numbers" });
  if (name === "caption-which") counts.set(value, number);
  radio.addEventListener("change", () => {
    take();
    drawPick();
    changed();
  });
  return el("label", { className: "check" }, radio, el("span", {}, label, number));
}

/** Draw with the images as they are now. */
export function drawPick() {
  const cards = allCards();
  const shown = targets();
  if (which === "shown" && !shown) which = "empty"; // the filter has gone
  const numbers = { empty: cards.filter(isEmpty).length, all: cards.length, shown: shown?.length ?? 0, chosen: namesTicked().length };
  for (const [value, node] of counts) {
    say(node, ` (${numbers[value]})`);
    const radio = node.closest("label").firstElementChild;
    radio.checked = value === which;
    if (value === "shown") node.closest("label").hidden = !shown;
  }
  chooser.hidden = which !== "chosen";
  if (which === "chosen") drawGrid(cards);
  say(tally, `${numbers.chosen} of ${count(cards.length, "image")}`);
  modes.hidden = !captioned();
  for (const radio of findAll("input", modes)) radio.checked = radio.value === mode;
}

const isEmpty = (card) => !card.text.trim();

const namesTicked = () => allCards().map(({ name }) => name).filter((name) => ticked.has(name));

/** The images that are chosen, as they are posted: "empty", "all" or names. */
export function whichPosted() {
  if (which === "chosen") return namesTicked();
  return which === "shown" ? (targets() ?? "empty") : which;
}

/** The cards of the images that are chosen. */
export function cardsChosen() {
  const posted = whichPosted();
  if (posted === "empty") return allCards().filter(isEmpty);
  const names = new Set(posted);
  return posted === "all" ? allCards() : allCards().filter(({ name }) => names.has(name));
}

/** How many of those have a caption. */
export const captioned = () => cardsChosen().filter((card) => !isEmpty(card)).length;

/** How many captions stay as they are. */
export function kept() {
  const there = allCards().filter((card) => !isEmpty(card)).length;
  return modePosted() === "keep" ? there : there - captioned();
}

/** What becomes of captions that are there; "keep" where there are none. */
export const modePosted = () => (modes.hidden ? "keep" : mode);

// -- ticking images ---------------------------------------------------------------------------------

const boxes = () => findAll("input", grid);

/** One tile an image; those that are there stay, with focus and scrolling. */
function drawGrid(cards) {
  const names = cards.map(({ name }) => name);
  if (boxes().map((box) => box.value).join("\n") !== names.join("\n")) {
    const known = new Map(boxes().map((box) => [box.value, box.parentElement]));
    grid.replaceChildren(...cards.map((card) => known.get(card.name) ?? tile(card)));
  }
  for (const box of boxes()) box.checked = ticked.has(box.value);
  const here = boxes().find((box) => box.tabIndex === 0);
  if (!here) boxes().forEach((box, index) => (box.tabIndex = index ? -1 : 0));
}

function tile({ name, image }) {
  const box = el("input", { type: "checkbox", value: name, tabIndex: -1 });
  const picture = el("img", { loading: "lazy", decoding: "async", alt: "", src: image.thumb });
  return el("label", { className: "cap-tile", title: name }, box, picture, el("span", { className: "visually-hidden", textContent: name }));
}

function wireGrid() {
  grid.addEventListener("pointerdown", (event) => (shifted = event.shiftKey));
  grid.addEventListener("keydown", (event) => {
    shifted = event.shiftKey;
    const to = neighbour(event.key);
    if (!to) return;
    event.preventDefault();
    stand(to);
  });
  grid.addEventListener("change", ({ target }) => {
    const range = shifted && last?.isConnected ? between(last, target) : [target];
    for (const box of range) tick(box.value, target.checked);
    last = target;
    stand(target);
    drawPick();
    changed();
  });
}

function between(a, b) {
  const order = boxes();
  const [from, to] = [order.indexOf(a), order.indexOf(b)].sort((x, y) => x - y);
  return order.slice(from, to + 1);
}

const tick = (name, on) => (on ? ticked.add(name) : ticked.delete(name));

function tickAll(on) {
  for (const { name } of allCards()) tick(name, on);
  drawPick();
  changed();
}

/** The box an arrow key leads to; Tab leads out of the grid. */
function neighbour(key) {
  const order = boxes();
  const at = order.indexOf(document.activeElement);
  if (at < 0) return null;
  const wide = Math.max(1, order.findIndex((box) => box.parentElement.offsetTop > order[0].parentElement.offsetTop));
  const way = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: wide, ArrowUp: -wide, Home: -at, End: order.length - 1 - at }[key];
  return way === undefined ? null : (order[at + way] ?? order[at]);
}

function stand(box) {
  const before = find('input[tabindex="0"]', grid);
  if (before) before.tabIndex = -1;
  box.tabIndex = 0;
  box.focus();
}
