/** Drawing a chart of losses with a canvas' pen. Knows nothing of runs, dialogs or the server. */

import { loss as shownLoss } from "./format.js";
import { labelsOf, rangeOf, scaleOf, unitOf } from "./scales.js";
import { indexOf } from "./series.js";

const LEFT = 56;
const RIGHT = 12;
const AXIS = 66; // width of one more scale on the right
const NARROW = 500; // px; in a box of less the axes are narrower
const NARROW_AXIS = 48;
const TOP = 24; // room for the epochs
const BOTTOM = 26;
const RAW = 0.45; // how strong the values themselves are drawn beside the smoothed course
const RAW_BESIDE = 0.3; // and where there are several runs
const NEAR = 40; // px between two labels at least
const GAP = 10; // px between the names of two epochs
const LEAST_GAP = 24; // px between their beginnings
const DENSE = 7; // px between two marks of epochs at least

/**
 * Draw a chart into a box {left, top, width, height}. `picture`:
 * lines: [{xs, ys, smooth: {xs, ys} or null, colour, dash}], main one first; more: [{xs, ys, colour, dash, short, label(value) or none}]
 * with scales of their own on the right; by: "step", "epoch" or "time"; range: [from, to]; epochs: [{x, name}];
 * log; band: [from, to] or null. Returns its scales {x, y} and its edges.
 */
export function drawPlot(pen, box, picture, look) {
  const edges = {
    left: box.left + LEFT,
    right: box.left + box.width - RIGHT - axisIn(box) * picture.more.length,
    top: box.top + TOP,
    bottom: box.top + box.height - BOTTOM,
  };
  const x = scaleOf(...picture.range, edges.left, edges.right);
  const seen = picture.lines.map((line) => ({
    ...line,
    ...cut(line, picture.range),
    smooth: line.smooth && cut(line.smooth, picture.range),
  }));
  const all = seen.flatMap(({ ys, smooth }) => (smooth ? [ys, smooth.ys] : [ys]));
  const log = picture.log && rangeOf(all, true) !== null;
  const y = scaleOf(...(rangeOf(all, log) ?? [0, 1]), edges.bottom, edges.top, log);
  pen.font = look.font;
  pen.lineJoin = "round";
  drawAcross(pen, look, edges, y);
  drawAlong(pen, look, edges, x, picture.by);
  drawEpochs(pen, look, edges, x, picture.epochs);
  pen.save();
  pen.beginPath();
  pen.rect(edges.left, edges.top - 4, edges.right - edges.left, edges.bottom - edges.top + 8);
  pen.clip();
  if (picture.band) drawBand(pen, look, edges, x, picture.band);
  for (const one of picture.more) drawMore(pen, edges, x, picture.range, one);
  const upwards = [...seen].reverse(); // the main line lies on top
  for (const line of upwards) drawRaw(pen, look, edges, x, y, line, seen.length === 1);
  for (const line of upwards) drawSmooth(pen, x, y, line);
  pen.restore();
  const limit = box.left + box.width;
  picture.more.forEach((one, i) => drawScale(pen, edges, one, i * axisIn(box), limit));
  return { x, y, edges };
}

const axisIn = ({ width }) => (width < NARROW ? NARROW_AXIS : AXIS);

/** What of a line lies in a range, and one more value on each side. */
function cut({ xs, ys }, [from, to]) {
  const low = Math.max(0, indexOf(xs, from) - 1);
  const high = Math.min(xs.length, indexOf(xs, to) + 2);
  return { xs: xs.slice(low, high), ys: ys.slice(low, high) };
}

function drawAcross(pen, look, { left, right }, y) {
  pen.lineWidth = 1;
  pen.strokeStyle = look.grid;
  pen.fillStyle = look.text;
  pen.textBaseline = "middle";
  pen.textAlign = "right";
  const marks = y.marks(5);
  const names = labelsOf(marks);
  for (const [i, value] of marks.entries()) {
    stroke(pen, left, y.at(value), right, y.at(value));
    pen.fillText(names[i], left - 8, y.at(value));
  }
}

