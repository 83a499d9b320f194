"""Runs that print what the real program printed, byte for byte, and end as it did."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from support import STANDINS, bare_plan

from musubitlx import settings
from musubitlx.jobs import Stage

BESIDE = Path(__file__).parents[2] / "shared/musubi/logs"
LOGS = Path(os.environ.get("MUSUBI_LOGS") or BESIDE)
has_logs = pytest.mark.skipif(
    not LOGS.is_dir(), reason="no logs of the real Musubi Tuner: MUSUBI_LOGS names their folder"
)

EXIT_CODES = {"sigterm": -15, "sigint": -2, "unknown_flag": 2, "bad_choice": 2, "_error_": 1}
NOTHING_DONE = ("latents_no_captions", "latents_missing_image_dir")  # and exit code 0
STAGES = {"latents": "latents", "textencoder": "text_encoder", "train": "train"}


def stage_of(name: str) -> str:
    """The stage that a log is of."""
    return STAGES[name.partition("_")[0]]


def replay_plan(home, name: str, *, blocks: int = 45, **given):
    """A training whose stage prints this log; others do nothing, after a good end none comes."""
    code = next((code for word, code in EXIT_CODES.items() if word in name), 0)
    command = [sys.executable, str(STANDINS / "replay.py"), str(LOGS / f"{name}.log"), str(code)]
    load = {"practice": False, "pixels": 1024 * 1024, "batch": 1, "rank": 16, "optimizer": "AdamW"}
    load |= {"fp8": True, "blocks": blocks, "checkpointing": True, "cpu_offload": blocks > 30}
    plan = bare_plan(home, command, settings=settings.parse({"output_dir": "bare", **given}))
    plan.load = load
    nothing = [sys.executable, "-c", "pass"]
    plan.stages = [
        Stage(stage, stage, command if stage == stage_of(name) else nothing, str(home.output))
        for stage in STAGES.values()
    ]
    if code == 0:
        del plan.stages[list(STAGES.values()).index(stage_of(name)) + 1 :]
    if name in NOTHING_DONE:
        plan.stages[0].outputs = [str(home.output / "bare/a_0512x0512_qi.safetensors")]
    return plan
