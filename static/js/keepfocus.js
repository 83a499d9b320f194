/**
 * Lists that are drawn anew while somebody stands in them: the focus stays.
 *
 *   redraw(list, () => list.replaceChildren(...rows));
 *
 * What has the focus is known again by its data-key (else data-act, href, role or the kind of element) and by the item
 * around it: the nearest element with data-key or data-run. What is gone hands the focus to its like in the next item,
 * then in the one before, and at last to the heading of the list.
 */

import { findAll } from "./dom.js";

const FOCUSABLE = "a[href], button, input, select, textarea, summary, [tabindex]";
const ITEM = "[data-key], [data-run]";
const HEADING = "h1, h2, h3, h4";

/** Call `draw`, which changes what is in `container` there and then; who stood in it stands there still. */
export function redraw(container, draw) {
  const back = container.contains(document.activeElement) ? hold(document.activeElement, container) : null;
  draw();
  if (back && isLost()) back();
}

/**
 * Remember where a node stands among what else can have the focus in `container`. Returns a function that gives the
 * focus back: to the node, to the one drawn in its stead, or to the nearest neighbour.
 */
export function hold(node, container = node.closest("section, dialog, main") ?? document.body) {
  const before = spotsOf(container);
  const order = nearestFirst(before, before.findIndex((spot) => spot.node === node));
  return () => {
    if (node.isConnected && takes(revealed(node), { preventScroll: true })) return;
    const now = new Map(spotsOf(container).map((spot) => [idOf(spot), spot.node]));
    const same = now.get(idOf(order[0] ?? {}));
    if (same && takes(revealed(same), { preventScroll: true })) return;
    if (!order.some((spot) => takes(now.get(idOf(spot))))) toHeading(container);
  };
}

let parked = null; // the heading that has the focus for want of anything better

/** Whether the focus is nowhere: it was on something that is gone or hidden by now. */
export function isLost() {
  const node = document.activeElement;
  return !node || node === document.body || node === parked || !node.checkVisibility();
}

/** The keys (data-key) of the folds in `container` that are to be open: those that are, and where the focus stands. */
export function openFolds(container) {
  const open = new Set(findAll("details[open]", container).map((fold) => fold.dataset.key));
  const node = container.contains(document.activeElement) ? document.activeElement : null;
  for (let box = node?.closest(ITEM); box; box = box.parentElement?.closest(ITEM)) {
    if (box.localName !== "details") open.add(box.dataset.key);
  }
  return open;
}

/** Make `nodes` the children of `parent`. Those that are there already stay where they are, with focus and scrolling. */
export function arrange(parent, nodes) {
  const wanted = new Set(nodes);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  nodes.forEach((node, index) => {
    if (parent.children[index] !== node) parent.insertBefore(node, parent.children[index] ?? null);
  });
}

// -- what can have the focus ----------------------------------------------------------------------

const nameOf = (node) => node.dataset.key ?? node.dataset.act ?? node.getAttribute("href") ?? node.getAttribute("role") ?? node.localName;
const idOf = ({ item, name }) => `${item}\n${name}`;

/** [{node, item, name}] in their order; of several alike in an item, each has its number. */
function spotsOf(container) {
  const seen = new Map();
  return findAll(FOCUSABLE, container).map((node) => {
    const around = node.parentElement.closest(ITEM);
    const item = around && container.contains(around) ? (around.dataset.key ?? around.dataset.run) : "";
    const id = idOf({ item, name: nameOf(node) });
    seen.set(id, (seen.get(id) ?? 0) + 1);
    return { node, item, name: `${nameOf(node)} ${seen.get(id)}` };
  });
}

/** The spot at `place`, then of each one after it, and of each before it, its like and itself. */
function nearestFirst(spots, place) {
  const held = spots[place];
  if (!held) return [];
  const others = [...spots.slice(place + 1), ...spots.slice(0, place).reverse()];
  const mates = others.filter(({ item }) => item && item === held.item);
  const alike = ({ item }) => ({ item, name: held.name });
  return [held, ...mates, ...others.flatMap((spot) => [alike(spot), spot])];
}

function takes(node, how = {}) {
  node?.focus(how);
  return Boolean(node) && document.activeElement === node;
}

/** A node, with the folds around it opened if they hide it. */
function revealed(node) {
  if (node.checkVisibility()) return node;
  for (let fold = node.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  return node;
}

/** To the nearest heading that is seen: in the container, before it, around it. */
function toHeading(container) {
  let box = container.isConnected ? container : document.querySelector("main");
  for (; box; box = box.previousElementSibling ?? box.parentElement) {
    const heading = findAll(HEADING, box).find((node) => node.checkVisibility());
    if (!heading) continue;
    heading.tabIndex = -1;
    parked = heading;
    heading.addEventListener("blur", () => (parked = null), { once: true });
    return heading.focus();
  }
}
