/** What a captioning run wrote and skipped: on its card, and beside the images when it ends. Loaded at first use. */

import { at, get } from "./api.js";
import { el, find, findAll, icon } from "./dom.js";
import { count } from "./format.js";
import { project } from "./project.js";
import { showOnly, undo } from "./workbench.js";

const gone = () => findAll("[data-captioned]").forEach((box) => box.remove());
document.addEventListener("project:switching", gone); // its images are not in view any more
document.addEventListener("captions:undone", gone);

const ENDS = { stopped: "Captioning was stopped: ", failed: "Captioning failed: ", interrupted: "Captioning was interrupted: " };

/** {written: names, skipped: rows, tried: rows} of a run; the last word on an image counts. */
async function resultOf(job) {
  const { rows } = await get(at("jobs", job.id, "captions"));
  const last = [...new Map(rows.map((row) => [row.name, row])).values()];
  return {
    written: last.filter((row) => "after" in row).map(({ name }) => name),
    skipped: last.filter((row) => "problem" in row),
    tried: last.filter((row) => "text" in row),
  };
}

function inWords({ written, skipped }) {
  const parts = [`${count(written.length, "caption")} written`];
  if (skipped.length) parts.push(`${count(skipped.length, "image")} skipped`);
  return `${parts.join(", ")}.`;
}

const list = (rows) =>
  el("ul", { className: "small rejected-list", tabIndex: 0, "aria-label": "Images that were skipped" }, ...rows.map(({ name, problem }) => el("li", { textContent: `${name}: ${problem}` })));

/** Complete the notice of a captioning run that is over, before it is shown on its card. */
export async function addResult(notice, job) {
  const found = await resultOf(job).catch(() => null);
  if (!found) return;
  const body = find(".icon + *", notice);
  const { written, skipped, tried } = found;
  for (const { name, text } of tried) body.append(el("p", { textContent: `For ${name}: ${text}` }));
  if (!tried.length && (job.state === "succeeded" || written.length || skipped.length)) body.append(el("p", { textContent: inWords(found) }));
  if (skipped.length) body.append(list(skipped));
}

/** Say beside the images what a run that has just ended did, with the way back. */
export async function tellEnd(job) {
  if (job.trial) return;
  const [found, data] = await Promise.all([resultOf(job), get(at("projects", job.project))]);
  if (job.project !== project.name) return; // another one was opened meanwhile
  if (!found.written.length && !found.skipped.length && job.state !== "succeeded") return; // its card says why
  const box = el("div", { className: "notice", role: "status", data: { captioned: "" } }, icon("info"), body(job, found, data.last_edit));
  gone();
  find("[data-none-shown]").before(box);
}

function body(job, found, last_edit) {
  const { written, skipped } = found;
  const leave = (action) => () => {
    find("[data-captioned]").remove();
    find("[data-show]").focus();
    action();
  };
  const title = `${written.length} captioned just now`;
  const back = last_edit?.run === job.id; // no other step came after it
  const buttons = [
    written.length && press("Show them", () => showOnly(written, title)),
    written.length && back && press("Undo", leave(() => undo(job.project, last_edit.at))),
    press("Close", leave(() => {}), "button-bare"),
  ];
  return el(
    "div",
    {},
    el("p", {}, el("strong", { textContent: (ENDS[job.state] ?? "") + inWords(found) })),
    skipped.length ? list(skipped) : null,
    el("div", { className: "row notice-actions" }, ...buttons.filter(Boolean)),
  );
}

function press(textContent, action, more = "") {
  const button = el("button", { type: "button", className: `button button-small ${more}`, textContent });
  button.addEventListener("click", action);
  return button;
}
