"""The event stream of a page: one job's log, its state, the queue, memory and samples.

The files are the truth and a stream is a view of them, so any number of pages
may look, and each can be cut anywhere and taken up again by the id of its last
event, `<job>:<byte offset in its log>`.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from musubitlx import samples
from musubitlx.bell import Bell
from musubitlx.errors import UserError
from musubitlx.home import Home
from musubitlx.jobs import ENDED, QUEUED, RUNNING, Job, Jobs
from musubitlx.logs import read_lines, start_of_tail
from musubitlx.projects import Folder, Project, look_at

LOOK_S = 0.25  # how often a stream looks without being woken, also whether its client has gone
IDLE_LOOK_S = 0.5  # the same while nothing runs
HEARTBEAT_S = 15.0
STATUS_S = 0.2  # a job's state is told at most this often while it runs
QUEUE_S = 1.0  # how often the other jobs are looked at; one look serves all viewers
RESOURCES_S = 3.0
SAMPLES_S = 0.5
FOLDER_S = 0.5  # how often the open folder is looked at; what changed in it is read once for all
RETRY_MS = 1000
EVENT_ID = re.compile(r"(?P<job>[\w-]{1,80}):(?P<offset>\d{1,15})")
REMEMBERED = 32  # pieces of log that viewers at the same place share
ENDED_S = 2.0  # how often it is looked whether the files of a job that is over are there
SHARED_S = 0.02  # so long viewers share one look at a job


def event(name: str, data: object, event_id: str | None = None) -> bytes:
    """One server-sent event; JSON holds no line breaks, so it is always one data line."""
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


@dataclass(frozen=True)
class Look:
    """A job as it was read at one moment, and what the page is told of it."""

    job: Job
    ended: bool
    told: dict
    at: float  # monotonic seconds


class Feed:
    """What all streams of a server share.

    `describe` and `describe_sample` turn a job or a sample into what the page is
    told of it; `snapshot` gives the memory figures of now.
    """

    def __init__(
        self,
        home: Home,
        jobs: Jobs,
        bell: Bell,
        *,
        describe: Callable[[Job], dict],
        describe_sample: Callable[[Project, dict], dict],
        snapshot: Callable[[], dict],
    ):
        self.home, self.jobs, self.bell = home, jobs, bell
        self.describe, self.describe_sample, self.snapshot = describe, describe_sample, snapshot
        self._looks: dict[str, Look] = {}
        self._all: tuple[float, list[Job]] = (float("-inf"), [])
        self._pieces: OrderedDict[tuple, tuple[bytes, int]] = OrderedDict()
        self._folders: dict[str, tuple[float, Folder]] = {}
        self._lock = threading.Lock()

    def stream(
        self,
        job_id: str | None,
        last_id: str | None,
        gone: Callable[[], bool],
        nap: Callable[[float], None] = time.sleep,
        project: str | None = None,
    ) -> Iterator[bytes]:
        """Yield events until the client has gone.

        With `job_id` it is that job; else the newest of the GPU queue, then each
        that follows. After `last_id` every later byte comes exactly once. With
        `project` comes what changes among the images and captions of that folder.
        """
        view = View(self, job_id, last_id, project)
        yield f"retry: {RETRY_MS}\n\n".encode()
        sent = time.monotonic()
        while True:
            rung = self.bell.now()
            news = view.news()
            if news:
                yield b"".join(news)
                sent = time.monotonic()
            elif time.monotonic() - sent >= HEARTBEAT_S:
                yield b": still here\n\n"
                sent = time.monotonic()
            if view.behind:
                nap(0)  # there is more, but others have their turn
            else:
                self.bell.wait(rung, LOOK_S if view.busy else IDLE_LOOK_S)
            if gone():
                return

    def look(self, job_id: str) -> Look:
        """The job as it was within the last 20 ms; NotFound if it is not there any more."""
        now = time.monotonic()
        known = self._looks.get(job_id)
        if known is None or now - known.at > SHARED_S:
            job = self.jobs.get(job_id)
            if known and known.ended and known.job is job and now - known.at < ENDED_S:
                return known  # nothing but its files can change any more
            told = self.describe(job)
            known = Look(job, told["state"] in ENDED, told, now)
            if len(self._looks) > REMEMBERED:
                self._looks.clear()
            newest = self._looks.get(job_id)  # another thread may have looked later than this one
            if newest is None or newest.at <= now:
                self._looks[job_id] = known
            else:
                known = newest
        return known

    def all_jobs(self) -> list[Job]:
        """Every job, as they were within the last half second."""
        now = time.monotonic()
        if now - self._all[0] > QUEUE_S / 2:
            self._all = (now, self.jobs.all())
        return self._all[1]

    def folder(self, name: str) -> Folder:
        """The images of an output folder as they were within the last half second.

        A folder in which nothing was made, replaced or removed is not read again.
        """
        now = time.monotonic()
        at, known = self._folders.get(name, (float("-inf"), None))
        if now - at > FOLDER_S / 2:
            known = look_at(Project(self.home, name), known)
            if len(self._folders) > REMEMBERED:
                self._folders.clear()
            self._folders[name] = (now, known)
        return known

    def log_piece(self, job: Job, offset: int, skipped: int) -> tuple[bytes, int]:
        """The next log event after `offset` and the offset after it; empty when there is no more.

        Viewers at the same place share the work: a log only grows, so a piece
        once read stays right.
        """
        key = (job.id, offset, skipped)
        with self._lock:
            if key in self._pieces:
                return self._pieces[key]
        text, after = read_lines(Path(job.log), offset)
        if after == offset:
            return b"", offset
        data = {"job": job.id, "text": text, **({"skipped": skipped} if skipped else {})}
        piece = (event("log", data, f"{job.id}:{after}"), after)
        with self._lock:
            self._pieces[key] = piece
            while len(self._pieces) > REMEMBERED:
                self._pieces.popitem(last=False)
        return piece


class View:
    """What one stream has told already, and so what is news to it."""

    def __init__(
        self, feed: Feed, job_id: str | None, last_id: str | None, project: str | None = None
    ):
        self._feed = feed
        self._project = project
        self._told_folder: Folder | None = None
        self._fixed = job_id
        self._job: Job | None = None  # the one that is followed
        self._look: Look | None = None  # how it was at the last look
        self._offset = self._skipped = 0
        self.behind = False
        self._told_job: dict | None = None
        self._told_bar: str | None = None
        self._told_states: dict[str, tuple] = {}
        self._knows_all = False  # every job that was there has its state among those told
        self._told_samples: set[tuple[str, str]] = set()
        self._samples_stamp: object = None
        self._at = dict.fromkeys(("job", "queue", "resources", "samples"), float("-inf"))
        self._resume(last_id)

    @property
    def busy(self) -> bool:
        """The followed job is not over."""
        return self._look is not None and not self._look.ended

    def news(self) -> list[bytes]:
        """Every event that is due now, in the order in which things happened."""
        self._choose()
        found: list[bytes] = []
        if self._job is not None:
            try:
                self._look = self._feed.look(self._job.id)  # before the log, see _state
            except UserError:  # its record was deleted; of one that is fixed nothing more comes
                self._forget()
            else:
                found += self._log() + self._samples() + self._state()
        found += self._others()
        found += self._folder()
        found += self._resources()
        return found

    # -- which job -----------------------------------------------------------------------------

    def _resume(self, last_id: str | None) -> None:
        """Go on where a client was cut off, if its log is still there and that long."""
        match = EVENT_ID.fullmatch(last_id or "")
        if not match or (self._fixed and self._fixed != match["job"]):
            return
        with suppress(UserError, OSError):
            job = self._feed.jobs.get(match["job"])
            if int(match["offset"]) <= Path(job.log).stat().st_size:
                self._job, self._offset = job, int(match["offset"])

    def _choose(self) -> None:
        """Stay with a job until it has ended and all is told; then take the one that follows."""
        if self._fixed:
            if self._job is None:
                with suppress(UserError):
                    self._turn_to(self._feed.jobs.get(self._fixed))
            return
        if self._job is None or self._is_through():
            following = self._newest()
            if following and (self._job is None or following.id != self._job.id):
                self._turn_to(following)

    def _forget(self) -> None:
        self._look, self.behind = None, False
        if not self._fixed:
            self._job = self._told_job = None

    def _is_through(self) -> bool:
        if self.behind or not self._due("choose", QUEUE_S / 2):
            return False
        return bool(self._told_job) and self._told_job["state"] in ENDED

    def _newest(self) -> Job | None:
        """The GPU job that runs, else the one that ran last, else the next in the queue."""
        gpu = [job for job in self._feed.all_jobs() if job.queue != "net"]
        running = [job for job in gpu if job.state == RUNNING]
        begun = [job for job in gpu if job.state != QUEUED]
        queued = sorted((job for job in gpu if job.state == QUEUED), key=lambda job: job.place)
        latest = sorted(begun, key=lambda job: job.status.get("started") or job.created)[-1:]
        return next(iter(running + latest + queued), None)

    def _turn_to(self, job: Job) -> None:
        self._job = job
        self._offset = self._skipped = start_of_tail(Path(job.log))
        self._told_job = self._told_bar = self._samples_stamp = None

    # -- what is new ---------------------------------------------------------------------------

    def _due(self, what: str, every_s: float) -> bool:
        now = time.monotonic()
        if now - self._at.get(what, float("-inf")) < every_s:
            return False
        self._at[what] = now
        return True

    def _log(self) -> list[bytes]:
        piece, after = self._feed.log_piece(self._job, self._offset, self._skipped)
        self.behind = bool(piece)
        self._offset, self._skipped = after, 0 if piece else self._skipped
        return [piece] if piece else []

    def _state(self) -> list[bytes]:
        """The job's state; its end is told only after the last line of its log.

        The job was read before the log: what it wrote before it ended is there.
        """
        ended, told, found = self._look.ended, self._look.told, []
        if (ended and self.behind) or (not ended and not self._due("job", STATUS_S)):
            return []
        if told["bar"] != self._told_bar:
            self._told_bar = told["bar"]
            found.append(event("bar", {"job": self._job.id, "text": told["bar"] or ""}))
        if self._told_job is None or {**told, "bar": None} != {**self._told_job, "bar": None}:
            self._told_job = told
            self._told_states[self._job.id] = _state_of(self._look.job)
            found.append(event("job", told))
        return found

    def _others(self) -> list[bytes]:
        """The other jobs: told when they come, when something changes, when they are deleted.

        Those that were over when the stream began are not told.
        """
        if not self._due("queue", QUEUE_S):
            return []
        found, all_of_them = [], self._feed.all_jobs()
        for job in all_of_them:
            state = _state_of(job)
            if job.id == (self._job and self._job.id) or self._told_states.get(job.id) == state:
                continue
            if self._knows_all or not job.ended:
                with suppress(UserError):  # deleted since the list was made
                    look = self._feed.look(job.id)
                    found.append(event("job", look.told))
                    state = _state_of(look.job)
            self._told_states[job.id] = state
        self._knows_all = True
        return found + self._gone({job.id for job in all_of_them})

    def _gone(self, there: set[str]) -> list[bytes]:
        found = []
        for job_id in sorted(self._told_states.keys() - there):
            try:
                self._feed.jobs.get(job_id)  # it may be newer than the list
            except UserError:
                del self._told_states[job_id]
                found.append(event("gone", {"job": job_id}))
        return found

    def _resources(self) -> list[bytes]:
        if not self._due("resources", RESOURCES_S):
            return []
        return [event("resources", self._feed.snapshot())]

    def _folder(self) -> list[bytes]:
        """What changed among images and captions of the open folder; at first nothing is new."""
        if not self._project or not self._due("folder", FOLDER_S):
            return []
        with suppress(UserError, OSError):
            before, now = self._told_folder, self._feed.folder(self._project)
            self._told_folder = now
            if before is None or now is before:
                return []
            return [
                event(name, {"project": self._project, **news}) for name, news in now.since(before)
            ]
        return []

    def _samples(self) -> list[bytes]:
        """Sample images that appeared; at first those that are there, and all before the end."""
        ending = self._look.ended and (self._told_job or {}).get("state") not in ENDED
        if not self._job.project or not (ending or self._due("samples", SAMPLES_S)):
            return []
        project = Project(self._feed.home, self._job.project)
        with suppress(OSError):
            stamp = (self._job.project, (project.path / "sample").stat().st_mtime_ns)
            if stamp != self._samples_stamp:
                self._samples_stamp = stamp
                drawn = samples.listed(project, self._feed.all_jobs())
                keys = {(project.name, sample["name"]): sample for sample in drawn}
                new = [keys[key] for key in keys if key not in self._told_samples]
                self._told_samples |= set(keys)
                if new:
                    told = [self._feed.describe_sample(project, sample) for sample in new]
                    return [event("samples", {"project": project.name, "samples": told})]
        return []


def _state_of(job: Job) -> tuple:
    """What is told when it changes of jobs beside the followed one: where they stand, how far."""
    state = job.state
    far = job.status.get("progress") if state == RUNNING else None
    return (state, job.stop_asked and state == RUNNING, job.place, far)
