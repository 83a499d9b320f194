/** An image in full, with its crop and its caption; arrow keys lead through the list. Loaded at first use. */

import { cutOff, drawCrop } from "./card.js";
import { find, say } from "./dom.js";
import { allCards } from "./images.js";
import { bytes } from "./format.js";

const dialog = find("[data-viewer]");
const picture = find("[data-viewer-picture]", dialog);
const frame = find(".viewer-frame", dialog);
const area = find("textarea", dialog);
const crop = find("[data-viewer-crop]", dialog);

let card = null;

/** Open the viewer on a card's image. */
export function view(one) {
  show(one);
  dialog.showModal();
  picture.focus();
}

/** The cards one can walk through: those the filter shows. */
const shown = () => allCards().filter((one) => !one.node.hidden);

function show(one) {
  card = one;
  const { image } = card;
  const all = shown();
  picture.src = image.url;
  picture.alt = `Image ${card.index}: ${image.name}`;
  frame.style.setProperty("--ratio", String((image.width || 1) / (image.height || 1)));
  area.value = card.text;
  const place = all.indexOf(card);
  say(find("[data-viewer-title]", dialog), image.name);
  say(find("[data-viewer-place]", dialog), `${place + 1} of ${all.length}`);
  drawFacts();
  find("[data-viewer-back]", dialog).disabled = place <= 0;
  find("[data-viewer-on]", dialog).disabled = place < 0 || place === all.length - 1;
}

function drawFacts() {
  const { width, height, bucket, bytes: size } = card.image;
  drawCrop(frame, crop.checked ? bucket : null);
  const parts = [width ? `${width} × ${height} px` : "size unknown", bytes(size)];
  if (bucket) {
    const cut = Math.round(100 * cutOff(bucket));
    parts.push(`trained at ${bucket.width} × ${bucket.height}${cut ? `, ${cut} % cut off` : ""}`);
    if (bucket.scale > 1.005) parts.push(`enlarged ${bucket.scale.toFixed(2)} times`);
  }
  say(find("[data-viewer-facts]", dialog), parts.join(" · "));
}

function go(step) {
  const all = shown();
  const next = all[all.indexOf(card) + step];
  if (next) show(next);
}

const STEPS = { ArrowLeft: -1, ArrowUp: -1, PageUp: -1, ArrowRight: 1, ArrowDown: 1, PageDown: 1 };

function pressed(event) {
  const typing = event.target === area;
  const step = STEPS[event.key];
  if (event.ctrlKey || event.altKey || event.metaKey || !step) return;
  if (typing && event.key.startsWith("Arrow")) return; // they move the cursor
  event.preventDefault();
  go(step);
}

dialog.addEventListener("keydown", pressed);
dialog.addEventListener("close", () => {
  card.later.flush();
  card.node.scrollIntoView({ block: "nearest" });
  find("[data-view]", card.node).focus();
});
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
area.addEventListener("input", () => card.write(area.value));
area.addEventListener("blur", () => card.later.flush());
crop.addEventListener("change", drawFacts);
find("[data-viewer-back]", dialog).addEventListener("click", () => go(-1));
find("[data-viewer-on]", dialog).addEventListener("click", () => go(1));
document.addEventListener("images:drawn", () => {
  if (!dialog.open) return;
  const still = allCards().find((one) => one.name === card.name);
  if (still) show(still);
  else dialog.close();
});
