/** Choosing earlier runs to lay over one: those of the same folder first. Makes its own markup. */

import { el, find, findAll, icon, say } from "./dom.js";
import { loss, STATES, when } from "./format.js";

const MOST = 5; // runs beside the first: more lines can't be told apart
const MANY = 8; // runs from which a filter helps

/** What a run is called where several are listed. */
export const nameOf = (job) => `${job.title.replace(/^Training /, "")}, ${when(job.started ?? job.created)}`;

export class Picker {
  /** `onAdd(job)` and `onRemove(id)` are told what was chosen. */
  constructor({ onAdd, onRemove }) {
    this.tell = { onAdd, onRemove };
    this.filter = el("input", {
      type: "search",
      className: "input",
      "aria-label": "Filter the runs",
      placeholder: "Filter by name or folder",
    });
    this.filter.addEventListener("input", () => this.sift());
    this.list = el("div", { className: "curve-runs" });
    this.full = el("p", { className: "small quiet", role: "status" });
    const mark = icon("chevron");
    mark.classList.add("chevron");
    this.count = el("span", { textContent: "Compare with other runs" });
    this.node = el(
      "details",
      { className: "disclosure curve-compare" },
      el("summary", {}, mark, this.count),
      this.filter,
      this.list,
      this.full,
    );
  }

  /** Offer every training with a loss but `own`; `chosen` are the ids of those in the chart. */
  offer(jobs, own, chosen) {
    const runs = jobs.filter(
      (job) => job.kind === "train" && job.id !== own.id && Number.isFinite(job.progress?.loss),
    );
    const near = runs.filter((job) => job.project === own.project);
    const far = runs.filter((job) => job.project !== own.project);
    const groups = [
      [own.project ? `Folder ${own.project}` : "Without a folder", near, true],
      [near.length ? "Other folders" : "All folders", far, false],
    ];
    this.list.replaceChildren(
      ...groups.filter(([, some]) => some.length).map(([title, ...rest]) => this.group(title, ...rest)),
    );
    if (!runs.length)
      this.list.append(
        el("p", { className: "small quiet", textContent: "There is no other run with a loss yet." }),
      );
    this.filter.hidden = runs.length < MANY;
    this.mark(chosen);
  }

  group(title, jobs, isNamed) {
    const rows = jobs.map((job) => this.row(job, isNamed));
    return el(
      "fieldset",
      { className: "curve-group" },
      el("legend", { className: "small", textContent: title }),
      ...rows,
    );
  }

  /** `isNamed`: the group says which folder it is from. */
  row(job, isNamed) {
    const box = el("input", { type: "checkbox", value: job.id });
    box.addEventListener("change", () => {
      if (box.checked) this.tell.onAdd(job);
      else this.tell.onRemove(job.id);
      this.mark(findAll("input:checked", this.list).map((one) => one.value));
    });
    const facts = `${STATES[job.state]}, loss ${loss(job.progress.loss)}${job.project && !isNamed ? ` · ${job.project}` : ""}`;
    return el(
      "label",
      { className: "curve-run" },
      box,
      el("span", { textContent: nameOf(job) }),
      el("span", { className: "small quiet numbers", textContent: facts }),
    );
  }

  /** Tick what is in the chart; with as many as it bears, the others can't be chosen. */
  mark(chosen) {
    for (const box of findAll("input", this.list)) {
      box.checked = chosen.includes(box.value);
      box.disabled = !box.checked && chosen.length >= MOST;
    }
    say(this.count, chosen.length ? `Compare with other runs (${chosen.length})` : "Compare with other runs");
    say(
      this.full,
      chosen.length >= MOST
        ? `${MOST} runs are as many as can be told apart: take one out to choose another.`
        : "",
    );
  }

  sift() {
    const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of findAll(".curve-run", this.list)) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    for (const group of findAll("fieldset", this.list))
      group.hidden = !find(".curve-run:not([hidden])", group);
  }
}
