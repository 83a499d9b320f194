/** The header line and the tab's title: folder, what runs, step, time left, RAM, VRAM. */

import { find, say } from "./dom.js";
import { STATES, TONES, duration } from "./format.js";
import { project } from "./project.js";
import { eta, followedJob } from "./run.js";
import { ended } from "./stream.js";

const STAGES = { latents: "Latents", text_encoder: "Text encoder" };

let reached = true; // false while the server can't be reached: what stands here is old

const part = (name) => find(`[data-status="${name}"]`);
const thread = find("[data-thread]");

/** Bring the line and the title up to date. */
export function drawStatus() {
  const job = jobHere();
  say(part("folder"), job?.state === "running" ? (job.project ?? "") : project.name);
  const state = part("state");
  state.dataset.tone = !reached ? "danger" : job ? TONES[job.state] : "quiet";
  say(state, !reached ? "No connection" : job ? wordFor(job) : "Idle");
  const { step, total } = job?.progress ?? {};
  const running = job?.state === "running";
  const counts = running && Boolean(total);
  find('[data-status-part="step"]').hidden = !counts;
  if (counts) say(part("step"), `${step ?? 0}/${total}`);
  find('[data-status-part="eta"]').hidden = !running || eta() === null;
  if (running) say(part("eta"), duration(eta()));
  drawThread(job);
  drawTitle(job, counts);
}

/** The job shown, unless it is over and was about another folder than the open one. */
function jobHere() {
  const job = followedJob();
  return job && ended(job) && job.project !== project.name ? null : job;
}

function wordFor(job) {
  if (job.stopping) return "Stopping";
  if (job.state !== "running") return STATES[job.state];
  return STAGES[job.stage?.name] ?? "Training";
}

function drawThread(job) {
  const { step, total } = job?.progress ?? {};
  const done =
    job?.state === "succeeded" ? 1 : job && total && job.state !== "queued" ? (step ?? 0) / total : 0;
  thread.dataset.tone = job?.state === "failed" ? "danger" : job?.state === "succeeded" ? "good" : "";
  thread.style.setProperty("--done", String(done));
}

function drawTitle(job, counts) {
  const { step, total } = job?.progress ?? {};
  let head = project.name;
  if (counts) head = `${Math.floor((100 * (step ?? 0)) / total)} % · ${step ?? 0}/${total} · ${job.project}`;
  else if (job && job.state !== "queued") head = `${wordFor(job)} · ${job.project ?? job.title}`;
  const title = head ? `${head} – MusubiTLX` : "MusubiTLX";
  if (document.title !== title) document.title = title;
}

/** Say whether the server can be reached. */
export function drawReached(yes) {
  reached = yes;
  drawStatus();
}

/** The memory figures of the line. */
export function drawStatusMemory({ ram, gpus }) {
  if (ram) say(part("ram"), `${Math.round(ram.percent)} %`);
  if (!gpus?.length) say(part("vram"), "unknown");
  else
    say(
      part("vram"),
      gpus.map((gpu) => `${Math.round(gpu.percent ?? (100 * gpu.used) / gpu.total)} %`).join(" "),
    );
}
