"""Many pages at once: 40 streams under gevent; under waitress 20, and the rest is told to poll."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from ground import Bench, Probe, Row, judge, percentile, spread, submit, until_ended
from log_latency import delays_of
from stream import Viewers, status

COUNT = 100  # lines, 20 a second


def rows(bench: Bench) -> Iterator[Row]:
    """Both servers, whichever is under test elsewhere."""
    yield from many(bench, "gevent", 40, 40)
    yield from many(bench, "waitress", 25, 20)


def many(bench: Bench, server: str, asked: int, allowed: int) -> Iterator[Row]:
    """Open `asked` streams on one run, of which `allowed` are served."""
    with bench.program(server=server) as program:
        port = program.record["port"]
        job = submit(program, "ticker.py", 20, COUNT)
        watch = Viewers(port, f"/api/events?job={job.id}", asked)
        time.sleep(1)
        probe = Probe(port, "/healthz", "/")
        until_ended(program, job.id)
        time.sleep(0.5)
        pages = [ms for _, ms in probe.end()]
        received = watch.close()
        served = [pieces for pieces in received if status(pieces) == 200]
        refused = [pieces for pieces in received if status(pieces) == 503]
        delays, right = delays_of(served, COUNT)
        polled = refused_can_poll(program, job.id, refused) if refused else True
        time.sleep(1.5)
        freed = reopened(port, job.id, allowed)
    right = right and len(served) == allowed and len(refused) == asked - allowed
    what = f"{asked} streams ({server})"
    yield Row(
        what,
        f"{len(served)} served, each line once" + (f", {len(refused)} refused" if refused else "")
        if right
        else f"{len(served)} served, {len(refused)} refused; lines lost or twice",
        f"{allowed} served" + (", the others 503 and poll" if asked > allowed else ""),
        "",
        judge(freed == allowed and polled, right),
        {"served": len(served), "refused": len(refused)},
    )
    yield Row(f"{what}: delay of a line (p50 / p95 / max)", spread(delays), figures={"ms": delays})
    yield Row(
        f"{what}: the page meanwhile (p50 / p95 / max)",
        spread(pages),
        "100 ms",
        "",
        judge(percentile(pages, 1) <= 100),
        {"ms": pages},
    )


def refused_can_poll(program, job: str, refused: list) -> bool:
    """The refusal says when to come back, and the log can be read by offset meanwhile."""
    heads = [b"".join(data for _, data in pieces).lower() for pieces in refused]
    lines = re.findall(r"(?m)^tick \d+ ", program.log(job))
    return all(b"retry-after" in head for head in heads) and len(lines) == COUNT


def reopened(port: int, job: str, count: int) -> int:
    """How many streams can be opened again once all were closed."""
    watch = Viewers(port, f"/api/events?job={job}", count)
    time.sleep(1)
    return sum(status(pieces) == 200 for pieces in watch.close())
