/** One training image on the page: its picture with the crop, its caption, which is saved while it is typed. */

import { at, put } from "./api.js";
import { announce, debounced, el, find, say } from "./dom.js";
import * as drafts from "./drafts.js";
import { bytes } from "./format.js";
import { changedHere, wordsQuery } from "./project.js";

const TYPING_MS = 400;
const RETRY_MS = [2000, 5000, 10_000, 30_000];
const SAVED_MARK_MS = 2500;
const CUT_SHOWN = 0.01; // a smaller share of the area cut off is not drawn

const template = find("template[data-card]");
const conflictBox = find("template[data-conflict-box]");

/** One image of a folder with its caption. `node` is its place in the list. */
export class Card {
  constructor(image, project) {
    this.project = project;
    this.node = template.content.firstElementChild.cloneNode(true);
    this.area = find("textarea", this.node);
    this.mark = find("[data-saved]", this.node);
    this.error = find("[data-card-error]", this.node);
    this.later = debounced(() => this.save(), TYPING_MS);
    this.retry = null;
    this.dirty = false; // what stands here is not on the disk yet
    this.saving = null; // a promise while a text is on its way
    this.failures = 0;
    this.sent = new Set(); // texts that may be on the disk without our knowing: their answer got lost
    this.conflict = null; // {caption, tag}: what was saved elsewhere meanwhile
    this.flags = [];
    this.area.addEventListener("input", () => this.typed());
    this.area.addEventListener("blur", () => this.later.flush());
    this.draw(image);
    this.takeDraft();
  }

  get name() {
    return this.image.name;
  }

  get text() {
    return this.area.value;
  }

  get url() {
    return at("projects", this.project, "images", this.name, "caption");
  }

  // -- drawing ------------------------------------------------------------------------------------

  /** Where it stands in the list, from 1. */
  number(index) {
    if (this.index === index) return;
    this.index = index;
    const id = `caption-${index}`;
    const label = find(".card-label", this.node);
    label.htmlFor = this.area.id = id;
    label.textContent = `Caption for image ${index}`;
    this.error.id = `${id}-error`;
    this.area.setAttribute("aria-describedby", this.error.id);
    find("[data-remove]", this.node).setAttribute("aria-label", `Remove image ${index}, ${this.name}`);
    find("[data-view]", this.node).setAttribute("aria-label", `Show image ${index} larger, ${this.name}`);
  }

  /** Show what the server knows; a caption that is being typed stays, and a foreign change of it is told. */
  draw(image) {
    if (this.image?.thumb !== image.thumb) find("img", this.node).src = image.thumb;
    this.image = image;
    const size = image.width ? `${image.width} × ${image.height} px · ` : "";
    say(find("[data-file]", this.node), `${image.name} · ${size}${bytes(image.bytes)}`);
    this.takeCaption(image.caption, image.tag);
    say(find("[data-final]", this.node), image.final_text || "nothing: no caption, no trigger word");
    this.drawBucket();
    this.drawWarnings();
  }

  takeCaption(caption, tag) {
    if (this.dirty || this.saving) {
      if (tag !== this.base && this.dirty && !this.saving) this.changedElsewhere(caption, tag);
      return;
    }
    this.base = tag;
    if (this.area.value.trim() !== caption) this.area.value = caption;
  }

  drawBucket() {
    const { bucket, width, height } = this.image;
    const frame = find(".card-frame", this.node);
    if (width) frame.style.setProperty("--ratio", String(width / height));
    drawCrop(frame, bucket);
    const place = find("[data-bucket]", this.node);
    if (!bucket) return say(place, "");
    const cut = cutOff(bucket);
    const parts = [`bucket ${bucket.width} × ${bucket.height}`];
    if (cut > CUT_SHOWN) parts.push(`${Math.round(100 * cut)} % cut off`);
    say(place, ` · ${parts.join(", ")}`);
  }

  /** Short words on what was found wrong about this image, besides what its own warnings say. */
  flag(words) {
    if (words.join() === this.flags.join()) return;
    this.flags = words;
    this.drawWarnings();
  }

  drawWarnings() {
    const list = find(".card-warnings", this.node);
    const texts = [...(this.image.warnings ?? []), ...this.flags];
    if (texts.join("\n") === this.shownWarnings) return;
    this.shownWarnings = texts.join("\n");
    list.replaceChildren(...texts.map((text) => el("li", { textContent: text })));
    list.hidden = texts.length === 0;
  }

  tell(text, tone = "") {
    this.mark.dataset.tone = tone;
    say(this.mark, text);
    announce("captions:marked", this);
  }

  // -- saving -------------------------------------------------------------------------------------

  /** Put a text in, as if it had been typed. */
  write(text) {
    if (text === this.area.value) return;
    this.area.value = text;
    this.typed();
  }

  typed() {
    this.dirty = true;
    drafts.keep(this.project, this.name, this.area.value, this.base);
    if (this.conflict) return; // first it has to be settled whose text counts
    this.tell("");
    this.later();
  }

  /** What was typed and not saved the last time goes on from there. */
  takeDraft() {
    const draft = drafts.find(this.project, this.name);
    if (!draft) return;
    if (draft.text.trim() === this.image.caption) {
      drafts.drop(this.project, this.name);
      return;
    }
    const [caption, tag] = [this.image.caption, this.image.tag];
    this.area.value = draft.text;
    this.dirty = true;
    this.base = draft.base ?? tag;
    if (this.base === tag) this.later();
    else this.changedElsewhere(caption, tag);
  }

