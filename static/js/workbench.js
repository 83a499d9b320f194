/**
 * The caption workbench: which images are shown, and steps over all of those at once. What a step would do is
 * worked out by the server and shown before; the last one can be taken back. Markup: <div data-workbench>.
 */

import { at, post } from "./api.js";
import { complain, toast } from "./dialogs.js";
import { announce, debounced, el, find, findAll, say } from "./dom.js";
import { count } from "./format.js";
import { allCards, changedImages, settleCaptions } from "./images.js";
import { project } from "./project.js";

const TYPING_MS = 250;
const HITS_SHOWN = 100;

const bench = find("[data-workbench]");
const show = find("[data-show]", bench);
const search = find("[data-search]", bench);
const words = find("[data-words]", bench);
const panel = find("[data-edit-panel]", bench);
const form = find("form", panel);

let named = null; // {title, names}: the images a finding is about
let preview = null; // {edit, names, changes, seen}: what the button would do
let asked = 0; // counts previews, so that a late one is dropped

// -- which images are shown -----------------------------------------------------------------------

const wordsOf = (text) => text.trim().split(/\s+/).filter(Boolean).length;

const KINDS = {
  all: () => true,
  empty: (card) => !card.text.trim(),
  captioned: (card) => Boolean(card.text.trim()),
  untriggered: (card) => !card.image.has_trigger,
  short: (card) => wordsOf(card.text) < Number(words.value || 0),
  named: (card) => Boolean(named?.names.has(card.name)),
};

/** Whether anything is left out. */
const filtered = () => show.value !== "all" || search.value.trim() !== "";

function fits(card) {
  const wanted = search.value.trim().toLowerCase();
  const found = !wanted || `${card.text}\n${card.name}`.toLowerCase().includes(wanted);
  return found && KINDS[show.value](card);
}

/** Show what the filter lets through. A card that is being written in stays, so that it does not vanish. */
function filter() {
  find("[data-words-box]", bench).hidden = show.value !== "short";
  const cards = allCards();
  for (const card of cards) {
    const hidden = !fits(card) && !card.node.contains(document.activeElement);
    if (card.node.hidden !== hidden) card.node.hidden = hidden;
  }
  const left = cards.filter((card) => !card.node.hidden).length;
  bench.hidden = cards.length === 0;
  say(find("[data-shown]", bench), filtered() ? `${left} of ${count(cards.length, "image")} shown` : "");
  find("[data-show-all]", bench).hidden = !filtered();
  find("[data-none-shown]").hidden = left > 0 || cards.length === 0;
  find("[data-untriggered]", show).disabled = !find("#trigger_word").value.trim();
}

const filterLater = debounced(filter, TYPING_MS);

function showAll() {
  show.value = "all";
  search.value = "";
  named = null;
  find("[data-named]", show).hidden = true;
  filter();
  previewLater();
}

/** Show just these images, which `title` describes. */
export function showOnly(names, title) {
  named = { names: new Set(names), title };
  const option = find("[data-named]", show);
  option.hidden = false;
  say(option, title);
  search.value = "";
  show.value = "named";
  filter();
  previewLater();
  show.focus();
}

// -- a step over all that are shown -----------------------------------------------------------------

/** The step as the form says it, or null while something is missing. */
function step() {
  const data = new FormData(form);
  const kind = data.get("kind");
  const text = data.get("text");
  if (kind === "replace" && !data.get("find")) return null;
  if (kind !== "replace" && !text.trim()) return null;
  const ticked = (name) => data.has(name);
  return {
    kind,
    text,
    find: data.get("find"),
    match_case: ticked("match_case"),
    whole_words: ticked("whole_words"),
    also_empty: ticked("also_empty"),
  };
}

/** The names of the images shown, which a step applies to; null: all. */
export const targets = () => (filtered() ? allCards().filter((card) => !card.node.hidden).map((card) => card.name) : null);

function drawPanel() {
  const replacing = form.elements.kind.value === "replace";
  for (const part of findAll("[data-for]", form)) part.hidden = (part.dataset.for === "replace") !== replacing;
  say(find("[data-text-label]", form), replacing ? "Replace with" : "Text to add");
}

async function drawPreview() {
  if (panel.hidden) return;
  drawPanel();
  const turn = (asked += 1);
  const edit = step();
  const names = targets();
  if (!edit || names?.length === 0) return drawHits(null);
  try {
    await settleCaptions();
    const answer = await ask({ edit, names, preview: true });
    if (turn === asked) drawHits({ ...answer, edit, names });
  } catch (error) {
    if (turn === asked) drawHits(null, error.whole ?? error.message);
  }
}

const previewLater = debounced(drawPreview, TYPING_MS);

const ask = (body) => post(at("projects", project.name, "captions", "edit"), body);

