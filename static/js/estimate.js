/** What a run will take: the line beside the start button, the table below it, and the note at the VRAM profile. */

import { el, find, say } from "./dom.js";
import { bytes, count, duration, gigabytes, speed } from "./format.js";
import { project } from "./project.js";

const section = find("[data-start]");
const SOURCES = {
  guess: "a guess, right to a factor of two; the first run measures it",
  measured: "measured in an earlier run here",
  "carried over": "carried over from an earlier run here of another size",
  "Musubi's table": "by Musubi’s table",
};

const CACHES = { latents: "Latents", text_encoder: "Texts" };

let card = null; // the GPU a run would use, as /api/state says

/** Say which card there is; `suggested` as in /api/state, or null. */
export function setCard(suggested) {
  card = suggested;
}

/** Draw `estimate` and the caching `stages` of a check; null when they are not known. */
export function drawEstimate(estimate, stages) {
  drawSum(estimate);
  const box = find("[data-takes]", section);
  box.hidden = !estimate?.steps;
  say(find("[data-vram-note]"), estimate ? cardLine(estimate) : "");
  if (box.hidden) return;
  const { seconds, vram, disk } = estimate;
  const parts = [`about ${duration(rounded(seconds))}`, vram && `${gb(vram)} VRAM`, `${bytes(disk.all)} on disk`];
  say(find("[data-takes-sum]", box), parts.filter(Boolean).join(" · "));
  find("[data-takes-list]", box).replaceChildren(...rows(estimate, stages).flatMap(row));
}

function drawSum(estimate) {
  const sum = find("[data-sum]", section);
  if (!estimate?.steps) {
    const missing = project.data?.images.length ? "the settings are in order" : "there are images";
    sum.replaceChildren(`Steps show here once ${missing}.`);
    return;
  }
  const { steps, steps_per_epoch, looks_per_image } = estimate;
  sum.replaceChildren(
    el("strong", { textContent: count(steps, "step") }),
    ` · ${steps_per_epoch.toLocaleString("en")} per epoch`,
    ` · each image is looked at ${count(looks_per_image, "time")}`,
  );
}

function rows({ seconds, seconds_per_step, time_source, vram, vram_source, ram, disk }, stages) {
  const files = `${count(disk.files, "file")} of ${bytes(disk.lora)}`;
  const notes = stages.filter((stage) => stage.note);
  return [
    ["Time", `about ${duration(rounded(seconds))}, at ${speed({ seconds_per_step })}`, SOURCES[time_source]],
    vram && ["VRAM", `about ${gb(vram)}`, SOURCES[vram_source]],
    ram && ["RAM", `about ${gb(ram)}`, "for swapped blocks and for loading"],
    ["LoRA", files, disk.files > 1 ? "a checkpoint after each epoch, the last one is the LoRA" : ""],
    ["Disk", `about ${bytes(disk.all)}`, disk.states ? `${bytes(disk.states)} of it training states` : ""],
    ...notes.map(({ name, note }) => [CACHES[name], note, ""]),
  ].filter(Boolean);
}

const row = ([name, value, source]) => [
  el("dt", { textContent: name }),
  el("dd", { className: "numbers" }, value, source ? el("span", { className: "quiet", textContent: ` – ${source}` }) : null),
];

function cardLine({ vram }) {
  if (!vram) return "";
  const tight = card && vram > card.vram && vram < 1.13 * card.vram ? ", and the table is on the high side" : "";
  const has = card ? ` Your ${card.gpu} has ${gb(card.vram)}${tight}.` : "";
  return `Needs about ${gb(vram)} with these settings.${has}`;
}

const gb = (count) => `${Math.round(Number(gigabytes(count)))} GB`;

/** Seconds no finer than the guess is: whole minutes from two minutes on. */
const rounded = (seconds) => (seconds < 120 ? seconds : Math.round(seconds / 60) * 60);
