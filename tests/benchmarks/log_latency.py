"""A line printed by the trainer until it is in the client's socket."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from itertools import pairwise

from ground import (
    PROGRAMS,
    Bench,
    Probe,
    Row,
    floor_server,
    judge,
    percentile,
    skipped,
    spread,
    submit,
    until_ended,
)
from stream import Pieces, Viewers, log_lines
from upload import CURL, send_as_page

TICK = re.compile(r"tick (\d+) (\d+) \d+")
COUNTS = {1: 10, 10: 50, 100: 400}  # lines a second: lines printed
FLOOR_COUNTS = {1: 4, 10: 30, 100: 250}


def rows(bench: Bench) -> Iterator[Row]:
    """Each rate with 1 and with 10 viewers, then the same while 200 images come in."""
    with bench.program() as program:
        for viewers in (1, 10):
            for rate, count in COUNTS.items():
                delays, right = measure(program, rate, count, viewers)
                yield told(rate, viewers, delays, right, floor(rate, viewers))
    yield from while_uploading(bench)


def told(rate: int, viewers: int, delays: list[float], right: bool, least: list[float]) -> Row:
    """One row: p50 at most 2 ms and p95 at most 10 ms."""
    reached = percentile(delays, 0.5) <= 2 and percentile(delays, 0.95) <= 10
    many = "1 viewer" if viewers == 1 else f"{viewers} viewers"
    return Row(
        f"line printed -> in the socket, {rate}/s, {many} (p50 / p95 / max)",
        spread(delays) if right else "lines lost or twice",
        "2 / 10 ms",
        spread(least),
        judge(reached, right),
        {"ms": delays, "floor_ms": least},
    )


def measure(program, rate: int, count: int, viewers: int) -> tuple[list[float], bool]:
    """Delays in ms of every line at every viewer, and whether each came exactly once."""
    job = submit(program, "ticker.py", rate, count)
    watch = Viewers(program.record["port"], f"/api/events?job={job.id}", viewers)
    until_ended(program, job.id, seconds=60)
    watch.until(b"tick %d " % (count - 1), 5)
    return delays_of(watch.close(), count)


def delays_of(received: list[Pieces], count: int) -> tuple[list[float], bool]:
    """The delays in ms in what viewers received, and whether it is complete."""
    delays, right = [], True
    for pieces in received:
        found = [(int(m[1]), (at - int(m[2])) / 1e6) for at, m in ticks(pieces)]
        right = right and [number for number, _ in found] == list(range(count))
        delays += [delay for _, delay in found]
    return delays, right


def ticks(pieces: Pieces) -> Iterator[tuple[int, re.Match]]:
    """The ticker's lines with the time of arrival."""
    for at, line in log_lines(pieces):
        if match := TICK.fullmatch(line):
            yield at, match


def floor(rate: int, viewers: int) -> list[float]:
    """The same delays for a bare asyncio server that reads the pipe itself."""
    count = FLOOR_COUNTS[rate]
    script = str(PROGRAMS / "ticker.py")
    with floor_server("floor_sse.py", viewers, sys.executable, script, rate, count) as port:
        watch = Viewers(port, "/api/events", viewers)
        watch.until(b"tick %d " % (count - 1), 30)
        return delays_of(watch.close(), count)[0]


def while_uploading(bench: Bench) -> Iterator[Row]:
    """20 lines a second while 200 images of 2 MB come in as the page sends them."""
    what = "the same, 20/s, while 200 images upload (p50 / p95 / max)"
    if not CURL:
        yield skipped(what, "curl is not there")
        return
    photos = bench.photos
    with bench.program() as program:
        port = program.record["port"]
        job = submit(program, "ticker.py", 20, 3000)
        watch = Viewers(port, f"/api/events?job={job.id}")
        watch.until(b"tick 3 ")
        probe = Probe(port, "/healthz")
        begun, ended = send_as_page(f"{program.url}/api/projects/many/images", photos, 200)
        asked = [ms for at, ms in probe.end() if begun <= at <= ended]
        program.post(f"/api/jobs/{job.id}/stop")
        until_ended(program, job.id)
        found = list(ticks(watch.close()[0]))
    delays = [(at - int(m[2])) / 1e6 for at, m in found if begun <= int(m[2]) <= ended]
    right = all(int(b[1]) - int(a[1]) == 1 for (_, a), (_, b) in pairwise(found))
    yield Row(
        what,
        spread(delays) if right else "lines lost or twice",
        "p95 20 ms",
        "",
        judge(percentile(delays, 0.95) <= 20, right),
        {"ms": delays},
    )
    yield Row("/healthz meanwhile (p50 / p95 / max)", spread(asked), "", "", "", {"ms": asked})
