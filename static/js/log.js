/**
 * The log pane. Lines come in bursts of tens of thousands; they go into blocks of a few hundred lines, a few
 * blocks a frame, and the browser lays out only blocks that are in view.
 */

import { copyText, el, find, say } from "./dom.js";
import { toast } from "./dialogs.js";
import { at } from "./api.js";
import { bytes } from "./format.js";

const BLOCK_LINES = 100;
const MOST_BLOCKS = 2000; // what a page keeps; the file has it all
const FRAME_MS = 4; // time taken out of a frame
const PIECE = 16_384; // characters between two looks at the clock
const LONGEST = 2000; // characters of a line that are shown
const NEAR_END_PX = 24;
const HAND_MS = 1500; // how long a scroll counts as the person's own after wheel, touch or key

const section = find("[data-log]");
const pane = find("[data-log-pane]", section);
const lines = find("[data-log-lines]", section);
const bar = find("[data-log-bar]", section);
const note = find("[data-log-note]", section);
const follow = find("[data-follow]", section);

let shownJob = null;
let waiting = []; // [{text, at}] not yet in the page
let barText = "";
let scheduled = false;
let following = true;
let handAt = -Infinity; // when the person last scrolled
let held = false; // the pointer is down, perhaps on the scroll bar

// -- putting lines in ---------------------------------------------------------------------------

/** Take a piece of log. Another job than before clears the pane. */
export function addLog({ job, text, skipped }) {
  if (job !== shownJob) turnTo(job);
  if (skipped) noteSkipped(skipped);
  if (text) waiting.push({ text, at: 0 });
  schedule();
}

/** Show the log of this job from now on; the pane starts empty. */
export function turnTo(job) {
  if (job === shownJob) return;
  shownJob = job;
  waiting = [];
  barText = "";
  lines.replaceChildren();
  note.hidden = true;
  following = true;
  const download = find("[data-log-download]", section);
  download.hidden = !job;
  if (job) download.href = `${at("jobs", job, "log")}?offset=0&download=1`;
  schedule();
}

/** The line that is being rewritten at the end of the log; empty when there is none. */
export function setBar({ job, text }) {
  if (job !== shownJob) return;
  barText = text ?? "";
  schedule();
}

function noteSkipped(skipped) {
  note.hidden = false;
  say(note, `The first ${bytes(skipped)} of this log are not shown here; the download has all of it.`);
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
  while (lines.childElementCount > MOST_BLOCKS) dropOldest();
  say(bar, barText);
  bar.hidden = barText === "";
  find("[data-log-empty]", section).hidden = lines.childElementCount > 0 || barText !== "";
  if (following) toEnd();
  if (waiting.length) schedule();
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
  let from = 0;
  while (from < all.length) {
    const block = openBlock();
    const some = all.slice(from, from + BLOCK_LINES - block.count);
    put(block, some.map(shortened).join("\n") + "\n", some.length);
    from += some.length;
  }
  if (rest) put(openBlock(), shortened(rest), 0);
}

let last = null; // the block that still takes lines: {node, text, count}

function openBlock() {
  if (last && last.count < BLOCK_LINES && last.node.parentNode === lines) return last;
  const text = document.createTextNode("");
  last = { node: el("div", { className: "log-block" }, text), text, count: 0 };
  lines.append(last.node);
  return last;
}

function put(block, text, count) {
  block.text.appendData(text);
  block.count += count;
  block.node.style.setProperty("contain-intrinsic-size", `auto none auto ${block.count * 1.25}rem`);
}

function shortened(line) {
  if (line.length <= LONGEST) return line;
  const all = line.length.toLocaleString("en");
  return `${line.slice(0, LONGEST)} … [${all} characters; the log file has the whole line]`;
}

function dropOldest() {
  lines.firstElementChild.remove();
  note.hidden = false;
  say(note, "Earlier lines are not shown any more; the download has all of them.");
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
  const end = fromEnd() <= NEAR_END_PX;
  if (end) setFollowing(true);
  else if (held || performance.now() - handAt < HAND_MS) setFollowing(false);
  else if (following) toEnd(); // blocks got their real height: stay where we were
}

function watchScrolling() {
  const hand = () => (handAt = performance.now());
  for (const type of ["wheel", "touchmove", "keydown"]) pane.addEventListener(type, hand, { passive: true });
  pane.addEventListener("pointerdown", () => (held = true));
  window.addEventListener("pointerup", () => (held = false));
  window.addEventListener("pointercancel", () => (held = false));
  pane.addEventListener("scroll", scrolled, { passive: true });
  new ResizeObserver(() => following && toEnd()).observe(pane);
  follow.addEventListener("click", () => {
    setFollowing(true);
    pane.focus({ preventScroll: true });
  });
}

// -- the tools below the pane ---------------------------------------------------------------------

async function copy() {
  const text = lines.textContent + waiting.map((piece) => piece.text.slice(piece.at)).join("") + barText;
  toast((await copyText(text)) ? "Log copied." : "The browser did not allow copying.");
}

const STATES = {
  connecting: ["accent", "Connecting"],
  live: ["good", "Live"],
  polling: ["warn", "Live, once a second"],
  offline: ["danger", "Server not reached; trying again"],
  paused: ["quiet", "Paused while hidden"],
};

/** Show how the log reaches this page; `state` as of the stream. */
export function drawConnection(state) {
  const [tone, text] = STATES[state];
  const tag = find("[data-stream-state]", section);
  tag.dataset.tone = tone;
  say(tag, text);
}

/** Wire the pane up; `onResume` is called by the button Resume log stream. */
export function startLog({ onResume }) {
  watchScrolling();
  find("[data-resume]", section).addEventListener("click", () => {
    setFollowing(true);
    onResume();
  });
  find("[data-log-copy]", section).addEventListener("click", copy);
  find("[data-wrap]", section).addEventListener("change", (event) => {
    pane.toggleAttribute("data-nowrap", !event.target.checked);
    if (following) toEnd();
  });
}
