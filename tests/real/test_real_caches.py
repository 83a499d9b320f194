"""Caches of the real Musubi Tuner: exactly those are made again that have to be.

Runs when the variables named in test_real_musubi.py name an installation and model files.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors import safe_open
from support import picture, wait_until
from test_real_musubi import GIVEN, SETTINGS, pytestmark, real  # noqa: F401

SHORT = {**SETTINGS, "samples_enabled": False, "epochs": 1}
NAMES = {"ball 0", "ball 1", "ball 2", "ball 3"}


def cached(server, **more) -> tuple[set, set, str]:
    """Start a run, stop it in its training stage; stems of latents and texts made anew, log."""
    folder = server.home / "output/ball"
    before = caches_of(folder)
    job = server.post("/api/projects/ball/train", {"settings": {**SHORT, **more}})["id"]
    wait_until(
        lambda: (server.get(f"/api/jobs/{job}")["stage"] or {}).get("index") == 3,
        seconds=300,
        what="the training stage\n" + server.log(job),
    )
    server.post(f"/api/jobs/{job}/stop")
    server.wait_for(job, seconds=60)
    made = {name for name, stamp in caches_of(folder).items() if before.get(name) != stamp}
    latents = {name.rsplit("_", 2)[0] for name in made if not name.endswith("_te.safetensors")}
    texts = {name.rsplit("_", 2)[0] for name in made if name.endswith("_te.safetensors")}
    return latents, texts, server.log(job)


def caches_of(folder: Path) -> dict:
    return {
        path.name: (path.stat().st_mtime_ns, path.stat().st_ino)
        for path in folder.glob("*_qi*.safetensors")
    }


def test_the_real_scripts_make_just_the_caches_that_changed(real, tmp_path):  # noqa: F811
    folder = real.home / "output/ball"
    assert cached(real)[:2] == (NAMES, NAMES)
    latents, texts, log = cached(real)
    assert (latents, texts) == (set(), set())
    assert log.count("=== Stage") == 1 and log.count("skipped: nothing to do") == 2

    real.put("/api/projects/ball/images/ball 1.jpg/caption", {"text": "a changed caption"})
    (folder / "ball 2.jpg").write_bytes(picture(9, size_of(folder / "ball 2.jpg")))
    latents, texts, log = cached(real)
    assert (latents, texts) == ({"ball 2"}, {"ball 1"})
    with safe_open(folder / "ball 1_qi_te.safetensors", "numpy") as cache:
        assert cache.metadata()["caption1"] == "sks, a changed caption"

    (folder / "ball 3.jpg").unlink()
    lora = folder / "style_qi_te.safetensors"  # Musubi by itself would delete it
    shutil.copyfile(GIVEN["MUSUBI_TEST_VAE"], lora)
    vae = tmp_path / "vae.safetensors"
    shutil.copyfile(GIVEN["MUSUBI_TEST_VAE"], vae)
    real.put("/api/models/vae", {"path": str(vae)})
    latents, texts, log = cached(real, trigger_word="other")
    kept = NAMES - {"ball 3"}
    assert (latents, texts) == (kept, kept)
    assert not [name for name in caches_of(folder) if name.startswith("ball 3")]
    assert "3 were made with another model file" in log

    latents, texts, _ = cached(real, trigger_word="other", resolution="192x192")
    assert (latents, texts) == (kept, set())
    assert lora.stat().st_size == vae.stat().st_size
    lora.rename(folder / "style_qi.safetensors")
    told = real.post("/api/check", {"project": "ball", "settings": SHORT})
    assert [error["field"] for error in told["errors"]] == ["output_dir"]


def test_a_second_real_run_trains_at_once_on_the_caches_of_the_first(real):  # noqa: F811
    def train() -> str:
        job = real.post("/api/projects/ball/train", {"settings": SHORT})["id"]
        assert real.wait_for(job, seconds=300)["state"] == "succeeded", real.log(job)[-3000:]
        return real.log(job)

    train()
    log = train()
    assert "Encoding dataset" not in log and "steps: 100%" in log
    told = real.post("/api/check", {"project": "ball", "settings": SHORT})
    assert told["estimate"]["time_source"] in ("measured", "guess")


def size_of(path: Path) -> tuple[int, int]:
    from PIL import Image

    with Image.open(path) as image:
        return image.size
