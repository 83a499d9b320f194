/**
 * What a failed run is told with beside its cause: the lines of the log that say why, and a button with the way
 * out. Also the warning on a run that is going wrong. Loaded at the first of either.
 */

import { at, get, post } from "./api.js";
import { confirmed, toast } from "./dialogs.js";
import { el, find, icon, needStyle } from "./dom.js";
import { isLost } from "./keepfocus.js";
import { onPress } from "./press.js";
import { project } from "./project.js";
import { toTitle } from "./run.js";
import { apply, switchFolder, values } from "./settings.js";
import { lead, start } from "./start.js";
import { ended } from "./stream.js";

const BACK_MS = 15_000;

/** Complete the notice of a failed run, before it is shown. */
export async function explain(notice, job) {
  const { fix } = job.diagnosis;
  const [{ lines }] = await Promise.all([withLines(job), needStyle("failure.css")]);
  const body = find(".icon + *", notice);
  const remedy = find("p:nth-of-type(2)", body) ?? find("p", body);
  remedy.after(...[fix && wayOut(job, fix), lines.length ? telling(lines) : null].filter(Boolean));
}

/** A list of jobs leaves the lines out. */
const withLines = async (job) => (job.diagnosis.lines ? job : await get(at("jobs", job.id))).diagnosis;

/** The lines as they stand in the log, the last of them, the error itself, whole. */
function telling(lines) {
  const rows = lines.map((line) => el("span", { textContent: line }));
  const text = el("pre", { tabIndex: 0, "aria-label": "From the log", role: "region" }, ...rows);
  return el("div", { className: "telling" }, el("p", { className: "small quiet", textContent: "From the log" }), text);
}

function wayOut(job, fix) {
  const main = el("button", { type: "button", className: "button button-primary", textContent: fix.label });
  const row = el("div", { className: "row way-out" }, main);
  onPress(main, () => take(job, fix));
  if (fix.starts) {
    const only = el("button", {
      type: "button",
      className: "button button-small button-bare",
      textContent: "Only fill the form",
    });
    onPress(only, () => take(job, { ...fix, starts: false }));
    row.append(only);
  }
  return row;
}

/** Fill the form with the run's settings and what puts them right; then start, or lead to what is to be done. */
async function take(job, fix) {
  const { settings } = await get(at("jobs", job.id, "details"));
  const { output_dir: folder, ...own } = settings;
  if (folder !== project.name) await switchFolder(folder);
  const before = values();
  apply({ ...own, ...fix.settings });
  const after = values();
  const changed = Object.keys(before).filter((name) => before[name] !== after[name]);
  if (fix.starts) await startAgain();
  else lead(fix.field ?? Object.keys(fix.settings)[0] ?? "epochs");
  if (changed.length) offerBack(before);
  else if (!fix.starts) toast("The form holds the settings of this run already.");
}

/** The notice the button stands in goes with the old run: the keyboard goes to the new one. */
async function startAgain() {
  await start();
  if (isLost()) toTitle();
}

/** What stood in the form before may have been typed with care. */
function offerBack({ output_dir: _folder, ...before }) {
  const folder = project.name;
  const undo = () => project.name === folder && apply(before);
  toast("The form holds the settings of this run now.", { undo, label: "Back to mine", stays_ms: BACK_MS });
}

// -- while it runs ----------------------------------------------------------------------------------

let box = null;
let shown = "";

/** Show the warning on a run above its outcome, or take it away. */
export async function warn(card, job) {
  const warning = job.warning?.id === job.diagnosis?.id ? null : job.warning; // the outcome says it then
  const mark = warning ? JSON.stringify([job.id, warning, ended(job)]) : "";
  if (mark === shown) return;
  shown = mark;
  if (warning) await needStyle("failure.css");
  if (mark !== shown) return;
  if (!box) find("[data-outcome]", card).before((box = el("div", { role: "alert" })));
  box.hidden = !warning;
  box.replaceChildren(...(warning ? [caution(job, warning)] : []));
}

function caution(job, { text, hint, fix }) {
  const body = el("div", {}, el("p", {}, el("strong", { textContent: text })), el("p", { textContent: hint }));
  if (fix) {
    const label = ended(job) ? fix.label : `Stop, and ${fix.label[0].toLowerCase()}${fix.label.slice(1)}`;
    const button = el("button", { type: "button", className: "button", textContent: label });
    onPress(button, () => stopAndTake(job, fix));
    body.append(el("div", { className: "row way-out" }, button));
  }
  return el("div", { className: "notice notice-warn outcome" }, icon("warn"), body);
}

async function stopAndTake(job, fix) {
  const now = await get(at("jobs", job.id));
  if (!ended(now) && !now.stopping) {
    const yes = await confirmed({
      title: "Stop this training?",
      text: "It can’t recover. Checkpoints and samples stay, and a new run starts when it has ended.",
      yes: "Stop and start again",
      no: "Keep training",
    });
    if (!yes) return;
    await post(at("jobs", job.id, "stop"));
  }
  await take(job, fix);
}
