/** Questions and short messages. Markup: <dialog data-confirm>, <div data-toasts>. */

import { closeOnBack } from "./back.js";
import { el, find, icon } from "./dom.js";
import { hold, isLost } from "./keepfocus.js";

const TOAST_MS = 6000;
const UNDO_MS = 12_000; // at least, with a button: it has to be read, found and reached
const MOST = 4; // messages at once

/**
 * Ask before something that can't be undone. Resolves to true when the person agrees, to "also" for the milder
 * choice that `also` names.
 */
export function confirmed({ title, text, yes, no = "Cancel", also = "" }) {
  const dialog = find("[data-confirm]");
  find("[data-confirm-title]", dialog).textContent = title;
  find("[data-confirm-text]", dialog).textContent = text;
  find("[data-confirm-yes]", dialog).textContent = yes;
  find("[data-confirm-no]", dialog).textContent = no;
  const milder = find("[data-confirm-also]", dialog);
  milder.hidden = !also;
  milder.textContent = also;
  dialog.returnValue = "";
  const back = hold(document.activeElement);
  dialog.showModal();
  closeOnBack(dialog);
  return new Promise((resolve) => {
    const answer = () => (dialog.returnValue === "also" ? "also" : dialog.returnValue === "yes");
    const closed = () => {
      if (isLost()) back(); // what asked was drawn anew meanwhile
      resolve(answer());
    };
    dialog.addEventListener("close", closed, { once: true });
  });
}

/**
 * Say in a corner that something was done; `undo`: what a button beside it does, for as long as it stands.
 * It goes after `stays_ms`, counted anew once focus and pointer have left the messages.
 */
export function toast(text, { undo = null, label = "Undo", stays_ms = TOAST_MS } = {}) {
  const box = show(text, "good", "toast");
  going.set(box, { stays_ms: undo ? Math.max(stays_ms, UNDO_MS) : stays_ms, timer: null });
  countDown();
  if (!undo) return;
  const button = el("button", { type: "button", className: "button button-small", textContent: label });
  button.addEventListener("click", () => {
    dismiss(box);
    undo();
  });
  box.lastElementChild.before(button);
}

/** Say in a corner that something failed; stays until closed. The same once more takes the place of the first. */
export function complain(error) {
  const text = error.whole ?? error.message;
  const same = [...toasts.querySelectorAll(".toast-danger")].find((box) => find("p", box).textContent === text);
  if (same?.contains(document.activeElement)) return;
  same?.remove();
  show(text, "bad", "toast toast-danger");
}

// -- the messages in the corner ---------------------------------------------------------------------

const toasts = find("[data-toasts]");
const going = new Map(); // message -> {stays_ms, timer}: those that go by themselves
let back = null; // gives the focus back to where it was before it came to the messages
let pointed = false; // the pointer is among them; :hover would go on after a tap

function show(text, mark, className) {
  const close = el(
    "button",
    { type: "button", className: "icon-button", "aria-label": "Close the message" },
    icon("close"),
  );
  const box = el("div", { className }, icon(mark), el("p", { textContent: text }), close);
  close.addEventListener("click", () => dismiss(box));
  if (toasts.childElementCount >= MOST) dismiss(oldest());
  toasts.append(box);
  return box;
}

/** The message to make room with: one that would go anyway, but not one that somebody is in. */
function oldest() {
  const free = [...toasts.children].filter((box) => !box.contains(document.activeElement));
  return free.find((box) => going.has(box)) ?? free[0];
}

function dismiss(box) {
  const held = box.contains(document.activeElement);
  clearTimeout(going.get(box)?.timer);
  going.delete(box);
  box.remove();
  if (!toasts.childElementCount) pointed = false;
  if (held) back?.();
  if (held) back = null;
  countDown();
}

/** While somebody is among the messages none goes: a button must not vanish under the finger. */
function countDown() {
  const waits = pointed || toasts.contains(document.activeElement);
  for (const [box, one] of going) {
    if (waits) {
      clearTimeout(one.timer);
      one.timer = null;
    } else one.timer ??= setTimeout(dismiss, one.stays_ms, box);
  }
}

toasts.addEventListener("focusin", ({ relatedTarget }) => {
  back ??= hold(relatedTarget ?? document.body);
  countDown();
});
const left = () => {
  if (!toasts.contains(document.activeElement)) back = null; // else only the window was left
  countDown();
};
toasts.addEventListener("focusout", () => setTimeout(left)); // once the focus is elsewhere
for (const type of ["pointerenter", "pointerleave"]) {
  toasts.addEventListener(type, () => {
    pointed = type === "pointerenter";
    countDown();
  });
}
