"""What is watched while a run goes on: requests, the last epoch, main memory, the loss.

The first three end the run by raising an End; the loss only warns.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from musubitlx import diagnose, jobs, remedies, resources
from musubitlx.diagnose import Diagnosis
from musubitlx.endings import End
from musubitlx.jobs import FAILED, INTERRUPTED, STOPPED, Job, Stage
from musubitlx.logs import read_tail
from musubitlx.recording import LogFile

RAM_S = 1.0  # how often RAM is looked at
RAM_NEAR_S = 0.25  # the same, where it is nearly full: a model that loads takes gigabytes a second
RAM_NEAR_PERCENT = 10.0  # below the limit
RAM_LIMIT_PERCENT = 95.0  # unless MUSUBITLX_RAM_LIMIT_PERCENT is another number
with suppress(KeyError, ValueError):
    RAM_LIMIT_PERCENT = float(os.environ["MUSUBITLX_RAM_LIMIT_PERCENT"].strip(" %"))
NAN_STEPS = 3  # so many in a row whose loss is no number are no accident

RAM_HINTS = {  # by stage; what was cached is kept
    "latents": "Close other programs and start again: it goes on where it was.",
    "text_encoder": "Close other programs and start again: the text encoder passes through main "
    "memory as it is loaded, some 17 GB.",
    "caption": "Close other programs, or take a smaller caption model.",
    "train": "Close other programs, or choose a profile that swaps fewer blocks to RAM.",
}


class Requests:
    """What is asked of a run while it goes on."""

    def __init__(self, job: Job, ended: threading.Event):
        self._folder = job.folder
        self._ended = ended  # set when the runner itself is told to end

    def look(self) -> bool:
        """Whether the run shall stop after an epoch; raises End when it shall stop now."""
        if self._ended.is_set():
            raise End(INTERRUPTED, "The runner was told to end, so the run was stopped.")
        if not self._folder.is_dir():
            raise End(STOPPED, "Its record was deleted.")
        asked = jobs.request_of(self._folder)
        if asked.get("stop"):
            raise End(STOPPED, "Stopped on request.")
        return asked.get("after_epoch", False)


class LastEpoch:
    """The epoch after which a training stops, because somebody asked for that.

    `number` is that epoch, None while nobody asks.
    """

    def __init__(self, job: Job):
        self._job = job
        self.number: int | None = None

    def ask(self, wanted: bool, at_hand: int | None) -> None:
        """Choose which is to be the last: the epoch at hand, or the next that is saved.

        One that is chosen stays until it is no longer wanted. `at_hand` is None before
        the training has named an epoch.
        """
        if not wanted:
            self.number = None
        elif self.number is None:
            every = jobs.epochs_between_saves(self._job.stages[-1]["argv"]) or 1
            self.number = -(-(at_hand or 1) // every) * every

    def look(self, epoch: int | None) -> None:
        """Raise End once the next epoch has begun: checkpoint and samples are written by then."""
        if self.number is not None and epoch is not None and epoch > self.number:
            raise End(
                STOPPED,
                f"Stopped after epoch {self.number}, as asked.",
                outputs=[self._checkpoint(self.number)],
            )

    def _checkpoint(self, epoch: int) -> str:
        """Where Musubi saves the LoRA of an epoch that is not the last."""
        final = Path(self._job.results[0])
        return str(final.with_name(f"{final.stem}-{epoch:06d}{final.suffix}"))


class Memory:
    """Main memory: it ends the run before the system would kill it without a word."""

    def __init__(self) -> None:
        self._looked_at = self._percent = 0.0
        self._times_over = 0  # in a row

    def look(self, stage: Stage, log: Path) -> None:
        """Raise End above the limit, seen twice in a row; does nothing before it is time to look.

        The end says which stage it was, and what the log said last.
        """
        near = self._percent > RAM_LIMIT_PERCENT - RAM_NEAR_PERCENT
        if time.monotonic() - self._looked_at < (RAM_NEAR_S if near else RAM_S):
            return
        self._looked_at = time.monotonic()
        memory = resources.fullest_ram()
        self._percent = memory["percent"]
        self._times_over = self._times_over + 1 if self._percent > RAM_LIMIT_PERCENT else 0
        if self._times_over >= 2:
            raise out_of_ram(memory, stage, log)


def out_of_ram(memory: dict, stage: Stage, log: Path) -> End:
    """What a run says that would have filled the memory: where it was, and what helps there."""
    contained = memory["limit"] == "container"
    whose = "The container's memory" if contained else "Main memory"
    more = " Or give the container more memory." if contained else ""
    reason = (
        f"{whose} was {memory['percent']:.0f} % full ({memory['used'] / 1e9:.1f} of "
        f"{memory['total'] / 1e9:.1f} GB, the limit is {RAM_LIMIT_PERCENT:g} %) during "
        f"“{stage.title}”, so the run was aborted before the system killed it."
    )
    hint = RAM_HINTS.get(stage.name, RAM_HINTS["latents"]) + more
    lines = diagnose.last_lines(read_tail(log))
    found = Diagnosis("ram_full", reason, hint, "", lines=lines)
    return End(FAILED, reason, hint=hint, diagnosis=found)


class Loss:
    """The loss of a training: a warning while it is no number for several steps in a row.

    `warning` is what the page shows, None while there is nothing to warn of.
    """

    def __init__(self, job: Job):
        self._settings = job.settings
        self._told = False  # to the log
        self.warning: dict | None = None

    def look(self, progress: dict, log: LogFile) -> None:
        """Set or lift the warning; the log is told once."""
        steps = progress.get("nan_steps", 0)
        if steps < NAN_STEPS:
            self.warning = None
        elif not self.warning:
            self.warning = self._run_away(progress["step"] - steps + 1)
            if not self._told:
                self._told = True
                log.line(f"WARNING: {self.warning['text']} {self.warning['hint']}")

    def _run_away(self, step: int) -> dict:
        return {
            "id": "nan_loss",
            "text": f"The loss is NaN since step {step}: training has run away.",
            "hint": "What it learns from there on is worthless; checkpoints from before that step "
            "can be used. Start again with half the learning rate.",
            "fix": remedies.as_dict(remedies.of_nan(self._settings)),
        }
