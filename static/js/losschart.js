/** The large loss chart, in a dialog of its own: zoom, smoothing, further lines, several runs. Loaded at first use. */

import { at, get } from "./api.js";
import { complain } from "./dialogs.js";
import { el, find, icon, needStyle, say } from "./dom.js";
import { gigabytes, loss as shownLoss } from "./format.js";
import { drawCursor, drawPlot, drawSheet } from "./plot.js";
import { nameOf, Picker } from "./runpicker.js";
import { indexOf, nearestTo, Series } from "./series.js";

const SHARES = [0, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2]; // of the run, each way
const USUAL_SHARE = 4;
const REMEMBER = "musubitlx:loss-chart";
const AGAIN_MS = 2000; // how often a run under way is read anew
const LOOK_MS = 120; // how long a zoom rests before its details are fetched
const ZOOM = 1.6;
const GB = 1024 ** 3;
const LEAST_STEPS = 4; // that one can zoom in to
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
    this.range = null; // of the axis, null: all
    this.cursor = null; // a step of the first run
    this.pointers = new Map();
    this.build();
    this.wire();
  }

  // -- markup -----------------------------------------------------------------------------------

  build() {
    const toggle = (name, text) => {
      const box = el("input", { type: "checkbox", checked: this.state[name] });
      box.addEventListener("change", () => this.change({ [name]: box.checked }));
      return el(
        "label",
        { className: "curve-toggle" },
        box,
        el("span", { textContent: text, data: { for: name } }),
      );
    };
    const button = (label, action, className, ...content) => {
      const node = el("button", { type: "button", className, "aria-label": label, title: label }, ...content);
      node.addEventListener("click", action);
      return node;
    };
    const small = "button button-small";
    this.title = el("h2", { id: "curves-title", textContent: "Loss" });
    this.close = button("Close the chart", () => this.dialog.close(), "icon-button", icon("close"));
    this.by = el("select", { className: "curve-by", "aria-label": "Along the bottom" });
    for (const [value, text] of [
      ["step", "by step"],
      ["epoch", "by epoch"],
      ["time", "by time"],
    ])
      this.by.append(new Option(text, value));
    this.by.value = this.state.by;
    this.slider = el("input", {
      type: "range",
      id: "curve-smoothing",
      min: 0,
      max: SHARES.length - 1,
      value: this.state.smoothing,
    });
    this.slider.setAttribute("aria-describedby", "curve-smoothing-help");
    this.sliderText = el("span", {
      className: "small quiet numbers curve-share",
      id: "curve-smoothing-help",
    });
    this.plus = button("Zoom in", () => this.zoom(1 / ZOOM), `${small} curve-zoom`, "+");
    this.minus = button("Zoom out", () => this.zoom(ZOOM), `${small} curve-zoom`, "−");
    this.back = button("Whole run", () => this.show(null), small, "Whole run");
    this.png = button(
      "PNG: download the chart as a picture",
      () => this.savePicture(),
      small,
      icon("download"),
      "PNG",
    );
    this.csv = el("a", { className: "button button-small", download: "" }, icon("download"), "CSV");
    this.csv.setAttribute("aria-label", "CSV: download every step as a table");
    this.csv.title = "Every step as a table";
    this.canvas = el("canvas");
    this.ground = el("canvas");
    this.empty = el("p", {
      className: "chart-empty quiet",
      textContent: "Appears with the first training step.",
    });
    this.plot = el(
      "div",
      {
        className: "curve-plot",
        tabIndex: 0,
        role: "slider",
        "aria-label": "Loss, a value at a time",
        "aria-describedby": "curve-keys",
      },
      this.canvas,
      this.empty,
    );
    this.reading = el("p", { className: "numbers curve-reading" });
    this.note = el("p", { className: "small quiet curve-note", role: "status" });
    this.legend = el("tbody");
    const heads = ["Run", "At the cursor", "Smoothed", "Final loss", "Lowest"].map((text) =>
      el("th", { scope: "col", textContent: text }),
    );
    const table = el(
      "table",
      { className: "curve-legend small numbers" },
      el("caption", { className: "visually-hidden", textContent: "Runs in the chart" }),
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          ...heads,
          el("th", {}, el("span", { className: "visually-hidden", textContent: "Take out" })),
        ),
      ),
      this.legend,
    );
    this.picker = new Picker({ onAdd: (job) => this.add(job), onRemove: (id) => this.take(id) });
    this.dialog = el(
      "dialog",
      { className: "dialog curves", "aria-labelledby": "curves-title" },
      el("div", { className: "curve-head" }, this.title, this.close),
      el(
        "div",
        { className: "curve-tools", role: "group", "aria-label": "Chart tools" },
        this.by,
        toggle("log", "Log scale"),
        toggle("lr", "Learning rate"),
        toggle("vram", "VRAM"),
        el(
          "div",
          { className: "curve-smoothing" },
          el("label", { htmlFor: "curve-smoothing", textContent: "Smoothing" }),
          this.slider,
          this.sliderText,
        ),
        el("div", { className: "curve-buttons" }, this.minus, this.plus, this.back, this.png, this.csv),
      ),
      this.plot,
      this.reading,
      this.note,
      el("div", { className: "curve-scroll" }, table),
      this.picker.node,
      el("p", {
        id: "curve-keys",
        className: "small quiet curve-keys",
        textContent:
          "Drag over a range to look closer, double-click for the whole run. Keys: ← → values, Home and End, + and − zoom, 0 the whole run.",
      }),
    );
    document.body.append(this.dialog);
  }

  wire() {
    this.by.addEventListener("change", () => {
      this.range = null;
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
    this.plot.addEventListener("keydown", (event) => this.key(event));
    this.plot.addEventListener("pointerdown", (event) => this.down(event));
    this.plot.addEventListener("pointermove", (event) => this.move(event));
    for (const type of ["pointerup", "pointercancel"])
      this.plot.addEventListener(type, (event) => this.up(event));
    this.plot.addEventListener(
      "pointerleave",
      (event) => event.pointerType === "mouse" && !this.pointers.size && this.point(null),
    );
    this.plot.addEventListener("dblclick", () => this.show(null));
    this.plot.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  // -- opening, reading -------------------------------------------------------------------------

  async open(id) {
    if (this.lines[0]?.id !== id) {
      this.lines = [];
      [this.range, this.cursor] = [null, null];
    }
    if (!this.dialog.open) this.dialog.showModal();
    this.plot.focus({ preventScroll: true });
    const jobs = await get("/api/jobs");
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
    try {
      if (stale.some((line) => line.read)) await this.readStates(stale);
      await Promise.all(stale.map((line) => this.readOne(line)));
      this.problem = "";
    } catch (error) {
      this.problem = `${error.whole ?? error.message} The chart goes on once there is an answer.`;
    }
    this.redraw();
    if (this.dialog.open && this.lines.some((line) => !line.over)) {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => (document.hidden ? null : this.refresh()), AGAIN_MS);
    }
  }

  async readStates(lines) {
    for (const line of lines) line.job = await get(at("jobs", line.id));
  }

  async readOne(line) {
    const over = Boolean(line.job.ended);
    await line.load();
    [line.read, line.over] = [true, over]; // what was there when the end was known is all there is
    if (this.range && line.part) await this.lookCloser(line);
  }

  /** Fetch every step of what is zoomed to. */
  async lookCloser(line) {
    const { step } = line.whole;
    const places = line.along(line.whole, this.state.by);
    const first = step[Math.max(0, indexOf(places, this.range[0]) - 1)];
    const last = step[Math.min(step.length - 1, indexOf(places, this.range[1]) + 1)];
    if (first !== undefined && (await line.look(first, last))) this.redraw();
  }

  async add(job) {
    const line = new Series(job);
    this.lines.push(line);
    await this.refresh();
    if (this.range) await this.lookCloser(line).catch(() => {});
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

  // -- what is in view --------------------------------------------------------------------------

  /** The two ends of the axis with all runs in full. */
  get all() {
    const ends = this.lines.flatMap((line) => {
      const places = line.along(line.whole, this.state.by);
      return places.length ? [places[0], places.at(-1)] : [];
    });
    const low = this.state.by === "step" ? Math.min(1, ...ends) : 0;
    const high = Math.max(...ends, low);
    return [low, high > low ? high : low + 1];
  }

  /** Show a part of the axis, or with null all of it. */
  show(range) {
    const [low, high] = this.all;
    if (range) {
      const least = Math.min(high - low, this.leastSpan);
      let [from, to] = [Math.min(...range), Math.max(...range)];
      if (to - from < least) [from, to] = [(from + to - least) / 2, (from + to + least) / 2];
      if (from < low) [from, to] = [low, Math.min(high, to + low - from)];
      if (to > high) [from, to] = [Math.max(low, from - (to - high)), high];
      range = from <= low && to >= high ? null : [from, to];
    }
    this.range = range;
    for (const line of this.lines) line.keepIf(range, this.state.by);
    clearTimeout(this.looking);
    if (range)
      this.looking = setTimeout(
        () => this.lines.forEach((line) => this.lookCloser(line).catch(() => {})),
        LOOK_MS,
      );
    this.redraw();
  }

  /** A few steps, in units of the axis. */
  get leastSpan() {
    const [low, high] = this.all;
    return ((high - low) * LEAST_STEPS) / Math.max(LEAST_STEPS, this.lines[0]?.whole.step.at(-1) ?? 1);
  }

  zoom(factor, around = null) {
    const [from, to] = this.range ?? this.all;
    const middle = around ?? this.cursorPlace ?? (from + to) / 2;
    const still = Math.min(to, Math.max(from, middle));
    this.show([still - (still - from) * factor, still + (to - still) * factor]);
  }

  pan(share) {
    if (!this.range) return;
    const [from, to] = this.range;
    this.show([from + share * (to - from), to + share * (to - from)]);
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
    this.redraw({ cursorOnly: !this.drag });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { step } = this.lines[0]?.shown ?? { step: [] };
    const moves = {
      ArrowLeft: -1,
      ArrowDown: -1,
      ArrowRight: 1,
      ArrowUp: 1,
      PageDown: -10,
      PageUp: 10,
      Home: -Infinity,
      End: Infinity,
    };
    const zooms = { "+": 1 / ZOOM, "=": 1 / ZOOM, "-": ZOOM, "−": ZOOM };
    if (event.key in zooms) this.zoom(zooms[event.key]);
    else if (event.key === "0") this.show(null);
    else if (event.key in moves && step.length) {
      if (!Number.isFinite(moves[event.key]) && this.range) this.show(null);
      const steps = this.lines[0].shown.step;
      const from = this.cursor === null ? steps.length - 1 : this.cursorRow;
      this.cursor = steps[Math.max(0, Math.min(steps.length - 1, from + moves[event.key]))];
      this.keepInView();
      this.redraw({ cursorOnly: true });
    } else return;
    event.preventDefault();
  }

  keepInView() {
    if (!this.range) return;
    const [from, to] = this.range;
    const place = this.cursorPlace;
    if (place < from) this.show([place, place + to - from]);
    else if (place > to) this.show([place - (to - from), place]);
  }

  // -- mouse, touch -----------------------------------------------------------------------------

  placeOf(event) {
    return this.scales ? this.scales.x.value(event.clientX - this.canvas.getBoundingClientRect().left) : null;
  }

  down(event) {
    if (!this.scales || event.button > 0) return;
    this.plot.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event);
    this.plot.focus({ preventScroll: true });
    if (event.pointerType === "mouse" && !event.shiftKey)
      this.drag = { from: this.placeOf(event), at: event.clientX };
    if (this.pointers.size === 2)
      this.pinch = { places: [...this.pointers.values()].map((one) => this.placeOf(one)) };
    this.point(this.placeOf(event));
  }

  move(event) {
    if (!this.scales) return;
    if (this.pointers.has(event.pointerId)) this.pointers.set(event.pointerId, event);
    if (this.pinch && this.pointers.size === 2) return this.pinched();
    if (this.drag && Math.abs(event.clientX - this.drag.at) > 5) this.drag.to = this.placeOf(event);
    this.point(this.placeOf(event));
  }

  /** Two fingers keep the values they were put on. */
  pinched() {
    const [a, b] = [...this.pointers.values()].map(
      (one) => one.clientX - this.canvas.getBoundingClientRect().left,
    );
    const [from, to] = this.pinch.places;
    if (Math.abs(a - b) < 20 || from === to) return;
    const { left, right } = this.scales.edges;
    const unit = (to - from) / (b - a);
    if (unit > 0) this.show([from - (a - left) * unit, from + (right - a) * unit]);
  }

  up(event) {
    this.pointers.delete(event.pointerId);
    if (this.pointers.size < 2) this.pinch = null;
    const { drag } = this;
    this.drag = null;
    if (drag?.to !== undefined && event.type === "pointerup") this.show([drag.from, drag.to]);
    else this.redraw();
  }

  wheel(event) {
    if (!this.scales) return;
    const sideways = event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
    const amount = event.deltaX || event.deltaY;
    if (!sideways && event.deltaY > 0 && !this.range) return; // nothing to zoom out of: the dialog scrolls
    event.preventDefault();
    if (sideways) this.pan(Math.sign(amount) * 0.1);
    else this.zoom(1.2 ** Math.sign(event.deltaY), this.placeOf(event));
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
      range: this.range ?? this.all,
      more: this.more(look),
      epochs: this.epochs(),
      band: this.drag?.to === undefined ? null : [this.drag.from, this.drag.to],
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
      (dot, i) => dot.y !== null && dot.y !== undefined && place <= lines[i].xs.at(-1) + this.leastSpan,
    );
    return { x: place, dots: reached };
  }

  // -- words ------------------------------------------------------------------------------------

  tell(look) {
    const share = SHARES[this.state.smoothing];
    const reach = this.lines[0]?.whole.step.length
      ? `, about ${this.lines[0].reach(share).toLocaleString("en")} steps each way`
      : "";
    const text = share
      ? `average over ${Number((share * 100).toPrecision(2))} % of the run${reach}`
      : "off: the values as they are";
    say(this.sliderText, text);
    this.slider.setAttribute("aria-valuetext", text);
    const idle = this.range === null;
    if (idle && [this.back, this.minus].includes(document.activeElement)) this.plot.focus(); // or it gets lost
    this.back.disabled = this.minus.disabled = idle;
    this.tellReading();
    this.tellNotes();
    this.drawLegend(look);
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
    const count = line.whole.count.toLocaleString("en");
    return `${count} steps · loss ${shownLoss(facts.first)} at first, ${shownLoss(facts.last)} ${line.over ? "at the end" : "now"}, lowest ${shownLoss(facts.least)} at step ${facts.leastAt.toLocaleString("en")}`;
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

  drawLegend(look) {
    const place = this.cursorPlace;
    const rows = this.lines.map((line, i) => {
      const xs = line.along(line.shown, this.state.by);
      const smoothXs = line.along(line.whole, this.state.by);
      const reached = place !== null && xs.length > 0 && place <= xs.at(-1) + this.leastSpan;
      const share = SHARES[this.state.smoothing];
      const { facts } = line;
      return {
        line,
        colour: look.curves[i],
        dash: DASHES[i],
        cells: [
          reached ? shownLoss(line.shown.loss[nearestTo(xs, place)]) : "–",
          reached && share ? shownLoss(line.smoothed(share)[nearestTo(smoothXs, place)]) : "–",
          shownLoss(facts?.last),
          facts ? `${shownLoss(facts.least)} at ${facts.leastAt.toLocaleString("en")}` : "–",
        ],
      };
    });
    const ids = rows.map(({ line }) => line.id).join();
    if (this.legend.dataset.runs !== ids) {
      this.legend.dataset.runs = ids;
      this.legend.replaceChildren(...rows.map((row, i) => this.legendRow(row, i)));
    }
    for (const [i, { cells, colour, dash }] of rows.entries()) {
      const row = this.legend.rows[i];
      cells.forEach((text, k) => say(row.cells[k + 1], text));
      drawSwatch(find("canvas", row), colour, dash);
    }
  }

  legendRow({ line }, index) {
    const swatch = el("canvas", { className: "curve-swatch", "aria-hidden": "true" });
    const text = el("span", { textContent: nameOf(line.job) });
    const name = el("th", { scope: "row" }, el("div", { className: "curve-name" }, swatch, text));
    const last = el("td");
    if (index > 0) {
      const out = el(
        "button",
        { type: "button", className: "icon-button", "aria-label": `Take ${nameOf(line.job)} out` },
        icon("close"),
      );
      out.addEventListener("click", () => this.take(line.id));
      last.append(out);
    }
    return el("tr", {}, name, el("td"), el("td"), el("td"), el("td"), last);
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

/** The line of a run as it looks in the chart. */
function drawSwatch(canvas, colour, dash) {
  const mark = colour + dash;
  if (canvas.dataset.shown === mark) return;
  canvas.dataset.shown = mark;
  const ratio = window.devicePixelRatio || 1;
  [canvas.width, canvas.height] = [36 * ratio, 12 * ratio];
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  [pen.strokeStyle, pen.lineWidth] = [colour, 2.5];
  pen.setLineDash(dash);
  pen.beginPath();
  pen.moveTo(0, 6);
  pen.lineTo(36, 6);
  pen.stroke();
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
