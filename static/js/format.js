/** Numbers as people read them, each with its unit. */

const STEPS = ["B", "KB", "MB", "GB", "TB"];

/** The size of a file with a unit that keeps the number short: 1.4 MB. Steps of 1000, as on disks. */
export function bytes(count) {
  if (count === null || count === undefined) return "–";
  let value = count;
  let step = 0;
  while (value >= 999.5 && step < STEPS.length - 1) {
    value /= 1000;
    step += 1;
  }
  return `${step > 1 && value < 10 ? value.toFixed(1) : Math.round(value)} ${STEPS[step]}`;
}

/** Memory in GB of 1024³, as memory is sold, without the unit: for "10.2 / 24.0 GB". */
export const gigabytes = (count) => (count / 1024 ** 3).toFixed(1);

/** Seconds as "12 s", "3 min 05 s" or "2 h 10 min"; a dash when unknown. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–";
  const whole = Math.max(0, Math.round(seconds));
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  const pad = (value) => String(value).padStart(2, "0");
  if (hours) return `${hours} h ${pad(minutes)} min`;
  if (minutes) return `${minutes} min ${pad(whole % 60)} s`;
  return `${whole} s`;
}

/** A loss with three significant digits. */
export function loss(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return value >= 0.001 || value === 0 ? Number(value.toPrecision(3)).toString() : value.toExponential(1);
}

/** Speed of a progress as seconds per step or image, or the other way round where those are fast; of a download MB/s. */
export function speed({ seconds_per_step: each, per_s, unit }) {
  if (per_s) return `${bytes(per_s)}/s`;
  if (!each) return "–";
  const one = unit ?? "step";
  return each >= 1 ? `${each.toFixed(1)} s/${one}` : `${(1 / each).toFixed(1)} ${one}s/s`;
}

/** How far a progress is: 3 / 40, of a download 812 MB / 1.9 GB. */
export const far = ({ step, total, unit }, of = " / ") =>
  [step ?? 0, total].map(unit === "B" ? bytes : String).join(of);

/** A count with its noun: 1 image, 2 images. */
export const count = (number, noun, nouns = `${noun}s`) =>
  `${number.toLocaleString("en")} ${number === 1 ? noun : nouns}`;

/** Seconds since the epoch as local date and time. */
export function when(seconds) {
  if (!seconds) return "–";
  return new Date(seconds * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

/** What a person calls the states of a job. */
export const STATES = {
  queued: "Waiting",
  running: "Running",
  succeeded: "Completed",
  failed: "Failed",
  stopped: "Stopped",
  interrupted: "Interrupted",
};

/** The tone of each state of a job, as the tags are coloured. */
export const TONES = {
  queued: "quiet",
  running: "accent",
  succeeded: "good",
  failed: "danger",
  stopped: "quiet",
  interrupted: "warn",
};
