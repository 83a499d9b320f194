/** The sample images as grids, one for each run: a row for each prompt, a column for each epoch or step. */

import { at } from "./api.js";
import { complain } from "./dialogs.js";
import { el, find, icon } from "./dom.js";
import { count, when } from "./format.js";

const BASELINE = "Baseline";
const RETRY_MS = [700, 2000, 5000]; // a picture may be told of while it is still being written

const anchors = new Map(); // sample name -> {link, mark}: those that stay are not drawn anew
let drawn = { project: "", groups: [], best: null };
let lightbox = null; // the module, once it was used

/** The grids as they stand: [{key, title, run, columns: [{name, key}], rows: [{number, prompt, cells}]}]. */
export const groups = () => drawn.groups;

/** The folder they are of. */
export const folder = () => drawn.project;

/** Whether the checkpoint of a sample is the one marked as the best. */
export const isBest = ({ checkpoint }) => Boolean(checkpoint) && checkpoint === drawn.best;

/** The link of a sample in its grid, or undefined. */
export const linkOf = (sample) => anchors.get(sample.name)?.link;

/** Where a sample stands in the course of training: a key to sort by, and its name. */
export function place({ epoch, step }) {
  if (epoch === 0 || step === 0) return { key: -1, name: BASELINE };
  if (step !== null && step !== undefined) return { key: step, name: `Step ${step}` };
  return { key: epoch, name: `Epoch ${epoch}` };
}

/** Draw what the server lists. */
export function drawGallery(grid, project, { samples, runs, best }) {
  if (project !== drawn.project) anchors.clear();
  drawn = { project, groups: grouped(samples, runs), best };
  const open = new Set([...grid.querySelectorAll("details[open]")].map((node) => node.dataset.key));
  const left = whereScrolled(find(".samples-scroll", grid));
  const focused = document.activeElement;
  const [first, ...before] = drawn.groups;
  grid.replaceChildren(
    el("div", { className: "samples-now" }, headOf(first), table(first)),
    ...before.map((group) => folded(group, open.has(group.key))),
  );
  const scroller = find(".samples-scroll", grid);
  scroller.scrollLeft = Math.min(left, scroller.scrollWidth);
  if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
  lightbox?.update();
}

/** How far a scroller is; at its end it stays there, so that what is newest stays in view. */
function whereScrolled(scroller) {
  if (!scroller) return Infinity;
  const end = scroller.scrollWidth - scroller.clientWidth - scroller.scrollLeft < 8;
  return end ? Infinity : scroller.scrollLeft;
}

// -- what belongs together ------------------------------------------------------------------------

/** Samples by run, the newest run first; what no run on record drew comes last, by LoRA. */
function grouped(samples, runs) {
  const byId = new Map(runs.map((run) => [run.id, run]));
  const found = new Map(runs.map((run) => [run.id, []]));
  for (const sample of [...samples].sort((a, b) => a.modified - b.modified)) {
    const key = sample.run ?? `lora ${sample.lora ?? ""}`;
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(sample);
  }
  return [...found]
    .filter(([, own]) => own.length)
    .map(([key, own]) => ({ key, run: byId.get(key) ?? null, title: titleOf(byId.get(key), own), ...gridOf(own) }));
}

function titleOf(run, [first]) {
  if (run) return `${run.name}, run of ${when(run.started)}`;
  return `${first.lora ?? "Samples"}, from a run that is not on record`;
}

/** Samples (oldest first) in rows by prompt and columns by place; of two in one cell the newer shows. */
function gridOf(own) {
  const columns = new Map();
  const rows = new Map();
  for (const sample of own) {
    const { key, name } = place(sample);
    columns.set(name, { key, name, order: sample.modified });
    const number = sample.prompt_number;
    if (!rows.has(number)) rows.set(number, { number, prompt: sample.prompt, cells: new Map() });
    rows.get(number).cells.set(name, sample);
  }
  return {
    size: own.length,
    columns: [...columns.values()].sort(inCourse),
    rows: [...rows.values()].sort((a, b) => a.number - b.number),
  };
}

/** The baseline first, then as they were made. */
const inCourse = (a, b) => (a.key === -1 ? -1 : b.key === -1 ? 1 : a.order - b.order || a.key - b.key);

// -- drawing --------------------------------------------------------------------------------------

function headOf(group) {
  return el("div", { className: "samples-head small" }, el("span", { className: "quiet", textContent: group.title }), zip(group));
}

function zip(group) {
  const query = group.run ? `?run=${encodeURIComponent(group.run.id)}` : "";
  return el(
    "a",
    { className: "button button-small button-bare", href: at("projects", drawn.project, "samples.zip") + query, download: "" },
    icon("download"),
    group.run || drawn.groups.length === 1 ? "Download as zip" : "Download all as zip",
    el("span", { className: "visually-hidden", textContent: ` of ${group.title}` }),
  );
}

function folded(group, open) {
  const title = el("summary", {}, icon("chevron"), `${group.title} (${count(group.size, "sample")})`);
  title.firstChild.classList.add("chevron");
  const box = el("details", { className: "disclosure samples-run", open, data: { key: group.key } }, title);
  const fill = () => box.childElementCount === 1 && box.append(el("div", { className: "samples-head" }, zip(group)), table(group));
  if (open) fill();
  box.addEventListener("toggle", fill);
  return box;
}

function table(group) {
  const box = el("div", { className: "samples" });
  box.style.setProperty("--columns", String(group.columns.length));
  for (const row of group.rows) {
    const text = row.prompt ? `${row.number + 1}. ${row.prompt}` : `Prompt ${row.number + 1} (its text is not known)`;
    box.append(el("p", { className: "samples-prompt", textContent: text, title: row.prompt ?? "" }));
    for (const { name } of group.columns) box.append(cell(row.cells.get(name), name, row.prompt));
  }
  return el("div", { className: "samples-scroll", tabIndex: 0, role: "group", "aria-label": `Sample images: ${group.title}` }, box);
}

function cell(sample, name, prompt) {
  if (!sample) return el("span", { className: "sample-gap" });
  const mark = `${sample.thumb} ${isBest(sample)} ${prompt}`;
  const known = anchors.get(sample.name);
  if (known?.mark === mark) return known.link;
  const image = thumbOf(sample, `${name}: ${prompt || sample.name}`);
  const className = name === BASELINE ? "sample sample-base" : "sample";
  const link = el("a", { className, href: sample.url, target: "_blank", rel: "noopener" }, image, name);
  if (isBest(sample)) link.append(el("span", { className: "sample-best" }, icon("star"), "Best"));
  link.addEventListener("click", (event) => clicked(event, sample.name, link));
  anchors.set(sample.name, { link, mark });
  return link;
}

/** The thumbnail of a sample; one that can't be had yet is asked for again. */
export function thumbOf(sample, alt, side = 136) {
  const image = el("img", { alt, loading: "lazy", decoding: "async", width: side, height: side, src: sample.thumb });
  let tries = 0;
  image.addEventListener("error", () => {
    if (tries < RETRY_MS.length) setTimeout(() => (image.src = `${sample.thumb}&try=${tries}`), RETRY_MS[tries++]);
  });
  return image;
}

/** A plain click opens the full view; with a modifier the browser opens the image itself. */
function clicked(event, name, link) {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey || event.button) return;
  event.preventDefault();
  openSample(name, link);
}

/** Open the full view on a sample by name; the focus comes back to `opener`. */
export async function openSample(name, opener) {
  try {
    lightbox ??= await import("./lightbox.js");
    await lightbox.openLightbox(name, opener);
  } catch (error) {
    complain(error);
  }
}
