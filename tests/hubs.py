"""A hub of one's own for tests: what is on it, an environment that leads there, the program."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from standins.fakehub import FakeHub
from support import ROOT, clean_environment, model_files
from weights import write

from musubitlx import models
from musubitlx.captioners import Captioner

LEADS_ELSEWHERE = re.compile("(?i)(HF_|HUGGING_?FACE|XDG_CACHE_HOME|.*_PROXY$)")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that listens, and an environment that leads to it and to nothing else."""
    for name in [name for name in os.environ if LEADS_ELSEWHERE.match(name)]:
        monkeypatch.delenv(name)
    user = tmp_path / "user"
    user.mkdir()
    (tmp_path / "hub").mkdir()
    server = FakeHub(tmp_path / "hub").start()
    monkeypatch.setenv("HOME", str(user))
    monkeypatch.setenv("USERPROFILE", str(user))
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield server
    server.stop()


def put(hub: FakeHub, name: str, data: bytes | int, repo: str = "owner/one") -> bytes:
    """Put a file on the hub: these bytes, or so many; returns them."""
    if isinstance(data, int):
        data = random.Random(f"{name} {data}").randbytes(data)
    path = hub.root / repo / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return data


def fill(folder: Path, *, weights: bool = True, width: int = 100_000) -> Path:
    """The files of a caption model as they come from the hub, and some that nobody wants."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config", "preprocessor_config", "tokenizer", "tokenizer_config", "vocab"):
        (folder / f"{name}.json").write_text(json.dumps({"name": name}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "README.md").write_text("# Model")
    if weights:
        write(folder / "model.safetensors", {"layer.weight": (width,)})
        (folder / "tf_model.h5").write_bytes(b"no use" * 20_000)
        (folder / "pytorch_model.bin").write_bytes(b"\x80no use" * 20_000)
    return folder


def serve(hub: FakeHub, captioner: Captioner, **more) -> Path:
    """Put a caption model on the hub, and the text encoder file if it needs that."""
    folder = fill(hub.root / captioner.repo, weights=not captioner.text_encoder, **more)
    if captioner.text_encoder:
        serve_model(hub, "text_encoder")
    return folder


def serve_model(hub: FakeHub, id: str) -> Path:
    """Put a model file of training on the hub; returns it.

    Small as it is here, the hub has it as it has the real one: as a large file.
    """
    hub.mood.lfs_min = 1
    row = models.model(id)
    made = hub.root.parent / "made"
    model_files(made)
    path = hub.root / row.repo / row.repo_path
    path.parent.mkdir(parents=True, exist_ok=True)
    (made / row.filename).replace(path)
    return path


def fetching(home: Path, *arguments: str, **more) -> subprocess.Popen:
    """The program, started."""
    command = [sys.executable, "-m", "musubitlx.fetching", "--home", str(home), *arguments]
    more = {"env": clean_environment(), "cwd": ROOT, **more}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, **more)


def fetched(home: Path, *arguments: str, **more) -> tuple[int, str, str]:
    """Run the program to its end: exit code, what it printed, what it said on stderr."""
    process = fetching(home, *arguments, **more)
    printed, said = process.communicate(timeout=60)
    return process.returncode, printed.decode(), said.decode()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
