/** Dataset health: what is wrong with images and captions, each with a sentence on what to do, and the buckets. */

import { at, get, post } from "./api.js";
import { complain, confirmed, toast } from "./dialogs.js";
import { debounced, el, find, icon, say } from "./dom.js";
import { count } from "./format.js";
import { allCards, changedImages, removeMany } from "./images.js";
import { project } from "./project.js";
import { values } from "./settings.js";
import { showOnly } from "./workbench.js";

const SOON_MS = 400;
const LOOKING_MS = 1000;
const AGAIN_MS = 5000;
const ASKED = ["resolution", "trigger_word", "prompt", "batch_size"];
const MARKS = { danger: "bad", warn: "warn", note: "info" };

const box = find("[data-health]");
let asked = 0; // counts questions, so that a late answer is dropped
let again = null;

async function look() {
  clearTimeout(again);
  const turn = (asked += 1);
  const name = project.name;
  if (!project.exists || !allCards().length) {
    box.hidden = true;
    return;
  }
  const form = values();
  const query = new URLSearchParams(ASKED.map((setting) => [setting, String(form[setting] ?? "")]));
  try {
    const report = await get(`${at("projects", name, "health")}?${query}`);
    if (turn !== asked || name !== project.name) return;
    draw(report);
    if (report.looked < report.of) again = setTimeout(look, LOOKING_MS);
  } catch (error) {
    if (turn !== asked || error.status === 404) return;
    const sum = find("[data-health-sum]", box);
    sum.dataset.tone = "quiet";
    say(sum, `not known: ${error.message}`);
    again = setTimeout(look, AGAIN_MS);
  }
}

const lookSoon = debounced(look, SOON_MS);

// -- drawing ----------------------------------------------------------------------------------------

function draw({ looked, of, findings, buckets }) {
  const serious = findings.filter((finding) => finding.tone !== "note");
  const sum = find("[data-health-sum]", box);
  sum.dataset.tone = serious.some(({ tone }) => tone === "danger") ? "danger" : serious.length ? "warn" : "good";
  const found = serious.length ? count(serious.length, "thing") + " to look at" : "nothing wrong found";
  const looking = !of ? "looking…" : looked < of ? `looking at image ${looked + 1} of ${of}…` : "";
  if (looking && !serious.length) sum.dataset.tone = "quiet";
  say(sum, looking ? (serious.length ? `${found}, still ${looking}` : looking) : found);
  drawFindings(findings);
  drawBuckets(buckets);
  drawFlags(findings);
}

let shownFindings = "";

/** The list is made anew only when it says something else, so that focus stays where it is. */
function drawFindings(findings) {
  const now = JSON.stringify(findings);
  if (now === shownFindings) return;
  shownFindings = now;
  find("[data-findings]", box).replaceChildren(...findings.map(findingRow));
}

function findingRow(finding) {
  const row = el("li", { className: "finding", data: { tone: finding.tone } }, icon(MARKS[finding.tone]));
  const body = el("div", {}, el("p", { textContent: finding.text }));
  if (finding.hint) body.append(el("p", { className: "small quiet", textContent: finding.hint }));
  const actions = actionsOf(finding);
  if (actions.length) body.append(el("div", { className: "row finding-actions" }, ...actions));
  row.append(body);
  return row;
}

const TITLES = {
  unreadable: "Not readable",
  unfit: "To be mended",
  tiny: "Very small",
  same_stem: "Same name",
  no_text: "Without any text",
  no_caption: "Without a caption",
  duplicates: "There twice",
  near_duplicates: "Nearly the same",
  blurry: "Blurred",
  enlarged: "Enlarged",
  cropped: "Much cut off",
};

function actionsOf(finding) {
  const known = new Set(allCards().map((card) => card.name));
  const here = finding.images.filter((name) => known.has(name));
  const actions = [];
  const them = finding.images.length === 1 ? "it" : "them";
  if (here.length) actions.push(action(`Show ${them}`, () => showOnly(here, TITLES[finding.kind] ?? "From dataset health"), finding));
  if (finding.action === "mend") actions.push(action(`Mend ${them}`, () => mend(finding.images), finding));
  if (finding.action === "adopt") actions.push(action(`Take ${them} in`, () => mend(finding.images), finding));
  if (finding.action === "remove_copies") actions.push(action("Keep one of each", () => removeCopies(finding), finding));
  return actions;
}

function action(label, run, finding) {
  const name = `${label}: ${finding.text}`;
  const button = el("button", { type: "button", className: "button button-small", textContent: label, "aria-label": name });
  button.addEventListener("click", run);
  return button;
}

