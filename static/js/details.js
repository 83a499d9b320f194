/** Everything about one run, in a dialog. Loaded at first use. */

import { at, get, post } from "./api.js";
import { closeOnBack } from "./back.js";
import { complain, confirmed } from "./dialogs.js";
import { copyText, el, find, icon, needStyle, say } from "./dom.js";
import { bytes, duration, far, loss, speed, when } from "./format.js";
import { forget } from "./history.js";
import { notesField } from "./notes.js";
import { onPress } from "./press.js";
import { bringFocusBack, spotOf, spotOfRun } from "./rowfocus.js";
import { lossName, pageOf, seconds, stateTag, useOf } from "./runwords.js";
import { ended } from "./stream.js";

const RESTARTABLE = ["failed", "stopped", "interrupted"];

let shown = null; // {id, dialog, board, notes, spot: where the focus goes at its end}

/** Open the dialog of a run; `board` tells when its state changes. */
export async function showRun(id, board) {
  const [told] = await Promise.all([tellAll(id), needStyle("rundetails.css")]);
  shown?.dialog.close();
  const dialog = el("dialog", { className: "sheet", "aria-labelledby": "run-title" });
  const notes = notesField(id, told.notes, told.notes_tag);
  shown = { id, dialog, board, notes, spot: spotHere(id) };
  fill(dialog, told, notes);
  const own = shown;
  dialog.addEventListener("close", () => leave(own));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
  closeOnBack(dialog);
  remember(id);
  board.addEventListener("change", follow);
}

/** Where the focus stood in the run's row; its details where it stood elsewhere. */
function spotHere(id) {
  const spot = spotOf(document.activeElement);
  return spot?.id === id ? spot : spotOfRun(id);
}

/** What the server tells of a run, with the LoRA files it has left so far. */
async function tellAll(id) {
  const told = await get(at("jobs", id, "details"));
  const { project, state, outputs } = told.job;
  const listed = project && state !== "queued" ? await get(at("projects", project, "outputs")).catch(() => null) : null;
  return { ...told, files: listed ? filesOf(id, outputs, listed.files) : outputs };
}

/** Its LoRAs, and what else it made. A file that a later run has written anew is not its own any more. */
function filesOf(id, outputs, loras) {
  const known = new Set(loras.filter((file) => file.run).map((file) => file.name));
  const own = loras.filter((file) => file.run === id);
  return [...own, ...outputs.filter((file) => !known.has(file.name))];
}

function leave({ dialog, notes, board, spot, id }) {
  notes.leave();
  if (shown?.dialog === dialog) {
    board.removeEventListener("change", follow);
    shown = null;
    remember("");
  }
  dialog.remove();
  bringFocusBack(board.rows.has(id) ? { ...spotOfRun(id), act: spot.act, scrolls: spot.scrolls } : spot);
}

