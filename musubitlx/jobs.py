"""Job records on disk: what is asked for, what became of it, and the order of the queue.

A record is a folder of small files with one writer each: `job.json` and
`request.json` (web or CLI), `status.json`, `metrics.jsonl` and `claim` (the
runner). Nothing is locked; every file but the appended one is replaced whole.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from musubitlx import __version__, births, processes, records
from musubitlx.errors import Conflict, NotFound
from musubitlx.home import PACKAGE_ROOT, Home, child, read_json, stamp_of, write_json

QUEUED, RUNNING = "queued", "running"
SUCCEEDED, FAILED, STOPPED, INTERRUPTED = "succeeded", "failed", "stopped", "interrupted"
ENDED = (SUCCEEDED, FAILED, STOPPED, INTERRUPTED)
NEXT = {QUEUED: (RUNNING, STOPPED, FAILED), RUNNING: ENDED, **{state: () for state in ENDED}}

GONE = ".gone-"  # before the id, in the name of a record that is being removed
READ = ("job.json", "request.json", "status.json", "stop")
SILENCE_S = 60.0  # a runner on another machine that wrote nothing for so long is taken for dead
HOST = socket.gethostname()

_asking = threading.Lock()  # nobody writes a request between another's look and write

UNTOLD_REASONS = {
    INTERRUPTED: "The run broke off: its runner is gone (killed, or the machine restarted).",
    STOPPED: "Taken out of the queue before it began.",
}
NO_PROGRESS = dict.fromkeys(
    (
        *("step", "total", "unit", "epoch", "epochs", "loss", "seconds_per_step", "per_s"),
        *("eta_s", "elapsed_s"),
    )
)


@dataclass
class Stage:
    """One program of a job. It has succeeded when it ended with 0 and its `outputs` are there.

    `outputs` are absolute paths of safetensors or other files the stage must
    have written anew; `env` is added to the runner's environment. `caches` says what
    the files of a caching stage are made from (see `caches.py`): those that still fit
    are kept, and when all do the stage is skipped.
    """

    name: str
    title: str
    argv: list[str]
    cwd: str
    env: dict[str, str] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    caches: dict = field(default_factory=dict)


@dataclass
class Plan:
    """A job as it is asked for, before it has an id."""

    kind: str
    queue: str
    title: str
    stages: list[Stage]
    project: str | None = None
    settings: dict | None = None
    log: str = ""
    files: dict[str, str] = field(default_factory=dict)  # path -> text, written as it starts
    inputs: list[str] = field(default_factory=list)  # paths that must be there as it starts
    results: list[str] = field(default_factory=list)  # paths shown when it has succeeded
    practice: bool = False
    trial: bool = False  # of a caption model: nothing is kept
    load: dict | None = None  # what the run asks of the card, see `measured.Load`


class Job:
    """One record, as read at one moment. Reading never writes."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.id = folder.name
        self.record = records.job(read_json(folder / "job.json"))
        self.status = records.status(read_json(folder / "status.json"))
        self.request = request_of(folder)

    @property
    def usable(self) -> bool:
        """The record is one of ours, whole, and in the folder it names."""
        return self.record.get("id") == self.id

    def __getattr__(self, name: str):
        """What was asked for, by name: kind, queue, project, title, stages, log, created…"""
        try:
            return self.record[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def state(self) -> str:
        """The state it is really in: a record that says running, with its runner gone, is not."""
        state = self.status.get("state")
        if state not in NEXT:
            return self._state_before_status()
        if state == RUNNING and not runner_lives(self.status):
            return INTERRUPTED
        return state

    def _state_before_status(self) -> str:
        """Queued; taken out again before it was claimed; or claimed by a runner that died."""
        path = self.folder / "claim"
        if not path.exists():
            return STOPPED if self.stop_asked else QUEUED
        claim = read_json(path) or {}  # one that can't be read is a dead runner's
        seen = records.status({"last_seen": claim.get("time")})
        return QUEUED if runner_lives({"runner": claim, **seen}) else INTERRUPTED

    @property
    def ended(self) -> bool:
        """Nothing more will happen to it."""
        return self.state in ENDED

    @property
    def stop_asked(self) -> bool:
        """Somebody asked for it to stop."""
        return bool(self.request.get("stop"))

    @property
    def stops_after_epoch(self) -> bool:
        """Somebody asked for it to stop once the epoch at hand has been saved."""
        return bool(self.request.get("after_epoch"))

    @property
    def place(self) -> tuple:
        """What queued jobs are sorted by: a position somebody gave, else the time they came."""
        return (self.request.get("position", self.record.get("created", 0)), self.id)

    def _untold_end(self, state: str) -> float | None:
        """When it ended, for an end that no runner wrote down."""
        known = {INTERRUPTED: self.status.get("last_seen"), STOPPED: self.request.get("stop")}
        return known.get(state)

    def as_dict(self) -> dict:
        """The job as the HTTP contract shows it; what is not known is None."""
        state, status = self.state, self.status
        reason = status.get("reason") or UNTOLD_REASONS.get(state)
        names = ("id", "kind", "queue", "project", "title", "log", "created")
        return {
            **{name: self.record.get(name) for name in names},
            "practice": bool(self.record.get("practice")),
            "trial": bool(self.record.get("trial")),
            "place": self.place[0],
            "state": state,
            "reason": reason,
            "hint": status.get("hint"),
            "diagnosis": status.get("diagnosis"),
            "warning": status.get("warning"),
            "stopping": self.stop_asked and state == RUNNING,
            "after_epoch": self.stops_after_epoch and state == RUNNING,
            "last_epoch": status.get("last_epoch") if self.stops_after_epoch else None,
            "stage": status.get("stage"),
            "progress": {**NO_PROGRESS, **status.get("progress", {})},
            "bar": status.get("bar") if state == RUNNING else None,
            "exit_code": status.get("exit_code"),
            "outputs": status.get("outputs", []),
            "started": status.get("started"),
            "ended": status.get("ended") or self._untold_end(state),
        }


def request_of(folder: Path) -> dict:
    """What is asked of the job in a folder: `request.json`, and the empty file `stop`."""
    asked = records.request(read_json(folder / "request.json"))
    if not asked.get("stop") and (stamp := stamp_of(folder / "stop")):
        asked["stop"] = stamp.modified / 1e9
    return asked


def identity() -> dict:
    """Who this process is, as a runner, so that `runner_lives` can tell whether it is there."""
    return {"pid": os.getpid(), "birth": births.birth(os.getpid()), "host": HOST}


def runner_lives(status: dict) -> bool:
    """Tell whether the runner named in a status is there: by pid and birth on this machine,
    by when it was last seen on another."""
    runner = status.get("runner") or {}
    if runner.get("host") not in (None, HOST):
        return time.time() - status.get("last_seen", 0) < SILENCE_S
    pid = runner.get("pid")
    return isinstance(pid, int) and births.alive(pid, runner.get("birth"))


class Jobs:
    """All records of a home folder."""

    def __init__(self, home: Home):
        self.home = home
        self.folder = home.jobs
        self._runners: list = []  # those we started, so that none stays a zombie
        self._read: dict[str, tuple[tuple, Job]] = {}  # what was read last, by id

    # -- reading -------------------------------------------------------------------------------

    def get(self, job_id: str) -> Job:
        """Return one job; NotFound if there is none by that id."""
        known = (
            job_id in self._read
        )  # then it is a plain name: resolving it costs more than reading
        job = self._load(self.folder / job_id if known else child(self.folder, job_id))
        if job is None:
            raise NotFound("There is no such job (any more).")
        return job

    def _load(self, folder: Path) -> Job | None:
        """The job in a folder, read anew only if one of its files changed; None if there is none.

        `claim` is not among them: it is read whenever a state is asked for.
        """
        known = self._read.get(folder.name)
        if known and is_settled(known[1]) and stamp_of(folder / "status.json") == known[0][2]:
            return known[1] if known[1].usable else None  # nothing is written to it any more
        stamp = tuple(stamp_of(folder / name) for name in READ)
        if stamp[0] is None:
            self._read.pop(folder.name, None)
            return None
        if known is None or known[0] != stamp:
            known = self._read[folder.name] = (stamp, Job(folder))
        return known[1] if known[1].usable else None

    def all(self) -> list[Job]:
        """Every job, newest first; a record that can't be read is left out."""
        folders = []
        with suppress(FileNotFoundError):
            folders = [Path(entry) for entry in os.scandir(self.folder) if entry.is_dir()]
        found = [job for job in map(self._load, folders) if job is not None]
        return sorted(found, key=lambda job: (job.created, job.id), reverse=True)

    def waiting(self, queue: str) -> list[Job]:
        """The queued jobs of a queue, the next one first."""
        queued = [job for job in self.all() if job.queue == queue and job.state == QUEUED]
        return sorted(queued, key=lambda job: job.place)

    def of_project(self, project: str) -> list[Job]:
        """The jobs of an output folder that are queued or running."""
        return [job for job in self.all() if job.project == project and not job.ended]

    # -- asking --------------------------------------------------------------------------------

    def submit(self, plan: Plan) -> Job:
        """Write the record of a new job, see to it that a runner works its queue, return it."""
        now = time.time()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
        job_id = f"{stamp}-{int(now * 1000) % 1000:03d}-{secrets.token_hex(3)}"
        folder = self.folder / job_id
        folder.mkdir(parents=True)
        try:
            named = {"id": job_id, "created": now, "version": __version__}
            write_json(folder / "job.json", {**named, **asdict(plan)})
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self.wake_runner(plan.queue)
        return Job(folder)

    def stop(self, job_id: str) -> Job:
        """Ask for a job to stop; Conflict when it has ended already."""
        job = self.get(job_id)
        if job.ended:
            raise Conflict("This run has ended already.")
        if not job.stop_asked:
            try:
                self.ask(job, stop=time.time())
            except OSError:
                (job.folder / "stop").touch()  # a full disk has room for an empty file
        return Job(job.folder)

    def stop_after_epoch(self, job_id: str, wanted: bool) -> Job:
        """Ask a run to stop once the epoch at hand has been saved, or take that back.

        Conflict where that can't be: it does not train yet, or nothing is saved before its end.
        """
        job = self.get(job_id)
        if job.state != RUNNING or job.kind != "train":
            raise Conflict("Only a training that is running can stop after an epoch.")
        if wanted and epochs_between_saves(job.stages[-1]["argv"]) is None:
            raise Conflict(
                "This run saves nothing before its end.",
                hint="Stop it now, or let it finish: --save_every_n_epochs is not among its flags.",
            )
        self.ask(job, after_epoch=wanted)
        return Job(job.folder)

    def ask(self, job: Job, **asked: float | None) -> None:
        """Add to what is asked of a job, None takes it back; what others asked meanwhile stays.

        NotFound when its record was deleted meanwhile.
        """
        path = job.folder / "request.json"
        with _asking:
            request = {**(read_json(path) or {}), **asked}
            try:
                write_json(path, {name: told for name, told in request.items() if told is not None})
            except FileNotFoundError:
                raise NotFound("There is no such job (any more).") from None

    def forget(self, job_id: str) -> None:
        """Remove the record of an ended job, not its results; Conflict while it is under way."""
        job = self.get(job_id)
        if not job.ended:
            raise Conflict("This run is not over yet. Stop it first.")
        if job.state == INTERRUPTED and not is_settled(job):
            raise Conflict("What is left of this run is being cleared up. Try again in a moment.")
        gone = job.folder.with_name(f"{GONE}{job.id}")
        try:
            job.folder.rename(gone)  # in one step: half a record would read as a queued one
        except FileNotFoundError:
            raise NotFound("There is no such job (any more).") from None
        shutil.rmtree(gone, ignore_errors=True)

    # -- runners -------------------------------------------------------------------------------

    def wake_runner(self, queue: str) -> None:
        """Start a runner for the queue. One that finds another at work there ends at once."""
        self._runners = [runner for runner in self._runners if runner.poll() is None]
        argv = [sys.executable, "-m", "musubitlx.runner", queue, "--home", str(self.home.root)]
        path = os.pathsep.join(filter(None, [str(PACKAGE_ROOT), os.environ.get("PYTHONPATH")]))
        self._runners.append(
            processes.start_detached(
                argv,
                cwd=str(self.home.root),
                env={**os.environ, "PYTHONPATH": path},
                log=str(self.folder / "runner.log"),
            )
        )

    def reconcile(self) -> None:
        """Wake a runner for every queue with work that nobody does.

        That is: queued jobs, or a job whose runner died, whose process tree has
        to be ended and whose end has to be written down; runners do both.
        """
        self._runners = [runner for runner in self._runners if runner.poll() is None]
        for gone in self.folder.glob(f"{GONE}*"):  # whoever removed it did not come to the end
            shutil.rmtree(gone, ignore_errors=True)
        jobs = self.all()
        busy = {job.queue for job in jobs if job.state == RUNNING}
        idle = {job.queue for job in jobs if needs_runner(job)} - busy
        for queue in sorted(idle):
            self.wake_runner(queue)


def epochs_between_saves(argv: list[str]) -> int | None:
    """After how many epochs a training saves a checkpoint, None when it does not by epochs."""
    for place, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name == "--save_every_n_epochs":
            value = value if equals else "".join(argv[place + 1 : place + 2])
            return int(value) if value.isdecimal() and int(value) else None
    return None


def needs_runner(job: Job) -> bool:
    """Queued, or broken off with nobody having written that down."""
    return job.state == QUEUED or (job.state == INTERRUPTED and not is_settled(job))


def is_settled(job: Job) -> bool:
    """The record itself says how the job ended."""
    return job.status.get("state") in ENDED
