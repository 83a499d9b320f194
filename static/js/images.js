/** Step 1 of the page: the folder's images, one card for each. Markup: <section data-images>. */

import { at, post, remove } from "./api.js";
import { Card } from "./card.js";
import { complain, toast } from "./dialogs.js";
import { debounced, el, find, say } from "./dom.js";
import { count } from "./format.js";
import { project, readProject } from "./project.js";

const SLICE_MS = 12; // drawing many cards lets other things in this often
const UNDO_MS = 10_000;

const section = find("[data-images]");
const list = find("[data-cards]", section);

const cards = new Map(); // image name -> Card, in the order of the list
let drawing = 0; // counts drawings, so that a newer one ends an older

const tell = (type, detail = {}) => document.dispatchEvent(new CustomEvent(type, { detail }));

/** The cards as they stand in the list. */
export const allCards = () => [...cards.values()];

/** The card of an image, or undefined. */
export const cardOf = (name) => cards.get(name);

// -- drawing --------------------------------------------------------------------------------------

/** Bring the cards in line with what the server lists; cards that stay keep focus and text. */
async function draw(images) {
  const turn = (drawing += 1);
  const names = new Set(images.map((image) => image.name));
  for (const [name, card] of cards) if (!names.has(name)) forget(name, card);
  const order = new Map();
  let place = cardAfter(list.firstElementChild);
  let until = performance.now() + SLICE_MS;
  for (const [index, image] of images.entries()) {
    if (performance.now() > until) {
      list.hidden = false;
      tell("images:shown"); // the first cards stand: the page below them will not move any more
      await breath();
      until = performance.now() + SLICE_MS;
      if (turn !== drawing) return;
      if (place && !place.isConnected) place = cardAfter(order.get([...order.keys()].at(-1))?.node.nextElementSibling);
    }
    const card = cardFor(image);
    order.set(image.name, card);
    card.number(index + 1);
    if (card.node === place) place = cardAfter(place.nextElementSibling);
    else list.insertBefore(card.node, place);
  }
  cards.clear();
  for (const [name, card] of order) cards.set(name, card);
  tally();
  tell("images:drawn");
}

function cardFor(image) {
  const known = cards.get(image.name);
  if (known) known.draw(image);
  const card = known ?? new Card(image);
  cards.set(image.name, card);
  return card;
}

/** The first place of a card from here on; places of removed ones stay where they are. */
function cardAfter(node) {
  while (node && !node.matches(".card")) node = node.nextElementSibling;
  return node;
}

const breath = () => globalThis.scheduler?.yield?.() ?? new Promise((resolve) => setTimeout(resolve));

function forget(name, card) {
  card.later.cancel();
  card.node.remove();
  cards.delete(name);
}

function tally() {
  const total = cards.size;
  const empty = allCards().filter((card) => !card.text.trim()).length;
  const without = empty
    ? `, ${empty === total ? "none" : total - empty} with a caption`
    : ", all with a caption";
  say(find("[data-images-count]", section), total ? count(total, "image") + without : "");
  find("[data-drop]", section).toggleAttribute("data-empty", total === 0);
  list.hidden = total === 0 && !list.childElementCount;
  tell("images:shown");
}

const tallyLater = debounced(tally, 300);

// -- removing ---------------------------------------------------------------------------------------

/** Remove the image of a card at once; in its place it can be brought back for ten seconds. */
async function removeCard(card) {
  card.leave();
  let undo;
  try {
    ({ undo } = await remove(at("projects", project.name, "images", card.name)));
  } catch (error) {
    complain(error);
    return;
  }
  const gone = goneRow(card, undo);
  const focused = card.node.contains(document.activeElement);
  card.node.before(gone);
  forget(card.name, card);
  if (focused) find("button", gone).focus();
  renumber();
  tell("images:changed");
}

function goneRow(card, undo) {
  const button = el("button", { type: "button", className: "button button-small", textContent: "Undo" });
  button.setAttribute("aria-label", `Undo: bring ${card.name} back`);
  const row = el(
    "li",
    { className: "card-gone small" },
    el("span", { role: "status", textContent: `${card.name} removed.` }),
    button,
  );
  const timer = setTimeout(() => closeRow(row), UNDO_MS);
  button.addEventListener("click", async () => {
    clearTimeout(timer);
    await bringBack(undo);
    closeRow(row);
  });
  return row;
}

function closeRow(row) {
  const next = cardAfter(row.nextElementSibling);
  const focused = row.contains(document.activeElement);
  row.remove();
  if (focused) find("textarea", next ?? list)?.focus() ?? find("[data-select]", section).focus();
  tally();
}

/** Remove many images at once, with one undo for all. */
export async function removeMany(names) {
  for (const name of names) cards.get(name)?.leave();
  try {
    const { removed, undo } = await post(at("projects", project.name, "images", "remove"), { names });
    toast(`${count(removed.length, "image")} removed.`, { undo: () => bringBack(undo), stays_ms: UNDO_MS });
    await readProject();
    tell("images:changed");
  } catch (error) {
    complain(error);
  }
}

async function bringBack(key) {
  try {
    const { restored } = await post(at("projects", project.name, "trash", key, "restore"));
    await readProject();
    tell("images:changed");
    cards.get(restored[0]?.name)?.area.focus();
  } catch (error) {
    complain(error);
  }
}

function renumber() {
  for (const [index, card] of allCards().entries()) card.number(index + 1);
  tally();
}

// -- wiring -------------------------------------------------------------------------------------------

function show(data) {
  for (const card of cards.values()) card.later.flush();
  return draw(data?.images ?? []);
}

function close() {
  for (const [name, card] of cards) {
    card.leave();
    forget(name, card);
  }
  list.replaceChildren();
}

/** Save every caption that is still being typed; resolves when all are on the disk or have failed. */
export async function settleCaptions() {
  await Promise.all(
    allCards()
      .filter((card) => card.dirty)
      .map((card) => (card.later.cancel(), card.save())),
  );
}

/** Another page or program changed something: take it over without another look where that is possible. */
export function takeNews({ project: name, captions, added, removed }) {
  if (name !== project.name) return;
  const strange = captions.some(({ name, tag }) => cards.get(name)?.base !== tag);
  if (strange || added.some((one) => !cards.has(one)) || removed.some((one) => cards.has(one))) readLater();
}

const readLater = debounced(() => readProject().then(() => tell("images:changed"), complain), 150);

function clicked(event) {
  const button = event.target.closest("button");
  const card = button && allCards().find((one) => one.node.contains(button));
  if (!card) return;
  if (button.matches("[data-remove]")) removeCard(card);
  if (button.matches("[data-view]")) import("./viewer.js").then(({ view }) => view(card));
}

/** Unsaved captions that can't be sent, or about which somebody has to decide, hold the page. */
function holdPage(event) {
  if (allCards().some((card) => card.dirty && (card.failures || card.conflict))) event.preventDefault();
}

/** Wire the section up. */
export function startImages() {
  list.addEventListener("click", clicked);
  list.addEventListener("input", tallyLater);
  document.addEventListener("project:switching", close);
  document.addEventListener("project:opened", (event) => show(event.detail.data));
  document.addEventListener("project:read", (event) => show(event.detail.data));
  document.addEventListener("captions:changed", () => {
    tallyLater();
    tell("images:changed");
  });
  document.addEventListener("captions:stale", () => readLater());
  window.addEventListener("beforeunload", holdPage);
  window.addEventListener("pagehide", () => allCards().forEach((card) => card.leave()));
}
