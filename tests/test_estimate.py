"""What a run takes: steps exactly, the rest by the tables it comes from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inputs import patient
from support import pictures

from musubitlx import estimate, presets
from musubitlx.estimate import Work, disk, kept, lora_bytes, seconds, step_seconds, steps, vram_gb
from musubitlx.measured import Load
from musubitlx.settings import parse


def load(**given_) -> Load:
    usual = {
        **dict(practice=False, pixels=1024 * 1024, batch=1, rank=16, optimizer="AdamW8bit"),
        **dict(fp8=False, blocks=0, h2d_only=False, checkpointing=True, cpu_offload=False),
    }
    return Load(**{**usual, **given_})


# -- steps -----------------------------------------------------------------------------------------


def test_steps_are_counted_bucket_by_bucket():
    square, wide = (512, 512), (768, 512)
    given_ = parse({"resolution": "512x512", "epochs": 3, "image_repeats": 5, "batch_size": 4})
    counted = steps(given_, [square] * 3 + [wide] * 2)
    assert counted == {"steps_per_epoch": 4 + 3, "steps": 21, "looks_per_image": 15}
    assert steps(given_, [])["steps"] == 0


def test_with_defaults_a_step_is_a_look_at_an_image():
    counted = steps(parse({}), [(512, 512)] * 12)
    assert counted == {"steps_per_epoch": 120, "steps": 720, "looks_per_image": 60}


def test_accumulated_batches_make_one_step():
    counted = steps(parse({"epochs": 2, "image_repeats": 1}), [(512, 512)] * 7, accumulation=3)
    assert (counted["steps_per_epoch"], counted["steps"]) == (3, 6)


# -- files -----------------------------------------------------------------------------------------


def test_a_lora_file_has_the_size_people_know():
    assert lora_bytes(16) == pytest.approx(295e6, rel=0.01)  # bf16
    assert lora_bytes(16, precision="fp32") == pytest.approx(590e6, rel=0.01)
    assert lora_bytes(32) == pytest.approx(2 * lora_bytes(16), rel=0.01)


@pytest.mark.parametrize(
    ("flags", "checkpoints", "states"),
    [
        ({}, 6, 0),
        ({"--save_every_n_epochs": 2}, 3, 0),
        ({"--save_every_n_epochs": 4}, 2, 0),
        ({"--save_every_n_steps": 100}, 6 + 5, 0),
        ({"--save_last_n_epochs": 2}, 4, 0),
        ({"--save_state": True}, 6, 6),
        ({"--save_state": True, "--save_last_n_epochs_state": 1}, 6, 3),
        ({"--save_state_on_train_end": True}, 6, 1),
    ],
)
def test_checkpoints_and_states_are_counted(flags, checkpoints, states):
    files = kept(parse({"epochs": 6}), flags, 600)
    assert (files.checkpoints, files.states) == (checkpoints, states)


def test_disk_is_the_sum_of_its_parts():
    needed = disk(parse({"epochs": 6}), {"--save_precision": "fp32"}, 20, 600, load())
    assert needed["all"] == needed["checkpoints"] + needed["states"] + needed["caches"]
    assert needed["checkpoints"] == 6 * needed["lora"] == 6 * lora_bytes(16, precision="fp32")
    assert 20e6 < needed["caches"] < 60e6


def test_a_practice_run_writes_what_was_said(live_server):
    live_server.post("/api/projects", {"name": "ball"})
    live_server.upload("ball", pictures(3))
    settings = {"epochs": 3, "image_repeats": 1, "lora_rank": 8, "resolution": "256x256"}
    told = live_server.post("/api/check", {"project": "ball", "settings": settings})["estimate"]
    job = live_server.post("/api/projects/ball/train", {"settings": settings})["id"]
    assert live_server.wait_for(job)["state"] == "succeeded"
    files = list((live_server.home / "output/ball").glob("my_lora*.safetensors"))
    assert len(files) == told["disk"]["files"] == 3
    assert files[0].stat().st_size == pytest.approx(told["disk"]["lora"], rel=0.05)


# -- memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "gb"),
    [
        ({}, 42),
        ({"fp8": True}, 30),
        ({"fp8": True, "blocks": 16}, 24),
        ({"fp8": True, "blocks": 45}, 12),
    ],
)
def test_vram_is_that_of_musubi_s_table(more, gb):
    assert vram_gb(load(**more)) == pytest.approx(gb, abs=0.2)


LOADS = st.builds(
    load,
    pixels=st.sampled_from([512 * 512, 1024 * 1024, 1328 * 1328]),
    batch=st.integers(1, 8),
    rank=st.integers(1, 256),
    optimizer=st.sampled_from(["AdamW", "AdamW8bit", "Adafactor"]),
    fp8=st.booleans(),
    blocks=st.integers(0, 58),
)


@patient
@given(LOADS)
def test_more_of_anything_needs_no_less_vram_and_swapping_needs_less(one):
    from dataclasses import replace

    for more in (
        {"pixels": one.pixels * 2},
        {"batch": one.batch + 1},
        {"rank": one.rank + 1},
        {"checkpointing": False},
    ):
        assert vram_gb(replace(one, **more)) >= vram_gb(one)
    assert vram_gb(replace(one, blocks=one.blocks + 1)) <= vram_gb(one)
    assert vram_gb(replace(one, cpu_offload=True)) <= vram_gb(one)
    assert estimate.ram_gb(replace(one, blocks=one.blocks + 1)) >= estimate.ram_gb(one)


# -- time ------------------------------------------------------------------------------------------


def test_time_is_musubi_s_own_figure_on_the_card_it_was_measured_on():
    card = ("NVIDIA GeForce RTX 3090", 24.0)
    swapped = load(fp8=True, blocks=40)
    assert step_seconds(swapped, *card) == pytest.approx(14, rel=0.03)
    assert step_seconds(load(fp8=True, blocks=40, h2d_only=True), *card) == pytest.approx(
        11, rel=0.03
    )
    assert step_seconds(load(), "NVIDIA GeForce RTX 4090", 24.0) < step_seconds(load(), *card)


def test_no_step_is_shorter_than_moving_the_blocks_takes():
    tiny = load(pixels=64 * 64, fp8=True)
    bare = step_seconds(tiny, "NVIDIA GeForce RTX 4090", 24.0)
    assert 0.5 < bare < 1.5
    swapped = step_seconds(load(pixels=64 * 64, fp8=True, blocks=45), "RTX 4090", 24.0)
    assert 2 < swapped < 5


def test_an_unknown_card_is_guessed_by_its_memory_and_none_is_slowest():
    small, large = step_seconds(load(), "Some card", 12.0), step_seconds(load(), "Some card", 80.0)
    assert small > large
    assert step_seconds(load(), None, None) == small


def test_time_grows_with_pixels_batch_caches_and_samples():
    base = seconds(load(), 100, 10.0, Work(0, 0, 0))
    assert base == pytest.approx(100 * 10 + 150)
    assert seconds(load(), 100, 10.0, Work(10, 10, 0)) > base
    assert seconds(load(), 100, 10.0, Work(0, 0, 1024 * 1024 * 20 * 2)) == pytest.approx(
        base + 0.3 * 10 * 40
    )
    assert step_seconds(load(batch=4), None, None) == 4 * step_seconds(load(), None, None)


# -- profiles --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gb", "id"),
    [(8, "12"), (12, "12"), (15.6, "12"), (20, "16"), (23.99, "24"), (32, "24"), (47.9, "24+")],
)
def test_a_card_begins_with_the_fastest_profile_that_is_sure_to_fit(gb, id):
    assert presets.for_vram(int(gb * estimate.GB)).id == id
