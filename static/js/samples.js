/** The sample images as a grid: a row for each prompt, a column for each epoch or step, the baseline first. */

import { at, get } from "./api.js";
import { complain } from "./dialogs.js";
import { el, find, icon } from "./dom.js";

const section = find("[data-samples]");
const grid = find("[data-samples-grid]", section);

const BASELINE = "Baseline";

let shownProject = "";
let since = 0; // when the run shown above began: what is older belongs to earlier ones
const samples = new Map(); // image address -> sample

/** Where a sample stands in the course of training: a key to sort by, and its name. */
function place({ epoch, step }) {
  if (epoch === 0 || step === 0) return { key: -1, name: BASELINE };
  if (step !== null && step !== undefined) return { key: step, name: `Step ${step}` };
  return { key: epoch, name: `Epoch ${epoch}` };
}

/** Show the samples of a folder, those made from `begun` (seconds) on apart; nothing new does nothing. */
export function showSamples(project, begun = 0) {
  if (project === shownProject && begun === since) return;
  const same = project === shownProject;
  shownProject = project;
  since = begun;
  if (!same) samples.clear();
  draw();
  if (project && !same) refresh();
}

/** Take samples that just appeared, as in an event `samples`. */
export function addSamples(news) {
  if (news.project !== shownProject) return;
  for (const sample of news.samples) samples.set(sample.url, sample);
  draw();
}

async function refresh({ asked = false } = {}) {
  const project = shownProject;
  if (!project) return;
  try {
    const answer = await get(at("projects", project, "samples"));
    if (project !== shownProject) return;
    samples.clear();
    for (const sample of answer.samples) samples.set(sample.url, sample);
    draw();
  } catch (error) {
    if (asked && error.status !== 404) complain(error);
  }
}

function draw() {
  const all = [...samples.values()].sort((a, b) => a.modified - b.modified);
  const now = all.filter((sample) => sample.modified >= since);
  const before = all.filter((sample) => sample.modified < since);
  find("[data-samples-empty]", section).hidden = all.length > 0;
  const left = whereScrolled(find(".samples-scroll", grid));
  const open = find("details", grid)?.open ?? false;
  grid.replaceChildren(
    ...(now.length ? [table(now)] : []),
    ...(before.length ? [earlier(before, open)] : []),
  );
  const scroller = find(".samples-scroll", grid);
  if (scroller) scroller.scrollLeft = Math.min(left, scroller.scrollWidth);
}

/** How far a scroller is; at its end it stays there, so that what is newest stays in view. */
function whereScrolled(scroller) {
  if (!scroller) return Infinity;
  const end = scroller.scrollWidth - scroller.clientWidth - scroller.scrollLeft < 8;
  return end ? Infinity : scroller.scrollLeft;
}

function earlier(before, open) {
  const title = el("summary", {}, icon("chevron"), "Samples of earlier runs");
  title.firstChild.classList.add("chevron");
  return el("details", { className: "disclosure samples-run", open }, title, table(before));
}

/** Samples (oldest first) in rows by prompt and columns by place; of two in one cell the newer shows. */
function table(run) {
  const columns = new Map();
  const rows = new Map();
  for (const sample of run) {
    const { key, name } = place(sample);
    columns.set(name, { key, name, order: sample.modified });
    const row = sample.prompt_number ?? sample.prompt ?? "";
    if (!rows.has(row)) rows.set(row, { prompt: sample.prompt, cells: new Map() });
    rows.get(row).cells.set(name, sample);
  }
  const sorted = [...columns.values()].sort((a, b) => inCourse(a, b));
  const box = el("div", { className: "samples" });
  box.style.setProperty("--columns", String(sorted.length));
  for (const [, { prompt, cells }] of [...rows].sort(([a], [b]) => (a < b ? -1 : 1))) {
    box.append(
      el("p", {
        className: "samples-prompt",
        textContent: prompt || "Prompt not known",
        title: prompt ?? "",
      }),
    );
    for (const { name } of sorted) box.append(cell(cells.get(name), name, prompt));
  }
  return el(
    "div",
    { className: "samples-scroll", tabIndex: 0, role: "group", "aria-label": "Sample images" },
    box,
  );
}

/** The baseline first, then as they were made. */
const inCourse = (a, b) => (a.key === -1 ? -1 : b.key === -1 ? 1 : a.order - b.order || a.key - b.key);

function cell(sample, name, prompt) {
  if (!sample) return el("span", { className: "sample-gap" });
  const image = el("img", { src: sample.thumb, loading: "lazy", decoding: "async", width: 136, height: 136 });
  image.alt = `${name}: ${prompt || sample.name}`;
  const className = name === BASELINE ? "sample sample-base" : "sample";
  return el("a", { className, href: sample.url, target: "_blank", rel: "noopener" }, image, name);
}

/** Wire the section up. */
export function startSamples() {
  find("[data-samples-refresh]", section).addEventListener("click", () => refresh({ asked: true }));
}
