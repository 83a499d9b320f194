/** The page of all runs: wires queue and history to what the server tells. Markup: <main class="runs">. */

import "./theme.js";
import { Board } from "./board.js";
import { complain } from "./dialogs.js";
import { find, say } from "./dom.js";
import { count } from "./format.js";
import { startHistory } from "./history.js";
import { startQueue } from "./queue.js";
import { drawReached, drawStatus, drawStatusMemory } from "./status.js";
import { ended } from "./stream.js";

const LIVE = {
  polling: "Asking again every few seconds: too many live views are open.",
  offline: "The server does not answer. A training that runs goes on without it.",
};

const board = new Board();

function drawLead() {
  const { all } = board;
  const running = all.filter((run) => run.state === "running").length;
  const waiting = all.filter((run) => run.state === "queued").length;
  const past = all.filter(ended).length;
  const parts = [running && `${running} running`, waiting && `${waiting} waiting`, past && `${count(past, "past run")}`];
  say(
    find("[data-runs-lead]"),
    all.length ? `${parts.filter(Boolean).join(", ")}.` : "No run yet. Start one on the page Train.",
  );
}

/** The header line tells what runs on the graphics card. */
function drawHeader() {
  const job = board.all.find((run) => run.state === "running" && run.queue !== "net") ?? null;
  const told = job?.progress.eta_s;
  const left = told === undefined ? null : Math.max(0, told - (performance.now() - board.heardAt(job.id)) / 1000);
  drawStatus(job, { name: "Runs", left, href: "/#run" });
}

async function openDetails(id) {
  const { showRun } = await import("./details.js");
  await showRun(id, board);
}

/** A run named in the address is opened once it is known, and when somebody goes back to it. */
function openNamed() {
  const id = decodeURIComponent(location.hash.replace(/^#run=/, ""));
  if (location.hash.startsWith("#run=") && board.rows.has(id)) openDetails(id).catch(complain);
}

document.addEventListener("click", (event) => {
  const id = event.target.closest("[data-details]")?.dataset.details;
  if (id) openDetails(id).catch(complain);
});
board.addEventListener("change", drawLead);
board.addEventListener("change", openNamed, { once: true });
board.addEventListener("change", drawHeader);
board.addEventListener("resources", (event) => drawStatusMemory(event.detail));
board.addEventListener("state", () => {
  say(find("[data-runs-live]"), LIVE[board.state] ?? "");
  drawReached(board.state !== "offline");
});
setInterval(drawHeader, 1000);
startQueue(board);
startHistory(board);
if (!document.hidden) board.connect();
