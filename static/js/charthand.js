/** Mouse, fingers and keys on the plot of a chart: they point, zoom, pan and choose a range. */

const ZOOM = 1.6; // of a press
const WHEEL = 1.2; // of a notch
const DRAG_PX = 5; // less is a click
const MOVES = {
  ArrowLeft: -1,
  ArrowDown: -1,
  ArrowRight: 1,
  ArrowUp: 1,
  PageDown: -10,
  PageUp: 10,
  Home: -Infinity,
  End: Infinity,
};
const ZOOMS = { "+": 1 / ZOOM, "=": 1 / ZOOM, "-": ZOOM, "−": ZOOM };

export class Hand {
  /**
   * `scales()`: those of the last drawing {x, edges}, or null; `view`: a View; `point(place)` points at a place of the
   * axis, null at none; `step(by)` goes so many values on; `cursor()`: the place pointed at; `redraw()`.
   */
  constructor(plot, { scales, view, point, step, cursor, redraw }) {
    Object.assign(this, { plot, scales, view, point, step, cursor, redraw });
    this.pointers = new Map(); // id -> last event
    this.drag = null; // {from, at, to} of the mouse, `to` once it is one
    this.pinch = null; // the places two fingers were put on
    plot.addEventListener("keydown", (event) => this.key(event));
    plot.addEventListener("pointerdown", (event) => this.down(event));
    plot.addEventListener("pointermove", (event) => this.move(event));
    for (const type of ["pointerup", "pointercancel"]) plot.addEventListener(type, (event) => this.up(event));
    plot.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse" && !this.pointers.size) this.point(null);
    });
    plot.addEventListener("dblclick", () => this.view.show(null));
    plot.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  /** The range that is being drawn with the mouse, or null. */
  get band() {
    return this.drag?.to === undefined ? null : [this.drag.from, this.drag.to];
  }

  /** Show more or less, around what is pointed at. */
  zoom(closer) {
    this.view.zoom(closer ? 1 / ZOOM : ZOOM, this.cursor());
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in ZOOMS) this.view.zoom(ZOOMS[event.key], this.cursor());
    else if (event.key === "0") this.view.show(null);
    else if (!(event.key in MOVES) || !this.step(MOVES[event.key])) return;
    event.preventDefault();
  }

  x(event) {
    return event.clientX - this.plot.getBoundingClientRect().left;
  }

  placeOf(event) {
    return this.scales()?.x.value(this.x(event)) ?? null;
  }

  down(event) {
    if (!this.scales() || event.button > 0) return;
    this.plot.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event);
    this.plot.focus({ preventScroll: true });
    if (event.pointerType === "mouse" && !event.shiftKey)
      this.drag = { from: this.placeOf(event), at: event.clientX };
    if (this.pointers.size === 2) this.pinch = [...this.pointers.values()].map((one) => this.placeOf(one));
    this.point(this.placeOf(event));
  }

  move(event) {
    if (!this.scales()) return;
    if (this.pointers.has(event.pointerId)) this.pointers.set(event.pointerId, event);
    if (this.pinch && this.pointers.size === 2) return this.pinched();
    if (this.drag && Math.abs(event.clientX - this.drag.at) > DRAG_PX) this.drag.to = this.placeOf(event);
    this.point(this.placeOf(event));
    if (this.drag) this.redraw();
  }

  /** Two fingers keep the values they were put on. */
  pinched() {
    const [a, b] = [...this.pointers.values()].map((one) => this.x(one));
    const [from, to] = this.pinch;
    if (Math.abs(a - b) < 20 || from === to) return;
    const { left, right } = this.scales().edges;
    const unit = (to - from) / (b - a);
    if (unit > 0) this.view.show([from - (a - left) * unit, from + (right - a) * unit]);
  }

  up(event) {
    this.pointers.delete(event.pointerId);
    if (this.pointers.size < 2) this.pinch = null;
    const { band } = this;
    this.drag = null;
    if (band && event.type === "pointerup") this.view.show(band);
    else this.redraw();
  }

  wheel(event) {
    if (!this.scales()) return;
    const sideways = event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
    const amount = event.deltaX || event.deltaY;
    if (!sideways && event.deltaY > 0 && !this.view.range) return; // nothing to zoom out of: the dialog scrolls
    event.preventDefault();
    if (sideways) this.view.pan(Math.sign(amount) * 0.1);
    else this.view.zoom(WHEEL ** Math.sign(event.deltaY), this.placeOf(event));
  }
}
