"""Fixtures: the real program with a home folder of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

collect_ignore = [
    "captioning"
]  # they need torch: tests/captioning/run.sh has environments for them

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from browsing import browser, visit  # noqa: E402, F401
from hubs import hub  # noqa: E402, F401
from support import Program, model_files, pictures, stand_in  # noqa: E402

from musubitlx.home import Home  # noqa: E402
from musubitlx.projects import Project  # noqa: E402


@pytest.fixture
def home(tmp_path) -> Home:
    """An empty home folder."""
    return Home(tmp_path / "home").make()


@pytest.fixture
def project(home) -> Project:
    """An empty output folder called ball."""
    one = Project(home, "ball")
    one.make()
    return one


@pytest.fixture
def program(tmp_path):
    """A function that starts the real program; all it started ends with the test."""
    started = []

    def start(*arguments: str, env: dict | None = None, name: str = "home") -> Program:
        started.append(Program(tmp_path / name, *arguments, env=env).start())
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def stranger():
    """The pid of a process that passes for a runner; it ends with the test."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    yield process.pid
    process.kill()
    process.wait(10)


@pytest.fixture
def live_server(program) -> Program:
    """The real program in practice mode."""
    return program("--practice")


@pytest.fixture
def with_stand_in(program, tmp_path):
    """A function that starts the program on a stand-in Musubi, with a folder of three images."""

    def start(*arguments: str, env: dict | None = None, images: int = 3, **scripts: str) -> Program:
        environment = stand_in(tmp_path / "musubi", **scripts)
        model_files(tmp_path / "home")
        started = program(*arguments, env={**environment, **(env or {})})
        started.post("/api/projects", {"name": "ball"})
        assert started.upload("ball", pictures(images)).status_code == 201
        return started

    return start
