/** The page of all runs: wires queue and history to what the server tells. Markup: <main class="runs">. */

import "./theme.js";
import { Board } from "./board.js";
import { complain } from "./dialogs.js";
import { find, say } from "./dom.js";
import { count } from "./format.js";
import { startHistory } from "./history.js";
import { startQueue } from "./queue.js";
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
board.addEventListener("state", () => say(find("[data-runs-live]"), LIVE[board.state] ?? ""));
startQueue(board);
startHistory(board);
if (!document.hidden) board.connect();
