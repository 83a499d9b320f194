"""The whole path against the real Musubi Tuner, over HTTP alone.

Runs when MUSUBI_DIR, MUSUBI_PYTHON, MUSUBI_TEST_DIT, MUSUBI_TEST_VAE and MUSUBI_TEST_TE
name an installation and model files (small random ones will do on a CPU).
"""

from __future__ import annotations

import io
import json
import os

import pytest
from PIL import Image
from safetensors import safe_open
from support import log_text, picture, pictures, wait_until

from musubitlx import births

NEEDED = ("MUSUBI_DIR", "MUSUBI_PYTHON", "MUSUBI_TEST_DIT", "MUSUBI_TEST_VAE", "MUSUBI_TEST_TE")
GIVEN = {name: os.environ.get(name) for name in NEEDED}

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not all(GIVEN.values()),
        reason="the real Musubi: set " + ", ".join(NEEDED),
    ),
]

SETTINGS = {
    "trigger_word": "sks",
    "prompt": "a red ball",
    "vram_profile": "24+",
    "epochs": 2,
    "image_repeats": 1,
    "resolution": "128x128",
    "lora_rank": 4,
    "lora_dims": 4,
    "output_name": "real_ball",
    "advanced_flags": "--gradient_checkpointing --max_grad_norm 1.0",
    "samples_enabled": True,
    "sample_prompt_text": "# a comment\n{{trigger}} on a table --w 64 --h 64 --s 2\n",
    "sample_at_first": True,
}


@pytest.fixture
def real(program):
    """The program on the real Musubi, with the model files set and four images."""
    names = ("MUSUBI_DIR", "MUSUBI_PYTHON", "MUSUBI_REAL_STEP_DELAY", "MUSUBI_REAL_OOM_STEP")
    server = program(env={name: os.environ[name] for name in names if name in os.environ})
    for model, variable in (("dit", "DIT"), ("vae", "VAE"), ("text_encoder", "TE")):
        path = {"path": GIVEN[f"MUSUBI_TEST_{variable}"]}
        assert server.put(f"/api/models/{model}", path)["whole"]
    server.post("/api/projects", {"name": "ball"})
    assert server.upload("ball", pictures(4)).status_code == 201
    server.put("/api/projects/ball/images/ball 0.jpg/caption", {"text": 'a ball, "lit" – 画像'})
    return server


def test_the_real_scripts_make_caches_samples_and_a_lora(real):
    state = real.get("/api/state")
    assert state["practice"] is False and state["musubi"]["found"]
    found = real.post("/api/check", {"project": "ball", "settings": SETTINGS})
    assert found["errors"] == [] and found["steps"] == 8
    job = real.post("/api/projects/ball/train", {"settings": SETTINGS})["id"]
    events = real.events_until_end(job)
    ended, log = events[-1].data, real.log(job)
    assert ended["state"] == "succeeded", log[-3000:]
    assert log_text(events) == log and "TRAINING COMPLETED!" in log

    told = [event.data for event in events if event.name == "job"]
    assert {row["stage"]["index"] for row in told if row["stage"]} == {1, 2, 3}
    assert ended["progress"]["step"] == ended["progress"]["total"] == found["steps"]
    assert ended["progress"]["epoch"] == ended["progress"]["epochs"] == 2
    assert [event for event in events if event.name == "bar" and "steps:" in event.data["text"]]
    metrics = real.get(f"/api/jobs/{job}/metrics")
    assert metrics["step"] == list(range(1, 9)) and all(metrics["loss"])

    folder = real.home / "output/ball"
    texts = [json.loads(line) for line in (folder / "dataset.jsonl").read_text().splitlines()]
    assert texts[0]["caption"] == 'sks, a ball, "lit" – 画像'
    with safe_open(folder / "ball 0_qi_te.safetensors", "numpy") as cache:
        assert cache.metadata()["caption1"] == texts[0]["caption"]
    with safe_open(folder / "real_ball.safetensors", "numpy") as lora:
        meta = lora.metadata()
        assert (meta["ss_network_dim"], meta["ss_network_alpha"]) == ("4", "4.0")
        assert meta["ss_timestep_sampling"] == "qwen_shift" and meta["ss_seed"] == "42"
    samples = real.get("/api/projects/ball/samples")["samples"]
    assert [sample["epoch"] for sample in samples] == [0, 1, 2]
    assert {sample["prompt"] for sample in samples} == {"sks on a table"}
    assert {sample["seed"] for sample in samples} == {42}
    assert real.call("GET", samples[0]["thumb"]).headers["Content-Type"] == "image/jpeg"
    new = [event for event in events if event.name == "samples"]
    assert sum(len(event.data["samples"]) for event in new) == 3


