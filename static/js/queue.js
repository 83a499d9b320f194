/** The queue: what runs and what waits, in an order that can be changed. Markup: <section data-queue-box>. */

import { at, post } from "./api.js";
import { complain, confirmed, toast } from "./dialogs.js";
import { el, find, findAll, icon, say } from "./dom.js";
import { duration, far, loss } from "./format.js";
import { onPress } from "./press.js";
import { bringFocusBack, holdingFocus, parting, spotOf, toRow } from "./rowfocus.js";
import { OTHERS } from "./runkinds.js";
import { pageOf, settingsWords, spoken, stateTag, took } from "./runwords.js";
import { ended } from "./stream.js";

const EDGE = 72; // pixels from the edge of the window in which dragging scrolls
const TRAINING = {
  lost: "What was learned since the last saved checkpoint is lost. Checkpoints and samples stay.",
  stop: "Stop training",
  keep: "Keep training",
};
const FASTEST = 14; // pixels a frame, at the very edge

const box = find("[data-queue-box]");
const now = find("[data-now]", box);
const list = find("[data-waiting]", box);
const said = find("[data-queue-said]", box);

let board = null;
let dragged = null; // {row, from: the row it stood before, y: where the pointer has moved to} while one is dragged

// -- drawing --------------------------------------------------------------------------------------

/** Draw what runs and what waits. A row that did not change keeps its nodes. */
export function drawQueue() {
  if (dragged) return; // what comes meanwhile is drawn when it is let go of
  const running = board.all.filter((run) => run.state === "running").reverse();
  const waiting = board.order.map((id) => board.rows.get(id)).filter((run) => run?.state === "queued");
  box.hidden = !running.length && !waiting.length;
  place(now, running.map((run) => [run, JSON.stringify([run.id, run.name, run.stopping]), runningRow]));
  running.forEach(drawProgress);
  now.hidden = !running.length;
  list.hidden = !waiting.length;
  place(
    list,
    waiting.map((run, index) => [run, JSON.stringify([run.id, index, waiting.length, run.note]), waitingRow(index)]),
  );
}

/** Put one row for each run into a list; `make` draws it when its mark is another than before. */
function place(into, wanted) {
  const before = new Map([...into.children].map((row) => [row.dataset.run, row]));
  const rows = wanted.map(([run, mark, make]) => {
    const known = before.get(run.id);
    if (known?.dataset.mark === mark) return known;
    const row = make(run);
    Object.assign(row.dataset, { run: run.id, mark });
    known?.replaceWith(row);
    return row;
  });
  for (const row of [...into.children]) if (!rows.includes(row)) row.remove();
  rows.forEach((row, index) => into.children[index] !== row && into.insertBefore(row, into.children[index]));
}

const button = (act, text, of, action) => {
  const node = el(
    "button",
    { type: "button", className: "button button-small", data: { act } },
    text,
    el("span", { className: "visually-hidden", textContent: ` ${of}` }),
  );
  onPress(node, action);
  return node;
};

const detailsButton = (run) =>
  el(
    "button",
    { type: "button", className: "button button-small button-bare", data: { details: run.id, act: "details" } },
    "Details",
    el("span", { className: "visually-hidden", textContent: ` of ${spoken(run)}` }),
  );

function runningRow(run) {
  const stop = button("stop", run.stopping ? "Stopping…" : "Stop", spoken(run), () => askToStop(run.id));
  if (run.stopping) stop.ariaDisabled = "true";
  return el(
    "li",
    { className: "now-run" },
    el("div", { className: "queue-words" }, el("a", { className: "run-name", href: pageOf(run), textContent: run.name }), inFolder(run), stateTag(run)),
    el("div", { className: "row queue-actions" }, detailsButton(run), stop),
    el("progress", { className: "bar", max: 1, "aria-label": `Progress of ${spoken(run)}`, data: { bar: "" } }),
    el("p", { className: "small quiet numbers", data: { progress: "" } }),
  );
}

const inFolder = (run) =>
  run.project && run.project !== run.name ? el("span", { className: "quiet small", textContent: `in ${run.project}` }) : null;

