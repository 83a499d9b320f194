/**
 * Step 2 of the page: the settings form. What stands in it is kept on the server, one draft for each folder,
 * and says "settings:changed" on `document` whenever it may have become another.
 */

import { get, put } from "./api.js";
import { complain, toast } from "./dialogs.js";
import { copyText, debounced, el, find, findAll, say } from "./dom.js";
import { count } from "./format.js";
import { STRENGTH, drawStrength } from "./strength.js";
import { openProject, project, readProject, useWords } from "./project.js";

const DRAFT_MS = 700;
const WORDS_MS = 600;
const FOLDER_MS = 500;

const form = find("#settings");
const controls = new Map(
  [...form.elements].filter((control) => control.dataset.setting).map((control) => [control.name, control]),
);
const flags = controls.get("advanced_flags");
const profile = controls.get("vram_profile");
const field = controls.get("output_dir");
const recipe = controls.get("recipe");
const touched = new Set(); // fields the person has been at: their errors are shown at once

const profileFlags = () => profile.selectedOptions[0]?.dataset.flags ?? "";
const squeezed = (text) => text.split(/\s+/).filter(Boolean).join(" ");

let flagsFollow = true; // the flags are those of the profile, and change with it
let knownProfileFlags = "";

// -- values -------------------------------------------------------------------------------------

/** The settings as they stand in the form, by name. */
export function values() {
  const all = {};
  for (const [name, control] of controls)
    all[name] = control.type === "checkbox" ? control.checked : control.value;
  if (flagsFollow) all.advanced_flags = null;
  return all;
}

function fill(settings) {
  for (const [name, value] of Object.entries(settings)) {
    const control = controls.get(name);
    if (!control || name === "advanced_flags" || name === "output_dir") continue;
    if (control === recipe) claim(value);
    else if (control.type === "checkbox") control.checked = Boolean(value);
    else setValue(control, shown(value));
  }
  if (!("advanced_flags" in settings)) {
    if (flagsFollow) flags.value = profileFlags();
  } else {
    flagsFollow =
      settings.advanced_flags === null || squeezed(settings.advanced_flags) === squeezed(profileFlags());
    flags.value = flagsFollow ? profileFlags() : settings.advanced_flags;
  }
  knownProfileFlags = profileFlags();
  drawFlags();
  drawFinalFile();
  drawStrength(values());
}

// A recipe is shown, and saved, only while the form holds its values. What a draft or a file names is a claim,
// until recipes.js has the recipes for the folder's images and can tell.
let claimed = "";

function claim(name) {
  claimed = name;
  recipe.value = "";
}

/** The recipe that the form is said to hold, as far as that can be judged now: not while a folder is being opened. */
export const claimedRecipe = () => (opening ? "" : claimed);

/** Show the recipe that the form does hold; "": the settings are one's own. */
export function showRecipe(id) {
  claimed = "";
  recipe.value = id;
  if (id === keptRecipe) return;
  unsaved = true;
  keepDraft();
}

/** A choice that is not offered (yet) is added, so that it is not lost. */
function setValue(control, text) {
  const missing = control.options && ![...control.options].some((option) => option.value === text);
  if (missing) control.append(new Option(text, text));
  control.value = text;
}

/**
 * Put values into the form: a recipe's, or the way out of a warning. Somebody chose them, so a draft that comes
 * late leaves them, unless they are `followed`: worked out anew by the page.
 */
export function apply(settings, { followed = false } = {}) {
  if (!followed) for (const name of Object.keys(settings)) typed.add(name);
  fill(settings);
  formChanged();
}

/** A number as one types it: 0.00005 as 5e-5. */
function shown(value) {
  if (typeof value !== "number" || Number.isInteger(value)) return String(value ?? "");
  return value < 0.001 ? value.toExponential().replace("e-0", "e-") : String(value);
}

// -- flags --------------------------------------------------------------------------------------

function profileChanged() {
  if (flagsFollow || squeezed(flags.value) === squeezed(knownProfileFlags)) {
    flags.value = profileFlags();
    flagsFollow = true;
  }
  knownProfileFlags = profileFlags();
  flagsFollow = squeezed(flags.value) === squeezed(knownProfileFlags);
  drawFlags();
}

function flagsChanged() {
  flagsFollow = squeezed(flags.value) === squeezed(profileFlags());
  drawFlags();
}

function drawFlags() {
  find("[data-flags-reset]").hidden = flagsFollow;
  const text = flagsFollow
    ? "These are the flags of the VRAM profile; they change with it."
    : "Edited: these stay as they are when the VRAM profile changes.";
  say(find("[data-flags-state]"), text);
}

