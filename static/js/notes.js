/** Notes on a run, saved as they are typed. */

import { at, put } from "./api.js";
import { debounced, el, say } from "./dom.js";

const SAVE_MS = 800;
const RETRY_MS = 4000;

/** A field for the notes of a run: {node, flush}. `tag` is that of `text`, by which a conflict is found. */
export function notesField(id, text, tag) {
  const area = el("textarea", { className: "input", id: "run-notes", rows: 3, value: text, maxLength: 20_000, placeholder: "What you tried, what you saw" });
  const mark = el("span", { className: "small quiet", role: "status" });
  const conflict = el("div", { className: "notice notice-warn", hidden: true });
  let base = tag;
  let saved = text;

  async function save(over = base) {
    const typed = area.value;
    if (typed === saved && over === base) return;
    try {
      const answer = await put(at("jobs", id, "notes"), { text: typed, base: over });
      [base, saved] = [answer.tag, typed];
      conflict.hidden = true;
      say(mark, area.value === typed ? "Saved" : "");
    } catch (error) {
      if (error.status === 409) return ask(error.body);
      say(mark, `Not saved: ${error.whole}`);
      if (error.status === 0) setTimeout(later, RETRY_MS);
    }
  }

  const later = debounced(() => save(), SAVE_MS);

  /** Somebody else wrote meanwhile: show both, keep neither from the person. */
  function ask(theirs) {
    say(mark, "Not saved");
    const keep = el("button", { type: "button", className: "button button-small", textContent: "Keep mine" });
    const take = el("button", { type: "button", className: "button button-small", textContent: "Take the other" });
    keep.addEventListener("click", () => (save(theirs.tag), area.focus()));
    take.addEventListener("click", () => {
      [area.value, saved, base] = [theirs.text, theirs.text, theirs.tag];
      conflict.hidden = true;
      say(mark, "");
      area.focus();
    });
    conflict.replaceChildren(
      el(
        "div",
        {},
        el("p", { textContent: "These notes were changed elsewhere meanwhile. There they say:" }),
        el("p", { className: "notes-theirs", textContent: theirs.text || "(nothing)" }),
        el("div", { className: "row notice-actions" }, keep, take),
      ),
    );
    conflict.hidden = false;
  }

  area.addEventListener("input", () => {
    say(mark, "");
    if (conflict.hidden) later();
  });
  const head = el("div", { className: "field-head" }, el("label", { htmlFor: "run-notes", textContent: "Notes" }), mark);
  return { node: el("div", { className: "sheet-part sheet-notes" }, head, area, conflict), flush: () => later.flush() };
}
