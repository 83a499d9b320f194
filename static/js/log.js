/**
 * The log pane. It holds a part of the log, from one byte to another: normally the end, growing as lines come;
 * after scrolling far up, or a jump to what was searched, a part further up, until one goes back to the end.
 * Lines come in bursts of tens of thousands; they go into blocks of a hundred lines, a few blocks a frame, and the
 * browser lays out only blocks that are in view.
 */

import { copyText, el, find, say } from "./dom.js";
import { complain, toast } from "./dialogs.js";
import { at, logFrom, logPiece, logTail } from "./api.js";
import { bytes } from "./format.js";

const BLOCK_LINES = 100;
const MOST_BLOCKS = 500; // what a page keeps; more is fetched when it comes into view
const PIECE_BYTES = 65_536; // fetched at once
const FRAME_MS = 4; // time taken out of a frame
const PIECE = 16_384; // characters between two looks at the clock
const LONGEST = 2000; // characters of a line that are shown
const NEAR_END_PX = 24;
const NEAR_EDGE_PX = 1500; // so far from what is not in the page, that is fetched
const HAND_MS = 1500; // how long a scroll counts as the person's own after wheel, touch or key
const WHOLE_BYTES = 20_000_000; // a log of up to so many is copied whole

const section = find("[data-log]");
const pane = find("[data-log-pane]", section);
const lines = find("[data-log-lines]", section);
const bar = find("[data-log-bar]", section);
const note = find("[data-log-note]", section);
const follow = find("[data-follow]", section);
const encoder = new TextEncoder();

let shownJob = null;
let waiting = []; // [{text, at}] not yet in the page
let from = 0; // the byte of the log that what is in the page begins with
let to = 0; // the byte that what is in the page or waits ends with
let live = 0; // the byte the log is known to go to
let barText = "";
let scheduled = false;
let following = true;
let underWay = null; // what is being fetched, a promise
let handAt = -Infinity; // when the person last scrolled
let held = false; // the pointer is down, perhaps on the scroll bar

const length = (text) => encoder.encode(text).length;

/** The pane shows the end of the log, and grows with it. */
const atEnd = () => to >= live;

// -- putting lines in ---------------------------------------------------------------------------

/** Take the piece of log that ends at byte `end`. Another job than before clears the pane. */
export function addLog({ job, text, end }) {
  if (job !== shownJob) turnTo(job);
  const [grows, start] = [atEnd(), end - length(text)];
  live = Math.max(live, end);
  if (!grows) return; // it is fetched when one comes there
  if (start > to) empty(start); // the first of a log of which only the end is sent
  if (end <= to) return;
  take(start < to ? rest(text, to - start) : text, end);
}

/** What follows the first `count` bytes of a text. */
const rest = (text, count) => new TextDecoder().decode(encoder.encode(text).subarray(count));

function take(text, end) {
  waiting.push({ text, at: 0 });
  to = end;
  schedule();
}

/** Show the log of this job from now on; the pane starts empty. */
export function turnTo(job) {
  if (job === shownJob) return;
  shownJob = job;
  live = 0;
  barText = "";
  empty(0);
  following = true;
  const download = find("[data-log-download]", section);
  download.hidden = !job;
  if (job) download.href = `${at("jobs", job, "log")}?offset=0&download=1`;
  document.dispatchEvent(new CustomEvent("log:turned"));
}

/** Leave nothing in the page; what comes next begins at byte `offset`. */
function empty(offset) {
  waiting = [];
  [from, to] = [offset, offset];
  lines.replaceChildren();
  schedule();
}

/** The line that is being rewritten at the end of the log; empty when there is none. */
export function setBar({ job, text }) {
  if (job !== shownJob) return;
  barText = text ?? "";
  schedule();
}

function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(draw);
}

function draw() {
  scheduled = false;
  const until = performance.now() + FRAME_MS;
  while (waiting.length && performance.now() < until) addPiece();
  while (lines.childElementCount > MOST_BLOCKS) dropFirst();
  drawEdges();
  if (following) toEnd();
  else fill();
  if (waiting.length) schedule();
}

function drawEdges() {
  const shown = atEnd() ? barText : "";
  say(bar, shown);
  bar.hidden = shown === "";
  note.hidden = from === 0;
  say(note, `${bytes(from)} of the log come before this; scroll up to see them.`);
  find("[data-log-empty]", section).hidden = lines.childElementCount > 0 || shown !== "";
}

/** Move one piece of whole lines from what waits into the page. */
function addPiece() {
  const first = waiting[0];
  let end = first.at + PIECE;
  if (end >= first.text.length) end = first.text.length;
  else end = first.text.indexOf("\n", end) + 1 || first.text.length;
  addLines(first.text.slice(first.at, end));
  first.at = end;
  if (end === first.text.length) waiting.shift();
}

