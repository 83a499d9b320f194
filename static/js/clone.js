/**
 * "Use these settings" of a past run: fills the form of its folder, starts nothing, and keeps what stood there
 * before until one has chosen. Loaded when the address names a run (?use=) or a form waits to be brought back.
 */

import { at, get } from "./api.js";
import { complain, toast } from "./dialogs.js";
import { el, find, icon } from "./dom.js";
import { when } from "./format.js";
import { project } from "./project.js";
import { apply, values } from "./settings.js";

const KEPT = "musubitlx:before";
let notice = null;

/** Fill the form with the settings of the run `id`, if one is named; offer the way back. */
export async function startClone(id) {
  document.addEventListener("project:opened", offerBack);
  if (!id) return offerBack();
  forgetAddress();
  try {
    const { job, settings } = await get(at("jobs", id, "details"));
    take(job, settings);
  } catch (error) {
    complain(error);
  }
}

/** A reload is no second wish to fill the form. */
function forgetAddress() {
  const address = new URL(location.href);
  address.searchParams.delete("use");
  history.replaceState(null, "", address);
}

function take(job, { output_dir: _folder, ...settings }) {
  const before = values();
  delete before.output_dir;
  apply(settings);
  const after = values();
  if (Object.keys(before).every((name) => before[name] === after[name])) {
    toast("The form holds the settings of this run already.");
    return;
  }
  keep({ folder: project.name, run: settings.output_name ?? job.title, at: job.started ?? job.created, before });
  offerBack();
  notice?.style.setProperty("outline", "none"); // it takes the focus to be read, there is nothing to press on it
  notice?.focus();
}

function keep(entry) {
  try {
    if (entry) localStorage.setItem(KEPT, JSON.stringify(entry));
    else localStorage.removeItem(KEPT);
  } catch {
    // No storage: the way back stands as long as this page.
  }
  kept = entry;
}

let kept = read();

function read() {
  try {
    return JSON.parse(localStorage.getItem(KEPT));
  } catch {
    return null;
  }
}

/** Show the notice while the folder it is about is open. */
function offerBack() {
  notice?.remove();
  notice = null;
  if (kept?.folder !== project.name || !kept.before) return;
  notice = draw();
  find(".setup").prepend(notice);
}

function draw() {
  const back = el("button", { type: "button", className: "button button-small", textContent: "Back to mine" });
  const stay = el("button", { type: "button", className: "button button-small", textContent: "Keep these" });
  back.addEventListener("click", () => {
    apply(kept.before);
    close("Your settings are back in the form.");
  });
  stay.addEventListener("click", () => close("The form keeps the settings of the run."));
  const text = `The form holds the settings of “${kept.run}” (${when(kept.at)}). Nothing was started, images and captions are as they were.`;
  return el(
    "div",
    { className: "notice", tabIndex: -1, role: "group", "aria-label": "Settings of a past run", data: { cloned: "" } },
    icon("info"),
    el("div", {}, el("p", { textContent: text }), el("div", { className: "row notice-actions" }, back, stay)),
  );
}

function close(said) {
  keep(null);
  offerBack();
  toast(said);
  find("[data-start-button]").focus();
}