/** The address names the run, so that it can be bookmarked. */
function remember(id) {
  const address = new URL(location.href);
  address.hash = id ? `run=${encodeURIComponent(id)}` : "";
  history.replaceState(history.state, "", id ? address : address.href.replace(/#$/, ""));
}

/** The run began, or ended: tell what is true now. The notes are left as they are. */
async function follow() {
  const { id, dialog, board, notes } = shown;
  const run = board.rows.get(id);
  if (!run) return dialog.close();
  if (dialog.dataset.state === mark(run)) return;
  dialog.dataset.state = mark(run);
  const told = await tellAll(id).catch(() => null);
  if (told && shown?.dialog === dialog) fill(dialog, told, notes);
}

const mark = (run) => `${run.state} ${run.stopping}`;

function fill(dialog, told, notes) {
  const { job } = told;
  dialog.dataset.state = mark(job);
  const focused = dialog.contains(document.activeElement) ? document.activeElement : null;
  const act = focused?.dataset.act;
  const open = new Set([...dialog.querySelectorAll("details[open]")].map((one) => one.dataset.part));
  const place = find(".sheet-body", dialog)?.scrollTop ?? 0;
  const problem = el("p", { className: "field-error", role: "status", data: { problem: "" } });
  const body = el(
    "div",
    { className: "sheet-body", tabIndex: -1 },
    reason(job),
    actions(told, problem),
    problem,
    facts(told),
    notes.node,
    files(told),
    settings(told),
    commands(told),
    lastLines(told),
    report(job),
  );
  dialog.replaceChildren(head(told), body);
  for (const part of dialog.querySelectorAll("details")) part.open = open.has(part.dataset.part);
  body.scrollTop = place;
  if (focused?.isConnected) focused.focus();
  else if (focused) (find(`[data-act="${act}"]`, dialog) ?? body).focus();
}

function head({ job, settings: { output_name } }) {
  const close = el("button", { className: "icon-button", "aria-label": "Close", data: { act: "close" } }, icon("close"));
  const title = el("h2", { id: "run-title", textContent: output_name ?? job.title });
  return el("div", { className: "sheet-head" }, title, stateTag(job), el("form", { method: "dialog" }, close));
}

function reason(job) {
  if (!job.reason || job.state === "succeeded") return null;
  const tone = { failed: "notice-danger", interrupted: "notice-warn" }[job.state] ?? "";
  return el(
    "div",
    { className: `notice ${tone}` },
    icon(job.state === "failed" ? "bad" : "info"),
    el("div", {}, el("p", {}, el("strong", { textContent: job.reason })), job.hint ? el("p", { textContent: job.hint }) : null),
  );
}

// -- what can be done -----------------------------------------------------------------------------

function actions(told, problem) {
  const { job, settings, log_there } = told;
  const train = job.kind === "train" && job.project && Object.keys(settings).length;
  const log = { className: "button", href: `${at("jobs", job.id, "log")}?offset=0`, target: "_blank", rel: "noopener" };
  const all = [
    train && el("a", { className: "button button-primary", href: useOf(job) }, "Use these settings"),
    train && RESTARTABLE.includes(job.state) && act("Start again", "play", () => restart(told), problem),
    el("a", { className: "button", href: pageOf(job) }, "Open on the page Train"),
    log_there && el("a", log, "Log in full"),
    ended(job) && act("Delete…", "trash", () => erase(job), problem),
  ];
  const hint = train && el("p", {
    className: "small quiet",
    textContent: `“Use these settings” fills the form of the folder ${job.project} and starts nothing.` +
      (RESTARTABLE.includes(job.state) ? " “Start again” queues the run at once, with the images and captions as they are now." : ""),
  });
  return el("div", {}, el("div", { className: "row sheet-actions" }, ...all.filter(Boolean)), hint || null);
}

/** A button whose failure is said in the dialog. The dialog may have been drawn anew under its question. */
function act(text, name, action, problem) {
  const button = el("button", { type: "button", className: "button", data: { act: name } }, icon(name), text);
  const told = (error) => {
    const now = problem.isConnected ? problem : shown && find("[data-problem]", shown.dialog);
    if (!now) return complain(error);
    say(now, (error.problems ?? [error]).map((one) => [one.error ?? one.message, one.hint].filter(Boolean).join(" ")).join("\n"));
    now.scrollIntoView({ block: "nearest" });
  };
  onPress(
    button,
    async () => {
      say(problem, "");
      await action();
    },
    told,
  );
  return button;
}

/** A question closes on what was pressed; where that was drawn anew meanwhile, the new one gets the focus. */
function holdAct(name) {
  if (!shown?.dialog.open || shown.dialog.contains(document.activeElement)) return;
  (find(`[data-act="${name}"]`, shown.dialog) ?? find(".sheet-body", shown.dialog)).focus();
}

async function restart({ job, settings }) {
  const yes = await confirmed({
    title: "Start this run again?",
    text: "It is queued with its settings, and with the images and captions as the folder holds them now. Files of the same name are replaced.",
    yes: "Start again",
  });
  holdAct("play");
  if (!yes || !shown) return;
  const { board } = shown;
  await post(at("projects", job.project, "train"), { settings });
  shown?.dialog.close();
  await board.refresh();
}

async function erase(job) {
  const { board } = shown;
  const run = board.rows.get(job.id);
  try {
    if (await forget([run ?? { ...job, name: job.title }])) shown?.dialog.close();
  } finally {
    holdAct("trash");
  }
}

// -- what there is to tell --------------------------------------------------------------------------

function facts({ job, images, versions }) {
  const { total, unit, epoch, epochs, loss: value, seconds_per_step } = job.progress;
  const training = job.stage?.name === "train";
  const rows = [
    ["Folder", job.project],
    ["Queued", when(job.created)],
    ["Started", job.started && when(job.started)],
    ["Ended", job.ended && when(job.ended)],
    ["Duration", job.started && duration(seconds(job))],
    ["Stage", job.stage && !training && `${job.stage.index} of ${job.stage.count}: ${job.stage.title}`],
    ["Steps", training && total && far(job.progress)],
    ["Captioned", unit === "image" && total && `${far(job.progress)} images`],
    ["Downloaded", unit === "B" && total && far(job.progress)],
    ["Epochs", training && epoch && epochs && `${epoch} / ${epochs}`],
    [lossName(job), training && value !== null && loss(value)],
    ["Speed", (training || unit) && seconds_per_step && speed(job.progress)],
    ["Images", images ? String(images) : null],
    ["Exit code", job.exit_code ? String(job.exit_code) : null],
    ...Object.entries(versions),
  ];
  const shownRows = rows.filter(([, text]) => text);
  return el(
    "dl",
    { className: "sheet-facts numbers" },
    ...shownRows.map(([name, text]) => el("div", {}, el("dt", { textContent: name }), el("dd", { textContent: text }))),
  );
}

function files({ files: all }) {
  if (!all.length) return null;
  const rows = all.map((file) =>
    el(
      "li",
      {},
      el("a", { href: file.url, download: file.name, textContent: file.name }),
      el("span", { className: "quiet small", textContent: ` ${bytes(file.bytes)}` }),
    ),
  );
  return section("Outputs", el("ul", {}, ...rows));
}

const section = (title, ...content) => el("section", { className: "sheet-part" }, el("h3", { textContent: title }), ...content);

function folded(title, part, ...content) {
  const mark = icon("chevron");
  mark.classList.add("chevron");
  return el("details", { className: "disclosure", data: { part } }, el("summary", {}, mark, title), ...content);
}

function settings({ rows }) {
  if (!rows.length) return null;
  const table = el(
    "table",
    { className: "sheet-settings small numbers" },
    el("caption", { className: "quiet small", textContent: "As typed. Bold: not the default." }),
    el(
      "tbody",
      {},
      ...rows.map((row) =>
        el(
          "tr",
          {},
          el("th", { scope: "row", textContent: row.label }),
          el("td", { data: row.default ? {} : { own: "" }, textContent: row.value || (row.name === "advanced_flags" ? "those of the VRAM profile" : "–") }),
        ),
      ),
    ),
  );
  return section("Settings", table);
}

function commands({ commands: stages, dataset_config }) {
  const list = stages.filter((stage) => stage.command).map((stage) => code(stage.title ?? "Command", stage.command));
  const all = dataset_config ? [...list, code("dataset_config.toml", dataset_config)] : list;
  return all.length ? folded("What really ran: commands and dataset file", "commands", ...all) : null;
}

function code(title, text) {
  const copy = el("button", { type: "button", className: "button button-small button-bare", textContent: "Copy" });
  copy.append(el("span", { className: "visually-hidden", textContent: ` ${title}` }));
  copy.addEventListener("click", async () => say(copy, (await copyText(text)) ? "Copied" : "Not allowed by the browser"));
  // Lines break between words only, never in "--dataset_config".
  const pieces = text.split(/(\s+)/).map((piece) => (piece.trim() ? el("span", { className: "word", textContent: piece }) : piece));
  return el(
    "div",
    { className: "sheet-code" },
    el("div", { className: "row row-spread" }, el("h4", { className: "small", textContent: title }), copy),
    el("pre", { className: "mono", tabIndex: 0, "aria-label": title, role: "region" }, ...pieces),
  );
}

function lastLines({ last_lines, log_there }) {
  if (!last_lines.length) {
    const text = log_there ? "The log is empty." : "There is no log, or it was deleted from the folder.";
    return section("Log", el("p", { className: "small quiet", textContent: text }));
  }
  const text = last_lines.join("\n");
  const pane = el("pre", { className: "mono sheet-log", tabIndex: 0, role: "region", "aria-label": "Last lines of the log", textContent: text });
  requestAnimationFrame(() => (pane.scrollTop = pane.scrollHeight));
  return section("Last lines of the log", pane);
}

const INSIDE = [
  "Inside: settings with trigger word, subject description and sample prompts, the commands, dataset_config.toml, the log (its last 2 MB), loss and memory step by step, versions of programs, card, driver and system.",
  "Not inside: images, captions, these notes, access tokens. Names of images are replaced by numbers, your home folder by ~, and your user name and the name of the machine are removed.",
];

function report(job) {
  const link = el("a", { className: "button", href: at("jobs", job.id, "report"), download: "" }, icon("download"), "Download the report");
  return folded("Report a problem with this run", "report", ...INSIDE.map((text) => el("p", { className: "small", textContent: text })), link);
}
