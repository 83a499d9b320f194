/** The history: past runs, filtered, sorted, some of them selected. Markup: <section data-history>. */

import { at, post, remove } from "./api.js";
import { complain, confirmed, toast } from "./dialogs.js";
import { debounced, el, find, findAll, icon, say } from "./dom.js";
import { STATES, count, far, loss, when } from "./format.js";
import { onPress } from "./press.js";
import { bringFocusBack, holdingFocus, spotOf } from "./rowfocus.js";
import { deletion, keySettings, lossName, pageOf, seconds, settingsWords, spoken, stateTag, took, trained } from "./runwords.js";
import { ended } from "./stream.js";

const PAGE = 100; // rows that are drawn at first, and more each time the end comes into view
const SEARCH_MS = 120;

const box = find("[data-history]");
const body = find("[data-runs]", box);
const filters = find("[data-filters]", box);
const more = find("[data-more]", box);
const everything = find("[data-select-all]", box);
const compare = find("[data-compare]", box);
const erase = find("[data-delete]", box);

const rows = new Map(); // id -> {row, mark}
const selected = new Set();
let board = null;
let found = []; // what fits the filter, sorted
let most = PAGE;

// -- filter and order -----------------------------------------------------------------------------

const KEYS = {
  name: (run) => run.name.toLowerCase(),
  state: (run) => STATES[run.state],
  started: (run) => run.started ?? run.created,
  took: seconds,
  steps: (run) => trained(run).step ?? null,
  loss: (run) => trained(run).loss ?? null,
};

/** What of a run is searched: all that its row says. */
const texts = new WeakMap();
function textOf(run) {
  if (!texts.has(run)) {
    const { recipe = "", trigger_word = "" } = run.settings;
    const parts = [run.name, run.project, run.title, STATES[run.state], run.reason, run.note, recipe, trigger_word];
    texts.set(run, [...parts, ...keySettings(run)].join("\n").toLowerCase());
  }
  return texts.get(run);
}

const chosen = () => Object.fromEntries(new FormData(filters));

function fits({ q, folder, state }) {
  const words = q.toLowerCase().split(/\s+/).filter(Boolean);
  return (run) =>
    (!folder || run.project === folder) &&
    (!state || run.state === state) &&
    words.every((word) => textOf(run).includes(word));
}

/** Sort in place by a key such as "loss" or "loss-down"; what has no value comes last either way. */
function sort(runs, order) {
  const [name, down] = (order || "started-down").split("-");
  const key = KEYS[name];
  const sign = down ? -1 : 1;
  const values = new Map(runs.map((run) => [run, key(run)]));
  return runs.sort((a, b) => {
    const [x, y] = [values.get(a), values.get(b)];
    if (x === y || (x === null && y === null)) return b.created - a.created;
    if (x === null || y === null) return x === null ? 1 : -1;
    return x < y ? -sign : sign;
  });
}

/** Keep the filter in the address, so that reload and bookmark lead back to it. */
function remember() {
  const address = new URL(location.href);
  for (const [name, value] of Object.entries(chosen())) {
    if (value) address.searchParams.set(name, value);
    else address.searchParams.delete(name);
  }
  if (address.href !== location.href) history.replaceState(history.state, "", address);
}

function recall() {
  const query = new URLSearchParams(location.search);
  for (const control of filters.elements) {
    const value = query.get(control.name);
    if (!value) continue;
    if (control.name === "folder") control.append(new Option(value, value)); // the others come with the runs
    control.value = value;
  }
  if (!filters.elements.sort.value) filters.elements.sort.value = "";
}

function drawFolders(runs) {
  const select = filters.elements.folder;
  const names = [...new Set(runs.map((run) => run.project).filter(Boolean))].sort((a, b) => a.localeCompare(b));
  if (select.value && !names.includes(select.value)) names.push(select.value);
  const mark = JSON.stringify(names);
  if (select.dataset.mark === mark) return;
  const was = select.value;
  select.replaceChildren(select.options[0], ...names.map((name) => new Option(name, name)));
  select.value = was;
  select.dataset.mark = mark;
}

// -- drawing --------------------------------------------------------------------------------------

