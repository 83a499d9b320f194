/**
 * The open output folder, the one thing several modules share. Says on `document`:
 * "project:opened" (another folder, or none yet by that name) and "project:read" (its content, again).
 */

import { at, get, post } from "./api.js";

export const project = {
  name: "",
  exists: false,
  data: null, // as GET /api/projects/P answers, null while the folder does not exist
};

let words = { trigger_word: "", prompt: "", resolution: "" }; // what final texts and buckets are made with

const tell = (type, detail = {}) => document.dispatchEvent(new CustomEvent(type, { detail }));

/** Open a folder by name. One that is not there (`isNew`: known not to be) is created with the first image. */
export async function openProject(name, { isNew = false } = {}) {
  const changed = name !== project.name;
  Object.assign(project, { name, exists: false, data: null });
  if (changed) tell("project:switching");
  if (isNew) tell("project:opened", { data: null });
  else await readProject({ opened: changed });
}

let reads = 0; // begun so far: only the newest counts
let changes = 0; // made by this page so far: what was read before one is not true any more

/** This page changed something in the folder: an answer that is on its way may be older than that. */
export const changedHere = () => (changes += 1);

/** Read the open folder again; returns its data, or null when there is no such folder. */
export async function readProject({ opened = false } = {}) {
  const name = project.name;
  const [turn, known] = [(reads += 1), changes];
  const data = name ? await lookAt(name) : null;
  if (name !== project.name || turn !== reads) return null; // another one was opened, or asked for, meanwhile
  if (known !== changes) return readProject({ opened });
  project.data = data;
  project.exists = data !== null;
  remember();
  tell(opened ? "project:opened" : "project:read", { data });
  return data;
}

async function lookAt(name) {
  try {
    return await get(`${at("projects", name)}?${new URLSearchParams(words)}`);
  } catch (error) {
    if ([400, 404, 422].includes(error.status)) return null;
    throw error;
  }
}

/** Trigger word, subject description or resolution changed: the server makes final texts and buckets anew. */
export function useWords(next) {
  if (Object.keys(words).every((name) => next[name] === words[name])) return false;
  words = next;
  return true;
}

/** The words as a query, for answers that hold images. */
export const wordsQuery = () => new URLSearchParams(words).toString();

/** Create the open folder unless it is there. ApiError when its name can't be used. */
export async function ensureProject() {
  if (project.exists) return;
  await post("/api/projects", { name: project.name });
  project.exists = true;
  remember();
  tell("project:created");
}

/** Keep the address in step, so that reload and bookmark lead back here. */
function remember() {
  const address = new URL(location.href);
  if (project.exists) address.searchParams.set("project", project.name);
  else address.searchParams.delete("project");
  if (address.href !== location.href) history.replaceState(null, "", address);
}
