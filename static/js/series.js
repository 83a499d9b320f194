/** The figures of one run as lines: fetched, thinned by the server, refined where one looks closer. */

import { at, get } from "./api.js";

const POINTS = 4000; // that is two for each pixel of a wide screen

/** The first index whose value is not below `wanted`, in values that rise. */
export function indexOf(values, wanted) {
  let [low, high] = [0, values.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The index whose value is nearest to `wanted`; -1 when there is none. */
export function nearestTo(values, wanted) {
  const after = indexOf(values, wanted);
  if (after >= values.length) return values.length - 1;
  return after > 0 && wanted - values[after - 1] <= values[after] - wanted ? after - 1 : after;
}

/**
 * Values averaged over their neighbours, nearer ones counting more: the weight falls by a factor of e every
 * `reach` steps, to both sides alike, so that the line is not shifted. Unknown values (null) count for nothing.
 */
export function averaged(steps, values, reach) {
  const there = fading(steps, values, reach, 1);
  const back = fading(steps, values, reach, -1);
  return there.map((value, i) =>
    value === null || back[i] === null ? (value ?? back[i]) : (value + back[i]) / 2,
  );
}

function fading(steps, values, reach, way) {
  const found = new Array(values.length).fill(null);
  let [sum, weight, last] = [0, 0, null];
  for (let k = 0; k < values.length; k += 1) {
    const i = way > 0 ? k : values.length - 1 - k;
    if (values[i] !== null) {
      const keep = last === null ? 0 : Math.exp(-Math.abs(steps[i] - last) / reach);
      const counts = last === null ? 1 - Math.exp(-1 / reach) : 1 - keep;
      [sum, weight, last] = [keep * sum + counts * values[i], keep * weight + counts, steps[i]];
    }
    found[i] = weight ? sum / weight : null;
  }
  return found;
}

/** One run. `whole` are the columns of all of it, `part` those of a range of steps, or null. */
export class Series {
  constructor(job) {
    this.job = job;
    this.whole = { step: [], loss: [], mean: [], time: [], epochs: [] };
    this.part = null;
    this.places = new WeakMap(); // columns -> {by: where each row lies on the axis}
  }

  get id() {
    return this.job.id;
  }

  async load() {
    this.whole = await get(`${at("jobs", this.id, "metrics")}?points=${POINTS}`);
    this.smooth = null;
  }

  /** Every step between two, as far as a chart can show them. Returns false when it came too late. */
  async look(first, last) {
    if (!this.whole.thinned) return false;
    const asked = (this.asked = `${first} ${last}`);
    const query = `points=${POINTS}&from=${first}&to=${last}`;
    const found = await get(`${at("jobs", this.id, "metrics")}?${query}`);
    if (this.asked !== asked) return false;
    this.part = found;
    return true;
  }

  /** Keep the part that was fetched only while it covers what is shown; the whole, if coarser, is there at once. */
  keepIf(range, by) {
    if (!this.part) return;
    const places = this.along(this.part, by);
    const ends = this.part.step.at(-1) === this.whole.step.at(-1);
    if (!range || places[0] > range[0] || (places.at(-1) < range[1] && !ends)) this.lookAway();
  }

  lookAway() {
    this.asked = this.part = null;
  }

  /** What is drawn: the part one looks at, if it is there. */
  get shown() {
    return this.part ?? this.whole;
  }

  /** Where each row lies on an axis of `by`: "step", "epoch" or "time" (seconds since the first step). */
  along(columns, by) {
    if (by === "step") return columns.step;
    const known = this.places.get(columns) ?? {};
    this.places.set(columns, known);
    known[by] ??=
      by === "epoch" ? columns.step.map((step) => this.epochAt(step)) : this.seconds(columns.time);
    return known[by];
  }

  seconds(times) {
    const begin = this.whole.time.find((time) => time !== null) ?? 0;
    let last = 0;
    return times.map((time) => (last = time === null ? last : Math.max(last, time - begin)));
  }

  /** How many epochs are over after a step; 1.5 is half the second one. */
  epochAt(step) {
    const begins = this.whole.epochs;
    if (!begins.length) return 0;
    let i = begins.length - 1;
    while (i > 0 && begins[i][1] > step) i -= 1;
    const [epoch, begin] = begins[i];
    const long = (begins[i + 1]?.[1] ?? begin + this.lastEpoch) - begin;
    return epoch - 1 + Math.min(1, (step - begin + 1) / long);
  }

  /** How many steps the epoch at the end has: as many as the one before, or as the run plans. */
  get lastEpoch() {
    const begins = this.whole.epochs;
    const { total, epochs } = this.job.progress ?? {};
    if (begins.length > 1) return begins.at(-1)[1] - begins.at(-2)[1];
    return total && epochs ? total / epochs : Math.max(1, this.whole.step.length);
  }

  /** The smoothed course of the whole run; `share` of it is what one value looks at, each way. */
  smoothed(share) {
    if (this.smooth?.share !== share) {
      const { step, mean } = this.whole;
      this.smooth = { share, values: averaged(step, mean, this.reach(share)) };
    }
    return this.smooth.values;
  }

  /** A share of the run in steps. */
  reach(share) {
    const { step } = this.whole;
    return Math.max(1, Math.round(share * ((step.at(-1) ?? 1) - (step[0] ?? 1) + 1)));
  }

  /** {first, last, least, leastAt}: losses worth telling; null when there are none. */
  get facts() {
    const { step, loss } = this.whole;
    if (this.told?.whole === this.whole) return this.told.facts;
    let facts = null;
    for (const [i, value] of loss.entries()) {
      if (value === null) continue;
      facts ??= { first: value, least: Infinity };
      if (value < facts.least) [facts.least, facts.leastAt] = [value, step[i]];
      facts.last = value;
    }
    this.told = { whole: this.whole, facts };
    return facts;
  }
}