// -- folder and file ------------------------------------------------------------------------------

function drawFinalFile() {
  const folder = field.value.trim() || "…";
  const name = controls.get("output_name").value.trim() || "…";
  say(find("[data-final-file]"), `output/${folder}/${name}.safetensors`);
}

function folderTyped() {
  keepDraft.flush();
  typed.clear();
  const name = field.value.trim();
  const file = controls.get("output_name");
  if (file.value.trim() === followedName) file.value = name;
  followedName = name;
  drawFinalFile();
  openLater();
}

let followedName = field.defaultValue; // the LoRA is called like the folder until it is given a name
const openLater = debounced(openTyped, FOLDER_MS);

async function openTyped() {
  const name = field.value.trim();
  if (name === project.name) return;
  try {
    await open(name);
  } catch (error) {
    complain(error);
  }
}

function drawFolder() {
  const state = find("[data-folder-state]");
  if (!project.name) say(state, "Give the folder a name.");
  else if (field.hasAttribute("aria-invalid")) say(state, "");
  else if (project.exists) say(state, `output/${project.name} is there.`);
  else say(state, `output/${project.name} is new: it is created with the first image.`);
}

/** Offer the folders there are. */
export function drawFolders(projects) {
  const select = find("[data-open-folder]");
  const sorted = [...projects].sort((a, b) => (b.modified ?? 0) - (a.modified ?? 0));
  const options = sorted.map((one) =>
    el("option", { value: one.name, textContent: `${one.name} (${count(one.images, "image")})` }),
  );
  const first = el("option", { value: "", textContent: options.length ? "Choose…" : "None yet" });
  select.replaceChildren(first, ...options);
}

async function refreshFolders() {
  drawFolders((await get("/api/projects")).projects);
}

/** Put another folder into the field and open it. */
export async function switchFolder(name, options) {
  keepDraft.flush();
  if (project.name) typed.clear();
  const file = controls.get("output_name");
  if (file.value.trim() === field.value.trim()) file.value = name;
  field.value = followedName = name;
  drawFinalFile();
  await open(name, options);
}

/** The form as it was kept for this folder, then the folder: so its final texts are right at once. */
async function open(name, options) {
  unsaved = false;
  opening += 1;
  try {
    await loadDraft(name);
    if (name !== field.value.trim()) return; // another one was typed meanwhile
    useWords(words());
    await openProject(name, options);
  } finally {
    opening -= 1;
  }
  document.dispatchEvent(new CustomEvent("settings:changed"));
}

const words = () => ({
  trigger_word: controls.get("trigger_word").value,
  prompt: controls.get("prompt").value,
  resolution: controls.get("resolution").value,
});

// -- draft ----------------------------------------------------------------------------------------

const draftName = (folder = project.name) => `draft-${folder}`;
const draftMark = find("[data-draft]");
const keepDraft = debounced(saveDraft, DRAFT_MS);

/** Keep the form on the server. A field that can't be saved is left out, and said. */
async function saveDraft() {
  if (!project.name) return;
  if (opening) {
    keepDraft();
    return;
  }
  const [settings, name] = [values(), draftName()];
  unsaved = false;
  keptRecipe = settings.recipe;
  try {
    await put("/api/config", { settings, name });
    say(draftMark, "Saved");
  } catch (error) {
    unsaved = true;
    await saveRest(settings, name, error);
  }
}

async function saveRest(settings, draft, error) {
  const bad = error.problems.map((problem) => problem.field).filter((field) => field in settings);
  if (!bad.length) {
    say(draftMark, `Not saved: ${error.message}`);
    if (error.status === 0) setTimeout(keepDraft, 5000);
    return;
  }
  const rest = Object.fromEntries(Object.entries(settings).filter(([name]) => !bad.includes(name)));
  try {
    await put("/api/config", { settings: rest, name: draft });
    say(draftMark, `Saved, except for ${bad.map(labelOf).join(", ")}`);
  } catch {
    say(draftMark, "Not saved yet");
  }
}

/** Settings as they were read. Where the file is silent on them, folder and LoRA stay what they are. */
function named({ settings, given }) {
  const silent = ["output_dir", "output_name"].filter((name) => !given.includes(name));
  return Object.fromEntries(Object.entries(settings).filter(([name]) => !silent.includes(name)));
}

