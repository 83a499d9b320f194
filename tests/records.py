"""Runs as they lie on the disk when they are over, for tests that look at what they left."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from support import picture

from musubitlx import births
from musubitlx.home import write_json
from musubitlx.jobs import HOST, Job
from musubitlx.projects import Project

NOW = time.time()
SETTINGS = {
    "output_name": "ball",
    "trigger_word": "ohwx",
    "epochs": 3,
    "image_repeats": 2,
    "batch_size": 1,
    "resolution": "512x512",
    "recipe": "",
}
PROMPTS = ["ohwx on a table --w 256 --h 256 --d 42", "ohwx at night --n blurry -- x"]


def a_run(
    project: Project,
    name: str,
    *,
    began: float = NOW - 1000,
    took: float = 100.0,
    prompts: list[str] = PROMPTS,
    losses: dict[int, float] | None = None,
    argv: list[str] | None = None,
    state: str = "succeeded",
    runner: int | None = None,
    **settings,
) -> Job:
    """A training run of three epochs of ten steps, as its record says.

    Of one that is running, `runner` is the process that passes for its runner, this one if
    left out; beside a server it must be another one, which is ended with it.
    """
    folder = project.home.jobs / name
    folder.mkdir(parents=True)
    chosen = {**SETTINGS, "output_dir": project.name, **settings}
    caches = {"caches": {"with": {"trainer": "musubi 0.3.4"}}}
    train = ["python", "train.py", *(argv or [])]
    stages = [
        {"name": "latents", "title": "", "argv": [], "cwd": "", **caches},
        {"name": "train", "title": "", "argv": train, "cwd": ""},
    ]
    record = {
        "id": name,
        "kind": "train",
        "queue": "gpu0",
        "title": f"Training {chosen['output_name']}",
        "project": project.name,
        "created": began - 1,
        "log": str(project.path / "x.log"),
        "stages": stages,
        "settings": chosen,
        "inputs": [str(project.path / f"{n}.jpg") for n in range(5)],
        "results": [],
        "files": {str(project.path / "sample_prompts.txt"): "".join(f"{one}\n" for one in prompts)},
    }
    write_json(folder / "job.json", record)
    status = {
        "state": state,
        "started": began,
        "last_seen": began + took,
        "progress": {"step": 30, "total": 30, "epoch": 3, "epochs": 3},
    }
    if state == "running":
        pid = runner or os.getpid()
        status["runner"] = {"pid": pid, "birth": births.birth(pid), "host": HOST}
    elif state != "interrupted":
        status["ended"] = began + took
    write_json(folder / "status.json", status)
    figures = losses or {step: 1 / step for step in range(1, 31)}
    rows = [
        {"step": step, "epoch": (step - 1) // 10 + 1, "loss": loss}
        for step, loss in figures.items()
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(lines)
    return Job(folder)


def left_at(path: Path, moment: float, data: bytes = b"weights") -> Path:
    """A file as it was written at a moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (moment, moment))
    return path


def drawn(project: Project, place: str, moment: float, prompt: int = 0, name: str = "ball") -> str:
    """A sample drawn at a place (`e000001` or `000010`) at a moment; returns its name."""
    file = f"{name}_{place}_{prompt:02d}_20260101120000_42_000.png"
    left_at(project.path / "sample" / file, moment, SAMPLE)
    return file


SAMPLE = picture(3, (64, 48), "PNG")
