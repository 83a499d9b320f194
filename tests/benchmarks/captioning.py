"""Captioning: images a second in batches, against one by one."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

from ground import PROGRAMS, Bench, Row, judge, skipped

MODELS = ("vit-gpt2", "blip-large", "qwen-vl")
LIMIT_S = 600


def rows(bench: Bench) -> Iterator[Row]:
    """Random models of middling size on the processor, by the interpreter that has torch."""
    python = os.environ.get("MUSUBITLX_CAPTION_PYTHON")
    if not python:
        yield skipped("captioning in batches", "MUSUBITLX_CAPTION_PYTHON names no interpreter")
        return
    folder = str(bench.fresh("captioning"))
    for model in MODELS:
        command = [python, str(PROGRAMS / "caption_speed.py"), folder, model]
        told = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=True)
        found = json.loads(told.stdout.splitlines()[-1])
        single, best = found["per_s"]["1"], max(found["per_s"], key=found["per_s"].get)
        each = ", ".join(f"{size} at once {speed:.2f}" for size, speed in found["per_s"].items())
        yield Row(
            f"captions of {model}, images a second",
            f"{each}: {found['per_s'][best] / single:.1f} times",
            "",
            f"{single:.2f} (one by one)",
            judge(True, found["same"]),
            found,
        )
