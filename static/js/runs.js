/** The page of all runs: what waits, what runs, what was. Markup: <table data-runs>. */

import "./theme.js";
import { at, get, post, remove } from "./api.js";
import { complain, confirmed } from "./dialogs.js";
import { el, find, say } from "./dom.js";
import { STATES, TONES, count, duration, loss, when } from "./format.js";
import { ended } from "./stream.js";

const LOOK_MS = 2000;

const table = find("[data-runs]");
const body = find("tbody", table);
const lead = find("[data-runs-lead]");
const rows = new Map(); // job id -> {row, mark}

async function look() {
  try {
    draw(await get("/api/jobs"));
  } catch (error) {
    say(lead, error.whole);
  }
  if (!document.hidden) setTimeout(look, LOOK_MS);
}

function draw(jobs) {
  const going = jobs.filter((job) => !ended(job)).length;
  say(
    lead,
    jobs.length
      ? `${count(jobs.length, "run")}${going ? `, ${going} under way or waiting` : ""}.`
      : "No run yet. Start one on the page Train.",
  );
  table.hidden = jobs.length === 0;
  for (const [id, { row }] of rows) if (!jobs.some((job) => job.id === id)) (row.remove(), rows.delete(id));
  jobs.forEach(place);
}

/** Draw a job's row where it belongs; one that did not change keeps its nodes, and so the focus. */
function place(job, index) {
  const mark = JSON.stringify([job.state, job.stopping, job.reason, job.progress, job.ended]);
  let known = rows.get(job.id);
  if (known?.mark !== mark) {
    const row = el("tr", {}, ...cells(job));
    const focused = known?.row.contains(document.activeElement) ? document.activeElement.textContent : null;
    known?.row.replaceWith(row);
    known = { row, mark };
    rows.set(job.id, known);
    if (focused) [...row.querySelectorAll("a, button")].find((one) => one.textContent === focused)?.focus();
  }
  if (body.children[index] !== known.row) body.insertBefore(known.row, body.children[index] ?? null);
}

const cell = (label, ...content) => el("td", { data: { label } }, ...content);

function cells(job) {
  const { step, total, loss: value } = job.progress ?? {};
  const state = el("span", {
    className: "tag",
    textContent: job.stopping ? "Stopping" : STATES[job.state],
    data: { tone: TONES[job.state] },
  });
  const run = cell("Run", job.title);
  run.classList.add("wide");
  if (job.practice) run.append(el("span", { className: "quiet small", textContent: " practice" }));
  if (job.reason && job.state !== "succeeded")
    run.append(el("p", { className: "reason", textContent: job.reason }));
  const took = job.started ? duration((job.ended ?? Date.now() / 1000) - job.started) : "–";
  const right = (label, text) => Object.assign(cell(label, text), { className: "right" });
  return [
    cell("State", state),
    cell(
      "Folder",
      job.project
        ? el("a", { href: `/?project=${encodeURIComponent(job.project)}`, textContent: job.project })
        : "–",
    ),
    run,
    cell("Started", job.started ? when(job.started) : "waiting"),
    right("Duration", took),
    right("Steps", total ? `${step ?? 0} / ${total}` : "–"),
    right("Final loss", loss(value)),
    actions(job),
  ];
}

function actions(job) {
  const query = new URLSearchParams({ ...(job.project ? { project: job.project } : {}), job: job.id });
  const links = [
    el("a", { className: "button button-small button-bare", href: `/?${query}` }, "Open", hidden(job)),
    el(
      "a",
      {
        className: "button button-small button-bare",
        href: `${at("jobs", job.id, "log")}?offset=0`,
        target: "_blank",
        rel: "noopener",
      },
      "Log",
      hidden(job),
    ),
  ];
  const act = ended(job) ? ["Delete", forget] : [job.state === "queued" ? "Take out" : "Stop", stop];
  const button = el("button", { type: "button", className: "button button-small" }, act[0], hidden(job));
  button.disabled = job.stopping;
  button.addEventListener("click", () => act[1](job).then(refresh, complain));
  const all = el("td", { className: "wide" }, el("div", { className: "row" }, ...links, button));
  return all;
}

const hidden = (job) =>
  el("span", { className: "visually-hidden", textContent: ` ${job.title}, ${when(job.created)}` });

async function refresh() {
  draw(await get("/api/jobs"));
}

async function stop(job) {
  const yes =
    job.state === "queued" ||
    (await confirmed({
      title: "Stop this training?",
      text: "What was learned since the last saved checkpoint is lost. Checkpoints and samples stay.",
      yes: "Stop training",
      no: "Keep training",
    }));
  if (yes) await post(at("jobs", job.id, "stop"));
}

async function forget(job) {
  const yes = await confirmed({
    title: "Delete this run from the list?",
    text: "Its LoRA, samples and log file stay in the folder.",
    yes: "Delete",
  });
  if (yes) await remove(at("jobs", job.id));
}

document.addEventListener("visibilitychange", () => !document.hidden && look());
look();
