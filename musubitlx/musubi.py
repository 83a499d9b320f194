"""Finding Musubi Tuner, and what its interpreter has."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from musubitlx import interpreters
from musubitlx.errors import Invalid
from musubitlx.home import PACKAGE_ROOT, Home
from musubitlx.options import TRAIN

PRACTICE = PACKAGE_ROOT / "musubitlx" / "practice"


@dataclass(frozen=True)
class Trainer:
    """The three scripts a run starts: Musubi's, or the practice trainer's.

    `scripts` is the folder that holds them, `source` what goes on PYTHONPATH
    (Musubi's scripts don't find their own package without it, measured).
    """

    practice: bool
    scripts: Path
    source: Path
    python: str
    version: str | None
    reason: str | None = None  # why it is the practice trainer

    def as_dict(self) -> dict:
        """What the page says of it."""
        return {
            "found": not self.practice,
            "path": None if self.practice else str(self.scripts),
            "version": self.version,
            "python": self.python,
        }


def find(home: Home, *, practice: bool = False) -> Trainer:
    """Return Musubi where it is found, else the practice trainer with the reason.

    Looked for in MUSUBI_DIR (which must then hold it: Invalid otherwise), the
    home folder itself, `musubi-tuner/` in it and beside it. MUSUBI_PYTHON
    names the interpreter; without it, it is that of a virtual environment in
    Musubi's folder, else the one that runs this.
    """
    if practice:
        return _practice("it was started with --practice")
    if told := os.environ.get("MUSUBI_DIR"):
        folder = Path(told).expanduser().resolve()
        if not _holds_musubi(folder):
            raise Invalid(
                f"MUSUBI_DIR names {folder}, and Musubi Tuner's Qwen-Image scripts are not there.",
                hint="Name the folder that holds qwen_image_train_network.py, or unset MUSUBI_DIR.",
            )
        return _real(folder)
    places = (home.root, home.root / "musubi-tuner", home.root.parent / "musubi-tuner")
    for folder in places:
        if _holds_musubi(folder):
            return _real(folder)
    return _practice("Musubi Tuner was not found")


def _holds_musubi(folder: Path) -> bool:
    return (folder / "src" / "musubi_tuner" / TRAIN).is_file()


def _real(folder: Path) -> Trainer:
    source = folder / "src"
    python = os.environ.get("MUSUBI_PYTHON") or _own_python(folder) or sys.executable
    return Trainer(False, source / "musubi_tuner", source, python, _version(folder))


def _own_python(folder: Path) -> str | None:
    """The interpreter of a virtual environment in Musubi's folder, as its README makes them."""
    inside = "Scripts/python.exe" if os.name == "nt" else "bin/python"
    found = (folder / name / inside for name in (".venv", "venv"))
    return next((str(python) for python in found if python.is_file()), None)


def _practice(reason: str) -> Trainer:
    return Trainer(True, PRACTICE, PACKAGE_ROOT, sys.executable, None, reason)


def _version(folder: Path) -> str | None:
    """The version in Musubi's pyproject.toml, None where there is none to read."""
    try:
        text = (folder / "pyproject.toml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(r'(?m)^version\s*=\s*"([^"]+)"', text)
    return found[1] if found else None


# -- what its interpreter has ----------------------------------------------------------------------

PACKAGES = ("torch", "accelerate", "diffusers", "transformers", "safetensors")  # heavy or first
OPTIONAL = ("bitsandbytes", "xformers", "flash_attn", "tensorboard", "wandb")  # some settings' need


def missing_packages(trainer: Trainer) -> list[str] | None:
    """Which of Musubi's packages its interpreter lacks, without importing them.

    None when the interpreter itself can't be started. Remembered for half a minute.
    """
    there = _packages(trainer)
    return None if there is None else [name for name in PACKAGES if name not in there]


def lacks(trainer: Trainer, package: str) -> bool:
    """Whether the interpreter is known not to have a package of PACKAGES or OPTIONAL."""
    there = _packages(trainer)
    return there is not None and package not in there


def versions(trainer: Trainer) -> dict[str, str]:
    """Python's version and those of the packages its interpreter has, without importing them.

    Empty when the interpreter can't be started.
    """
    there = dict(_packages(trainer) or {})
    return {"Python": there.pop("python"), **there} if there else {}


def _packages(trainer: Trainer) -> dict[str, str] | None:
    return interpreters.packages(trainer.python, (*PACKAGES, *OPTIONAL), str(trainer.source))