function addLines(text) {
  const all = text.split("\n");
  const rest = all.pop(); // what has no line end yet: normally nothing
  for (let from = 0; from < all.length; ) {
    const block = openBlock();
    const some = all.slice(from, from + BLOCK_LINES - block.count);
    put(block, some, "\n");
    from += some.length;
  }
  if (rest) put(openBlock(), [rest], "");
}

const blocks = new WeakMap(); // node -> {node, text, count, bytes, long}
let last = null; // the block that still takes lines

function newBlock() {
  const text = document.createTextNode("");
  // `long`: number of a line that is shown shortened -> its bytes
  const block = { node: el("div", { className: "log-block" }, text), text, count: 0, bytes: 0, long: new Map() };
  blocks.set(block.node, block);
  return block;
}

function openBlock() {
  if (last && last.count < BLOCK_LINES && last.node === lines.lastElementChild) return last;
  last = newBlock();
  lines.append(last.node);
  return last;
}

function put(block, some, ending) {
  some.forEach((line, i) => line.length > LONGEST && block.long.set(block.count + i, length(line + ending)));
  block.text.appendData(some.map(shortened).join("\n") + ending);
  block.bytes += length(some.join("\n") + ending);
  if (ending) block.count += some.length;
  block.node.style.setProperty("contain-intrinsic-size", `auto none auto ${block.count * 1.25}rem`);
}

function shortened(line) {
  if (line.length <= LONGEST) return line;
  const all = line.length.toLocaleString("en");
  return `${line.slice(0, LONGEST)} … [${all} characters; the log file has the whole line]`;
}

function dropFirst() {
  const first = lines.firstElementChild;
  from += blocks.get(first).bytes;
  first.remove();
}

/** Take the last block out of the page: the end of the log is then not in it any more. */
function dropLast() {
  const block = blocks.get(lines.lastElementChild);
  for (const piece of waiting) to -= length(piece.text.slice(piece.at));
  waiting = [];
  to -= block.bytes;
  block.node.remove();
}

// -- further up, and back down -----------------------------------------------------------------------

/**
 * Do something that fetches, one at a time: while another is at it nothing is done, or it is waited for. What came
 * for another job, or too late, is dropped by the action itself.
 */
async function alone(action, { wait = false } = {}) {
  while (wait && underWay) await underWay;
  if (underWay || !shownJob) return;
  underWay = action(shownJob).catch((error) => error.status !== 0 && complain(error)); // 0: the state says so
  await underWay;
  underWay = null;
}

const earlier = () =>
  alone(async (job) => {
    const end = from;
    const piece = await logPiece(job, { before: end, limit: PIECE_BYTES });
    if (job !== shownJob || from !== end || !piece.text) return;
    const before = pane.scrollHeight;
    const [first, count] = [lines.firstElementChild, lines.childElementCount];
    last = null; // in blocks of its own
    addLines(piece.text);
    first?.before(...[...lines.children].slice(count));
    last = null;
    from = piece.start;
    pane.scrollTop += pane.scrollHeight - before;
    while (lines.childElementCount > MOST_BLOCKS) dropLast();
    drawEdges();
  });

const later = () =>
  alone(async (job) => {
    const start = to;
    const piece = await logPiece(job, { offset: start, limit: PIECE_BYTES });
    if (job !== shownJob || to !== start || !piece.text) return;
    take(piece.text, piece.offset);
  });

/** Show the end of the log again. */
async function backToEnd() {
  if (!atEnd()) await alone(tail, { wait: true });
  for (let before = -1; !atEnd() && to > before; ) {
    before = to; // lines that came meanwhile
    await later();
  }
  setFollowing(true);
}

async function tail(job) {
  const piece = await logTail(job, 2 * PIECE_BYTES);
  if (job !== shownJob) return;
  empty(piece.start);
  take(piece.text, piece.offset);
  live = Math.max(live, to);
}

/** Bring the line that begins at byte `offset` into view; resolves to the place of its text, null if it is gone. */
export async function showLine(offset) {
  setFollowing(false);
  if (offset < from || offset >= to - left()) {
    await alone((job) => around(job, offset), { wait: true });
  }
  const place = placeOf(offset);
  if (!place) return null;
  bring(place.node.parentElement, 0);
  await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))); // its lines have heights now
  bring(rangeOf(place), pane.clientHeight / 3);
  return place;
}

/** Let the page hold what lies around byte `offset`. */
async function around(job, offset) {
  const above = await logPiece(job, { before: offset, limit: PIECE_BYTES });
  const below = await logPiece(job, { offset, limit: PIECE_BYTES });
  if (job !== shownJob) return;
  empty(above.start);
  addLines(above.text + below.text);
  to = below.offset;
  live = Math.max(live, to);
}

/** Scroll so that an element or a range is so many pixels below the top of the pane. */
function bring(what, below) {
  pane.scrollTop += what.getBoundingClientRect().top - pane.getBoundingClientRect().top - below;
}

