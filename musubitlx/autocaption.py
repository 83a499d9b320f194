"""Captioning by a model: what stands in its way, and the job that does it."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from musubitlx import captionpython, hub, models, surroundings, weights
from musubitlx.captioned import FOLDER
from musubitlx.captioners import GB, OFFLINE, Captioner, Wish
from musubitlx.captionpython import Python
from musubitlx.checks import Place, take_log
from musubitlx.commands import QUEUE
from musubitlx.errors import Invalid, ManyInvalid, UserError, disk_error
from musubitlx.home import PACKAGE_ROOT, RESERVE_BYTES, Home
from musubitlx.jobs import Plan, Stage
from musubitlx.models import ModelState
from musubitlx.projects import Image, Project
from musubitlx.surroundings import Machine

CPU_RAM_BYTES = 20 * GB  # below this Qwen-VL on the CPU reads its weights from the disk for ever


@dataclass
class Found:
    """What was found before a start: `images` get a text, `kept` captions stay as they are.

    `download` is how many bytes still have to be fetched, about.
    """

    errors: list[UserError] = field(default_factory=list)
    warnings: list[UserError] = field(default_factory=list)
    images: int = 0
    kept: int = 0
    download: int = 0
    plan: Plan | None = None

    def as_dict(self) -> dict:
        """The answer of POST …/captions/check."""
        stages = self.plan.stages if self.plan else []
        return {
            "errors": [error.as_dict() for error in self.errors],
            "warnings": [warning.as_dict() for warning in self.warnings],
            "images": self.images,
            "kept": self.kept,
            "download": self.download,
            "stages": [
                {"name": one.name, "title": one.title, "command": shlex.join(one.argv)}
                for one in stages
            ],
        }


def check(place: Place, project: Project, wish: Wish, *, starting: bool = False) -> Found:
    """Look for everything that would fail later, and build the job. Nothing is written.

    Only when `starting` is it tried whether the hub can be reached, where something has to
    be downloaded.
    """
    found = Found()
    _images(project, wish, found)
    python = _python(place, wish.captioner, found)
    files = _files(place, wish.captioner, found, starting)
    found.warnings += _memory(place.machine, wish.captioner, python)
    if python and files:
        found.plan = _plan(place, project, wish, python, files)
    return found


def plan(place: Place, project: Project, wish: Wish) -> Plan:
    """The job of a captioning run, or ManyInvalid with everything that stands in its way."""
    found = check(place, project, wish, starting=True)
    if found.errors:
        raise ManyInvalid(found.errors)
    try:
        (project.hidden / FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, error.filename) from error
    take_log(found.plan, lambda started: _log(project, wish, started))
    return found.plan


# -- images ----------------------------------------------------------------------------------------


def _images(project: Project, wish: Wish, found: Found) -> None:
    """Count what would be captioned; none at all is an error."""
    images = project.images()
    chosen = _chosen(images, wish)
    bare = [image for image in chosen if not image.caption]
    taken = chosen if wish.trial or wish.mode != "keep" else bare
    found.images = len(taken)
    names = {image.name for image in taken}
    found.kept = sum(bool(image.caption) for image in images if image.name not in names)
    if not images:
        found.errors.append(
            Invalid(
                "There are no images in this folder yet.", field="which", hint="Add some in step 1."
            )
        )
    elif not chosen and wish.names is not None:
        found.errors.append(
            Invalid("The chosen images are not there any more.", field="which", hint="Choose anew.")
        )
    elif not taken:
        found.errors.append(_nothing_to_do(wish))


def _chosen(images: list[Image], wish: Wish) -> list[Image]:
    if wish.names is not None:
        names = set(wish.names)
        return [image for image in images if image.name in names]
    return [image for image in images if wish.which == "all" or not image.caption]


def _nothing_to_do(wish: Wish) -> Invalid:
    if wish.which == "empty":
        hint = "To caption them anew choose all, and whether the old text goes or stays."
        return Invalid("Every image has a caption already.", field="which", hint=hint)
    hint = "Choose to replace them, or to append to them."
    return Invalid("All these images have a caption, and it is to stay.", field="mode", hint=hint)


# -- interpreter and files -------------------------------------------------------------------------


def _python(place: Place, captioner: Captioner, found: Found) -> Python | None:
    """The interpreter that will run the model; None where none can."""
    try:
        python = captionpython.find(place.trainer.python, captioner)
    except Invalid as error:
        found.errors.append(error)
        return None
    found.warnings += captionpython.oddities(python, captioner)
    folder = weights.find(place.home, captioner)
    found.errors += captionpython.unreadable(python, captioner, folder)
    return python


@dataclass(frozen=True)
class Files:
    """Where a model's files lie, or will once they are fetched."""

    folder: Path
    text_encoder: Path | None
    to_fetch: bool


