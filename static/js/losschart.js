/** The large loss chart, in a dialog of its own: zoom, smoothing, further lines, several runs. Loaded at first use. */

import { at, get } from "./api.js";
import { closeOnBack } from "./back.js";
import { Hand } from "./charthand.js";
import { Legend } from "./chartlegend.js";
import { makeParts } from "./chartparts.js";
import { View } from "./chartview.js";
import { complain } from "./dialogs.js";
import { el, needStyle, say } from "./dom.js";
import { count, gigabytes, loss as shownLoss } from "./format.js";
import { drawCursor, drawPlot, drawSheet } from "./plot.js";
import { nameOf, Picker } from "./runpicker.js";
import { indexOf, nearestTo, Series } from "./series.js";

const SHARES = [0, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2]; // of the run, each way
const USUAL_SHARE = 4;
const REMEMBER = "musubitlx:loss-chart";
const AGAIN_MS = 2000; // how often a run under way is read anew
const LOOK_MS = 120; // how long a zoom rests before its details are fetched
const GB = 1024 ** 3;
const DASHES = [[], [9, 4], [14, 4, 3, 4], [3, 3], [6, 3, 2, 3, 2, 3], [18, 6]];
const LR_DASH = [5, 3];
const VRAM_DASH = [1, 3];

/** Small settings of the reader that outlive the page. */
const kept = {
  read() {
    try {
      return JSON.parse(localStorage.getItem(REMEMBER)) ?? {};
    } catch {
      return {};
    }
  },
  write(values) {
    try {
      localStorage.setItem(REMEMBER, JSON.stringify(values));
    } catch {
      // Private windows have no store: then it holds until the page is left.
    }
  },
};

class LossChart {
  constructor() {
    const { smoothing, log, by, lr, vram } = kept.read();
    this.state = {
      smoothing: Number.isInteger(smoothing) && SHARES[smoothing] !== undefined ? smoothing : USUAL_SHARE,
      log: log === true,
      by: ["step", "epoch", "time"].includes(by) ? by : "step",
      lr: lr === true,
      vram: vram === true,
    };
    this.lines = []; // Series, the run it was opened for first
    this.cursor = null; // a step of the first run
    this.view = new View({
      lines: () => this.lines,
      by: () => this.state.by,
      changed: () => this.moved(),
    });
    this.picker = new Picker({ onAdd: (job) => this.add(job), onRemove: (id) => this.take(id) });
    this.legend = new Legend({ onOut: (id) => this.take(id), fallback: () => this.plot });
    this.build();
    this.wire();
  }

  build() {
    const on = {
      toggled: (name, checked) => this.change({ [name]: checked }),
      zoomIn: () => this.hand.zoom(true),
      zoomOut: () => this.hand.zoom(false),
      whole: () => this.view.show(null),
      png: () => this.savePicture(),
    };
    const nodes = { legend: this.legend.node, picker: this.picker.node };
    Object.assign(this, makeParts({ state: this.state, shares: SHARES.length, on, ...nodes }));
    this.hand = new Hand(this.plot, {
      scales: () => this.scales,
      view: this.view,
      point: (place) => this.point(place),
      step: (by) => this.step(by),
      cursor: () => this.cursorPlace,
      redraw: () => this.redraw(),
    });
    document.body.append(this.dialog);
  }

  wire() {
    this.by.addEventListener("change", () => {
      this.view.range = null;
      for (const line of this.lines) line.lookAway();
      this.change({ by: this.by.value });
    });
    this.slider.addEventListener("input", () => this.change({ smoothing: Number(this.slider.value) }));
    new ResizeObserver(() => this.redraw()).observe(this.plot);
    document.addEventListener("theme:changed", () => this.redraw());
    this.dialog.addEventListener("close", () => clearTimeout(this.timer));
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    document.addEventListener(
      "visibilitychange",
      () => this.dialog.open && !document.hidden && this.refresh(),
    );
  }

  // -- opening, reading -------------------------------------------------------------------------

  async open(id) {
    if (this.lines[0]?.id !== id) {
      this.lines = [];
      [this.view.range, this.cursor] = [null, null];
    }
    if (!this.dialog.open) this.dialog.showModal();
    closeOnBack(this.dialog);
    this.plot.focus({ preventScroll: true });
    this.wanted = id;
    const jobs = await get("/api/jobs");
    if (this.wanted !== id) return; // another one was opened meanwhile
    const job = jobs.find((one) => one.id === id);
    if (!job) throw new Error("There is no such run any more.");
    if (!this.lines.length) this.lines = [new Series(job)];
    say(this.title, `Loss of ${nameOf(job)}`);
    this.csv.href = `${at("jobs", id, "metrics")}?format=csv`;
    this.picker.offer(
      jobs,
      job,
      this.lines.slice(1).map((line) => line.id),
    );
    await this.refresh();
  }

