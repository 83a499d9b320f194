"""Qwen2.5-VL from ComfyUI's single file: strict, small in memory, and as exact as it can be."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest
import tiny

from musubitlx import models as catalogue
from musubitlx.captioning import devices, fp8, qwen_file, qwen_vl, qwen_weights
from musubitlx.captioning.devices import Place
from musubitlx.errors import UserError

MEDIUM = tiny.Size(width=1024, layers=6, heads=8, inner=2816, words=8000)
MB = 1e6


@pytest.fixture(scope="module")
def medium(tmp_path_factory):
    """A model of 80 million weights: (folder, file)."""
    out = tmp_path_factory.mktemp("medium")
    return out / "qwen-vl", tiny.qwen(out / "qwen-vl", out / tiny.TEXT_ENCODER, MEDIUM)


def place(precision: str) -> Place:
    return devices.choose("cpu", precision, large=True)


def bytes_of(model) -> int:
    """What a model's weights and buffers take."""
    tensors = {one.data_ptr(): one for one in [*model.parameters(), *model.buffers()]}
    return sum(one.nbytes for one in tensors.values())


# -- fp8 -------------------------------------------------------------------------------------------


def test_a_scale_for_each_row_is_far_more_exact_than_a_plain_cast():
    import torch

    torch.manual_seed(0)
    weight = torch.randn(512, 512) * torch.logspace(-4, -1, 512)[:, None]
    packed, scale = fp8.quantised(weight.bfloat16(), "cpu")
    wanted = weight.bfloat16().float()

    def error(got):  # of each row, relative
        return ((got.float() - wanted).norm(dim=1) / wanted.norm(dim=1)).numpy()

    scaled, plain = error(fp8.unpacked(packed, scale)), error(wanted.to(torch.float8_e4m3fn))
    print(f"row scales {scaled.mean():.4f}, plain cast {plain.mean():.4f}")
    assert scaled.max() < 0.04
    assert plain.mean() > 5 * scaled.mean()
    assert (plain == 1).any()  # whole rows became zero


def test_a_row_of_zeros_stays_one():
    import torch

    packed, scale = fp8.quantised(torch.zeros(3, 8).bfloat16(), "cpu")
    assert torch.equal(fp8.unpacked(packed, scale).float(), torch.zeros(3, 8))


def test_large_matrices_are_worked_through_in_pieces(monkeypatch):
    import torch

    weight, x = torch.randn(50, 16).bfloat16(), torch.randn(2, 3, 16).bfloat16()
    bias = torch.randn(50).bfloat16()
    whole = fp8.linear(*fp8.quantised(weight, "cpu"), bias)(x)
    monkeypatch.setattr(fp8, "AT_ONCE", 16 * 3)
    monkeypatch.setattr(fp8, "UNPACKED", 16 * 7)
    pieces = fp8.linear(*fp8.quantised(weight, "cpu"), bias)(x)
    assert torch.equal(whole, pieces)
    exact = torch.nn.functional.linear(x.float(), weight.float(), bias.float())
    assert torch.allclose(whole.float(), exact, atol=0.6)


def test_of_the_7b_only_the_output_layer_is_unpacked_in_pieces():
    wide, sizes = qwen_weights.SEVEN_B["hidden_size"], qwen_weights.SEVEN_B
    assert sizes["intermediate_size"] * wide <= fp8.UNPACKED < sizes["vocab_size"] * wide


@pytest.mark.parametrize(
    "words, large, computes, precision",
    [
        ("cuda", False, {"convolves_fp16": True}, "float16"),
        ("cuda", False, {"convolves_fp16": False}, "float32"),
        ("mps", False, {}, "float32"),
        ("mps", True, {"multiplies_bf16": True}, "bfloat16"),
        ("cpu", True, {}, "bfloat16"),
    ],
)
def test_what_a_device_computes_wrongly_is_not_chosen(
    monkeypatch, words, large, computes, precision
):
    monkeypatch.setattr(devices, "_device", lambda asked: asked)
    for name, does in computes.items():
        monkeypatch.setattr(devices, name, lambda device, does=does: does)
    assert str(devices.choose(words, "auto", large=large).dtype) == f"torch.{precision}"


def test_a_mac_without_bf16_is_told_what_else_to_take(monkeypatch):
    monkeypatch.setattr(devices, "_device", lambda asked: "mps")
    monkeypatch.setattr(devices, "multiplies_bf16", lambda device: False)
    with pytest.raises(UserError, match="needs bf16") as told:
        devices.choose("auto", "auto", large=True)
    assert "BLIP" in told.value.hint and "--device cpu" in told.value.hint


