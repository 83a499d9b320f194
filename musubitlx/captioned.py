"""What a captioning run made: one row an image, kept in the folder, appended as it goes.

A row stands there before its caption is written, so that whatever breaks off can be undone.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from musubitlx.home import is_component, stamp_of
from musubitlx.projects import Project

FOLDER = "captioned"
KEPT = 50  # runs of which the rows are kept, the newest
PILES = ("*.jsonl", "*.trial", "names-*.json", "trial_*.log")
MAX_BYTES = 200_000_000  # nothing longer was written by us


def path_of(project: Project, run: str) -> Path:
    """Where the rows of a run stand, by the id of its job."""
    return project.hidden / FOLDER / f"{run}.jsonl"


def _trial_of(project: Project, run: str) -> Path:
    return path_of(project, run).with_suffix(".trial")


def begin(project: Project, run: str, *, trial: bool = False) -> Path:
    """Make an empty file for a run's rows and drop those of the oldest runs.

    Trials have a pile of their own, so that many of them cost no run its undo.
    """
    path = _trial_of(project, run) if trial else path_of(project, run)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    for pattern in PILES:
        older = sorted(path.parent.glob(pattern), key=_modified)
        for one in older[:-KEPT]:
            with suppress(OSError):
                one.unlink()
    return path


def _modified(path: Path) -> int:
    stamp = stamp_of(path)
    return stamp.modified if stamp else 0


def append(path: Path, row: dict) -> None:
    """Add a row, on the disk before anything else is done.

    {name, before, after} is a caption that is about to be written, {name, text} the result of
    a trial, {name, problem} an image that was skipped and why.
    """
    with path.open("ab") as file:
        file.write(json.dumps(row, ensure_ascii=False).encode("utf-8") + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read(project: Project, run: object) -> list[dict]:
    """The rows of a run, in order; what is cut short or no row is left out."""
    if not is_component(run):
        return []
    rows, path = [], path_of(project, run)
    if not path.exists():
        path = _trial_of(project, run)
    with suppress(OSError), path.open("rb") as file:
        for line in file.read(MAX_BYTES).split(b"\n"):
            with suppress(ValueError, RecursionError):
                row = json.loads(line)
                if isinstance(row, dict) and isinstance(row.get("name"), str):
                    rows.append(row)
    return rows
