/** The loss of the followed run as a chart and as a sentence. Markup: <section data-loss>. */

import { at, get } from "./api.js";
import { Chart } from "./chart.js";
import { find, say } from "./dom.js";

const AGAIN_MS = 5000; // how often missing steps are fetched at most

const section = find("[data-loss]");
const box = find("[data-chart]", section);
const line = find("[data-loss-text]", section);
const chart = new Chart(box, { onRead: read });
const opener = find("[data-chart-open]", section);

let shownJob = null;
let fetchedAt = -Infinity;
let fetching = false;

/** Take the state of the followed job: its newest step goes into the chart. */
export function drawLoss(job) {
  if (job.id !== shownJob) turnTo(job);
  if (job.kind !== "train") return;
  const { step, total, epoch, loss } = job.progress ?? {};
  const training = !job.stage || job.stage.index === job.stage.count;
  if (!training || !step || loss === null || loss === undefined) return;
  if (fetching && step > 1 && !chart.steps.length) return; // what came before is on its way
  chart.total = total;
  const gap = chart.add(step, loss, epoch);
  if (gap || job.state !== "running") fill(job.state !== "running");
  tell();
}

opener.addEventListener("click", async () => (await import("./losschart.js")).openChart(shownJob));

function turnTo(job) {
  shownJob = job?.id ?? null;
  fetchedAt = -Infinity;
  chart.clear();
  tell();
  if (job?.kind === "train") fill();
}

/** Fetch every step there is, at most every few seconds. */
async function fill(now = false) {
  if (fetching || (!now && performance.now() - fetchedAt < AGAIN_MS)) return;
  fetching = true;
  fetchedAt = performance.now();
  const job = shownJob;
  try {
    const columns = await get(at("jobs", job, "metrics"));
    if (job === shownJob && columns.step.length) chart.set(columns);
  } catch {
    // The chart goes on with what comes live.
  } finally {
    fetching = false;
  }
  if (job !== shownJob) fill(true);
  else tell();
}

/** What the cursor points at is read aloud; the summary, which changes by itself, is not. */
function read(text) {
  line.setAttribute("aria-live", text ? "polite" : "off");
  say(line, text || chart.summary);
}

function tell() {
  const summary = chart.summary;
  find("[data-chart-empty]", section).hidden = summary !== "";
  opener.hidden = !summary;
  if (chart.cursor === null) read("");
  box.setAttribute("aria-label", summary ? `Loss over steps: ${summary}` : "Loss over steps: no values yet");
}
