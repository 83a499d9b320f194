"""A run of the captioning program: which images, what becomes of captions, what it prints."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import BAR, ROOT, RUN

from musubitlx import bars, captions
from musubitlx.captioning import saving, vit_gpt2

MODELS = ["blip-large", "qwen-vl", "vit-gpt2"]


def say(monkeypatch, *texts: str, raising=None) -> list[int]:
    """Let the model say these texts in turn; returns how many images each call had."""
    calls, left = [], list(texts)

    def write(self, images, watch):
        calls.append(len(images))
        if raising:
            raising(images)
        watch.begin()
        watch.end()
        return [left.pop(0) if left else f"words {len(calls)}" for _ in images]

    monkeypatch.setattr(vit_gpt2.VitGpt2, "write", write)
    return calls


@pytest.mark.parametrize("model", MODELS)
def test_every_model_captions_every_image(folder, model):
    names = folder.add(3)
    ended = folder.run(model)
    assert (ended.status, ended.error) == (0, "")
    assert list(folder.texts()) == names
    assert ended.shown == folder.texts()
    assert ended.said.endswith("Captioned 3 images, 0 kept, 0 skipped.\n")
    rows = [{"name": name, "before": "", "after": folder.text(name)} for name in names]
    assert folder.rows() == rows
    assert len(set(folder.texts().values())) == 3  # it looked at them


@pytest.mark.parametrize("model", MODELS)
def test_a_batch_says_what_single_images_say(folder, model):
    folder.add(5)
    single = folder.run(model, batch=1, precision="fp32").shown
    folder.clear()
    together = folder.run(model, batch=3, precision="fp32").shown
    assert len(single) == 5
    assert together == single


def test_the_program_as_it_is_started(folder):
    folder.add(2)
    command = [sys.executable, "-m", "musubitlx.captioning", *folder.command()]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.endswith("Captioned 2 images, 0 kept, 0 skipped.\n")
    assert len(folder.texts()) == 2


def test_the_job_id_stands_under_the_same_name_as_where_it_is_set():
    source = (ROOT / "musubitlx/processes.py").read_text()
    assert f'MARK = "{saving.RUN}"' in source


def test_bars_tell_how_far_it_is_within_a_batch(folder):
    folder.add(3)
    said = folder.run(batch=3).said
    drawn = [one.strip() for one in BAR.findall(said)]
    read = [bars.read(one) for one in drawn]
    assert None not in read
    assert [read[0]["step"], read[-1]["step"], read[-1]["total"]] == [0, 3, 3]
    assert any("." in one.split("/")[0].split("| ")[-1] for one in drawn)  # part of an image


def test_empty_leaves_captions_alone(folder, monkeypatch):
    folder.add(3)
    folder.write("2.png", "mine")
    say(monkeypatch)
    ended = folder.run(which="empty", mode="replace")
    assert folder.text("2.png") == "mine"
    assert "Captioned 2 images, 0 kept" in ended.said


@pytest.mark.parametrize(
    "mode, after, kept",
    [("append", "mine, a dog", 0), ("keep", "mine", 1), ("replace", "a dog", 0)],
)
def test_what_becomes_of_a_caption_that_is_there(folder, monkeypatch, mode, after, kept):
    folder.add(2)
    folder.write("1.png", "mine")
    say(monkeypatch, "a dog", "a dog")
    ended = folder.run(which="all", mode=mode)
    assert folder.text("1.png") == after
    assert folder.text("2.png") == "a dog"
    assert f", {kept} kept, 0 skipped." in ended.said
    changed = [row for row in folder.rows() if row["name"] == "1.png"]
    assert changed == ([] if kept else [{"name": "1.png", "before": "mine", "after": after}])


def test_only_the_names_given_and_those_gone_are_said(folder, monkeypatch):
    folder.add(3)
    say(monkeypatch)
    ended = folder.run(names=folder.names_file("3.png", "gone.png", "1.png"))
    assert ended.status == 0
    assert list(folder.texts()) == ["1.png", "3.png"]
    assert "gone.png: it is not there any more" in ended.lines
    assert {"name": "gone.png", "problem": "it is not there any more"} in folder.rows()


def test_images_come_in_the_order_people_count(folder, monkeypatch):
    folder.add(12)
    say(monkeypatch)
    shown = list(folder.run(batch=1).shown)
    assert shown == [f"{n}.png" for n in range(1, 13)]


def test_a_person_who_writes_meanwhile_wins(folder, monkeypatch):
    folder.add(2)
    say(monkeypatch, raising=lambda _: folder.write("1.png", "written meanwhile"))
    ended = folder.run(batch=2)
    assert folder.text("1.png") == "written meanwhile"
    assert folder.text("2.png") == "words 1"
    assert "1 kept" not in ended.said and "1 skipped" in ended.said
    assert [row for row in folder.rows() if row["name"] == "1.png"] == [
        {"name": "1.png", "problem": "its caption was changed meanwhile, that text stays"}
    ]


def test_a_person_who_writes_at_the_very_last_moment_wins(folder, monkeypatch):
    folder.add(1)
    say(monkeypatch)
    append = saving.captioned.append

    def and_then_a_person(path, row):
        append(path, row)
        folder.write("1.png", "just now")

    monkeypatch.setattr(saving.captioned, "append", and_then_a_person)
    assert folder.run().status == 1
    assert folder.text("1.png") == "just now"
    assert [list(row) for row in folder.rows()] == [
        ["name", "before", "after"],
        ["name", "problem"],
    ]


def test_an_image_that_got_its_caption_before_its_turn_is_kept(folder, monkeypatch):
    folder.add(2)
    say(monkeypatch, raising=lambda _: folder.write("2.png", "mine"))
    ended = folder.run(batch=1)
    assert folder.text("2.png") == "mine"
    assert "Captioned 1 image, 1 kept, 0 skipped." in ended.said


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_what_a_person_wrote_long_before_its_turn_stays(folder, monkeypatch, mode):
    folder.add(3)
    folder.write("3.png", "old")

    def person(_):
        folder.write("2.png", "mine")
        folder.write("3.png", "new")

    say(monkeypatch, raising=person)
    ended = folder.run(which="all", mode=mode, batch=1)
    assert folder.texts() == {"1.png": "words 1", "2.png": "mine", "3.png": "new"}
    why = "its caption was changed meanwhile, that text stays"
    assert [row for row in folder.rows() if "problem" in row] == [
        {"name": "2.png", "problem": why},
        {"name": "3.png", "problem": why},
    ]
    assert "Captioned 1 image, 0 kept, 2 skipped." in ended.said


@pytest.mark.parametrize("more", [{}, {"which": "all", "mode": "append"}])
def test_a_caption_file_that_cannot_be_read_whole_is_not_touched(folder, monkeypatch, more):
    folder.add(4)
    path = folder.project.path
    (path / "1.txt").mkdir()
    (path / "2.txt").symlink_to("../elsewhere.txt")
    (path / "3.txt").write_text("x" * (captions.MAX_CAPTION + 1))
    calls = say(monkeypatch)
    ended = folder.run(batch=4, **more)
    assert (ended.status, calls) == (0, [1])
    assert (path / "1.txt").is_dir() and (path / "2.txt").is_symlink()
    assert len((path / "3.txt").read_text()) == captions.MAX_CAPTION + 1
    why = "its caption file can't be read as a caption, it stays as it is"
    assert {"name": "1.png", "problem": why} in folder.rows()
    assert {"name": "2.png", "problem": why} in folder.rows()
    assert ({"name": "3.png", "problem": why} in folder.rows()) == bool(more)


def test_a_caption_file_that_becomes_unreadable_meanwhile_is_not_touched(folder, monkeypatch):
    folder.add(1)
    link = folder.project.path / "1.txt"
    say(monkeypatch, raising=lambda _: link.symlink_to("../elsewhere.txt"))
    assert folder.run().status == 1
    assert link.is_symlink()


def test_an_image_that_is_removed_meanwhile_leaves_no_text(folder, monkeypatch):
    folder.add(2)
    say(monkeypatch, raising=lambda _: (folder.project.path / "1.png").unlink())
    folder.run(batch=2)
    assert not (folder.project.path / "1.txt").exists()
    assert folder.rows()[0] == {"name": "1.png", "problem": "it is not there any more"}


def test_one_unreadable_image_spoils_nothing(folder, monkeypatch):
    folder.add(3)
    file = folder.project.path / "2.png"
    file.write_bytes(file.read_bytes()[:70])
    calls = say(monkeypatch)
    ended = folder.run(batch=3)
    assert ended.status == 0
    assert list(folder.texts()) == ["1.png", "3.png"]
    assert calls == [2]
    assert [row["problem"][:15] for row in folder.rows() if "problem" in row] == ["can't be read ("]
    assert any(line.startswith("2.png: can't be read (") for line in ended.lines)


def test_two_images_with_one_caption_file_are_not_captioned_twice(folder, monkeypatch):
    folder.add(1)
    (folder.project.path / "1.webp").write_bytes((folder.project.path / "1.png").read_bytes())
    say(monkeypatch)
    ended = folder.run(which="all", mode="append")
    assert folder.text("1.png") == "words 1"
    assert "1.webp: it shares its caption file with 1.png" in ended.lines


def test_names_that_differ_in_case_alone_may_share_a_caption_file(folder, monkeypatch):
    folder.add(1)
    data = (folder.project.path / "1.png").read_bytes()
    for name in ("b.png", "B.webp"):
        (folder.project.path / name).write_bytes(data)
    say(monkeypatch)
    ended = folder.run(which="all", mode="append")
    assert any("it shares its caption file with" in line for line in ended.lines)
    assert "Captioned 2 images, 0 kept, 1 skipped." in ended.said


def test_a_model_without_words_is_a_skip(folder, monkeypatch):
    folder.add(2)
    say(monkeypatch, "There is", "a dog")
    ended = folder.run()
    assert list(folder.texts()) == ["2.png"]
    assert "Captioned 1 image, 0 kept, 1 skipped." in ended.said
    assert {"name": "1.png", "problem": "the model found no words for it"} in folder.rows()


def test_openings_and_invented_words_are_gone_from_what_is_saved(folder, monkeypatch):
    folder.add(2)
    say(monkeypatch, "there is arafed man in a coat", "There are two dogs.")
    folder.run()
    assert folder.texts() == {"1.png": "man in a coat", "2.png": "Two dogs."}


def test_an_appended_caption_is_never_longer_than_one_may_be(folder, monkeypatch):
    folder.add(2)
    folder.write("1.png", "x" * (captions.MAX_CAPTION - 10))
    folder.write("2.png", "x" * captions.MAX_CAPTION)
    say(monkeypatch, "a dog and a cat", "a dog and a cat")
    ended = folder.run(which="all", mode="append")
    assert folder.text("1.png").endswith("x, a dog")
    assert "2.png: its caption is as long as one may be" in ended.lines


def test_a_trial_saves_nothing(folder):
    folder.add(2)
    folder.write("1.png", "mine")
    ended = folder.run("vit-gpt2", "--trial", names=folder.names_file("1.png"))
    assert ended.status == 0
    assert folder.texts() == {"1.png": "mine"}
    assert folder.rows() == [{"name": "1.png", "text": ended.shown["1.png"]}]
    assert not (folder.project.hidden / "last_edit.json").exists()


def test_what_is_to_be_undone_is_noted_once_before_the_first_caption(folder, monkeypatch):
    folder.add(3)
    note, seen = saving.edits.begin_run, []

    def noted(*arguments):
        seen.append(len(folder.texts()))
        note(*arguments)

    monkeypatch.setattr(saving.edits, "begin_run", noted)
    say(monkeypatch)
    folder.run(batch=1)
    told = json.loads((folder.project.hidden / "last_edit.json").read_text())
    assert seen == [0]
    assert (told["run"], told["title"]) == (RUN, "Captions by ViT-GPT2")
    assert told["at"] > 1e9


def test_nothing_to_do_is_no_failure_and_loads_nothing(folder, monkeypatch):
    folder.add(1)
    folder.write("1.png", "mine")
    ended = folder.run()
    assert ended.status == 0
    assert ended.said == "Nothing to do: every image has its caption.\n"


# -- memory ----------------------------------------------------------------------------------------


def too_many(limit: int, kind=None, text="CUDA out of memory. Tried to allocate 2.00 GiB"):
    """An error as torch raises it above so many images."""
    import torch

    def refuse(images):
        if len(images) > limit:
            raise (kind or torch.OutOfMemoryError)(text)

    return refuse


def test_where_memory_runs_out_half_as_many_go_on(folder, monkeypatch):
    names = folder.add(7)
    calls = say(monkeypatch, raising=too_many(2))
    ended = folder.run(batch=5)
    assert calls == [5, 2, 2, 2, 1]
    assert list(ended.shown) == names
    assert "Not enough memory for 5 images at once: going on with 2." in ended.lines
    assert ended.status == 0


@pytest.mark.parametrize(
    "text",
    [
        "DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.",
        "MPS backend out of memory (MPS allocated: 9 GB)",
        "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory",
    ],
)
def test_memory_runs_out_in_other_words_too(folder, monkeypatch, text):
    folder.add(2)
    say(monkeypatch, raising=too_many(1, RuntimeError, text))
    assert folder.run(batch=2).status == 0
    assert len(folder.texts()) == 2


def test_an_image_too_big_for_the_memory_is_skipped(folder, monkeypatch):
    folder.add(2)
    calls = say(monkeypatch, raising=too_many(0))
    ended = folder.run(batch=2)
    assert calls == [2, 1, 1]
    assert folder.texts() == {}
    assert ended.status == 1
    assert ended.error.startswith("ERROR: No image could be captioned.")
    assert "2.png: there is not enough memory for it" in ended.lines


# -- an image the model can't take -----------------------------------------------------------------


def failing(*bad: int):
    """Fail with those pictures, counted in the order they first come, in a batch or alone."""
    seen = []

    def refuse(images):
        seen.extend(one for one in images if not any(one is other for other in seen))
        if any(one is seen[n] for n in bad for one in images if n < len(seen)):
            raise ValueError("mean must have 1 elements\nif it is an iterable")

    return refuse


def test_an_image_the_model_cannot_take_is_skipped_and_the_others_of_its_batch_are_not(
    folder, monkeypatch
):
    names = folder.add(5)
    calls = say(monkeypatch, raising=failing(1))
    ended = folder.run(batch=3)
    why = "the model can't take it (ValueError: mean must have 1 elements if it is an iterable)"
    assert ended.status == 0
    assert calls == [3, 1, 1, 1, 2]
    assert list(folder.texts()) == [name for name in names if name != "2.png"]
    assert {"name": "2.png", "problem": why} in folder.rows()
    assert f"2.png: {why}" in ended.lines
    assert "Captioned 4 images, 0 kept, 1 skipped." in ended.said


def test_a_model_that_takes_no_image_at_all_is_a_bug_and_ends_the_run(folder, monkeypatch):
    folder.add(9)
    calls = say(monkeypatch, raising=failing(*range(9)))
    with pytest.raises(ValueError, match="mean must have"):
        folder.run(batch=4)
    assert calls == [4, 1, 1, 1]


def test_many_bad_images_after_a_good_one_do_not_end_the_run(folder, monkeypatch):
    folder.add(6)
    say(monkeypatch, raising=failing(1, 2, 3, 4))
    ended = folder.run(batch=1)
    assert list(folder.texts()) == ["1.png", "6.png"]
    assert ended.status == 0


@pytest.mark.parametrize("model", MODELS)
def test_pictures_a_pixel_or_three_high_are_captioned(folder, model):
    from PIL import Image

    for size in ((64, 1), (64, 3), (1, 64), (3, 64), (1, 1), (3, 3)):
        Image.new("RGB", size, "red").save(folder.project.path / f"{size[0]}x{size[1]}.png")
    ended = folder.run(model, batch=2)
    assert (ended.status, len(folder.texts())) == (0, 6)


def test_a_model_too_big_is_said_in_a_sentence(folder, monkeypatch):
    import torch

    folder.add(1)

    def too_big(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.nn.Module, "to", too_big)
    ended = folder.run()
    assert ended.status == 1
    assert ended.error.startswith("ERROR: There is not enough memory for ViT-GPT2 on the processor")
    assert folder.texts() == {}


# -- what can't be done ----------------------------------------------------------------------------

BAD = {
    "batch": ({"batch": 0}, "Images at once: from 1 to 256."),
    "detail": ({"detail": 6}, "Detail level: enter a whole number from 1 to 5."),
    "device": ({"device": "abacus"}, "The command line can't be used: argument --device"),
    "fp8 for a small model": ({"precision": "fp8"}, "ViT-GPT2 is small"),
    "home": (
        {"home": None},
        "The command line can't be used: the following arguments are required",
    ),
    "length": ({"max_tokens": 513}, "Caption length: enter a whole number from 32 to 512 tokens."),
    "length no number": ({"max_tokens": "many"}, "The command line can't be used: argument --max-"),
    "model": (
        {"model": "gpt-9"},
        "There is no caption model called gpt-9. What to do: There are: ",
    ),
    "names": ({"names": "/nowhere.json"}, "The list of images can't be read"),
    "no cuda": ({"device": "cuda"}, "This torch ("),
    "project": ({"project": "nobody"}, "There is no folder called nobody in"),
    "weights": ({"weights": "/nowhere"}, "The folder /nowhere with the caption model is not there"),
}


@pytest.mark.parametrize("what", sorted(BAD))
def test_bad_input_is_one_sentence(folder, what):
    changed, sentence = BAD[what]
    folder.add(1)
    ended = folder.run(**changed)
    assert ended.status == 1
    assert ended.error.startswith(f"ERROR: {sentence}")
    assert ended.error.count("\n") == 1


def test_a_folder_without_images_is_one_sentence(folder):
    ended = folder.run()
    assert (ended.status, ended.error.count("\n")) == (1, 1)
    assert ended.error.startswith("ERROR: There are no images in ball.")


def test_missing_packages_are_named(folder, monkeypatch):
    from musubitlx.captioning import packages

    folder.add(1)
    monkeypatch.setattr(packages, "find_spec", lambda name: name not in ("torch", "PIL"))
    ended = folder.run()
    assert ended.status == 1
    assert ended.error.startswith("ERROR: ViT-GPT2 needs torch and pillow, not installed for")


def test_a_transformers_too_old_is_named(folder, monkeypatch):
    from musubitlx.captioning import packages

    folder.add(1)
    monkeypatch.setattr(packages.metadata, "version", lambda _: "4.48.3")
    ended = folder.run("qwen-vl")
    assert ended.status == 1
    assert "needs transformers 4.49 or newer; here it is 4.48.3." in ended.error


def test_a_full_disk_ends_the_run_with_a_sentence(folder, monkeypatch):
    import errno

    folder.add(2)
    say(monkeypatch)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(captions, "write_text", full)
    ended = folder.run()
    assert ended.status == 1
    assert ended.error == "ERROR: The disk is full. What to do: Free some space and try again.\n"
