"""A practice run: from the click to the finished LoRA."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ground import Bench, Row, judge
from support import pictures

SETTINGS = {"trigger_word": "ohwx", "prompt": "a red ball", "output_name": "ball"}


def rows(bench: Bench) -> Iterator[Row]:
    """8 images with default settings, then the same again, where nothing is to be cached."""
    with bench.program("--practice") as program:
        program.post("/api/projects", {"name": "ball"})
        program.upload("ball", pictures(8))
        first, job = click(program)
        yield Row(
            "practice run of 8 images: click to finished LoRA",
            f"{first:.1f} s: {job['state']}, {job['progress']['total']} steps",
            "30 s",
            "",
            judge(first <= 30, job["state"] == "succeeded"),
            {"s": first},
        )
        second, job = click(program)
        stages = program.log(job["id"]).count("=== Stage")
        yield Row(
            "second run on unchanged images",
            f"{second:.1f} s, {stages} stage(s): {job['state']}",
            "1 stage",
            "",
            judge(stages == 1, job["state"] == "succeeded"),
            {"s": second},
        )


def click(program) -> tuple[float, dict]:
    """Start training and wait; seconds, and the job at its end."""
    begun = time.monotonic()
    job = program.post("/api/projects/ball/train", {"settings": SETTINGS})
    ended = program.wait_for(job["id"], seconds=120)
    return time.monotonic() - begun, ended