function drawProgress(run) {
  const row = findAll("[data-run]", now).find((one) => one.dataset.run === run.id);
  if (!row) return;
  const { step, total, unit, epoch, epochs, loss: value, eta_s } = run.progress;
  const bar = find("[data-bar]", row);
  if (total) bar.value = (step ?? 0) / total;
  else bar.removeAttribute("value");
  const parts = [
    run.stage ? `${run.stage.index} of ${run.stage.count}: ${run.stage.title}` : "Starting",
    total && `${run.training ? "step " : ""}${far(run.progress)}${unit === "image" ? " images" : ""}`,
    epoch && epochs && `epoch ${epoch} / ${epochs}`,
    value !== null && value !== undefined && `loss ${loss(value)}`,
    run.after_epoch && "stops after this epoch",
    `${took(run)} so far`,
    eta_s !== null && eta_s !== undefined && `${duration(eta_s)} left`,
  ];
  say(find("[data-progress]", row), parts.filter(Boolean).join(" · "));
}

/** The ids of what waits in a run's queue, in their order: as of now, whatever a row was drawn with. */
const laneOf = (run) => board.order.filter((id) => board.rows.get(id)?.queue === run.queue);

const waitingRow = (index) => (run) => {
  const lane = laneOf(run);
  const at = lane.indexOf(run.id);
  const up = arrow("up", `Move ${spoken(run)} up`, at > 0, () => step(run, -1));
  const down = arrow("down", `Move ${spoken(run)} down`, at < lane.length - 1, () => step(run, 2));
  const grip = el("span", { className: "grip", "aria-hidden": "true", title: "Drag to reorder", data: { grip: "" } }, icon("grip"));
  grip.hidden = lane.length < 2;
  return el(
    "li",
    { className: "waiting-run" },
    grip,
    el("span", { className: "waiting-place numbers", textContent: `${index + 1}.` }),
    el(
      "div",
      { className: "queue-words" },
      el("span", { className: "run-name", textContent: run.name }),
      inFolder(run),
      el("span", { className: "quiet small numbers waiting-settings" }, ...(run.kind === "train" ? settingsWords(run) : [])),
    ),
    el(
      "div",
      { className: "row queue-actions" },
      up,
      down,
      detailsButton(run),
      button("out", "Take out", `of the queue: ${spoken(run)}`, (event) => takeOut(run, event)),
    ),
  );
};

/** An arrow that can't be used stays where it is, so that the keyboard does not lose its place. */
function arrow(name, label, usable, action) {
  const node = el("button", { type: "button", className: "icon-button", "aria-label": label, data: { act: name } }, icon(name));
  if (usable) node.addEventListener("click", action);
  else node.setAttribute("aria-disabled", "true");
  return node;
}

// -- acting ---------------------------------------------------------------------------------------

/** Put a run before the one `by` places from it: -1 is one up, 2 is one down. */
function step(run, by) {
  const lane = laneOf(run);
  return move(run, lane[lane.indexOf(run.id) + by] ?? null);
}

async function move(run, before) {
  try {
    board.change(await post(at("jobs", run.id, "move"), { before }));
    const place = board.order.indexOf(run.id);
    if (place >= 0) say(said, `${spoken(run)} is now ${place + 1} of ${board.order.length}.`);
  } catch (error) {
    complain(error);
    board.refresh().catch(() => {});
  }
}

/** The second half of a double click would meet the row that has moved up: it does nothing. */
async function takeOut(run, { detail: clicks }) {
  if (clicks > 1) return;
  const spot = spotOf(document.activeElement);
  await parting(run.id, async () => {
    await post(at("jobs", run.id, "stop"));
    toast(`“${run.name}” is taken out of the queue.`, { undo: () => putBack(run), stays_ms: 12_000 });
    await board.refresh();
    bringFocusBack(spot);
  });
}

async function putBack(run) {
  try {
    await post(at("jobs", run.id, "put-back"));
    await board.refresh();
    say(said, `${spoken(run)} waits again.`);
    toRow(run.id, "out");
  } catch (error) {
    complain(error);
  }
}