export function drawHistory() {
  const past = board.all.filter(ended);
  const filter = chosen();
  drawFolders(past);
  found = sort(past.filter(fits(filter)), filter.sort);
  box.hidden = !past.length;
  for (const id of selected) if (!board.rows.has(id) || !ended(board.rows.get(id))) selected.delete(id);
  drawOrder(filter.sort || "started-down");
  drawRows();
  drawSelection(past.length);
  find("[data-none]", box).hidden = found.length > 0;
  find("table", box).hidden = found.length === 0;
}

function drawRows() {
  const shown = found.slice(0, most);
  const ids = new Set(shown.map((run) => run.id));
  for (const [id, { row }] of rows) if (!ids.has(id)) (row.remove(), rows.delete(id));
  shown.forEach(place);
  const left = found.length - shown.length;
  more.hidden = left <= 0;
  say(more, `Show more (${left.toLocaleString("en")} further)`);
}

/** Draw a run's row where it belongs; one that did not change keeps its nodes. */
function place(run, index) {
  let known = rows.get(run.id);
  if (known?.run !== run && known?.mark !== JSON.stringify(run)) {
    const row = rowOf(run);
    known?.row.replaceWith(row);
    known = { row, mark: JSON.stringify(run) };
    rows.set(run.id, known);
  }
  known.run = run;
  find("[data-act=select]", known.row).checked = selected.has(run.id);
  known.row.toggleAttribute("data-selected", selected.has(run.id));
  if (body.children[index] !== known.row) body.insertBefore(known.row, body.children[index] ?? null);
}

const hidden = (text) => el("span", { className: "visually-hidden", textContent: ` ${text}` });

function cell(label, content, className = "") {
  return el("td", { className, data: { label } }, ...[content].flat());
}

function rowOf(run) {
  const { total, loss: value } = trained(run);
  return el(
    "tr",
    { data: { run: run.id } },
    el("td", { className: "run-select" }, selectBox(run)),
    el("th", { scope: "row", className: "run-cell" }, ...nameOf(run)),
    cell("State", stateTag(run)),
    cell("Started", run.started ? when(run.started) : "–", "run-started"),
    cell("Duration", took(run), "right"),
    cell("Steps", total ? far(run.progress) : captioned(run), "right"),
    cell(lossName(run), loss(value), "right"),
    cell("Settings", settingsWords(run), "run-settings"),
    el("td", { className: "run-actions" }, actions(run)),
  );
}

/** How many images a run captioned, of how many; a dash for one that does other things. */
const captioned = ({ progress }) => (progress.unit === "image" ? `${far(progress)} images` : "–");

function selectBox(run) {
  const box = el("input", { type: "checkbox", "aria-label": `Select ${spoken(run)}, ${when(run.started ?? run.created)}`, data: { act: "select" } });
  return el("label", { className: "run-check" }, box);
}

function nameOf(run) {
  const open = el(
    "button",
    { type: "button", className: "link-button run-name", data: { details: run.id, act: "name" } },
    run.name,
    hidden(`: details, ${when(run.created)}`),
  );
  const facts = [run.project && run.project !== run.name && `in ${run.project}`, run.settings.recipe && `recipe ${run.settings.recipe}`, run.practice && "practice"];
  return [
    open,
    el("span", { className: "quiet small run-facts", textContent: facts.filter(Boolean).join(" · ") }),
    run.note && el("p", { className: "small run-note", textContent: run.note }),
    run.reason && run.state !== "succeeded" ? el("p", { className: "small quiet run-reason", textContent: run.reason }) : null,
  ].filter(Boolean);
}

function actions(run) {
  const about = `${spoken(run)}, ${when(run.created)}`;
  const bin = el(
    "button",
    { type: "button", className: "icon-button", "aria-label": `Delete ${about}`, title: "Delete", data: { act: "delete" } },
    icon("trash"),
  );
  onPress(bin, () => forget([run]));
  return el(
    "div",
    { className: "row" },
    el("a", { className: "button button-small button-bare", href: pageOf(run), data: { act: "open" } }, "Open", hidden(about)),
    el(
      "button",
      { type: "button", className: "button button-small", data: { details: run.id, act: "details" } },
      "Details",
      hidden(about),
    ),
    bin,
  );
}

