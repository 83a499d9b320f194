"""What a captioning run is asked for: its command line, checked."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from musubitlx import models, weights
from musubitlx.captioners import DETAIL, MODES, WHICH, Captioner, Wish
from musubitlx.errors import Invalid, UserError
from musubitlx.home import Home
from musubitlx.projects import Project

DEVICES = ("auto", "cuda", "mps", "cpu")
PRECISIONS = ("auto", "fp8", "bf16", "fp16", "fp32")
MOST_AT_ONCE = 256  # images


@dataclass(frozen=True)
class Asked:
    """One run: whose images, by which model from which files, and how.

    `batch` is how many images at once, None for what fits.
    """

    project: Project
    wish: Wish
    weights: Path
    text_encoder: Path | None
    device: str
    precision: str
    batch: int | None


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Invalid(f"The command line can't be used: {message}.")


def parse(argv: list[str]) -> Asked:
    """Read a command line; UserError says in a sentence what is wrong with it."""
    given = _parser().parse_args(argv)
    wish = Wish.parse(
        {
            "model": given.model,
            "max_tokens": given.max_tokens,
            "detail": given.detail,
            "instruction": given.instruction,
            "which": _names(given.names) if given.names else given.which,
            "mode": given.mode,
            "trial": given.trial,
        }
    )
    project = _project(given.home, given.project)
    return Asked(
        project=project,
        wish=wish,
        weights=_weights(project.home, wish.captioner, given.weights),
        text_encoder=_text_encoder(project.home, wish.captioner, given.text_encoder),
        device=given.device,
        precision=_precision(wish, given.precision),
        batch=_batch(given.batch),
    )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m musubitlx.captioning", description=__doc__, allow_abbrev=False)
    parser.add_argument("--home", type=Path, required=True, metavar="DIR")
    parser.add_argument("--project", required=True, metavar="NAME")
    parser.add_argument("--model", required=True, metavar="ID")
    parser.add_argument("--weights", type=Path, required=True, metavar="DIR")
    parser.add_argument("--text-encoder", type=Path, metavar="FILE")
    parser.add_argument("--max-tokens", type=int, metavar="N")
    parser.add_argument("--detail", type=int, default=DETAIL, metavar="1..5")
    parser.add_argument("--instruction", metavar="TEXT")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--which", choices=WHICH, default="empty")
    which.add_argument("--names", type=Path, metavar="FILE", help="a JSON list of image names")
    parser.add_argument("--mode", choices=MODES, default="keep")
    parser.add_argument("--trial", action="store_true", help="show the text, save nothing")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto")
    parser.add_argument("--batch", type=int, metavar="N", help="images at once")
    return parser


def _names(file: Path) -> list:
    try:
        names = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise Invalid(f"The list of images can't be read: {error}.") from error
    if not isinstance(names, list):
        raise Invalid("The list of images is no JSON list.")
    return names


def _project(home: Path, name: str) -> Project:
    project = Project(Home(home), name)
    if not project.exists:
        raise Invalid(f"There is no folder called {name} in {project.home.output}.")
    return project


def _weights(home: Home, captioner: Captioner, folder: Path) -> Path:
    """The folder given, or where a whole model is by now: a run may have waited for hours.

    One that lacks something is given back if there is no better: loading names what.
    """
    if weights.problem(folder, captioner):
        folder = weights.find(home, captioner) or folder
    if not folder.is_dir():
        raise UserError(
            f"The folder {folder} with the caption model is not there.",
            hint="Download the caption model first.",
        )
    return folder.resolve()


def _text_encoder(home: Home, captioner: Captioner, file: Path | None) -> Path | None:
    """The file given, or the one that can be used by now; the one given if there is no better."""
    if not captioner.text_encoder:
        return None
    if file is None:
        raise Invalid(f"{captioner.label} needs the text encoder: give --text-encoder.")
    if models.inspect(file, weights.TEXT_ENCODER):
        found = weights.text_encoder(home)
        if found.path and not found.problem:
            file = Path(found.path)
    return file.absolute()


def _precision(wish: Wish, precision: str) -> str:
    if precision == "fp8" and "fp8" not in wish.captioner.vram:
        raise Invalid(f"{wish.captioner.label} is small: fp8 is not for it. Take fp16 or fp32.")
    return precision


def _batch(given: int | None) -> int | None:
    if given is not None and not 1 <= given <= MOST_AT_ONCE:
        raise Invalid(f"Images at once: from 1 to {MOST_AT_ONCE}.")
    return given
