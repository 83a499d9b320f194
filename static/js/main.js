/** The training page: reads the state of things, wires the modules together, opens the stream. */

import "./theme.js";
import { at, get } from "./api.js";
import { complain } from "./dialogs.js";
import { find, say, stored } from "./dom.js";
import { setCard } from "./estimate.js";
import { startHealth } from "./health.js";
import { startImages, takeNews } from "./images.js";
import {
  busy,
  drop,
  eta,
  fix,
  isFixed,
  logTurned,
  release,
  runningJob,
  shownJob,
  take,
  takeAll,
} from "./jobs.js";
import { addLog, drawConnection, setBar, startLog, turnTo } from "./log.js";
import { drawLoss } from "./loss.js";
import { startModels } from "./models.js";
import { project, readProject } from "./project.js";
import { drawResources } from "./resources.js";
import { drawRun, startRun } from "./run.js";
import { addSamples, showSamples, startSamples } from "./samples.js";
import { startSettings, suggestProfile, wireSettings } from "./settings.js";
import { drawButton, startStart } from "./start.js";
import { drawReached, drawStatus, drawStatusMemory } from "./status.js";
import { Stream, ended } from "./stream.js";
import { startUploading } from "./uploading.js";
import { startWorkbench } from "./workbench.js";

const REVEAL_MS = 300; // so long the rest waits for the check

const query = new URLSearchParams(location.search);
const only = query.get("job");
const stream = new Stream(only, find("#main").dataset.project);

/** A job changed: everything that shows the one of the page is drawn again. */
function drawJob() {
  const job = shownJob();
  drawRun();
  if (job && !job.deleted) {
    turnTo(job.id);
    drawLoss(job);
    if (job.state !== "running" || !job.bar) setBar({ job: job.id, text: job.bar ?? "" });
  }
  drawButton(busy());
  drawConnection(stream.state, job?.state === "running");
  drawHeader();
  drawSamples(job);
}

/** The header tells what runs; else the job shown, unless it is over and was about another folder. */
function drawHeader() {
  const job = shownJob();
  const here = job && !job.deleted && (!ended(job) || job.project === project.name) ? job : null;
  const told = runningJob() ?? here;
  const href = told && told.id !== job?.id ? "/#run" : "#run"; // "/" shows what runs
  drawStatus(told, { name: project.name, left: told && eta(told), href });
}

/** Take news of a job. */
function takeJob(job) {
  take(job);
  drawJob();
}

/** A job of the open folder came to its end: there are new files or captions. */
function afterEnd({ job, over }) {
  if (!over || job.project !== project.name) return;
  readProject().catch(() => {});
  if (job.kind === "caption") import("./captionend.js").then(({ tellEnd }) => tellEnd(job)).catch(complain);
}

/** The samples of what runs, else those of the open folder. */
function drawSamples(job) {
  const running = job?.state === "running" && job.kind === "train" && job.project;
  const name = running ? job.project : project.exists ? project.name : "";
  showSamples(name, Boolean(running));
}

/** Read again what nobody tells after an interruption: what ended, was deleted or put into the folder meanwhile. */
async function catchUp() {
  const asked = performance.now();
  if (project.exists) readProject().catch(() => {});
  takeAll(await get("/api/jobs"), asked);
  drawJob();
}

function listen() {
  let connected = 0;
  stream.addEventListener("state", (event) => {
    drawConnection(event.detail, shownJob()?.state === "running");
    // What happened between the last look and this connection is told by nobody.
    if (event.detail === "live" && (connected += 1) > 1) catchUp().catch(() => {});
    drawReached(event.detail !== "offline");
  });
  stream.addEventListener("log", (event) => {
    addLog(event.detail);
    followLog(event.detail.job).catch(complain);
  });
  stream.addEventListener("bar", (event) => setBar(event.detail));
  stream.addEventListener("job", (event) => takeJob(event.detail));
  stream.addEventListener("gone", (event) => {
    drop(event.detail.job);
    drawJob();
  });
  stream.addEventListener("jobs", (event) => {
    takeAll(event.detail.jobs, event.detail.asked);
    drawJob();
    const job = shownJob();
    if (job) setBar({ job: job.id, text: job.bar ?? "" });
  });
  stream.addEventListener("resources", (event) => {
    drawResources(event.detail);
    drawStatusMemory(event.detail);
  });
  stream.addEventListener("samples", (event) => addSamples(event.detail));
  stream.addEventListener("captions", (event) => takeNews(event.detail));
  stream.addEventListener("looks", () => document.dispatchEvent(new CustomEvent("looks:changed")));
}