function drawOrder(order) {
  const [name, down] = order.split("-");
  for (const head of findAll("[data-sort]", box)) {
    if (head.dataset.sort === name) head.setAttribute("aria-sort", down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
}

/** A second press on a column turns its order around. */
function sortBy(head) {
  const select = filters.elements.sort;
  const { sort: name, first } = head.dataset;
  const [now, down] = (select.value || "started-down").split("-");
  const next = now === name ? !down : first === "down";
  const order = next ? `${name}-down` : name;
  select.value = order === "started-down" ? "" : order;
  refilter();
}

// -- selection ------------------------------------------------------------------------------------

/** What is selected and fits the filter: what is out of sight is never acted on. */
const selectedRuns = () => found.filter((run) => selected.has(run.id));

function drawSelection(all) {
  const here = selectedRuns().length;
  everything.checked = here > 0 && here === found.length;
  everything.indeterminate = here > 0 && here < found.length;
  const shown = found.length === all ? count(all, "run") : `${found.length} of ${count(all, "run")}`;
  const apart = selected.size - here;
  const chosenText = `${count(here, "run")} selected${apart ? `, ${apart} more not shown` : ""}`;
  say(find("[data-selection-text]", box), selected.size ? chosenText : shown);
  compare.ariaDisabled = here === 2 && selectedRuns().every(({ kind }) => kind === "train") ? null : "true";
  erase.ariaDisabled = here ? null : "true";
}

function toggle(event) {
  const id = event.target.closest("[data-run]")?.dataset.run;
  if (!id || event.target.dataset.act !== "select") return;
  if (event.target.checked) selected.add(id);
  else selected.delete(id);
  holdingFocus(drawHistory);
}

function toggleAll() {
  for (const run of found) {
    if (everything.checked) selected.add(run.id);
    else selected.delete(run.id);
  }
  drawHistory();
}

async function openCompare() {
  const [a, b] = selectedRuns().sort((x, y) => x.created - y.created);
  const { compareRuns } = await import("./comparison.js");
  await compareRuns(a, b);
}

/** Delete runs after a question; resolves to true when they are gone. What kept them from it is thrown. */
export async function forget(runs) {
  const spot = spotOf(document.activeElement);
  const yes = await confirmed({ ...deletion(runs), yes: "Delete" });
  if (yes) await erased(runs);
  bringFocusBack(spot);
  return yes;
}

async function erased(runs) {
  const ids = runs.map((run) => run.id);
  const { removed, kept } = ids.length > 1 ? await post("/api/runs/delete", { names: ids }) : await eraseOne(ids[0]);
  board.change({ removed });
  if (kept.length) complain({ message: `${count(kept.length, "run")} stayed: ${kept[0].error}` });
  else toast(`${count(removed.length, "run")} deleted.`);
}

async function eraseOne(id) {
  await remove(at("jobs", id));
  return { removed: [id], kept: [] };
}

// -- wiring ---------------------------------------------------------------------------------------

function refilter() {
  most = PAGE;
  remember();
  drawHistory();
}

const searchLater = debounced(refilter, SEARCH_MS);

/** Wire the history up; `source` is the board it shows, whose changes runs.js has drawn. */
export function startHistory(source) {
  board = source;
  recall();
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("input", (event) => (event.target.name === "q" ? searchLater() : refilter()));
  body.addEventListener("change", toggle);
  everything.addEventListener("change", toggleAll);
  onPress(compare, openCompare);
  onPress(erase, () => forget(selectedRuns()));
  find("[data-unfilter]", box).addEventListener("click", () => {
    filters.reset();
    refilter();
    filters.elements.q.focus();
  });
  for (const head of findAll("[data-sort]", box)) find("button", head).addEventListener("click", () => sortBy(head));
  const grow = () => {
    most += PAGE;
    drawRows();
  };
  more.addEventListener("click", grow);
  new IntersectionObserver(([entry]) => entry.isIntersecting && !more.hidden && grow(), { rootMargin: "600px" }).observe(more);
}
