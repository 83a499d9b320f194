"""What a chart of a run shows: its figures, and the learning rate of each step."""

from __future__ import annotations

from musubitlx import metrics, schedules
from musubitlx.jobs import Job

MOST_POINTS = 20_000


def columns(job: Job, first: int | None, last: int | None, points: int) -> dict:
    """The columns of `metrics.Figures` with `lr`, and as `lr_reason` why that is unknown.

    `first` and `last` are the steps of a part of the run, None for all of it.
    """
    points = max(8, min(points, MOST_POINTS))
    found = metrics.read_columns(job.folder / "metrics.jsonl", first, last, points)
    schedule = _schedule(job)
    found["lr"] = [schedule.at(step) for step in found["step"]]
    found["lr_reason"] = schedule.reason
    return found


def as_csv(job: Job) -> str:
    """Every step of a run as comma-separated values."""
    return metrics.as_csv(job.folder / "metrics.jsonl", _schedule(job).at)


def name_of(job: Job) -> str:
    """What the files made of a run's figures are called, without an ending."""
    return f"{job.settings.get('output_name') or job.kind}_{job.id}_loss"


def _schedule(job: Job) -> schedules.Schedule:
    """The schedule of the training stage, the last one."""
    if job.kind != "train" or not job.stages:
        return schedules.Schedule(reason="this is no training")
    return schedules.of_command(job.stages[-1]["argv"][2:], _total(job))


def _total(job: Job) -> int | None:
    """The number of all training steps, None before the training says it."""
    stage, total = job.status.get("stage"), job.status.get("progress", {}).get("total")
    training = not stage or stage.get("index") == stage.get("count")
    return total if training and isinstance(total, int) and total > 0 else None
