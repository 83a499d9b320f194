/** Which part of its axis a chart shows: zoom and pan. Draws nothing. */

const LEAST_STEPS = 4; // that one can zoom in to

export class View {
  /** `lines()` are the Series, the first one counts; `by()` the axis; `changed()` is called after each change. */
  constructor({ lines, by, changed }) {
    Object.assign(this, { lines, by, changed });
    this.range = null; // [from, to] of the axis, null: all
  }

  /** What is shown, in numbers. */
  get now() {
    return this.range ?? this.all;
  }

  /** The two ends of the axis with all runs in full; by steps a run under way has those to come. */
  get all() {
    const by = this.by();
    const ends = this.lines().flatMap((line) => {
      const places = line.along(line.whole, by);
      const planned = by === "step" && !line.over ? [line.job.progress?.total ?? 0] : [];
      return places.length ? [places[0], places.at(-1), ...planned] : [];
    });
    const low = by === "step" ? Math.min(1, ...ends) : 0;
    const high = Math.max(...ends, low);
    return [low, high > low ? high : low + 1];
  }

  /** A few steps of the first run, in units of the axis. */
  get least() {
    const [line] = this.lines();
    if (this.by() === "step" || !line?.whole.step.length) return LEAST_STEPS;
    const places = line.along(line.whole, this.by());
    return ((places.at(-1) - places[0]) * LEAST_STEPS) / Math.max(LEAST_STEPS, line.whole.step.at(-1));
  }

  /** Show a part of the axis, or with null all of it. */
  show(range) {
    const [low, high] = this.all;
    if (range) {
      const least = Math.min(high - low, this.least);
      let [from, to] = [Math.min(...range), Math.max(...range)];
      if (to - from < least) [from, to] = [(from + to - least) / 2, (from + to + least) / 2];
      if (from < low) [from, to] = [low, Math.min(high, to + low - from)];
      if (to > high) [from, to] = [Math.max(low, from - (to - high)), high];
      range = from <= low && to >= high ? null : [from, to];
    }
    this.range = range;
    this.changed();
  }

  /** Show `factor` times as much; what lies at `middle` stays there. */
  zoom(factor, middle = null) {
    const [from, to] = this.now;
    const still = Math.min(to, Math.max(from, middle ?? (from + to) / 2));
    this.show([still - (still - from) * factor, still + (to - still) * factor]);
  }

  /** Move by a share of what is shown. */
  pan(share) {
    if (!this.range) return;
    const [from, to] = this.range;
    this.show([from + share * (to - from), to + share * (to - from)]);
  }

  /** Move just so far that a place is shown. */
  keepIn(place) {
    if (!this.range) return;
    const [from, to] = this.range;
    if (place < from) this.show([place, place + to - from]);
    else if (place > to) this.show([place - (to - from), place]);
  }
}
