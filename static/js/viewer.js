/** An image in full, with its crop and its caption; arrow keys lead through the list. Loaded at first use. */

import { closeOnBack } from "./back.js";
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
let walk = []; // the cards one can walk through: those that were shown when it opened

/** Open the viewer on a card's image. */
export function view(one) {
  walk = allCards().filter((other) => !other.node.hidden || other === one);
  show(one);
  dialog.showModal();
  closeOnBack(dialog);
  picture.focus();
}

function show(one) {
  card = one;
  const { image } = card;
  walk = walk.filter((other) => other.node.isConnected);
  picture.src = image.url;
  picture.alt = `Image ${card.index}: ${image.name}`;
  frame.style.setProperty("--ratio", String((image.width || 1) / (image.height || 1)));
  area.value = card.text;
  const place = walk.indexOf(card);
  say(find("[data-viewer-title]", dialog), image.name);
  say(find("[data-viewer-place]", dialog), `${place + 1} of ${walk.length}`);
  drawMark();
  drawFacts();
  find("[data-viewer-back]", dialog).disabled = place <= 0;
  find("[data-viewer-on]", dialog).disabled = place === walk.length - 1;
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
  const next = walk[walk.indexOf(card) + step];
  if (next) show(next);
}

/** Whether the caption is saved. Somebody else's change is settled on the card. */
function drawMark() {
  const mark = find("[data-viewer-saved]", dialog);
  mark.dataset.tone = card.mark.dataset.tone ?? "";
  say(mark, card.mark.textContent + (card.error.hidden ? "" : `: ${card.error.textContent}`));
  if (card.conflict && dialog.open) dialog.close();
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
  card.node.hidden = false; // the filter may have left it out while it was edited here
  card.node.scrollIntoView({ block: "nearest" });
  find(card.conflict ? "textarea" : "[data-view]", card.node).focus();
});
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
area.addEventListener("input", () => card.write(area.value));
area.addEventListener("blur", () => card.later.flush());
crop.addEventListener("change", drawFacts);
find("[data-viewer-back]", dialog).addEventListener("click", () => go(-1));
find("[data-viewer-on]", dialog).addEventListener("click", () => go(1));
document.addEventListener("captions:marked", (event) => dialog.open && event.detail === card && drawMark());
document.addEventListener("images:drawn", () => {
  if (!dialog.open) return;
  const still = allCards().find((one) => one.name === card.name);
  if (still) show(still);
  else dialog.close();
});
