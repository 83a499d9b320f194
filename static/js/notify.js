/** The browser's own word of a run's end, for a page nobody looks at. Loaded where somebody asked for it. */

import { get } from "./api.js";
import { stored } from "./dom.js";
import { STATES } from "./format.js";
import { ended } from "./stream.js";

const WISH = "notify"; // in the browser's storage: "on" when a person asked for it
const TOLD = "notify-told"; // and the runs that were told, newest first
const WATCHED = "musubitlx-watched"; // held by every page somebody looks at
const LOOK_MS = 5000; // a browser makes it a minute for a page that is hidden for long
const KEPT = 50;

let timer = null;
let seen = null; // id -> whether it was over, of every run as the last look found it
let release = null;

/** Whether this browser can show notifications for this page: a page over plain http can't, but from localhost. */
export const possible = () => "Notification" in window && isSecureContext && Boolean(navigator.locks);

/** What the browser's user says: "granted", "denied" or "default" (was not asked yet). */
export const permission = () => (possible() ? Notification.permission : "denied");

/** Whether a person wants them here, and lets them. */
export const wanted = () => permission() === "granted" && stored(WISH) === "on";

/** Want them, or not any more. Asks the browser's user: call it for a click only. */
export async function want(on) {
  const granted = on && (await Notification.requestPermission()) === "granted";
  write(WISH, granted ? "on" : "");
  turn();
  return granted;
}

function write(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // Then it holds for nothing: better no word than one from each tab.
  }
}

/** The page was hidden or shown: look for runs that end, or leave that to the person. */
function turn() {
  clearInterval(timer);
  timer = seen = null;
  watch(!document.hidden);
  if (!document.hidden || !wanted()) return;
  look();
  timer = setInterval(look, LOOK_MS);
}

/** Hold the lock that says: somebody looks at a page. */
function watch(on) {
  if (!possible() || on === Boolean(release)) return;
  if (!on) {
    release();
    release = null;
    return;
  }
  const held = new Promise((done) => (release = done));
  navigator.locks.request(WATCHED, { mode: "shared" }, () => held);
}

async function look() {
  let jobs;
  try {
    jobs = await get("/api/jobs");
  } catch {
    return; // the next look may find the server again
  }
  if (!document.hidden) return;
  const before = seen;
  seen = new Map(jobs.map((job) => [job.id, ended(job)]));
  if (!before) return;
  const news = jobs.filter((job) => job.started && ended(job) && !before.get(job.id));
  for (const job of news.reverse()) await tell(job);
}

/** Tell of a run once, whatever number of pages are open, and not where another page is looked at. */
function tell(job) {
  return navigator.locks.request(TOLD, async () => {
    const { held } = await navigator.locks.query();
    const told = stored(TOLD).split(" ");
    if (held.some((lock) => lock.name === WATCHED) || told.includes(job.id) || !wanted()) return;
    write(TOLD, [job.id, ...told].slice(0, KEPT).join(" "));
    show(job);
  });
}

function show(job) {
  const title = `${STATES[job.state]}: ${job.project ?? job.title}`;
  const body = job.reason ?? job.outputs?.[0]?.name ?? "";
  try {
    const shown = new Notification(title, { body, tag: job.id, icon: "/static/icon.svg" });
    shown.addEventListener("click", () => {
      window.focus();
      shown.close();
    });
  } catch {
    write(WISH, ""); // phones want a service worker for it
  }
}

document.addEventListener("visibilitychange", turn);
turn();
