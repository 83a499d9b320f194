/** The run card: what runs, how far it is, what waits. Markup: <section data-run-card>. */

import { at, get, post } from "./api.js";
import { complain, confirmed, toast } from "./dialogs.js";
import { el, find, findAll, icon, say } from "./dom.js";
import { duration, far, loss, speed } from "./format.js";
import { drop, elapsed, eta, known, shownJob, take, waiting } from "./jobs.js";
import { isLost, redraw } from "./keepfocus.js";
import { drawOutcome, forgetOutcome } from "./outcome.js";
import { onPress } from "./press.js";
import { ended } from "./stream.js";

const STAGES = ["Latents", "Text encoder", "Training"];
const TRAINING = {
  running: "Training in progress... Please wait.",
  succeeded: "Training completed",
  failed: "Training failed",
  stopped: "Training stopped",
  interrupted: "Training was interrupted",
  step: "Step",
  log: "Training log",
  question: "Stop this training?",
  lost: "What was learned since the last saved checkpoint is lost. Checkpoints and samples stay.",
  stop: "Stop training",
  keep: "Keep training",
};
const KINDS = { train: TRAINING }; // others are in runkinds.js, loaded at the first job of such a kind

const card = find("[data-run-card]");
const title = find("[data-run-title]", card);
const stopButton = find("[data-stop]", card);
const announcer = find("[data-announce]");

let changed = () => {}; // called when a press here changed a job
let asking = null; // the run the question whether to stop is about
let spoken = "";
let words = TRAINING; // of the job that is shown

const fact = (name) => find(`[data-fact="${name}"]`, card);

/** Draw the job that is shown, and what waits. */
export function drawRun() {
  drawQueue();
  const job = shownJob();
  if (!job) return;
  const kind = job.kind ?? "train";
  if (!KINDS[kind]) return learn(kind);
  words = KINDS[kind];
  const stood = card.contains(document.activeElement);
  card.dataset.state = job.deleted ? "none" : job.state;
  drawTitle(job);
  drawStages(job);
  drawProgress(job);
  drawLastEpoch(job);
  drawOutcome(job, words[job.state]);
  if (job.warning || warned) drawWarning(job);
  drawStop(job);
  announce(job);
  if (stood && isLost()) toTitle();
  if (asking && (asking !== job.id || ended(job))) find("[data-confirm]").close();
}

/** Get the words for a kind of job that does not train, then draw. */
async function learn(kind) {
  const { OTHERS } = await import("./runkinds.js").catch((error) => (complain(error), {}));
  Object.assign(KINDS, { [kind]: TRAINING }, OTHERS);
  drawRun();
}

/** What the state of a job is called. */
function titleOf(job) {
  if (job.deleted) return "This run was deleted";
  if (job.state === "queued") return "Waiting in the queue";
  return (job.state === "running" && words[job.stage?.name]) || words[job.state];
}

/** Bring the keyboard to the card. */
export function toTitle() {
  title.tabIndex = -1;
  title.focus({ preventScroll: true });
}

// -- drawing --------------------------------------------------------------------------------------

function drawTitle(job) {
  const text = job.stopping ? "Stopping…" : titleOf(job);
  if (title.dataset.shown !== text) {
    title.dataset.shown = text;
    const mark = {
      running: el("span", { className: "spinner", "aria-hidden": "true" }),
      succeeded: icon("good"),
      failed: icon("bad"),
    }[job.state];
    title.replaceChildren(...(mark ? [mark] : []), text);
  }
  const lead = job.deleted
    ? "Its record is gone, its files stay in their folder."
    : job.practice
      ? `${job.title} · practice run`
      : job.title;
  say(find("[data-run-lead]", card), lead);
}

/** Stages before the one at hand are done; those a run leaves out (unchanged caches) count as done. */
function drawStages(job) {
  const own = job.stage?.count ?? STAGES.length;
  const index = job.stage ? job.stage.index + STAGES.length - own : 0;
  const list = find("[data-stages]", card);
  list.hidden = job.kind !== "train";
  for (const [i, item] of findAll("li", list).entries()) {
    const left = STAGES.length - own > i;
    let state = i + 1 < index ? "done" : i + 1 === index ? "now" : "next";
    if (job.state === "succeeded") state = "done";
    else if (ended(job) && state === "now") state = job.state === "failed" ? "failed" : "next";
    item.dataset.state = state;
    item.title = left && job.stage ? "left out: nothing changed since the last run" : "";
    const words = {
      done: left && job.stage ? " – reused" : " – done",
      now: " – now",
      failed: " – failed",
      next: "",
    }[state];
    let hidden = find("span.visually-hidden", item);
    if (!hidden) item.append((hidden = el("span", { className: "visually-hidden" })));
    say(hidden, words);
  }
}

function drawProgress(job) {
  const progress = job.progress ?? {};
  const { step, total, epoch, epochs, loss: value, unit } = progress;
  const bar = find("[data-run-bar]", card);
  if (job.state === "succeeded") bar.value = 1;
  else if (total) bar.value = (step ?? 0) / total;
  else if (job.state === "running") bar.removeAttribute("value");
  else bar.value = 0;
  say(fact("step"), total ? far(progress) : "–");
  say(fact("step").previousElementSibling, unit === "B" ? (job.stage?.name === "caption" ? "Loaded" : "Downloaded") : words.step);
  for (const name of ["epoch", "loss"]) fact(name).parentElement.hidden = words !== TRAINING;
  say(find("#log-title"), words.log);
  say(fact("epoch"), epoch ? `${epoch} / ${epochs ?? "?"}` : "–");
  say(fact("loss"), loss(value));
  say(fact("speed"), speed(progress));
  tick();
}

