"""The whole path in practice mode, over HTTP alone: from pictures to a LoRA that learned them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from support import log_text, pictures

SETTINGS = {
    "trigger_word": "ohwx",
    "prompt": "a red ball",
    "output_name": "red_ball",
    "resolution": "512x512",
    "samples_enabled": True,
    "sample_prompt_text": "{{trigger}}, a red ball on a soft background\n{{trigger}}",
    "sample_at_first": True,
}  # all else at its default: 6 epochs of 10 repeats, rank 16, dims 128, 5e-5, AdamW, seed 42


def small(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((32, 32)), np.float32) / 255


def distance(samples: list[Path], images: list[Path]) -> float:
    """Mean over samples of the RMS distance to the nearest training image, at 32x32."""
    training = [small(path) for path in images]
    nearest = [
        min(float(np.sqrt(((small(sample) - one) ** 2).mean())) for one in training)
        for sample in samples
    ]
    return sum(nearest) / len(nearest)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished practice run of 8 images: the program, the job's events, the seconds it took."""
    from support import Program

    server = Program(tmp_path_factory.mktemp("spine") / "home", "--practice").start()
    try:
        server.post("/api/projects", {"name": "red ball"})
        added = server.upload("red ball", pictures(8)).json()["added"]
        for number, image in enumerate(added[:6]):
            caption = {"text": f"a red ball, picture {number}"}
            server.put(f"/api/projects/red ball/images/{image['name']}/caption", caption)
        began = time.monotonic()
        job = server.post("/api/projects/red ball/train", {"settings": SETTINGS})["id"]
        events = server.events_until_end(job)
        yield server, events, time.monotonic() - began
    finally:
        server.stop()


def test_it_succeeds_within_half_a_minute(trained):
    server, events, seconds = trained
    ended = events[-1].data
    assert ended["state"] == "succeeded" and ended["practice"] is True
    assert ended["progress"]["step"] == ended["progress"]["total"] == 8 * 10 * 6
    assert seconds < 30
    assert "TRAINING COMPLETED!" in log_text(events)
    assert "not for Qwen-Image" in server.log(ended["id"])


def test_the_files_of_the_house_plan_are_there(trained):
    server, _, _ = trained
    folder = server.home / "output/red ball"
    names = {path.name for path in folder.iterdir()}
    for number in range(8):
        width, height = Image.open(folder / f"ball {number}.jpg").size
        assert f"ball {number}_{width:04d}x{height:04d}_qi.safetensors" in names
        assert f"ball {number}_qi_te.safetensors" in names
    checkpoints = {f"red_ball-{epoch:06d}.safetensors" for epoch in range(1, 6)}
    assert (
        checkpoints | {"red_ball.safetensors", "dataset_config.toml", "sample_prompts.txt"} <= names
    )
    assert len([name for name in names if name.startswith("training_log_red_ball_")]) == 1
    rows = [json.loads(line) for line in (folder / "dataset.jsonl").read_text().splitlines()]
    texts = {Path(row["image_path"]).name: row["caption"] for row in rows}
    assert (
        texts["ball 0.jpg"] == "ohwx, a red ball, picture 0"
        and texts["ball 7.jpg"] == "ohwx, a red ball"
    )
    assert (folder / "ball 0.txt").read_text() == "a red ball, picture 0"  # never changed by a run
    prompts = (folder / "sample_prompts.txt").read_text().splitlines()
    assert prompts[1].startswith("ohwx --") and "--d 42" in prompts[1]


def test_the_lora_opens_and_says_what_it_is(trained):
    server, events, _ = trained
    (output,) = events[-1].data["outputs"]
    data = server.call("GET", output["url"]).content
    copy = server.home.parent / "downloaded.safetensors"
    copy.write_bytes(data)
    with safe_open(copy, "numpy") as lora:
        assert lora.metadata()["ss_network_dim"] == "16"
        assert lora.metadata()["musubitlx_practice"]
        assert any(name.endswith("lora_down.weight") for name in lora.keys())  # noqa: SIM118


def test_the_loss_falls_below_half(trained):
    server, events, _ = trained
    metrics = server.get(f"/api/jobs/{events[-1].data['id']}/metrics")
    losses = metrics["loss"]
    assert metrics["step"] == list(range(1, 481)) and None not in losses
    assert losses[-1] < 0.5 * losses[0]
    assert losses[-1] < 0.5 * losses[79]  # the mean of the whole first epoch


def test_the_last_samples_are_nearer_to_the_images_than_the_baseline(trained):
    server, _, _ = trained
    folder = server.home / "output/red ball"
    samples = server.get("/api/projects/red ball/samples")["samples"]
    by_epoch: dict[int, list[Path]] = {}
    for sample in samples:
        by_epoch.setdefault(sample["epoch"], []).append(folder / "sample" / sample["name"])
    assert sorted(by_epoch) == list(range(7)) and all(len(made) == 2 for made in by_epoch.values())
    images = sorted(folder.glob("*.jpg"))
    assert distance(by_epoch[6], images) < 0.6 * distance(by_epoch[0], images)


def test_the_viewer_saw_it_grow(trained):
    _, events, _ = trained
    steps = [event.data["progress"]["step"] for event in events if event.name == "job"]
    seen = [step for step in steps if step]
    assert len(set(seen)) >= 5
    assert len([event for event in events if event.name == "log"]) > 20
    assert sum(len(event.data["samples"]) for event in events if event.name == "samples") == 14
