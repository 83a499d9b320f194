/** Who is told when a run ends: this browser, and a message to an address. Loaded at first use; markup: its own. */

import { get, post, put, remove as erase } from "./api.js";
import { closeOnBack } from "./back.js";
import { el, icon, needStyle, say } from "./dom.js";
import { when } from "./format.js";
import { permission, possible, want, wanted } from "./notify.js";

const KINDS = [
  ["ntfy", "ntfy (app on the phone)", "https://ntfy.sh/a-name-nobody-guesses"],
  ["discord", "Discord", "https://discord.com/api/webhooks/…"],
  ["slack", "Slack", "https://hooks.slack.com/services/…"],
  ["json", "JSON, for a program of yours", "https://example.org/hook"],
];

const here = el("input", { type: "checkbox" });
const hereTold = el("p", { className: "small quiet", id: "notify-here", role: "status" });
here.setAttribute("aria-describedby", "notify-here");

const kind = el(
  "select",
  { className: "input", id: "notify-kind" },
  ...KINDS.map(([value, textContent]) => el("option", { value, textContent })),
);
const url = el("input", { className: "input", id: "notify-url", type: "url", spellcheck: false, autocomplete: "off" });
url.setAttribute("aria-describedby", "notify-kept");
const kept = el("p", { className: "small quiet", id: "notify-kept" });
const told = el("p", { className: "small notify-told", role: "status" });
const save = el("button", { type: "submit", className: "button button-primary", textContent: "Save" });
const test = el("button", { type: "button", className: "button", textContent: "Send a test" });
const remove = el("button", { type: "button", className: "button", textContent: "Send nothing any more" });
const close = el("button", { type: "button", className: "button", textContent: "Close" });

const form = el(
  "form",
  { className: "notify-form", autocomplete: "off", noValidate: true },
  el("label", { htmlFor: "notify-kind", textContent: "Service" }),
  kind,
  el("label", { htmlFor: "notify-url", textContent: "Address (webhook)" }),
  el("div", {}, url, kept),
  el("div", { className: "row notify-buttons" }, save, test, remove),
);

const dialog = el(
  "dialog",
  { className: "dialog notify", "aria-labelledby": "notify-title" },
  el("h2", { id: "notify-title", textContent: "When a run ends" }),
  el("h3", { textContent: "In this browser" }),
  el("label", { className: "check" }, here, "Show a notification while no page of MusubiTLX is in view"),
  hereTold,
  el("h3", { textContent: "By a message" }),
  el("p", {
    className: "small quiet",
    textContent:
      "Sent by the machine that trains, so it comes with the browser closed, too. It holds the folder's name, how the " +
      "run ended and why, its figures and the names of its files. Without an address nothing is ever sent.",
  }),
  form,
  told,
  el("div", { className: "row notify-end" }, close),
);

let held = {}; // as of /api/notify

/** Open the dialog as things stand. */
export async function openNotify() {
  if (!dialog.isConnected) build();
  await needStyle("notify.css");
  tell("");
  url.value = "";
  drawHere();
  draw(await get("/api/notify"));
  if (!dialog.open) dialog.showModal();
  closeOnBack(dialog);
}

function build() {
  document.body.append(dialog);
  here.addEventListener("change", choose);
  kind.addEventListener("change", () => {
    hint();
    tell("");
    url.removeAttribute("aria-invalid");
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(save, keep);
  });
  test.addEventListener("click", () => attempt(test, trial));
  remove.addEventListener("click", () => attempt(remove, forget));
  close.addEventListener("click", () => dialog.close());
}

// -- in this browser ------------------------------------------------------------------------------

async function choose() {
  await want(here.checked);
  drawHere();
}

function drawHere() {
  here.checked = wanted();
  here.disabled = !possible() || (permission() === "denied" && !here.checked);
  say(hereTold, aboutHere());
}

function aboutHere() {
  if (!possible())
    return "Browsers allow it only for pages from the machine itself (localhost, also through an SSH tunnel) or over https. A message works from everywhere.";
  if (permission() === "denied") return "The browser blocks notifications of this page; its settings for this page allow them.";
  return wanted() ? "It comes as long as the page is open in a tab." : "";
}

// -- by a message ---------------------------------------------------------------------------------

function draw(now) {
  held = now;
  if (held.kind) kind.value = held.kind;
  remove.hidden = !held.kind;
  hint();
  if (held.problem) return tell(held.problem, "bad");
  if (held.last) tell(`Last message, ${when(held.last.time)}: ${held.last.text}`, held.last.ok ? "good" : "bad");
}

function hint() {
  url.placeholder = KINDS.find(([value]) => value === kind.value)[2];
  say(
    kept,
    held.kind === kind.value
      ? `An address at ${held.host} is set. It is a secret and not shown again; leave this empty to keep it.`
      : "Whoever knows it can write to you: it is kept in a file only you can read.",
  );
}

const typed = () => ({ kind: kind.value, url: url.value.trim() });

async function keep() {
  draw({ ...(await put("/api/notify", typed())), last: null });
  url.value = "";
  tell(`Saved. A message goes to ${held.host} when a run ends.`, "good");
}

async function trial() {
  const { sent } = await post("/api/notify/test", typed());
  tell(`Sent to ${sent}. Did it arrive?`, "good");
}

async function forget() {
  draw(await erase("/api/notify"));
  url.value = "";
  tell("Nothing is sent any more.", "good");
  url.focus();
}

/** Do something with the server while its button waits; what goes wrong is said in the dialog. */
async function attempt(button, action) {
  if (button.getAttribute("aria-disabled")) return;
  button.setAttribute("aria-disabled", "true");
  url.removeAttribute("aria-invalid");
  tell(button === test ? "Sending…" : "");
  try {
    await action();
  } catch (error) {
    tell(error.whole ?? error.message, "bad");
    if (error.field === "url") {
      url.setAttribute("aria-invalid", "true");
      url.focus();
    }
  }
  button.removeAttribute("aria-disabled");
}

function tell(text, tone = "") {
  told.dataset.tone = tone;
  told.replaceChildren(...(tone && text ? [icon(tone), el("span", { textContent: text })] : [text]));
}