async function loadDraft(folder) {
  if (!folder) return;
  keptRecipe = null;
  try {
    const settings = named(await get(`/api/config?name=${encodeURIComponent(draftName(folder))}`));
    const late = Object.entries(settings).filter(([name]) => !typed.has(name));
    if (folder === field.value.trim()) {
      fill(Object.fromEntries(late));
      keptRecipe = settings.recipe;
    }
    chosen = true;
  } catch (error) {
    if (error.status === 0) complain(error); // no draft: what stands in the form stays
  }
}

function leave() {
  keepDraft.cancel();
  if (!unsaved || opening || !project.name) return;
  const body = JSON.stringify({ settings: values(), name: draftName() });
  fetch("/api/config", {
    method: "PUT",
    keepalive: true,
    headers: { "Content-Type": "application/json" },
    body,
  });
}

let chosen = false; // the form holds what somebody chose: nothing is suggested any more
let unsaved = false;
let keptRecipe = null; // the recipe that the folder's draft names, null when there is no draft
let opening = 0; // folders being opened: the form is not yet theirs, and not kept
const typed = new Set(); // fields changed since the folder was opened: a draft that comes late leaves them

// -- YAML -----------------------------------------------------------------------------------------

async function saveConfig() {
  try {
    const answer = await put("/api/config", { settings: values() });
    toast(`Saved as ${answer.saved}.`);
  } catch (error) {
    showErrors(error.problems, { all: true });
    complain(error);
  }
}

/** Load saved settings, the last ones without a name, into the form; nothing is started. */
export async function loadConfig(name = "") {
  try {
    const query = name ? `?name=${encodeURIComponent(name)}` : "";
    const file = await get(`/api/config${query}`);
    const [settings, problems] = [named(file), file.problems];
    if (settings.output_dir && settings.output_dir !== project.name) await switchFolder(settings.output_dir);
    fill(settings);
    followedName = project.name;
    formChanged();
    showErrors(problems, { all: true });
    const loaded = name ? `“${name}” is loaded` : "The last configuration is loaded";
    const odd = problems.map((problem) => problem.error).join(" ");
    if (odd) complain({ message: `${loaded}, except for: ${odd}` });
    else toast(`${loaded}.`);
  } catch (error) {
    complain(error);
  }
}

// -- errors at their fields ---------------------------------------------------------------------------

/** The label of a setting, for sentences. */
export const labelOf = (name) =>
  find(`label[for="${CSS.escape(name)}"], [data-field="${CSS.escape(name)}"] label`)?.textContent.trim() ??
  name;

/** Show each problem at its field: those of fields the person has been at, or `all`. */
export function showErrors(problems, { all = false } = {}) {
  for (const [name, control] of controls) {
    const mine = problems.filter((problem) => problem.field === name);
    const shownNow = mine.length > 0 && (all || touched.has(name));
    const lines = mine.map(({ error, hint }) => [error, hint].filter(Boolean).join(" "));
    const box = find(`#${CSS.escape(name)}-error`);
    box.hidden = !shownNow;
    say(box, shownNow ? lines.join("\n") : "");
    if (shownNow) control.setAttribute("aria-invalid", "true");
    else control.removeAttribute("aria-invalid");
  }
  drawFolder();
}

/** Show every field's errors from now on, as after a press on Start. */
export const touchAll = () => controls.forEach((_, name) => touched.add(name));

/** Bring the keyboard to a field, opening what it is hidden in. */
export function goTo(name) {
  const control = controls.get(name);
  if (!control) return false;
  control.closest("details")?.setAttribute("open", "");
  control.focus();
  control.scrollIntoView({ block: "center" });
  return true;
}

// -- preview of the commands ----------------------------------------------------------------------------

/** Draw the commands of the check's stages. */
export function drawCommands(stages) {
  find("[data-preview-empty]").hidden = stages.length > 0;
  const list = find("[data-commands]");
  const same = list.childElementCount === stages.length;
  const key = (stage, row) => find("pre", row).textContent === stage.command &&
    (find("p", row)?.textContent ?? "") === (stage.note ? noteOf(stage) : "");
  if (same && stages.every((stage, i) => key(stage, list.children[i]))) return;
  list.replaceChildren(...stages.map(commandRow));
}

function commandRow(stage, index) {
  const copy = el("button", {
    type: "button",
    className: "button button-small button-bare",
    textContent: "Copy",
  });
  copy.append(
    el("span", { className: "visually-hidden", textContent: ` the command of ${stage.title ?? stage.name}` }),
  );
  copy.addEventListener("click", async () => {
    toast((await copyText(stage.command)) ? "Command copied." : "The browser did not allow copying.");
  });
  const title = el("h3", { className: "small", textContent: `${index + 1}. ${stage.title ?? stage.name}` });
  const head = el("div", { className: "command-head" }, title, copy);
  const note = stage.note && el("p", { className: "small quiet", textContent: noteOf(stage) });
  const command = el("pre", { tabIndex: 0 }, ...optionsOf(stage.command));
  return el("li", { className: "command", data: { skipped: stage.skipped } }, head, note, command);
}

