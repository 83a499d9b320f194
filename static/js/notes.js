/** Notes on a run, saved as they are typed. What could not be saved is kept in this browser until it is. */

import { at, put } from "./api.js";
import { complain } from "./dialogs.js";
import { debounced, el, say, stored } from "./dom.js";

const SAVE_MS = 800;
const RETRY_MS = 4000;
const MOST_ALIVE = 10_000; // characters: a browser sends at most 64 KB on when the page is gone
const KEPT = "musubitlx:notes:"; // + the run: {text, base, sent: what was on its way to the server}

const apart = new Map(); // the same, where the browser has no storage

/** A field for the notes of a run: {node, leave}. `tag` is that of `text`, by which a conflict is found. */
export function notesField(id, text, tag) {
  const area = el("textarea", { className: "input", id: "run-notes", rows: 3, value: text, maxLength: 20_000, placeholder: "What you tried, what you saw" });
  const mark = el("span", { className: "small quiet", role: "status" });
  const conflict = el("div", { className: "notice notice-warn", hidden: true });
  let base = tag;
  let saved = text;
  let sent = null; // on its way to the server
  let under = Promise.resolve(); // the saves, one after the other
  let left = false;

  /** Its turn comes when the save before it is over: only then is it known what it is based on. */
  function save() {
    under = under.then(send);
    return under;
  }

  async function send() {
    const typed = area.value;
    if (typed === saved || !conflict.hidden) return;
    sent = typed;
    try {
      const keepalive = typed.length < MOST_ALIVE;
      const answer = await put(at("jobs", id, "notes"), { text: typed, base }, { keepalive });
      [base, saved] = [answer.tag, typed];
      say(mark, area.value === typed ? "Saved" : "");
      if (area.value === typed) drop(id);
    } catch (error) {
      failed(error);
    } finally {
      sent = null;
    }
  }

  function failed(error) {
    if (error.status === 409) return ask(error.body);
    say(mark, `Not saved: ${error.whole}`);
    if (error.status === 404) drop(id); // the run was deleted, and its notes with it
    else if (error.status === 0 && !left) setTimeout(later, RETRY_MS);
  }

  const later = debounced(save, SAVE_MS);

  /** Somebody else wrote meanwhile: show both, keep neither from the person. */
  function ask(theirs) {
    say(mark, "Not saved");
    const keepMine = el("button", { type: "button", className: "button button-small", textContent: "Keep mine" });
    const take = el("button", { type: "button", className: "button button-small", textContent: "Take the other" });
    keepMine.addEventListener("click", () => {
      [base, saved] = [theirs.tag, theirs.text];
      settle();
      save();
    });
    take.addEventListener("click", () => {
      [area.value, saved, base] = [theirs.text, theirs.text, theirs.tag];
      drop(id);
      settle();
    });
    conflict.replaceChildren(
      el(
        "div",
        {},
        el("p", { textContent: "These notes were changed elsewhere meanwhile. There they say:" }),
        el("p", { className: "notes-theirs", textContent: theirs.text || "(nothing)" }),
        el("div", { className: "row notice-actions" }, keepMine, take),
      ),
    );
    conflict.hidden = false;
  }

  function settle() {
    conflict.hidden = true;
    say(mark, "");
    area.focus();
  }

  /** Nothing typed is lost with the page: it goes to the server at once, and stays here until that is known. */
  function hurry() {
    later.cancel();
    if (area.value === saved) return drop(id);
    keep(id, { text: area.value, base, sent });
    save();
  }

  const hidden = () => document.hidden && hurry();
  window.addEventListener("pagehide", hurry);
  document.addEventListener("visibilitychange", hidden);

  /** The field goes: save, or say that what was typed waits for a decision. */
  async function leave() {
    left = true;
    window.removeEventListener("pagehide", hurry);
    document.removeEventListener("visibilitychange", hidden);
    hurry();
    await under;
    if (kept(id)) complain({ message: why() });
  }

  const why = () =>
    conflict.hidden
      ? "Your notes are not saved yet. They are kept in this browser: open the details of the run again to save them."
      : "Your notes are not saved, they were changed elsewhere meanwhile. Yours are kept in this browser: open the details of the run again to choose.";

  /** What was typed and not saved when the field was there last. */
  function takeUp(draft) {
    if (!draft || same(draft.text, text)) return drop(id);
    area.value = draft.text;
    if (draft.base === tag || same(draft.sent, text)) later();
    else {
      base = draft.base; // as long as nobody has chosen, it is typed over what stood there then
      ask({ text, tag });
    }
  }

  area.addEventListener("input", () => {
    say(mark, "");
    if (conflict.hidden) later();
  });
  takeUp(kept(id));
  const head = el("div", { className: "field-head" }, el("label", { htmlFor: "run-notes", textContent: "Notes" }), mark);
  return { node: el("div", { className: "sheet-part sheet-notes" }, head, area, conflict), leave };
}

/** The server stores notes without blanks around them. */
const same = (typed, text) => typeof typed === "string" && typed.trim() === text.trim();

// -- what is kept in this browser -----------------------------------------------------------------

function keep(id, entry) {
  apart.set(id, entry);
  try {
    localStorage.setItem(KEPT + id, JSON.stringify(entry));
  } catch {
    // No storage, or it is full: it is kept as long as this page.
  }
}

function drop(id) {
  apart.delete(id);
  try {
    localStorage.removeItem(KEPT + id);
  } catch {
    // see keep()
  }
}

function kept(id) {
  try {
    const entry = JSON.parse(stored(KEPT + id) || "null") ?? apart.get(id);
    return typeof entry?.text === "string" ? entry : null;
  } catch {
    return null;
  }
}
