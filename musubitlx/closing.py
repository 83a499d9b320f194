"""What is done once a run has ended: its model card, its last words, the way out, its figures."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path

from musubitlx import measured, metrics, modelcard, options, remedies
from musubitlx.diagnose import Diagnosis
from musubitlx.endings import End, last_words
from musubitlx.home import Home
from musubitlx.jobs import SUCCEEDED, Job
from musubitlx.projects import Project
from musubitlx.recording import Recording


def close(home: Home, job: Job, kept: Recording, end: End, results: list[str]) -> None:
    """Say in the log and put on record how a run ended, and keep what it teaches.

    `results` are the paths of what it wrote. Returns when the end is on record,
    however long a full disk takes.
    """
    trained = end.state == SUCCEEDED and job.kind == "train"
    card = write_card(home, job, kept.status["progress"]) if trained else None
    if kept.log:
        kept.log.last_lines(last_words(job, end, card))
    kept.status |= {
        "state": end.state,
        "reason": end.reason or None,
        "hint": end.hint,
        "diagnosis": end.diagnosis and as_dict(end.diagnosis, job, kept),
        "exit_code": end.exit_code,
        "ended": time.time(),
        "bar": None,
        "outputs": results + [path for path in end.outputs if Path(path).is_file()],
        "child": None,
    }
    kept.write_end()
    if kept.log:
        kept.log.close()
    note_figures(home, job, kept)
    kept.ring()


def write_card(home: Home, job: Job, progress: dict) -> str:
    """Write the model card and return what the log says of it.

    Whatever is wrong with it, the run has succeeded.
    """
    try:
        path = modelcard.write(
            Project(home, job.project), Job(job.folder), progress=progress, ended=time.time()
        )
    except Exception as error:
        sys.excepthook(*sys.exc_info())
        return f"The model card could not be written: {error}"
    return f"Model card: {path}" if path else "The model card was edited: it stays."


def as_dict(found: Diagnosis, job: Job, kept: Recording) -> dict:
    """What is known of a failure, for the page: its name, the lines that tell, a way out."""
    way = remedies.as_dict(way_out(found, job, kept))
    return {"id": found.code, "lines": found.lines, "fix": way}


def way_out(found: Diagnosis, job: Job, kept: Recording) -> remedies.Fix | None:
    """The settings that would put a failed training right; None for other jobs and odd records."""
    stage = kept.status["stage"]
    if not stage or not job.settings or not job.load:
        return None
    with suppress(Exception):  # an odd record; the end has to be written down all the same
        card = kept.card()
        return remedies.fix(
            found,
            remedies.Run(
                settings=job.settings,
                load=measured.Load(**job.load),
                stage=stage["name"],
                argv=job.stages[stage["index"] - 1]["argv"],
                table=options.recorded(),
                vram=card["total"] if card else None,
            ),
        )
    return None


def note_figures(home: Home, job: Job, kept: Recording) -> None:
    """Keep what the run took, for the estimates of later ones; a stopped run tells it too."""
    if not job.load:
        return
    try:
        columns = metrics.read_columns(job.folder / "metrics.jsonl", points=None)
        card = kept.card()
        measured.note(home, job.load, card["name"] if card else None, columns)
    except Exception:  # the estimates go on without it, and the queue with the next job
        sys.excepthook(*sys.exc_info())