@pytest.mark.parametrize("wrong", ["nan", "zero", "refused", None])
def test_fp16_is_tried_before_it_is_used(monkeypatch, wrong):
    import torch

    right = torch.nn.functional.conv2d

    def conv2d(picture, *more, **how):
        told = right(picture, *more, **how)
        if picture.dtype != torch.float16 or not wrong:
            return told
        if wrong == "refused":
            raise RuntimeError("not implemented for 'Half'")
        return torch.full_like(told, {"nan": float("nan"), "zero": 0.0}[wrong])

    monkeypatch.setattr(torch.nn.functional, "conv2d", conv2d)
    assert devices.convolves_fp16("cpu") is (wrong is None)


def test_fp8_weights_take_half_of_what_bf16_takes(medium):
    half = bytes_of(qwen_weights.build(*medium, place("fp8")))
    whole = bytes_of(qwen_weights.build(*medium, place("bf16")))
    table = MEDIUM.words * MEDIUM.width * 2  # words stay in bf16
    print(f"bf16 {whole / MB:.0f} MB, fp8 {half / MB:.0f} MB, of both {table / MB:.0f} MB words")
    assert whole > 100 * MB
    assert 0.49 < (half - table) / (whole - table) < 0.52


def test_the_next_word_in_fp8_is_mostly_that_in_bf16(medium):
    import torch

    ids = torch.randint(20, 400, (2, 24), generator=torch.Generator().manual_seed(1))
    best = []
    for precision in ("bf16", "fp8"):
        model = qwen_weights.build(*medium, place(precision))
        with torch.inference_mode():
            best.append(model(input_ids=ids).logits.argmax(-1))
    same = (best[0] == best[1]).float().mean().item()
    print(f"the same next word in {same:.0%}")
    assert same > 0.6  # of 8000 words, with the flat scores of random weights


def test_loading_takes_no_more_memory_than_the_result(medium, tmp_path):
    told = {name: measured(*medium, name, tmp_path / name) for name in ("bf16", "fp8")}
    print(
        {name: f"{kept / MB:.0f} MB, peak {peak / MB:.0f}" for name, (kept, peak) in told.items()}
    )
    file = medium[1].stat().st_size
    assert told["bf16"][1] < 0.2 * file  # mapped from the file
    kept, peak = told["fp8"]
    assert 0.4 * file < kept < 0.65 * file
    assert peak < kept + 0.25 * file  # a piece of a tensor, and what malloc keeps in hand


def measured(folder: Path, file: Path, precision: str, out: Path) -> tuple[int, int]:
    """Load in a child: bytes of private memory more than before, at the end and at the peak."""
    pid = os.fork()
    if not pid:
        try:
            ctypes.CDLL(None).malloc_trim(0)  # or what others freed would be used again, unseen
            before, peak, over = private(), [0], threading.Event()

            def look():
                while not over.wait(0.002):
                    peak[0] = max(peak[0], private() - before)

            threading.Thread(target=look, daemon=True).start()
            model = qwen_weights.build(folder, file, place(precision))
            time.sleep(0.05)
            ctypes.CDLL(None).malloc_trim(0)
            kept = private() - before
            over.set()
            out.write_text(json.dumps([kept, max(peak[0], kept)]))
            del model
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    return tuple(json.loads(out.read_text()))


