"""python -m musubitlx.runner QUEUE: works off a queue of jobs, one after the other, detached.

The parent of every trainer: it reads the output, writes log, status and
metrics, watches RAM, looks for a stop request, and records how it ended.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from musubitlx import (
    __version__,
    births,
    caches,
    diagnose,
    jobs,
    measured,
    metrics,
    modelcard,
    notify,
    options,
    processes,
    remedies,
    resources,
    tensors,
)
from musubitlx.bell import Ringer
from musubitlx.diagnose import Diagnosis
from musubitlx.home import Home, stamp_of, write_json, write_text
from musubitlx.jobs import FAILED, HOST, INTERRUPTED, RUNNING, STOPPED, SUCCEEDED, Job, Jobs, Stage
from musubitlx.lease import Lease
from musubitlx.logs import Fold, read_tail
from musubitlx.progress import Progress
from musubitlx.projects import Project

LOOK_S = 0.1  # how often a stop request is looked for
STATUS_S = 0.2  # how often the status is written at most
SEEN_S = 10.0  # how often it is written at least
RAM_S = 1.0  # how often RAM is looked at
RAM_NEAR_S = 0.25  # the same, where it is nearly full: a model that loads takes gigabytes a second
RAM_NEAR_PERCENT = 10.0  # below the limit
NAN_STEPS = 3  # so many in a row whose loss is no number are no accident
PATIENCE_S = 10.0  # what a stopped trainer gets before it is killed
WORKERS_S = 1.0  # what data-loader workers get once their trainer has ended
RAM_LIMIT_PERCENT = float(os.environ.get("MUSUBITLX_RAM_LIMIT_PERCENT", "95"))
PIPE_BYTES = 1_048_576
PIECE_BYTES = 65_536  # folded at once; then whoever looks at the progress has its turn
BATCH_S = 0.002  # output that comes faster is read in larger blocks, and rung for once

START_ANEW = "Start a new run: it takes the images as they are then."

RAM_HINTS = {  # by stage; what was cached is kept
    "latents": "Close other programs and start again: it goes on where it was.",
    "text_encoder": "Close other programs and start again: the text encoder passes through main "
    "memory as it is loaded, some 17 GB.",
    "train": "Close other programs, or choose a profile that swaps fewer blocks to RAM.",
}

WORK = {"train": "TRAINING", "caption": "CAPTIONING", "download": "DOWNLOAD"}


class End(Exception):
    """How a job ended, when it did not succeed."""

    def __init__(
        self,
        state: str,
        reason: str,
        *,
        hint: str | None = None,
        exit_code=None,
        outputs=(),
        diagnosis: Diagnosis | None = None,
    ):
        super().__init__(reason)
        self.state, self.reason, self.hint, self.exit_code = state, reason, hint, exit_code
        self.outputs = list(outputs)  # besides the results that are there
        self.diagnosis = diagnosis  # of a failure, where its cause is known


class LogFile:
    """The log of a run: appended at once, and the bell rung for it.

    A full disk never ends the run: what could not be written is counted, and
    said where writing goes on.
    """

    def __init__(self, path: Path, ringer: Ringer):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._ringer = ringer
        self._file = path.open("ab", buffering=0)
        self.lost = 0
        self._lock = threading.Lock()  # the reader and the main thread both write lines

    def write(self, text: str) -> None:
        """Append text that ends its lines itself."""
        data = text.encode("utf-8", "replace")
        with self._lock:
            try:
                if self.lost:
                    self._file.write(f"[{self.lost} bytes of log are lost: disk full]\n".encode())
                    self.lost = 0
                view = memoryview(data)
                while view:
                    view = view[self._file.write(view) :]
            except OSError:
                self.lost += len(data)
        self._ringer.ring()

    def line(self, text: str = "") -> None:
        """Append one line."""
        self.write(text + "\n")

    def close(self) -> None:
        """Nothing more will be written."""
        self._file.close()


class Output(threading.Thread):
    """Reads what a stage prints until its pipe ends: into the log, and into the progress."""

    def __init__(self, pipe, log: LogFile):
        super().__init__(daemon=True)
        self._pipe, self._log = pipe, log
        self.fold, self.progress = Fold(), Progress()
        self.lock = threading.Lock()  # fold and progress, against the thread that looks
        self.changed = threading.Event()
        with suppress(ImportError, OSError, AttributeError):
            import fcntl

            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)  # a burst never waits for us

    def run(self) -> None:
        """Read in blocks; when they come fast, wait a little so that they come larger."""
        last = 0.0
        while data := self._read():
            self._take(data)
            now = time.monotonic()
            if now - last < BATCH_S:
                time.sleep(BATCH_S)
            last = now
        with self.lock:
            self._keep(*self.fold.end())

    def _read(self) -> bytes:
        try:
            return os.read(self._pipe.fileno(), PIPE_BYTES)
        except (OSError, ValueError):
            return b""

    def _take(self, data: bytes) -> None:
        for start in range(0, len(data), PIECE_BYTES):
            with self.lock:
                self._keep(*self.fold.feed(data[start : start + PIECE_BYTES]))
        self.changed.set()

    def _keep(self, text: str, bars: list[str]) -> None:
        if text:
            self._log.write(text)
            self.progress.read_log(text)
        for bar in bars:
            self.progress.read_bar(bar)


class Execution:
    """One job, from its claim to its last line."""

    def __init__(self, home: Home, job: Job, ended: threading.Event):
        self.home, self.job = home, job
        self._asked_to_end = ended  # the runner itself was told to end
        self._ringer = Ringer(home)
        self._poller = resources.Poller(home.output)
        self._written_at = self._ram_at = self._ram_percent = 0.0
        self._high_ram = 0
        self._nan_told = False  # in the log
        self._disk_is_full = False
        self._card: str | None = None  # what the log says of the model card
        self._there: dict[str, tuple | None] = {}  # results of an earlier run, as they were
        self.log: LogFile | None = None
        self.status: dict = {
            "state": RUNNING,
            "runner": identity(),
            "started": time.time(),
            "stage": None,
            "progress": {},
            "bar": None,
        }

    # -- the whole -----------------------------------------------------------------------------

    def run(self) -> None:
        """Run every stage; whatever happens, an end is recorded and the log says it."""
        self._write_status()
        try:
            self._prepare()
            for index, stage in enumerate(self.job.stages, 1):
                self._run_stage(index, Stage(**stage))
            end = End(SUCCEEDED, "", exit_code=0)
        except End as told:
            end = told
        except OSError as error:
            path = error.filename2 or error.filename  # of a renaming the new name
            what = f" ({path})" if path else ""
            end = End(FAILED, f"The run could not go on: {error.strerror or error}{what}.")
        except Exception as error:
            end = End(FAILED, f"The runner failed: {type(error).__name__}: {error}.")
            sys.excepthook(*sys.exc_info())
        self._finish(end)

    def _prepare(self) -> None:
        """Open the log, look for the inputs, write the files that belong to the run."""
        self.log = LogFile(Path(self.job.log), self._ringer)
        self.log.line(f"MusubiTLX {__version__} – {self.job.title}")
        self.log.line(time.strftime("Started %Y-%m-%d %H:%M:%S %z"))
        if self.job.practice:
            self.log.line(
                "Practice run: shows how everything works; its LoRA is not for Qwen-Image."
            )
        if self.job.damaged:
            raise End(FAILED, "The record of this run is damaged.", hint=START_ANEW)
        if gone := [path for path in self.job.inputs if not Path(path).is_file()]:
            raise End(
                FAILED,
                f"{Path(gone[0]).name} is not there any more, and this run was queued with it.",
                hint=START_ANEW,
            )
        self._there = {path: stamp_of(Path(path)) for path in self.job.results}
        for path, text in self.job.files.items():
            write_text(Path(path), text)

    def _finish(self, end: End) -> None:
        results = [p for p, old in self._there.items() if stamp_of(Path(p)) not in (None, old)]
        if end.state == SUCCEEDED and self.job.kind == "train":
            self._write_card()
        self._last_words(end)
        self.status |= {
            "state": end.state,
            "reason": end.reason or None,
            "hint": end.hint,
            "diagnosis": self._told(end.diagnosis),
            "exit_code": end.exit_code,
            "ended": time.time(),
            "bar": None,
            "outputs": results + [path for path in end.outputs if Path(path).is_file()],
            "child": None,
        }
        while not self._write_status() and self._disk_is_full:
            time.sleep(1.0)  # the end must be on record before the next job
        if self.log and self.log.lost:
            self._last_words(end)
        if self.log:
            self.log.close()
        self._note_figures()
        self._ringer.ring()
        tell(self.home, self.job.folder)

    def _told(self, found: Diagnosis | None) -> dict | None:
        """What is known of a failure, for the page: its name, the lines that tell, a way out."""
        if found is None:
            return None
        way = remedies.as_dict(self._way_out(found))
        return {"id": found.code, "lines": found.lines, "fix": way}

    def _way_out(self, found: Diagnosis) -> remedies.Fix | None:
        record, stage = self.job.record, self.status["stage"]
        settings, load = record.get("settings"), record.get("load")
        if not stage or not isinstance(settings, dict) or not isinstance(load, dict):
            return None
        card = resources.chosen_card(self._poller.snapshot()["gpus"])
        with suppress(Exception):  # an odd record; the end has to be written down all the same
            return remedies.fix(
                found,
                remedies.Run(
                    settings=settings,
                    load=measured.Load(**load),
                    stage=stage["name"],
                    argv=self.job.stages[stage["index"] - 1]["argv"],
                    table=options.recorded(),
                    vram=card["total"] if card else None,
                ),
            )
        return None

    def _write_card(self) -> None:
        """Write the model card; whatever is wrong with it, the run has succeeded."""
        job, project = Job(self.job.folder), Project(self.home, self.job.project)
        progress = self.status["progress"]
        try:
            path = modelcard.write(project, job, progress=progress, ended=time.time())
        except Exception as error:
            self._card = f"The model card could not be written: {error}"
            sys.excepthook(*sys.exc_info())
            return
        self._card = f"Model card: {path}" if path else "The model card was edited: it stays."

    def _note_figures(self) -> None:
        """Keep what the run took, for the estimates of later ones; a stopped run tells it too."""
        load = self.job.record.get("load")
        if isinstance(load, dict):
            columns = metrics.read_columns(self.job.folder / "metrics.jsonl", points=None)
            card = resources.chosen_card(self._poller.snapshot()["gpus"])
            measured.note(self.home, load, card["name"] if card else None, columns)

    def _last_words(self, end: End) -> None:
        """The end of the log, as users know it."""
        if self.log is None:
            return
        say, work = self.log.line, WORK.get(self.job.kind, "JOB")
        say()
        if end.state == SUCCEEDED:
            say(f"{work} COMPLETED!")
            for path in self.job.results:
                say(f"LoRA: {path}" if path.endswith(".safetensors") else path)
            if self._card:
                say(self._card)
        elif end.state == STOPPED:
            say(f"{work} STOPPED. {end.reason}")
        elif end.exit_code is None:
            say(f"{work} ABORTED. {end.reason}")
        else:
            say(f"{work} ABORTED WITH ERROR (exit code {end.exit_code})")
            say(f"Cause: {end.reason}")
        if end.hint:
            say(f"What to do: {end.hint}")
        say(f"Log: {self.job.log}")

    # -- one stage -----------------------------------------------------------------------------

    def _run_stage(self, index: int, stage: Stage) -> None:
        """Run one program to its end; raises End unless its files are there afterwards."""
        count = len(self.job.stages)
        self.status["stage"] = {
            "index": index,
            "count": count,
            "name": stage.name,
            "title": stage.title,
        }
        self.status["progress"] = {}
        self._check_requests()
        self.log.line()
        if stage.caches:
            self._run_caching(stage, f"Stage {index} of {count}: {stage.title}")
        else:
            self.log.line(f"=== Stage {index} of {count}: {stage.title} ===")
            self._run_to_outputs(stage, stage.outputs)

    def _run_caching(self, stage: Stage, title: str) -> None:
        """Run a caching stage for what has changed; skip it when nothing has.

        What was finished before a stop or a failure is kept, too.
        """
        project = Project(self.home, self.job.project)
        found = caches.compare(project, stage.caches)
        if found.trouble:
            raise End(FAILED, found.trouble, hint=caches.RENAME)
        caches.begin(project, stage.caches, found)
        if not found.stale:
            self.log.line(f"{title} - skipped: {found.sentence}.")
            caches.finish(project, stage.caches)
            return
        self.log.line(f"=== {title} ===")
        self.log.line(found.sentence[0].upper() + found.sentence[1:] + ".")
        try:
            self._run_to_outputs(stage, [str(project.path / name) for name in found.stale])
        except End as end:
            if end.exit_code == 0 and (changed := caches.resized(project, stage.caches)):
                reason = f"{changed[0]} has another size than when this run was queued."
                raise End(FAILED, reason, hint=START_ANEW, exit_code=0) from end
            raise
        finally:
            caches.finish(project, stage.caches)

    def _run_to_outputs(self, stage: Stage, outputs: list[str]) -> None:
        """Run the program of a stage; raises End unless it has written these files."""
        self.log.line("$ " + shlex.join(stage.argv))
        before = {path: stamp_of(Path(path)) for path in outputs}
        self._run_program(stage)
        self._check_outputs(stage, before)

    def _run_program(self, stage: Stage) -> None:
        """Start the program and stay with it until it and all its children are gone."""
        try:
            child = processes.start_child(
                stage.argv, cwd=stage.cwd, env=child_environment(stage.env, self.job.id)
            )
        except OSError as error:
            raise End(FAILED, f"{stage.argv[0]} could not be started: {error.strerror}.") from error
        output = Output(child.stdout, self.log)
        try:
            self._stay_with(child, output)
        except BaseException:  # a stop request, or a fault of ours: nothing may go on alone
            processes.end_tree(child.pid, patience_s=PATIENCE_S)
            raise
        finally:
            child.wait()
            processes.end_tree(child.pid, patience_s=WORKERS_S)
            output.join(timeout=2.0)
            self._keep_progress(output, all_of_it=True)
            child.stdout.close()
        if child.returncode != 0:
            raise self._failure(stage, child.returncode)

    def _stay_with(self, child: subprocess.Popen, output: Output) -> None:
        """Look after a program until it ends; raises End when it has to be ended."""
        output.start()
        self.status["child"] = {"pid": child.pid, "birth": births.birth(child.pid)}
        self._write_status()
        over = threading.Event()
        threading.Thread(target=lambda: (child.wait(), over.set()), daemon=True).start()
        while not over.wait(LOOK_S):
            self._look(output)

    def _failure(self, stage: Stage, code: int) -> End:
        found = self._diagnosis(stage, code)
        reason = found.cause if found else f"{stage.title} ended with exit code {code}."
        hint = found.remedy if found else None
        return End(FAILED, reason, hint=hint, exit_code=code, diagnosis=found)

    def _diagnosis(self, stage: Stage, code: int | None) -> Diagnosis | None:
        """What the part of the log that is the stage's own says went wrong."""
        own = read_tail(self.log.path).rpartition("\n=== Stage ")[2]
        own = own.partition("\n")[2] or own  # without the rest of that line
        return diagnose.diagnose(own, exit_code=code, stage=stage.name)

    def _check_outputs(self, stage: Stage, before: dict) -> None:
        """Exit code 0 is not success by itself: the files must be there, new and whole."""
        missing = [path for path, old in before.items() if stamp_of(Path(path)) in (None, old)]
        if missing:
            number = f"{len(missing)} of {len(before)} files"
            found = self._diagnosis(stage, 0)
            hint = "The log says what it did instead: often no image or caption was found."
            raise End(
                FAILED,
                f"{stage.title} ended without an error, but did not write {number} "
                f"({Path(missing[0]).name}).",
                hint=f"{found.cause} {found.remedy}" if found else hint,
                exit_code=0,
                diagnosis=found,
            )
        for path in before:
            problem, _ = tensors.read_header(Path(path))
            if problem:
                raise End(
                    FAILED,
                    f"{stage.title} ended without an error, but {problem.text}",
                    hint="Is the disk full? Free some space and start again.",
                    exit_code=0,
                )

    # -- while it runs -------------------------------------------------------------------------

    def _look(self, output: Output) -> None:
        """What is done every tenth of a second while a program runs."""
        self._check_requests()
        self._check_epoch(output)
        self._check_ram()
        now = time.monotonic()
        quiet = now - self._written_at
        if (output.changed.is_set() and quiet >= STATUS_S) or quiet >= SEEN_S:
            output.changed.clear()
            self._keep_progress(output)

    def _check_requests(self) -> None:
        if self._asked_to_end.is_set():
            raise End(INTERRUPTED, "The runner was told to end, so the run was stopped.")
        if not self.job.folder.is_dir():
            raise End(STOPPED, "Its record was deleted.")
        asked = jobs.request_of(self.job.folder)
        if asked.get("stop"):
            raise End(STOPPED, "Stopped on request.")
        if asked.get("after_epoch", False) != ("last_epoch" in self.status):
            self._choose_last_epoch(asked.get("after_epoch", False))

    def _choose_last_epoch(self, wanted: bool) -> None:
        """Which epoch is to be the last: the one at hand, or the next that is saved."""
        if not wanted:
            del self.status["last_epoch"]
            return
        trains = (self.status["stage"] or {}).get("index") == len(self.job.stages)
        at_hand = (self.status["progress"].get("epoch") if trains else None) or 1
        every = jobs.epochs_between_saves(self.job.stages[-1]["argv"]) or 1
        self.status["last_epoch"] = -(-at_hand // every) * every

    def _check_epoch(self, output: Output) -> None:
        """End the run once the next epoch has begun: checkpoint and samples are written by then."""
        last = self.status.get("last_epoch")
        if last is None or self.status["stage"]["index"] != len(self.job.stages):
            return
        with output.lock:
            epoch = output.progress.current.get("epoch")
        if epoch is not None and epoch > last:
            raise End(
                STOPPED,
                f"Stopped after epoch {last}, as asked.",
                outputs=[self._checkpoint(last)],
            )

    def _checkpoint(self, epoch: int) -> str:
        """Where Musubi saves the LoRA of an epoch that is not the last."""
        final = Path(self.job.results[0])
        return str(final.with_name(f"{final.stem}-{epoch:06d}{final.suffix}"))

    def _check_ram(self) -> None:
        """Abort above the limit, seen twice in a row: the system would kill without a word."""
        near = self._ram_percent > RAM_LIMIT_PERCENT - RAM_NEAR_PERCENT
        if time.monotonic() - self._ram_at < (RAM_NEAR_S if near else RAM_S):
            return
        self._ram_at = time.monotonic()
        memory = resources.fullest_ram()
        self._ram_percent = memory["percent"]
        self._high_ram = self._high_ram + 1 if self._ram_percent > RAM_LIMIT_PERCENT else 0
        if self._high_ram >= 2:
            raise self._out_of_ram(memory)

    def _out_of_ram(self, memory: dict) -> End:
        """What a run says that would have filled the memory: where it was, and what helps there."""
        stage = self.status["stage"] or {"name": "", "title": "the run"}
        contained = memory["limit"] == "container"
        whose = "The container's memory" if contained else "Main memory"
        more = " Or give the container more memory." if contained else ""
        reason = (
            f"{whose} was {memory['percent']:.0f} % full ({memory['used'] / 1e9:.1f} of "
            f"{memory['total'] / 1e9:.1f} GB, the limit is {RAM_LIMIT_PERCENT:g} %) during "
            f"“{stage['title']}”, so the run was aborted before the system killed it."
        )
        hint = RAM_HINTS.get(stage["name"], RAM_HINTS["latents"]) + more
        lines = diagnose.last_lines(read_tail(self.log.path))
        found = Diagnosis("ram_full", reason, hint, "", lines=lines)
        return End(FAILED, reason, hint=hint, diagnosis=found)

    def _keep_progress(self, output: Output, *, all_of_it: bool = False) -> None:
        with output.lock:
            rows = output.progress.take_rows(all_of_them=all_of_it)
            self.status["progress"] = dict(output.progress.current)
            self.status["bar"] = output.fold.bar
        self._watch_loss(self.status["progress"])
        if rows:
            self._append_metrics(rows)
        self._write_status()

    def _watch_loss(self, progress: dict) -> None:
        """Warn while the loss is no number for several steps in a row; the log is told once."""
        steps = progress.get("nan_steps", 0)
        if steps < NAN_STEPS:
            self.status["warning"] = None
            return
        if self.status.get("warning"):
            return
        text = f"The loss is NaN since step {progress['step'] - steps + 1}: training has run away."
        hint = (
            "What it learns from there on is worthless; checkpoints from before that step can be "
            "used. Start again with half the learning rate."
        )
        way = remedies.of_nan(self.job.record.get("settings"))
        told = {"id": "nan_loss", "text": text, "hint": hint, "fix": remedies.as_dict(way)}
        self.status["warning"] = told
        if not self._nan_told:
            self._nan_told = True
            self.log.line(f"WARNING: {text} {hint}")

    def _append_metrics(self, rows: list[dict]) -> None:
        now = self._poller.snapshot()
        card = resources.chosen_card(now["gpus"])
        memory = {
            "ram": now["ram"]["used"],
            "vram": card["used"] if card else None,
            "time": round(time.time(), 3),
        }
        text = "".join(json.dumps({**row, **memory}) + "\n" for row in rows)
        with suppress(OSError), (self.job.folder / "metrics.jsonl").open("a") as file:
            file.write(text)

    def _write_status(self) -> bool:
        """Replace the status; False when the disk would not take it."""
        self.status["last_seen"] = time.time()
        self._written_at = time.monotonic()
        try:
            write_json(self.job.folder / "status.json", self.status)
        except OSError as error:
            self._disk_is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            return False
        self._ringer.ring()
        return True


def identity() -> dict:
    """Who this runner is, so that others can tell whether it lives."""
    return {"pid": os.getpid(), "birth": births.birth(os.getpid()), "host": HOST}


def child_environment(extra: dict[str, str], job_id: str) -> dict[str, str]:
    """The environment of a program: ours without our secrets, unbuffered, UTF-8, plus `extra`.

    The job's id is a mark by which all its processes can be found, whatever
    became of their parents.
    """
    mine = {key: value for key, value in os.environ.items() if key != "MUSUBITLX_TOKEN"}
    marked = {**mine, processes.MARK: job_id}
    return {**marked, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", **extra}


def claim(job: Job) -> bool:
    """Make the job ours, in one step; False if it was claimed or deleted, or the disk is full."""
    path = job.folder / "claim"
    beside = path.with_name(f".claim-{os.getpid()}")
    try:
        write_json(beside, {**identity(), "time": time.time()})
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
        told = jobs.UNTOLD_REASONS[INTERRUPTED]
        with (
            suppress(OSError, KeyError),
            Path(job.record["log"]).open("a", encoding="utf-8") as log,
        ):
            log.write(f"\n{WORK.get(job.kind, 'JOB')} ABORTED. {told}\nLog: {job.log}\n")
        now = time.time()
        status = {**job.status, "state": INTERRUPTED, "reason": told, "bar": None, "child": None}
        with suppress(OSError):  # a full disk: the next runner tries again
            write_json(job.folder / "status.json", {**status, "ended": now, "last_seen": now})
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
                else:
                    refused.add(job.id)
        finally:
            lease.give_back()
        if next_job(records, queue, refused) is None:  # a job may have come meanwhile
            return


def next_job(records: Jobs, queue: str, refused: set[str]) -> Job | None:
    """The next job of a queue that could be claimed, None if there is none."""
    return next((job for job in records.waiting(queue) if job.id not in refused), None)


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
