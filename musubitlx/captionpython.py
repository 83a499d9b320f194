"""Which Python can run a caption model, and what is to be installed where none can.

Nothing is imported for that: interpreters are asked what they have.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from musubitlx import interpreters
from musubitlx.captioners import IMPORTED, Captioner
from musubitlx.errors import Invalid, UserError

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


@dataclass(frozen=True)
class Python:
    """An interpreter, with the versions of what it has by the names that are imported."""

    path: str
    has: dict[str, str]


def find(musubis: str, captioner: Captioner) -> Python:
    """The first interpreter that has all a model needs; Invalid, about the likeliest, if none has.

    That is the one named in MUSUBITLX_CAPTION_PYTHON and no other, else Musubi's, which has
    all of it, else our own.
    """
    named = os.environ.get("MUSUBITLX_CAPTION_PYTHON")
    paths = [named] if named else list(dict.fromkeys([musubis, sys.executable]))
    wanted = tuple(IMPORTED.get(name, name) for name in captioner.packages)
    asked = [(path, interpreters.packages(path, wanted)) for path in paths]
    able = [Python(path, has) for path, has in asked if has is not None]
    for python in able:
        if not lacking(python, captioner):
            return python
    interpreters.forget()  # what is missing may be installed in a moment
    if able:
        raise _not_installed(max(able, key=lambda python: len(python.has)), captioner)
    raise Invalid(
        f"The Python for captioning ({paths[0]}) can't be started.",
        field="model",
        hint="Name one that has torch and transformers in MUSUBITLX_CAPTION_PYTHON, then start "
        "MusubiTLX again.",
    )


def lacking(python: Python, captioner: Captioner) -> list[str]:
    """The packages that are missing, or too old for the model."""
    found = []
    for name in captioner.packages:
        version = python.has.get(IMPORTED.get(name, name))
        too_old = name == "transformers" and version and _version(version) < captioner.transformers
        if version is None or too_old:
            found.append(name)
    return found


def oddities(python: Python, captioner: Captioner) -> Iterator[UserError]:
    """Warnings about versions that do, but not as well as others."""
    version = python.has.get("transformers", "")
    if captioner.id == "vit-gpt2" and _version(version) in WITHOUT_BEAMS:
        yield UserError(
            f"transformers {version} can't search with beams for this model: captions are a little "
            "plainer.",
            field="model",
            hint="4.57.6 can, and is what Musubi Tuner installs.",
        )


def unreadable(python: Python, captioner: Captioner, folder: Path | None) -> Iterator[Invalid]:
    """Weights in PyTorch's old format, which only a newer torch reads without danger.

    `folder` has the model's files; None: they have yet to come.
    """
    torch = python.has.get("torch", "")
    if captioner.text_encoder or _version(torch) >= SAFE_TORCH:
        return
    to_come = captioner.id == "vit-gpt2"  # has no other on the hub
    if not any(folder.glob("*.safetensors")) if folder else to_come:
        yield Invalid(
            f"The weights of {captioner.label} come in an old format, which is safe to read with "
            f"torch 2.6 or newer only; {torch} is installed.",
            field="model",
            hint=f"Take another model, or install it with:  {_pip(python, ['torch'])}",
        )


def _version(text: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (999, 0)


def _not_installed(python: Python, captioner: Captioner) -> Invalid:
    names, old = lacking(python, captioner), python.has.get("transformers")
    if names == ["transformers"] and old:
        least = ".".join(map(str, captioner.transformers))
        text = f"{captioner.label} needs transformers {least} or newer, and {old} is installed."
    else:
        text = f"{captioner.label} needs packages that are not installed: {', '.join(names)}."
    hint = f"Install it with:  {_pip(python, names)}"
    if os.name == "nt" and "torch" in names:
        hint += "  For an NVIDIA card take torch from pytorch.org first: pip alone gets it for CPU."
    return Invalid(text, field="model", hint=hint)


def _pip(python: Python, names: list[str]) -> str:
    """The line that installs packages, to be typed where that Python is."""
    argv = [python.path, "-m", "pip", "install", *(INSTALLED[name] for name in names)]
    return windows_line(argv) if os.name == "nt" else shlex.join(argv)


def windows_line(argv: list[str]) -> str:
    """A command as cmd.exe takes it: a bare `>` would lead into a file."""
    return " ".join(f'"{word}"' if re.search(r"[\s<>|&^=]", word) else word for word in argv)
