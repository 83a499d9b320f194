/**
 * Sending files in small batches: two requests at a time, each with a few files, so that progress is real, a
 * cancel takes hold at once, and one broken request costs little. A caption travels with its image. What breaks off
 * is sent again by itself; the server knows a file it has already by name and content, so nothing comes twice.
 */

import { at } from "./api.js";

const BATCH_FILES = 8;
const BATCH_BYTES = 16 * 1024 * 1024;
const AT_ONCE = 2;
const RETRY_MS = [1000, 3000, 8000, 15_000, 30_000];
const PASSING = [0, 408, 425, 429, 502, 503, 504]; // no answer, or one that may be another in a moment
const FULL = 507;

/** States of an item that end its way. */
export const OVER = ["added", "present", "captioned", "rejected", "broken", "cancelled"];

/** One file on its way. `state`: waiting, sending, checking, retrying, or one of OVER; `reason` says why not. */
export class Item {
  constructor(file, name) {
    this.file = file;
    this.name = name; // with the folders it came in, so that captions find their images
    this.state = "waiting";
    this.sent = 0; // bytes
    this.tries = 0;
    this.reason = "";
  }

  get size() {
    return this.file.size;
  }

  get over() {
    return OVER.includes(this.state);
  }

  get share() {
    return this.over || this.state === "checking" ? 1 : this.size ? Math.min(1, this.sent / this.size) : 0;
  }
}

const isArchive = (item) => /\.zip$/i.test(item.name);
const stem = (name) => name.replace(/\.[^.]*$/, "").toLowerCase();

/**
 * Items ({name, size in bytes}) in batches: a caption beside the image of its name, no two of the same name together.
 */
export function batches(items, { most = BATCH_FILES, bytes = BATCH_BYTES } = {}) {
  const together = new Map();
  for (const item of items) {
    const key = stem(item.name);
    together.set(key, [...(together.get(key) ?? []), item]);
  }
  const all = [];
  let batch = [];
  let size = 0;
  const close = () => {
    if (batch.length) all.push(batch);
    [batch, size] = [[], 0];
  };
  for (const group of together.values()) {
    if (group.some(isArchive)) close(); // it is answered for by what is in it
    const weight = group.reduce((sum, item) => sum + item.size, 0);
    if (batch.length + group.length > most || size + weight > bytes) close();
    for (const item of group) {
      if (batch.some((other) => other.name === item.name)) close();
      batch.push(item);
    }
    size += weight;
    if (group.some(isArchive)) close();
  }
  close();
  return all;
}

/** One upload into one folder, from the choice of files to the last answer; more files may join on the way. */
export class Upload {
  /** `onChange()` is called as bytes and files go, `onAnswer()` when the server has taken some. */
  constructor(project, { onChange, onAnswer }) {
    this.url = at("projects", project, "images");
    this.project = project;
    this.items = [];
    this.waiting = [];
    this.running = new Map(); // request -> batch
    this.pauses = new Set(); // functions that end one
    this.workers = 0;
    this.begun = performance.now();
    this.onChange = onChange;
    this.onAnswer = onAnswer;
    this.finished = new Promise((resolve) => (this.finish = resolve));
  }

  get total() {
    return this.items.reduce((sum, item) => sum + item.size, 0);
  }

  get sent() {
    return this.items.reduce((sum, item) => sum + item.size * item.share, 0);
  }

  /** Put items on their way. `finished` is fulfilled when none is on it any more. */
  add(items) {
    this.items.push(...items);
    this.waiting.push(...batches(items));
    this.wake();
    this.onChange();
  }

  wake() {
    while (this.workers < AT_ONCE && this.waiting.length) {
      this.workers += 1;
      this.work();
    }
  }

  async work() {
    for (let batch = this.next(); batch; batch = this.next()) {
      await this.deliver(batch);
      this.onChange();
    }
    this.workers -= 1;
    if (!this.workers && !this.waiting.length) this.finish();
  }

  next() {
    const batch = this.waiting.shift()?.filter((item) => !item.over);
    return batch?.length === 0 ? this.next() : batch;
  }

  /** Send a batch until the server has answered for it, or it has been tried often enough. */
  async deliver(batch) {
    for (;;) {
      const answer = await this.transfer(batch);
      batch = batch.filter((item) => !item.over); // cancelled meanwhile
      if (!batch.length) return;
      if (!PASSING.includes(answer.status)) return this.take(answer, batch);
      if (answer.status === 0) batch = await this.readable(batch);
      if (!batch.length) return;
      const tries = batch[0].tries;
      for (const item of batch) Object.assign(item, { state: "retrying", sent: 0, tries: tries + 1 });
      this.onChange();
      if (tries >= RETRY_MS.length) {
        for (const item of batch) this.end(item, "broken", "The connection broke off.");
        return;
      }
      await this.pause(RETRY_MS[tries]);
      batch = batch.filter((item) => !item.over);
      if (!batch.length) return;
    }
  }

