/** Two runs side by side: only what differs. Loaded at first use. */

import { get } from "./api.js";
import { closeOnBack } from "./back.js";
import { el, icon, needStyle } from "./dom.js";
import { count, loss, when } from "./format.js";
import { lossName, pageOf, stateTag, took, trained } from "./runwords.js";

/** Open the comparison of two rows of the board, the older one first. */
export async function compareRuns(a, b) {
  const query = new URLSearchParams({ a: a.id, b: b.id });
  const [found] = await Promise.all([get(`/api/runs/compare?${query}`), needStyle("rundetails.css")]);
  const dialog = el("dialog", { className: "sheet", "aria-labelledby": "compare-title" });
  const close = el("button", { className: "icon-button", "aria-label": "Close" }, icon("close"));
  dialog.append(
    el("div", { className: "sheet-head" }, el("h2", { id: "compare-title", textContent: "What differs" }), el("form", { method: "dialog" }, close)),
    el("div", { className: "sheet-body" }, table(a, b, found), el("p", { className: "small quiet", textContent: summary(found) })),
  );
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
  closeOnBack(dialog);
}

function summary({ rows, captions }) {
  if (!rows.length) return "Settings, flags, images, captions and versions are the same.";
  const more = captions ? ` The captions of ${count(captions, "image")} differ; a few are shown.` : "";
  return `Whatever is not listed is the same in both.${more}`;
}

function table(a, b, { rows }) {
  const pair = [a, b];
  const head = el(
    "tr",
    {},
    el("th", { scope: "col" }, el("span", { className: "visually-hidden", textContent: "What" })),
    ...pair.map((run) =>
      el("th", { scope: "col" }, el("a", { href: pageOf(run), textContent: run.name }), el("span", { className: "small quiet", textContent: when(run.started ?? run.created) })),
    ),
  );
  const outcome = [
    ["State", pair.map(stateTag)],
    [pair.map(lossName).find((name) => name !== "Final loss") ?? "Final loss", pair.map((run) => loss(trained(run).loss))],
    ["Duration", pair.map(took)],
    ["Steps", pair.map((run) => (trained(run).total ? `${trained(run).step ?? 0} / ${trained(run).total}` : "–"))],
  ];
  const groups = grouped(rows);
  return el(
    "table",
    { className: "compare numbers" },
    el("caption", { className: "visually-hidden", textContent: `${a.name} and ${b.name}: what differs` }),
    el("thead", {}, head),
    el("tbody", {}, ...outcome.map(([label, values]) => line(label, values))),
    ...[...groups].map(([title, found]) =>
      el(
        "tbody",
        {},
        el("tr", { className: "compare-group" }, el("th", { scope: "rowgroup", colSpan: 3, textContent: title })),
        ...found.map((row) => line(row.label, row.values.map(text))),
      ),
    ),
  );
}

function grouped(rows) {
  const groups = new Map();
  for (const row of rows) groups.set(row.group, [...(groups.get(row.group) ?? []), row]);
  return groups;
}

const text = (value) => (value === null ? "not known" : value === "" ? "–" : value);

const line = (label, values) =>
  el("tr", {}, el("th", { scope: "row", textContent: label }), ...values.map((value) => el("td", {}, value)));
