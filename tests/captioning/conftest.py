"""Fixtures: tiny models in upstream's layout, a folder of pictures, the program itself.

These tests run where torch and transformers are, see run.sh; nothing of the other tests is used.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import signal
import socket
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import pytest  # noqa: E402
import tiny  # noqa: E402

from musubitlx import captioned, captions  # noqa: E402
from musubitlx.home import Home  # noqa: E402
from musubitlx.projects import Project  # noqa: E402

RUN = "run-1"
BAR = re.compile(r"\r?[A-Z][a-z]+: +\d+%\|[^\[\n]*\[[^\]\n]*\] ?")  # lines follow it in a log
SIZES = [(96, 64), (64, 96), (80, 80), (150, 50), (64, 64)]


@dataclass
class Ended:
    """What a run left: exit status and what it printed."""

    status: int
    said: str
    error: str

    @property
    def lines(self) -> list[str]:
        """What a log has: lines without the bars before them."""
        return [line for line in BAR.sub("", self.said).split("\n") if line]

    @property
    def shown(self) -> dict[str, str]:
        """Captions as printed, by image."""
        pairs = (line.partition(": ") for line in self.lines)
        return {name: text for name, _, text in pairs if name.endswith((".png", ".jpg"))}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nothing may reach out, not even to look a name up."""

    def refuse(*_):
        raise AssertionError("the program tried the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """All tiny models, made once."""
    out = tmp_path_factory.mktemp("models")
    tiny.make_all(out)
    return out


class Folder:
    """An output folder with pictures, and the program run on it."""

    def __init__(self, home: Path, models: Path):
        self.models = models
        self.project = Project(Home(home).make(), "ball")
        self.project.make()

    def add(self, count: int) -> list[str]:
        """So many pictures, each another one."""
        from PIL import Image

        names = []
        for n in range(count):
            size = SIZES[n % len(SIZES)]
            ground = Image.linear_gradient("L").resize(size).rotate(37 * n)
            colour = ((n * 90) % 256, (n * 50 + 80) % 256, (n * 130) % 256)
            picture = Image.composite(
                Image.new("RGB", size, colour), Image.new("RGB", size, "white"), ground
            )
            names.append(f"{n + 1}.png")
            picture.save(self.project.path / names[-1])
        return names

    def write(self, name: str, text: str) -> None:
        """Write a caption as a person does."""
        captions.write(self._text(name), text)

    def text(self, name: str) -> str:
        """The caption of an image."""
        return captions.read(self._text(name))

    def texts(self) -> dict[str, str]:
        """All captions that are there, by image."""
        names = [path.name for path in self.project.image_paths()]
        return {name: self.text(name) for name in names if self.text(name)}

    def clear(self) -> None:
        """Take all captions away."""
        for path in self.project.path.glob("*.txt"):
            path.unlink()

    def rows(self, run: str = RUN) -> list[dict]:
        """The rows a run left."""
        return captioned.read(self.project, run)

    def _text(self, name: str) -> Path:
        return (self.project.path / name).with_suffix(".txt")

    def command(self, model: str = "vit-gpt2", *more: str, **changed) -> list[str]:
        """The arguments of a run; `changed` replaces some, None leaves one out."""
        given = {
            "home": self.project.home.root,
            "project": "ball",
            "model": model,
            "weights": self.models / model,
            "text-encoder": self.models / tiny.TEXT_ENCODER,
            "max-tokens": 32,
            "device": "cpu",
        }
        given |= {name.replace("_", "-"): value for name, value in changed.items()}
        chosen = {name: str(one) for name, one in given.items() if one is not None}
        return [part for name, one in chosen.items() for part in (f"--{name}", one)] + [*more]

    def run(self, model: str = "vit-gpt2", *more: str, **changed) -> Ended:
        """Run the program here, in this process: importing torch takes seconds."""
        program = importlib.import_module("musubitlx.captioning.__main__")
        out, err = io.StringIO(), io.StringIO()
        before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
        try:
            with redirect_stdout(out), redirect_stderr(err):
                status = program.main(self.command(model, *more, **changed))
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
        return Ended(status, out.getvalue(), err.getvalue())

    def names_file(self, *names: str) -> Path:
        """A file with a list of names."""
        file = self.project.home.root / "names.json"
        file.write_text(json.dumps(names))
        return file


@pytest.fixture
def folder(tmp_path, models, monkeypatch) -> Folder:
    """An output folder without pictures yet; runs in it have the id RUN."""
    monkeypatch.setenv("MUSUBITLX_JOB", RUN)
    return Folder(tmp_path / "home", models)
