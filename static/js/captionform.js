/** How captions are made: model, length, detail level, instruction. What a person chose is kept by the browser. */

import { debounced, el, findAll, say, stored } from "./dom.js";

const KEPT = "musubitlx:captioner";
const STEP = 8; // tokens from one place of the slider to the next; any number can be typed
const KEEP_MS = 250;

let offer = null; // as of /api/captioners
let changed = () => {};
let kept = recall(); // {model, max_tokens, detail, instruction}: what is missing is at its default

const models = el("fieldset", { className: "cap-models" }, el("legend", { textContent: "Model" }));
const slider = el("input", { type: "range", step: STEP, "aria-label": "Caption length, as a slider" });
const tokens = el("input", { type: "number", className: "input", id: "caption-tokens", required: true });
const lengthBack = el("button", { type: "button", className: "button button-small button-bare" });
const lengthWrong = el("p", { className: "field-error", id: "caption-tokens-error" });
const detail = el("input", { type: "range", id: "caption-detail", step: 1 });
const detailName = el("output", { className: "small numbers", htmlFor: "caption-detail" });
const instruction = el("textarea", { className: "input", id: "caption-instruction", rows: 4, maxLength: 2000 });
const instructionBack = el("button", { type: "button", className: "button button-small button-bare", textContent: "Default" });
instructionBack.append(el("span", { className: "visually-hidden", textContent: " instruction" }));

const field = (label, id, ...content) =>
  el("div", { className: "field" }, el("div", { className: "field-head" }, el("label", { htmlFor: id, textContent: label })), ...content);

const length = field(
  "Caption length",
  "caption-tokens",
  el("div", { className: "cap-line" }, slider, tokens, el("span", { className: "small", textContent: "tokens" }), lengthBack),
  lengthWrong,
  el("p", { className: "field-help", textContent: "The most a caption may have; four words take about five tokens." }),
);
const detailField = field("Detail level", "caption-detail", el("div", { className: "cap-line" }, detail, detailName));
const instructionField = field("Instruction", "caption-instruction", instruction);
instructionField.firstElementChild.append(instructionBack);

/** The fields, for the models the server offers; `onChange` is called when something is another than before. */
export function buildForm(offered, onChange) {
  [offer, changed] = [offered, onChange];
  if (!offer.models.some(({ id }) => id === kept.model)) kept.model = offer.models[0].id;
  models.append(...offer.models.map(modelCard));
  for (const node of [slider, tokens]) Object.assign(node, { min: offer.tokens[0], max: offer.tokens[1] });
  Object.assign(detail, { min: offer.details[0].level, max: offer.details.at(-1).level });
  tokens.setAttribute("aria-describedby", lengthWrong.id);
  wire();
  draw();
  return el("div", { className: "cap-part" }, models, length, detailField, instructionField);
}

/** What is asked of the model, as it is posted: {model, max_tokens, …}. */
export function howMade() {
  const { id, detail: detailed, instruction: instructed } = model();
  return {
    model: id,
    max_tokens: Number(tokens.value),
    ...(detailed ? { detail: Number(detail.value) } : {}),
    ...(instructed ? { instruction: instruction.value.trim() || offer.instruction } : {}),
  };
}

/** What is wrong with the fields, as the server would say it, or null. */
export function formProblem() {
  const [low, high] = offer.tokens;
  const number = Number(tokens.value);
  if (/^\d+$/.test(tokens.value) && number >= low && number <= high) return null;
  return { error: `Caption length: enter a whole number from ${low} to ${high} tokens.`, field: "max_tokens" };
}

/** Mark the field a problem is about. */
export function markFields(names) {
  const mark = (node, name) => (names.includes(name) ? node.setAttribute("aria-invalid", "true") : node.removeAttribute("aria-invalid"));
  mark(tokens, "max_tokens");
  mark(instruction, "instruction");
}

/** The model that is chosen, as it is offered. */
export const model = () => offer.models.find(({ id }) => id === kept.model);

function modelCard({ id, label, short, note }) {
  const radio = el("input", { type: "radio", name: "caption-model", value: id });
  radio.setAttribute("aria-labelledby", `caption-${id}`);
  radio.setAttribute("aria-describedby", `caption-${id}-short caption-${id}-note`);
  return el(
    "label",
    { className: "cap-model" },
    radio,
    el("strong", { id: `caption-${id}`, textContent: label }),
    el("span", { id: `caption-${id}-short`, className: "small", textContent: short }),
    el("span", { id: `caption-${id}-note`, className: "small quiet cap-note", textContent: note }),
  );
}

function wire() {
  models.addEventListener("change", ({ target }) => choose({ model: target.value }));
  slider.addEventListener("input", () => choose({ max_tokens: Number(slider.value) }));
  tokens.addEventListener("input", () => {
    if (!formProblem()) kept.max_tokens = Number(tokens.value);
    slider.value = tokens.value;
    choose({}, tokens);
  });
  lengthBack.addEventListener("click", () => {
    choose({ max_tokens: undefined });
    tokens.focus(); // the button goes
  });
  detail.addEventListener("input", () => choose({ detail: Number(detail.value) }));
  instruction.addEventListener("input", () => {
    const text = instruction.value.trim();
    choose({ instruction: text && text !== offer.instruction ? instruction.value : undefined }, instruction);
  });
  instructionBack.addEventListener("click", () => {
    choose({ instruction: undefined });
    instruction.focus();
  });
}

/** Take a choice; `typing`: the field somebody is in, whose text stays as it is. */
function choose(choice, typing = null) {
  Object.assign(kept, choice);
  keepLater();
  draw(typing);
  changed();
}

function draw(typing = null) {
  const { max_tokens: usual, detail: detailed, instruction: instructed } = model();
  for (const radio of findAll("input", models)) radio.checked = radio.value === kept.model;
  if (typing !== tokens) tokens.value = slider.value = kept.max_tokens ?? usual;
  say(lengthWrong, formProblem()?.error ?? "");
  lengthWrong.hidden = !formProblem();
  lengthBack.hidden = tokens.value === String(usual);
  say(lengthBack, `Default (${usual})`);
  detailField.hidden = !detailed;
  detail.value = kept.detail ?? 3;
  const name = offer.details.find(({ level }) => level === Number(detail.value))?.label ?? "";
  say(detailName, `${detail.value}: ${name}`);
  detail.setAttribute("aria-valuetext", detailName.textContent);
  instructionField.hidden = !instructed;
  if (typing !== instruction) instruction.value = kept.instruction ?? offer.instruction;
  instructionBack.hidden = kept.instruction === undefined && instruction.value === offer.instruction;
}

// -- kept by the browser ----------------------------------------------------------------------------

function recall() {
  try {
    const found = JSON.parse(stored(KEPT) || "{}");
    const whole = (value) => (Number.isInteger(value) ? value : undefined);
    const text = (value) => (typeof value === "string" ? value : undefined);
    return { model: text(found.model), max_tokens: whole(found.max_tokens), detail: whole(found.detail), instruction: text(found.instruction) };
  } catch {
    return {};
  }
}

const keepLater = debounced(() => {
  try {
    localStorage.setItem(KEPT, JSON.stringify(kept));
  } catch {
    // Then it holds for as long as this page.
  }
}, KEEP_MS);
