"""How a run ends: the end as an exception, the cause its log tells of, and its last words."""

from __future__ import annotations

from pathlib import Path

from musubitlx import diagnose
from musubitlx.diagnose import Diagnosis
from musubitlx.errors import read_printed
from musubitlx.jobs import FAILED, STOPPED, SUCCEEDED, Job, Stage
from musubitlx.logs import read_tail

OURS = ("fetch", "caption")  # stages whose programs say in a sentence what went wrong
WORK = {"train": "TRAINING", "caption": "CAPTIONING", "download": "DOWNLOAD"}


class End(Exception):
    """How a job ended; raised by whoever finds that it can't go on."""

    def __init__(
        self,
        state: str,
        reason: str,
        *,
        hint: str | None = None,
        exit_code: int | None = None,
        outputs=(),
        diagnosis: Diagnosis | None = None,
    ):
        super().__init__(reason)
        self.state, self.reason, self.hint, self.exit_code = state, reason, hint, exit_code
        self.outputs = list(outputs)  # besides the results that are there
        self.diagnosis = diagnosis  # of a failure, where its cause is known


def of_exit(stage: Stage, code: int, log: Path) -> End:
    """The end of a run whose program ended with `code`, which is not 0."""
    found = diagnosis(stage, code, log)
    reason = found.cause if found else f"{stage.title} ended with exit code {code}."
    hint = (found.remedy or None) if found else None
    return End(FAILED, reason, hint=hint, exit_code=code, diagnosis=found)


def diagnosis(stage: Stage, code: int | None, log: Path) -> Diagnosis | None:
    """What the part of the log that is the stage's own says went wrong."""
    own = read_tail(log).rpartition("\n=== Stage ")[2]
    own = own.partition("\n")[2] or own  # without the rest of that line
    if stage.name in OURS and (told := read_printed(own)):
        lines = diagnose.last_lines(own)
        return Diagnosis("told", str(told), told.hint or "", str(told), lines=lines)
    return diagnose.diagnose(own, exit_code=code, stage=stage.name)


def last_words(job: Job, end: End, card: str | None = None) -> list[str]:
    """The lines at the end of a log, as users know them; `card`: what there is to say of one."""
    return [
        "",
        *_outcome(job, end, card),
        *([f"What to do: {end.hint}"] if end.hint else []),
        f"Log: {job.log}",
    ]


def _outcome(job: Job, end: End, card: str | None) -> list[str]:
    work = WORK.get(job.kind, "JOB")
    if end.state == SUCCEEDED:
        made = [f"LoRA: {path}" if path.endswith(".safetensors") else path for path in job.results]
        return [f"{work} COMPLETED!", *made, *([card] if card else [])]
    if end.state == STOPPED:
        return [f"{work} STOPPED. {end.reason}"]
    if end.exit_code is None:
        return [f"{work} ABORTED. {end.reason}"]
    return [f"{work} ABORTED WITH ERROR (exit code {end.exit_code})", f"Cause: {end.reason}"]
