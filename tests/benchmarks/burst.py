"""100 000 lines at once: all there, in order, soon; and nobody else has to wait."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ground import (
    PROGRAMS,
    Bench,
    Peak,
    Probe,
    Row,
    floor_server,
    judge,
    median,
    spread,
    submit,
    until_ended,
    until_running,
)
from stream import Pieces, Viewers, log_lines

LINES, REPEATS = 100_000, 3
NUMBERS = list(range(LINES))


@dataclass
class Burst:
    """One burst; times in seconds since the first line was printed."""

    printed: float  # when the last line was printed
    longest_ms: float  # the slowest write
    arrived: float  # when the last viewer had the last line
    right: bool
    asked: list[float]  # ms of other requests meanwhile
    server_mb: float = 0.0
    runner_mb: float = 0.0


def rows(bench: Bench) -> Iterator[Row]:
    """1 and 10 viewers, each the median of three bursts, floors in between."""
    with bench.program() as program:
        for viewers in (1, 10):
            bursts, cats, loops, bare = [], [], [], []
            for _ in range(REPEATS):
                bursts.append(one(bench, program, viewers))
                cats.append(into_cat(bench))
                loops.append(into_read_loop(bench))
                bare.append(bare_server(bench, viewers))
            yield from told(viewers, bursts, cats, loops, bare)


def told(viewers: int, bursts: list, cats: list, loops: list, bares: list) -> Iterator[Row]:
    """The rows for one number of viewers."""
    many = "1 viewer" if viewers == 1 else f"{viewers} viewers"
    right = all(burst.right for burst in bursts)
    arrived, cat = median(b.arrived for b in bursts), median(cats)
    bare = median(b.arrived for b in bares)
    yield Row(
        f"{LINES} lines, {many}: first printed -> last in the socket",
        f"{arrived:.2f} s ({arrived / cat:.1f} x cat)" if right else "lines lost or twice",
        "3 x cat, each once",
        f"cat {cat:.2f} s, bare server {bare:.2f} s",
        judge(arrived <= 3 * cat, right),
        {"s": [b.arrived for b in bursts], "cat_s": cats, "bare_s": [b.arrived for b in bares]},
    )
    printed, least = median(b.printed for b in bursts), median(b.printed for b in bares)
    longest = median(b.longest_ms for b in bursts)
    yield Row(
        f"{LINES} lines, {many}: the trainer's own time to print them",
        f"{printed:.2f} s, slowest write {longest:.0f} ms",
        "1.5 x floor",
        f"bare server {least:.2f} s, read loop {median(loops):.2f} s",
        judge(printed <= 1.5 * least),
        {"s": [b.printed for b in bursts], "floor_s": [b.printed for b in bares], "loop_s": loops},
    )
    asked, least = ([ms for b in some for ms in b.asked] for some in (bursts, bares))
    yield Row(
        f"{LINES} lines, {many}: other pages meanwhile (p50 / p95 / max)",
        spread(asked),
        "50 ms",
        f"bare server {spread(least)}",
        judge(max(asked, default=0) <= 50),
        {"ms": asked, "floor_ms": least},
    )
    server, runner = max(b.server_mb for b in bursts), max(b.runner_mb for b in bursts)
    yield Row(
        f"{LINES} lines, {many}: memory, server and runner",
        f"+{server:.0f} MB, +{runner:.0f} MB",
        "flat (+20 MB)",
        "",
        judge(max(server, runner) <= 20),
        {"server_mb": server, "runner_mb": runner},
    )


def one(bench: Bench, program, viewers: int) -> Burst:
    """One burst through runner and server."""
    report, port = bench.fresh() / "report.json", program.record["port"]
    job = submit(program, "burst.py", LINES, report)
    watch = Viewers(port, f"/api/events?job={job.id}", viewers)
    running = until_running(program, job.id)
    server, runner = Peak(program.process.pid), Peak(running.status["runner"]["pid"])
    probe = Probe(port, "/healthz", "/")
    until_ended(program, job.id)
    watch.until(f"burst {LINES - 1:07d}".encode(), 60)
    found = finish(report, watch.close(), probe.end())
    found.server_mb, found.runner_mb = server.grown(), runner.grown()
    return found


def finish(report: Path, received: list[Pieces], asked: list[tuple[int, float]]) -> Burst:
    """Put together what trainer, viewers and the probe saw."""
    told = json.loads(report.read_text())
    start, last, right = told["start"], 0, True
    for pieces in received:
        lines = [(at, line) for at, line in log_lines(pieces) if line.startswith("burst ")]
        right = right and [int(line[6:13]) for _, line in lines] == NUMBERS
        last = max([last, *(at for at, _ in lines[-1:])])
    meanwhile = [ms for at, ms in asked if start <= at <= last]
    printed = (told["end"] - start) / 1e9
    return Burst(printed, told["longest_ms"], (last - start) / 1e9, right, meanwhile)


def bare_server(bench: Bench, viewers: int) -> Burst:
    """The floor with viewers: a bare asyncio server that reads the pipe itself."""
    report = bench.fresh() / "report.json"
    argv = (sys.executable, PROGRAMS / "burst.py", LINES, report)
    with floor_server("floor_sse.py", viewers, *argv) as port:
        probe = Probe(port, "/healthz")
        watch = Viewers(port, "/api/events", viewers)
        watch.until(f"burst {LINES - 1:07d}".encode(), 60)
        return finish(report, watch.close(), probe.end())


def pour(bench: Bench, argv: list[str]) -> tuple[dict, int, bytes]:
    """Let the trainer print into a program; what it reported, when that ended, what that said."""
    report = bench.fresh() / "report.json"
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(PROGRAMS / "burst.py"), str(LINES), str(report)]
    with (report.parent / "copy").open("wb") as file:
        into = file if argv == ["cat"] else subprocess.PIPE
        trainer = subprocess.Popen(command, stdout=subprocess.PIPE, env=env)
        taker = subprocess.Popen(argv, stdin=trainer.stdout, stdout=into)
        trainer.stdout.close()
        said = taker.communicate(timeout=60)[0]
        ended = time.monotonic_ns()
        trainer.wait(timeout=10)
    return json.loads(report.read_text()), ended, said or b""


def into_cat(bench: Bench) -> float:
    """Seconds from the first line to the end of `cat > file`."""
    told, ended, _ = pour(bench, ["cat"])
    return (ended - told["start"]) / 1e9


def into_read_loop(bench: Bench) -> float:
    """Seconds the trainer takes to print into a bare read loop."""
    told, _, _ = pour(bench, [sys.executable, str(PROGRAMS / "read_loop.py")])
    return (told["end"] - told["start"]) / 1e9
