/** Fingers and mouse on the stage of pictures: they swipe, pan, pinch, or draw the wipe. */

const SWIPE_PX = 48;
const FITS = 0.02; // so near a pinch comes to the whole picture, it is meant

export class Gestures {
  #pointers = new Map(); // id -> {x, y}
  #now = null; // {kind: "swipe" | "pan" | "wipe" | "pinch" | null, x, y, gap}

  /** `isWiping()`: whether there is a wipe to draw; `swiped(x, y)`: px, the longer of both counts. */
  constructor(stage, { zoom, wipe, isWiping, swiped }) {
    Object.assign(this, { stage, zoom, wipe, isWiping, swiped });
    stage.addEventListener("pointerdown", (event) => this.#down(event));
    stage.addEventListener("pointermove", (event) => this.#move(event));
    stage.addEventListener("pointerup", (event) => this.#up(event));
    stage.addEventListener("pointercancel", (event) => this.#up(event));
    stage.addEventListener("dblclick", (event) => this.#twice(event));
    stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
  }

  /** The stage is gone, and with it every finger on it. */
  forget() {
    this.#pointers.clear();
    this.#now = null;
  }

  #down(event) {
    if (event.button) return;
    event.preventDefault();
    this.stage.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (this.#now?.kind === "wipe") this.wipe.putBack();
    this.#now = { kind: this.#kindOf(event), x: event.clientX, y: event.clientY, gap: this.#gap() };
    if (this.#now.kind === "wipe") this.wipe.hold();
  }

  #kindOf({ clientX, pointerType }) {
    if (this.#pointers.size > 1) return "pinch";
    if (this.isWiping() && (this.zoom.scale <= 1 || this.wipe.isNear(clientX))) return "wipe";
    if (this.zoom.scale > 1) return "pan";
    return pointerType === "mouse" ? null : "swipe";
  }

  #middle() {
    const all = [...this.#pointers.values()];
    const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
    return { x: mean(all.map(({ x }) => x)), y: mean(all.map(({ y }) => y)) };
  }

  #gap() {
    const [one, two] = this.#pointers.values();
    return two ? Math.hypot(one.x - two.x, one.y - two.y) : 0;
  }

  #move(event) {
    if (!this.#pointers.has(event.pointerId) || !this.#now) return;
    const before = this.#middle();
    this.#pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    const middle = this.#middle();
    const { kind, gap } = this.#now;
    if (kind === "wipe") this.wipe.to(event.clientX);
    if (kind === "pan" || kind === "pinch") this.zoom.move(middle.x - before.x, middle.y - before.y);
    if (kind === "pinch" && gap) {
      this.#now.gap = this.#gap();
      this.zoom.by(this.#now.gap / gap, middle);
    }
  }

  #up(event) {
    if (!this.#pointers.delete(event.pointerId)) return;
    const { kind, x, y } = this.#now ?? {};
    const lifted = event.type === "pointerup"; // and not taken away by the system
    if (kind === "wipe" && lifted) this.wipe.to(event.clientX);
    if (kind === "swipe" && lifted) this.#swipe(event.clientX - x, event.clientY - y);
    if (kind === "pinch" && Math.abs(this.zoom.scale - 1) < FITS) this.zoom.fit();
    this.#now = this.#pointers.size ? { kind: this.zoom.scale > 1 ? "pan" : null } : null;
  }

  #swipe(x, y) {
    if (Math.max(Math.abs(x), Math.abs(y)) >= SWIPE_PX) this.swiped(x, y);
  }

  #twice({ clientX: x, clientY: y }) {
    if (this.zoom.scale > 1 || this.zoom.isFull) this.zoom.fit();
    else this.zoom.by(Math.max(2, this.zoom.full), { x, y });
  }

  #wheel(event) {
    event.preventDefault();
    const { clientX: x, clientY: y } = event;
    this.zoom.by(Math.exp(-event.deltaY / (event.ctrlKey ? 100 : 400)), { x, y });
  }
}
