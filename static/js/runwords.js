/** Runs in words: what their rows, dialogs and searches share. */

import { STATES, TONES, count, duration } from "./format.js";
import { el } from "./dom.js";

/** The tag with a run's state. */
export const stateTag = (run) =>
  el("span", {
    className: "tag",
    textContent: run.stopping ? "Stopping" : STATES[run.state],
    data: { tone: TONES[run.state] },
  });

/** Seconds a run took, or takes so far; null for one that never began. */
export const seconds = (run) => (run.started ? (run.ended ?? Date.now() / 1000) - run.started : null);

/** Steps, epochs and loss of the training; empty for a run that did not come so far. */
export const trained = (run) => (run.training ? run.progress : {});

/** How long it took, as text. */
export const took = (run) => duration(seconds(run));

/** The key settings as short pieces of text. */
export function keySettings({ settings: s, images }) {
  return [
    s.resolution,
    s.lora_rank && `rank ${s.lora_rank}, dims ${shown(s.lora_dims)}`,
    s.learning_rate && `lr ${shown(s.learning_rate)}`,
    s.epochs && `${s.epochs} × ${s.image_repeats}${images ? ` on ${count(images, "image")}` : ""}`,
    s.batch_size > 1 && `batch ${s.batch_size}`,
    s.optimizer_type,
    s.vram_profile && `profile ${s.vram_profile}`,
  ].filter(Boolean);
}

/** The same as one text whose pieces stay whole where lines break. */
export const settingsText = (run) =>
  keySettings(run)
    .map((piece) => piece.replaceAll(" ", "\u00a0"))
    .join(" · ");

const shown = (value) =>
  typeof value === "number" && value < 0.001 ? value.toExponential().replace("e-0", "e-") : `${value ?? "–"}`;

/** The name of a run with the moment that tells it from others of that name, for readers and questions. */
export const spoken = (run) => `${run.name}${run.project && run.project !== run.name ? ` in ${run.project}` : ""}`;

/** The address of the page Train that shows a run. */
export const pageOf = (run) => {
  const query = new URLSearchParams({ ...(run.project ? { project: run.project } : {}), job: run.id });
  return `/?${query}`;
};

/** The address that fills the form with a run's settings. */
export const useOf = (run) => `/?${new URLSearchParams({ project: run.project, use: run.id })}`;

/** What a deletion removes and what it leaves, in words. */
export const DELETION =
  "The run goes from this list, with its settings, notes and loss curve. Its LoRA, samples, log file, images and captions stay in the folder.";
