/** Searching the whole log, also what is not in the page. Loaded at first use. Markup: its own, above the log. */

import { at, get } from "./api.js";
import { debounced, el, find, icon, say } from "./dom.js";
import { count as lines } from "./format.js";
import { rangeOf, showLine, whereInLog } from "./log.js";

const TYPED_MS = 200;

const opener = find("[data-log-search]");
const field = el("input", { type: "search", className: "input", "aria-label": "Search the log", maxLength: 200 });
field.placeholder = "Search the log";
field.autocomplete = "off";
const told = el("output", { className: "small quiet numbers", "aria-live": "polite" });
const previous = iconButton("up", "Previous match");
const next = iconButton("down", "Next match");
const close = iconButton("close", "Close the search");
const box = el("search", { className: "row log-search", hidden: true }, field, told, previous, next, close);

let found = null; // {count, offsets, size} of the text and job below
let asked = {};
let current = -1;

function iconButton(name, label) {
  return el("button", { type: "button", className: "icon-button", "aria-label": label, title: label }, icon(name));
}

/** Open the search, or close it. */
export function toggleSearch() {
  if (!box.isConnected) build();
  box.hidden = !box.hidden;
  opener.setAttribute("aria-expanded", String(!box.hidden));
  if (box.hidden) return forget();
  field.focus();
  field.select();
  if (field.value) look();
}

function build() {
  find("[data-log] .log-box").before(box);
  field.addEventListener("input", debounced(look, TYPED_MS));
  field.addEventListener("keydown", typed);
  previous.addEventListener("click", () => step(-1));
  next.addEventListener("click", () => step(1));
  close.addEventListener("click", leave);
  document.addEventListener("log:turned", () => !box.hidden && look());
}

function typed(event) {
  if (event.key === "Enter") step(event.shiftKey ? -1 : 1);
  else if (event.key === "Escape") leave();
  else return;
  event.preventDefault();
}

function leave() {
  toggleSearch();
  opener.focus();
}

function forget() {
  found = null;
  asked = {};
  CSS.highlights?.delete("found");
}

/** Ask for the lines; shown is the last one above the end of what is in view, as a person reads upwards. */
async function look() {
  const { job, top, following } = whereInLog();
  const text = field.value;
  forget();
  say(told, "");
  if (!job || !text) return;
  asked = { job, text };
  if (!(await fetchFound())) return;
  const shown = found.offsets.findIndex((offset) => offset >= top);
  current = following || shown < 0 ? found.offsets.length - 1 : shown;
  await show();
}

async function fetchFound() {
  const mine = asked;
  try {
    const answer = await get(`${at("jobs", mine.job, "log", "search")}?q=${encodeURIComponent(mine.text)}`);
    if (mine !== asked) return false;
    found = answer;
    return true;
  } catch (error) {
    if (mine === asked) say(told, error.whole);
    return false;
  }
}

/** The next match, or the one before; beyond the last one the log is asked for newer lines. */
async function step(by) {
  if (asked.text !== field.value || asked.job !== whereInLog().job) return look();
  if (!found) return;
  const beyond = current + by >= found.offsets.length && whereInLog().end > found.size;
  if (beyond && !(await fetchFound())) return;
  const count = found.offsets.length;
  current = count ? (current + by + count) % count : -1;
  await show();
}

async function show() {
  const { count, offsets } = found;
  const most = count > offsets.length ? ` (the first ${offsets.length.toLocaleString("en")} can be stepped through)` : "";
  say(told, count ? `${(current + 1).toLocaleString("en")} of ${lines(count, "line")}${most}` : "Not found");
  for (const button of [previous, next]) button.disabled = !count;
  if (!count) return;
  const mine = asked;
  const place = await showLine(offsets[current]);
  if (place && mine === asked) mark(place);
}

/** Light up what was looked for in a line; without the browser's highlights the line is selected. */
function mark(place) {
  const line = place.node.data.slice(place.start, place.end);
  const at = line.toLowerCase().indexOf(asked.text.toLowerCase());
  const range = rangeOf(at < 0 ? place : { ...place, start: place.start + at, end: place.start + at + asked.text.length });
  if (CSS.highlights) CSS.highlights.set("found", new Highlight(range));
  else getSelection().setBaseAndExtent(range.startContainer, range.startOffset, range.endContainer, range.endOffset);
}