def private() -> int:
    """Bytes of this process's memory that are no file's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    pytest.skip("no /proc")


def test_what_is_computed_in_stays_bf16(models):
    import torch

    model = qwen_weights.build(models / "qwen-vl", models / tiny.TEXT_ENCODER, place("fp8"))
    assert model.dtype == torch.bfloat16
    kinds = {name: one.dtype for name, one in model.state_dict().items()}
    packed = {name for name, kind in kinds.items() if kind == torch.float8_e4m3fn}
    assert "lm_head.weight" in packed
    assert any("visual" in name for name in packed)
    for name, kind in kinds.items():
        if "norm" in name or "bias" in name or "patch_embed" in name or "embed_tokens" in name:
            assert kind == torch.bfloat16, name


def test_the_program_runs_in_fp8(folder):
    folder.add(3)
    ended = folder.run("qwen-vl", precision="fp8", batch=2)
    assert ended.status == 0
    assert "Qwen2.5-VL 7B is on the processor in fp8." in ended.said
    assert len(folder.texts()) == 3


def test_words_kept_off_the_card_are_the_same_words(models):
    import torch

    table = torch.randn(20, 8).bfloat16()
    off = qwen_weights.off_card(table)
    ids = torch.tensor([[3, 1], [0, 19]])
    assert torch.equal(off(ids), table[ids])
    assert list(off.parameters()) == list(off.buffers()) == []
    assert off.weight.device.type == "cpu"


# -- the file --------------------------------------------------------------------------------------


@pytest.fixture
def changed(models, tmp_path):
    """A function that copies the text encoder file, changed."""
    from safetensors.torch import load_file, save_file

    def make(change) -> Path:
        tensors = load_file(models / tiny.TEXT_ENCODER)
        change(tensors)
        save_file(tensors, tmp_path / "other.safetensors")
        return tmp_path / "other.safetensors"

    return make


def drop(tensors):
    del tensors["model.layers.1.mlp.up_proj.weight"]
    del tensors["visual.blocks.0.attn.qkv.bias"]


def add(tensors):
    tensors["model.layers.9.mlp.up_proj.weight"] = tensors["model.norm.weight"].clone()


def bend(tensors):
    tensors["model.norm.weight"] = tensors["model.norm.weight"][:-1].clone()


def lora(tensors):
    only = tensors["model.norm.weight"]
    tensors.clear()
    tensors["transformer_blocks.0.lora_down.weight"] = only


def scaled(tensors):
    import torch

    tensors["scaled_fp8"] = torch.zeros(2).to(torch.float8_e4m3fn)


def packed(tensors):
    import torch

    key = "model.layers.0.mlp.up_proj.weight"
    tensors[key] = tensors[key].to(torch.float8_e4m3fn)


REFUSED = {
    add: ("1 weights are unknown in other.safetensors: ", "layers.9.mlp.up_proj.weight"),
    bend: ("1 weights have another size in other.safetensors: ", "norm.weight (31, should be 32)"),
    drop: ("2 weights are missing in other.safetensors: ", "layers.1.mlp.up_proj.weight"),
    lora: ("other.safetensors is not the text encoder Qwen2.5-VL: it is a LoRA", ""),
    packed: ("other.safetensors holds fp8 or other 8-bit weights", ""),
    scaled: ("other.safetensors holds fp8 or other 8-bit weights", ""),
}


@pytest.mark.parametrize("change", REFUSED, ids=lambda one: one.__name__)
def test_a_file_that_does_not_fit_is_refused_by_name(folder, changed, change):
    folder.add(1)
    ended = folder.run("qwen-vl", text_encoder=changed(change))
    beginning, named = REFUSED[change]
    assert ended.status == 1
    assert ended.error.startswith(f"ERROR: {beginning}")
    assert named in ended.error
    assert ended.error.count("\n") == 1
    assert folder.texts() == {}


def test_a_cut_file_is_refused(folder, changed):
    folder.add(1)
    file = changed(lambda tensors: None)
    file.write_bytes(file.read_bytes()[:-10])
    ended = folder.run("qwen-vl", text_encoder=file)
    assert ended.status == 1
    assert "other.safetensors is cut short" in ended.error


def test_a_missing_file_is_refused(folder):
    folder.add(1)
    ended = folder.run("qwen-vl", text_encoder="/nowhere/file.safetensors")
    assert (ended.status, ended.error.count("\n")) == (1, 1)
    assert "/nowhere/file.safetensors is not there." in ended.error
    ended = folder.run("qwen-vl", text_encoder=None)
    assert ended.error.startswith("ERROR: Qwen2.5-VL 7B needs the text encoder")


@pytest.mark.parametrize("yaml", [True, False])
def test_a_text_encoder_that_came_by_another_way_meanwhile_is_found(
    folder, models, monkeypatch, yaml
):
    """A run may have waited in the queue for long; and its Python may have no PyYAML."""
    if not yaml:
        monkeypatch.setitem(sys.modules, "yaml", None)
    monkeypatch.setattr(catalogue, "other_variant", lambda *_: None)  # tiny ones are no 7B
    folder.add(1)
    shutil.copy(models / tiny.TEXT_ENCODER, folder.project.home.root / tiny.TEXT_ENCODER)
    ended = folder.run("qwen-vl", text_encoder="/nowhere/file.safetensors")
    assert (ended.status, ended.error) == (0, "")


def test_a_split_set_is_one_file(folder, models, tmp_path):
    from safetensors.torch import load_file, save_file

    folder.add(1)
    whole = folder.run("qwen-vl").shown
    folder.clear()
    tensors = sorted(load_file(models / tiny.TEXT_ENCODER).items())
    for n, some in enumerate((tensors[::2], tensors[1::2]), 1):
        save_file(dict(some), tmp_path / f"te-0000{n}-of-00002.safetensors")
    first = tmp_path / "te-00001-of-00002.safetensors"
    assert folder.run("qwen-vl", text_encoder=first).shown == whole
    second = tmp_path / "te-00002-of-00002.safetensors"
    folder.clear()
    ended = folder.run("qwen-vl", text_encoder=second)
    assert "is not the first part of its set" in ended.error


def test_a_tied_output_layer_is_the_word_table(tmp_path):
    import torch

    file = tiny.qwen(tmp_path / "tied", tmp_path / "tied.safetensors", tied=True)
    for precision in ("bf16", "fp8"):
        model = qwen_weights.build(tmp_path / "tied", file, place(precision))
        head, table = model.lm_head.weight, model.get_input_embeddings().weight
        if precision == "fp8":
            head = fp8.unpacked(head, model.lm_head.scale)
        assert torch.allclose(head.float(), table.float(), atol=0.07)


def test_without_a_config_it_is_the_7b_model(tmp_path):
    model, tied = qwen_weights.empty(tmp_path)
    assert sum(one.numel() for one in model.parameters()) == 8_292_166_656
    assert tied is False
    names = model.state_dict()
    keys = {
        name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")
        for name in names
    }
    assert len(keys) == 729


@pytest.mark.parametrize("config", ["[1]", "{", '{"model_type": "bert"}'])
def test_a_config_of_something_else_is_refused(folder, models, tmp_path, config):
    folder.add(1)
    shutil.copytree(models / "qwen-vl", tmp_path / "odd")
    (tmp_path / "odd" / "config.json").write_text(config)
    ended = folder.run("qwen-vl", weights=tmp_path / "odd")
    assert (ended.status, ended.error.count("\n")) == (1, 1)
    assert str(tmp_path / "odd" / "config.json") in ended.error


def test_a_tokenizer_of_another_model_is_refused(folder, models, tmp_path):
    folder.add(1)
    shutil.copytree(models / "qwen-vl", tmp_path / "odd")
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        shutil.copy(models / "vit-gpt2" / name, tmp_path / "odd" / name)
    ended = folder.run("qwen-vl", weights=tmp_path / "odd")
    assert (ended.status, ended.error.count("\n")) == (1, 1)
    assert "odd" in ended.error


# -- what it is asked ------------------------------------------------------------------------------


def test_the_instruction_reaches_the_model_without_marks_of_its_own(folder, monkeypatch):
    folder.add(1)
    asked = []
    prompts = qwen_vl.QwenVl._prompts

    def noted(self, grids):
        asked.append(self._tail)
        return prompts(self, grids)

    monkeypatch.setattr(qwen_vl.QwenVl, "_prompts", noted)
    folder.run("qwen-vl", instruction="Name the coat.<|im_end|> {}")
    assert asked[0].startswith("<|vision_end|>Name the coat.< |im_end|> {}<|im_end|>\n")


def test_large_pictures_are_made_smaller_and_slim_ones_wide_enough():
    from PIL import Image

    large = qwen_vl.fitted(Image.new("RGB", (4000, 3000)))
    assert large.width * large.height <= qwen_vl.MOST_PX * 1.01
    assert abs(large.width / large.height - 4 / 3) < 0.01
    assert qwen_vl.fitted(Image.new("RGB", (500, 10))).size == (500, 56)
    assert qwen_vl.fitted(Image.new("RGB", (500, 300))).size == (500, 300)


def test_keys_are_renamed_where_the_model_has_the_newer_names(models):
    held = qwen_file.inspect(models / tiny.TEXT_ENCODER)
    older = {key: tensor.shape for key, (_, tensor) in held.items()}
    newer = {qwen_file._renamed(key): shape for key, shape in older.items()}
    assert "model.visual.patch_embed.proj.weight" in newer
    for wanted in (older, newer):
        keys = qwen_file.matched("file", held, wanted, tied=False)
        assert set(keys.values()) == set(held)
