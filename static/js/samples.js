/**
 * The samples and LoRA files of a folder: reads what there is and lets it be drawn. The drawing itself
 * (gallery.js, outputs.js) is loaded once there is something to draw. Markup: <section data-samples>, <section data-outputs>.
 */

import { at, get } from "./api.js";
import { complain } from "./dialogs.js";
import { find, needStyle } from "./dom.js";

const REFRESH_MS = 30_000; // while a run is under way, should an event have gone astray

const section = find("[data-samples]");
const panel = find("[data-outputs]");

let shown = ""; // the folder
let running = false;
let answer = null; // as of /api/projects/P/samples, null until it was read

/** Show the samples of a folder; `isRunning`: a run draws more of them. Nothing new does nothing. */
export function showSamples(project, isRunning) {
  if (project === shown && isRunning === running) return;
  if (project !== shown) {
    answer = null;
    panel.hidden = true;
  }
  [shown, running] = [project, isRunning];
  draw();
  refresh();
}

/** Take samples that just appeared, as in an event `samples`. */
export function addSamples(news) {
  if (news.project !== shown || !answer) return;
  const known = new Map(answer.samples.map((sample) => [sample.name, sample]));
  for (const sample of news.samples) known.set(sample.name, sample);
  answer.samples = [...known.values()];
  draw();
  refresh(); // with them came a checkpoint, perhaps
}

async function refresh({ asked = false } = {}) {
  const project = shown;
  if (!project) return;
  try {
    const now = await get(at("projects", project, "samples"));
    if (project !== shown) return;
    answer = now;
    await draw();
    await drawOutputs();
  } catch (error) {
    if (asked && error.status !== 404) complain(error);
  }
}

async function draw() {
  const some = answer?.samples.length;
  find("[data-samples-empty]", section).hidden = Boolean(some);
  const grid = find("[data-samples-grid]", section);
  if (!some) return grid.replaceChildren();
  const [{ drawGallery }] = await Promise.all([import("./gallery.js"), needStyle("samples.css")]);
  if (answer) drawGallery(grid, shown, answer); // what is there by now
}

async function drawOutputs() {
  if (!answer?.loras && panel.hidden) return;
  const [{ showOutputs }] = await Promise.all([import("./outputs.js"), needStyle("samples.css")]);
  await showOutputs(panel, shown, answer?.samples ?? []);
}

/** Wire the section up. */
export function startSamples() {
  find("[data-samples-refresh]", section).addEventListener("click", () => refresh({ asked: true }));
  document.addEventListener("outputs:changed", () => refresh());
  setInterval(() => running && !document.hidden && refresh(), REFRESH_MS);
}
