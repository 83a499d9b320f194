/** The header line and the tab's title, on every page: folder, what runs, step, time left, RAM, VRAM. */

import { find, say } from "./dom.js";
import { STATES, TONES, duration, far } from "./format.js";

const STAGES = { latents: "Latents", text_encoder: "Text encoder", fetch: "Downloading", caption: "Captioning" };
const THREAD = { failed: "danger", succeeded: "good", stopped: "quiet", interrupted: "quiet" };

let reached = true; // false while the server can't be reached: what stands here is old
let last = [null, {}]; // what was drawn last

const part = (name) => find(`[data-status="${name}"]`);
const thread = find("[data-thread]");

/**
 * Bring the line and the title up to date with a job, or null. `name` is the folder or the page, `left` the seconds
 * to go, `href` where more is told of the job.
 */
export function drawStatus(job, { name = "", left = null, href = "#run" } = {}) {
  last = [job, { name, left, href }];
  const running = job?.state === "running";
  say(part("folder"), running ? (job.project ?? "") : name);
  const state = part("state");
  state.dataset.tone = !reached ? "danger" : job ? TONES[job.state] : "quiet";
  if (state.getAttribute("href") !== href) state.href = href;
  say(state, !reached ? "No connection" : job ? wordFor(job) : "Idle");
  const { total, unit } = job?.progress ?? {};
  const counts = running && Boolean(total);
  const step = part("step");
  step.parentElement.hidden = !counts;
  say(step.previousElementSibling, { B: "Done", image: "Images" }[unit] ?? "Step");
  if (counts) say(step, far(job.progress, "/"));
  find('[data-status-part="eta"]').hidden = !running || left === null;
  if (running) say(part("eta"), duration(left));
  drawThread(job);
  drawTitle(job, name, counts);
}

function wordFor(job) {
  if (job.stopping) return "Stopping";
  if (job.state !== "running") return STATES[job.state];
  return STAGES[job.stage?.name] ?? "Training";
}

function drawThread(job) {
  const { step, total } = job?.progress ?? {};
  const done = job?.state === "succeeded" ? 1 : job && total && job.state !== "queued" ? (step ?? 0) / total : 0;
  thread.dataset.tone = THREAD[job?.state] ?? "";
  thread.style.setProperty("--done", String(done));
}

function drawTitle(job, name, counts) {
  const { step, total, unit } = job?.progress ?? {};
  let head = name;
  if (counts) head = `${Math.floor((100 * (step ?? 0)) / total)} % · ${far(job.progress, "/")}${unit === "image" ? " images" : ""} · ${job.project}`;
  else if (job && job.state !== "queued") head = `${wordFor(job)} · ${job.project ?? job.title}`;
  const title = head ? `${head} – MusubiTLX` : "MusubiTLX";
  if (document.title !== title) document.title = title;
}

/** Say whether the server can be reached. */
export function drawReached(yes) {
  if (yes === reached) return;
  reached = yes;
  drawStatus(...last);
}

/** The memory figures of the line. */
export function drawStatusMemory({ ram, gpus }) {
  if (ram) say(part("ram"), `${Math.round(ram.percent)} %`);
  const cards = gpus?.map((gpu) => `${Math.round(gpu.percent ?? (100 * gpu.used) / gpu.total)} %`) ?? [];
  say(part("vram"), cards.join(" ") || "–");
}