function drawHits(answer, problem = "") {
  preview = answer;
  const changes = answer?.changes ?? [];
  const button = find("[data-apply]", form);
  button.disabled = changes.length === 0;
  say(button, changes.length ? `Change ${count(changes.length, "caption")}` : "Nothing to change");
  const rest = changes.length - HITS_SHOWN;
  find("[data-hits]", panel).replaceChildren(
    ...changes.slice(0, HITS_SHOWN).map(hitRow),
    ...(rest > 0 ? [el("li", { className: "quiet", textContent: `and ${rest} more` })] : []),
  );
  const scope = filtered() ? "the images shown" : "all images";
  say(find("[data-hits-text]", panel), problem || (answer ? `${hitsText(changes)} among ${scope}.` : ""));
}

const hitsText = (changes) => (changes.length ? `${count(changes.length, "caption")} would change` : "No caption would change");

/** One caption before and after, with what is taken out and put in marked. */
function hitRow({ name, before, after, spans }) {
  const old = el("p", { className: "hit-before" });
  const signs = [...before]; // spans count signs, also those of two units
  const part = (begin, end) => signs.slice(begin, end).join("");
  let from = 0;
  for (const [begin, end] of spans) {
    old.append(part(from, begin), el("del", { textContent: part(begin, end) }));
    from = end;
  }
  old.append(part(from));
  return el(
    "li",
    { className: "hit" },
    el("p", { className: "quiet mono", textContent: name }),
    ...(before ? [old] : []),
    el("p", { className: "hit-after" }, ...marked(before, after)),
  );
}

/** A text with what is new at its beginning or end marked. */
function marked(before, after) {
  if (before && after.endsWith(before))
    return [el("ins", { textContent: after.slice(0, -before.length) }), before];
  if (before && after.startsWith(before)) return [before, el("ins", { textContent: after.slice(before.length) })];
  return [after || "(empty)"];
}

async function apply(event) {
  event.preventDefault();
  if (!preview?.changes.length) return;
  const { edit, names, seen } = preview;
  const folder = project.name;
  find("[data-apply]", form).disabled = true;
  try {
    await settleCaptions();
    const { changed, left, last_edit } = await ask({ edit, names, seen });
    await changedImages();
    const kept = left.length ? ` ${count(left.length, "caption")} edited meanwhile stayed as they are.` : "";
    const again = () => undo(folder, last_edit?.at);
    toast(`${count(changed.length, "caption")} changed.${kept}`, { undo: again, stays_ms: 10_000 });
  } catch (error) {
    complain(error);
  }
  previewLater();
}

/** Take the last step of a folder back; `at` names which one is meant. */
export async function undo(folder, at_s) {
  try {
    await settleCaptions();
    const { restored, left } = await post(at("projects", folder, "captions", "undo"), { at: at_s });
    announce("captions:undone");
    await changedImages();
    const kept = left.length ? ` ${count(left.length, "caption")} edited since stayed as they are.` : "";
    toast(`${count(restored.length, "caption")} as before.${kept}`);
  } catch (error) {
    complain(error);
  }
  previewLater();
}

function drawUndo() {
  const last = project.data?.last_edit;
  const button = find("[data-undo]", bench);
  button.hidden = !last;
  if (!last) return;
  button.title = `${last.title}: ${count(last.count, "caption")}`;
  button.setAttribute("aria-label", `Undo last step: ${button.title}`);
}

function togglePanel() {
  panel.hidden = !panel.hidden;
  find("[data-edit]", bench).setAttribute("aria-expanded", String(!panel.hidden));
  if (panel.hidden) return;
  drawPanel();
  previewLater();
  find("input:not([type=radio])", form).focus();
}

/** Wire the workbench up. */
export function startWorkbench() {
  for (const control of [search, words]) control.addEventListener("input", () => (filterLater(), previewLater()));
  show.addEventListener("change", () => (filter(), previewLater()));
  find("[data-show-all]", bench).addEventListener("click", () => (showAll(), search.focus()));
  find("[data-edit]", bench).addEventListener("click", togglePanel);
  find("[data-undo]", bench).addEventListener("click", async () => {
    await undo(project.name, project.data?.last_edit?.at);
    if (find("[data-undo]", bench).hidden) find("[data-edit]", bench).focus();
  });
  find("[data-caption]", bench).addEventListener("click", () =>
    import("./captioner.js").then(({ openCaptioner }) => openCaptioner()).catch(complain),
  );
  form.addEventListener("input", previewLater);
  form.addEventListener("submit", apply);
  find("[data-edit-close]", panel).addEventListener("click", () => (togglePanel(), find("[data-edit]", bench).focus()));
  panel.addEventListener("keydown", (event) => event.key === "Escape" && (togglePanel(), find("[data-edit]", bench).focus()));
  document.addEventListener("images:shown", () => (bench.hidden = allCards().length === 0));
  document.addEventListener("images:drawn", () => (filter(), drawUndo(), previewLater()));
  document.addEventListener("captions:changed", () => (filterLater(), previewLater()));
  document.addEventListener("project:switching", showAll);
}
