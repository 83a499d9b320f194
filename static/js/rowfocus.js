/**
 * The focus on the page of runs: it goes with a run to where that stands now, and to a neighbour when the run is
 * gone. Markup: rows with data-run, their controls with data-act, lists in a [data-focus-home="selector"].
 */

import { find, findAll } from "./dom.js";
import { isLost } from "./keepfocus.js";

/** What stands for a control in a list that has none by its name. Never what deletes. */
const INSTEAD = { out: ["stop"], stop: ["out"] };

const leaving = new Set(); // ids of runs that are being taken away by hand: the focus does not follow them

/** Do something that takes a run out of its list: the focus then goes to a neighbour. */
export async function parting(id, action) {
  leaving.add(id);
  try {
    return await action();
  } finally {
    leaving.delete(id);
  }
}

/** Where a node stands among the rows, for bringFocusBack(); null for one that is in no row. */
export function spotOf(node) {
  const row = node?.closest?.("[data-run]");
  return row ? { ...rowSpot(row), act: node.dataset.act, node, scrolls: node.matches(":focus-visible") } : null;
}

/** The same for the row of a run, wherever it is; its details where it has none. */
export function spotOfRun(id) {
  const row = rowsOf(id)[0];
  const spot = row ? rowSpot(row) : { id, list: null, near: [], home: find("[data-history]") };
  return { ...spot, act: "details", scrolls: true };
}

function rowSpot(row) {
  const all = [...row.parentElement.children];
  const place = all.indexOf(row);
  const near = [...all.slice(place + 1), ...all.slice(0, place).reverse()].map((one) => one.dataset.run);
  return { id: row.dataset.run, list: row.parentElement, near, home: row.closest("[data-focus-home]") };
}

const rowsOf = (id) => findAll("[data-run]").filter((row) => row.dataset.run === id && row.checkVisibility());

/** Put the focus there, unless it is somewhere already. */
export function bringFocusBack(spot) {
  if (!spot || !isLost()) return;
  if (spot.node?.isConnected) spot.node.focus({ preventScroll: true });
  for (const target of targets(spot)) {
    if (!isLost()) return;
    target?.focus({ preventScroll: !spot.scrolls });
  }
}

/** Put the focus on a control of the row of a run, wherever it is. */
export function toRow(id, act) {
  const [row] = rowsOf(id);
  if (row) find(`[data-act="${act}"]`, row)?.focus();
}

/** Controls to try, the best first. */
function* targets({ id, list, near, home, act }) {
  const own = rowsOf(id);
  if (!leaving.has(id)) for (const row of own) yield* controls(row, act);
  for (const one of near) {
    const row = rowsOf(one).find((other) => other.parentElement === list);
    if (row) yield* controls(row, act);
  }
  if (home?.checkVisibility()) yield* findAll(home.dataset.focusHome, home);
  yield find("h1");
}

function* controls(row, act) {
  for (const name of [act, ...(INSTEAD[act] ?? []), "details"]) yield find(`[data-act="${name}"]`, row);
}

/** Draw; the focus stays on what it was on. */
export function holdingFocus(draw) {
  const spot = spotOf(document.activeElement);
  draw();
  bringFocusBack(spot);
}
