/** The runs in a chart as a table: how each line looks, and its values. On a narrow screen each run is a block. */

import { el, find, findAll, icon, say } from "./dom.js";
import { loss as shownLoss } from "./format.js";
import { isLost, redraw } from "./keepfocus.js";
import { nameOf } from "./runpicker.js";

const HEADS = ["At the cursor", "Smoothed", "Last loss", "Lowest"];

export class Legend {
  /** `onOut(id)`: a run is to be taken out; `fallback` gets the focus when no run is left to take out. */
  constructor({ onOut, fallback }) {
    Object.assign(this, { onOut, fallback });
    this.body = el("tbody");
    const heads = ["Run", ...HEADS].map((text) => el("th", { scope: "col", textContent: text }));
    const out = el("th", {}, el("span", { className: "visually-hidden", textContent: "Take out" }));
    const caption = el("caption", { className: "visually-hidden", textContent: "Runs in the chart" });
    const table = el("table", { className: "curve-legend small numbers" }, caption);
    table.append(el("thead", {}, el("tr", {}, ...heads, out)), this.body);
    this.node = el("div", { className: "curve-scroll" }, table);
  }

  /** Show lines [{line, colour, dash, atCursor, smoothed}]: a Series, and the values at the cursor or null. */
  draw(rows) {
    const mark = rows.map(({ line }) => `${line.id} ${line.gone}`).join();
    if (this.body.dataset.runs !== mark) {
      this.body.dataset.runs = mark;
      redraw(this.body, () => this.body.replaceChildren(...rows.map((row, i) => this.row(row, i))));
      if (isLost()) this.fallback().focus();
    }
    for (const [i, { line, colour, dash, atCursor, smoothed }] of rows.entries()) {
      const row = this.body.rows[i];
      const { facts } = line;
      const lowest = facts ? `${shownLoss(facts.least)} at ${facts.leastAt.toLocaleString("en")}` : "–";
      const values = [shownLoss(atCursor), shownLoss(smoothed), shownLoss(facts?.last), lowest];
      findAll("td[data-head]", row).forEach((cell, k) => say(cell, values[k]));
      drawSwatch(find("canvas", row), colour, dash);
    }
  }

  row({ line }, index) {
    const swatch = el("canvas", { className: "curve-swatch", "aria-hidden": "true" });
    const gone = line.gone ? " (deleted)" : "";
    const text = el("span", { textContent: nameOf(line.job) + gone });
    const name = el("th", { scope: "row" }, el("div", { className: "curve-name" }, swatch, text));
    const cells = HEADS.map((head) => el("td", { data: { head } }));
    return el("tr", { data: { key: line.id } }, name, ...cells, el("td", {}, index > 0 ? this.outButton(line) : null));
  }

  outButton(line) {
    const label = `Take ${nameOf(line.job)} out`;
    const button = el("button", { type: "button", className: "icon-button", "aria-label": label }, icon("close"));
    button.addEventListener("click", () => this.onOut(line.id));
    return button;
  }
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
