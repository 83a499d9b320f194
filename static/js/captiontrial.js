/** Captioning one image to see what comes of it. A trial is a job: it goes on while the dialog is closed. */

import { at, get, post } from "./api.js";
import { formProblem, howMade, model } from "./captionform.js";
import { problemRow } from "./captionhints.js";
import { cardsChosen } from "./captionpick.js";
import { el, findAll, say } from "./dom.js";
import { duration, far, speed } from "./format.js";
import { allCards, cardOf } from "./images.js";
import { eta, known, runningJob, take } from "./jobs.js";
import { isLost } from "./keepfocus.js";
import { onPress } from "./press.js";
import { project } from "./project.js";
import { ended } from "./stream.js";

let trial = null; // {id, name, model, rows: what came of it, null until it is over} in the open folder
let picked = null; // the image somebody has chosen for it

const image = el("select", { className: "input", id: "caption-trial-image" });
const go = el("button", { type: "button", className: "button", textContent: "Try it" });
const stop = el("button", { type: "button", className: "button button-small", textContent: "Stop" });
stop.append(el("span", { className: "visually-hidden", textContent: " the trial" }));
const use = el("button", { type: "button", className: "button button-small", textContent: "Use this text" });
const picture = el("img", { alt: "", decoding: "async" });
const now = el("p", { className: "small cap-text" });
const lead = el("p", { className: "small quiet" });
const text = el("p", { className: "cap-text cap-result" });
const said = el("p", { className: "small", role: "status" });
const bar = el("progress", { className: "bar", max: 1, "aria-label": "Progress of the trial" });
const problems = el("ul", { className: "small", "aria-live": "polite" });

/** The section of the dialog. */
export function buildTrial() {
  image.addEventListener("change", () => {
    picked = image.value;
    drawTrial();
  });
  onPress(go, begin, (error) => tell(error.problems ?? [{ error: error.message }]));
  onPress(stop, () => post(at("jobs", trial.id, "stop")), (error) => tell(error.problems));
  onPress(use, useText);
  document.addEventListener("job:told", ({ detail: { job } }) => job.id === trial?.id && heard(job));
  document.addEventListener("project:switching", () => ((trial = picked = null), tell([])));
  setInterval(() => go.checkVisibility() && running() && drawState(), 1000);
  return el(
    "section",
    { className: "cap-part cap-trial", "aria-labelledby": "caption-trial-title" },
    el("h3", { id: "caption-trial-title", textContent: "Try it on one image" }),
    el("div", { className: "cap-line" }, el("label", { className: "small", htmlFor: image.id, textContent: "Try on" }), image, go),
    el(
      "div",
      { className: "cap-figure" },
      picture,
      el("div", {}, el("p", { className: "small quiet", textContent: "Caption now" }), now, lead, text, said, bar, problems, el("div", { className: "cap-line" }, stop, use)),
    ),
  );
}

/** Draw with the images as they are now; until somebody chooses one it is the first that would get a caption. */
export function drawTrial() {
  const names = allCards().map(({ name }) => name);
  if (findAll("option", image).map(({ value }) => value).join("\n") !== names.join("\n"))
    image.replaceChildren(...names.map((name) => el("option", { value: name, textContent: name })));
  if (!names.includes(picked)) picked = null;
  const tried = names.includes(trial?.name) ? trial.name : null;
  image.value = (running() && tried) || picked || tried || cardsChosen()[0]?.name || names[0];
  const card = cardOf(image.value);
  if (card && picture.getAttribute("src") !== card.image.thumb) picture.src = card.image.thumb;
  say(now, card?.text.trim() || "(none)");
  drawState();
}

/** Whether a trial is under way; one whose job was deleted is not. */
const running = () => Boolean(trial && !trial.rows && known(trial.id));

async function begin() {
  const wrong = formProblem();
  tell(wrong ? [wrong] : []);
  if (wrong) return;
  const [folder, name] = [project.name, image.value];
  const wish = { ...howMade(), which: [name], mode: "replace", trial: true }; // a trial writes nothing
  const job = await post(at("projects", folder, "captions"), wish);
  if (folder !== project.name) return;
  trial = { id: job.id, name, model: model().label, rows: null };
  take(known(job.id) ?? job); // word of it may have been faster than the answer
  stop.focus(); // the button that was pressed waits for the end
}

/** Word of the trial; at its end its text is fetched. */
async function heard(job) {
  if (ended(job) && !trial.rows && !trial.asked) {
    const own = trial;
    own.asked = true;
    if (["failed", "interrupted"].includes(job.state)) tell([{ error: job.reason ?? "It failed.", hint: job.hint }]);
    const found = await get(at("jobs", job.id, "captions")).catch((error) => tell([{ error: error.message, hint: "Try again." }]));
    own.rows = found?.rows ?? [];
  }
  drawTrial();
}

function drawState() {
  const job = trial && known(trial.id);
  const here = trial && trial.name === image.value;
  const focused = document.activeElement === stop;
  const result = here && trial.rows?.find((row) => row.name === trial.name);
  go.ariaDisabled = running() ? "true" : null;
  say(go, trial && !running() && here ? "Try again" : "Try it");
  image.disabled = running();
  stop.hidden = !running();
  if (stop.hidden && focused && isLost()) go.focus();
  say(lead, result?.text ? `${trial.model} says` : "");
  say(text, result?.text ?? "");
  use.hidden = !result?.text || trial.used;
  say(said, here ? stateOf(job, result) : "");
  drawBar(job);
}

function drawBar(job) {
  bar.hidden = !running() || job?.state !== "running";
  const { step, total } = job?.progress ?? {};
  if (total) bar.value = (step ?? 0) / total;
  else bar.removeAttribute("value");
}

function stateOf(job, result) {
  if (trial.used) return "It is the caption now.";
  if (result?.problem) return result.problem;
  if (result) return "";
  if (!job) return "";
  if (job.stopping) return "Stopping…";
  if (job.state === "queued") return `Waiting in the queue${runningJob() ? ` for: ${runningJob().title}` : ""}.`;
  if (job.state === "running") return progressOf(job);
  if (job.state === "succeeded") return trial.rows ? "No text came of it." : "Done, fetching the text…";
  return job.state === "stopped" ? "Stopped." : ""; // why it failed is told below
}

function progressOf(job) {
  const { total, unit } = job.progress;
  const left = eta(job);
  if (job.stage?.name !== "fetch") return unit === "image" ? "Captioning…" : "Loading the model…";
  const parts = [total && far(job.progress), speed(job.progress), left !== null && `${duration(left)} left`];
  return `Downloading the model: ${parts.filter((part) => part && part !== "–").join(" · ") || "starting…"}`;
}

/** Put the text in as if it had been typed: what somebody else wrote meanwhile is not lost. */
async function useText() {
  const own = trial;
  const card = cardOf(own.name);
  if (!card) return tell([{ error: `${own.name} is not in the folder any more.` }]);
  card.write(own.rows.find((row) => row.name === own.name).text);
  own.used = await card.settled();
  if (!own.used) tell([{ error: "The caption is not saved.", hint: "Its card says why." }]);
  drawTrial();
  if (isLost()) go.focus();
}

const tell = (list) => problems.replaceChildren(...list.map((one) => problemRow(one)));
