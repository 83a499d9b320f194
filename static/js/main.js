/** The training page: reads the state of things, wires the modules together, opens the stream. */

import "./theme.js";
import { get } from "./api.js";
import { complain } from "./dialogs.js";
import { find, say, stored } from "./dom.js";
import { setCard } from "./estimate.js";
import { startHealth } from "./health.js";
import { startImages, takeNews } from "./images.js";
import { addLog, drawConnection, setBar, startLog, turnTo } from "./log.js";
import { drawLoss } from "./loss.js";
import { startModels } from "./models.js";
import { project, readProject } from "./project.js";
import { drawResources } from "./resources.js";
import { busy, followLog, followedJob, startRun, takeJob, takeJobs } from "./run.js";
import { addSamples, showSamples, startSamples } from "./samples.js";
import { startSettings, suggestProfile, wireSettings } from "./settings.js";
import { drawButton, startStart } from "./start.js";
import { drawReached, drawStatus, drawStatusMemory } from "./status.js";
import { Stream } from "./stream.js";
import { startUploading } from "./uploading.js";
import { startWorkbench } from "./workbench.js";

const REVEAL_MS = 300; // so long the rest waits for the check

const query = new URLSearchParams(location.search);
const only = query.get("job");
const stream = new Stream(only, find("#main").dataset.project);

/** A job changed: everything that shows the followed one is drawn again. */
function drawJob() {
  const job = followedJob();
  if (job) {
    turnTo(job.id);
    drawLoss(job);
    if (job.state !== "running" || !job.bar) setBar({ job: job.id, text: job.bar ?? "" });
  }
  drawButton(busy());
  drawStatus();
  drawSamples(job);
}

/** The samples of what runs, else those of the open folder. */
function drawSamples(job) {
  const running = job?.state === "running" && job.project;
  const name = running ? job.project : project.exists ? project.name : "";
  showSamples(name, Boolean(running));
}

function listen() {
  let connected = 0;
  stream.addEventListener("state", (event) => {
    drawConnection(event.detail);
    // What happened between the last look and this connection is told by nobody.
    if (event.detail === "live" && (connected += 1) > 1 && project.exists) readProject().catch(() => {});
    drawReached(event.detail !== "offline");
  });
  stream.addEventListener("log", (event) => {
    addLog(event.detail);
    followLog(event.detail.job).then(drawJob, complain);
  });
  stream.addEventListener("bar", (event) => setBar(event.detail));
  stream.addEventListener("job", (event) => {
    takeJob(event.detail);
    drawJob();
  });
  stream.addEventListener("jobs", (event) => {
    const job = takeJobs(event.detail);
    drawJob();
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
  startRun(only);
  startLog({ onResume: () => stream.resume() });
  wireNotify();
  listen();
  stream.start();
  document.addEventListener("job:started", (event) => {
    takeJob(event.detail);
    drawJob();
    find("[data-run-card]").scrollIntoView({ block: "nearest" });
  });
  for (const type of ["project:opened", "project:created"]) {
    document.addEventListener(type, drawJob);
    document.addEventListener(type, () => stream.watch(project.exists ? project.name : ""));
  }
  document.addEventListener(
    "visibilitychange",
    () => !document.hidden && project.exists && readProject().catch(() => {}),
  );
  setInterval(drawStatus, 1000);
  document.addEventListener("images:shown", () => setTimeout(reveal, REVEAL_MS));
  document.addEventListener("checked", reveal);
  try {
    const [state, jobs] = await Promise.all([get("/api/state"), get("/api/jobs")]);
    about(state);
    setCard(state.suggested);
    startModels(state.models);
    takeJobs(jobs);
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