function drawAlong(pen, look, { left, right, bottom }, x, by) {
  const unit = by === "time" ? unitOf(x.high - x.low) : { size: 1, name: by };
  const scale = scaleOf(x.low / unit.size, x.high / unit.size, left, right);
  const about = Math.max(3, (right - left) / 110);
  const marks = by === "step" ? scale.wholeMarks(about) : scale.marks(about);
  const names = labelsOf(marks);
  pen.fillStyle = look.text;
  pen.strokeStyle = look.grid;
  pen.textBaseline = "alphabetic";
  pen.textAlign = "left";
  let free = right + NEAR; // where the label to the right begins
  for (let i = marks.length - 1; i >= 0; i -= 1) {
    const place = x.at(marks[i] * unit.size);
    stroke(pen, place, bottom, place, bottom + 4);
    const number = by === "step" ? marks[i].toLocaleString("en") : names[i];
    const text =
      by === "time" ? `${number} ${unit.name}` : i === marks.length - 1 ? `${by} ${number}` : number;
    const width = pen.measureText(text).width;
    const begin = Math.max(left - 8, Math.min(right - width, place - width / 2));
    if (begin + width + 8 > free) continue;
    pen.fillText(text, begin, bottom + 18);
    free = begin;
  }
}

function drawEpochs(pen, look, { left, right, top, bottom }, x, epochs) {
  pen.strokeStyle = look.grid;
  pen.fillStyle = look.text;
  pen.textBaseline = "alphabetic";
  pen.textAlign = "left";
  let [drawn, named, first] = [-Infinity, -Infinity, true];
  for (const epoch of epochs) {
    const begin = x.at(epoch.x);
    const place = x.at(epoch.x + 0.5) >= left - 1 ? Math.max(begin, left) : begin; // half a step is no reason
    if (place < left - 1 || place > right || place - drawn < DENSE) continue;
    drawn = place;
    pen.setLineDash([2, 3]);
    stroke(pen, place, top, place, bottom);
    pen.setLineDash([]);
    const text = first ? `epoch ${epoch.name}` : epoch.name;
    const { width } = pen.measureText(text);
    if (place < named || place + width > right) continue;
    pen.fillText(text, place + 3, top - 8);
    named = place + Math.max(width + GAP, LEAST_GAP);
    first = false;
  }
}

/** The values themselves: faint where a smoothed course is drawn over them. */
function drawRaw(pen, look, edges, x, y, { xs, ys, smooth, colour, dash }, alone) {
  pen.strokeStyle = colour;
  pen.setLineDash(smooth ? [] : dash);
  pen.globalAlpha = smooth ? (alone ? RAW : RAW_BESIDE) : 1;
  pen.lineWidth = smooth ? 1 : 1.75;
  trace(pen, xs, ys, x, y);
  pen.globalAlpha = 1;
  pen.setLineDash([]);
  drawMissing(pen, look, edges, x, xs, ys);
}

function drawSmooth(pen, x, y, { smooth, colour, dash }) {
  if (!smooth) return;
  pen.strokeStyle = colour;
  pen.setLineDash(dash);
  pen.lineWidth = 2.25;
  trace(pen, smooth.xs, smooth.ys, x, y);
  pen.setLineDash([]);
}

/** Steps that had a loss no more (NaN) are marked at the bottom: a line that just ends tells nothing. */
function drawMissing(pen, look, { bottom }, x, xs, ys) {
  const begun = ys.findIndex((value) => value !== null);
  pen.fillStyle = look.danger;
  for (let i = begun + 1; begun >= 0 && i < ys.length; i += 1) {
    if (ys[i] === null) pen.fillRect(x.at(xs[i]) - 1, bottom - 5, 2, 5);
  }
}

function trace(pen, xs, ys, x, y) {
  pen.beginPath();
  let down = false;
  for (let i = 0; i < xs.length; i += 1) {
    if (ys[i] === null) {
      down = false;
      continue;
    }
    const [px, py] = [x.at(xs[i]), y.at(ys[i])];
    if (down) pen.lineTo(px, py);
    else {
      pen.moveTo(px, py);
      if (ys[i + 1] === null || i === xs.length - 1) pen.lineTo(px + 0.5, py); // a value on its own is a dot
    }
    down = true;
  }
  pen.stroke();
}

function moreScale({ top, bottom }, { ys }) {
  const [low, high] = rangeOf([ys]) ?? [0, 1];
  return scaleOf(low, high, bottom, top);
}

