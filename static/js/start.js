/** Checking the settings as they change, and starting. Markup: <section data-start>. */

import { at, post } from "./api.js";
import { toast } from "./dialogs.js";
import { debounced, el, find, findAll, icon, say } from "./dom.js";
import { drawEstimate } from "./estimate.js";
import { count } from "./format.js";
import { settleCaptions } from "./images.js";
import { project } from "./project.js";
import { apply, drawCommands, goTo, showErrors, touchAll, values } from "./settings.js";

const CHECK_MS = 300;
const PATIENCE_MS = 500; // a start that takes longer says what it waits for

const section = find("[data-start]");
const button = find("[data-start-button]", section);

let asked = null; // the check under way, to be called off by the next
let pressed = false; // Start was pressed: what is missing is now said as an error
let starting = false;
let hadErrors = null;
let hadFix = false;

async function check() {
  asked?.abort();
  const mine = (asked = new AbortController());
  const asking = { project: project.name, settings: values() };
  let found;
  try {
    found = await post("/api/check", asking, { signal: mine.signal });
  } catch (error) {
    if (error.name === "AbortError") return;
    found = { errors: error.problems, warnings: [], stages: [], estimate: null };
  }
  draw(found);
}

const checkLater = debounced(check, CHECK_MS);

function draw({ errors, warnings, stages, estimate }) {
  document.dispatchEvent(new CustomEvent("checked", { detail: { warnings: warnings ?? [] } }));
  showErrors(errors);
  drawCommands(stages ?? []);
  drawEstimate(estimate, stages ?? []);
  drawProblems(errors, warnings ?? []);
}

function drawProblems(errors, warnings) {
  const rows = [
    ...errors.map((problem) => [problem, pressed ? "danger" : "quiet", pressed ? "bad" : "info"]),
    ...warnings.map((problem) => [problem, "warn", "warn"]),
  ];
  const box = find("[data-problems]", section);
  const focused = box.contains(document.activeElement) && document.activeElement;
  box.hidden = rows.length === 0;
  box.dataset.tone = errors.length ? (pressed ? "danger" : "quiet") : "warn";
  if (Boolean(errors.length) !== hadErrors || pressed) box.open = errors.length > 0;
  const fix = warnings.some((warning) => warning.fix);
  if (fix && !hadFix) box.open = true; // what would go wrong, with a way out, is not only a note
  hadFix = fix;
  hadErrors = errors.length > 0;
  const toDo = pressed ? "This keeps it from starting" : "Before it can start";
  const title = errors.length ? toDo : `Good to know before the start: ${count(warnings.length, "note")}`;
  say(find("[data-problems-title]", section), title);
  placeRows(rows);
  if (focused) holdFocus(focused, box);
}

let placed = new Map(); // what a row says, as JSON -> the row

/** Put the rows of the list in place. One that says the same as before keeps its nodes, and so the focus. */
function placeRows(rows) {
  const list = find("[data-problems-list]", section);
  const before = placed;
  placed = new Map();
  for (const row of rows) {
    const field = row[0].field;
    const known = Boolean(field && (placeOf(field) || find(`[data-field="${CSS.escape(field)}"]`)));
    const key = JSON.stringify([...row, known]);
    placed.set(key, before.get(key) ?? problemRow(...row, known));
  }
  for (const [key, row] of before) if (!placed.has(key)) row.remove();
  [...placed.values()].forEach((row, index) => {
    if (list.children[index] !== row) list.insertBefore(row, list.children[index] ?? null);
  });
}

/** What had the focus may be gone: then it goes to a note on the same field, the list's title or Start. */
function holdFocus(node, box) {
  if (document.activeElement === node && node.checkVisibility()) return;
  const successors = findAll("[data-about]", box).filter((one) => one.dataset.about === node.dataset.about);
  const next = [node, ...successors, find("summary", box), button];
  next.find((one) => one.isConnected && one.checkVisibility()).focus();
}

