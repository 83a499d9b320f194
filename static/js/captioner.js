/** "Auto-caption images": a dialog that asks how and which, and starts the job. Loaded at first use; markup: its own. */

import { at, get, post } from "./api.js";
import { closeOnBack } from "./back.js";
import { buildForm, formProblem, howMade, markFields } from "./captionform.js";
import { problemRow } from "./captionhints.js";
import { buildPick, captioned, drawPick, kept, modePosted, whichPosted } from "./captionpick.js";
import { buildTrial, drawTrial } from "./captiontrial.js";
import { debounced, el, find, icon, needStyle, say } from "./dom.js";
import { bytes, count } from "./format.js";
import { settleCaptions } from "./images.js";
import { onPress } from "./press.js";
import { project } from "./project.js";
import { toTitle } from "./run.js";

const CHECK_MS = 300;
const AGAIN_MS = 3000; // after a server that could not be asked

const sum = el("p", { className: "cap-sum", id: "caption-sum", role: "status" });
const problems = el("ul", { className: "small cap-problems", id: "caption-problems", "aria-live": "polite" });
const go = el("button", { type: "button", className: "button button-primary", textContent: "Caption images" });
go.setAttribute("aria-describedby", "caption-sum caption-problems");
const close = el("button", { type: "button", className: "button", textContent: "Cancel" });
const commands = el("div", { className: "cap-commands" });
const preview = el("details", { className: "disclosure small" }, el("summary", {}, icon("chevron"), "What runs (preview)"), commands);
const main = el("div", { className: "cap-body" });
const dialog = el(
  "dialog",
  { className: "dialog captioner", "aria-labelledby": "captioner-title" },
  el("h2", { id: "captioner-title", textContent: "Auto-caption images" }),
  main,
  el("div", { className: "cap-foot" }, el("div", {}, sum, problems), el("div", { className: "row" }, close, go)),
);

let asked = 0; // counts checks, so that a late one is dropped
let answer = null; // of the check of what is chosen now, null while it is on its way

/** Open the dialog with what was chosen the last time. */
export async function openCaptioner() {
  const [offer] = await Promise.all([main.firstChild ? null : get("/api/captioners"), needStyle("captioner.css")]);
  if (dialog.open) return;
  if (offer) build(offer);
  drawPick();
  drawTrial();
  answer = null;
  draw();
  check();
  dialog.showModal();
  closeOnBack(dialog);
  find("input:checked", dialog).focus();
}

function build(offer) {
  preview.firstElementChild.firstElementChild.classList.add("chevron");
  main.append(
    el("div", { className: "cap-column" }, buildForm(offer, changed)),
    el("div", { className: "cap-column" }, buildPick(changed), buildTrial(), preview),
  );
  close.addEventListener("click", () => dialog.close());
  onPress(go, start, refused);
  document.body.append(dialog);
  for (const type of ["images:drawn", "captions:changed"]) document.addEventListener(type, imagesChanged);
  document.addEventListener("project:switching", () => dialog.close());
  window.addEventListener("focus", lookAgain);
  document.addEventListener("visibilitychange", lookAgain);
  setInterval(() => answer?.lost && lookAgain(), AGAIN_MS);
}

const imagesChanged = debounced(() => {
  if (!dialog.open) return;
  drawPick();
  drawTrial();
  changed();
}, CHECK_MS);

/** Something was chosen: what would be done has to be asked anew. */
function changed() {
  asked += 1;
  answer = null;
  drawTrial();
  draw();
  checkLater();
}

/** Somebody comes back, perhaps from installing what was missing. */
function lookAgain() {
  if (dialog.open && !document.hidden && answer?.errors.length) check();
}

const checkLater = debounced(check, CHECK_MS);

const wish = () => ({ ...howMade(), which: whichPosted(), mode: modePosted() });

/** What the page knows by itself to be missing, or null. */
function missing() {
  if (formProblem()) return formProblem();
  if (whichPosted().length === 0) return { error: "Tick the images that are to get a caption.", field: "which" };
  return null;
}

async function check() {
  if (!dialog.isConnected) return;
  const turn = (asked += 1);
  let found;
  try {
    found = missing() ? { errors: [missing()] } : await post(at("projects", project.name, "captions", "check"), wish());
  } catch (error) {
    found = { errors: error.problems ?? [{ error: error.message }], lost: true };
  }
  if (turn !== asked) return;
  answer = found;
  draw();
}

// -- drawing ----------------------------------------------------------------------------------------

/** What a press would do, and what keeps it from that. While a check is on its way the last word stands. */
function draw() {
  go.ariaDisabled = answer && ready() ? null : "true";
  if (!answer) return;
  const { errors, warnings = [], images, stages = [] } = answer;
  say(go, ready() ? `Caption ${count(images, "image")}` : images === 0 ? "Nothing to caption" : "Caption images");
  say(sum, inWords());
  problems.replaceChildren(...errors.map((one) => problemRow(one)), ...warnings.map((one) => problemRow(one, "warn")));
  markFields(errors.map(({ field }) => field));
  preview.hidden = !stages.length;
  commands.replaceChildren(
    ...stages.flatMap(({ title, command }) => [el("p", { textContent: title }), el("pre", { className: "mono", tabIndex: 0, role: "region", "aria-label": title, textContent: command })]),
  );
}

const ready = () => !answer.errors.length && answer.images > 0;

function inWords() {
  const { images, download } = answer;
  if (!images) return ""; // the problem says why
  const parts = [`${count(images, "image")} ${images === 1 ? "gets" : "get"} a caption${forThose()}${staying()}.`];
  if (download) parts.push(`Downloads ${bytes(download)} on first use.`);
  return parts.join(" ");
}

/** What happens to the captions of those that have one. */
function forThose() {
  const [there, mode] = [captioned(), modePosted()];
  if (!there || mode === "keep") return "";
  return mode === "replace" ? `, ${there} of them in place of the one there` : `, ${there} of them behind the one there`;
}

const staying = () => (kept() ? `, ${count(kept(), "caption")} ${kept() === 1 ? "stays as it is" : "stay as they are"}` : "");

// -- starting ---------------------------------------------------------------------------------------

async function start() {
  const unsaved = await settleCaptions();
  if (unsaved.length) {
    const names = unsaved.slice(0, 3).map((card) => card.name).join(", ");
    throw new Error(`Captions that are not saved: ${names}${unsaved.length > 3 ? " and others" : ""}. See what their cards say.`);
  }
  const job = await post(at("projects", project.name, "captions"), wish());
  dialog.close();
  document.dispatchEvent(new CustomEvent("job:started", { detail: job }));
  toTitle();
}

/** The server may know better by now than at the last check. */
function refused(error) {
  answer = { ...answer, errors: error.problems ?? [{ error: error.message }] };
  draw();
}
