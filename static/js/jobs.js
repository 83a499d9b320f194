/** The jobs this page has heard of, how long ago, and the one of them it shows. Draws nothing, says "job:told". */

import { announce } from "./dom.js";
import { ended, newest } from "./stream.js";

const all = new Map(); // by id
const heardAt = new Map(); // id -> when its state came
const progressAt = new Map(); // id -> when its progress changed, for the clocks between two events

let shown = null; // the one that card, chart and log show; {id, deleted: true} when it is gone
let fixed = null; // its id, where the address names it

/** The job the page shows, or null. One that was deleted has `deleted`. */
export const shownJob = () => shown;

/** The job by that id as it was last told, or undefined. */
export const known = (id) => all.get(id);

const own = () => [...all.values()].filter((job) => job.queue !== "net");

/** The job that runs on the graphics card, or undefined. */
export const runningJob = () => own().find((job) => job.state === "running");

/** What waits, the next one first; the job that is shown is not among them. */
export const waiting = () =>
  own()
    .filter((job) => job.state === "queued" && job.id !== shown?.id)
    .sort((a, b) => a.place - b.place);

/** True while something runs or waits. */
export const busy = () => own().some((job) => !ended(job));

/** Whether the address names the job that is shown. */
export const isFixed = () => fixed !== null;

// -- taking in ------------------------------------------------------------------------------------

/** Show one job and no other, by its id, until `release`. */
export function fix(id) {
  fixed = id;
}

/** From now on the page follows what runs, beginning with this job. */
export function release(job) {
  fixed = null;
  take(job);
  const next = runningJob() ?? job;
  shown = next;
}

function keep(job) {
  const before = all.get(job.id);
  if (JSON.stringify(before?.progress) !== JSON.stringify(job.progress)) progressAt.set(job.id, performance.now());
  all.set(job.id, job);
  heardAt.set(job.id, performance.now());
  announce("job:told", { job, over: Boolean(before && !ended(before) && ended(job)) });
}

/** Take the state of one job. */
export function take(job) {
  keep(job);
  if (job.id === shown?.id || shouldShow(job)) shown = job;
}

function shouldShow(job) {
  if (fixed) return job.id === fixed;
  if (job.queue === "net") return false;
  if (!shown || shown.deleted) return true;
  if (!(ended(shown) || shown.state === "queued")) return false;
  return job.state === "running" || (ended(job) && ended(shown) && job.started > shown.started); // over at once
}

/**
 * Take the whole list of jobs, as of /api/jobs. `asked`: when it was asked for (performance.now): what was heard of a
 * job since then is newer.
 */
export function takeAll(list, asked) {
  const isOlder = (id) => heardAt.get(id) > asked;
  const there = new Set(list.map((job) => job.id));
  for (const id of [...all.keys()]) if (!there.has(id) && !isOlder(id)) all.delete(id);
  for (const job of list) {
    if (!isOlder(job.id)) keep(job);
  }
  const same = shown && all.get(shown.id);
  const next = fixed ? all.get(fixed) : same && !ended(same) ? same : newest([...all.values()]);
  if (next) shown = next;
  else if (fixed || shown) shown = { id: fixed ?? shown.id, deleted: true };
}

/** A job was deleted. */
export function drop(id) {
  all.delete(id);
  heardAt.set(id, performance.now());
  if (shown?.id === id) shown = (!fixed && newest([...all.values()])) || { id, deleted: true };
}

/** The log turned to a job: so does the page. False when nothing is known of it. */
export function logTurned(id) {
  if (fixed && id !== fixed) return true;
  if (all.has(id)) shown = all.get(id);
  return all.has(id);
}

// -- clocks: between two words from the server they go on -----------------------------------------

const sinceProgress = (job) => (performance.now() - (progressAt.get(job.id) ?? performance.now())) / 1000;

/** Seconds to the end of the stage at hand, as of now; null when unknown. */
export function eta(job) {
  const left = job.progress?.eta_s;
  if (job.state !== "running" || left === null || left === undefined) return null;
  return Math.max(0, left - sinceProgress(job));
}

/** Seconds since the job began, or those it took; null when unknown. */
export function elapsed(job) {
  const { started, ended: end, state } = job;
  if (end && started) return end - started;
  return started && state === "running" ? Math.max(0, Date.now() / 1000 - started) : null;
}
