"""The event stream of the page of runs: how each stands, and what waits in which order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from musubitlx.bell import Bell
from musubitlx.events import HEARTBEAT_S, RESOURCES_S, RETRY_MS, event
from musubitlx.history import History

LOOK_S = 1.0  # how often the records are looked at
GONE_S = 0.5  # how often it is looked whether the client has gone


def stream(
    history: History,
    bell: Bell,
    gone: Callable[[], bool],
    nap: Callable[[float], None],
    snapshot: Callable[[], dict],
) -> Iterator[bytes]:
    """Yield `runs` events until the client has gone: at first all, then what is new.

    Every 3 s comes an event `resources` with what `snapshot` gives, the memory figures of now.

    Data is {runs, removed, order}: rows that are new or others than before, ids of those
    deleted, and the ids of all that wait. `first` says that it is all there is.
    """
    yield f"retry: {RETRY_MS}\n\n".encode()
    told, order, sent = None, None, time.monotonic()
    looked = measured = float("-inf")
    while True:
        rung = bell.now()
        if time.monotonic() - looked >= LOOK_S:
            looked = time.monotonic()
            now = history.look()
            rows = {row["id"]: row for row in now["runs"]}
            data = news(told, rows)
            if data["first"] or data["runs"] or data["removed"] or now["order"] != order:
                yield event("runs", {**data, "order": now["order"]})
                sent = time.monotonic()
            told, order = rows, now["order"]
        if time.monotonic() - measured >= RESOURCES_S:
            measured = sent = time.monotonic()
            yield event("resources", snapshot())
        if time.monotonic() - sent >= HEARTBEAT_S:
            yield b": still here\n\n"
            sent = time.monotonic()
        nap(0)
        bell.wait(rung, GONE_S)
        if gone():
            return


def news(before: dict[str, dict] | None, now: dict[str, dict]) -> dict:
    """What a client that knows the rows `before` has to be told, None for one that knows none."""
    known = before or {}
    return {
        "first": before is None,
        "runs": [row for job_id, row in now.items() if known.get(job_id) != row],
        "removed": [job_id for job_id in known if job_id not in now],
    }
