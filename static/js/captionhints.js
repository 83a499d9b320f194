/** Problems as captioning tells them: a sentence, and what to do; a command to type can be copied. */

import { copyText, el, icon, say } from "./dom.js";

const COMMAND = /^(.*?\bwith:) {2,}(\S.*?)(?: {2,}(.*))?$/s; // "Install it with:  pip install …", and perhaps more

/** One problem as a row of a list. `tone`: "danger" or "warn". */
export function problemRow({ error, hint }, tone = "danger") {
  const row = el("li", { className: "problem", data: { tone } }, icon(tone === "warn" ? "warn" : "bad"));
  row.append(el("div", {}, el("span", { textContent: error }), ...remedy(hint)));
  return row;
}

/** What to do about it, as nodes. */
export function remedy(hint) {
  if (!hint) return [];
  const [, lead, command, more] = COMMAND.exec(hint) ?? [];
  if (!command) return [el("span", { className: "quiet", textContent: ` ${hint}` })];
  const copy = el("button", { type: "button", className: "button button-small", textContent: "Copy" });
  copy.append(el("span", { className: "visually-hidden", textContent: " the command" }));
  copy.addEventListener("click", async () => say(copy, (await copyText(command)) ? "Copied" : "Not allowed by the browser"));
  return [
    el("span", { className: "quiet", textContent: ` ${lead}` }),
    el("div", { className: "cap-command" }, el("code", { className: "mono", textContent: command }), copy),
    ...(more ? [el("span", { className: "quiet", textContent: more })] : []),
  ];
}
