"""Model files: found, whole, and the right ones."""

from __future__ import annotations

import json
import os
import struct
import time
from pathlib import Path

import pytest

from musubitlx import models, tensors
from musubitlx.errors import Invalid, NotFound
from musubitlx.home import Home

BYTES = {"BF16": 2, "F32": 4, "F8_E4M3": 1, "U8": 1}

DIT = {
    "img_in.weight": ("BF16", [8, 4]),
    "transformer_blocks.0.img_mod.1.weight": ("BF16", [16, 8]),
    "txt_norm.weight": ("BF16", [8]),
}
VAE = {
    "encoder.conv_in.weight": ("BF16", [6, 3, 3, 3, 3]),
    "encoder.down_blocks.0.conv1.weight": ("BF16", [6, 6, 3, 3, 3]),
    "decoder.conv_in.weight": ("BF16", [6, 6, 3, 3, 3]),
}
COMFY_VAE = {
    "encoder.conv1.weight": ("BF16", [6, 3, 3, 3, 3]),
    "encoder.downsamples.0.residual.2.weight": ("BF16", [6, 6, 3, 3, 3]),
    "decoder.upsamples.0.residual.2.weight": ("BF16", [6, 6, 3, 3, 3]),
}
TEXT_ENCODER = {
    "model.layers.0.mlp.up_proj.weight": ("BF16", [4, 8]),
    "model.norm.weight": ("BF16", [3584]),
    "visual.patch_embed.proj.weight": ("BF16", [4, 4]),
}
RIGHT = {"dit": DIT, "text_encoder": TEXT_ENCODER, "vae": VAE}


