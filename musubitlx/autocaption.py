"""Captioning by a model: what stands in its way, and the job that does it."""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from musubitlx import interpreters, models, surroundings, weights
from musubitlx.captioned import FOLDER
from musubitlx.captioners import GB, Captioner, Wish
from musubitlx.checks import Place, take_log
from musubitlx.commands import QUEUE
from musubitlx.errors import Invalid, ManyInvalid, UserError, disk_error
from musubitlx.home import PACKAGE_ROOT, RESERVE_BYTES, Home
from musubitlx.jobs import Plan, Stage
from musubitlx.models import ModelState
from musubitlx.projects import Image, Project
from musubitlx.surroundings import Machine

NAMED = {"torch": "torch", "transformers": "transformers", "safetensors": "safetensors"}
NAMED |= {"pillow": "PIL", "accelerate": "accelerate"}  # package -> what is imported
# What is installed where it is missing: what Musubi Tuner 0.3.4 pins, or newer.
INSTALLED = {
    "torch": "torch>=2.6",
    "transformers": "transformers==4.57.6",
    "safetensors": "safetensors>=0.4.5",
    "pillow": "pillow>=11.3",
    "accelerate": "accelerate>=1.6",
}
SAFE_TORCH = (2, 6)  # what is older runs code that may lie in weights of the old format
WITHOUT_BEAMS = ((4, 52), (4, 53))  # of transformers, for ViT-GPT2
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


# -- packages --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Python:
    """An interpreter that can run a caption model, with what it has by import name."""

    path: str
    has: dict[str, str]


def _python(place: Place, captioner: Captioner, found: Found) -> Python | None:
    """The first interpreter that has all a model needs; else an error for the likeliest one."""
    asked = [
        (path, interpreters.packages(path, tuple(NAMED[name] for name in captioner.packages)))
        for path in _candidates(place)
    ]
    able = [Python(path, has) for path, has in asked if has is not None]
    for python in able:
        if not list(_lacking(python, captioner)):
            found.warnings += _oddities(python, captioner)
            found.errors += _unreadable_weights(place, python, captioner)
            return python
    interpreters.forget()  # what is missing may be installed in a moment
    if able:
        nearest = max(able, key=lambda python: len(python.has))
        found.errors.append(_not_installed(nearest, captioner))
    else:
        found.errors.append(
            Invalid(
                f"The Python for captioning ({asked[0][0]}) can't be started.",
                field="model",
                hint="Name one that has torch and transformers in MUSUBITLX_CAPTION_PYTHON, then "
                "start MusubiTLX again.",
            )
        )
    return None


def _candidates(place: Place) -> list[str]:
    """The one that is named for it, else Musubi's, which has all of it, else our own."""
    if named := os.environ.get("MUSUBITLX_CAPTION_PYTHON"):
        return [named]
    return list(dict.fromkeys([place.trainer.python, sys.executable]))


def _lacking(python: Python, captioner: Captioner) -> Iterator[str]:
    """The packages that are missing, or too old for the model."""
    for name in captioner.packages:
        version = python.has.get(NAMED[name])
        too_old = name == "transformers" and version and _version(version) < captioner.transformers
        if version is None or too_old:
            yield name


def _version(text: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (999, 0)


def _not_installed(python: Python, captioner: Captioner) -> Invalid:
    lacking = list(_lacking(python, captioner))
    old = python.has.get("transformers")
    if lacking == ["transformers"] and old:
        least = ".".join(map(str, captioner.transformers))
        text = f"{captioner.label} needs transformers {least} or newer, and {old} is installed."
    else:
        text = f"{captioner.label} needs packages that are not installed: {', '.join(lacking)}."
    line = _command([python.path, "-m", "pip", "install", *(INSTALLED[name] for name in lacking)])
    hint = f"Install it with:  {line}"
    if os.name == "nt" and "torch" in lacking:
        hint += "  For an NVIDIA card take torch from pytorch.org first: pip alone gets it for CPU."
    return Invalid(text, field="model", hint=hint)


def _command(argv: list[str]) -> str:
    return subprocess.list2cmdline(argv) if os.name == "nt" else shlex.join(argv)


def _oddities(python: Python, captioner: Captioner) -> Iterator[UserError]:
    version = python.has.get("transformers", "")
    if captioner.id == "vit-gpt2" and _version(version) in WITHOUT_BEAMS:
        yield UserError(
            f"transformers {version} can't search with beams for this model: captions are a little "
            "plainer.",
            field="model",
            hint="4.57.6 can, and is what Musubi Tuner installs.",
        )


def _unreadable_weights(place: Place, python: Python, captioner: Captioner) -> Iterator[UserError]:
    """Weights in PyTorch's old format, which only a newer torch reads without danger."""
    folder, torch = weights.find(place.home, captioner), python.has.get("torch", "")
    if captioner.text_encoder or _version(torch) >= SAFE_TORCH:
        return
    to_come = captioner.id == "vit-gpt2"  # has no other on the hub
    if not any(folder.glob("*.safetensors")) if folder else to_come:
        line = _command([python.path, "-m", "pip", "install", INSTALLED["torch"]])
        yield Invalid(
            f"The weights of {captioner.label} come in an old format, which is safe to read with "
            f"torch 2.6 or newer only; {torch} is installed.",
            field="model",
            hint=f"Take another model, or install it with:  {line}",
        )


# -- files -----------------------------------------------------------------------------------------


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
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
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
        yield UserError(
            "A run is using the card: captioning waits in the queue until it is over.",
            field="model",
        )
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


def _on_the_cpu(machine: Machine, captioner: Captioner) -> Iterator[UserError]:
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

# Nothing is looked for in the network while a model is loaded: what is missing was fetched before.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


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
    stages.append(Stage("caption", title, argv, cwd, env={**ENVIRONMENT, **_finding_us()}))
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
