/** Questions and short messages. Markup: <dialog data-confirm>, <div data-toasts>. */

import { el, find, icon } from "./dom.js";

const TOAST_MS = 6000;

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
  dialog.showModal();
  return new Promise((resolve) => {
    const answer = () => (dialog.returnValue === "also" ? "also" : dialog.returnValue === "yes");
    dialog.addEventListener("close", () => resolve(answer()), { once: true });
  });
}

/** Say in a corner that something was done; `undo`: what a button beside it does, for as long as it stands. */
export function toast(text, { undo = null, label = "Undo", stays_ms = TOAST_MS } = {}) {
  const box = show(text, "good", "toast");
  const timer = setTimeout(() => box.remove(), stays_ms);
  if (!undo) return;
  const button = el("button", { type: "button", className: "button button-small", textContent: label });
  button.addEventListener("click", () => {
    clearTimeout(timer);
    box.remove();
    undo();
  });
  box.lastElementChild.before(button);
}

/** Say in a corner that something failed; stays until closed. */
export function complain(error) {
  show(error.whole ?? error.message, "bad", "toast toast-danger");
}

function show(text, mark, className) {
  const close = el(
    "button",
    { type: "button", className: "icon-button", "aria-label": "Close the message" },
    icon("close"),
  );
  const box = el("div", { className }, icon(mark), el("p", { textContent: text }), close);
  close.addEventListener("click", () => box.remove());
  const toasts = find("[data-toasts]");
  if (toasts.childElementCount > 3) toasts.firstElementChild.remove();
  toasts.append(box);
  return box;
}
