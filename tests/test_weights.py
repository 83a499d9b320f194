"""The files of a caption model: which are wanted, whether a folder is whole, where one is found."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile

import pytest
from hubs import fill
from support import model_files
from weights import write

from musubitlx import models, weights
from musubitlx.captioners import BY_ID
from musubitlx.captioning import captioner
from musubitlx.errors import UserError
from musubitlx.hub import RemoteFile

VIT, BLIP, QWEN = BY_ID["vit-gpt2"], BY_ID["blip-large"], BY_ID["qwen-vl"]
COMMITS = ("1" * 40, "2" * 40)


def listing(**names: int) -> list[RemoteFile]:
    """Files of a repository by name and length."""
    return [RemoteFile(name, size, None) for name, size in names.items()]


# -- which are wanted ------------------------------------------------------------------------------

SMALL = {"config.json": 5, "tokenizer.json": 700, "preprocessor_config.json": 3, "merges.txt": 60}
NEVER = {
    "README.md": 1,
    ".gitattributes": 1,
    "tf_model.h5": 9000,
    "flax_model.msgpack": 9000,
    "onnx/model.onnx": 9000,
    "rust_model.ot": 9000,
    "training_args.bin": 9,
    "folder/config.json": 5,
    "model.fp16.safetensors": 9000,
}
SHARDS = {"model-00001-of-00002.safetensors": 5000, "model-00002-of-00002.safetensors": 4000}
SINGLE, PICKLED = {"model.safetensors": 9000}, {"pytorch_model.bin": 9500}
INDEX = {"model.safetensors.index.json": 50}


def test_of_a_repository_only_the_best_weights_and_what_goes_with_them_are_wanted():
    for there, best in (
        ({**PICKLED, **SHARDS, **INDEX, **SINGLE}, SINGLE),
        ({**PICKLED, **SHARDS, **INDEX}, {**SHARDS, **INDEX}),
        (PICKLED, PICKLED),
    ):
        found = weights.wanted(listing(**NEVER, **there, **SMALL), BLIP)
        assert {file.path: file.bytes for file in found} == {**SMALL, **best}


def test_small_files_come_first():
    sizes = [file.bytes for file in weights.wanted(listing(**SINGLE, **SMALL), BLIP)]
    assert sizes == sorted(sizes)


def test_where_the_text_encoder_has_the_weights_none_are_wanted():
    for there in (SINGLE, PICKLED, {**SHARDS, **INDEX}):
        found = weights.wanted(listing(**there, **SMALL), QWEN)
        assert {file.path for file in found} == SMALL.keys()


# -- whether a folder is whole ---------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A folder with all that a caption model needs."""
    return fill(tmp_path / "blip")


def drop(folder, *names):
    """Take files out of a folder."""
    for name in names:
        (folder / name).unlink()


def test_a_whole_folder_has_no_problem(folder):
    assert weights.problem(folder, BLIP) is None


def test_a_folder_that_is_not_there_is_a_problem(tmp_path):
    assert "not there" in weights.problem(tmp_path / "none", BLIP)


MISSING = {
    "config.json": "config.json is missing.",
    "preprocessor_config.json": "preprocessor_config.json is missing.",
    "tokenizer.json vocab.json": "tokenizer",
    "model.safetensors pytorch_model.bin": "weights",
}


@pytest.mark.parametrize("names", sorted(MISSING))
def test_what_is_missing_is_named(folder, names):
    drop(folder, *names.split())
    assert MISSING[names] in weights.problem(folder, BLIP)


def test_each_model_has_its_kinds_of_tokenizer(folder):
    drop(folder, "tokenizer.json")
    assert weights.problem(folder, VIT) is None
    assert all("tokenizer" in weights.problem(folder, row) for row in (BLIP, QWEN))
    (folder / "vocab.txt").write_text("[PAD]\n")
    assert weights.problem(folder, BLIP) is None


@pytest.mark.parametrize("name", ("vocab.json", "merges.txt", "tokenizer_config.json"))
def test_a_tokenizer_by_kind_needs_all_its_files(folder, name):
    drop(folder, "tokenizer.json", name)
    (folder / "vocab.txt").write_text("[PAD]\n")
    assert "tokenizer" in weights.problem(folder, VIT)


