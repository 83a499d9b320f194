"""Main memory that fills up ends a run with its own words, in whatever phase it is."""

from __future__ import annotations

import json
import sys
import threading
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
from support import bare_plan
from test_resources import MACHINE, Groups

from musubitlx import resources, watches
from musubitlx.execution import Execution
from musubitlx.jobs import Job, Jobs, Stage

GB = 10**9
PHASES = {
    "latents": "Caching latents",
    "text_encoder": "Caching text encoder outputs",
    "train": "Training the LoRA",
}
# While memory fills: silent as a model that loads, busy with a bar, or in a child of its own.
MANNERS = {
    "silent": "time.sleep(60)",
    "bar": "while True: print('\\rsteps: 1%|# | 1/9', end='', flush=True); time.sleep(0.01)",
    "short": "time.sleep(1.5); raise SystemExit(5)",
    "child": "import subprocess, sys\n"
    "subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])",
}
FILES = {  # of a control group: its limit, what is used, what of that is cache
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


class Container:
    """A control group of 16 GB whose figures a program can change by writing a file."""

    def __init__(self, folder: Path, version: int):
        self.groups = Groups(folder)
        self.groups.own.write_text("0::/\n" if version == 2 else "4:memory:/docker/abc\n")
        self.folder = self.groups.root / ("" if version == 2 else "memory/docker/abc")
        self.folder.mkdir(parents=True, exist_ok=True)
        limit, self.used, cache = FILES[version]
        (self.folder / limit).write_text(f"{16 * GB}\n")
        (self.folder / "memory.stat").write_text(f"{cache} {2 * GB}\n")
        self.use(4 * GB)

    def use(self, count: int) -> None:
        (self.folder / self.used).write_text(f"{count}\n")

    def filling(self, count: int, manner: str) -> str:
        """A program that makes the group hold so much, and goes on."""
        path = str(self.folder / self.used)
        return f"import time; open({path!r}, 'w').write('{count}')\n{MANNERS[manner]}"


@pytest.fixture
def run_in(home, tmp_path, monkeypatch):
    """Run three stages in a container that one of them fills; returns the job, and seconds."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: MACHINE)
    monkeypatch.setattr(Jobs, "wake_runner", lambda *_: None)

    def start(phase: str, manner: str, version: int, count: int = 18 * GB) -> tuple[Job, float]:
        container = Container(tmp_path, version)
        look = partial(resources.fullest_ram, container.groups.root, container.groups.own)
        monkeypatch.setattr(resources, "fullest_ram", look)
        code = {name: "pass" for name in PHASES}
        code[phase] = container.filling(count, manner)
        plan = bare_plan(home, [sys.executable, "-c", "pass"])
        plan.stages = [
            Stage(name, title, [sys.executable, "-c", code[name]], str(home.output))
            for name, title in PHASES.items()
        ]
        job, began = Jobs(home).submit(plan), time.monotonic()
        Execution(home, job, threading.Event()).run()
        return Job(job.folder), time.monotonic() - began

    return start


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    ("manner", "version"), [("silent", 2), ("silent", 1), ("bar", 2), ("child", 1)]
)
def test_it_ends_the_run_in_every_phase(run_in, phase, manner, version):
    job, took_s = run_in(phase, manner, version)
    told = job.as_dict()
    assert told["state"] == "failed" and told["stage"]["name"] == phase
    assert told["reason"] == (
        "The container's memory was 100 % full (16.0 of 16.0 GB, the limit is 95 %) during "
        f"“{PHASES[phase]}”, so the run was aborted before the system killed it."
    )
    assert told["diagnosis"]["id"] == "ram_full"
    assert told["hint"].endswith("Or give the container more memory.")
    assert "TRAINING ABORTED. The container's memory" in Path(job.log).read_text()
    assert took_s < 8
    left = [one for one in psutil.process_iter(["environ"]) if belongs(one, job.id)]
    assert left == []


def belongs(process: psutil.Process, job: str) -> bool:
    """Whether a process is one that the run started."""
    try:
        return job in json.dumps(process.environ())
    except psutil.Error:
        return False


def test_a_group_full_of_files_that_were_read_is_not_full(run_in):
    job, _ = run_in("train", "short", 2, 17 * GB)
    assert job.as_dict()["exit_code"] == 5  # its own end: 15 GB are 94 %


def test_what_is_over_after_one_look_ends_nothing(home, monkeypatch):
    monkeypatch.setattr(Jobs, "wake_runner", lambda *_: None)
    percents = iter([99.0, 50.0, 99.0] + [50.0] * 99)
    monkeypatch.setattr(
        resources,
        "fullest_ram",
        lambda: {"percent": next(percents), "used": 1, "total": 2, "limit": "machine"},
    )
    monkeypatch.setattr(watches, "RAM_S", 0.2)
    job = Jobs(home).submit(bare_plan(home, [sys.executable, "-c", "import time; time.sleep(1.5)"]))
    Execution(home, job, threading.Event()).run()
    assert Job(job.folder).state == "succeeded"
    assert next(percents) == 50.0  # it was looked at more than three times
