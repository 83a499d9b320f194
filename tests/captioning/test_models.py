"""The files of ViT-GPT2 and BLIP: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from musubitlx.captioners import BY_ID
from musubitlx.captioning import blip, packages, vit_gpt2
from musubitlx.captioning.generation import Watch
from musubitlx.captioning.stopping import Stop

SAFE = "model.safetensors"


@pytest.fixture
def changed(models, tmp_path):
    """A function that copies a model and lets its weights be changed; returns the copy."""
    from safetensors.torch import load_file, save_file

    def make(model: str, change=None):
        copy = tmp_path / f"{len(list(tmp_path.iterdir()))}-{model}"
        shutil.copytree(models / model, copy)
        tensors = load_file(copy / SAFE)
        if change:
            change(tensors)
        save_file(tensors, copy / SAFE, metadata={"format": "pt"})
        return copy

    return make


def test_blip_without_output_layer_says_what_it_says_with_it(folder, changed):
    folder.add(2)
    table = "text_decoder.bert.embeddings.word_embeddings.weight"

    def add(tensors):
        tensors[blip.HEAD] = tensors[table].clone()

    def drop(tensors):
        tensors.pop(blip.HEAD, None)

    whole = folder.run("blip-large", weights=changed("blip-large", add)).shown
    folder.clear()
    without = folder.run("blip-large", weights=changed("blip-large", drop)).shown
    assert len(whole) == 2
    assert without == whole


def test_the_tie_is_made_where_transformers_leaves_the_output_layer_random(models):
    """As 4.44 to 4.55 do; later versions tie it by themselves."""
    import torch
    import transformers

    model = transformers.BlipForConditionalGeneration.from_pretrained(models / "blip-large")
    head = model.text_decoder.cls.predictions.decoder
    head.weight = torch.nn.Parameter(torch.randn_like(head.weight))
    blip.tie_head(model)
    table = model.text_decoder.bert.embeddings.word_embeddings.weight
    assert torch.equal(model.text_decoder.cls.predictions.decoder.weight, table)


def test_more_detail_is_a_longer_search(folder, monkeypatch):
    folder.add(1)
    searched = []
    write = blip.Blip.write

    def noted(self, images, watch):
        searched.append((self.beams, self._detail.length_penalty))
        return write(self, images, watch)

    monkeypatch.setattr(blip.Blip, "write", noted)
    for detail in (1, 5):
        folder.run("blip-large", which="all", mode="replace", detail=detail)
    assert searched == [(6, 1.1), (20, 2.5)]


@pytest.mark.parametrize("model", ["blip-large", "vit-gpt2"])
def test_a_missing_weight_is_refused_with_the_folder_and_its_name(folder, changed, model):
    folder.add(1)
    lost = []

    def lose(tensors):
        lost.append(next(name for name in sorted(tensors) if "layers.1" in name or "h.1." in name))
        del tensors[lost[0]]

    copy = changed(model, lose)
    ended = folder.run(model, weights=copy)
    assert ended.status == 1
    assert ended.error.startswith(f"ERROR: 1 weights are missing in {copy}: ")
    assert lost[0].rpartition(".")[2] in ended.error
    assert folder.texts() == {}


def test_a_cut_file_is_refused(folder, changed):
    folder.add(1)
    copy = changed("vit-gpt2")
    (copy / SAFE).write_bytes((copy / SAFE).read_bytes()[:-100])
    ended = folder.run(weights=copy)
    assert ended.status == 1
    assert f"{SAFE} is cut short" in ended.error


@pytest.mark.parametrize(
    "gone", ["config.json", "model.safetensors", "preprocessor_config.json", "tokenizers"]
)
def test_a_missing_file_is_named(folder, changed, gone):
    folder.add(1)
    copy = changed("vit-gpt2")
    names = ("tokenizer.json", "vocab.json") if gone == "tokenizers" else (gone,)
    for name in names:
        (copy / name).unlink()
    ended = folder.run(weights=copy)
    assert ended.status == 1
    assert f"ERROR: {copy} lacks {names[0]}" in ended.error
    assert ended.error.count("\n") == 1


def test_a_config_of_another_model_is_a_sentence(folder, changed):
    folder.add(1)
    copy = changed("vit-gpt2")
    (copy / "config.json").write_text('{"model_type": "bert"')
    ended = folder.run(weights=copy)
    assert (ended.status, ended.error.count("\n")) == (1, 1)
    assert ended.error.startswith(f"ERROR: The files in {copy} can't be used: ")


def test_pickled_weights_are_read(folder, changed):
    import torch
    from safetensors.torch import load_file

    folder.add(1)
    expected = folder.run().shown
    folder.clear()
    copy = changed("vit-gpt2")
    torch.save(load_file(copy / SAFE), copy / "pytorch_model.bin")
    (copy / SAFE).unlink()
    assert folder.run(weights=copy).shown == expected


@pytest.mark.parametrize("transformers", [(4, 44), (4, 57), (5, 0)])
def test_pickled_weights_with_a_torch_too_old_for_them(folder, changed, monkeypatch, transformers):
    folder.add(1)
    copy = changed("vit-gpt2")
    (copy / SAFE).rename(copy / "pytorch_model.bin")
    told = {"torch": (2, 5), "transformers": transformers}
    monkeypatch.setattr(packages, "version", told.get)
    ended = folder.run(weights=copy)
    assert ended.status == 1
    assert "which transformers reads with torch 2.6 or newer only" in ended.error
    assert ended.error.endswith("Install torch 2.6 or newer.\n")


@pytest.mark.parametrize("given", ["gone", "cut"])
def test_a_model_that_came_by_another_way_meanwhile_is_found(folder, changed, models, given):
    """A run may have waited in the queue for long."""
    folder.add(1)
    copy = changed("vit-gpt2")
    (copy / SAFE).write_bytes((copy / SAFE).read_bytes()[:-100])
    where = copy if given == "cut" else copy / "gone"
    ended = folder.run(weights=where)
    assert ended.status == 1
    shutil.copytree(models / "vit-gpt2", BY_ID["vit-gpt2"].folder(folder.project.home))
    ended = folder.run(weights=where)
    assert (ended.status, ended.error) == (0, "")


def test_where_a_search_is_not_to_be_had_the_first_sentence_is_taken(models, capsys):
    """As in transformers 4.52 and 4.53."""
    import torch

    asked = []

    class Model:
        config = SimpleNamespace(decoder=SimpleNamespace(n_positions=20))
        device, dtype = torch.device("cpu"), torch.float32

        def generate(self, **how):
            asked.append((how["num_beams"], how["max_new_tokens"]))
            if how["num_beams"] > 1:
                raise NotImplementedError("_reorder_cache")
            return torch.zeros(1, 2, dtype=torch.long)

    pixels = {"pixel_values": torch.zeros(1)}
    words = SimpleNamespace(batch_decode=lambda ids, **_: ["a dog"] * len(ids))
    one = vit_gpt2.VitGpt2(Model(), lambda **_: pixels, words, 128)
    watch = Watch(Stop(), lambda share: None)
    assert [one.write(["image"], watch) for _ in range(2)] == [["a dog"]] * 2
    assert asked == [(6, 19), (1, 19), (1, 19)]  # and no longer than it can
    assert capsys.readouterr().out.count("the first is taken") == 1


def test_fp16_and_bf16_run(folder):
    folder.add(1)
    for model in ("blip-large", "vit-gpt2"):
        for precision in ("bf16", "fp16"):
            ended = folder.run(model, which="all", mode="replace", precision=precision)
            assert ended.status == 0
            assert f"on the processor in {precision}" in ended.said