function problemRow({ error, field, hint, fix }, tone, mark, known) {
  const short = hint && !hint.includes("://"); // a long way to go is told where it begins
  const text = short ? `${error} ${hint}` : error;
  const body = known
    ? el("button", { type: "button", className: "link-button", textContent: text, data: { about: field } })
    : el("span", { textContent: text });
  if (known) body.addEventListener("click", () => lead(field));
  return el("li", { className: "problem", data: { tone } }, icon(mark), body, fix ? fixButton(fix) : null);
}

function fixButton({ label, settings }) {
  const button = el("button", { type: "button", className: "button button-small", textContent: label });
  button.addEventListener("click", () => {
    apply(settings);
    toast(`Done: ${label}.`);
  });
  return button;
}

/** Where on the page something other than a setting is mended, or null. */
function placeOf(field) {
  if (field === "images")
    return find(project.data?.images.length ? "[data-health] > summary" : "[data-select]");
  if (field === "captions") {
    const areas = findAll("[data-cards] textarea");
    return areas.find((area) => area.closest(".card:has([data-conflict], [data-card-error]:not([hidden]))")) ??
      areas.find((area) => !area.value.trim()) ?? null;
  }
  return find(`[data-model="${CSS.escape(field.replace(/^models\./, ""))}"] summary`);
}

/** Bring the keyboard to where a problem is mended; false when that is nowhere on the page. */
export function lead(field) {
  const place = placeOf(field);
  if (!place) return goTo(field);
  for (let box = place.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
  place.focus();
  place.scrollIntoView({ block: "center" });
  return true;
}

/** Start what the form holds, as a press on the button does. */
export async function start() {
  if (starting) return;
  starting = true;
  button.setAttribute("aria-disabled", "true");
  const slow = setTimeout(() => drawLabel("Looking at the images…"), PATIENCE_MS);
  try {
    refuseUnsaved(await settleCaptions());
    if (!project.exists) await checkNow();
    const job = await post(at("projects", project.name, "train"), { settings: values() });
    pressed = false;
    drawProblems([], []);
    document.dispatchEvent(new CustomEvent("job:started", { detail: job }));
    checkLater();
  } catch (error) {
    refused(error);
  } finally {
    starting = false;
    clearTimeout(slow);
    drawLabel(label);
    button.removeAttribute("aria-disabled");
  }
}

/** A run must not train on other texts than the page shows. */
function refuseUnsaved(cards) {
  if (!cards.length) return;
  const names = cards.slice(0, 3).map((card) => card.name).join(", ");
  const error = `Captions that are not saved: ${names}${cards.length > 3 ? " and others" : ""}.`;
  const problem = { error, field: "captions", hint: "See what their cards say, then start again." };
  cards[0].area.focus();
  throw Object.assign(new Error(error), { problems: [problem] });
}

/** Without a folder yet, the check knows better what to do first than the refusal would. */
async function checkNow() {
  const { errors } = await post("/api/check", { project: project.name, settings: values() });
  if (errors.length) throw Object.assign(new Error(errors[0].error), { problems: errors });
}

function refused(error) {
  pressed = true;
  touchAll();
  showErrors(error.problems, { all: true });
  drawProblems(error.problems, []);
  const first = error.problems.find((problem) => problem.field);
  if (first && lead(first.field)) return;
  const box = find("[data-problems]", section); // in view already where the section sticks to the end
  if (box.getBoundingClientRect().bottom > innerHeight) box.scrollIntoView({ block: "nearest" });
}

let label = "Start training";
const drawLabel = (text) => say(find("[data-start-label]", button), text);

/** Say on the button what a press would do: start at once, or queue behind the run under way. */
export function drawButton(busy) {
  label = busy ? "Add to queue" : "Start training";
  if (!starting) drawLabel(label);
}

/** Wire the section up. */
export function startStart() {
  button.addEventListener("click", start);
  for (const type of [
    "settings:changed",
    "images:changed",
    "project:read",
    "project:created",
    "models:changed",
  ]) {
    document.addEventListener(type, checkLater);
  }
  document.addEventListener("project:opened", check);
  document.addEventListener("change", (event) => event.target.dataset?.setting && checkLater());
}
