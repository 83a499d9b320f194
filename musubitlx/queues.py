"""The order of a queue: what waits can be moved, and what was taken out can be put back.

A move writes the request of the moved job alone. So a runner that takes its next job
meanwhile, or a second browser that moves another one, can make no job disappear.
"""

from __future__ import annotations

import threading
import time

from musubitlx.errors import Conflict
from musubitlx.home import read_json
from musubitlx.jobs import QUEUED, Job, Jobs

GAP_S = 0.001  # behind the last one that waits; places are in seconds since the epoch

_ordering = threading.Lock()  # one move at a time, or two would come to the same place


def move(jobs: Jobs, job_id: str, before: str | None) -> list[Job]:
    """Put a waiting job before another one, or last; returns what waits in the new order.

    Where the other one does not wait any more, its place in the order still counts.
    Conflict if the job itself has begun or was taken out, NotFound if one of the two is gone.
    """
    with _ordering:
        job = jobs.get(job_id)
        if job.state != QUEUED:
            raise Conflict(
                "This run does not wait any more.", hint="It has begun, or was taken out."
            )
        others = [one for one in jobs.waiting(job.queue) if one.id != job.id]
        index = len(others)
        if before is not None:
            place = jobs.get(before).place
            index = sum(one.place < place for one in others)
        _put(jobs, job, others, index)
        return jobs.waiting(job.queue)


def _put(jobs: Jobs, job: Job, others: list[Job], index: int) -> None:
    """Give a job a place between its new neighbours; where there is no room, all get new ones."""
    ahead = others[index - 1].place[0] if index else None
    behind = others[index].place[0] if index < len(others) else None
    if ahead is None and behind is None:
        return
    if behind is None:
        jobs.ask(job, position=max(time.time(), ahead + GAP_S))
    elif ahead is None:
        jobs.ask(job, position=behind - 1)
    elif ahead < (between := (ahead + behind) / 2) < behind:
        jobs.ask(job, position=between)
    else:
        _spread(jobs, [*others[:index], job, *others[index:]])


def _spread(jobs: Jobs, order: list[Job]) -> None:
    """Places a second apart, all in the past: what comes later waits behind them."""
    first = time.time() - len(order)
    for number, job in enumerate(order):
        jobs.ask(job, position=first + number)


def put_back(jobs: Jobs, job_id: str) -> Job:
    """Undo that a job was taken out: it waits again, at the place it had.

    One that waits is left alone. Conflict when it had begun before it was stopped.
    """
    job = jobs.get(job_id)
    if job.state == QUEUED:
        return job
    if job.status or not job.stop_asked or (job.folder / "claim").exists():
        raise Conflict("This run can't be put back: it had begun.", hint="Start it again instead.")
    (job.folder / "stop").unlink(missing_ok=True)
    if "stop" in (read_json(job.folder / "request.json") or {}):  # a full disk has no room for it
        jobs.ask(job, stop=None)
    jobs.wake_runner(job.queue)
    return jobs.get(job_id)