function drawMore(pen, edges, x, range, line) {
  const seen = cut(line, range);
  pen.strokeStyle = line.colour;
  pen.lineWidth = 1.5;
  pen.setLineDash(line.dash);
  trace(pen, seen.xs, seen.ys, x, moreScale(edges, line));
  pen.setLineDash([]);
}

/** A scale of its own on the right, in the colour of its line. */
function drawScale(pen, edges, line, inset, limit) {
  const left = edges.right + inset + 8;
  const y = moreScale(edges, line);
  pen.fillStyle = line.colour;
  pen.textAlign = "left";
  pen.textBaseline = "middle";
  const known = line.ys.filter((value) => value !== null);
  const marks = known.every((value) => value === known[0]) ? known.slice(0, 1) : y.marks(4);
  const names = line.label ? marks.map(line.label) : labelsOf(marks);
  for (const [i, value] of marks.entries()) pen.fillText(names[i], left, y.at(value));
  pen.textBaseline = "alphabetic";
  pen.fillText(line.short, Math.min(left, limit - pen.measureText(line.short).width), edges.top - 8);
}

function drawBand(pen, look, { top, bottom }, x, [from, to]) {
  const [left, right] = [x.at(Math.min(from, to)), x.at(Math.max(from, to))];
  pen.globalAlpha = 0.15;
  pen.fillStyle = look.line;
  pen.fillRect(left, top, right - left, bottom - top);
  pen.globalAlpha = 1;
}

/** Mark a place of a chart that was drawn, and the values there: {x, dots: [{x, y, colour}]}. */
export function drawCursor(pen, look, { x, y, edges }, { x: place, dots }) {
  const { left, right, top, bottom } = edges;
  if (x.at(place) < left - 1 || x.at(place) > right + 1) return;
  pen.strokeStyle = look.text;
  pen.lineWidth = 1;
  stroke(pen, x.at(place), top, x.at(place), bottom);
  for (const dot of dots) {
    pen.fillStyle = dot.colour;
    pen.beginPath();
    pen.arc(x.at(dot.x), y.at(dot.y), 4, 0, 2 * Math.PI);
    pen.fill();
  }
}

function stroke(pen, x1, y1, x2, y2) {
  pen.beginPath();
  pen.moveTo(x1, y1);
  pen.lineTo(x2, y2);
  pen.stroke();
}

const SHEET = { width: 1600, height: 900, ratio: 1.25, pad: 24, title: 22, row: 24 };

/** The chart as a picture to keep: title, legend [{name, colour, dash, loss}] and plot on one sheet. */
export function drawSheet({ title, legend, picture, look }) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [SHEET.width, SHEET.height];
  const pen = canvas.getContext("2d");
  const [width, height] = [SHEET.width / SHEET.ratio, SHEET.height / SHEET.ratio];
  pen.scale(SHEET.ratio, SHEET.ratio);
  pen.fillStyle = look.surface;
  pen.fillRect(0, 0, width, height);
  pen.fillStyle = look.strong;
  pen.font = `600 ${SHEET.title}px ${look.family}`;
  pen.textBaseline = "top";
  pen.fillText(title, SHEET.pad, SHEET.pad, width - 2 * SHEET.pad);
  pen.font = `14px ${look.family}`;
  pen.textBaseline = "middle";
  pen.textAlign = "left";
  const top = SHEET.pad + SHEET.title + 22;
  for (const [i, { name, colour, dash, loss }] of legend.entries()) {
    const y = top + i * SHEET.row;
    [pen.strokeStyle, pen.lineWidth] = [colour, 2.5];
    pen.setLineDash(dash);
    stroke(pen, SHEET.pad, y, SHEET.pad + 40, y);
    pen.setLineDash([]);
    pen.fillStyle = look.strong;
    const more = loss === null ? "" : `: last loss ${shownLoss(loss)}`;
    pen.fillText(name + more, SHEET.pad + 52, y, width - 2 * SHEET.pad - 52);
  }
  const begin = top + legend.length * SHEET.row;
  const box = {
    left: SHEET.pad / 2,
    top: begin,
    width: width - SHEET.pad,
    height: height - begin - SHEET.pad / 2,
  };
  drawPlot(pen, box, { ...picture, band: null }, { ...look, font: `13px ${look.family}` });
  return canvas;
}
