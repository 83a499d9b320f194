"""An output folder: its images, and what training left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from folders import JPEG, PNG, put
from PIL import Image as Pillow
from support import picture

from musubitlx import projects, trash, uploads
from musubitlx.errors import Invalid, NotFound
from musubitlx.pictures import NotAPicture
from musubitlx.projects import CACHE, Project

# -- the folder ------------------------------------------------------------------------------------


def test_naming_a_folder_makes_nothing_and_making_it_is_told(home):
    one = Project(home, "new")
    assert not one.exists
    assert one.images() == one.outputs() == []
    assert not one.path.exists()
    assert one.make()
    assert not one.make()
    (home.output / "taken").touch()
    with pytest.raises(Invalid) as told:
        Project(home, "taken").make()
    assert told.value.field == "output_dir"


def test_folders_are_listed_newest_first_with_what_is_in_them(home, project):
    put(project, "a.jpg")
    project.set_caption("a.jpg", "text")
    put(project, "b.jpg")
    Project(home, "later").make()
    (home.output / "a file").touch()
    (home.output / "bad[name]").mkdir()
    os.utime(project.path, (1, 1))
    listed = projects.all_projects(home)
    assert [one["name"] for one in listed] == ["later", "ball"]
    assert (listed[1]["images"], listed[1]["captions"]) == (2, 1)


def test_images_are_sorted_as_people_count(project):
    for name in ("b.jpg", "10.jpg", "2.jpg", "a10.jpg", "a9.jpg", "B.png"):
        (project.path / name).write_bytes(JPEG)
    (project.path / "notes.md").touch()
    (project.path / ".hidden.png").write_bytes(PNG)
    (project.path / "folder.png").mkdir()
    names = [image.name for image in project.images()]
    assert names == ["2.jpg", "10.jpg", "a9.jpg", "a10.jpg", "b.jpg", "B.png"]


def test_images_put_there_by_hand_count_whatever_their_suffix_s_case(project):
    for name in ("a.JPG", "b.Png", "c.jpeg", "d.webp", "e.BMP"):
        (project.path / name).write_bytes(JPEG)
    assert len(project.images()) == 5
    assert project.image("a.JPG").facts.width == 64


def test_a_name_that_is_not_utf8_does_not_spoil_the_folder(project):
    put(project, "a.jpg")
    try:
        Path(os.fsdecode(os.fsencode(project.path) + b"/caf\xe9.jpg")).write_bytes(JPEG)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    assert [image.name for image in project.images()] == ["a.jpg"]


def test_a_thumbnail_is_made_when_it_is_asked_for_and_follows_the_image(project):
    image = put(project, "a.jpg", picture(1, (800, 400)))
    thumb = project.hidden / "thumbs" / "a.jpg.jpg"
    assert project.thumb("a.jpg") == thumb
    with Pillow.open(thumb) as small:
        assert small.size == (320, 160)
    image.path.write_bytes(b"no picture any more")
    os.utime(image.path, (4e9, 4e9))
    with pytest.raises(NotAPicture):
        project.thumb("a.jpg")
    assert project.image("a.jpg").facts is None


# -- what training left ----------------------------------------------------------------------------


def test_outputs_are_the_loras_newest_first_without_caches(project):
    names = ["old.safetensors", "new-000001.safetensors", "a_qi_te.safetensors"]
    names += ["a_0064x0048_qi.safetensors", "x_qi.safetensors", "notes.txt"]
    for age, name in enumerate(reversed(names)):
        (project.path / name).touch()
        os.utime(project.path / name, (1000 + age, 1000 + age))
    assert [path.name for path in project.outputs()] == [
        "old.safetensors",
        "new-000001.safetensors",
    ]


def test_only_results_can_be_downloaded(home, project):
    sample = "ball_e000000_00_20260101120000_42_000.png"
    (project.path / "sample").mkdir()
    good = ["ball.safetensors", "ball-000001.safetensors", "training_log_ball_20260101_120000.log"]
    good += ["LORA_README.md", "LORA_README.ball.md"]
    for name in [
        *good,
        "a_qi_te.safetensors",
        "dataset.jsonl",
        "notes.log",
        "a.jpg",
        f"sample/{sample}",
    ]:
        (project.path / name).write_bytes(PNG)
    (home.output / "secret.safetensors").touch()
    (project.path / "out.safetensors").symlink_to(home.output / "secret.safetensors")
    for name in good:
        assert project.result(name) == project.path / name
    assert project.result(sample) == project.path / "sample" / sample
    refused = ["a_qi_te.safetensors", "dataset.jsonl", "notes.log", "a.jpg", "out.safetensors"]
    refused += ["../secret.safetensors", "missing.safetensors", f"sample/{sample}", "", ".."]
    refused += ["training_log_/../../x.log", "training_log_missing.log"]
    for name in refused:
        with pytest.raises(NotFound):
            project.result(name)


@pytest.mark.parametrize(
    ("name", "is_cache"),
    [
        ("pic_01_0320x0192_qi.safetensors", True),
        ("pic_01_qi_te.safetensors", True),
        ("a b_12345x0192_qi.safetensors", True),
        ("my_lora.safetensors", False),
        ("my_lora-000001.safetensors", False),
        ("my_lora-step00000100.safetensors", False),
        ("qi.safetensors", False),
    ],
)
def test_caches_are_told_from_loras(name, is_cache):
    assert bool(CACHE.fullmatch(name)) is is_cache


def test_a_line_of_the_dataset_file_is_one_image():
    rows = [{"image_path": "C:\\x\\é.png", "caption": 'two\nlines "quoted"\u2028x'}, {"a": 1}]
    text = projects.as_jsonl(rows)
    import json

    assert [json.loads(line) for line in text.split("\n")[:-1]] == rows
    assert "é" in text


# -- what people and programs put into a folder ----------------------------------------------------


def test_links_that_lead_in_a_circle_are_left_out(home, project):
    put(project, "a.jpg")
    (project.path / "loop.png").symlink_to("loop.png")
    (project.path / "a.txt").symlink_to("a.txt")
    assert [(image.name, image.caption) for image in project.images()] == [("a.jpg", "")]
    assert projects.all_projects(home)[0]["images"] == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_caption_that_is_a_pipe_or_leads_elsewhere_is_none(home, project):
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg"):
        put(project, name, picture(ord(name[0]), (64, 48)))
    (home.root / "secret.txt").write_text("secret")
    os.mkfifo(project.path / "a.txt")
    (project.path / "b.txt").symlink_to(home.root / "secret.txt")
    (project.path / "c.txt").write_text("x" * 100_000)
    (project.path / "real.txt").write_text("a ball")
    (project.path / "d.txt").symlink_to("real.txt")
    told = {image.name[0]: image.caption for image in project.images()}
    assert (told["a"], told["b"], len(told["c"]), told["d"]) == ("", "", 10_000, "a ball")


def test_an_image_with_the_longest_name_there_is_can_be_seen_and_removed(project):
    name = "a" * 251 + ".png"
    (project.path / name).write_bytes(PNG)
    assert project.thumb(name).is_file()
    removed, key = trash.throw_away(project, [name])
    assert removed == [name] and not project.thumb_path(name).exists()
    assert trash.restore(project, key)[0].name == name


def test_a_folder_is_only_unmade_while_nothing_is_in_it_or_on_its_way(home):
    one = Project(home, "new")
    one.make()
    part = uploads.incoming(one)
    part.touch()
    one.unmake()
    assert part.exists()
    part.unlink()
    one.unmake()
    assert not one.path.exists()
