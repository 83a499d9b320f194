"""Captions by a model in the real Musubi's own environment, over HTTP alone.

Runs when MUSUBI_DIR and MUSUBI_PYTHON name an installation; the test of Qwen-VL when
MUSUBI_TEST_TE names a text encoder file, too (a small random one of width 3584 will do). Its
shape is read from its header.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from captioners_there import install
from musubi_here import GIVEN, needs_musubi
from support import ROOT, clean_environment, picture

from musubitlx.captioners import BY_ID
from musubitlx.captioning.qwen_weights import SEVEN_B
from musubitlx.home import Home, read_json
from musubitlx.tensors import read_header

pytestmark = needs_musubi
TEXT_ENCODER = os.environ.get("MUSUBI_TEST_TE")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny model of each kind, made by Musubi's interpreter."""
    folder = tmp_path_factory.mktemp("tiny")
    script = ROOT / "tests" / "captioning" / "tiny.py"
    subprocess.run([GIVEN["MUSUBI_PYTHON"], script, folder], check=True, env=clean_environment())
    return folder


@pytest.fixture
def server(program, tmp_path, tiny):
    """The program beside Musubi, with tiny caption models and three images."""
    install(tmp_path / "home", tiny, *BY_ID)
    server = program(env=GIVEN)
    server.post("/api/projects", {"name": "ball"})
    files = {f"ball {number}.png": picture(number, (96, 64), "PNG") for number in range(3)}
    assert server.upload("ball", files).status_code == 201
    return server


def caption(server, model: str) -> dict[str, str]:
    job = server.post("/api/projects/ball/captions", {"model": model, "max_tokens": 32})["id"]
    assert server.wait_for(job, seconds=200)["state"] == "succeeded", server.log(job)
    stage = server.get(f"/api/jobs/{job}/details")["commands"][-1]["command"]
    assert stage.startswith(GIVEN["MUSUBI_PYTHON"])
    return {one["name"]: one["caption"] for one in server.get("/api/projects/ball")["images"]}


@pytest.mark.parametrize("model", ["blip-large", "vit-gpt2"])
def test_musubis_environment_captions(server, model):
    assert all(caption(server, model).values())


@pytest.mark.skipif(not TEXT_ENCODER, reason="a text encoder file: set MUSUBI_TEST_TE")
def test_the_text_encoder_of_training_captions(server):
    assert server.put("/api/models/text_encoder", {"path": TEXT_ENCODER})["whole"]
    config = BY_ID["qwen-vl"].folder(Home(server.home)) / "config.json"
    tiny = read_json(config)
    marks = {name: number for name, number in tiny.items() if name.endswith("token_id")}
    shape = shape_of(TEXT_ENCODER)
    config.write_text(json.dumps({"model_type": tiny["model_type"], **shape, **marks}))
    assert all(caption(server, "qwen-vl").values())


def shape_of(path: str) -> dict:
    """The measures of the Qwen2.5-VL in a file, by its header: 7B but for layers and widths."""
    _, tensors = read_header(Path(path))

    def count(pattern: str) -> int:
        return len({match[1] for key in tensors if (match := re.match(pattern, key))})

    vocabulary, width = tensors["model.embed_tokens.weight"].shape
    inner = tensors["model.layers.0.mlp.gate_proj.weight"].shape[0]
    seen = tensors["visual.blocks.0.mlp.gate_proj.weight"].shape
    blocks = count(r"visual\.blocks\.(\d+)\.")
    layers = count(r"model\.layers\.(\d+)\.")
    vision = {
        "depth": blocks,
        "hidden_size": seen[1],
        "intermediate_size": seen[0],
        "fullatt_block_indexes": [blocks - 1],
    }
    return {
        **SEVEN_B,
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "max_window_layers": layers,
        "vision_config": {**SEVEN_B["vision_config"], **vision},
    }