def content(tensors: dict) -> bytes:
    """A safetensors file with these tensors, all zero."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape) in tensors.items():
        size = BYTES[dtype]
        for side in shape:
            size *= side
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


def put(path: Path, tensors: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content(tensors))
    return path


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home").make()


def state(home, id):
    return {state.id: state for state in models.find(home)}[id]


# -- finding --------------------------------------------------------------------------------------


def test_nothing_there_says_what_is_missing_and_where_to_get_it(home):
    states = models.find(home)
    assert [state.id for state in states] == ["dit", "text_encoder", "vae"]
    for found in states:
        assert found.path is None and not found.whole
        assert found.filename in found.problem and found.source in found.hint
        assert found.source.startswith("https://huggingface.co/")
    assert "41 GB" in states[0].hint and "254 MB" in states[2].hint


def test_the_shape_the_page_reads(home):
    put(home.root / "qwen_image_bf16.safetensors", DIT)
    shape = state(home, "dit").as_dict()
    names = "id label filename path found_in bytes expected_bytes whole problem hint source"
    assert " ".join(shape) == names
    json.dumps(shape)


@pytest.mark.parametrize("id", RIGHT)
def test_files_are_found_in_the_order_of_the_design(home, tmp_path, id):
    row = models.model(id)
    comfyui = tmp_path / "ComfyUI/models"
    models.write_choices(home, {"comfyui": str(comfyui)})
    places = [
        (comfyui / row.folders[-1] / row.filename, "ComfyUI"),
        (comfyui / row.folders[0] / row.filename, "ComfyUI"),
        (home.models / row.filename, "the models folder"),
        (home.root / row.filename, "the home folder"),
    ]
    for path, words in places:
        put(path, RIGHT[id])
        found = state(home, id)
        assert (found.path, found.found_in) == (str(path), words)
        assert found.whole and found.problem is None and found.bytes == path.stat().st_size
    chosen = put(tmp_path / "elsewhere/mine.safetensors", RIGHT[id])
    assert models.set_path(home, id, str(chosen)).found_in == "the path you set"
    assert state(home, id).path == str(chosen)


@pytest.mark.parametrize("folder", ["ComfyUI", "ComfyUI/models"])
def test_comfyui_may_be_named_with_or_without_its_models_folder(home, tmp_path, folder):
    path = put(tmp_path / "ComfyUI/models/vae/qwen_image_vae.safetensors", COMFY_VAE)
    models.write_choices(home, {"comfyui": str(tmp_path / folder)})
    assert state(home, "vae").path == str(path)


def test_a_whole_file_counts_before_a_broken_one_that_lies_nearer(home):
    near = put(home.root / "qwen_image_vae.safetensors", VAE)
    near.write_bytes(near.read_bytes()[:-5])
    assert "cut short" in state(home, "vae").problem
    far = put(home.models / "diffusion_pytorch_model.safetensors", VAE)
    assert state(home, "vae").path == str(far)


def test_only_an_fp8_file_is_found_and_said_to_be_of_no_use(home):
    fp8 = {name: ("F8_E4M3", shape) for name, (_, shape) in DIT.items()}
    put(home.root / "qwen_image_fp8_e4m3fn.safetensors", fp8)
    found = state(home, "dit")
    assert found.whole and "fp8" in found.problem and "qwen_image_bf16" in found.hint


# -- the path a user sets -------------------------------------------------------------------------


def test_a_path_is_kept_over_a_restart_and_forgotten_when_empty(home, tmp_path):
    path = put(tmp_path / "Größe [1] #x.safetensors", DIT)
    assert models.set_path(home, "dit", f'  "{path}" ').path == str(path)
    assert state(Home(home.root), "dit").path == str(path)
    models.set_path(home, "vae", str(put(tmp_path / "v.safetensors", VAE)))
    assert models.set_path(home, "dit", "").path is None
    assert state(home, "vae").path.endswith("v.safetensors")


def test_a_path_may_be_relative_to_the_home_folder(home):
    path = put(home.root / "weights/d.safetensors", DIT)
    assert models.set_path(home, "dit", "weights/d.safetensors").path == str(path)


@pytest.mark.parametrize(
    "typed", ["none.safetensors", ".", "a\0b", "~nobody-by-that-name/x", "x" * 9999]
)
def test_a_path_that_is_no_file_is_refused_and_nothing_is_written(home, typed):
    with pytest.raises(Invalid) as caught:
        models.set_path(home, "dit", typed)
    assert caught.value.field == "models.dit" and caught.value.hint
    assert not models.choices_file(home).exists()


@pytest.mark.parametrize("typed", [None, 7, ["a"], {}])
def test_a_path_that_is_no_text_is_refused(home, typed):
    with pytest.raises(Invalid):
        models.set_path(home, "dit", typed)


def test_an_unknown_model_is_not_found(home):
    with pytest.raises(NotFound):
        models.set_path(home, "unet", "")


def test_a_set_file_that_has_gone_is_not_replaced_by_another(home, tmp_path):
    put(home.root / "qwen_image_bf16.safetensors", DIT)
    chosen = put(tmp_path / "d.safetensors", DIT)
    models.set_path(home, "dit", str(chosen))
    chosen.unlink()
    found = state(home, "dit")
    assert found.path == str(chosen) and "not there" in found.problem and not found.whole


@pytest.mark.parametrize(
    "text", ["dit: [", "- a\n- b\n", "dit: [7]\n", "a: b: c", "\tdit: x", "? [a]\n: b"]
)
def test_a_broken_models_yaml_is_said_and_not_overwritten(home, text):
    put(home.root / "qwen_image_bf16.safetensors", DIT)
    models.choices_file(home).write_text(text)
    for found in models.find(home):
        assert "models.yaml" in found.problem and found.hint
    with pytest.raises(Invalid):
        models.set_path(home, "dit", "")
    assert models.choices_file(home).read_text() == text


@pytest.mark.parametrize("raw", [b"\xff\xfe\x00", "dit: Größe".encode("latin-1")])
def test_a_models_yaml_that_is_not_text_is_said(home, raw):
    models.choices_file(home).write_bytes(raw)
    assert "no text in UTF-8" in state(home, "dit").problem


@pytest.mark.parametrize("text", ["", "# only a comment\n", "dit:\n", "dit: ''\nother: x\n", "[]"])
def test_an_empty_models_yaml_is_none(home, text):
    models.choices_file(home).write_text(text)
    assert "was not found" in state(home, "dit").problem


def test_a_byte_order_mark_and_other_keys_stay_harmless(home, tmp_path):
    path = put(tmp_path / "d.safetensors", DIT)
    models.choices_file(home).write_text(f"\ufeffdit: {path}\nmine: 1x\n", encoding="utf-8")
    assert state(home, "dit").path == str(path)
    models.set_path(home, "vae", str(put(tmp_path / "v.safetensors", VAE)))
    assert "mine: 1x" in models.choices_file(home).read_text(encoding="utf-8")


# -- whole or not ---------------------------------------------------------------------------------


@pytest.mark.parametrize("id", RIGHT)
def test_a_right_file_has_no_problem(tmp_path, id):
    assert models.inspect(put(tmp_path / "x.safetensors", RIGHT[id]), id) is None


WHOLE = content(DIT)
SHORT = len(WHOLE) - 7


def headed(header: bytes) -> bytes:
    """A file with this header and a few bytes of weights."""
    return struct.pack("<Q", len(header)) + header + bytes(16)


WRONG_FILES = {
    "empty": (b"", "is empty"),
    "short": (WHOLE[:SHORT], f"it has {SHORT:,} of {len(WHOLE):,} bytes"),
    "in the header": (WHOLE[:60], "cut short: it has 60 bytes"),
    "after the length": (WHOLE[:8], "cut short: it has 8 bytes"),
    "in the length": (WHOLE[:5], "not a safetensors file"),
    "long": (WHOLE + b"abc", f"longer than it should be: {len(WHOLE) + 3:,} bytes"),
    "page": (b"\r\n <!DOCTYPE html><html><title>404</title>", "is a web page"),
    "page with mark": (b"\xef\xbb\xbf<html>", "is a web page"),
    "json": (b'{"error": "Repository not found"}', "is a text file"),
    "words": (b"Invalid username or password.", "is a text file"),
    "gated": (b"Access to model x is restricted.", "is a text file"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "a pointer of Git LFS"),
    "gguf": (b"GGUF\x03\0\0\0" + bytes(64), "is a GGUF file"),
    "zip": (b"PK\x03\x04" + bytes(64), "a PyTorch or zip file"),
    "pickle": (b"\x80\x02}q\x01" + b"x" * 64, "a Python pickle"),
    "zeros": (bytes(5000), "not a safetensors file"),
    "noise": (bytes(range(255, 0, -1)) * 8, "not a safetensors file"),
    "no header": (headed(b"{}"), "holds no weights"),
    "bad json": (headed(b'{"a": [}]'), "The header of"),
    "not rows": (headed(b'{"a": 1}'), "The header of"),
    "no dictionary": (headed(b'{"a": {"dtype": "F32"}}'), "The header of"),
    "bad offsets": (headed(b'{"a": {"data_offsets": [0, "x"]}}'), "The header of"),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_broken_files_are_told_apart_with_a_remedy(tmp_path, name):
    raw, words = WRONG_FILES[name]
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw)
    problem = models.inspect(path, "dit")
    assert words in problem.text and problem.hint and not problem.whole


def test_missing_folder_and_unreadable_are_told_apart(tmp_path):
    assert "not there" in models.inspect(tmp_path / "none.safetensors", "dit").text
    assert "not there" in models.inspect(tmp_path, "dit").text
    path = put(tmp_path / "x.safetensors", DIT)
    assert "not there" in models.inspect(path / "below", "dit").text
    if os.name == "posix" and os.getuid() != 0:
        path.chmod(0)
        assert "can't be read" in models.inspect(path, "dit").text


def test_a_file_that_changes_is_looked_at_anew(tmp_path):
    path = put(tmp_path / "x.safetensors", DIT)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert "cut short" in models.inspect(path, "dit").text
    path.write_bytes(whole)
    assert models.inspect(path, "dit") is None
    path.write_bytes(whole.replace(b"transformer_blocks.0", b"transformer_blocks.1"))
    os.utime(path, (1, 1))  # of the same length, and no clock is too coarse
    assert "another diffusion model" in models.inspect(path, "dit").text


def test_a_header_of_the_real_size_takes_milliseconds(tmp_path):
    names = [f"transformer_blocks.{i}.img_mod.{j}.weight" for i in range(60) for j in range(32)]
    path = put(tmp_path / "x.safetensors", {name: ("BF16", [4, 4]) for name in names} | DIT)
    tensors.header_of.cache_clear()
    started = time.perf_counter()
    assert models.inspect(path, "dit") is None
    assert time.perf_counter() - started < 0.5  # some 10 ms; ample for a busy machine


# -- split sets -----------------------------------------------------------------------------------


def split(folder: Path, tensors: dict) -> list[Path]:
    names = list(tensors)
    count = len(names)
    return [
        put(folder / f"diffusion_pytorch_model-{i:05d}-of-{count:05d}.safetensors", {n: tensors[n]})
        for i, n in enumerate(names, 1)
    ]


def test_a_split_set_counts_as_one_file(home):
    files = split(home.root, DIT)
    found = state(home, "dit")
    assert found.path == str(files[0]) and found.problem is None
    assert found.bytes == sum(file.stat().st_size for file in files)


def test_every_part_of_a_set_must_be_there_and_whole(home):
    files = split(home.root, DIT)
    files[1].write_bytes(files[1].read_bytes()[:-1])
    problem = models.inspect(files[0], "dit")
    assert files[1].name in problem.text and "cut short" in problem.text
    files[1].unlink()
    assert f"{files[1]} is not there" in models.inspect(files[0], "dit").text


def test_the_first_part_is_to_be_chosen(tmp_path):
    files = split(tmp_path, DIT)
    problem = models.inspect(files[2], "dit")
    assert "not the first part" in problem.text and files[0].name in problem.hint


# -- the right one --------------------------------------------------------------------------------


@pytest.mark.parametrize("given", RIGHT)
@pytest.mark.parametrize("wanted", RIGHT)
def test_each_model_in_anothers_place_is_named(tmp_path, wanted, given):
    path = put(tmp_path / "x.safetensors", RIGHT[given])
    problem = models.inspect(path, wanted)
    if wanted == given:
        assert problem is None
    else:
        assert problem.whole and models.model(wanted).label in problem.text
        assert models.model(given).label in problem.hint


OTHERS = {
    "lora": ("dit", {"lora_unet_transformer_blocks_0_x.alpha": ("F32", [1])}, "a LoRA"),
    "flux": ("dit", {"double_blocks.0.img_mod.lin.weight": ("BF16", [2])}, "another diffusion"),
    "nothing known": ("dit", {"weight": ("BF16", [2])}, "no model file of Qwen-Image"),
    "edit 2511": ("dit", DIT | {"__index_timestep_zero__": ("F32", [0])}, "Edit 2511"),
    "scaled": ("dit", DIT | {"scaled_fp8": ("F32", [2])}, "fp8"),
    "fp8 weights": ("dit", DIT | {"img_in.weight": ("F8_E4M3", [2])}, "fp8"),
    "int8 weights": ("dit", DIT | {"img_in.weight": ("U8", [2])}, "8-bit"),
    "layered": ("vae", VAE | {"encoder.conv_in.weight": ("BF16", [6, 4, 3, 3, 3])}, "Layered"),
    "image vae": ("vae", VAE | {"encoder.conv_in.weight": ("BF16", [6, 3, 3, 3])}, "another model"),
    "flux vae": ("vae", {"encoder.down.0.x": ("F32", [1]), "decoder.up": ("F32", [1])}, "another"),
    "3b": ("text_encoder", TEXT_ENCODER | {"model.norm.weight": ("BF16", [2048])}, "another size"),
    "no images": ("text_encoder", {"model.layers.0.x": ("BF16", [1])}, "without its image part"),
    "new names": (
        "text_encoder",
        {"model.language_model.layers.0.x": ("BF16", [1]), "model.visual.x": ("BF16", [1])},
        "newer transformers",
    ),
    "clip": ("text_encoder", {"text_model.encoder.x": ("F32", [1])}, "another text encoder"),
    "te scaled": ("text_encoder", TEXT_ENCODER | {"a.scale_weight": ("F32", [1])}, "fp8"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_musubi_would_refuse_is_said_before(tmp_path, name):
    kind, tensors, words = OTHERS[name]
    problem = models.inspect(put(tmp_path / "x.safetensors", tensors), kind)
    assert words in problem.text and models.model(kind).filename in problem.hint
    assert problem.whole


def test_other_names_of_the_same_weights_are_accepted(tmp_path):
    prefixed = {f"model.diffusion_model.{name}": row for name, row in DIT.items()}
    assert models.inspect(put(tmp_path / "a.safetensors", prefixed), "dit") is None
    assert models.inspect(put(tmp_path / "b.safetensors", COMFY_VAE), "vae") is None


def test_the_library_reads_what_we_call_whole(tmp_path):
    safetensors = pytest.importorskip("safetensors")
    pytest.importorskip("numpy")
    path = put(tmp_path / "x.safetensors", {"a": ("F32", [2, 3]), "b": ("F32", [4])})
    assert models.inspect(path) is None
    with safetensors.safe_open(path, "np") as file:
        assert set(file.keys()) == {"a", "b"}
