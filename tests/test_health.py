"""Dataset health: each thing that is wrong is named with its images and what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from folders import JPEG, PNG
from PIL import Image
from support import picture

from musubitlx import health, settings
from musubitlx.health import findings
from musubitlx.home import Home
from musubitlx.looks import Look
from musubitlx.projects import Project

ASKED = {"trigger_word": "ohwx", "resolution": "512x512"}


def put(project: Project, name: str, size=(512, 512), text: str = "a ball") -> str:
    (project.path / name).write_bytes(picture(len(name), size))
    if text:
        (project.path / name).with_suffix(".txt").write_text(text)
    return name


def look(**more) -> Look:
    return Look((0, 0, 0), **more)


def found_in(project: Project, known: dict | None = None, **asked) -> dict[str, health.Finding]:
    chosen = settings.parse({**ASKED, **asked})
    found = findings(project, project.images(), known or {}, chosen)
    for one in found:
        assert one.text.endswith(".") and one.hint.endswith(".")
        assert one.tone in ("danger", "warn", "note")
    return {one.kind: one for one in found}


def test_a_good_folder_has_nothing_to_tell(project):
    for name in ("a.jpg", "b.jpg"):
        put(project, name)
    assert found_in(project) == {}
    assert found_in(Project(project.home, "nothing")) == {}


def test_what_cannot_be_read_is_a_danger_whoever_noticed(project):
    put(project, "a.jpg")
    put(project, "b.jpg")
    (project.path / "c.png").write_bytes(b"<html>")
    found = found_in(project, {"b.jpg": look(problem="it is damaged (x)")}, trigger_word="x")
    one = found["unreadable"]
    assert (one.tone, one.images) == ("danger", ["b.jpg", "c.png"])
    assert one.text == "2 images can’t be read: b.jpg, c.png – it is damaged (x)."


def test_what_the_trainer_would_get_wrong_can_be_mended(project):
    put(project, "a.jpg")
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.open(project.path / "a.jpg").save(project.path / "b.jpg", exif=exif)
    put(project, "c.jpg")
    one = found_in(project, {"c.jpg": look(unfit="It is transparent")})["unfit"]
    assert (one.tone, one.images, one.action) == ("danger", ["b.jpg", "c.jpg"], "mend")
    assert "lying on its side" in one.text


def test_names_that_differ_in_their_ending_only_are_a_danger(project):
    put(project, "A.jpg")
    (project.path / "a.png").write_bytes(PNG)
    put(project, "b.jpg")
    one = found_in(project)["same_stem"]
    assert (one.tone, sorted(one.images)) == ("danger", ["A.jpg", "a.png"])


@pytest.mark.parametrize("name", ["a[1]", "what?", "x*"])
def test_a_place_where_musubi_finds_no_caches_is_a_danger(tmp_path, name):
    project = Project(Home(tmp_path / name).make(), "ball")
    project.make()
    put(project, "a.jpg")
    assert found_in(project)["place"].tone == "danger"


def test_files_of_kinds_that_are_not_used_are_offered(project):
    put(project, "a.jpg")
    for name in ("10.heic", "9.TIF", "x.gif", ".hidden.gif", "notes.md", "a.safetensors"):
        (project.path / name).touch()
    one = found_in(project)["left_out"]
    assert (one.images, one.action, one.tone) == (["9.TIF", "10.heic", "x.gif"], "adopt", "warn")


def test_images_whose_names_are_not_utf8_are_told(project):
    put(project, "a.jpg")
    try:
        Path(os.fsdecode(os.fsencode(project.path) + b"/caf\xe9.jpg")).write_bytes(JPEG)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    assert "not UTF-8" in found_in(project)["left_out"].text


def test_missing_captions_and_texts_are_told_apart(project):
    put(project, "a.jpg")
    put(project, "b.jpg", text="")
    put(project, "c.jpg", text="")
    one = found_in(project)["no_caption"]
    assert (one.tone, one.images) == ("note", ["b.jpg", "c.jpg"])
    found = found_in(project, trigger_word="")
    assert (found["no_text"].tone, found["no_text"].images) == ("warn", ["b.jpg", "c.jpg"])
    assert "no_caption" not in found
    assert "no_text" not in found_in(project, trigger_word="", prompt="a ball")


def test_texts_without_an_image_are_noted(project):
    put(project, "a.jpg")
    for name in ("b.txt", "sample_prompts.txt", ".x.txt"):
        (project.path / name).touch()
    assert (
        found_in(project)["lonely_captions"].text
        == "1 text file without an image of that name: b.txt."
    )


def test_copies_and_near_copies_come_in_groups(project):
    names = [put(project, f"{letter}.jpg") for letter in "abcdef"]
    known = {
        name: look(phash=1 << 60 * (name > "c"), colours=(128,) * 48, digest=name) for name in names
    }
    known["b.jpg"] = look(phash=7, colours=(128,) * 48, digest="a.jpg")
    known["e.jpg"] = look(phash=2**64 - 1, colours=(0,) * 48, digest="e")
    known["f.jpg"] = look(phash=2**64 - 1, colours=(200,) * 48, digest="f")
    found = found_in(project, known)
    assert found["duplicates"].groups == [["a.jpg", "b.jpg"]]
    assert found["duplicates"].action == "remove_copies"
    assert found["near_duplicates"].groups == [["a.jpg", "c.jpg", "d.jpg"]]


def test_blurred_images_are_told_and_unknown_ones_are_not(project):
    names = [put(project, f"{letter}.jpg") for letter in "abc"]
    values = dict(zip(names, (0.9, 0.2, None), strict=True))
    found = found_in(project, {name: look(blur=value) for name, value in values.items()})
    assert found["blurry"].images == ["a.jpg"]
    assert found["blurry"].text == "1 image looks blurred: a.jpg."


def test_enlarged_images_come_with_the_resolution_that_would_fit(project):
    put(project, "a.jpg", (800, 800))
    put(project, "b.jpg", (700, 700))
    put(project, "c.jpg", (2000, 2000))
    one = found_in(project, resolution="1024x1024")["enlarged"]
    assert one.images == ["a.jpg", "b.jpg"] and "1.5 times" in one.text
    assert "640x640, which would enlarge none" in one.hint
    assert "enlarged" not in found_in(project, resolution="640x640")
    put(project, "d.jpg", (100, 100))
    assert (
        "640x640, which would enlarge only 1"
        in found_in(project, resolution="1024x1024")["enlarged"].hint
    )
    assert found_in(project)["tiny"].images == ["d.jpg"]


def test_images_of_which_much_is_cut_off_are_told(project):
    put(project, "a.jpg", (2000, 300))
    put(project, "b.jpg", (700, 512))
    assert found_in(project)["cropped"].images == ["a.jpg"]


def test_the_buckets_are_listed_the_fullest_first(project):
    for name, size in (("a.jpg", (512, 512)), ("b.jpg", (768, 512)), ("c.jpg", (600, 600))):
        put(project, name, size)
    table = health.bucket_table(project.images(), settings.parse(ASKED))
    assert [(row["width"], row["height"], row["images"]) for row in table] == [
        (512, 512, ["a.jpg", "c.jpg"]),
        (624, 416, ["b.jpg"]),
    ]


def test_long_lists_are_cut_in_sentences_and_whole_in_the_answer(project):
    for number in range(12):
        put(project, f"{number}.jpg", text="")
    one = found_in(project)["no_caption"]
    assert one.text.endswith("0.jpg, 1.jpg, 2.jpg and 9 more.")
    assert len(one.images) == 12


def test_what_blocks_is_what_is_a_danger(project):
    (project.path / "a.jpg").write_bytes(b"")
    put(project, "b.jpg", text="")
    chosen = settings.parse(ASKED)
    images = project.images()
    blocking = health.blocking(project, images, {}, chosen)
    assert blocking == [
        one for one in findings(project, images, {}, chosen) if one.tone == "danger"
    ]
    assert [one.kind for one in blocking] == ["unreadable"]
