/**
 * Sending files in small batches: two requests at a time, each with a few files, so that progress is real,
 * a cancel takes hold at once, and one broken request costs little. A caption travels with its image.
 */

import { at } from "./api.js";

const BATCH_FILES = 8;
const BATCH_BYTES = 16 * 1024 * 1024;
const AT_ONCE = 2;

const stem = (name) => name.replace(/\.[^.]*$/, "");

/** Files in batches, each caption beside the image of its name. */
export function batches(files) {
  const together = new Map();
  for (const file of files) {
    const key = stem(file.name).toLowerCase();
    together.set(key, [...(together.get(key) ?? []), file]);
  }
  const all = [];
  let batch = [];
  let size = 0;
  for (const group of together.values()) {
    const weight = group.reduce((sum, file) => sum + file.size, 0);
    if (batch.length && (batch.length + group.length > BATCH_FILES || size + weight > BATCH_BYTES)) {
      all.push(batch);
      [batch, size] = [[], 0];
    }
    batch.push(...group);
    size += weight;
  }
  if (batch.length) all.push(batch);
  return all;
}

/** One upload, from the choice of files to the last answer. */
export class Upload {
  /**
   * `onProgress({sent, total, files, of})` is called as bytes and files go (bytes), `onAdded(images)` as
   * the server has taken some.
   */
  constructor(project, files, { onProgress, onAdded }) {
    this.url = at("projects", project, "images");
    this.waiting = batches(files);
    this.of = files.length;
    this.total = Math.max(
      1,
      files.reduce((sum, file) => sum + file.size, 0),
    );
    this.files = 0;
    this.sent = new Map(); // request -> bytes
    this.running = new Set();
    this.result = { added: [], rejected: [], captions: [], broken: [], cancelled: false };
    this.onProgress = onProgress;
    this.onAdded = onAdded;
  }

  /** Send everything. Resolves to {added, rejected, captions, broken, cancelled}; `broken`: files lost on the way. */
  async send() {
    this.tell();
    await Promise.all(Array.from({ length: AT_ONCE }, () => this.work()));
    return this.result;
  }

  cancel() {
    this.result.cancelled = true;
    this.waiting = [];
    for (const request of this.running) request.abort();
  }

  async work() {
    for (let batch = this.waiting.shift(); batch; batch = this.waiting.shift()) {
      const weight = batch.reduce((sum, file) => sum + file.size, 0);
      const request = new XMLHttpRequest();
      const answer = await this.transfer(request, batch);
      this.sent.set(request, weight);
      this.files += batch.length;
      if (!this.result.cancelled || answer?.added) this.take(answer, batch);
      this.tell();
    }
  }

  transfer(request, batch) {
    const form = new FormData();
    for (const file of batch) form.append("files", file, file.name);
    this.running.add(request);
    return new Promise((resolve) => {
      request.upload.addEventListener("progress", (event) => {
        this.sent.set(request, event.loaded);
        this.tell();
      });
      request.addEventListener("loadend", () => {
        this.running.delete(request);
        resolve(
          request.status
            ? (request.response ?? { error: `The server answered with ${request.status}.` })
            : null,
        );
      });
      request.responseType = "json";
      request.open("POST", this.url);
      request.send(form);
    });
  }

  take(answer, batch) {
    if (answer === null) {
      this.result.broken.push(...batch);
      return;
    }
    const { added = [], rejected = [], captions = [] } = answer;
    this.result.added.push(...added);
    this.result.rejected.push(...rejected);
    this.result.captions.push(...captions);
    if (answer.error && !rejected.length) {
      const reason = [answer.error, answer.hint].filter(Boolean).join(" ");
      this.result.rejected.push(...batch.map((file) => ({ name: file.name, reason })));
    }
    if (added.length || captions.length) this.onAdded(added);
  }

  tell() {
    const sent = [...this.sent.values()].reduce((sum, bytes) => sum + bytes, 0);
    this.onProgress({ sent: Math.min(sent, this.total), total: this.total, files: this.files, of: this.of });
  }
}

/** The files of a drop, folders and what is in them included. */
export async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  const files = [];
  for (const entry of entries) await collect(entry, files);
  return files;
}

async function collect(entry, files) {
  if (entry.isFile) {
    const file = await new Promise((resolve) => entry.file(resolve, () => resolve(null)));
    if (file && !file.name.startsWith(".")) files.push(file);
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (!some.length) return;
    for (const inner of some) await collect(inner, files);
  }
}