def _files(place: Place, captioner: Captioner, found: Found, starting: bool) -> Files | None:
    """What is there and what has to be downloaded first; None where neither helps."""
    home = place.home
    folder = weights.find(home, captioner)
    path, usable = None, True
    if captioner.text_encoder:
        state = weights.text_encoder(home)
        usable = bool(state.path and state.whole and not state.problem)
        if state.path and not usable and _in_the_way(home, state):
            found.errors.append(
                Invalid(f"{state.label}: {state.problem}", field="model", hint=state.hint)
            )
            return None
        path = Path(state.path) if usable else home.root / state.filename
    found.download = weights.missing_bytes(home, captioner)
    to_fetch = folder is None or not usable
    if to_fetch:
        found.errors += _no_network(captioner, starting)
        found.errors += _no_room(place.machine, found.download)
    return Files(folder or captioner.folder(home), path, to_fetch)


def _in_the_way(home: Home, state: ModelState) -> bool:
    """Whether an unusable text encoder keeps a good one from being fetched: it was chosen by
    somebody, or lies where that one would. Another (ComfyUI's in 8 bits, say) does not matter."""
    chosen, _ = models.read_choices(home)
    return bool(chosen.get(state.id)) or Path(state.path) == home.root / state.filename


def _no_network(captioner: Captioner, starting: bool) -> Iterator[UserError]:
    missing = f"The files of {captioner.label} are not on this machine"
    if hub.is_offline():
        yield Invalid(
            f"{missing}, and HF_HUB_OFFLINE forbids downloading them.",
            field="model",
            hint=f"Unset it for the first time, or put the files of {captioner.repo} into "
            f"models/captioning/{captioner.repo.partition('/')[2]}/.",
        )
    elif starting:
        trouble = surroundings.no_hub(
            f"{missing}, and the hub can't be reached to download them.",
            field="model",
            hint="Connect this machine to the network for the first time, set HF_ENDPOINT to a "
            f"mirror, or put the files of {captioner.repo} into "
            f"models/captioning/{captioner.repo.partition('/')[2]}/.",
        )
        yield from [trouble] if trouble else []


def _no_room(machine: Machine | None, needed: int) -> Iterator[UserError]:
    free = machine.memory["disk"]["free"] if machine else None
    if free is not None and free < needed + RESERVE_BYTES:
        yield Invalid(
            f"{needed / GB:.1f} GB have to be downloaded, and the disk has {free / GB:.1f} GB "
            "free.",
            field="model",
            hint="Free some space, or choose a smaller model.",
        )


# -- memory ----------------------------------------------------------------------------------------


def _memory(
    machine: Machine | None, captioner: Captioner, python: Python | None
) -> Iterator[UserError]:
    """Warnings about VRAM, or about doing without."""
    if machine is None:
        return
    need = min(captioner.vram.values())
    card = machine.gpu
    if card is None:
        yield from _on_the_cpu(machine, captioner)
    elif card["total"] < need:
        yield UserError(
            f"{captioner.label} needs about {need / GB:.0f} GB of VRAM, and the {card['name']} has "
            f"{card['total'] / GB:.0f} GB: it would run out of memory.",
            field="model",
            hint="Take BLIP large: it needs 4 GB.",
        )
    elif machine.busy:
        yield _waits()
    elif card["total"] - card["used"] < need:
        who = surroundings.holders(card)
        free = (card["total"] - card["used"]) / GB
        yield UserError(
            f"{captioner.label} needs about {need / GB:.0f} GB of VRAM, and {free:.1f} GB are "
            f"free: {who} hold{'' if ',' in who else 's'} the rest.",
            field="model",
            hint="End that first (ComfyUI keeps its models in VRAM until it is closed).",
        )
    elif captioner.text_encoder:
        yield UserError(
            f"While it runs it takes about {need / GB:.0f} of the {card['name']}'s "
            f"{card['total'] / GB:.0f} GB of VRAM, its weights in 8 bits.",
            field="model",
        )


