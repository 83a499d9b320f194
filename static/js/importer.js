/** Images from a folder on the server, for those who copied them there. Loaded at first use; markup: its own. */

import { at, get, post } from "./api.js";
import { closeOnBack } from "./back.js";
import { el, find, icon, needStyle, say } from "./dom.js";
import { bytes, count } from "./format.js";
import { changedImages } from "./images.js";
import { ensureProject, project } from "./project.js";
import { batches } from "./upload.js";
import { showRejected } from "./uploading.js";

const BATCH_FILES = 16;
const BATCH_BYTES = 64 * 1024 * 1024;

const button = (textContent, more = "") => el("button", { type: "button", className: `button ${more}`, textContent });

const up = el("button", { type: "button", className: "button button-small", hidden: true }, icon("back"), "Up");
const place = el("span", { className: "mono" });
const list = el("ul", { className: "import-list small", tabIndex: 0, "aria-label": "Folders and files" });
const facts = el("p", { className: "small quiet numbers" });
const bar = el("progress", { className: "bar", max: 1, value: 0, "aria-label": "Import", hidden: true });
const problem = el("p", { className: "small field-error", role: "status" });
const stop = Object.assign(button("Stop"), { hidden: true });
const close = button("Close");
const go = Object.assign(button("Import", "button-primary"), { disabled: true });
const mono = (textContent) => el("span", { className: "mono", textContent });
const dialog = el(
  "dialog",
  { className: "dialog importer", "aria-labelledby": "importer-title" },
  el("h2", { id: "importer-title", textContent: "Import from the server" }),
  el(
    "p",
    { className: "small quiet" },
    "Pictures are copied into the output folder, with their captions. Which folders are offered is set on the server: ",
    mono("import/"),
    " in its home folder, those in ",
    mono("configs/imports.yaml"),
    ", and each ",
    mono("--import-root"),
    ".",
  ),
  el("div", { className: "row import-place" }, up, place),
  list,
  facts,
  bar,
  problem,
  el("div", { className: "row" }, stop, close, go),
);
document.body.append(dialog);

let folder = null; // as GET /api/import?path= answers
let stopped = false;
let running = false;

/** Open the dialog where one was the last time, else at the roots. */
export async function openImport() {
  await needStyle("importer.css");
  dialog.showModal();
  closeOnBack(dialog);
  if (running) return;
  await browse(folder?.path ?? null);
}

/** Show what is in a folder, or the roots; `lost`: because the folder is not there any more. */
async function browse(path, lost = false) {
  say(problem, "");
  try {
    const found = await get(path ? `/api/import?path=${encodeURIComponent(path)}` : "/api/import");
    folder = path ? found : null;
    if (folder) return drawFolder();
    const [only, ...others] = found.roots;
    if (!lost && !others.length && only?.exists && !only.problem) return browse(only.path);
    drawRoots(found.roots);
  } catch (error) {
    if (path && error.status === 404 && !lost) return browse(null, true);
    say(problem, error.whole);
  }
}

function drawRoots(roots) {
  say(place, "Folders that may be imported from");
  up.hidden = true;
  fill(roots.map(rootRow));
}

/** Put rows into the list; the keyboard stays there. */
function fill(rows) {
  const focused = list.contains(document.activeElement);
  list.replaceChildren(...rows);
  if (focused) list.focus();
  drawGo();
}

function rootRow({ path, exists, problem: wrong }) {
  if (exists && !wrong) return folderRow({ path, name: path });
  const text = wrong ?? "not there yet: copy pictures there, and it shows up";
  return el("li", { className: "import-row quiet" }, el("span", { className: "mono", textContent: path }), ` – ${text}`);
}

function folderRow({ path, name, images, more }) {
  const button = el("button", { type: "button", className: "link-button" }, icon("folder"), ` ${name}`);
  button.addEventListener("click", () => browse(path));
  const number = images ? `${more ? "more than " : ""}${count(images, "image")}` : "";
  const told = number ? el("span", { className: "quiet numbers", textContent: number }) : null;
  return el("li", { className: "import-row" }, button, told);
}

function drawFolder() {
  say(place, folder.path);
  up.hidden = false;
  up.onclick = () => browse(folder.parent);
  const rows = folder.folders.map(folderRow);
  for (const file of folder.files.slice(0, 200))
    rows.push(
      el(
        "li",
        { className: "import-row quiet" },
        el("span", { className: "import-name", textContent: file.name }),
        el("span", { className: "numbers", textContent: bytes(file.bytes) }),
      ),
    );
  const line = (text) => rows.push(el("li", { className: "import-row quiet", textContent: text }));
  if (folder.files.length > 200) line(`and ${folder.files.length - 200} more`);
  if (folder.cut) line("There is more in this folder than is listed here.");
  if (!rows.length) line("Nothing to import in here.");
  fill(rows);
}

function drawGo() {
  const files = folder?.files.length ?? 0;
  go.disabled = running || files === 0;
  const into = project.name ? ` into ${project.name}` : "";
  say(go, folder?.images ? `Import ${count(folder.images, "image")}${into}` : files ? `Import ${count(files, "file")}${into}` : "Import");
  const parts = folder && files ? [folder.captions ? count(folder.captions, "caption") : "", bytes(folder.bytes)] : [];
  say(facts, parts.filter(Boolean).join(" · "));
}

async function run() {
  const { path, files } = folder;
  const total = { added: 0, present: 0, captions: 0, rejected: [] };
  running = true;
  stopped = false;
  bar.hidden = false;
  bar.value = 0;
  drawGo();
  stop.hidden = false;
  try {
    await ensureProject();
    const name = project.name;
    let done = 0;
    const items = files.map((file) => ({ name: file.name, size: file.bytes }));
    for (const batch of batches(items, { most: BATCH_FILES, bytes: BATCH_BYTES })) {
      const names = batch.map((item) => item.name);
      if (stopped) break;
      const answer = await take(name, path, names);
      for (const key of ["added", "present", "captions"]) total[key] += answer[key]?.length ?? 0;
      total.rejected.push(...(answer.rejected ?? []));
      done += names.length;
      bar.value = done / files.length;
      say(facts, `${done} of ${count(files.length, "file")}`);
    }
    finish(total);
  } catch (error) {
    finish(total, error.whole ?? error.message);
  }
  running = false;
  bar.hidden = true;
  stop.hidden = true;
  drawGo();
  await changedImages();
}

/** One batch; that none of its files was of use is an answer, too. */
async function take(name, path, names) {
  try {
    return await post(at("projects", name, "import"), { path, names });
  } catch (error) {
    if (error.status === 422 && error.body?.rejected) return error.body;
    throw error;
  }
}

function finish({ added, present, captions, rejected }, trouble = "") {
  const parts = [`${count(added, "image")} imported.`];
  if (captions) parts.push(`${count(captions, "caption")} came along.`);
  if (present) parts.push(`${count(present, "image")} ${present === 1 ? "was" : "were"} there already.`);
  if (stopped) parts.push("Stopped.");
  if (trouble) parts.push(trouble);
  say(find("[data-upload-status]"), parts.join(" "));
  showRejected(rejected);
  say(problem, trouble);
  if (!trouble && dialog.open) dialog.close();
}

go.addEventListener("click", run);
stop.addEventListener("click", () => (stopped = true));
close.addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => (stopped = true));
