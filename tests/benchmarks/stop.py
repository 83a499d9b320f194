"""Stop: how long until the whole process tree is gone."""

from __future__ import annotations

from collections.abc import Iterator

from ground import Bench, Row, end_process, judge, lives, look, seconds_until, submit
from support import wait_until

MEMBERS = 5


def rows(bench: Bench) -> Iterator[Row]:
    """A well-behaved trainer, and one whose whole family ignores the signal."""
    with bench.program() as program:
        yield family(bench, program, "polite", 1.0, "a well-behaved trainer and its workers")
        yield family(
            bench, program, "stubborn", 12.0, "trainer and workers ignore SIGTERM, two left"
        )


def family(bench: Bench, program, kind: str, limit_s: float, title: str) -> Row:
    """Press stop; time until the last process is gone and until the record says so."""
    listed = bench.fresh() / "pids"
    job = submit(program, "family.py", kind, listed)
    wait_until(lambda: listed.is_file() and len(listed.read_text().split()) == MEMBERS, every=0.05)
    pids = [int(pid) for pid in listed.read_text().split()]
    program.post(f"/api/jobs/{job.id}/stop")
    gone = seconds_until(lambda: not any(map(lives, pids)), 30)
    left = sum(map(lives, pids))
    more = seconds_until(lambda: look(program, job.id).ended, 10)
    state = look(program, job.id).state
    for pid in pids:
        end_process(pid) if lives(pid) else None
    return Row(
        f"stop: {title}",
        f"{gone:.2f} s, {left} left; recorded {more:.2f} s later: {state}",
        f"{limit_s:g} s",
        "",
        judge(gone <= limit_s, not left and state == "stopped"),
        {"gone_s": gone, "recorded_s": gone + more},
    )
