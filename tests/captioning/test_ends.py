"""How a run ends before its time: what was shown is on the disk, whatever happens."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from conftest import BAR, RUN

from musubitlx.captioning.generation import Watch

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def forked(folder, log: Path, *more: str, **changed) -> int:
    """Run the program in a child, its output going to a file; returns its pid.

    A fork, since importing torch anew takes seconds.
    """
    import torch  # noqa: F401 - before the fork
    import transformers  # noqa: F401

    pid = os.fork()
    if pid:
        return pid
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1)
        program = importlib.import_module("musubitlx.captioning.__main__")
        os._exit(program.main(folder.command("vit-gpt2", *more, **changed)))
    finally:
        os._exit(99)


def shown(log: Path) -> dict[str, str]:
    """The captions a log shows, whole lines only."""
    text = log.read_bytes().decode() if log.exists() else ""
    lines = BAR.sub("", text[: text.rfind("\n") + 1]).split("\n")
    pairs = (line.partition(": ") for line in lines)
    return {name: words for name, _, words in pairs if name.endswith(".png")}


def until(condition, seconds: float = 60):
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def slow(monkeypatch):
    """Each token takes a while, and says so if a stop was asked for before it."""
    token = Watch.token

    def slowly(self):
        time.sleep(0.01)
        if self.stop.number:
            print("LATE", flush=True)
        return token(self)

    monkeypatch.setattr(Watch, "token", slowly)


def test_killed_in_the_middle_it_has_saved_all_it_showed(folder, tmp_path, slow):
    folder.add(9)
    log = tmp_path / "log"
    pid = forked(folder, log, batch=2)
    until(lambda: len(shown(log)) >= 3)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    seen = shown(log)
    assert 3 <= len(seen) < 9
    saved = folder.texts()
    assert {name: saved.get(name) for name in seen} == seen
    raw = (folder.project.hidden / "captioned" / f"{RUN}.jsonl").read_bytes()
    rows = [json.loads(line) for line in raw.splitlines()]
    assert raw.endswith(b"\n")
    assert {row["name"]: row["after"] for row in rows}.items() >= saved.items()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_ends_after_the_token(folder, tmp_path, slow, number):
    folder.add(9)
    log = tmp_path / "log"
    pid = forked(folder, log, batch=3, max_tokens=60)
    until(lambda: len(shown(log)) >= 3)
    time.sleep(0.1)  # well into the second batch
    asked = time.monotonic()
    os.kill(pid, number)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 128 + number
    assert time.monotonic() - asked < 3
    assert len(shown(log)) == 3  # none of the second batch, which was cut off
    assert folder.texts() == shown(log)
    assert "Stopped." in log.read_text()
    assert log.read_text().count("LATE") == 1  # the one that noticed


def test_a_trial_that_is_stopped_does_not_say_that_anything_is_saved(folder, tmp_path, slow):
    folder.add(1)
    log = tmp_path / "log"
    names = folder.names_file("1.png")
    pid = forked(folder, log, "--trial", names=names, max_tokens=60)
    until(lambda: log.exists() and "is on the processor" in log.read_text())
    os.kill(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 143
    assert log.read_text().rstrip().endswith("Stopped.")


def test_asked_to_stop_while_it_loads_it_ends_at_once(folder, tmp_path, monkeypatch):
    folder.add(1)
    log = tmp_path / "log"
    program = importlib.import_module("musubitlx.captioning.__main__")
    monkeypatch.setitem(program.LOAD, "vit-gpt2", lambda *_: time.sleep(60))
    pid = forked(folder, log)
    until(lambda: log.exists() and "Loading" in log.read_text())
    time.sleep(0.1)
    os.kill(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 143
    assert folder.texts() == {}
