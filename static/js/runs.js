/** The page of all runs: wires queue and history to what the server tells. Markup: <main class="runs">. */

import "./theme.js";
import { Board } from "./board.js";
import { complain } from "./dialogs.js";
import { find, say } from "./dom.js";
import { count } from "./format.js";
import { drawHistory, startHistory } from "./history.js";
import { drawQueue, startQueue } from "./queue.js";
import { holdingFocus } from "./rowfocus.js";
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
board.addEventListener("state", () => say(find("[data-runs-live]"), LIVE[board.state] ?? ""));
startQueue(board);
startHistory(board);
if (!document.hidden) board.connect();
