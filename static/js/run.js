/** The run card: what runs, how far it is, how it ended, what waits. Markup: <section data-run-card>. */

import { at, get, post } from "./api.js";
import { complain, confirmed, toast } from "./dialogs.js";
import { el, find, findAll, icon, say } from "./dom.js";
import { bytes, duration, loss, speed } from "./format.js";
import { project, readProject } from "./project.js";
import { ended, newest } from "./stream.js";

const STAGES = ["Latents", "Text encoder", "Training"];
const TITLES = {
  queued: "Waiting in the queue",
  running: "Training in progress... Please wait.",
  succeeded: "Training completed",
  failed: "Training failed",
  stopped: "Training stopped",
  interrupted: "Training was interrupted",
};
const KINDS = { caption: "Captioning", download: "Download" };

const card = find("[data-run-card]");
const announcer = find("[data-announce]");

const jobs = new Map(); // every job we have heard of
let followed = null; // the one the card, the chart and the log show
let heardAt = 0; // when its state came, to let the clocks go on between two events
let fixed = null;
let spoken = "";

const fact = (name) => find(`[data-fact="${name}"]`, card);

/** The job the page shows, or null. */
export const followedJob = () => followed;

/** True while something runs or waits. */
export const busy = () => [...jobs.values()].some((job) => !ended(job) && job.queue !== "net");

// -- taking in ------------------------------------------------------------------------------------

/** Take the state of one job. Returns true when it is the one to show. */
export function takeJob(job) {
  jobs.set(job.id, job);
  if (!followed || job.id === followed.id || shouldFollow(job)) follow(job);
  drawQueue();
  return followed?.id === job.id;
}

function shouldFollow(job) {
  if (fixed) return job.id === fixed;
  return (
    job.queue !== "net" &&
    job.state === "running" &&
    (!followed || ended(followed) || followed.state === "queued")
  );
}

function follow(job) {
  if (fixed && job.id !== fixed) return;
  const over = followed?.id === job.id && !ended(followed) && ended(job);
  if (over && job.project === project.name) readProject().catch(() => {}); // it has new files
  followed = job;
  heardAt = performance.now();
  draw();
}

/** Take the whole list of jobs, as of /api/jobs. Returns the job to show, or null. */
export function takeJobs(list) {
  jobs.clear();
  for (const job of list) jobs.set(job.id, job);
  const same = followed && jobs.get(followed.id);
  const next = fixed ? jobs.get(fixed) : same && !ended(same) ? same : newest(list);
  if (next) follow(next);
  drawQueue();
  return next ?? null;
}

/** The log turned to a job: so does the card. */
export async function followLog(id) {
  if (followed?.id === id) return;
  if (jobs.has(id)) follow(jobs.get(id));
  else takeJob(await get(at("jobs", id)));
}

// -- drawing --------------------------------------------------------------------------------------

function draw() {
  const job = followed;
  card.dataset.state = job.state;
  drawTitle(job);
  drawStages(job);
  drawProgress(job);
  drawLastEpoch(job);
  drawOutcome(job);
  if (job.warning || warned) drawWarning(job);
  const stop = find("[data-stop]", card);
  stop.hidden = ended(job);
  stop.disabled = job.stopping;
  say(
    find("[data-stop-label]", stop),
    job.stopping ? "Stopping…" : job.state === "queued" ? "Take out of the queue" : "Stop training",
  );
  announce(job);
}

