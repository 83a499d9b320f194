"""python -m musubitlx.runner QUEUE: works off a queue of jobs, one after the other, detached.

It claims each job, has it executed, and sends word of its end; before that it writes
down the ends of jobs whose runner died.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from musubitlx import jobs, notify, processes
from musubitlx.endings import End, last_words
from musubitlx.execution import PATIENCE_S, Execution
from musubitlx.home import Home, write_json
from musubitlx.jobs import INTERRUPTED, Job, Jobs
from musubitlx.lease import Lease


def work(home: Home, queue: str, ended: threading.Event) -> None:
    """Run the queue until it is empty; returns at once when another runner is at it."""
    lease = Lease(home.jobs / f"runner-{queue}.lock")
    records = Jobs(home)
    while not ended.is_set() and lease.take():
        try:
            settle(records, queue)
            refused: set[str] = set()
            while not ended.is_set() and (job := next_job(records, queue, refused)):
                if claim(job):
                    Execution(home, job, ended).run()
                    tell(home, job.folder)
                else:
                    refused.add(job.id)
        finally:
            lease.give_back()
        if next_job(records, queue, refused) is None:  # a job may have come meanwhile
            return


def next_job(records: Jobs, queue: str, refused: set[str]) -> Job | None:
    """The next job of a queue that could be claimed, None if there is none."""
    return next((job for job in records.waiting(queue) if job.id not in refused), None)


def claim(job: Job) -> bool:
    """Make the job ours, in one step; False if it was claimed or deleted, or the disk is full."""
    path = job.folder / "claim"
    beside = path.with_name(f".claim-{os.getpid()}")
    try:
        write_json(beside, {**jobs.identity(), "time": time.time()})
        try:
            os.link(beside, path)  # whole or not at all, and only if nobody was first
        except OSError as error:
            if path.exists() or error.errno == errno.ENOSPC:
                return False
            beside.rename(path)  # a file system without links; the lease keeps others away
    except OSError:
        return False
    finally:
        with suppress(OSError):
            beside.unlink()
    return True


def settle(records: Jobs, queue: str) -> None:
    """Write down the end of jobs whose runner died, after ending what it left running."""
    for job in records.all():
        if job.queue != queue or job.state != INTERRUPTED or jobs.is_settled(job):
            continue
        processes.end_marked(job.id, patience_s=PATIENCE_S)
        told, now = jobs.UNTOLD_REASONS[INTERRUPTED], time.time()
        status = {**job.status, "state": INTERRUPTED, "reason": told, "bar": None, "child": None}
        try:
            write_json(job.folder / "status.json", {**status, "ended": now, "last_seen": now})
        except OSError:  # a full disk: the next runner tries again, and says it then
            continue
        with suppress(OSError), Path(job.log).open("a", encoding="utf-8") as log:
            log.writelines(f"{line}\n" for line in last_words(job, End(INTERRUPTED, told)))
        tell(records.home, job.folder)


MESSAGES: list[threading.Thread] = []  # about ended jobs, on their way


def tell(home: Home, folder: Path) -> None:
    """Send word of an ended job to whoever asked for it; the next job does not wait for that."""
    with suppress(Exception):  # whatever is wrong with a message, the run has ended well
        if thread := notify.tell(home, Job(folder).as_dict()):
            MESSAGES.append(thread)


def see_off_messages() -> None:
    """Wait for messages that are on their way, not for ever."""
    until = time.monotonic() + notify.GIVE_UP_S
    for thread in MESSAGES:
        thread.join(max(0.0, until - time.monotonic()))


def queue_name(text: str) -> str:
    """The name of a queue; ValueError for anything else, which could lead out of the folder."""
    if not re.fullmatch(r"gpu\d{1,3}|net", text):
        raise ValueError(text)
    return text


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, work the queue, return the exit code."""
    parser = argparse.ArgumentParser(prog="musubitlx.runner", description=__doc__)
    parser.add_argument("queue", type=queue_name, help="which queue: gpu0, gpu1… or net")
    parser.add_argument("--home", required=True, help="the home folder")
    asked = parser.parse_args(argv)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with suppress(AttributeError):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    processes.adopt_orphans()
    work(Home(asked.home).make(), asked.queue, ended)
    see_off_messages()
    return 0


if __name__ == "__main__":
    sys.exit(main())
