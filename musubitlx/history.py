"""What there is to tell of a run: a row in the list of all, and everything for a closer look."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from musubitlx import notes, settings
from musubitlx.errors import UserError
from musubitlx.home import stamp_of
from musubitlx.jobs import QUEUED, Job, Jobs, is_settled
from musubitlx.logs import read_tail

KEY_SETTINGS = (
    *("output_name", "trigger_word", "resolution", "lora_rank", "lora_dims", "learning_rate"),
    *("epochs", "image_repeats", "batch_size", "vram_profile", "optimizer_type", "recipe"),
)
NOTE_LENGTH = 300  # characters of notes that the list holds
LAST_LINES = 40
TAIL_BYTES = 65_536
SMALL = 0.001  # numbers below are told as 1e-4, as the form shows them
TRAINING = "train"  # the stage whose steps and loss are those of the run


def row(job: Job, note: str = "") -> dict:
    """A run as the list of all shows it; of its progress what is not known is left out.

    `training` says that the progress is that of training, not of a caching stage.
    """
    told = job.as_dict()
    given = job.settings
    names = ("id", "kind", "queue", "project", "title", "practice", "state", "stopping", "reason")
    names += ("created", "started", "ended", "stage", "after_epoch")
    known = {name: value for name, value in told["progress"].items() if value is not None}
    return {
        **{name: told[name] for name in names},
        "name": given.get("output_name") or told["title"],
        "progress": known,
        "training": (told["stage"] or {}).get("name") == TRAINING,
        "images": len(images_of(job)),
        "settings": {name: given[name] for name in KEY_SETTINGS if name in given},
        "note": note[:NOTE_LENGTH],
    }


def details(job: Job) -> dict:
    """Everything about a run that its record and its log tell."""
    note = notes.read(job.folder)
    return {
        "settings": job.settings,
        "rows": setting_rows(job),
        "commands": [
            {"title": stage["title"], "command": shlex.join(stage["argv"])} for stage in job.stages
        ],
        "dataset_config": file_of(job, "dataset_config.toml"),
        "images": len(images_of(job)),
        "versions": versions_of(job),
        "notes": note,
        "notes_tag": notes.tag(note),
        "last_lines": read_tail(Path(job.log), TAIL_BYTES).splitlines()[-LAST_LINES:],
        "log_there": Path(job.log).is_file(),
    }


# -- what a record holds ---------------------------------------------------------------------------


def setting_rows(job: Job) -> list[dict]:
    """The settings as a person types them, in the order of the form: {name, label, value, default}.

    `default` says that the value is the one nobody has to choose.
    """
    given = job.settings
    return [
        {
            "name": one.name,
            "label": one.label,
            "value": typed(given[one.name]),
            "default": given[one.name] == one.default,
        }
        for one in settings.ROWS
        if one.name in given
    ]


def typed(value: object) -> str:
    """A setting's value as text: `5e-5`, `on`; what is not set is empty."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float) and 0 < value < SMALL:
        return re.sub(r"\.?0*e-0*", "e-", f"{value:e}")
    return str(settings.as_typed(value))


def images_of(job: Job) -> list[str]:
    """The names of the images of a run."""
    return [Path(path).name for path in job.inputs]


def file_of(job: Job, name: str) -> str:
    """The text of a file that belongs to the run, such as dataset_config.toml; or empty."""
    return next((text for path, text in job.files.items() if Path(path).name == name), "")


def captions_of(job: Job) -> dict[str, str]:
    """The text the trainer got for each image, by the image's name."""
    found = {}
    for line in file_of(job, "dataset.jsonl").splitlines():
        with suppress(ValueError, KeyError, TypeError):
            one = json.loads(line)
            found[Path(one["image_path"]).name] = str(one["caption"])
    return found


def versions_of(job: Job) -> dict[str, str]:
    """The versions of MusubiTLX and of the trainer, as far as they are on record."""
    made_by = ""
    for stage in job.stages:
        made_with = stage.get("caches", {}).get("with", {})
        made_by = made_by or str(made_with.get("trainer") or "")
    trainer = "practice trainer" if job.practice else made_by.removeprefix("musubi ")
    told = {"MusubiTLX": job.record.get("version"), "Musubi Tuner": trainer}
    return {name: str(version) for name, version in told.items() if version}


# -- all runs --------------------------------------------------------------------------------------


class History:
    """The rows of all runs. That of a run that is over is made once."""

    def __init__(self, jobs: Jobs):
        self._jobs = jobs
        self._made: dict[str, tuple] = {}  # job, stamp of its notes, row

    def look(self) -> dict:
        """{runs, order}: every run, newest first, and what waits by id, each queue in its order.

        The row of a run that did not change is the same object as before.
        """
        jobs = self._jobs.all()
        runs = [self._row(job) for job in jobs]
        for gone in self._made.keys() - {one["id"] for one in runs}:
            self._made.pop(gone, None)
        waiting = [job for job, one in zip(jobs, runs, strict=True) if one["state"] == QUEUED]
        waiting.sort(key=lambda job: (job.queue, job.place))
        return {"runs": runs, "order": [job.id for job in waiting]}

    def _row(self, job: Job) -> dict:
        stamp = stamp_of(job.folder / notes.FILE)
        known = self._made.get(job.id)
        if known and known[0] is job and known[1] == stamp and is_settled(job):
            return known[2]
        made = row(job, notes.read(job.folder) if stamp else "")
        if known and known[2] == made:
            made = known[2]
        self._made[job.id] = (job, stamp, made)
        return made


def forget(jobs: Jobs, job_ids: Iterable[str]) -> tuple[list[str], list[dict]]:
    """Delete the records of several runs; returns those removed, and {id, error} of those kept."""
    removed, kept = [], []
    for job_id in dict.fromkeys(job_ids):
        try:
            jobs.forget(job_id)
            removed.append(job_id)
        except UserError as error:
            kept.append({"id": job_id, "error": str(error)})
    return removed, kept