const noteOf = ({ skipped, note }) =>
  `${skipped ? "Skipped: " : ""}${skipped ? note : note[0].toUpperCase() + note.slice(1)}.`;

/** A command in pieces that stay together where lines break: each option with its value. */
function optionsOf(command) {
  return command.split(/(?= --)/).map((text) => el("span", { textContent: text }));
}

// -- wiring -----------------------------------------------------------------------------------------------

const readWords = debounced(() => {
  if (useWords(words()) && project.exists) readProject().catch(complain);
}, WORDS_MS);

function formChanged() {
  unsaved = true;
  say(draftMark, "");
  keepDraft();
  readWords();
  document.dispatchEvent(new CustomEvent("settings:changed"));
}

function changed(event) {
  const { name } = event.target;
  if (!controls.has(name)) return;
  typed.add(name);
  if (STRENGTH.includes(name)) drawStrength(values());
  if (name === "vram_profile") profileChanged();
  if (name === "advanced_flags") flagsChanged();
  if (name === "output_name") drawFinalFile();
  if (name === "output_dir")
    folderTyped(); // opening it does the rest
  else formChanged();
}

function toggleHelp(event) {
  const button = event.target.closest("[data-opens]");
  if (!button) return;
  const help = find(`#${CSS.escape(button.dataset.opens)}`);
  help.hidden = !help.hidden;
  button.setAttribute("aria-expanded", String(!help.hidden));
}

function watchForm() {
  document.addEventListener("input", changed);
  document.addEventListener(
    "change",
    (event) => controls.has(event.target.name) && touched.add(event.target.name),
  );
  document.addEventListener("click", toggleHelp);
  form.addEventListener("submit", (event) => event.preventDefault()); // Enter in a field starts nothing
  field.addEventListener("change", () => openLater.flush());
  find("[data-flags-reset]").addEventListener("click", () => {
    flags.value = profileFlags();
    flagsChanged();
    formChanged();
    flags.focus();
  });
  find("[data-save-config]").addEventListener("click", saveConfig);
  find("[data-more-configs]").addEventListener("click", () =>
    import("./configs.js").then(({ openConfigs }) => openConfigs()).catch(complain),
  );
  find("[data-load-config]").addEventListener("click", () => loadConfig());
  find("[data-open-folder]").addEventListener("change", async (event) => {
    const name = event.target.value;
    event.target.value = "";
    if (name) await switchFolder(name).catch(complain);
  });
  window.addEventListener("pagehide", leave);
}

/** Wire the form up, before anything is known: it can be typed into from the first moment. */
export function wireSettings() {
  watchForm();
  for (const type of ["project:opened", "project:read", "project:created"])
    document.addEventListener(type, drawFolder);
  document.addEventListener("project:created", () => {
    refreshFolders().catch(complain);
    keepDraft();
  });
  document.addEventListener("images:changed", () => refreshFolders().catch(() => {}));
  flags.value = profileFlags();
  knownProfileFlags = profileFlags();
  drawStrength(values());
  if (field.value !== field.defaultValue) folderTyped(); // typed before this script ran
  for (const [name, control] of controls) if (differs(control)) typed.add(name);
}

/** Whether a text or a tick was changed since the page was made. */
function differs(control) {
  if (control === flags) return false;
  if (control.type === "checkbox") return control.checked !== control.defaultChecked;
  return "defaultValue" in control && control.value !== control.defaultValue;
}

/** Begin with the profile of the card that was found, where nobody has chosen one; as in /api/state. */
export function suggestProfile(suggested) {
  if (!suggested || chosen || typed.has("vram_profile")) return;
  const { vram_profile } = suggested;
  if (profile.value === vram_profile) return;
  fill({ vram_profile });
  document.dispatchEvent(new CustomEvent("settings:changed"));
}

/** Open the first folder: what was typed meanwhile, else `name`, else the default; `projects` as in /api/state. */
export async function startSettings(projects, name) {
  drawFolders(projects);
  drawFinalFile();
  openLater.cancel();
  const typed = field.value.trim() === field.defaultValue ? "" : field.value.trim();
  const first = typed || name || field.defaultValue;
  await switchFolder(first, { isNew: !projects.some((one) => one.name === first) });
}
