/** Settings saved under names: load, save, delete. Loaded at first use; markup: its own. */

import { get, put, remove as erase } from "./api.js";
import { closeOnBack } from "./back.js";
import { confirmed, toast } from "./dialogs.js";
import { el, icon, say } from "./dom.js";
import { when } from "./format.js";
import { loadConfig, values } from "./settings.js";

const list = el("ul", { className: "config-list small", "aria-label": "Saved configurations" });
const none = el("p", { className: "small quiet", textContent: "None yet.", hidden: true });
const name = el("input", { className: "input config-field", id: "config-name", type: "text", maxLength: 100, spellcheck: false, required: true });
const problem = el("p", { className: "small field-error", role: "status" });
const close = el("button", { type: "button", className: "button", textContent: "Close" });
const form = el(
  "form",
  { className: "row", autocomplete: "off" },
  el("label", { htmlFor: "config-name", textContent: "Save the form as" }),
  name,
  el("button", { type: "submit", className: "button", textContent: "Save" }),
);
const dialog = el(
  "dialog",
  { className: "dialog configs", "aria-labelledby": "configs-title" },
  el("h2", { id: "configs-title", textContent: "Saved configurations" }),
  el(
    "p",
    { className: "small quiet" },
    "Each is a YAML file in ",
    el("span", { className: "mono", textContent: "configs/" }),
    "; files of the earlier tool put there load, too. Loading fills the form and starts nothing.",
  ),
  list,
  none,
  form,
  problem,
  el("div", { className: "row" }, close),
);
document.body.append(dialog);

const named = (text) => `/api/config?name=${encodeURIComponent(text)}`;

let known = [];

/** Open the dialog with what there is. */
export async function openConfigs() {
  say(problem, "");
  dialog.showModal();
  closeOnBack(dialog);
  await refresh();
}

/** Do something with the server; what goes wrong is said in the dialog. */
async function attempt(action) {
  say(problem, "");
  try {
    await action();
  } catch (error) {
    say(problem, error.whole ?? error.message);
  }
}

const refresh = () =>
  attempt(async () => {
    known = (await get("/api/configs")).configs;
    list.replaceChildren(...known.map(row));
    none.hidden = known.length > 0;
  });

function row({ name: text, modified }) {
  const load = el("button", { type: "button", className: "button button-small", textContent: "Load" });
  load.append(el("span", { className: "visually-hidden", textContent: ` ${text}` }));
  load.addEventListener("click", () => {
    dialog.close();
    loadConfig(text);
  });
  const remove = el(
    "button",
    { type: "button", className: "icon-button", "aria-label": `Delete ${text}` },
    icon("close"),
  );
  remove.addEventListener("click", () => forget(text));
  const facts = el("span", { className: "quiet numbers", textContent: when(modified) });
  return el("li", { className: "config" }, el("span", { className: "config-name", textContent: text }), facts, load, remove);
}

async function forget(text) {
  const sure = await confirmed({
    title: `Delete “${text}”?`,
    text: "The saved settings are deleted. Images and LoRAs stay.",
    yes: "Delete",
  });
  if (!sure) return;
  await attempt(() => erase(named(text)));
  await refresh();
  name.focus();
}

async function save(event) {
  event.preventDefault();
  const text = name.value.trim();
  const there = known.some((one) => one.name === text);
  const sure = there && (await confirmed({ title: `Replace “${text}”?`, text: "It is there already.", yes: "Replace" }));
  if (there && !sure) return;
  await attempt(async () => {
    await put("/api/config", { new_name: text, settings: values() });
    name.value = "";
    toast(`Saved as “${text}”.`);
    await refresh();
  });
}

form.addEventListener("submit", save);
close.addEventListener("click", () => dialog.close());