def _waits() -> UserError:
    text = "A run is under way: captioning waits in the queue until it is over."
    return UserError(text, field="model")


def _on_the_cpu(machine: Machine, captioner: Captioner) -> Iterator[UserError]:
    if machine.busy:
        yield _waits()
    if sys.platform == "darwin":
        return  # Apple's GPU is no card that can be asked
    if captioner.slow_on_cpu:
        total = machine.memory["ram"]["total"]
        more = "" if total >= CPU_RAM_BYTES else f" With {total / GB:.0f} GB of RAM even longer."
        yield UserError(
            f"No NVIDIA card was found: on the CPU {captioner.label} takes minutes an image.{more}",
            field="model",
            hint="Take BLIP large there, or fewer tokens.",
        )
    else:
        yield UserError(
            f"No NVIDIA card was found: on the CPU {captioner.label} takes some seconds an image.",
            field="model",
        )


# -- the job ---------------------------------------------------------------------------------------


def _plan(place: Place, project: Project, wish: Wish, python: Python, files: Files) -> Plan:
    captioner, plan_files = wish.captioner, {}
    stages = [_fetching(place, captioner)] if files.to_fetch else []
    argv = [python.path, "-m", "musubitlx.captioning", "--home", str(place.home.root)]
    argv += [f"--project={project.name}", "--model", captioner.id]  # a name may begin with a dash
    argv += ["--weights", str(files.folder)]
    if files.text_encoder:
        argv += ["--text-encoder", str(files.text_encoder)]
    argv += ["--max-tokens", str(wish.max_tokens)]
    if captioner.detail:
        argv += ["--detail", str(wish.detail)]
    if captioner.instruction:
        argv += [f"--instruction={wish.instruction}"]
    if wish.names is None:
        argv += ["--which", wish.which]
    else:
        names = project.hidden / FOLDER / f"names-{secrets.token_hex(4)}.json"
        plan_files[str(names)] = json.dumps(wish.names, ensure_ascii=False)
        argv += ["--names", str(names)]
    argv += ["--mode", wish.mode, *(["--trial"] if wish.trial else [])]
    title = f"{'Trial of' if wish.trial else 'Captioning with'} {captioner.label}"
    cwd = str(place.home.root)
    stages.append(Stage("caption", title, argv, cwd, env={**OFFLINE, **_finding_us()}))
    whole = f"{title} on {wish.names[0]}" if wish.trial else f"{project.name}: {title.lower()}"
    return Plan(
        kind="caption",
        queue=QUEUE,
        title=whole.replace(captioner.label.lower(), captioner.label),
        stages=stages,
        project=project.name,
        files=plan_files,
        trial=wish.trial,
    )


def _fetching(place: Place, captioner: Captioner) -> Stage:
    home = str(place.home.root)
    argv = [sys.executable, "-m", "musubitlx.fetching", "--home", home]
    argv += ["--captioner", captioner.id]
    title = f"Downloading {captioner.label}"
    return Stage("fetch", title, argv, home, env=_finding_us())


def _finding_us() -> dict[str, str]:
    """By which any interpreter finds our own modules, beside what it was told to find."""
    paths = [str(PACKAGE_ROOT), os.environ.get("PYTHONPATH")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _log(project: Project, wish: Wish, started: float) -> Path:
    """Where the log of a run goes: beside the images, of a trial among what is not kept long."""
    stamp = time.strftime("%Y%m%d_%H%M%S", time.localtime(started))
    if wish.trial:
        return project.hidden / FOLDER / f"trial_{stamp}.log"
    return project.path / f"captioning_log_{stamp}.log"
