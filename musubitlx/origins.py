"""Which run made a file: LoRAs and samples of an output folder, traced to the job of each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from musubitlx import metrics
from musubitlx.home import Stamp, stamp_of
from musubitlx.jobs import RUNNING, Job
from musubitlx.projects import Project

AFTER_S = 5.0  # a file may be this much younger than the end of its run: clocks of other machines
UNSEEN_S = 15.0  # the same after a run that broke off: its last sign of life is older than its end
BEFORE_S = 0.1  # file systems tell time in ticks: a file may seem older than it is
LAST_STEPS = 10  # whose loss is averaged for a checkpoint
CHECKPOINT = re.compile(r"(?P<lora>.+)-(?:(?P<epoch>\d{6})|step(?P<step>\d{8}))")

_losses: dict[str, tuple[Stamp | None, dict[str, list]]] = {}


class Lora(NamedTuple):
    """A LoRA file by what its name says, and the run that wrote it, if that is on record."""

    path: Path
    lora: str  # the run's output name
    epoch: int | None  # of a checkpoint after an epoch
    step: int | None  # of a checkpoint after a step
    run: Run | None
    modified: float
    bytes: int


class Run:
    """A training run that began, as far as its files tell of it."""

    def __init__(self, job: Job):
        self.job, self.id = job, job.id
        settings = job.record.get("settings")
        self.settings = settings if isinstance(settings, dict) else {}
        self.name = self.settings.get("output_name")
        self.began = job.status["started"]
        state = job.state
        ended = job.status.get("ended") or job.status.get("last_seen") or self.began
        slack = AFTER_S if job.status.get("ended") else UNSEEN_S
        self.is_running = state == RUNNING
        self.ended = None if self.is_running else ended + slack

    def was_on(self, moment: float) -> bool:
        """Whether it was under way at a moment (seconds since the epoch)."""
        early = self.began - BEFORE_S <= moment
        return early and (self.ended is None or moment <= self.ended)

    @property
    def epochs(self) -> int | None:
        """How many epochs it has in all."""
        return self.job.status.get("progress", {}).get("epochs") or self.settings.get("epochs")

    def prompts(self) -> list[str]:
        """The lines of its prompt file, as the trainer got them."""
        for path, text in (self.job.record.get("files") or {}).items():
            if Path(path).name == "sample_prompts.txt":
                return [line for line in text.split("\n") if line.strip()]
        return []

    def columns(self) -> dict[str, list]:
        """Its figures step by step, read anew only when there are more."""
        path = self.job.folder / "metrics.jsonl"
        stamp = stamp_of(path)
        known = _losses.get(self.id)
        if known is None or known[0] != stamp:
            if len(_losses) > 64:
                _losses.clear()
            known = _losses[self.id] = (stamp, metrics.read_columns(path, points=None))
        return known[1]

    def loss_at(self, *, epoch: int | None = None, step: int | None = None) -> dict:
        """The loss at the end of an epoch, at a step, or (neither given) at the end.

        It is the mean of the bar's loss over the last ten steps up to there; what
        Musubi shows there is a mean over the last epoch already. `step` is where
        it was read, `steps` of how many it is the mean; all None when not known.
        """
        columns = self.columns()
        rows = [
            (at, value)
            for at, part, value in zip(
                columns["step"], columns["epoch"], columns["loss"], strict=True
            )
            if isinstance(at, int)
            and (step is None or at <= step)
            and (epoch is None or (part or 0) <= epoch)
        ]
        if not rows or (step is not None and rows[-1][0] != step):
            return {"loss": None, "step": step, "steps": None}
        last = [
            value
            for _, value in rows[-LAST_STEPS:]
            if isinstance(value, (int, float)) and isfinite(value)
        ]
        mean = fmean(last) if last else None
        return {"loss": mean, "step": rows[-1][0], "steps": len(last) or None}

    def as_dict(self) -> dict:
        """What the page says of it."""
        told = self.job.as_dict()
        names = ("id", "title", "state", "started", "ended", "practice")
        return {**{name: told[name] for name in names}, "name": self.name, "epochs": self.epochs}


class Origins:
    """The training runs of an output folder, the newest first."""

    def __init__(self, project: Project, jobs: Iterable[Job]):
        self.project = project
        own = (job for job in jobs if job.kind == "train" and job.project == project.name)
        self.runs = sorted(
            (Run(job) for job in own if job.status.get("started")),
            key=lambda run: run.began,
            reverse=True,
        )

    def of(self, name: str | None, moment: float) -> Run | None:
        """The run that wrote a file of the LoRA `name` at a moment; None when none is on record.

        Files are told by their time: a copy that did not keep it belongs to no run.
        """
        fits = (run for run in self.runs if run.name == name and run.was_on(moment))
        return next(fits, None)

    def loras(self) -> list[Lora]:
        """The LoRA files of the folder, the newest first."""
        found = []
        for path in self.project.outputs():
            with suppress(FileNotFoundError):  # a checkpoint the trainer just removed
                found.append(self.lora(path))
        return found

    def lora(self, path: Path) -> Lora:
        """One LoRA file; FileNotFoundError if it is not there."""
        info, match = path.stat(), CHECKPOINT.fullmatch(path.stem)
        final = self.of(path.stem, info.st_mtime)  # which may be called as if it were a checkpoint
        if final or not match:
            return Lora(path, path.stem, None, None, final, info.st_mtime, info.st_size)
        epoch, step = (int(match[key]) if match[key] else None for key in ("epoch", "step"))
        run = self.of(match["lora"], info.st_mtime)
        return Lora(path, match["lora"], epoch, step, run, info.st_mtime, info.st_size)
