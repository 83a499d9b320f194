/**
 * Zoom and pan of pictures that are seen alike: at scale 1 each fits its pane. What counts is the picture, not the
 * element around it: it never leaves its pane, and is in the middle where it is smaller.
 */

const MOST = 8; // of 100 %

const within = (value, limit) => Math.min(Math.max(value, -limit), limit);

/** How much a picture is scaled to fit its pane; of one that is not loaded, 1. */
function fitting({ node, image }) {
  const box = node.getBoundingClientRect();
  const { naturalWidth: width, naturalHeight: height } = image;
  return width && box.width && box.height ? Math.min(box.width / width, box.height / height) : 1;
}

/** How far a picture at a scale reaches beyond its pane, to each side, in px. */
function reach(pane, scale) {
  const box = pane.node.getBoundingClientRect();
  const shown = fitting(pane) * scale;
  return {
    x: Math.max(0, (pane.image.naturalWidth * shown - box.width) / 2),
    y: Math.max(0, (pane.image.naturalHeight * shown - box.height) / 2),
  };
}

export class Zoom {
  scale = 1;
  x = 0; // px from the middle
  y = 0;

  /** `panes`: {node, image} each, the first one setting what 100 % is; `changed` is called after each change. */
  constructor(stage, panes, changed) {
    Object.assign(this, { stage, panes, changed });
  }

  /** The scale at which one pixel of the picture is one of the page. */
  get full() {
    return 1 / fitting(this.panes[0]);
  }

  get isFull() {
    return Math.abs(this.scale - this.full) < 0.001;
  }

  fit() {
    this.#look({ scale: 1, x: 0, y: 0 });
  }

  toFull() {
    if (this.isFull) this.fit();
    else this.by(this.full / this.scale);
  }

  /** Zoom by a factor, the point under the pointer staying where it is (px of the window), else the middle. */
  by(factor, point = null) {
    const box = (this.#paneAt(point) ?? this.panes[0]).node.getBoundingClientRect();
    const [px, py] = point ? [point.x - box.left - box.width / 2, point.y - box.top - box.height / 2] : [0, 0];
    const scale = this.#allowed(this.scale * factor);
    const times = scale / this.scale;
    this.#look({ scale, x: px - (px - this.x) * times, y: py - (py - this.y) * times });
  }

  move(x, y) {
    this.#look({ scale: this.scale, x: this.x + x, y: this.y + y });
  }

  /** Pictures or panes are others: keep within what they allow. */
  again() {
    this.#look(this);
  }

  #allowed(scale) {
    return Math.min(Math.max(scale, Math.min(1, this.full)), Math.max(1, this.full) * MOST);
  }

  #look({ scale, x, y }) {
    this.scale = this.#allowed(scale);
    const reaches = this.panes.filter(({ node }) => !node.hidden).map((pane) => reach(pane, this.scale));
    this.x = within(x, Math.max(...reaches.map((one) => one.x)));
    this.y = within(y, Math.max(...reaches.map((one) => one.y)));
    this.stage.style.setProperty("--zoom", String(this.scale));
    this.stage.style.setProperty("--x", `${this.x}px`);
    this.stage.style.setProperty("--y", `${this.y}px`);
    this.changed();
  }

  #paneAt(point) {
    return this.panes.find(({ node }) => {
      const box = node.getBoundingClientRect();
      return point && !node.hidden && point.x >= box.left && point.x <= box.right;
    });
  }
}
