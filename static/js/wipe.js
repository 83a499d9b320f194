/** The wipe over two pictures, the second one right of its edge: a slider, and a place on the stage. */

import { el } from "./dom.js";

const NEAR_PX = 28; // of the edge, which can be taken there also while zoomed

export class Wipe {
  #held = null; // where it was when a finger came

  constructor(stage) {
    this.stage = stage;
    this.names = ["", ""];
    this.slider = el("input", { type: "range", id: "lightbox-wipe", min: 0, max: 100, step: 1, value: 50 });
    this.edge = el("div", { className: "lightbox-edge", "aria-hidden": "true" });
    stage.append(this.edge);
    this.slider.addEventListener("input", () => this.draw());
  }

  /** Say what is left and right of it. */
  name(left, right) {
    this.names = [left, right];
    this.draw();
  }

  draw() {
    const [left, right] = this.names;
    const { value } = this.slider;
    this.stage.style.setProperty("--wipe", `${value}%`);
    this.slider.setAttribute("aria-valuetext", `${value} % ${left}, ${100 - value} % ${right}`);
  }

  /** A finger came down: it may mean the wipe, or be the first of two. */
  hold() {
    this.#held = this.slider.value;
  }

  /** It was the first of two. */
  putBack() {
    this.slider.value = this.#held;
    this.draw();
  }

  /** To a place of the window. */
  to(clientX) {
    const box = this.stage.getBoundingClientRect();
    this.slider.value = String(Math.round((100 * (clientX - box.left)) / box.width));
    this.draw();
  }

  isNear(clientX) {
    const box = this.stage.getBoundingClientRect();
    return Math.abs(clientX - box.left - (box.width * this.slider.value) / 100) < NEAR_PX;
  }
}
