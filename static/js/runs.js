/** The page of all runs: wires queue and history to what the server tells. Markup: <main class="runs">. */

import "./theme.js";
import { Board } from "./board.js";
import { complain } from "./dialogs.js";
import { find, say } from "./dom.js";
import { count } from "./format.js";
import { drawHistory, startHistory } from "./history.js";
import { drawQueue, startQueue } from "./queue.js";
import { holdingFocus } from "./rowfocus.js";
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

let opening = ""; // the run whose details come: a double click opens them once

async function openDetails(id) {
  if (opening === id) return;
  opening = id;
  try {
    const { showRun } = await import("./details.js");
    await showRun(id, board);
  } catch (error) {
    complain(error);
  } finally {
    opening = "";
  }
}

/** A run named in the address is opened once the runs are known; of one that is gone that is said. */
function openNamed() {
  const id = new URLSearchParams(location.hash.slice(1)).get("run");
  if (!id) return;
  if (board.rows.has(id)) return openDetails(id);
  complain({ message: "This run was deleted." });
  history.replaceState(history.state, "", location.pathname + location.search);
}

/** A run may go from one list to the other: the focus goes with it. */
function draw() {
  drawLead();
  holdingFocus(() => {
    drawQueue();
    drawHistory();
  });
}

document.addEventListener("click", (event) => {
  const id = event.target.closest("[data-details]")?.dataset.details;
  if (id) openDetails(id);
});
board.addEventListener("change", draw);
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