function drawTitle(job) {
  const title = find("[data-run-title]", card);
  const kind = KINDS[job.kind];
  const text = job.stopping
    ? "Stopping…"
    : kind && job.state === "running"
      ? `${kind} in progress… Please wait.`
      : TITLES[job.state];
  if (title.dataset.shown !== text) {
    title.dataset.shown = text;
    const mark = {
      running: el("span", { className: "spinner", "aria-hidden": "true" }),
      succeeded: icon("good"),
      failed: icon("bad"),
    }[job.state];
    title.replaceChildren(...(mark ? [mark] : []), text);
  }
  say(find("[data-run-lead]", card), job.practice ? `${job.title} · practice run` : job.title);
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
  const { step, total, epoch, epochs, loss: value, seconds_per_step } = job.progress ?? {};
  const bar = find("[data-run-bar]", card);
  if (job.state === "succeeded") bar.value = 1;
  else if (total) bar.value = (step ?? 0) / total;
  else if (job.state === "running") bar.removeAttribute("value");
  else bar.value = 0;
  say(fact("step"), total ? `${step ?? 0} / ${total}` : "–");
  say(fact("epoch"), epoch ? `${epoch} / ${epochs ?? "?"}` : "–");
  say(fact("loss"), loss(value));
  say(fact("speed"), speed(seconds_per_step));
  tick();
}

/** Clocks, once a second: elapsed up, ETA down, between two words from the server. */
export function tick() {
  if (!followed) return;
  say(fact("elapsed"), duration(elapsed()));
  say(fact("eta"), followed.state === "running" ? duration(eta()) : "–");
}

const sinceHeard = () => (performance.now() - heardAt) / 1000;

function elapsed() {
  const { started, ended: end, progress } = followed;
  if (end && started) return end - started;
  if (!started) return null;
  const known = progress?.elapsed_s;
  return followed.state === "running"
    ? (known ?? Math.max(0, Date.now() / 1000 - started - sinceHeard())) + sinceHeard()
    : known;
}

/** Seconds to the end of this stage, as of now. */
export function eta() {
  const left = followed?.progress?.eta_s;
  return left === null || left === undefined ? null : Math.max(0, left - sinceHeard());
}

// -- the end --------------------------------------------------------------------------------------

function drawOutcome(job) {
  const box = find("[data-outcome]", card);
  const mark = ended(job)
    ? JSON.stringify([job.id, job.state, job.reason, job.outputs])
    : "";
  if (box.dataset.shown === mark) return;
  box.dataset.shown = mark;
  const shown = mark ? [outcome(job)] : [];
  const show = () => {
    if (box.dataset.shown !== mark) return;
    box.hidden = !mark;
    box.replaceChildren(...shown);
  };
  if (mark && job.diagnosis) completed(shown[0], job).then(show);
  else show();
}

/** With what the log says and the way out; without them when that part of the page can't be had. */
const completed = (notice, job) =>
  import("./failure.js").then(({ explain }) => explain(notice, job)).catch(complain);

let warned = false; // a warning was shown: it may have to go

function drawWarning(job) {
  warned = true;
  import("./failure.js").then(({ warn }) => warn(card, job)).catch(complain);
}

function outcome(job) {
  if (job.state === "succeeded") return success(job);
  const tone = job.state === "failed" ? "notice-danger" : job.state === "interrupted" ? "notice-warn" : "";
  const body = el("div", {}, el("p", {}, el("strong", { textContent: job.reason ?? TITLES[job.state] })));
  if (job.hint) body.append(el("p", { textContent: job.hint }));
  if (job.exit_code)
    body.append(
      el("p", {
        className: "small quiet",
        textContent: `Exit code ${job.exit_code}. The log below has the details.`,
      }),
    );
  if (job.outputs?.length) body.append(files(job.outputs));
  return el(
    "div",
    { className: `notice outcome ${tone}` },
    icon(job.state === "failed" ? "bad" : "info"),
    body,
  );
}

function success(job) {
  const outputs = [...(job.outputs ?? [])];
  const main = outputs.findIndex((file) => file.name.endsWith(".safetensors"));
  const body = el("div");
  if (main >= 0) {
    const [file] = outputs.splice(main, 1);
    const link = el(
      "a",
      { className: "button button-primary", href: file.url, download: file.name },
      icon("download"),
      `Download ${file.name}`,
    );
    body.append(
      el("p", { textContent: "The LoRA is ready." }),
      el(
        "div",
        { className: "row" },
        link,
        el("span", { className: "small quiet", textContent: bytes(file.bytes) }),
      ),
    );
  }
  if (outputs.length) body.append(files(outputs));
  return el("div", { className: "notice notice-good outcome" }, icon("good"), body);
}