  /** Read the runs that are under way again, and those that were never read. */
  async refresh() {
    clearTimeout(this.timer);
    const stale = this.lines.filter((line) => !line.read || !line.over);
    const problems = await Promise.all(stale.map((line) => this.readOne(line)));
    const problem = problems.find(Boolean);
    this.problem = problem ? `${problem.whole ?? problem.message} The chart goes on once there is an answer.` : "";
    this.redraw();
    if (this.dialog.open && this.lines.some((line) => !line.over)) {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => (document.hidden ? null : this.refresh()), AGAIN_MS);
    }
  }

  /** Read one run; the error when that can't be. Of a run that was deleted what was read stays. */
  async readOne(line) {
    try {
      if (line.read) line.job = await get(at("jobs", line.id));
      const over = Boolean(line.job.ended);
      await line.load();
      [line.read, line.over] = [true, over]; // what was there when the end was known is all there is
      if (this.view.range && line.part) await this.lookCloser(line);
    } catch (error) {
      if (error.status !== 404) return error;
      line.read = line.over = line.gone = true;
    }
    return null;
  }

  /** Fetch every step of what is zoomed to. */
  async lookCloser(line) {
    const { step } = line.whole;
    const places = line.along(line.whole, this.state.by);
    const first = step[Math.max(0, indexOf(places, this.view.range[0]) - 1)];
    const last = step[Math.min(step.length - 1, indexOf(places, this.view.range[1]) + 1)];
    if (first !== undefined && (await line.look(first, last))) this.redraw();
  }

  async add(job) {
    const line = new Series(job);
    this.lines.push(line);
    await this.refresh();
    if (this.view.range) await this.lookCloser(line).catch(() => {});
  }

  take(id) {
    this.lines = this.lines.filter((line, i) => i === 0 || line.id !== id);
    this.picker.mark(this.lines.slice(1).map((line) => line.id));
    this.redraw();
  }

  change(values) {
    Object.assign(this.state, values);
    kept.write(this.state);
    this.redraw();
  }

  /** Another part of the axis is shown: its details are fetched once it rests. */
  moved() {
    const { range } = this.view;
    for (const line of this.lines) line.keepIf(range, this.state.by);
    clearTimeout(this.looking);
    const look = () => this.lines.forEach((line) => this.lookCloser(line).catch(() => {}));
    if (range) this.looking = setTimeout(look, LOOK_MS);
    this.redraw();
  }

  // -- the cursor -------------------------------------------------------------------------------

  get cursorRow() {
    const steps = this.lines[0]?.shown.step ?? [];
    return this.cursor === null ? -1 : nearestTo(steps, this.cursor);
  }

  get cursorPlace() {
    const row = this.cursorRow;
    return row < 0 ? null : this.lines[0].along(this.lines[0].shown, this.state.by)[row];
  }

  /** Point at a place of the axis, or with null at none. */
  point(place) {
    const line = this.lines[0];
    if (!line) return;
    const row = place === null ? -1 : nearestTo(line.along(line.shown, this.state.by), place);
    this.cursor = row < 0 ? null : line.shown.step[row];
    this.redraw({ cursorOnly: true });
  }

  /** Go so many values on, infinitely many: to the end. False when there are none. */
  step(by) {
    if (!this.lines[0]?.shown.step.length) return false;
    if (!Number.isFinite(by) && this.view.range) this.view.show(null);
    const steps = this.lines[0].shown.step;
    const from = this.cursor === null ? steps.length - 1 : this.cursorRow;
    this.cursor = steps[Math.max(0, Math.min(steps.length - 1, from + by))];
    this.view.keepIn(this.cursorPlace);
    this.redraw({ cursorOnly: true });
    return true;
  }

  // -- drawing ----------------------------------------------------------------------------------

  /** Draw what changed, once for each frame: only the cursor, or all of it. */
  redraw({ cursorOnly = false } = {}) {
    this.changed ||= !cursorOnly;
    if (this.waiting || !this.dialog.open) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.draw();
    });
  }

  /** The lines are drawn on a ground of their own, over which the cursor moves. */
  draw() {
    const { clientWidth: width, clientHeight: height } = this.plot;
    const ratio = window.devicePixelRatio || 1;
    const size = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== size[0] || this.canvas.height !== size[1]) {
      for (const canvas of [this.canvas, this.ground]) [canvas.width, canvas.height] = size;
      this.changed = true;
    }
    if (this.changed) this.drawGround(width, height, ratio);
    this.changed = false;
    const pen = this.canvas.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, ...size);
    if (size[0] && size[1]) pen.drawImage(this.ground, 0, 0);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    const cursor = this.scales && this.cursorDots(this.drawn.lines);
    if (cursor) drawCursor(pen, this.drawn.look, this.scales, cursor);
    this.tell(this.drawn.look);
  }

  drawGround(width, height, ratio) {
    const pen = this.ground.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const look = this.look();
    const some = this.lines[0]?.whole.step.length > 0;
    this.empty.hidden = some;
    const picture = some ? this.picture(look) : { lines: [] };
    this.drawn = { look, lines: picture.lines };
    this.scales = some && width ? drawPlot(pen, { left: 0, top: 0, width, height }, picture, look) : null;
  }

  look() {
    const { fontFamily } = getComputedStyle(this.plot);
    this.probe ??= this.plot.appendChild(el("span", { hidden: true }));
    const colour = (name) => {
      this.probe.style.setProperty("color", `var(${name})`);
      return getComputedStyle(this.probe).color;
    };
    return {
      family: fontFamily,
      font: `12px ${fontFamily}`,
      grid: colour("--chart-grid"),
      text: colour("--text-quiet"),
      strong: colour("--text"),
      surface: colour("--surface"),
      line: colour("--chart-line"),
      danger: colour("--danger"),
      lr: colour("--curve-lr"),
      vram: colour("--curve-vram"),
      curves: DASHES.map((_, i) => colour(`--curve-${i + 1}`)),
    };
  }

  /** What `drawPlot` is to draw. */
  picture(look) {
    const { by, log } = this.state;
    const share = SHARES[this.state.smoothing];
    const lines = this.lines.map((line, i) => {
      const { shown, whole } = line;
      const smooth = share ? { xs: line.along(whole, by), ys: line.smoothed(share) } : null;
      return { xs: line.along(shown, by), ys: shown.loss, smooth, colour: look.curves[i], dash: DASHES[i] };
    });
    return {
      by,
      log,
      lines,
      range: this.view.now,
      more: this.more(look),
      epochs: this.epochs(),
      band: this.hand.band,
    };
  }

  more(look) {
    const { shown } = this.lines[0];
    const xs = this.lines[0].along(shown, this.state.by);
    const known = (values) => values?.some((value) => value !== null);
    const found = [];
    if (this.state.lr && known(shown.lr))
      found.push({ xs, ys: shown.lr, colour: look.lr, dash: LR_DASH, short: "LR", label: shownRate });
    if (this.state.vram && known(shown.vram)) {
      const ys = shown.vram.map((value) => (value === null ? null : value / GB));
      found.push({ xs, ys, colour: look.vram, dash: VRAM_DASH, short: "GB VRAM" });
    }
    return found;
  }

  epochs() {
    const { by } = this.state;
    const [line] = this.lines;
    if (by === "epoch") return [];
    const { whole } = line;
    const places = line.along(whole, by);
    return whole.epochs.map(([epoch, step]) => ({
      x: by === "step" ? step - 0.5 : places[Math.min(places.length - 1, indexOf(whole.step, step))],
      name: String(epoch),
    }));
  }

  /** The values of every run where the cursor is. */
  cursorDots(lines) {
    const place = this.cursorPlace;
    if (place === null) return null;
    const dots = lines.map(({ xs, ys, colour }) => ({
      x: xs[nearestTo(xs, place)],
      y: ys[nearestTo(xs, place)],
      colour,
    }));
    const reached = dots.filter(
      (dot, i) => dot.y !== null && dot.y !== undefined && place <= lines[i].xs.at(-1) + this.view.least,
    );
    return { x: place, dots: reached };
  }

  // -- words ------------------------------------------------------------------------------------

  tell(look) {
    const share = SHARES[this.state.smoothing];
    const reach = this.lines[0]?.whole.step.length
      ? `, about ${count(this.lines[0].reach(share), "step")} each way`
      : "";
    const text = share
      ? `average over ${Number((share * 100).toPrecision(2))} % of the run${reach}`
      : "off: the values as they are";
    say(this.sliderText, text);
    this.slider.setAttribute("aria-valuetext", text);
    const idle = this.view.range === null;
    if (idle && [this.back, this.minus].includes(document.activeElement)) this.plot.focus(); // or it gets lost
    this.back.disabled = this.minus.disabled = idle;
    this.tellReading();
    this.tellNotes();
    this.legend.draw(this.lines.map((line, i) => this.legendRow(line, look.curves[i], DASHES[i])));
  }

  legendRow(line, colour, dash) {
    const place = this.cursorPlace;
    const share = SHARES[this.state.smoothing];
    const xs = line.along(line.shown, this.state.by);
    const reached = place !== null && xs.length > 0 && place <= xs.at(-1) + this.view.least;
    const smoothXs = line.along(line.whole, this.state.by);
    return {
      ...{ line, colour, dash },
      atCursor: reached ? line.shown.loss[nearestTo(xs, place)] : null,
      smoothed: reached && share ? line.smoothed(share)[nearestTo(smoothXs, place)] : null,
    };
  }

  tellReading() {
    const line = this.lines[0];
    const row = this.cursorRow;
    const text = row < 0 ? this.summary : readingOf(line, row);
    say(this.reading, text);
    this.plot.setAttribute("aria-valuemin", line?.whole.step[0] ?? 0);
    this.plot.setAttribute("aria-valuemax", line?.whole.step.at(-1) ?? 0);
    this.plot.setAttribute("aria-valuenow", (row < 0 ? line?.whole.step.at(-1) : line.shown.step[row]) ?? 0);
    this.plot.setAttribute("aria-valuetext", text);
  }

  get summary() {
    const line = this.lines[0];
    const facts = line?.facts;
    if (!facts) return "No values yet.";
    const steps = count(line.whole.count, "step");
    if (line.whole.count === 1) return `${steps} · loss ${shownLoss(facts.last)}`;
    const lowest = `lowest ${shownLoss(facts.least)} at step ${facts.leastAt.toLocaleString("en")}`;
    return `${steps} · loss ${shownLoss(facts.first)} at first, ${shownLoss(facts.last)} ${line.over ? "at the end" : "now"}, ${lowest}`;
  }

  /** What was asked for and can't be drawn is said. */
  tellNotes() {
    const { whole } = this.lines[0] ?? { whole: {} };
    const notes = this.problem ? [this.problem] : [];
    const some = whole.step?.length;
    if (some && this.state.lr && whole.lr_reason)
      notes.push(`No line for the learning rate: ${whole.lr_reason}.`);
    if (some && this.state.vram && !whole.vram.some((value) => value !== null))
      notes.push("No line for VRAM: this run has no figures of a card.");
    if (some && this.state.log && whole.loss.some((value) => value !== null && value <= 0))
      notes.push("A log scale has no place for losses of 0 and below.");
    if (this.lines.some((line) => line.shown.thinned))
      notes.push("Of a run this long the peaks and the average are drawn: zoom in for every step.");
    say(this.note, notes.join(" "));
  }

  // -- to keep ----------------------------------------------------------------------------------

  savePicture() {
    if (!this.scales) return;
    const look = this.look();
    const picture = this.picture(look);
    const legend = this.lines.map((line, i) => ({
      name: nameOf(line.job),
      colour: look.curves[i],
      dash: DASHES[i],
      loss: line.facts?.last ?? null,
    }));
    const more = picture.more.map(({ short, colour, dash }) => ({
      name: short === "LR" ? "Learning rate" : "VRAM",
      colour,
      dash,
      loss: null,
    }));
    const canvas = drawSheet({ title: this.title.textContent, legend: [...legend, ...more], picture, look });
    canvas.toBlob((blob) => {
      const link = el("a", {
        href: URL.createObjectURL(blob),
        download: `${this.lines[0].job.title.replace(/^Training /, "")}_${this.lines[0].id}_loss.png`,
      });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    });
  }
}