/** Ask about the run as it is now, not as it was when its row was drawn. */
async function askToStop(id) {
  const run = board.rows.get(id);
  const spot = spotOf(document.activeElement);
  const words = OTHERS[run.kind] ?? TRAINING;
  const answer = await confirmed({
    title: `Stop “${run.name}”?`,
    text: words.lost,
    yes: words.stop,
    no: words.keep,
    also: run.kind === "train" && run.stage?.name === "train" && !run.after_epoch ? "Stop after this epoch" : "",
  });
  bringFocusBack(spot);
  if (answer) await stop(id, answer === "also" ? { after_epoch: true } : {});
}

/** One that ended while the question stood open is what was wished for. */
async function stop(id, how) {
  if (isOver(id)) return;
  try {
    await post(at("jobs", id, "stop"), how);
  } catch (error) {
    await board.refresh().catch(() => {});
    if (!isOver(id)) throw error;
  }
}

const isOver = (id) => !board.rows.has(id) || ended(board.rows.get(id));

// -- dragging: by mouse, pen or finger --------------------------------------------------------------

function grab(event) {
  const row = event.target.closest("[data-grip]")?.closest("li");
  if (!row || event.button) return;
  event.preventDefault();
  dragged = { row, from: row.nextElementSibling, y: null };
  row.classList.add("dragged");
  list.setPointerCapture(event.pointerId);
  requestAnimationFrame(scroll);
}

function drag(event) {
  if (!dragged) return;
  dragged.y = event.clientY;
  carry();
}

/** Scroll as long as the pointer is near an edge and the list goes on behind it. */
function scroll() {
  if (!dragged) return;
  requestAnimationFrame(scroll);
  if (dragged.y === null) return;
  const { top, bottom } = list.getBoundingClientRect();
  const first = find(".top")?.getBoundingClientRect().bottom ?? 0; // what sticks there hides what is under it
  const above = first + EDGE - dragged.y;
  const below = dragged.y - (innerHeight - EDGE);
  const way = above > 0 && top < first ? -above : below > 0 && bottom > innerHeight ? below : 0;
  if (way) {
    scrollBy({ top: Math.sign(way) * Math.ceil(FASTEST * Math.min(1, Math.abs(way) / EDGE)), behavior: "instant" });
    carry();
  }
}

/** Put what is dragged where the pointer is. */
function carry() {
  const { row, y } = dragged;
  const others = [...list.children].filter((one) => one !== row && lane(one) === lane(row));
  const next = others.find((one) => y < middle(one)) ?? others.at(-1)?.nextElementSibling ?? null;
  if (next !== row && row.nextElementSibling !== next) list.insertBefore(row, next);
}

const lane = (row) => board.rows.get(row.dataset.run)?.queue;

function middle(row) {
  const { top, height } = row.getBoundingClientRect();
  return top + height / 2;
}

/** Let go: here, or where it was when the drag was called off. */
function drop(keep) {
  if (!dragged) return;
  const { row, from } = dragged;
  row.classList.remove("dragged");
  if (!keep) list.insertBefore(row, from?.isConnected ? from : null);
  const before = row.nextElementSibling;
  dragged = null;
  const run = board.rows.get(row.dataset.run);
  if (keep && before !== from && run) move(run, before && lane(before) === run.queue ? before.dataset.run : null);
  else holdingFocus(drawQueue);
}

/** Wire the queue up; `source` is the board it shows, whose changes runs.js has drawn. */
export function startQueue(source) {
  board = source;
  list.addEventListener("pointerdown", grab);
  list.addEventListener("pointermove", drag);
  list.addEventListener("pointerup", () => drop(true));
  list.addEventListener("pointercancel", () => drop(false));
  document.addEventListener("keydown", (event) => event.key === "Escape" && drop(false));
  setInterval(() => board.all.filter((run) => run.state === "running").forEach((run) => !dragged && !box.hidden && drawProgress(run)), 1000);
}