/** The log turned to a job: so does the page. */
async function followLog(id) {
  if (shownJob()?.id === id) return;
  if (!logTurned(id)) take(await get(at("jobs", id)));
  drawJob();
}

/** A run was started here: a page that showed one run alone shows what runs from now on. */
function started(job) {
  if (isFixed()) {
    release(job);
    const address = new URL(location.href);
    address.searchParams.delete("job");
    history.replaceState(history.state, "", address);
    stream.fix(null);
  }
  takeJob(job);
  find("[data-run-card]").scrollIntoView({ block: "nearest" });
}

function about({ server, musubi, gpus, gpu_reason }) {
  const engine = musubi?.found ? `Musubi Tuner ${musubi.version ?? ""}`.trim() : "Musubi Tuner not found";
  const cards = gpus?.length ? gpus.map((gpu) => gpu.name).join(", ") : gpu_reason;
  say(find("[data-about]"), [engine, cards, `served by ${server}`].filter(Boolean).join(" · "));
}

/** The folder to open: the one of the address, of what runs, the last one used, or a new one. */
function firstFolder({ jobs, projects }) {
  const running = jobs.find((job) => job.state === "running" && job.project);
  const latest = [...projects].sort((a, b) => (b.modified ?? 0) - (a.modified ?? 0))[0];
  return find("#main").dataset.project || running?.project || latest?.name || "";
}

async function start() {
  wireSettings();
  startImages();
  startUploading();
  startWorkbench();
  startHealth();
  startStart();
  startSamples();
  fix(only);
  startRun(drawJob);
  startLog({ onResume: () => stream.resume() });
  wireNotify();
  listen();
  stream.start();
  document.addEventListener("job:started", (event) => started(event.detail));
  document.addEventListener("job:told", (event) => afterEnd(event.detail));
  for (const type of ["project:opened", "project:created"]) {
    document.addEventListener(type, drawJob);
    document.addEventListener(type, () => stream.watch(project.exists ? project.name : ""));
  }
  document.addEventListener(
    "visibilitychange",
    () => !document.hidden && project.exists && readProject().catch(() => {}),
  );
  setInterval(drawHeader, 1000);
  document.addEventListener("images:shown", () => setTimeout(reveal, REVEAL_MS));
  document.addEventListener("checked", reveal);
  try {
    const asked = performance.now();
    const [state, list] = await Promise.all([get("/api/state"), get("/api/jobs")]);
    about(state);
    setCard(state.suggested);
    startModels(state.models);
    takeAll(list, asked);
    drawJob();
    await startSettings(state.projects, firstFolder(state));
    suggestProfile(state.suggested);
    const { startRecipes } = await import("./recipes.js");
    await startRecipes();
    if (query.has("use") || stored("musubitlx:before")) (await import("./clone.js")).startClone(query.get("use"));
  } catch (error) {
    complain(error);
    reveal();
  }
}

/** What tells of a run's end is loaded where somebody asked for it; its dialog when it is opened. */
function wireNotify() {
  find("[data-notify]").addEventListener("click", () =>
    import("./notifydialog.js").then(({ openNotify }) => openNotify()).catch(complain),
  );
  const wish = () => stored("notify") && import("./notify.js").catch(() => {});
  window.addEventListener("storage", wish);
  wish();
}

/** What is above stands, advice on the images included: show the rest. */
function reveal() {
  delete find("#main").dataset.loading;
}

start();
