/**
 * The one connection that brings everything: log, bar, job, resources, samples. When the server has no
 * stream free or the way is cut, the same is fetched by asking again and again, and the stream is tried anew.
 */

import { get, logFrom, logTail } from "./api.js";

const NAMES = ["bar", "job", "gone", "resources", "samples", "captions", "looks"];
const JOBS_MS = 2000;
const LOG_MS = 1000;
const RESOURCES_MS = 3000;
const TAIL_BYTES = 262_144; // of a long log, what is shown at first
const RETRY_MS = [500, 1500, 3000, 15_000];

/**
 * Events, each a CustomEvent with `detail`: log {job, text, skipped, end} (bytes before it, when it is the first; byte
 * after it), bar {job, text}, job (a job), gone {job} (its id), jobs {jobs, asked} (all of them, while polling,
 * and when they were asked for), resources,
 * samples {project, samples}, captions {project, captions, added, removed} and looks {project} of the folder that is
 * watched, and
 * state: "connecting" | "live" | "polling" | "offline" | "paused".
 */
export class Stream extends EventTarget {
  /**
   * `fixed`: the id of the one job to follow, or null for the newest and each that follows; `project`: the output
   * folder whose images and captions are watched, or "".
   */
  constructor(fixed = null, project = "") {
    super();
    this.fixed = fixed;
    this.project = project;
    this.cursor = { job: null, offset: 0 }; // what the log pane has, and so what it needs next
    this.source = null;
    this.failures = 0;
    this.turn = 0; // every change of channel makes older answers void
    this.timers = new Set();
    document.addEventListener("visibilitychange", () => (document.hidden ? this.pause() : this.connect()));
    window.addEventListener("online", () => this.resume());
  }

  /** Open the stream, unless the page is hidden. */
  start() {
    if (document.hidden) this.say("paused");
    else this.connect();
  }

  /** The person asked: try at once. */
  resume() {
    this.failures = 0;
    if (!document.hidden) this.connect();
  }

  /** Follow one job and no other from now on; null: the newest, and each that follows. */
  fix(id) {
    this.fixed = id;
    if (this.source || this.timers.size) this.connect();
  }

  /** Watch another folder from now on. */
  watch(project) {
    if (project === this.project) return;
    this.project = project;
    if (this.source) this.connect();
  }

  pause() {
    this.close();
    this.say("paused");
  }

  say(state) {
    this.state = state;
    this.tell("state", state);
  }

  tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  close() {
    this.turn += 1;
    this.source?.close();
    this.source = null;
    for (const timer of this.timers) clearTimeout(timer);
    this.timers.clear();
  }

  /** Do something later, unless the channel changes before. */
  later(action, wait_ms) {
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      action();
    }, wait_ms);
    this.timers.add(timer);
  }

  // -- the stream -------------------------------------------------------------------------------

  connect() {
    const before = this.state;
    this.close();
    if (before !== "polling" && before !== "offline") this.say("connecting");
    const source = (this.source = new EventSource(`/api/events?${this.query()}`));
    source.addEventListener("open", () => {
      this.failures = 0;
      this.say("live");
    });
    source.addEventListener("error", () => this.broken());
    source.addEventListener("log", (event) => this.take(JSON.parse(event.data), event.lastEventId));
    for (const name of NAMES) {
      source.addEventListener(name, (event) => this.tell(name, JSON.parse(event.data)));
    }
  }

  query() {
    const query = new URLSearchParams();
    if (this.fixed) query.set("job", this.fixed);
    if (this.project) query.set("project", this.project);
    if (this.cursor.job) query.set("last_event_id", `${this.cursor.job}:${this.cursor.offset}`);
    return query;
  }

  /** A piece of log. Its id says where the next one begins, so nothing is taken twice. */
  take(piece, id) {
    const offset = Number(id.slice(id.lastIndexOf(":") + 1));
    if (piece.job === this.cursor.job && offset <= this.cursor.offset) return;
    this.cursor = { job: piece.job, offset };
    this.tell("log", { ...piece, end: offset });
  }

  // A browser would reconnect by itself, but not after a 503, and not with where we are by now.
  broken() {
    this.close();
    const wait = RETRY_MS[Math.min(this.failures, RETRY_MS.length - 1)];
    this.failures += 1;
    if (this.state === "live") this.say("connecting");
    this.later(() => this.connect(), wait);
    this.poll();
  }

  // -- without a stream ---------------------------------------------------------------------------

  poll() {
    const turn = this.turn;
    this.repeat(turn, JOBS_MS, () => this.pollJobs(turn));
    this.repeat(turn, LOG_MS, () => this.pollLog(turn));
    this.repeat(turn, RESOURCES_MS, () => this.pollResources(turn));
  }

  async repeat(turn, wait_ms, action) {
    try {
      await action();
    } catch (error) {
      if (turn === this.turn && error.status === 0 && this.state !== "offline") this.say("offline");
    }
    if (turn === this.turn) this.later(() => this.repeat(turn, wait_ms, action), wait_ms);
  }

  async pollJobs(turn) {
    const asked = performance.now();
    const jobs = await get("/api/jobs");
    if (turn !== this.turn) return;
    if (this.state === "offline") {
      this.failures = 0; // it is back: the stream may be, too
      this.say("connecting");
      this.connect();
      return;
    }
    if (this.state !== "polling") this.say("polling");
    this.tell("jobs", { jobs, asked });
    this.choose(jobs);
  }

  choose(jobs) {
    const now = jobs.find((job) => job.id === this.cursor.job);
    if (now && (this.fixed || !ended(now))) return;
    const next = this.fixed ? jobs.find((job) => job.id === this.fixed) : newest(jobs);
    if (next && next.id !== this.cursor.job && !this.more) this.cursor = { job: next.id, offset: 0 };
  }

  async pollLog(turn) {
    const { job, offset } = this.cursor;
    if (!job) return;
    const piece = await (offset ? logFrom(job, offset) : logTail(job, TAIL_BYTES));
    if (turn !== this.turn || this.cursor.job !== job || this.cursor.offset !== offset) return;
    this.more = piece.offset > offset;
    if (!this.more) return;
    this.cursor = { job, offset: piece.offset };
    const skipped = offset ? 0 : piece.start;
    this.tell("log", { job, text: piece.text, skipped, end: piece.offset });
    await this.pollLog(turn);
  }

  async pollResources(turn) {
    const figures = await get("/api/resources");
    if (turn === this.turn) this.tell("resources", figures);
  }
}

/** Nothing more will happen to this job. */
export const ended = (job) => job.state !== "queued" && job.state !== "running";

/** The job a page shows by itself: what runs, else what ran last, else what is next. */
export function newest(jobs) {
  const own = jobs.filter((job) => job.queue !== "net");
  const begun = own.filter((job) => job.state !== "queued");
  begun.sort((a, b) => (b.started ?? b.created) - (a.started ?? a.created));
  return own.find((job) => job.state === "running") ?? begun[0] ?? own.at(-1) ?? null;
}
