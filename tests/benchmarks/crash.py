"""The web server is killed in mid-run."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from ground import (
    Bench,
    Row,
    judge,
    lives,
    look,
    seconds_until,
    submit,
    until_ended,
    until_running,
)
from stream import Viewers, heard, log_lines

TICK = re.compile(r"tick (\d+) ")


def rows(bench: Bench) -> Iterator[Row]:
    """State after the restart, the log, the stop; and a run that ends while nobody serves."""
    with bench.program() as program:
        job = submit(program, "ticker.py", 50, 3000)
        child = until_running(program, job.id).status["child"]["pid"]
        watch = Viewers(program.record["port"], f"/api/events?job={job.id}")
        watch.until(b"tick 30 ")
        program.kill()
        before = watch.close()[0]
        time.sleep(1)
        unharmed = lives(child)
        state, spawned = restarted(program, job.id)
        yield Row(
            "server killed with SIGKILL: state right after the restart (from spawn)",
            f"{spawned:.2f} s: {state}" + ("" if unharmed else ", but the run is dead"),
            "1 s, running",
            "",
            judge(spawned <= 1, state == "running" and unharmed),
            {"s": spawned},
        )
        yield stops(program, job.id)
        yield whole_log(program, job.id, before)
    yield ended_meanwhile(bench)


def restarted(program, job: str) -> tuple[str, float]:
    """Start the server again; the job's state as first told, and seconds from spawn to that."""
    begun = time.monotonic()
    program.session.close()
    program.start()
    state = program.get(f"/api/jobs/{job}")["state"]
    return state, time.monotonic() - begun


def stops(program, job: str) -> Row:
    """Stop through the new server."""
    begun = time.monotonic()
    program.post(f"/api/jobs/{job}/stop")
    ended = until_ended(program, job)
    took = time.monotonic() - begun
    return Row(
        "server killed with SIGKILL: stop works after the restart",
        f"{took:.2f} s: {ended.state}",
        "stopped",
        "",
        judge(True, ended.state == "stopped"),
        {"s": took},
    )


def whole_log(program, job: str, before: list) -> Row:
    """What a page saw before the kill and after it came back, against the log."""
    last_id = [event.id for event in heard(before) if event.name == "log"][-1]
    again = Viewers(program.record["port"], f"/api/events?job={job}", last_id=last_id)
    again.until(b"TRAINING STOPPED", 5)
    pieces = [before, again.close()[0]]
    seen = [int(m[1]) for one in pieces for _, line in log_lines(one) if (m := TICK.match(line))]
    logged = [int(number) for number in re.findall(r"(?m)^tick (\d+) ", program.log(job))]
    right = logged == list(range(len(logged))) == seen
    return Row(
        "server killed with SIGKILL: log whole, and the page's view of it",
        f"{len(logged)} lines, each once"
        if right
        else f"{len(logged)} in the log, {len(seen)} seen",
        "each once",
        "",
        judge(True, right),
    )


def ended_meanwhile(bench: Bench) -> Row:
    """The run ends while no server is there."""
    with bench.program() as program:
        job = submit(program, "ticker.py", 50, 40)
        until_running(program, job.id)
        program.kill()
        seconds_until(lambda: look(program, job.id).ended, 20)
        state, spawned = restarted(program, job.id)
    return Row(
        "run ended while no server was there: state after the restart (from spawn)",
        f"{spawned:.2f} s: {state}",
        "1 s, succeeded",
        "",
        judge(spawned <= 1, state == "succeeded"),
        {"s": spawned},
    )