const shownRate = (value) =>
  value === 0 ? "0" : Number(value.toPrecision(3)).toExponential().replace("e-", "e−");

/** Everything that is known of a step, in one line. */
function readingOf(line, row) {
  const { shown } = line;
  const of = (name) => shown[name]?.[row] ?? null;
  const parts = [`step ${shown.step[row].toLocaleString("en")}`];
  if (of("epoch") !== null) parts.push(`epoch ${of("epoch")}`);
  parts.push(`loss ${shownLoss(of("loss"))}`);
  if (of("lr") !== null) parts.push(`learning rate ${shownRate(of("lr"))}`);
  if (of("seconds_per_step") !== null) parts.push(`${Number(of("seconds_per_step").toPrecision(3))} s/step`);
  if (of("vram") !== null) parts.push(`VRAM ${gigabytes(of("vram"))} GB`);
  if (of("ram") !== null) parts.push(`RAM ${gigabytes(of("ram"))} GB`);
  if (of("time") !== null)
    parts.push(new Date(of("time") * 1000).toLocaleTimeString([], { timeStyle: "medium" }));
  return parts.join(" · ");
}

let chart = null;

/** Open the large chart of a run. Works on any page. */
export async function openChart(id) {
  try {
    await needStyle("losschart.css");
    chart ??= new LossChart();
    await chart.open(id);
  } catch (error) {
    chart?.dialog.close(); // the message would lie under it
    complain(error);
  }
}
