/** The three model files. Markup: <section data-models> with one [data-model] for each. */

import { at, get, put } from "./api.js";
import { el, find, findAll, say } from "./dom.js";
import { bytes } from "./format.js";

const section = find("[data-models]");
const practice = find("#main").dataset.practice === "yes";

function draw(model) {
  const row = find(`[data-model="${CSS.escape(model.id)}"]`, section);
  if (!row) return;
  const state = find("[data-model-state]", row);
  const ready = model.whole && !model.problem;
  say(find("[data-model-label]", row), model.label);
  state.dataset.tone = ready ? "good" : practice ? "quiet" : model.path ? "danger" : "warn";
  say(state, ready ? "found" : model.path ? "not usable" : "missing");
  const where = model.path ? `${model.path} · ${bytes(model.bytes)}` : model.filename;
  say(find("[data-model-where]", row), where);
  drawProblem(find("[data-model-problem]", row), model);
  const field = find("input", row);
  if (document.activeElement !== field) field.value = model.path ?? "";
}

/** What is wrong with a file; where none is, the way to get it in place of a long address. */
function drawProblem(line, model) {
  line.hidden = !model.problem;
  if (model.path || !model.source) {
    say(line, [model.problem, model.hint].filter(Boolean).join(" "));
    return;
  }
  const text = `Download it (${bytes(model.expected_bytes)})`;
  const link = el("a", {
    href: model.source,
    target: "_blank",
    rel: "noopener noreferrer",
    textContent: text,
  });
  line.replaceChildren(link, " into the home folder, or set its path if you have it elsewhere.");
}

function drawAll(models) {
  models.forEach(draw);
  const missing = models.filter((model) => !model.whole || model.problem);
  const summary = find("[data-models-summary]", section);
  const ready = missing.length === 0;
  summary.dataset.tone = ready ? "good" : practice ? "quiet" : "warn";
  if (ready) say(summary, "all three found");
  else say(summary, practice ? "not needed for practice" : `${missing.length} of ${models.length} to do`);
}

async function usePath(event, row) {
  event.preventDefault();
  const field = find("input", row);
  const error = find("[data-model-error]", row);
  try {
    await put(at("models", row.dataset.model), { path: field.value.trim() });
    error.hidden = true;
    field.removeAttribute("aria-invalid");
    drawAll((await get("/api/models")).models);
    document.dispatchEvent(new CustomEvent("models:changed"));
  } catch (problem) {
    error.hidden = false;
    say(error, problem.whole);
    field.setAttribute("aria-invalid", "true");
    field.focus();
  }
}

/** Wire the section up; `models` as in /api/state. */
export function startModels(models) {
  drawAll(models);
  for (const row of findAll("[data-model]", section)) {
    find("form", row).addEventListener("submit", (event) => usePath(event, row));
  }
}
