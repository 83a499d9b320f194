/**
 * All runs as the server tells them: rows by id, and the order of what waits. Comes by an event stream; while that
 * can't be had, by asking again and again.
 */

import { get } from "./api.js";

const POLL_MS = 2500;
const RETRY_MS = [500, 2000, 5000, 15_000];

/** Says "change" when something did, "state": "live" | "polling" | "offline", and "resources" with the memory figures. */
export class Board extends EventTarget {
  constructor() {
    super();
    this.rows = new Map();
    this.heard = new Map(); // id -> when its progress changed
    this.order = [];
    this.known = false; // something was told
    this.state = "";
    this.failures = 0;
    this.turn = 0; // of what was told: an answer that was asked for before the last one is older
    this.timers = [];
    document.addEventListener("visibilitychange", () => (document.hidden ? this.close() : this.connect()));
  }

  /** Every run, newest first. */
  get all() {
    return [...this.rows.values()].sort((a, b) => b.created - a.created || (a.id < b.id ? 1 : -1));
  }

  /** When the progress of a run was told, in ms of the page's clock. */
  heardAt(id) {
    return this.heard.get(id) ?? performance.now();
  }

  connect() {
    this.close();
    const source = (this.source = new EventSource("/api/runs/events"));
    source.addEventListener("runs", (event) => {
      this.failures = 0;
      this.say("live");
      this.take(JSON.parse(event.data));
    });
    source.addEventListener("resources", (event) => this.tell("resources", JSON.parse(event.data)));
    source.addEventListener("error", () => this.broken());
  }

  close() {
    this.source?.close();
    this.source = null;
    this.timers.forEach(clearTimeout);
    this.timers = [];
  }

  broken() {
    this.close();
    const wait = RETRY_MS[Math.min(this.failures, RETRY_MS.length - 1)];
    this.failures += 1;
    this.timers.push(setTimeout(() => this.connect(), wait));
    this.poll();
  }

  async poll() {
    try {
      await this.refresh();
      this.tell("resources", await get("/api/resources"));
      if (!this.source) this.say("polling");
    } catch (error) {
      if (!this.source) this.say(error.status === 0 ? "offline" : "polling");
    }
    if (!this.source && !document.hidden) this.timers.push(setTimeout(() => this.poll(), POLL_MS));
  }

  /** Ask for all of it now. */
  async refresh() {
    const turn = this.turn;
    const all = await get("/api/runs");
    if (turn === this.turn) this.take({ ...all, removed: [], first: true });
  }

  take({ runs, removed, order, first }) {
    this.turn += 1;
    const before = new Map(this.rows);
    if (first) this.rows.clear();
    for (const run of runs) {
      const far = JSON.stringify(run.progress);
      if (JSON.stringify(before.get(run.id)?.progress) !== far) this.heard.set(run.id, performance.now());
      this.rows.set(run.id, run);
    }
    for (const id of removed) this.rows.delete(id);
    this.order = order;
    this.known = true;
    this.dispatchEvent(new Event("change"));
  }

  /** What this page did itself is shown at once; the stream confirms it. */
  change({ order = this.order, removed = [] }) {
    this.take({ runs: [], removed, order, first: false });
  }

  tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  say(state) {
    if (state === this.state) return;
    this.state = state;
    this.dispatchEvent(new Event("state"));
  }
}
