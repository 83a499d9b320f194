"""Which run made a file: LoRAs and samples of an output folder, traced to the job of each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from musubitlx import metrics
from musubitlx.jobs import RUNNING, Job
from musubitlx.projects import Project

AFTER_S = 5.0  # a file may be this much younger than the end of its run: clocks of other machines
UNSEEN_S = 15.0  # the same after a run that broke off: its last sign of life is older than its end
BEFORE_S = 0.1  # file systems tell time in ticks: a file may seem older than it is
LAST_STEPS = 10  # whose loss is averaged for a checkpoint
CHECKPOINT = re.compile(r"(?P<lora>.+)-(?:(?P<epoch>\d{6})|step(?P<step>\d{8}))")


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
        self.settings = job.settings
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
        for path, text in self.job.files.items():
            if Path(path).name == "sample_prompts.txt":
                return [line for line in text.split("\n") if line.strip()]
        return []

    def loss_at(self, *, epoch: int | None = None, step: int | None = None) -> dict:
        """The loss at the end of an epoch, at a step, or (neither given) at the end.

        It is the mean of the bar's loss over the last ten steps up to there; what
        Musubi shows there is a mean over the last epoch already. `step` is where
        it was read, `steps` of how many it is the mean; all None when not known.
        """
        figures = metrics.figures(self.job.folder / "metrics.jsonl")
        return figures.last_loss(LAST_STEPS, epoch=epoch, step=step)

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
