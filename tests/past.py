"""Records of past runs, as runners leave them, without running anything."""

from __future__ import annotations

import time

from musubitlx import settings
from musubitlx.home import Home, write_json

NOW = 1_760_000_000.0  # seconds since the epoch: some day in the past


def record(home: Home, number: int, **more) -> str:
    """Write a past run; `more` is settings by name, or state, project, reason, note, loss, images.

    Returns its id. The higher the number, the newer the run.
    """
    created = NOW + 3600 * number
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(created))
    job_id = f"{stamp}-000-{number:06x}"
    folder = home.jobs / job_id
    folder.mkdir(parents=True)
    project = more.pop("project", "ball")
    state, reason = more.pop("state", "succeeded"), more.pop("reason", None)
    note, loss = more.pop("note", ""), more.pop("loss", 0.1)
    images = more.pop("images", ["a.jpg", "b.jpg"])
    captions, flags = more.pop("captions", {}), more.pop("flags", [])
    given = {**settings.defaults(), "output_dir": project, "output_name": f"{project} {number}"}
    given |= more
    at = home.output / project
    rows = [
        f'{{"image_path": "{at / name}", "caption": "{captions.get(name, "x")}"}}\n'
        for name in images
    ]
    train = ["python", "train.py", "--seed", str(given["seed"]), *flags]
    stages = [{"name": "train", "title": "Training the LoRA", "argv": train, "cwd": str(at)}]
    log = at / f"training_log_{number}.log"
    write_json(
        folder / "job.json",
        {
            **{"id": job_id, "created": created, "kind": "train", "queue": "gpu0"},
            **{"title": f"Training {given['output_name']}", "project": project, "stages": stages},
            **{"settings": given, "log": str(log), "practice": True, "version": "0.5.0"},
            "files": {str(at / "dataset.jsonl"): "".join(rows)},
            "inputs": [str(at / name) for name in images],
        },
    )
    progress = {"step": 100, "total": 100, "epoch": 6, "epochs": 6, "loss": loss}
    write_json(
        folder / "status.json",
        {
            **{"state": state, "reason": reason, "started": created + 1, "last_seen": created + 99},
            **{"ended": created + 61 + number, "exit_code": 0, "outputs": []},
            "stage": {"index": 3, "count": 3, "name": "train", "title": "Training the LoRA"},
            "progress": progress if state == "succeeded" else {**progress, "step": 40},
        },
    )
    if note:
        (folder / "notes.txt").write_text(note, encoding="utf-8")
    return job_id
