/** Runs in words: what their rows, dialogs and searches share. */

import { STATES, TONES, count, duration, when } from "./format.js";
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

/** What the loss of a run is called: one that is under way, or did not come to its end, has none that is final. */
export const lossName = (run) => (run.state === "succeeded" ? "Final loss" : "Last loss");

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

/** The same as nodes: lines break between the pieces, never in a number. A dash where there is none. */
export function settingsWords(run) {
  const pieces = keySettings(run);
  const whole = (text) => el("span", { className: "whole", textContent: text });
  if (!pieces.length) return ["–"];
  return [...pieces.slice(0, -1).flatMap((piece) => [whole(`${piece} ·`), " "]), whole(pieces.at(-1))];
}

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

const NAMED = 5; // so many runs are named before a deletion

/** The question before runs are deleted, in words: {title, text}. */
export function deletion(runs) {
  if (runs.length === 1 && runs[0].kind === "caption")
    return {
      title: `Delete “${runs[0].name ?? runs[0].title}” from the list?`,
      text: "The run goes from this list, with its notes. The captions it wrote, images and log file stay in the folder.",
    };
  if (runs.length === 1)
    return {
      title: `Delete “${runs[0].name}” from the list?`,
      text: "The run goes from this list, with its settings, notes and loss curve. Its LoRA, samples, log file, images and captions stay in the folder.",
    };
  return {
    title: `Delete ${count(runs.length, "run")} from the list?`,
    text: `${listed(runs)} go from this list, with their settings, notes and loss curves. Their LoRAs, samples, log files, images and captions stay in their folders.`,
  };
}

/** “a”, “b” and 4 more; of several by one name each with its moment. */
function listed(runs) {
  const alike = (run) => runs.filter((one) => one.name === run.name).length > 1;
  const names = runs.map((run) => `“${run.name}”${alike(run) ? ` (${when(run.started ?? run.created)})` : ""}`);
  const last = names.length > NAMED ? `${names.length - NAMED} more` : names.pop();
  return `${names.slice(0, NAMED).join(", ")} and ${last}`;
}
