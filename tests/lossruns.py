"""Records of runs with a loss for each step, as a runner would have left them."""

from __future__ import annotations

import json
import math
import random

GB = 2**30


def make_run(
    home,
    name: str,
    steps: int,
    *,
    seed=0,
    project="ball",
    epochs=4,
    flags=(),
    odd=None,
    argv=...,
    **status,
) -> str:
    """Write the record of an ended run with a loss for each step; returns its id."""
    rng, begun = random.Random(seed), 1_790_000_000 + seed * 10_000
    job = f"20260921-{seed:06d}-000-{seed:06x}"
    folder = home / "output/.jobs" / job
    folder.mkdir(parents=True)
    if argv is ...:
        argv = ["python", "train.py", "--learning_rate", "1e-4", "--optimizer_type", "AdamW"]
        argv += flags
    record = {
        **{"id": job, "kind": "train", "queue": "gpu0", "title": f"Training {name}"},
        **{
            "log": str(folder / "no.log"),
            "created": begun,
            "project": project,
            "settings": {"output_name": name},
        },
        "stages": [{"name": "train", "title": "Training the LoRA", "argv": argv, "cwd": "."}],
    }
    (folder / "job.json").write_text(json.dumps(record))
    lines, level = [], 0.0
    for step in range(1, steps + 1):
        level = 0.9 * level + 0.1 * rng.gauss(0, 0.05)
        row = {
            **{"step": step, "epoch": (step - 1) * epochs // steps + 1, "seconds_per_step": 2.5},
            "loss": round(0.08 + 0.2 * math.exp(-4 * step / steps) + 0.4 * abs(level), 5),
            **{"ram": 12 * GB, "vram": int((20 + math.sin(step / 90)) * GB)},
            "time": begun + 2.5 * step,
        }
        lines.append(json.dumps({**row, **(odd or {}).get(step, {})}) + "\n")
    (folder / "metrics.jsonl").write_text("".join(lines))
    last = json.loads(lines[-1])
    progress = {"step": steps, "total": steps, "epoch": epochs, "epochs": epochs}
    told = {
        **{"state": "succeeded", "started": begun, "ended": begun + 2.5 * steps, "exit_code": 0},
        "progress": {**progress, "loss": last["loss"]},
        "stage": {"index": 3, "count": 3, "name": "train", "title": "Training the LoRA"},
    }
    (folder / "status.json").write_text(json.dumps({**told, **status}))
    return job
