/**
 * A line chart of loss over steps on a canvas: every value faint, the smoothed course strong, epochs marked.
 * Colours come from the tokens. `new Chart(box, {onRead})` draws into the <canvas> in `box`.
 */

import { loss as shownLoss } from "./format.js";

const MARGIN = { left: 44, right: 8, top: 8, bottom: 22 };
const SMOOTHING = 0.02; // share of the run one smoothed value looks at, each way
const FEWEST_SMOOTHED = 8;

/** Smooth without shifting: an average that fades exponentially, forwards and backwards. */
export function smoothed(values) {
  const keep = Math.exp(-1 / Math.max(2, values.length * SMOOTHING));
  const there = fading(values, keep);
  const back = fading([...values].reverse(), keep).reverse();
  return values.map((_, i) => (there[i] + back[i]) / 2);
}

function fading(values, keep) {
  let sum = 0;
  let weight = 0;
  return values.map((value) => {
    if (value !== null) {
      sum = keep * sum + (1 - keep) * value;
      weight = keep * weight + (1 - keep);
    }
    return weight ? sum / weight : null;
  });
}

/** Round numbers that divide a range into about `count` parts. */
export function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step) found.push(at);
  return found;
}

/** The whole numbers of a range that are marked: about `count`, and two at least where there are two. */
export function wholeTicks(low, high, count) {
  for (let more = count; ; more += 1) {
    const found = ticks(low, high, more).filter(Number.isInteger);
    if (found.length > 1 || more > count + 12) return found;
  }
}

export class Chart {
  /** `onRead(text)` is told what the cursor points at, or "" without one. */
  constructor(box, { onRead }) {
    this.box = box;
    this.canvas = box.querySelector("canvas");
    this.onRead = onRead;
    this.cursor = null;
    this.clear();
    new ResizeObserver(() => this.redraw()).observe(box);
    document.addEventListener("theme:changed", () => this.redraw());
    box.addEventListener("pointermove", (event) => this.point(event));
    box.addEventListener("pointerleave", () => this.read(null));
    box.addEventListener("blur", () => this.read(null));
    box.addEventListener("keydown", (event) => this.key(event));
  }

  clear() {
    this.steps = [];
    this.losses = [];
    this.epochs = [];
    this.total = null;
    this.cursor = null;
    this.redraw();
  }

  /** Replace all values: columns of equal length, steps rising. */
  set({ step, loss, epoch }) {
    const later = this.steps.findIndex((at) => at > (step.at(-1) ?? 0));
    const tail =
      later < 0
        ? []
        : this.steps.slice(later).map((at, i) => [at, this.losses[later + i], this.epochs[later + i]]);
    [this.steps, this.losses, this.epochs] = [[], [], []];
    for (const [i, at] of step.entries()) this.add(at, loss[i], epoch?.[i] ?? null);
    for (const row of tail) this.add(...row); // came live while the columns were on their way
    this.redraw();
  }

  /** Add one value, or mend the last one of the same step. Returns true when steps in between are missing. */
  add(step, loss, epoch = null) {
    const last = this.steps.at(-1) ?? 0;
    if (step < last || loss === null || loss === undefined) return false;
    if (step === last && this.steps.length) this.losses[this.losses.length - 1] = loss;
    else {
      this.steps.push(step);
      this.losses.push(loss);
      this.epochs.push(epoch);
    }
    this.redraw();
    return step > last + 1;
  }

  /** A sentence that says what the picture shows. */
  get summary() {
    const known = this.steps.map((step, i) => [step, this.losses[i]]).filter(([, loss]) => loss !== null);
    if (!known.length) return "";
    const [first, last] = [known[0], known.at(-1)];
    if (known.length === 1) return `${shownLoss(last[1])} at step ${last[0]}`;
    const lowest = known.reduce((best, row) => (row[1] < best[1] ? row : best));
    const told = ([step, loss]) => `${shownLoss(loss)} at step ${step}`;
    return `${told(first)}, ${told(last)}, lowest ${told(lowest)}`;
  }