/** Clocks, once a second: elapsed up, ETA down, between two words from the server. */
function tick() {
  const job = shownJob();
  if (!job) return;
  say(fact("elapsed"), duration(elapsed(job)));
  say(fact("eta"), duration(eta(job)));
}

let warned = false; // a warning was shown: it may have to go

function drawWarning(job) {
  warned = true;
  import("./failure.js").then(({ warn }) => warn(card, job)).catch(complain);
}

const lastEpoch = find("[data-last-epoch]", card);

/** Say that the run will stop after an epoch, and let that be taken back. */
function drawLastEpoch(job) {
  const waits = Boolean(job.after_epoch && !job.stopping && !ended(job));
  const had = lastEpoch.contains(document.activeElement);
  lastEpoch.hidden = !waits;
  if (had && !waits) stopButton.focus();
  say(find("span", lastEpoch), stopsAfter(job));
}

const stopsAfter = ({ last_epoch }) =>
  `Stops after ${last_epoch ? `epoch ${last_epoch}` : "this epoch"}, once its checkpoint and samples are saved.`;

// -- for ears -------------------------------------------------------------------------------------

/** Read aloud what matters: stages, each tenth of the way, a wish to stop, the end. Not every step. */
function announce(job) {
  const text = inWords(job);
  if (text !== spoken) say(announcer, (spoken = text));
}

function inWords(job) {
  if (job.deleted) return titleOf(job);
  if (job.stopping) return "Stopping…";
  if (job.state !== "running" || !job.stage) return `${titleOf(job)} ${job.reason ?? ""}`;
  const { step, total } = job.progress ?? {};
  const tenth = total ? Math.floor((10 * (step ?? 0)) / total) * 10 : null;
  const far = `Stage ${job.stage.index} of ${job.stage.count}, ${job.stage.title}${tenth ? `: ${tenth} percent` : ""}.`;
  return job.after_epoch ? `${far} ${stopsAfter(job)}` : far;
}

// -- stop and queue -------------------------------------------------------------------------------

function drawStop(job) {
  stopButton.hidden = Boolean(job.deleted || ended(job));
  stopButton.ariaDisabled = job.stopping ? "true" : null;
  const text = job.stopping ? "Stopping…" : job.state === "queued" ? "Take out of the queue" : words.stop;
  say(find("[data-stop-label]", stopButton), text);
}

async function askToStop() {
  const job = shownJob();
  if (job.stopping || asking) return;
  if (job.state === "queued") return takeOut(job);
  asking = job.id;
  const answer = await confirmed({
    title: words.question,
    text: words.lost,
    yes: words.stop,
    no: words.keep,
    also: job.kind === "train" && !job.after_epoch ? "Stop after this epoch" : "",
  });
  asking = null;
  if (answer === "also") await stop(job.id, { after_epoch: true });
  else if (answer) await stop(job.id);
  if (isLost() || stopButton.hidden) toTitle();
}

/** Ask a job to stop. False when it was over already, or could not be asked. */
async function stop(id, how = {}) {
  try {
    take(await post(at("jobs", id, "stop"), how));
    changed();
    return true;
  } catch (error) {
    if (error.status === 409 && (await look(id))) return false; // it came to its end by itself
    complain(error);
    return false;
  }
}

/** Read a job anew; whether it is over. */
async function look(id) {
  try {
    take(await get(at("jobs", id)));
  } catch (error) {
    if (error.status !== 404) throw error;
    drop(id);
  }
  changed();
  return !known(id) || ended(known(id));
}

async function takeOut(job) {
  if (!(await stop(job.id))) return;
  const undo = () => post(at("jobs", job.id, "put-back")).then((back) => (take(back), changed()), complain);
  toast("Taken out of the queue.", { undo });
}

function drawQueue() {
  const jobs = waiting();
  const list = find("[data-queue]", card);
  const mark = JSON.stringify(jobs.map((job) => [job.id, job.stopping]));
  if (list.dataset.shown === mark) return;
  list.dataset.shown = mark;
  list.hidden = jobs.length === 0;
  redraw(list, () => list.replaceChildren(...jobs.map(queueRow)));
}

function queueRow(job, index) {
  const button = el("button", {
    type: "button",
    className: "button button-small button-bare",
    textContent: "Take out",
  });
  button.append(el("span", { className: "visually-hidden", textContent: ` of the queue: ${job.title}` }));
  onPress(button, () => takeOut(job));
  return el("li", { data: { key: job.id } }, el("span", { textContent: `${index + 1}. waiting: ${job.title}` }), button);
}

/** Files of the folder came or went: those of a run that is over are told anew. */
function lookAgain() {
  const job = shownJob();
  if (!job || job.deleted || !ended(job)) return;
  forgetOutcome();
  look(job.id).catch(complain);
}

/** Wire the card up; `onChange` is called when a press changed what is known of a job. */
export function startRun(onChange) {
  changed = onChange;
  stopButton.addEventListener("click", askToStop);
  find("button", lastEpoch).addEventListener("click", () => stop(shownJob().id, { after_epoch: false }));
  document.addEventListener("outputs:changed", lookAgain);
  setInterval(tick, 1000);
}