const files = (outputs) =>
  el(
    "ul",
    { className: "small" },
    ...outputs.map((file) =>
      el(
        "li",
        {},
        el("a", { href: file.url, download: file.name, textContent: file.name }),
        ` ${bytes(file.bytes)}`,
      ),
    ),
  );

// -- for ears -------------------------------------------------------------------------------------

/** Read aloud what matters: stages, each tenth of the way, the end. Not every step. */
function announce(job) {
  const { step, total } = job.progress ?? {};
  const tenth = total ? Math.floor((10 * (step ?? 0)) / total) * 10 : null;
  let text = `${TITLES[job.state]} ${job.reason ?? ""}`;
  if (job.state === "running" && job.stage)
    text = `Stage ${job.stage.index} of ${job.stage.count}, ${job.stage.title}${tenth ? `: ${tenth} percent` : ""}.`;
  if (text !== spoken) say(announcer, (spoken = text));
}

// -- stop and queue -------------------------------------------------------------------------------

async function askToStop() {
  const job = followed;
  if (job.state === "queued") return stop(job.id);
  const answer = await confirmed({
    title: "Stop this training?",
    text: "What was learned since the last saved checkpoint is lost. Checkpoints and samples stay.",
    yes: "Stop training",
    no: "Keep training",
    also: job.kind === "train" && !job.after_epoch ? "Stop after this epoch" : "",
  });
  if (answer === "also") await stop(job.id, { after_epoch: true });
  else if (answer) await stop(job.id);
}

async function stop(id, how = {}) {
  try {
    takeJob(await post(at("jobs", id, "stop"), how));
  } catch (error) {
    complain(error);
  }
}

const lastEpoch = find("[data-last-epoch]", card);

/** Say that the run will stop after an epoch, and let that be taken back. */
function drawLastEpoch(job) {
  const waits = Boolean(job.after_epoch && !job.stopping && !ended(job));
  const had = lastEpoch.contains(document.activeElement);
  lastEpoch.hidden = !waits;
  if (had && !waits) find("[data-stop]", card).focus();
  const which = job.last_epoch ? `epoch ${job.last_epoch}` : "this epoch";
  say(find("span", lastEpoch), `Stops after ${which}, once its checkpoint and samples are saved.`);
}

function drawQueue() {
  const waiting = [...jobs.values()].filter((job) => job.state === "queued" && job.id !== followed?.id);
  waiting.sort((a, b) => a.place - b.place);
  const list = find("[data-queue]", card);
  const mark = JSON.stringify(waiting.map((job) => [job.id, job.stopping]));
  if (list.dataset.shown === mark) return;
  list.dataset.shown = mark;
  list.hidden = waiting.length === 0;
  list.replaceChildren(...waiting.map(queueRow));
}

function queueRow(job, index) {
  const button = el("button", {
    type: "button",
    className: "button button-small button-bare",
    textContent: "Take out",
  });
  button.append(el("span", { className: "visually-hidden", textContent: ` of the queue: ${job.title}` }));
  button.addEventListener("click", async () => {
    await stop(job.id);
    toast("Taken out of the queue.", { undo: () => post(at("jobs", job.id, "put-back")).then(takeJob, complain) });
  });
  return el("li", {}, el("span", { textContent: `${index + 1}. waiting: ${job.title}` }), button);
}

/** Wire the card up; `only`: the id of the one job to show, or null. */
export function startRun(only) {
  fixed = only;
  find("[data-stop]", card).addEventListener("click", askToStop);
  find("button", lastEpoch).addEventListener("click", () => stop(followed.id, { after_epoch: false }));
  setInterval(tick, 1000);
}
