/** Step 1 of the page: the folder's images, one card for each. Markup: <section data-images>. */

import { at, post, remove } from "./api.js";
import { Card } from "./card.js";
import { complain, toast } from "./dialogs.js";
import { announce, debounced, el, find, say } from "./dom.js";
import { count } from "./format.js";
import { changedHere, project, readProject } from "./project.js";

const SLICE_MS = 12; // drawing many cards lets other things in this often
const UNDO_MS = 10_000;

const section = find("[data-images]");
const list = find("[data-cards]", section);

const cards = new Map(); // image name -> Card, in the order of the list
let drawing = 0; // counts drawings, so that a newer one ends an older

/** The cards as they stand in the list. */
export const allCards = () => [...cards.values()];

/** The card of an image, or undefined. */
export const cardOf = (name) => cards.get(name);

// -- drawing --------------------------------------------------------------------------------------

/** Bring the cards in line with what the server lists; cards that stay keep focus and text. */
async function draw(images) {
  const [turn, name] = [(drawing += 1), project.name];
  const names = new Set(images.map((image) => image.name));
  for (const [name, card] of cards) if (!names.has(name)) forget(name, card);
  const order = new Map();
  let place = cardAfter(list.firstElementChild);
  let until = performance.now() + SLICE_MS;
  for (const [index, image] of images.entries()) {
    if (performance.now() > until) {
      list.hidden = false;
      announce("images:shown"); // the first cards stand: the page below them will not move any more
      await breath();
      until = performance.now() + SLICE_MS;
      if (turn !== drawing) return;
      if (place && !place.isConnected) place = cardAfter(order.get([...order.keys()].at(-1))?.node.nextElementSibling);
    }
    const card = cardFor(image, name);
    order.set(image.name, card);
    card.number(index + 1);
    if (card.node === place) place = cardAfter(place.nextElementSibling);
    else list.insertBefore(card.node, place);
  }
  cards.clear();
  for (const [name, card] of order) cards.set(name, card);
  tally();
  announce("images:drawn");
}

function cardFor(image, name) {
  const known = cards.get(image.name);
  if (known) known.draw(image);
  const card = known ?? new Card(image, name);
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
  announce("images:shown");
}

const tallyLater = debounced(tally, 300);

// -- removing ---------------------------------------------------------------------------------------

/** Remove the image of a card at once; in its place it can be brought back for ten seconds. */
async function removeCard(card) {
  const focused = card.node.contains(document.activeElement);
  await card.settled();
  let undo;
  try {
    ({ undo } = await remove(at("projects", card.project, "images", card.name)));
  } catch (error) {
    complain(error);
    return;
  }
  card.gone();
  const gone = goneRow(card, undo);
  card.node.before(gone);
  forget(card.name, card);
  if (focused) find("button", gone).focus();
  await changedImages();
}

/** After this page changed images or captions: all that shows them is drawn anew. */
export async function changedImages() {
  changedHere();
  await readProject().catch(complain);
  announce("images:changed");
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
    if (await bringBack(card.project, undo)) closeRow(row);
  });
  return row;
}

function closeRow(row) {
  const next = cardAfter(row.nextElementSibling);
  const focused = row.contains(document.activeElement);
  row.remove();
  if (focused) (find("textarea", next ?? list) ?? find("[data-select]", section)).focus();
  tally();
}

/** Remove many images at once, with one undo for all. */
export async function removeMany(names) {
  const folder = project.name;
  await settleCaptions();
  try {
    const { removed, undo } = await post(at("projects", folder, "images", "remove"), { names });
    for (const name of removed) cards.get(name)?.gone();
    const again = () => bringBack(folder, undo);
    toast(`${count(removed.length, "image")} removed.`, { undo: again, stays_ms: UNDO_MS });
    await changedImages();
  } catch (error) {
    complain(error);
  }
}

/** Bring removed images back into their folder, which need not be the open one; false if that failed. */
async function bringBack(folder, key) {
  try {
    const { restored } = await post(at("projects", folder, "trash", key, "restore"));
    await changedImages();
    if (folder === project.name) cards.get(restored[0]?.name)?.area.focus();
    return true;
  } catch (error) {
    complain(error);
    return false;
  }
}

// -- wiring -------------------------------------------------------------------------------------------

function show(data) {
  for (const card of cards.values()) card.later.flush();
  return draw(data?.images ?? []);
}

function close() {
  drawing += 1; // one that is under way is of the old folder
  for (const [name, card] of cards) {
    card.leave();
    forget(name, card);
  }
  list.replaceChildren();
}

/** Save every caption that is still being typed; resolves to the cards whose text could not be saved. */
export async function settleCaptions() {
  const open = allCards().filter((card) => card.dirty || card.saving);
  const settled = await Promise.all(open.map((card) => card.settled()));
  return open.filter((_, place) => !settled[place]);
}

/** Something changed in a folder: read it again unless it was this page that did it, and knows. */
export function takeNews({ project: name, captions, added, removed }) {
  if (name !== project.name) return;
  const strange = captions.some(({ name, tag, version }) => {
    const card = cards.get(name);
    return card && (card.base !== tag || !card.image.url.endsWith(`?v=${version}`));
  });
  if (strange || added.some((one) => !cards.has(one)) || removed.some((one) => cards.has(one))) readLater();
}

const readLater = debounced(() => readProject().then(() => announce("images:changed"), complain), 150);

function clicked(event) {
  const button = event.target.closest("button");
  const card = button && allCards().find((one) => one.node.contains(button));
  if (!card) return;
  if (button.matches("[data-remove]")) removeCard(card);
  if (button.matches("[data-view]")) import("./viewer.js").then(({ view }) => view(card)).catch(complain);
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
    announce("images:changed");
  });
  document.addEventListener("captions:stale", () => readLater());
  window.addEventListener("beforeunload", holdPage);
  window.addEventListener("pagehide", () => allCards().forEach((card) => card.leave()));
}
