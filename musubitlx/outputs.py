"""The LoRA files of an output folder: what each is, its loss and samples, which is the best."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from musubitlx import samples, trash
from musubitlx.errors import Conflict, NotFound
from musubitlx.home import read_json, write_json
from musubitlx.jobs import Job
from musubitlx.modelcard import cards
from musubitlx.origins import Lora, Origins
from musubitlx.projects import Project

BEST = "best.json"  # a person's choice: not among what can be made again
ENDS_BYTES = 1 << 20  # of a file, by whose beginning and end it is known again


def listed(project: Project, jobs: list[Job]) -> dict:
    """What the page shows: `files`, the `runs` that made them, and the model `cards` by name.

    Files come by run, the newest first; within a run the finished LoRA, then
    its checkpoints from the last to the first.
    """
    origins, drawn, best = Origins(project, jobs), samples.listed(project, jobs), best_of(project)
    by_checkpoint: dict[str, list[str]] = {}
    for sample in drawn:
        by_checkpoint.setdefault(sample["checkpoint"], []).append(sample["name"])
    files = []
    for lora in sorted(origins.loras(), key=_order):
        with suppress(FileNotFoundError):
            files.append(
                {
                    **_facts(lora),
                    "samples": by_checkpoint.get(lora.path.name, []),
                    "best": lora.path.name == best,
                    "busy": _need(lora, jobs) is not None,
                }
            )
    return {
        "files": files,
        "runs": [run.as_dict() for run in origins.runs],
        "cards": [path.name for path in cards(project)],
    }


def _order(lora: Lora) -> tuple:
    began = lora.run.began if lora.run else 0.0
    is_last = lora.epoch is None and lora.step is None
    return (-began, not is_last, -lora.modified, lora.path.name)


def _facts(lora: Lora) -> dict:
    loss = {"loss": None, "step": lora.step, "steps": None}
    if lora.run:
        loss = lora.run.loss_at(epoch=lora.epoch, step=lora.step)
    is_last = lora.epoch is None and lora.step is None
    epochs = lora.run.epochs if lora.run and is_last else None
    return {
        "name": lora.path.name,
        "lora": lora.lora,
        "run": lora.run.id if lora.run else None,
        "last": is_last,
        "epoch": lora.epoch or epochs,
        "step": loss["step"],
        "loss": loss["loss"],
        "loss_steps": loss["steps"],
        "bytes": lora.bytes,
        "modified": lora.modified,
    }


def lora_at(project: Project, name: str) -> Path:
    """A LoRA file that is there; NotFound for anything else."""
    path = project.result(name)
    if path.suffix != ".safetensors":
        raise NotFound("There is no LoRA file by that name.")
    return path


# -- the best one ----------------------------------------------------------------------------------


def mark_best(project: Project, name: str, *, best: bool = True) -> None:
    """Note which LoRA file of the folder a person likes best, or that it is not any more.

    One in each folder: a folder is a subject. The mark is held by the content: a
    later run that writes another file of that name does not take it over.
    """
    path = lora_at(project, name)
    if best:
        known = {"name": name, "fingerprint": fingerprint(path), "marked": time.time()}
        write_json(project.path / BEST, known)
    elif (held := _best(project)) and held["name"] == name:
        (project.path / BEST).unlink(missing_ok=True)


def best_of(project: Project) -> str | None:
    """The name of the LoRA file marked as the best, if it is there and still the same."""
    held = _best(project)
    with suppress(OSError, NotFound):
        if held and _is_best(lora_at(project, held["name"]), held):
            return held["name"]
    return None


def _best(project: Project) -> dict | None:
    held = read_json(project.path / BEST)
    return held if held and isinstance(held.get("name"), str) else None


def _is_best(path: Path, held: dict) -> bool:
    return path.name == held["name"] and fingerprint(path) == held.get("fingerprint")


def fingerprint(path: Path) -> str:
    """What tells a LoRA file from others, from its length, its beginning and its end."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        size = file.seek(0, 2)
        digest.update(str(size).encode())
        for start in (0, max(0, size - ENDS_BYTES)):
            file.seek(start)
            digest.update(file.read(ENDS_BYTES))
    return digest.hexdigest()


# -- deleting --------------------------------------------------------------------------------------


def remove(project: Project, name: str, jobs: Iterable[Job]) -> str:
    """Move a LoRA file into the trash; returns the key that brings it back.

    Conflict while the run that writes it is under way, or one that is to begin with it.
    """
    lora = Origins(project, jobs := list(jobs)).lora(lora_at(project, name))
    if why := _need(lora, jobs):
        raise Conflict(why, hint="Do this when the run has ended.")
    return trash.throw_away_file(project, lora.path)


def restore(project: Project, key: str) -> str:
    """Bring a LoRA file back; returns its name. NotFound when it is gone for good."""
    return trash.restore_file(project, key).name


def _need(lora: Lora, jobs: Iterable[Job]) -> str | None:
    """Why the file must stay for now, as a sentence."""
    if lora.run and lora.run.is_running:
        return "The run that writes this file is under way."
    for job in jobs:
        if not job.ended and any(_names(stage["argv"], lora.path.name) for stage in job.stages):
            return "A run that is queued or under way begins with this file."
    return None


def _names(argv: list[str], name: str) -> bool:
    return any(Path(word.split("=", 1)[-1]).name == name for word in argv)
