/** How the shown run ended: its files, or what went wrong. Drawn into <div data-outcome> of the run card. */

import { at, get } from "./api.js";
import { complain } from "./dialogs.js";
import { el, find, icon } from "./dom.js";
import { bytes } from "./format.js";
import { redraw } from "./keepfocus.js";
import { ended } from "./stream.js";

const MOST_FILES = 4; // more are counted

const box = find("[data-outcome]");

/** Files of the folder came or went: what is shown of them is drawn anew at the next turn. */
export function forgetOutcome() {
  delete box.dataset.shown;
}

/** Show how a job ended, or nothing while it goes on. `title` is said where there is no reason. */
export function drawOutcome(job, title) {
  const over = !job.deleted && ended(job);
  const mark = over ? JSON.stringify([job.id, job.state, job.reason, job.outputs]) : "";
  if (box.dataset.shown === mark) return;
  box.dataset.shown = mark;
  const notice = over ? (job.state === "succeeded" ? success(job) : failure(job, title)) : null;
  const show = () => box.dataset.shown === mark && redraw(box, () => put(notice));
  const more = [over && job.diagnosis && completed(notice, job), over && job.kind === "caption" && captioned(notice, job)];
  if (more.some(Boolean)) Promise.all(more).then(show);
  else show();
  if (over && job.state !== "succeeded") addSaved(job, notice, mark);
}

function put(notice) {
  box.hidden = !notice;
  box.replaceChildren(...(notice ? [notice] : []));
}

/** With what the log says and the way out; without them when that part of the page can't be had. */
const completed = (notice, job) =>
  import("./failure.js").then(({ explain }) => explain(notice, job)).catch(complain);

/** With what a captioning run wrote and what it skipped. */
const captioned = (notice, job) =>
  import("./captionend.js").then(({ addResult }) => addResult(notice, job)).catch(complain);

function success(job) {
  const outputs = [...(job.outputs ?? [])];
  const main = outputs.findIndex((file) => file.name.endsWith(".safetensors"));
  const body = el("div");
  if (main >= 0) body.append(...ready(outputs.splice(main, 1)[0]));
  else if (job.kind === "train") body.append(el("p", { textContent: "The LoRA it made is not in the folder any more." }));
  if (outputs.length) body.append(files(outputs));
  return el("div", { className: "notice notice-good outcome" }, icon("good"), body);
}

function ready({ name, url, bytes: size }) {
  const link = el(
    "a",
    { className: "button button-primary", href: url, download: name, data: { key: "lora" } },
    icon("download"),
    `Download ${name}`,
  );
  const told = el("span", { className: "small quiet", textContent: bytes(size) });
  return [el("p", { textContent: "The LoRA is ready." }), el("div", { className: "row" }, link, told)];
}

function failure(job, title) {
  const tone = { failed: "notice-danger", interrupted: "notice-warn" }[job.state] ?? "";
  const body = el("div", {}, el("p", {}, el("strong", {}, ...prose(job.reason ?? title))));
  if (job.hint) body.append(el("p", {}, ...prose(job.hint)));
  if (job.exit_code > 0) {
    const text = `Exit code ${job.exit_code}. The log below has the details.`;
    body.append(el("p", { className: "small quiet", textContent: text }));
  }
  if (job.outputs?.length) body.append(files(job.outputs));
  return el("div", { className: `notice outcome ${tone}` }, icon(job.state === "failed" ? "bad" : "info"), body);
}

/** A sentence whose --options are not broken in two. */
function prose(text) {
  const parts = text.split(/((?<!\S)--[\w=-]+)/);
  return parts.map((part, i) => (i % 2 ? el("span", { className: "option", textContent: part }) : part));
}

/** What a run that did not come to its end has saved until then. */
async function addSaved(job, notice, mark) {
  if (job.kind !== "train" || !job.project) return;
  const { files: all } = await get(at("projects", job.project, "outputs")).catch(() => ({ files: [] }));
  const saved = all.filter((file) => file.run === job.id);
  if (!saved.length || box.dataset.shown !== mark) return;
  const old = find("[data-files]", notice);
  const list = files(saved);
  const lead = el("p", { className: "small", textContent: "Saved until then:" });
  if (old) old.replaceWith(lead, list);
  else find("div", notice).append(lead, list);
}

function files(outputs) {
  const rows = outputs.slice(0, MOST_FILES).map(({ name, url, bytes: size }) =>
    el("li", {}, el("a", { href: url, download: name, textContent: name, data: { key: name } }), ` ${bytes(size)}`),
  );
  const more = outputs.length - MOST_FILES;
  if (more > 0) rows.push(el("li", { className: "quiet", textContent: `and ${more} more, below` }));
  return el("ul", { className: "small", data: { files: "" } }, ...rows);
}