def saved(image: Image.Image, kind: str, **more) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def test_odd_pictures_and_captions_reach_the_real_caches_as_they_were_meant(real):
    wide = Image.open(io.BytesIO(picture(5, (320, 160))))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned: it is a tall picture
    files = {
        "turned.jpg": saved(wide, "JPEG", exif=exif),
        "turned.txt": "Bälle – €".encode("cp1252"),
        "through.png": saved(wide.convert("RGBA"), "PNG"),
        "画像 [1].gif": saved(wide, "GIF"),
        "画像 [1].txt": "été".encode("utf-16"),
    }
    assert real.upload("odd", files).status_code == 201
    folder = real.home / "output/odd"
    (folder / "by hand.Jpg").write_bytes(picture(6, (256, 256)))  # Musubi's own listing misses it
    job = real.post("/api/projects/odd/train", {"settings": SETTINGS})["id"]
    wait_until(
        lambda: (real.get(f"/api/jobs/{job}")["stage"] or {}).get("index") == 3,
        seconds=300,
        what="both caches",
    )
    real.post(f"/api/jobs/{job}/stop")
    images = real.get("/api/projects/odd?resolution=128x128")["images"]
    assert {image["name"] for image in images} == {
        "turned.jpg",
        "through.png",
        "画像 _1_.png",
        "by hand.Jpg",
    }
    for image in images:
        stem, size = image["name"].rsplit(".", 1)[0], (image["width"], image["height"])
        with safe_open(folder / f"{stem}_{size[0]:04d}x{size[1]:04d}_qi.safetensors", "numpy") as f:
            bucket = image["bucket"]
            wanted = f"latents_1x{bucket['height'] // 8}x{bucket['width'] // 8}_bfloat16"
            assert wanted in f.keys(), (image["name"], list(f.keys()))  # noqa: SIM118
        with safe_open(folder / f"{stem}_qi_te.safetensors", "numpy") as f:
            captions = {"turned": "sks, Bälle – €", "画像 _1_": "sks, été"}
            assert f.metadata()["caption1"] == captions.get(stem, "sks, a red ball")
    assert {image["name"]: image["height"] > image["width"] for image in images}["turned.jpg"]
    real.wait_for(job, seconds=30)


def test_stop_leaves_nothing_of_the_real_trainer(real):
    job = real.post("/api/projects/ball/train", {"settings": {**SETTINGS, "epochs": 50}})["id"]
    wait_until(lambda: "epoch 1/50" in real.log(job), seconds=300, what="the training")
    record = json.loads((real.home / f"output/.jobs/{job}/status.json").read_text())
    real.post(f"/api/jobs/{job}/stop")
    assert real.wait_for(job, seconds=13)["state"] == "stopped"
    assert births.birth(record["child"]["pid"]) is None


def test_a_stop_after_the_epoch_leaves_what_the_real_trainer_saved(real):
    settings = {**SETTINGS, "epochs": 50}
    job = real.post("/api/projects/ball/train", {"settings": settings})["id"]
    wait_until(lambda: "epoch 2/50" in real.log(job), seconds=300, what="the second epoch")
    real.post(f"/api/jobs/{job}/stop", {"after_epoch": True})
    last = wait_until(lambda: real.get(f"/api/jobs/{job}")["last_epoch"], what="the last epoch")
    ended = real.wait_for(job, seconds=120)
    assert ended["reason"] == f"Stopped after epoch {last}, as asked."
    (output,) = ended["outputs"]
    assert output["name"] == f"real_ball-{last:06d}.safetensors"
    with safe_open(output["path"], "numpy") as lora:
        assert lora.metadata()["ss_epoch"] == str(last)
    samples = real.get("/api/projects/ball/samples")["samples"]
    assert max(sample["epoch"] for sample in samples) == last


@pytest.fixture
def full_card(monkeypatch):
    """The harness raises what CUDA raises when the card is full, at this step."""
    monkeypatch.setenv("MUSUBI_REAL_OOM_STEP", "2")


def test_a_failure_of_the_real_trainer_is_explained(full_card, real):
    settings = {**SETTINGS, "samples_enabled": False}
    job = real.post("/api/projects/ball/train", {"settings": settings})["id"]
    ended = real.wait_for(job, seconds=300)
    assert ended["state"] == "failed" and ended["exit_code"] == 1
    assert "memory" in ended["reason"] and ended["hint"]
    assert "TRAINING ABORTED WITH ERROR (exit code 1)" in real.log(job)


def test_what_the_real_trainer_would_fail_on_late_is_refused_before(real):
    flags = "--gradient_checkpointing --lr_scheduler nosuch"
    answer = real.call(
        "POST",
        "/api/projects/ball/train",
        json={"settings": {**SETTINGS, "advanced_flags": flags}},
    )
    assert answer.status_code == 422 and answer.json()["field"] == "advanced_flags"
    assert "nosuch" in answer.json()["error"]