  /** Those files that can still be read here; no request gets through with another one in it. */
  async readable(batch) {
    const checks = batch.map((item) => item.file.slice(0, 1).arrayBuffer().then(() => true, () => false));
    const good = await Promise.all(checks);
    for (const [place, item] of batch.entries())
      if (!good[place]) this.end(item, "rejected", "It can’t be read on your side (any more).");
    return batch.filter((item) => !item.over);
  }

  transfer(batch) {
    const form = new FormData();
    for (const item of batch) {
      form.append("files", item.file, item.name);
      item.state = "sending";
    }
    const request = new XMLHttpRequest();
    this.running.set(request, batch);
    return new Promise((resolve) => {
      request.upload.addEventListener("progress", (event) => this.progress(batch, event));
      request.addEventListener("loadend", () => {
        this.running.delete(request);
        resolve({ status: request.status, body: request.response ?? {} });
      });
      request.responseType = "json";
      request.open("POST", this.url);
      request.send(form);
    });
  }

  /** Share out what has gone of a request: its files go one after the other. */
  progress(batch, { loaded, total }) {
    let left = loaded === total ? Infinity : loaded;
    for (const item of batch) {
      if (item.over) continue;
      item.sent = Math.min(item.size, left);
      item.state = left >= item.size ? "checking" : "sending";
      left = Math.max(0, left - item.size);
    }
    this.onChange();
  }

  /** What became of each file of a batch, as the server says. */
  take({ status, body }, batch) {
    const { rejected = [], present = [], added = [], captions = [] } = body;
    const why = new Map(rejected.map(({ name, reason }) => [name, reason]));
    const known = new Map(present.map(({ name, image }) => [name, image]));
    const isFull = status === FULL || body.full;
    const told = [body.error, body.hint].filter(Boolean).join(" ");
    const refused = status >= 400 && !rejected.length;
    const no = isFull ? "broken" : "rejected";
    for (const item of batch) {
      const name = asSent(item.name);
      if (why.has(name)) this.end(item, no, why.get(name));
      else if (refused) this.end(item, no, told || `The server answered with ${status}.`);
      else if (known.has(name)) this.end(item, "present", `there already as ${known.get(name)}`);
      else this.end(item, /\.txt$/i.test(item.name) ? "captioned" : "added");
      why.delete(name);
    }
    this.inside(batch, why, { added: added.length, present: present.length, captions: captions.length });
    if (isFull) this.stop("broken", body.full || told);
    if (added.length || captions.length) this.onAnswer();
  }

  /** What an archive held is answered for by its inner names. */
  inside(batch, why, held) {
    const archive = batch.find(isArchive);
    if (!archive) return;
    archive.held = held;
    archive.inner = [...why].map(([name, reason]) => ({ name, reason }));
  }

  end(item, state, reason = "") {
    Object.assign(item, { state, reason, sent: item.size });
  }

  /** Send again what broke off. */
  retry() {
    const broken = this.items.filter((item) => item.state === "broken");
    for (const item of broken) Object.assign(item, { state: "waiting", sent: 0, tries: 0, reason: "" });
    this.waiting.push(...batches(broken));
    this.finished = new Promise((resolve) => (this.finish = resolve));
    this.wake();
    this.onChange();
  }

  /** Call off one file that has not gone yet, or everything. */
  cancel(only = null) {
    if (only) {
      this.end(only, "cancelled", "Cancelled.");
      for (const [request, batch] of this.running) if (batch.every((item) => item.over)) request.abort();
      this.onChange();
      return;
    }
    this.stop("cancelled", "Cancelled.");
    for (const request of this.running.keys()) request.abort();
  }

  /** End everything that is not over. */
  stop(state, reason) {
    for (const item of this.items) if (!item.over) this.end(item, state, reason);
    this.waiting = [];
    for (const end of this.pauses) end();
    this.onChange();
  }

  /** Wait, but not longer than until the network is back, or all is called off. */
  pause(wait_ms) {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        window.removeEventListener("online", done);
        this.pauses.delete(done);
        resolve();
      };
      const timer = setTimeout(done, wait_ms);
      window.addEventListener("online", done);
      this.pauses.add(done);
    });
  }
}

/** A file name as it arrives: a form can't say some signs. Source: the HTML standard, multipart/form-data. */
const asSent = (name) => name.replaceAll("\n", "%0A").replaceAll("\r", "%0D").replaceAll('"', "%22");

// -- what was dropped -----------------------------------------------------------------------------

/** The items of a drop, folders and what is in them included. */
export async function droppedItems(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return chosenItems(transfer.files);
  const items = [];
  for (const entry of entries) await collect(entry, items);
  return items;
}

/** The items of a file picker; hidden files of a folder are passed over. */
export function chosenItems(files) {
  return [...files]
    .filter((file) => !file.name.startsWith("."))
    .map((file) => new Item(file, file.webkitRelativePath || file.name));
}

async function collect(entry, items) {
  if (entry.isFile) {
    const file = await new Promise((resolve) => entry.file(resolve, () => resolve(null)));
    if (file && !file.name.startsWith(".")) items.push(new Item(file, entry.fullPath.replace(/^\//, "")));
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (!some.length) return;
    for (const inner of some) await collect(inner, items);
  }
}
