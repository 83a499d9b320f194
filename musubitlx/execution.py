"""One job that was claimed: the programs of its stages, one after the other.

Each is a subprocess that is looked after until it and all its children are gone.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path

from musubitlx import __version__, births, caches, closing, endings, processes, tensors, watches
from musubitlx.endings import End
from musubitlx.home import Home, stamp_of, write_text
from musubitlx.jobs import FAILED, SUCCEEDED, Job, Stage
from musubitlx.projects import Project
from musubitlx.recording import Output, Recording

LOOK_S = 0.1  # how often a running program is looked after
PATIENCE_S = 10.0  # what a stopped trainer gets before it is killed
WORKERS_S = 1.0  # what data-loader workers get once their trainer has ended

START_ANEW = "Start a new run: it takes the images as they are then."


class Execution:
    """One job, from its claim to its last line; `ended` is set when the runner is to end."""

    def __init__(self, home: Home, job: Job, ended: threading.Event):
        self.home, self.job = home, job
        self.kept = Recording(home, job)
        self._requests = watches.Requests(job, ended)
        self._last_epoch = watches.LastEpoch(job)
        self._memory = watches.Memory()
        self._loss = watches.Loss(job)
        self._there: dict[str, tuple | None] = {}  # results of an earlier run, as they were

    # -- the whole -----------------------------------------------------------------------------

    def run(self) -> None:
        """Run every stage; whatever happens, an end is recorded and the log says it."""
        self.kept.write_status()
        end = self._end()
        results = [p for p, old in self._there.items() if stamp_of(Path(p)) not in (None, old)]
        closing.close(self.home, self.job, self.kept, end, results)

    def _end(self) -> End:
        """Do all there is to do and return how it ended."""
        try:
            self._prepare()
            for index, stage in enumerate(self.job.stages, 1):
                self._run_stage(index, Stage(**stage))
        except End as end:
            return end
        except OSError as error:
            path = error.filename2 or error.filename  # of a renaming the new name
            what = f" ({path})" if path else ""
            return End(FAILED, f"The run could not go on: {error.strerror or error}{what}.")
        except Exception as error:
            sys.excepthook(*sys.exc_info())
            return End(FAILED, f"The runner failed: {type(error).__name__}: {error}.")
        return End(SUCCEEDED, "", exit_code=0)

    def _prepare(self) -> None:
        """Open the log, look for the inputs, write the files that belong to the run."""
        log = self.kept.open_log(Path(self.job.log))
        log.line(f"MusubiTLX {__version__} – {self.job.title}")
        log.line(time.strftime("Started %Y-%m-%d %H:%M:%S %z"))
        if self.job.practice:
            log.line("Practice run: shows how everything works; its LoRA is not for Qwen-Image.")
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

    # -- one stage -----------------------------------------------------------------------------

    def _run_stage(self, index: int, stage: Stage) -> None:
        """Run one program to its end; raises End unless its files are there afterwards."""
        count = len(self.job.stages)
        self.kept.status["stage"] = {
            "index": index,
            "count": count,
            "name": stage.name,
            "title": stage.title,
        }
        self.kept.status["progress"] = {}
        self._look_for_requests()
        self.kept.log.line()
        if stage.caches:
            self._run_caching(stage, f"Stage {index} of {count}: {stage.title}")
        else:
            self.kept.log.line(f"=== Stage {index} of {count}: {stage.title} ===")
            self._run_to_outputs(stage, stage.outputs)

    def _run_caching(self, stage: Stage, title: str) -> None:
        """Run a caching stage for what has changed; skip it when nothing has.

        What was finished before a stop or a failure is kept, too.
        """
        project, log = Project(self.home, self.job.project), self.kept.log
        found = caches.compare(project, stage.caches)
        if found.trouble:
            raise End(FAILED, found.trouble, hint=caches.RENAME)
        caches.begin(project, stage.caches, found)
        if not found.stale:
            log.line(f"{title} - skipped: {found.sentence}.")
            caches.finish(project, stage.caches)
            return
        log.line(f"=== {title} ===")
        log.line(found.sentence[0].upper() + found.sentence[1:] + ".")
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
        self.kept.log.line("$ " + shlex.join(stage.argv))
        before = {path: stamp_of(Path(path)) for path in outputs}
        self._run_program(stage)
        check_outputs(stage, before, self.kept.log.path)

    # -- its program ---------------------------------------------------------------------------

    def _run_program(self, stage: Stage) -> None:
        """Start the program and stay with it until it and all its children are gone."""
        env = child_environment(stage.env, self.job.id)
        try:
            child = processes.start_child(stage.argv, cwd=stage.cwd, env=env)
        except OSError as error:
            raise End(FAILED, f"{stage.argv[0]} could not be started: {error.strerror}.") from error
        output = Output(child.stdout, self.kept.log)
        try:
            self._stay_with(child, stage, output)
        except BaseException:  # a stop request, or a fault of ours: nothing may go on alone
            processes.end_tree(child.pid, patience_s=PATIENCE_S)
            raise
        finally:
            child.wait()
            processes.end_tree(child.pid, patience_s=WORKERS_S)
            output.join(timeout=2.0)
            self._keep(output, all_of_it=True)
            child.stdout.close()
        if child.returncode != 0:
            raise endings.of_exit(stage, child.returncode, self.kept.log.path)

    def _stay_with(self, child: subprocess.Popen, stage: Stage, output: Output) -> None:
        """Look after a program until it ends; raises End when it has to be ended."""
        output.start()
        self.kept.status["child"] = {"pid": child.pid, "birth": births.birth(child.pid)}
        self.kept.write_status()
        over = threading.Event()
        threading.Thread(target=lambda: (child.wait(), over.set()), daemon=True).start()
        while not over.wait(LOOK_S):
            self._look(stage, output)

    def _look(self, stage: Stage, output: Output) -> None:
        """What is done every tenth of a second while a program runs."""
        self._look_for_requests()
        if self._is_last_stage:
            self._last_epoch.look(output.epoch)
        self._memory.look(stage, self.kept.log.path)
        if self.kept.is_due(changed=output.changed.is_set()):
            output.changed.clear()
            self._keep(output)

    def _look_for_requests(self) -> None:
        """End the run if that is asked, and note which epoch is to be its last."""
        status, wanted = self.kept.status, self._requests.look()
        at_hand = status["progress"].get("epoch") if self._is_last_stage else None
        self._last_epoch.ask(wanted, at_hand)
        if self._last_epoch.number is None:
            status.pop("last_epoch", None)
        else:
            status["last_epoch"] = self._last_epoch.number

    @property
    def _is_last_stage(self) -> bool:
        """Of a training the one that trains; those before it cache."""
        return self.kept.status["stage"]["index"] == len(self.job.stages)

    def _keep(self, output: Output, *, all_of_it: bool = False) -> None:
        """Put what a program has told since the last time into the record."""
        seen = output.take(all_of_it=all_of_it)
        self._loss.look(seen.progress, self.kept.log)
        self.kept.status |= {
            "progress": seen.progress,
            "bar": seen.bar,
            "warning": self._loss.warning,
        }
        self.kept.append_metrics(seen.rows)
        self.kept.write_status()


def child_environment(extra: dict[str, str], job_id: str) -> dict[str, str]:
    """The environment of a program: ours without our secrets, unbuffered, UTF-8, plus `extra`.

    The job's id is a mark by which all its processes can be found, whatever
    became of their parents.
    """
    mine = {key: value for key, value in os.environ.items() if key != "MUSUBITLX_TOKEN"}
    marked = {**mine, processes.MARK: job_id}
    return {**marked, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", **extra}


def check_outputs(stage: Stage, before: dict[str, tuple | None], log: Path) -> None:
    """Raise End unless the files are there, new and whole: exit code 0 is not success by itself.

    `before` are the files by path, with the stamps they had as the program began.
    """
    missing = [path for path, old in before.items() if stamp_of(Path(path)) in (None, old)]
    if missing:
        number = f"{len(missing)} of {len(before)} files"
        found = endings.diagnosis(stage, 0, log)
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
