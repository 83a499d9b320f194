/** The markup of the large loss chart: its dialog, tools, plot and texts. Does nothing by itself. */

import { el, icon } from "./dom.js";

const AXES = [
  ["step", "by step"],
  ["epoch", "by epoch"],
  ["time", "by time"],
];
const SMALL = "button button-small";
const KEYS =
  "Drag over a range to look closer, double-click for the whole run. Keys: ← → values, Home and End, + and − zoom, 0 the whole run.";

/**
 * Make the dialog. `state`: {smoothing, log, by, lr, vram}; `shares`: how many smoothings there are to choose from;
 * `on`: what the controls call: toggled(name, checked), zoomIn(), zoomOut(), whole(), png(); `legend` and `picker` are
 * nodes. Returns the nodes that change, by name.
 */
export function makeParts({ state, shares, on, legend, picker }) {
  const parts = {
    title: el("h2", { id: "curves-title", textContent: "Loss" }),
    by: axes(state.by),
    slider: slider(state.smoothing, shares),
    sliderText: el("span", { className: "small quiet numbers curve-share", id: "curve-smoothing-help" }),
    plus: button("Zoom in", on.zoomIn, `${SMALL} curve-zoom`, "+"),
    minus: button("Zoom out", on.zoomOut, `${SMALL} curve-zoom`, "−"),
    back: button("Whole run", on.whole, SMALL, "Whole run"),
    csv: el(
      "a",
      {
        className: SMALL,
        download: "",
        title: "Every step as a table",
        "aria-label": "CSV: download every step as a table",
      },
      icon("download"),
      "CSV",
    ),
    canvas: el("canvas"),
    ground: el("canvas"), // the lines, over which the cursor moves
    empty: el("p", { className: "chart-empty quiet", textContent: "Appears with the first training step." }),
    reading: el("p", { className: "numbers curve-reading" }),
    note: el("p", { className: "small quiet curve-note", role: "status" }),
  };
  parts.plot = plot(parts);
  const close = button("Close the chart", () => parts.dialog.close(), "icon-button", icon("close"));
  parts.dialog = el(
    "dialog",
    { className: "dialog curves", "aria-labelledby": "curves-title" },
    el("div", { className: "curve-head" }, parts.title, close),
    tools(parts, state, on),
    parts.plot,
    parts.reading,
    parts.note,
    legend,
    picker,
    el("p", { id: "curve-keys", className: "small quiet curve-keys", textContent: KEYS }),
  );
  return parts;
}

function button(label, action, className, ...content) {
  const node = el("button", { type: "button", className, "aria-label": label, title: label }, ...content);
  node.addEventListener("click", action);
  return node;
}

function axes(chosen) {
  const select = el("select", { className: "curve-by", "aria-label": "Along the bottom" });
  for (const [value, text] of AXES) select.append(new Option(text, value));
  select.value = chosen;
  return select;
}

function slider(value, shares) {
  const node = el("input", { type: "range", id: "curve-smoothing", min: 0, max: shares - 1, value });
  node.setAttribute("aria-describedby", "curve-smoothing-help");
  return node;
}

function plot({ canvas, empty }) {
  const named = { role: "slider", "aria-label": "Loss, a value at a time", "aria-describedby": "curve-keys" };
  return el("div", { className: "curve-plot", tabIndex: 0, ...named }, canvas, empty);
}

function tools(parts, state, on) {
  const toggle = (name, text) => {
    const box = el("input", { type: "checkbox", checked: state[name] });
    box.addEventListener("change", () => on.toggled(name, box.checked));
    return el("label", { className: "curve-toggle" }, box, el("span", { textContent: text, data: { for: name } }));
  };
  const label = el("label", { htmlFor: "curve-smoothing", textContent: "Smoothing" });
  const png = button("PNG: download the chart as a picture", on.png, SMALL, icon("download"), "PNG");
  return el(
    "div",
    { className: "curve-tools", role: "group", "aria-label": "Chart tools" },
    parts.by,
    toggle("log", "Log scale"),
    toggle("lr", "Learning rate"),
    toggle("vram", "VRAM"),
    el("div", { className: "curve-smoothing" }, label, parts.slider, parts.sliderText),
    el("div", { className: "curve-buttons" }, parts.minus, parts.plus, parts.back, png, parts.csv),
  );
}