  async save() {
    if (this.saving || !this.dirty || this.conflict) return;
    clearTimeout(this.retry);
    this.saving = this.send(this.area.value);
    await this.saving;
  }

  async send(text) {
    this.dirty = false;
    this.tell("Saving…");
    this.sent.add(text.trim());
    try {
      const image = await put(`${this.url}?${wordsQuery()}`, { text, base: this.base });
      this.saving = null;
      this.saved(image);
    } catch (error) {
      this.saving = null;
      this.failed(error, text);
    }
    const typedOn = this.area.value !== text;
    if (this.dirty && !this.conflict && (typedOn || !this.failures)) this.later();
  }

  /** Bring what stands here to the disk; false if that failed, or if somebody has to decide first. */
  async settled() {
    this.later.cancel();
    if (this.saving) await this.saving;
    for (let tries = 0; this.dirty && !this.conflict && tries < 3; tries += 1) {
      this.later.cancel();
      await this.save();
      if (this.failures) break;
    }
    return !this.dirty && !this.conflict;
  }

  saved(image) {
    this.failures = 0;
    this.error.hidden = true;
    this.sent.clear();
    this.base = image.tag;
    this.tell("Saved");
    setTimeout(() => this.mark.textContent === "Saved" && say(this.mark, ""), SAVED_MARK_MS);
    if (this.dirty) drafts.keep(this.project, this.name, this.area.value, this.base);
    else drafts.drop(this.project, this.name);
    changedHere();
    this.draw(this.dirty ? { ...image, tag: this.base } : image);
    announce("captions:changed", this);
  }

  failed(error, text) {
    this.dirty = true;
    if (error.status >= 400 && error.status < 500) this.sent.delete(text.trim()); // it was not taken
    if (error.status === 409 && error.body?.tag)
      return this.changedElsewhere(error.body.caption, error.body.tag);
    const again = error.status === 0 || error.status >= 500;
    this.tell("Not saved", "danger");
    this.error.hidden = false;
    this.error.setAttribute("role", "alert");
    say(this.error, `Not saved: ${error.whole}${again ? " Trying again…" : ""}`);
    this.failures += 1;
    if (!again) return;
    const wait = RETRY_MS[Math.min(this.failures - 1, RETRY_MS.length - 1)];
    this.retry = setTimeout(() => this.save(), wait);
  }

  /** The image is gone: nothing of it is kept for later. */
  gone() {
    this.later.cancel();
    clearTimeout(this.retry);
    drafts.drop(this.project, this.name);
  }

  /** The page goes away: send what is not saved, in a request that outlives it. */
  leave() {
    this.later.cancel();
    clearTimeout(this.retry);
    if (!this.dirty || this.conflict) return;
    const text = this.area.value;
    this.sent.add(text.trim());
    const { project, name } = this;
    fetch(this.url, {
      method: "PUT",
      keepalive: true,
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ text, base: this.base }),
    }).then(
      (answer) => answer.ok && drafts.dropIf(project, name, text),
      () => {},
    );
  }

  // -- two writers ----------------------------------------------------------------------------------

  /** Somebody else saved another text: ask which one counts. Until then nothing is overwritten. */
  changedElsewhere(caption, tag) {
    if (caption === this.area.value.trim()) return this.settle(caption, tag);
    if (this.sent.has(caption)) {
      this.endConflict();
      this.base = tag; // it was ours: its answer had got lost
      this.later();
      return;
    }
    this.conflict = { caption, tag };
    this.error.hidden = true; // it is not for want of an answer any more
    this.later.cancel();
    clearTimeout(this.retry);
    this.tell("Not saved", "danger");
    const box = find("[data-conflict]", this.node) ?? conflictBox.content.firstElementChild.cloneNode(true);
    this.error.after(box);
    say(find("[data-theirs]", box), caption || "(empty)");
    find("[data-keep-mine]", box).onclick = () => this.keepMine();
    find("[data-take-theirs]", box).onclick = () => this.settle(this.conflict.caption, this.conflict.tag);
  }

  keepMine() {
    this.base = this.conflict.tag;
    this.endConflict();
    this.dirty = true;
    this.save();
  }

  settle(caption, tag) {
    this.endConflict();
    this.dirty = false;
    this.sent.clear();
    this.base = tag;
    this.area.value = caption;
    drafts.drop(this.project, this.name);
    this.tell("");
    announce("captions:stale", this); // its final text is the server's to say
  }

  endConflict() {
    if (this.conflict) this.area.focus();
    this.conflict = null;
    this.failures = 0;
    this.error.hidden = true;
    find("[data-conflict]", this.node)?.remove();
  }
}

/** The share of an image's area that its bucket leaves out, 0 to 1. */
export function cutOff({ kept: [left, top, right, bottom] }) {
  return 1 - (right - left) * (bottom - top);
}

/** Shade what of a picture the bucket cuts off. `frame` has the picture's own shape. */
export function drawCrop(frame, bucket) {
  const crop = find(".crop", frame);
  crop.hidden = !bucket || cutOff(bucket) <= CUT_SHOWN;
  if (crop.hidden) return;
  const [left, top, right, bottom] = bucket.kept;
  const percent = (share) => `${(100 * share).toFixed(2)}%`;
  crop.style.inset = [top, 1 - right, 1 - bottom, left].map(percent).join(" ");
}
