/**
 * Captions that were typed and are not on the disk yet, kept in this browser until they are: through a reload, a
 * crash, a server that is away. One entry for each image.
 */

const KEY = "musubitlx:caption:";
const ABANDONED_MS = 180_000; // a page refreshes its entries more often, a hidden one about once a minute
const REFRESH_MS = 20_000;

const own = tabId();
const mine = new Map(); // key -> entry, so that it can be refreshed

function tabId() {
  try {
    const id = sessionStorage.getItem("musubitlx:tab") ?? crypto.getRandomValues(new Uint32Array(2)).join("-");
    sessionStorage.setItem("musubitlx:tab", id);
    return id;
  } catch {
    return "only";
  }
}

const keyOf = (project, name) => `${KEY}${project}/${name}`;

function write(key, entry) {
  try {
    localStorage.setItem(key, JSON.stringify({ ...entry, tab: own, at: Date.now() }));
  } catch {
    // No storage, or it is full: what is typed still goes to the server.
  }
}

/** Keep a text that is not saved; `base` is the tag of the caption it was typed over. */
export function keep(project, name, text, base) {
  const key = keyOf(project, name);
  mine.set(key, { text, base });
  write(key, { text, base });
}

/** Forget it: it is saved, or given up. */
export function drop(project, name) {
  const key = keyOf(project, name);
  mine.delete(key);
  try {
    localStorage.removeItem(key);
  } catch {
    // see write()
  }
}

/** Forget it if it is still this text. */
export function dropIf(project, name, text) {
  if (mine.get(keyOf(project, name))?.text === text) drop(project, name);
}

/** What this page, or one that is gone, left unsaved for an image: {text, base}, or null. */
export function find(project, name) {
  try {
    const entry = JSON.parse(localStorage.getItem(keyOf(project, name)));
    if (!entry || typeof entry.text !== "string") return null;
    const abandoned = Date.now() - entry.at > ABANDONED_MS;
    return entry.tab === own || abandoned ? entry : null;
  } catch {
    return null;
  }
}

setInterval(() => {
  for (const [key, entry] of mine) write(key, entry);
}, REFRESH_MS);
