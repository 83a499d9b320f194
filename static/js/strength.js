/** The learning rate in its other notation, and the effective strength it has with rank and dims. */

import { find, say } from "./dom.js";

/** The settings it depends on. */
export const STRENGTH = ["learning_rate", "lora_rank", "lora_dims"];

/** From which strength on -> what it is. Sources of the bounds: configs/recipes/. */
const WORDS = [
  [6e-4, "very strong, most runs are spoilt by it; usual is 3e-5 to 2e-4", "warn"],
  [2.02e-4, "strong, for short runs of some hundred steps; usual is 3e-5 to 2e-4", "quiet"],
  [3e-5, "in the usual range of 3e-5 to 2e-4", "quiet"],
  [0, "gentle, needs many steps; usual is 3e-5 to 2e-4", "quiet"],
];

const short = (number) => Number(number.toPrecision(3)).toExponential().replace("e-0", "e-");
const long = (number) => Number(number.toPrecision(6)).toFixed(12).replace(/\.?0+$/, "");

/** Draw both lines for settings as they stand in the form. */
export function drawStrength(settings) {
  const [rate, rank, dims] = STRENGTH.map((name) => Number(settings[name]));
  const typed = String(settings.learning_rate).trim();
  const other = /e/i.test(typed) ? long(rate) : short(rate);
  say(find("[data-other-rate]"), rate > 0 && rate <= 1 ? `${typed} = ${other}` : "");
  const strength = (dims / rank) * rate;
  const box = find("[data-strength]");
  if (!(strength > 0 && Number.isFinite(strength))) {
    say(box, "");
    return;
  }
  const [, words, tone] = WORDS.find(([from]) => strength >= from * 0.999);
  box.dataset.tone = tone;
  say(box, `Effective strength: ${dims} / ${rank} × ${typed} = ${short(strength)}, ${words}.`);
}