@pytest.mark.parametrize("row", BY_ID.values(), ids=BY_ID)
@pytest.mark.parametrize(
    "name",
    ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer.json merges.txt"),
)
def test_the_program_requires_the_same_small_files(folder, row, name):
    drop(folder, *name.split())
    (folder / "processor_config.json").write_text("{}")
    try:
        captioner.require_small(folder, row)
        refused = False
    except UserError:
        refused = True
    assert refused == (weights.problem(folder, row) is not None)
    assert refused or (row, name) == (VIT, "tokenizer.json")


@pytest.mark.parametrize("name", ("model.safetensors", "added_tokens.json"))
def test_what_has_arrived_in_part_is_not_whole(folder, name):
    (folder / f"{name}.part").write_bytes(b"x")
    assert weights.problem(folder, BLIP) == f"{name} has arrived in part only."


@pytest.mark.parametrize("name", ("pytorch_model.bin", "README.md", "tf_model.h5"))
def test_a_part_of_what_nobody_wants_is_no_matter(folder, name):
    (folder / f"{name}.part").write_bytes(b"x")
    assert weights.problem(folder, BLIP) is None


@pytest.mark.parametrize("name", ("config.json", "preprocessor_config.json", "tokenizer.json"))
@pytest.mark.parametrize("content", ('{"cut', "<html></html>"))
def test_a_damaged_small_file_is_named(folder, name, content):
    (folder / name).write_text(content)
    assert weights.problem(folder, BLIP) == f"{name} is damaged."