/** Bytes that wait and are not in the page yet. */
const left = () => waiting.reduce((sum, piece) => sum + length(piece.text.slice(piece.at)), 0);

/** Where the line that begins at byte `offset` is: {node, start, end}, a text node and places in it. */
function placeOf(offset) {
  let place = from;
  for (const node of lines.children) {
    const block = blocks.get(node);
    if (offset < place + block.bytes) return placeIn(block, offset - place);
    place += block.bytes;
  }
  return null;
}

function placeIn(block, offset) {
  const all = block.text.data.split("\n");
  for (let [i, place, start] = [0, 0, 0]; i < all.length; i += 1) {
    if (place >= offset) return { node: block.text, start, end: start + all[i].length };
    place += block.long.get(i) ?? length(all[i]) + 1;
    start += all[i].length + 1;
  }
  return null;
}

/** A place of `showLine` as a range of the document. */
export function rangeOf({ node, start, end }) {
  const range = document.createRange();
  range.setStart(node, Math.min(start, node.length));
  range.setEnd(node, Math.min(end, node.length));
  return range;
}

/** The log that is shown: its job, the byte at the top of the view, and the byte it goes to. */
export function whereInLog() {
  let place = from;
  const top = pane.getBoundingClientRect().top;
  for (const node of lines.children) {
    if (node.getBoundingClientRect().bottom > top) break;
    place += blocks.get(node).bytes;
  }
  return { job: shownJob, top: place, end: live, following };
}

// -- following ------------------------------------------------------------------------------------

const fromEnd = () => pane.scrollHeight - pane.clientHeight - pane.scrollTop;

function toEnd() {
  pane.scrollTop = pane.scrollHeight;
}

function setFollowing(on) {
  if (on === following) return;
  following = on;
  follow.hidden = on;
  if (on) toEnd();
}

function scrolled() {
  const own = held || performance.now() - handAt < HAND_MS;
  if (own) setFollowing(fromEnd() <= NEAR_END_PX && atEnd());
  else if (following) toEnd(); // blocks got their real height: stay where we were
  if (!following) fill();
}

/** Fetch what comes before or after what is in the page, where that comes near. */
function fill() {
  if (pane.scrollTop < NEAR_EDGE_PX && from > 0) earlier();
  else if (fromEnd() < NEAR_EDGE_PX && !atEnd()) later();
}

function watchScrolling() {
  const hand = () => (handAt = performance.now());
  for (const type of ["wheel", "touchmove", "keydown"]) pane.addEventListener(type, hand, { passive: true });
  pane.addEventListener("pointerdown", () => (held = true));
  window.addEventListener("pointerup", () => (held = false));
  window.addEventListener("pointercancel", () => (held = false));
  pane.addEventListener("scroll", scrolled, { passive: true });
  new ResizeObserver(() => following && toEnd()).observe(pane);
  follow.addEventListener("click", async () => {
    await backToEnd();
    pane.focus({ preventScroll: true });
  });
}

// -- the tools below the pane ---------------------------------------------------------------------

async function copy() {
  const whole = from === 0 && atEnd();
  const fetched = !whole && shownJob && live <= WHOLE_BYTES ? (await logFrom(shownJob, 0)).text : null;
  const shown = fetched ?? lines.textContent + waiting.map((piece) => piece.text.slice(piece.at)).join("");
  const copied = await copyText(shown + (whole || fetched !== null ? barText : ""));
  const what = whole || fetched !== null ? "Log copied." : "The part that is shown is copied; the download has all.";
  toast(copied ? what : "The browser did not allow copying.");
}

const STATES = {
  connecting: ["accent", "Connecting"],
  live: ["good", "Live"],
  polling: ["warn", "Live, once a second"],
  offline: ["danger", "Server not reached; trying again"],
  paused: ["quiet", "Paused while hidden"],
};
const AT_REST = { live: ["quiet", "Connected"], polling: ["quiet", "Connected, asks every second"] };

/** Show how the log reaches this page; `state` as of the stream. Live is only what goes on. */
export function drawConnection(state, goesOn) {
  const [tone, text] = (goesOn ? STATES : { ...STATES, ...AT_REST })[state] ?? STATES.connecting;
  const tag = find("[data-stream-state]", section);
  tag.dataset.tone = tone;
  say(tag, text);
}

async function search() {
  const { toggleSearch } = await import("./logsearch.js");
  toggleSearch();
}

/** Wire the pane up; `onResume` is called by the button Resume log stream. */
export function startLog({ onResume }) {
  watchScrolling();
  find("[data-resume]", section).addEventListener("click", () => {
    backToEnd();
    onResume();
  });
  find("[data-log-copy]", section).addEventListener("click", () => copy().catch(complain));
  find("[data-log-search]", section).addEventListener("click", () => search().catch(complain));
  find("[data-wrap]", section).addEventListener("change", (event) => {
    pane.toggleAttribute("data-nowrap", !event.target.checked);
    if (following) toEnd();
  });
}
