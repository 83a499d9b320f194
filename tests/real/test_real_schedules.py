"""The learning rates worked out for a run against those the real Musubi sets, step by step."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from musubi_here import GIVEN, needs_musubi

from musubitlx.schedules import FACTORS, of_command

pytestmark = needs_musubi

ASK = """
import json, sys, warnings
warnings.simplefilter("ignore")
import torch
import musubi_tuner.qwen_image_train_network as script
from musubi_tuner.hv_train_network import setup_parser_common
trainer = script.QwenImageNetworkTrainer()
for argv, total in json.load(sys.stdin):
    args = script.qwen_image_setup_parser(setup_parser_common()).parse_args(argv)
    args.max_train_steps = total
    one = torch.nn.Parameter(torch.zeros(1))
    _, _, optimizer, *_ = trainer.get_optimizer(args, [{"params": [one], "lr": args.learning_rate}])
    schedule = trainer.get_lr_scheduler(args, optimizer, 1)
    rates = []
    for _ in range(total):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        one.grad = torch.zeros(1)
        optimizer.step()
        schedule.step()
    print("ANSWER", json.dumps(rates))
"""

WARM = ["--lr_warmup_steps"]
COURSES = [
    [],
    ["--lr_scheduler", "constant_with_warmup", *WARM, "10%"],
    ["--lr_scheduler", "linear"],
    ["--lr_scheduler", "linear", *WARM, "0.15"],
    ["--lr_scheduler", "cosine", *WARM, "7"],
    ["--lr_scheduler", "cosine", "--lr_scheduler_args", "num_cycles=1.5"],
    ["--lr_scheduler", "cosine_with_restarts", "--lr_scheduler_num_cycles", "3", *WARM, "5%"],
    ["--lr_scheduler", "polynomial", "--lr_scheduler_power", "2.5", *WARM, "3"],
    ["--lr_scheduler", "polynomial", "--lr_scheduler_args", "lr_end=1e-5"],
    ["--lr_scheduler", "inverse_sqrt", *WARM, "9"],
    ["--lr_scheduler", "inverse_sqrt", "--lr_scheduler_timescale", "20"],
    ["--lr_scheduler", "inverse_sqrt"],
    ["--lr_scheduler", "cosine_with_min_lr", "--lr_scheduler_min_lr_ratio", "0.1", *WARM, "4"],
    ["--lr_scheduler", "cosine_with_min_lr", "--lr_scheduler_args", "min_lr=2e-5"],
    ["--lr_scheduler", "warmup_stable_decay", *WARM, "10%", "--lr_decay_steps", "20%"],
    [
        *("--lr_scheduler", "warmup_stable_decay", *WARM, "8", "--lr_decay_steps", "30"),
        *("--lr_scheduler_min_lr_ratio", "0.2", "--lr_scheduler_num_cycles", "1"),
        *("--lr_scheduler_args", "warmup_type='cosine'", "decay_type='1-sqrt'"),
    ],
    [
        *("--lr_scheduler", "warmup_stable_decay", *WARM, "8", "--lr_decay_steps", "30"),
        *("--lr_scheduler_args", "warmup_type='1-sqrt'", "decay_type='cosine'"),
    ],
    [
        *("--lr_scheduler", "piecewise_constant"),
        *("--lr_scheduler_args", "step_rules='1:10,0.1:20,0.01'"),
    ],
    ["--lr_scheduler", "rex"],
    ["--lr_scheduler", "REX", *WARM, "1"],
    ["--lr_scheduler", "rex", *WARM, "12", "--lr_scheduler_min_lr_ratio", "0.05"],
    ["--lr_scheduler", "rex", "--lr_scheduler_args", "rex_alpha=0.3", "rex_beta=0.7"],
    [
        *("--optimizer_type", "Adafactor", "--optimizer_args", "relative_step=False"),
        *("--lr_scheduler", "cosine"),
    ],
]


def asked() -> list[tuple[list[str], int]]:
    base = ["--learning_rate", "1.5e-4", "--optimizer_type", "AdamW"]
    return [([*base, *course], total) for course in COURSES for total in (50, 97)]


@pytest.fixture(scope="module")
def theirs() -> list[list[float]]:
    """What Musubi sets, for each of `asked`."""
    env = {**os.environ, "PYTHONPATH": str(Path(GIVEN["MUSUBI_DIR"]) / "src")}
    told = subprocess.run(
        [GIVEN["MUSUBI_PYTHON"], "-c", ASK],
        input=json.dumps(asked()),
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )
    assert told.returncode == 0, told.stderr[-3000:]
    lines = [line for line in told.stdout.splitlines() if line.startswith("ANSWER ")]
    return [json.loads(line.removeprefix("ANSWER ")) for line in lines]


@pytest.mark.parametrize("n", range(2 * len(COURSES)))
def test_each_step_has_the_rate_musubi_sets(theirs, n):
    argv, total = asked()[n]
    schedule = of_command(argv, total)
    assert schedule.reason is None
    ours = [schedule.at(step) for step in range(1, total + 1)]
    assert ours == pytest.approx(theirs[n], rel=1e-9, abs=1e-15)


def test_every_course_is_tried():
    tried = {
        course[course.index("--lr_scheduler") + 1].lower()
        for course in COURSES
        if "--lr_scheduler" in course
    }
    assert set(FACTORS) - {"constant"} <= tried