def test_weights_that_are_cut_short_are_told(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert "model.safetensors is cut short" in weights.problem(folder, BLIP)


def test_weights_that_are_a_pointer_are_told(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    assert "pointer of Git LFS" in weights.problem(folder, BLIP)


def shard(folder) -> None:
    """Turn the weights of a folder into two shards and an index."""
    drop(folder, "model.safetensors", "pytorch_model.bin")
    for name in SHARDS:
        write(folder / name, {"layer.weight": (100,)})
    table = {"weight_map": dict(zip(("a", "b", "c"), (*SHARDS, *SHARDS), strict=False))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(table))


def test_all_shards_of_an_index_must_be_whole(folder):
    shard(folder)
    assert weights.problem(folder, BLIP) is None
    last = folder / "model-00002-of-00002.safetensors"
    last.write_bytes(last.read_bytes()[:-1])
    assert "00002-of-00002.safetensors is cut short" in weights.problem(folder, BLIP)
    last.unlink()
    assert weights.problem(folder, BLIP) == f"{last.name} is missing."


@pytest.mark.parametrize(
    "text", sorted(("", "{}", '{"weight_map": {}}', '{"weight_map": {"a": "../b"}}'))
)
def test_an_index_that_names_no_files_of_its_folder_is_damaged(folder, text):
    shard(folder)
    write(folder.parent / "b", {"layer.weight": (100,)})
    (folder / "model.safetensors.index.json").write_text(text)
    assert weights.problem(folder, BLIP)


def test_weights_of_pytorch_must_be_a_whole_zip_or_a_pickle(folder):
    drop(folder, "model.safetensors")
    path = folder / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"x" * 1000)
    assert weights.problem(folder, BLIP) is None
    path.write_bytes(path.read_bytes()[:-30])
    assert weights.problem(folder, BLIP) == "pytorch_model.bin is damaged or cut short."
    path.write_bytes(pickle.dumps([1]))
    assert weights.problem(folder, BLIP) is None
    path.write_bytes(b"<html>")
    assert weights.problem(folder, BLIP) == "pytorch_model.bin is damaged or cut short."
    path.write_bytes(b"")
    assert "weights" in weights.problem(folder, BLIP)


def test_where_the_text_encoder_has_the_weights_the_folder_needs_none(tmp_path):
    assert weights.problem(fill(tmp_path / "qwen", weights=False), QWEN) is None


# -- where they are found --------------------------------------------------------------------------


def test_our_own_folder_counts_first(hub, home, tmp_path):
    assert weights.find(home, BLIP) is None
    in_cache(tmp_path / "user/.cache/huggingface/hub")
    ours = fill(BLIP.folder(home))
    assert weights.find(home, BLIP) == ours


def in_cache(cache, commit=COMMITS[0], main=COMMITS[0]):
    """Lay the files of a caption model as the Hugging Face cache does: links to blobs."""
    root = cache / "models--Salesforce--blip-image-captioning-large"
    snapshot = root / "snapshots" / commit
    blobs = fill(root / "blobs" / commit)
    snapshot.mkdir(parents=True)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(f"../../blobs/{commit}/{blob.name}")
    if main:
        (root / "refs").mkdir(exist_ok=True)
        (root / "refs/main").write_text(main)
    return snapshot


CACHES = {
    "HF_HUB_CACHE": "",
    "HUGGINGFACE_HUB_CACHE": "",
    "HF_HOME": "hub",
    "XDG_CACHE_HOME": "huggingface/hub",
}


@pytest.mark.parametrize("name", sorted(CACHES))
def test_the_hugging_face_cache_is_found_where_the_environment_says(
    hub, home, tmp_path, monkeypatch, name
):
    snapshot = in_cache(tmp_path / "elsewhere" / CACHES[name])
    assert weights.find(home, BLIP) is None
    monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    assert weights.find(home, BLIP) == snapshot
    assert weights.missing_bytes(home, BLIP) == 0


def test_the_cache_is_found_at_its_usual_place(hub, home, tmp_path):
    snapshot = in_cache(tmp_path / "user/.cache/huggingface/hub")
    assert weights.find(home, BLIP) == snapshot


def test_the_revision_that_counts_as_main_is_taken_else_another_whole_one(hub, home, tmp_path):
    cache = tmp_path / "user/.cache/huggingface/hub"
    first, second = (in_cache(cache, commit, main=COMMITS[0]) for commit in COMMITS)
    assert weights.find(home, BLIP) == first
    (first / "config.json").unlink()
    assert weights.find(home, BLIP) == second
    shutil.rmtree(second)
    assert weights.find(home, BLIP) is None


@pytest.mark.parametrize("main", sorted(("../../../../outside", "", "\n", "..")))
def test_a_revision_that_is_none_leads_nowhere(hub, home, tmp_path, main):
    cache = tmp_path / "user/.cache/huggingface/hub"
    snapshot = in_cache(cache, main=main or " ")
    if ".." in main:
        fill((snapshot.parent / main).resolve())
    assert weights.find(home, BLIP) == snapshot


# -- what has still to come ------------------------------------------------------------------------


def test_what_is_missing_is_told_without_the_hub(hub, home):
    assert weights.missing_bytes(home, BLIP) == BLIP.download_bytes
    folder = BLIP.folder(home)
    folder.mkdir(parents=True)
    (folder / "model.safetensors.part").write_bytes(b"x" * 1_000_000)
    assert weights.missing_bytes(home, BLIP) == BLIP.download_bytes - 1_000_000
    for name in ("README.md", "tf_model.h5", "pytorch_model.bin", "model.safetensors.part.json"):
        (folder / name).write_bytes(b"no use")
    assert weights.missing_bytes(home, BLIP) == BLIP.download_bytes - 1_000_000
    (folder / "config.json").write_bytes(b"{}")
    assert weights.missing_bytes(home, BLIP) == BLIP.download_bytes - 1_000_002
    (folder / "model.safetensors.part").unlink()
    fill(folder)
    assert weights.missing_bytes(home, BLIP) == 0
    assert hub.seen == []


def test_the_text_encoder_counts_where_it_has_the_weights(hub, home):
    row = models.model("text_encoder")
    assert weights.text_encoder(home).problem
    assert weights.missing_bytes(home, QWEN) == QWEN.download_bytes + row.expected_bytes
    (home.root / f"{row.filename}.part").write_bytes(b"x" * 1000)
    assert weights.missing_bytes(home, QWEN) == QWEN.download_bytes + row.expected_bytes - 1000
    model_files(home.root)
    assert weights.text_encoder(home).path == str(home.root / row.filename)
    fill(QWEN.folder(home), weights=False)
    assert weights.missing_bytes(home, QWEN) == 0
