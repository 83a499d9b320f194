"""The environments of the captioning tests and tiny models for them, where they have been made.

`tests/captioning/run.sh` makes them; without them the tests that need one are skipped.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hubs import fill
from support import ROOT, STANDINS, clean_environment

from musubitlx.captioners import BY_ID
from musubitlx.home import Home


def python_of(name: str = "pin") -> str:
    """The interpreter of an environment; skips the test where there is none."""
    python = ROOT / ".test-captioning" / name / "bin" / "python"
    if not python.is_file():
        pytest.skip(f"no .test-captioning/{name}: bash tests/captioning/run.sh makes it")
    return str(python)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory) -> Path:
    """A folder with a tiny model of each kind, and a text encoder file."""
    folder = tmp_path_factory.mktemp("tiny")
    script = ROOT / "tests" / "captioning" / "tiny.py"
    subprocess.run(
        [python_of(), script, folder], check=True, env=clean_environment(), capture_output=True
    )
    return folder


def install(home: Path, tiny: Path, *models: str) -> None:
    """Put tiny models where the program keeps those it has downloaded."""
    for name in models:
        folder = BY_ID[name].folder(Home(home))
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(tiny / name, folder)


def stand_in_python(folder: Path) -> Path:
    """Make a program that passes for a Python with torch, see standins/captioner.py."""
    python = folder / "caption-python"
    script = STANDINS / "captioner.py"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
    python.chmod(0o755)
    return python


def look_alike(home: Path, *models: str) -> None:
    """Put folders in place that look like those of caption models, some bytes each."""
    for name in models:
        fill(BY_ID[name].folder(Home(home)), width=4)
