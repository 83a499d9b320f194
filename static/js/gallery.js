/** The sample images as grids, one for each run: a row for each prompt, a column for each epoch or step. */

import { at } from "./api.js";
import { complain } from "./dialogs.js";
import { el, find, icon } from "./dom.js";
import { count, when } from "./format.js";
import { arrange, openFolds, redraw } from "./keepfocus.js";

const BASELINE = "Baseline";
const RETRY_MS = [700, 2000, 5000]; // a picture may be told of while it is still being written

// What stands in the page stays the same nodes: whoever is in a grid, or has scrolled it, is not thrown out.
const anchors = new Map(); // sample name -> {link, mark}
const scrollers = new Map(); // key of a run -> its grid, in what scrolls it
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
  if (project !== drawn.project) [anchors, scrollers].forEach((known) => known.clear());
  drawn = { project, groups: grouped(samples, runs), best };
  const open = openFolds(grid);
  const newest = scrollers.get(drawn.groups[0].key);
  const follows = !newest?.isConnected || follow(newest);
  redraw(grid, () => {
    const boxes = new Map([...grid.children].map((box) => [box.dataset.key, box]));
    arrange(grid, drawn.groups.map((group, place) => boxOf(group, boxes.get(group.key), place > 0, open)));
  });
  if (follows) toEnd(scrollers.get(drawn.groups[0].key));
  lightbox?.update();
}

/** Whether a grid is at its end, to stay there as columns come; not while somebody is on one of its samples. */
function follow(scroller) {
  const focused = document.activeElement;
  if (focused !== scroller && scroller.contains(focused)) return false;
  return scroller.scrollWidth - scroller.clientWidth - scroller.scrollLeft < 8;
}

function toEnd(scroller) {
  scroller.scrollLeft = scroller.scrollWidth;
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

/** The box of a run; the one that stands is used again unless the run is folded now and was not. */
function boxOf(group, standing, isFolded, open) {
  const reused = standing?.matches("details") === isFolded ? standing : null;
  if (isFolded) return folded(group, reused ?? foldOf(group, open.has(group.key)));
  const box = reused ?? el("div", { className: "samples-now", data: { key: group.key } });
  return fill(box, [headOf(group, group.title), table(group)]);
}

/** Give a box its content; what would look the same stays. */
function fill(box, nodes) {
  arrange(box, nodes.map((node, index) => (node.isEqualNode(box.children[index]) ? box.children[index] : node)));
  return box;
}

function headOf(group, title = null) {
  const text = title && el("span", { className: "quiet", textContent: title });
  return el("div", { className: "samples-head small" }, text, zip(group));
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

/** The fold of an older run, empty. */
function foldOf(group, open) {
  const box = el("details", { className: "disclosure samples-run", open, data: { key: group.key } });
  box.addEventListener("toggle", () => {
    const now = drawn.groups.find(({ key }) => key === box.dataset.key);
    if (now) folded(now, box);
  });
  return box;
}

/** The samples of an older run: its grid is made once it is looked at. */
function folded(group, box) {
  const title = el("summary", {}, icon("chevron"), `${group.title} (${count(group.size, "sample")})`);
  title.firstChild.classList.add("chevron");
  const looked = box.open || box.childElementCount > 1;
  return fill(box, looked ? [title, headOf(group), table(group)] : [title]);
}

function table(group) {
  if (!scrollers.has(group.key)) scrollers.set(group.key, scrollerOf());
  const scroller = scrollers.get(group.key);
  scroller.setAttribute("aria-label", `Sample images: ${group.title}`);
  const box = scroller.firstChild;
  box.style.setProperty("--columns", String(group.columns.length));
  const cells = group.rows.flatMap((row) => [
    promptOf(row),
    ...group.columns.map(({ name }) => cell(row.cells.get(name), name, row.prompt)),
  ]);
  arrange(box, cells);
  return scroller;
}

function scrollerOf() {
  const box = el("div", { className: "samples" });
  const scroller = el("div", { className: "samples-scroll", tabIndex: 0, role: "group" }, box);
  scroller.addEventListener("scroll", () => hint(scroller), { passive: true });
  sizes.observe(scroller);
  sizes.observe(box);
  return scroller;
}

const sizes = new ResizeObserver((seen) => seen.forEach(({ target }) => hint(target.closest(".samples-scroll"))));

/** Mark at which sides there is more to scroll to; CSS shows it. */
function hint(scroller) {
  const { scrollLeft, scrollWidth, clientWidth } = scroller;
  scroller.toggleAttribute("data-before", scrollLeft > 4);
  scroller.toggleAttribute("data-after", scrollWidth - clientWidth - scrollLeft > 4);
}

function promptOf({ number, prompt }) {
  const text = prompt ? `${number + 1}. ${prompt}` : `Prompt ${number + 1} (its text is not known)`;
  return el("p", { className: "samples-prompt", textContent: text, title: prompt ?? "" });
}

function cell(sample, name, prompt) {
  if (!sample) return el("span", { className: "sample-gap" });
  const known = anchors.get(sample.name) ?? { link: linkTo(sample.name) };
  const mark = JSON.stringify([sample.thumb, isBest(sample), prompt]);
  if (known.mark !== mark) drawCell(known.link, sample, name, prompt);
  anchors.set(sample.name, { ...known, mark });
  return known.link;
}

function linkTo(name) {
  const link = el("a", { target: "_blank", rel: "noopener", data: { key: name } });
  link.addEventListener("click", (event) => clicked(event, name, link));
  return link;
}

function drawCell(link, sample, name, prompt) {
  link.className = name === BASELINE ? "sample sample-base" : "sample";
  link.href = sample.url;
  const known = find("img", link);
  const image = known?.getAttribute("src") === sample.thumb ? known : thumbOf(sample, "");
  image.alt = `${name}: ${prompt || sample.name}`;
  link.replaceChildren(image, name);
  if (isBest(sample)) link.append(" ", el("span", { className: "sample-best" }, icon("star"), "Best"));
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
