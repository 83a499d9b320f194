"""Estimates learn from earlier runs."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from support import pictures
from test_estimate import load

from musubitlx import measured
from musubitlx.measured import Measured, note, seconds_per_step, vram

CARD = "NVIDIA GeForce RTX 4090"


def columns(seconds: float, steps: int = 20, peak: int | None = 20 * 2**30) -> dict:
    return {
        "seconds_per_step": [None, 99.0, 50.0, *[seconds] * (steps - 3)],
        "vram": [1, peak, 2],
    }


def keep(home, one, seconds: float, gpu=CARD, **more) -> None:
    note(home, asdict(one), gpu, columns(seconds, **more))


def test_a_run_like_an_earlier_one_takes_its_time(home):
    assert seconds_per_step(home, load(), CARD) is None
    keep(home, load(), 4.0)
    keep(home, load(), 5.0)
    assert seconds_per_step(home, load(), CARD) == Measured(5.0, True)  # the newest counts
    assert vram(home, load(), CARD) == Measured(20 * 2**30, True)


def test_another_size_is_carried_over_by_its_pixels(home):
    keep(home, load(pixels=512 * 512), 2.0)
    assert seconds_per_step(home, load(), CARD) == Measured(8.0, False)
    assert seconds_per_step(home, load(batch=2), CARD) is None  # eight times as large
    assert vram(home, load(), CARD) is None


def test_vram_is_measured_for_just_this_load(home):
    keep(home, load(rank=8), 4.0)
    assert vram(home, load(rank=64), CARD) is None  # its optimizer needs far more
    assert seconds_per_step(home, load(rank=64), CARD) == Measured(4.0, True)
    keep(home, load(rank=64), 4.0, peak=22 * 2**30)
    assert vram(home, load(rank=8), CARD) == Measured(20 * 2**30, True)


@pytest.mark.parametrize(
    "other", [{"fp8": True}, {"blocks": 16}, {"practice": True}, {"checkpointing": False}]
)
def test_another_way_of_training_says_nothing(home, other):
    keep(home, load(), 4.0)
    assert seconds_per_step(home, load(**other), CARD) is None
    assert seconds_per_step(home, load(), "another card") is None


def test_a_figure_of_just_this_size_goes_before_a_newer_one_of_another(home):
    keep(home, load(), 4.0)
    keep(home, load(pixels=512 * 512), 2.0)
    assert seconds_per_step(home, load(), CARD) == Measured(4.0, True)


def test_a_run_of_a_few_steps_is_not_kept(home):
    keep(home, load(), 4.0, steps=7)
    assert seconds_per_step(home, load(), CARD) is None


def test_damaged_lines_are_left_out(home):
    keep(home, load(), 4.0)
    path = home.jobs / measured.FILE
    row = json.loads(path.read_text())
    odd = [
        "",
        "{",
        "[]",
        "3",
        json.dumps({**row, "load": {"pixels": 3}}),
        json.dumps({**row, "load": None}),
        json.dumps({**row, "seconds_per_step": "fast"}),
        json.dumps({**row, "seconds_per_step": -1}),
    ]
    path.write_text(path.read_text() + "\n".join(odd))
    assert seconds_per_step(home, load(), CARD) == Measured(4.0, True)


def test_a_full_disk_costs_the_figure_and_nothing_else(home):
    (home.jobs / measured.FILE).mkdir()
    keep(home, load(), 4.0)
    assert seconds_per_step(home, replace(load(), rank=3), CARD) is None


def test_a_finished_run_makes_the_next_estimate_a_measured_one(live_server):
    live_server.post("/api/projects", {"name": "ball"})
    live_server.upload("ball", pictures(4))
    settings = {"epochs": 2, "image_repeats": 5, "resolution": "256x256"}

    def told() -> dict:
        return live_server.post("/api/check", {"project": "ball", "settings": settings})["estimate"]

    before = told()
    assert before["time_source"] == "guess"
    job = live_server.post("/api/projects/ball/train", {"settings": settings})["id"]
    live_server.wait_for(job)
    after = told()
    assert after["time_source"] == "measured"
    times = live_server.get(f"/api/jobs/{job}/metrics")["seconds_per_step"]
    assert min(filter(None, times)) <= after["seconds_per_step"] <= max(filter(None, times))