async function mend(names) {
  try {
    const { mended, rejected } = await post(at("projects", project.name, "images", "mend"), { names });
    await changedImages();
    if (mended.length) toast(`${count(mended.length, "image")} mended; the originals are kept in originals/.`);
    if (rejected.length)
      complain(new Error(rejected.map(({ name, reason }) => `${name}: ${reason}.`).join(" ")));
  } catch (error) {
    complain(error);
  }
  await look();
  find("summary", box).focus();
}

/** Of each group of copies keep the one with a caption, else the first. */
async function removeCopies({ groups }) {
  const captioned = new Set(allCards().filter((card) => card.text.trim()).map((card) => card.name));
  const copies = groups.flatMap((names) => {
    const kept = names.find((name) => captioned.has(name)) ?? names[0];
    return names.filter((name) => name !== kept);
  });
  const yes = await confirmed({
    title: `Remove ${count(copies.length, "copy", "copies")}?`,
    text: `Of each group the one with a caption stays, else the first. Removed: ${copies.slice(0, 8).join(", ")}${copies.length > 8 ? " …" : ""}.`,
    yes: "Remove",
  });
  if (yes) await removeMany(copies);
}

let shownBuckets = "";

function drawBuckets(buckets) {
  const now = JSON.stringify(buckets);
  if (now === shownBuckets) return;
  shownBuckets = now;
  const most = Math.max(1, ...buckets.map((bucket) => bucket.images.length));
  const rows = buckets.map(({ width, height, images }) => {
    const bar = el("span", { className: "bucket-bar" });
    bar.style.setProperty("--share", String(images.length / most));
    const button = el("button", {
      type: "button",
      className: "link-button numbers",
      textContent: `${width} × ${height}`,
    });
    button.append(el("span", { className: "visually-hidden", textContent: ", show its images" }));
    button.addEventListener("click", () => showOnly(images, `Bucket ${width} × ${height}`));
    return el("li", { className: "bucket" }, button, bar, el("span", { className: "numbers", textContent: count(images.length, "image") }));
  });
  find("[data-buckets]", box).replaceChildren(...rows);
  say(find("[data-buckets-sum]", box), count(buckets.length, "bucket"));
}

const FLAGS = {
  blurry: () => "Blurred.",
  duplicates: (others) => `The same picture as ${others}.`,
  near_duplicates: (others) => `Nearly the same as ${others}.`,
  enlarged: (_, card) => `Enlarged ${(card.image.bucket?.scale ?? 1).toFixed(1)} times.`,
  unreadable: (_, card) => (card.image.width ? "Damaged: it can’t be read to its end." : null),
  unfit: (_, card) => (card.image.warnings?.length ? null : "To be mended, see Dataset health."),
};

/** Put on each card in short words what was found about it. */
function drawFlags(findings) {
  const flags = new Map();
  for (const { kind, images, groups } of findings) {
    for (const name of FLAGS[kind] ? images : []) {
      const group = groups?.find((one) => one.includes(name)) ?? [];
      const others = group.filter((other) => other !== name);
      const told = others.slice(0, 2).join(" and ") + (others.length > 2 ? ` and ${others.length - 2} more` : "");
      flags.set(name, [...(flags.get(name) ?? []), [kind, told]]);
    }
  }
  for (const card of allCards()) {
    const words = (flags.get(card.name) ?? []).map(([kind, others]) => FLAGS[kind](others, card));
    card.flag(words.filter(Boolean));
  }
}

/** The advice on few images: a sentence and its points. */
function drawFew({ detail: { warnings } }) {
  const advice = warnings.find((warning) => warning.points);
  const notice = find("[data-few]");
  notice.hidden = !advice;
  if (!advice) return;
  say(find("[data-few-text]", notice), advice.error);
  find("[data-few-points]", notice).replaceChildren(
    ...advice.points.map((point) => el("li", { textContent: point })),
  );
}

/** Wire the panel up. It stands with the first cards, so that nothing moves when its report comes. */
export function startHealth() {
  document.addEventListener("images:shown", () => (box.hidden = allCards().length === 0));
  document.addEventListener("checked", drawFew);
  for (const type of ["images:drawn", "captions:changed", "looks:changed"]) document.addEventListener(type, lookSoon);
  document.addEventListener("settings:changed", lookSoon);
  document.addEventListener("project:switching", () => {
    box.hidden = true;
    draw({ looked: 0, of: 0, findings: [], buckets: [] });
  });
}
