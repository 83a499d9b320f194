/** Settings saved under names: load, save, delete. Loaded at first use. Markup: <dialog data-configs>. */

import { get, put, remove as erase } from "./api.js";
import { closeOnBack } from "./back.js";
import { confirmed, toast } from "./dialogs.js";
import { el, find, icon, say } from "./dom.js";
import { when } from "./format.js";
import { loadConfig, values } from "./settings.js";

const dialog = find("[data-configs]");
const list = find("[data-config-list]", dialog);
const problem = find("[data-config-problem]", dialog);
const name = find("#config-name");
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
    find("[data-config-none]", dialog).hidden = known.length > 0;
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

find("form", dialog).addEventListener("submit", save);
find("[data-configs-close]", dialog).addEventListener("click", () => dialog.close());