  redraw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.draw();
    });
  }

  // -- cursor -----------------------------------------------------------------------------------

  point(event) {
    if (!this.scale) return;
    const x = event.clientX - this.canvas.getBoundingClientRect().left;
    const step = this.scale.stepAt(x);
    let best = 0;
    for (let i = 1; i < this.steps.length; i += 1) {
      if (Math.abs(this.steps[i] - step) < Math.abs(this.steps[best] - step)) best = i;
    }
    this.read(this.steps.length ? best : null);
  }

  key(event) {
    const moves = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
    if (event.key === "Escape") this.read(null);
    if (!(event.key in moves) || !this.steps.length) return;
    event.preventDefault();
    const from = this.cursor ?? this.steps.length - 1;
    this.read(Math.max(0, Math.min(this.steps.length - 1, from + moves[event.key])));
  }

  read(index) {
    if (index === this.cursor) return;
    this.cursor = index;
    this.redraw();
    if (index === null) {
      this.onRead("");
      return;
    }
    const epoch = this.epochs[index] ? ` · epoch ${this.epochs[index]}` : "";
    this.onRead(`step ${this.steps[index]}${epoch} · loss ${shownLoss(this.losses[index])}`);
  }

  // -- drawing ----------------------------------------------------------------------------------

  draw() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.scale = null;
    if (!this.steps.length || !width) return;
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const look = this.look();
    this.scale = this.scaled(width, height);
    this.drawGrid(pen, look, width, height);
    this.drawEpochs(pen, look, height);
    const many = this.steps.length >= FEWEST_SMOOTHED;
    this.drawLine(pen, this.losses, many ? look.raw : look.line, many ? 1 : 2);
    if (many) this.drawLine(pen, smoothed(this.losses), look.line, 2);
    this.drawCursor(pen, look, height);
  }

  look() {
    const style = getComputedStyle(this.canvas);
    const colour = (name) => {
      this.probe ??= this.box.appendChild(Object.assign(document.createElement("span"), { hidden: true }));
      this.probe.style.setProperty("color", `var(${name})`);
      return getComputedStyle(this.probe).color;
    };
    return {
      font: `11px ${style.fontFamily}`,
      raw: colour("--chart-raw"),
      line: colour("--chart-line"),
      grid: colour("--chart-grid"),
      text: colour("--text-quiet"),
    };
  }

  scaled(width, height) {
    const known = this.losses.filter((loss) => loss !== null);
    let [low, high] = [Infinity, -Infinity];
    for (const loss of known) [low, high] = [Math.min(low, loss), Math.max(high, loss)];
    if (!known.length) [low, high] = [0, 1];
    const room = (high - low || Math.abs(high) || 1) * 0.06;
    low = Math.max(low >= 0 ? 0 : -Infinity, low - room);
    high += room;
    const from = Math.min(this.steps[0], 1);
    const to = Math.max(this.steps.at(-1), this.total ?? 0, from + 1);
    const across = width - MARGIN.left - MARGIN.right;
    const down = height - MARGIN.top - MARGIN.bottom;
    return {
      low,
      high,
      from,
      to,
      x: (step) => MARGIN.left + ((step - from) / (to - from)) * across,
      y: (loss) => MARGIN.top + ((high - loss) / (high - low)) * down,
      stepAt: (x) => from + ((x - MARGIN.left) / across) * (to - from),
    };
  }

  drawGrid(pen, look, width, height) {
    const { low, high, from, to, x, y } = this.scale;
    pen.font = look.font;
    pen.lineWidth = 1;
    pen.strokeStyle = look.grid;
    pen.fillStyle = look.text;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    for (const value of ticks(low, high, 4)) {
      stroke(pen, [
        [MARGIN.left, y(value)],
        [width - MARGIN.right, y(value)],
      ]);
      pen.fillText(shownLoss(Number(value.toPrecision(3))), MARGIN.left - 6, y(value));
    }
    pen.textBaseline = "alphabetic";
    const marks = wholeTicks(from, to, Math.max(3, width / 110));
    for (const [i, step] of marks.entries()) {
      const last = i === marks.length - 1;
      pen.textAlign = x(step) > width - 50 ? "right" : "center";
      pen.fillText(last ? `step ${step}` : String(step), x(step), height - 5);
    }
  }

  drawEpochs(pen, look, height) {
    pen.strokeStyle = look.grid;
    pen.setLineDash([2, 3]);
    for (let i = 1; i < this.epochs.length; i += 1) {
      if (this.epochs[i] === this.epochs[i - 1] || this.epochs[i] === null) continue;
      const x = this.scale.x(this.steps[i] - 0.5);
      stroke(pen, [
        [x, MARGIN.top],
        [x, height - MARGIN.bottom],
      ]);
    }
    pen.setLineDash([]);
  }

  drawLine(pen, values, colour, width) {
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.lineJoin = "round";
    pen.beginPath();
    const stride = Math.max(1, Math.floor(values.length / 4000));
    let down = false;
    for (let i = 0; i < values.length; i += stride) {
      if (values[i] === null) {
        down = false;
        continue;
      }
      const [x, y] = [this.scale.x(this.steps[i]), this.scale.y(values[i])];
      if (down) pen.lineTo(x, y);
      else pen.moveTo(x, y);
      down = true;
    }
    pen.stroke();
    if (values.length === 1) this.drawDot(pen, 0, colour);
  }

  drawDot(pen, index, colour) {
    pen.fillStyle = colour;
    pen.beginPath();
    pen.arc(this.scale.x(this.steps[index]), this.scale.y(this.losses[index]), 3, 0, 2 * Math.PI);
    pen.fill();
  }

  drawCursor(pen, look, height) {
    if (this.cursor === null || this.cursor >= this.steps.length) return;
    const x = this.scale.x(this.steps[this.cursor]);
    pen.strokeStyle = look.text;
    pen.lineWidth = 1;
    stroke(pen, [
      [x, MARGIN.top],
      [x, height - MARGIN.bottom],
    ]);
    if (this.losses[this.cursor] !== null) this.drawDot(pen, this.cursor, look.line);
  }
}

function stroke(pen, points) {
  pen.beginPath();
  points.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.stroke();
}
