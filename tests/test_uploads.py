"""Uploads: each file gets a safe name of its own, or its reason; nothing is lost or overwritten."""

from __future__ import annotations

import io

import pytest
from folders import JPEG, PNG, files_of, put, put_all, scraps
from hypothesis import given
from hypothesis import strategies as st
from inputs import patient
from PIL import Image as Pillow
from support import picture

from musubitlx import uploads
from musubitlx.errors import DiskFull
from musubitlx.home import name_problem
from musubitlx.pictures import ORIENTATION, NotAPicture
from musubitlx.uploads import safe_stem

# -- uploads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("photo.jpg", "photo.jpg"),
        ("../x.jpg", "x.jpg"),
        ("../../etc/passwd.jpg", "passwd.jpg"),
        ("a/b\\c.jpg", "c.jpg"),
        ("C:\\Users\\me\\photo.JPG", "photo.jpg"),
        ("no extension", "no extension.jpg"),
        ("two.dots.jpg", "two.dots.jpg"),
        ("wrong.png", "wrong.jpg"),
        ("CON.jpg", "_CON.jpg"),
        ("con.x.jpg", "_con.x.jpg"),
        ("LPT1.jpg", "_LPT1.jpg"),
        ("a\r\nb.jpg", "a__b.jpg"),
        ("x\x00y.jpg", "x_y.jpg"),
        ("画像.jpg", "画像.jpg"),
        ("👩‍🚀.jpg", "👩‍🚀.jpg"),
        ("e\u0301te\u0301.jpg", "été.jpg"),
        ("[1]*?.jpg", "_1___.jpg"),
        ('<a>"b"|c:d.jpg', "_a__b__c_d.jpg"),
        ("sample_prompts.jpg", "sample_prompts-2.jpg"),
        ("Sample_Prompts.jpg", "Sample_Prompts-2.jpg"),
        ("x_qi.jpg", "x_qi_.jpg"),
        ("x_qi_te.jpg", "x_qi_te_.jpg"),
        ("dataset_config.toml", "dataset_config.jpg"),
        ("", "image.jpg"),
        ("..", "image.jpg"),
        (".jpg", "jpg.jpg"),
        ("...jpg", "jpg.jpg"),
        (" . x . .jpg", "x.jpg"),
        ("\u3000x\u00a0.jpg", "x.jpg"),
        ("\ud800.jpg", "_.jpg"),
    ],
)
def test_an_upload_gets_a_safe_name(project, sent, stored):
    image = put(project, sent)
    assert image.name == stored
    assert project.image(stored).facts.width == 64
    assert files_of(project.home.output) == {f"ball/{stored}": JPEG}
    assert scraps(project) == []


def test_a_long_name_is_cut_and_leaves_room_for_musubi(project):
    for sign in ("x", "é", "画", "😀"):
        image = put(project, sign * 300 + ".jpg")
        assert image.name == project.image(image.name).name
        cache = f"{image.path.stem}_0064x0048_qi.safetensors"
        assert len(cache.encode()) < 200
        (project.path / cache).touch()


@patient
@given(st.text(max_size=40) | st.text(alphabet="./\\ CONcon\u3000_qite\x00é😀\u200d-", max_size=12))
def test_every_safe_stem_can_be_used(name):
    stem = safe_stem(name)
    for suffix in (".jpg", ".png", "-2.webp"):
        assert name_problem(stem + suffix) is None
    assert name_problem(f"{stem}_12345x12345_qi_te.safetensors") is None
    assert safe_stem(f"{stem}.png") == stem


def test_two_uploads_never_overwrite_one_another(project):
    sent = enumerate(("a.jpg", "a.jpg", "A.jpg", "x/a.jpg"))
    names = [put(project, name, picture(seed, (64, 48))).name for seed, name in sent]
    assert names == ["a.jpg", "a-2.jpg", "A-3.jpg", "a-4.jpg"]
    assert put(project, "a.png", PNG).name == "a-5.png"
    assert put(project, "a-2.jpg", picture(9, (64, 48))).name == "a-2-2.jpg"
    assert len({image.path.stem.casefold() for image in project.images()}) == 6


def test_composed_and_decomposed_names_are_one_name(project):
    names = [put(project, "é.jpg").name, put(project, "e\u0301.jpg", picture(9, (64, 48))).name]
    assert names == ["é.jpg", "é-2.jpg"]


def test_a_bad_file_leaves_nothing_and_touches_nothing(project):
    put(project, "a.jpg")
    before = files_of(project.home.root)
    with pytest.raises(NotAPicture):
        put(project, "a.jpg", b"<html>")
    assert files_of(project.home.root) == before
    assert scraps(project) == []


def test_an_upload_whose_place_is_taken_by_a_folder_gets_another_name(project):
    (project.path / "a.jpg").mkdir()
    assert put(project, "a.jpg").name == "a-2.jpg"
    assert scraps(project) == []


def test_one_bad_file_never_spoils_the_others(project):
    taken = put_all(
        project,
        ("a.jpg", JPEG),
        ("b.png", b""),
        ("c.png", b"<svg/>"),
        ("run.py", b"import os"),
        ("cut.jpg", JPEG[:500]),
        ("d.png", PNG),
        ("lonely.txt", b"nobody"),
        ("big.txt", b"x" * 50_000),
        ("a.txt", b"a ball"),
    )
    assert [image.name for image in taken.added] == ["a.jpg", "d.png"]
    assert [image.caption for image in taken.added] == ["a ball", ""]
    assert taken.captioned == ["a.jpg"]
    refused = ["b.png", "c.png", "run.py", "cut.jpg", "lonely.txt", "big.txt"]
    assert [one["name"] for one in taken.rejected] == refused
    assert all(one["reason"] for one in taken.rejected)
    assert set(files_of(project.path)) == {"a.jpg", "a.txt", "d.png"}
    assert scraps(project) == []


def test_a_caption_goes_to_the_image_it_came_with(project):
    put_all(project, ("a.jpg", JPEG), ("a.txt", b"the first"))
    taken = put_all(
        project,
        ("x/a.jpg", picture(5, (64, 48))),
        ("y/a.jpg", picture(6, (64, 48))),
        ("y/A.TXT", b"of y"),
        ("x/a.txt", b"of x"),
    )
    captions = {image.name: image.caption for image in taken.added}
    assert captions == {"a-2.jpg": "of x", "a-3.jpg": "of y"}
    assert sorted(taken.captioned) == ["a-2.jpg", "a-3.jpg"]
    assert project.image("a.jpg").caption == "the first"


def test_a_caption_can_come_later_and_replaces_the_old_one(project):
    put_all(project, ("Ball One.jpg", JPEG), ("Ball One.txt", b"old"))
    taken = put_all(project, ("ball one.txt", b"new"))
    assert (taken.added, taken.rejected, taken.captioned) == ([], [], ["Ball One.jpg"])
    assert project.image("Ball One.jpg").caption == "new"


def test_a_disk_that_is_full_says_so(project, monkeypatch):
    def full(*_args, **_more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(uploads.pictures, "admit", full)
    with pytest.raises(DiskFull):
        put(project, "a.jpg")
    assert scraps(project) == []
    assert files_of(project.path) == {}


# -- the same file once more -----------------------------------------------------------------------


def turned(seed: int = 1) -> bytes:
    """A photo as phones store it: lying, with a note to turn it."""
    exif = Pillow.Exif()
    exif[ORIENTATION] = 6
    file = io.BytesIO()
    Pillow.open(io.BytesIO(picture(seed, (64, 48)))).save(file, "JPEG", exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("data", [JPEG, turned()], ids=["as it is", "written anew"])
def test_a_file_that_is_sent_again_is_not_there_twice(project, data):
    put(project, "a.jpg", data)
    before = files_of(project.path)
    again = put_all(project, ("a.jpg", data), ("x/A.JPG", data), ("a.txt", b"a ball"))
    assert [one["image"] for one in again.present] == ["a.jpg", "a.jpg"]
    assert (again.added, again.rejected, again.captioned) == ([], [], ["a.jpg"])
    assert {**before, "a.txt": b"a ball"} == files_of(project.path)
    assert scraps(project) == []


def test_a_folder_that_is_dropped_again_leaves_edited_captions_alone(project):
    folder = (("a.jpg", JPEG), ("a.txt", b"as sent"), ("b.png", PNG), ("b.txt", b"as sent"))
    put_all(project, *folder)
    project.set_caption("a.jpg", "edited since")
    again = put_all(project, *folder)
    assert (len(again.present), again.captioned) == (2, ["b.png"])
    assert [one["name"] for one in again.rejected] == ["a.txt"]
    assert project.image("a.jpg").caption == "edited since"


def test_two_files_of_one_request_are_two_images_even_if_they_are_the_same(project):
    taken = put_all(project, ("x/a.jpg", JPEG), ("y/a.jpg", JPEG))
    assert [image.name for image in taken.added] == ["a.jpg", "a-2.jpg"]
    again = put_all(project, ("x/a.jpg", JPEG), ("y/a.jpg", JPEG))
    assert (again.added, len(again.present)) == ([], 2)


def test_the_same_file_under_another_name_is_another_image(project):
    put(project, "a.jpg")
    assert put(project, "b.jpg").name == "b.jpg"
    put(project, "c.jpg", turned())
    assert put(project, "d.jpg", turned()).name == "d.jpg"


def test_what_took_the_place_of_a_converted_image_is_not_mistaken_for_it(project):
    put(project, "a.jpg", turned())
    (project.path / "a.jpg").unlink()
    (project.path / "a.jpg").write_bytes(PNG)
    assert put(project, "a.jpg", turned()).name == "a-2.jpg"


# -- files put there by hand -----------------------------------------------------------------------


def test_a_file_put_there_by_hand_is_mended_and_the_original_kept(project):
    (project.path / "photo.jpg").write_bytes(turned())
    project.set_caption("photo.jpg", "a ball")
    (project.path / "photo_0064x0048_qi.safetensors").touch()
    assert "lying on its side" in project.image("photo.jpg").facts.unfit
    image = uploads.mend(project, "photo.jpg")
    assert (image.name, image.caption, image.facts.unfit) == ("photo.jpg", "a ball", None)
    assert (image.facts.width, image.facts.height) == (48, 64)
    assert (project.path / "originals/photo.jpg").read_bytes() == turned()
    assert not (project.path / "photo_0064x0048_qi.safetensors").exists()
    assert uploads.mend(project, "photo.jpg") == project.image("photo.jpg")
    assert len([*(project.path / "originals").iterdir()]) == 1


def test_a_file_of_a_kind_that_is_not_used_is_taken_in_with_its_caption(project):
    file = io.BytesIO()
    Pillow.open(io.BytesIO(JPEG)).save(file, "TIFF")
    (project.path / "scan.tif").write_bytes(file.getvalue())
    (project.path / "scan.txt").write_text("a ball")
    (project.path / "notes.gif").write_bytes(b"no picture")
    before = files_of(project.path)
    mended, rejected = uploads.mend_all(project, ["scan.tif", "notes.gif", "../x.png", "gone.tif"])
    assert [(image.name, image.caption) for image in mended] == [("scan.png", "a ball")]
    assert [one["name"] for one in rejected] == ["notes.gif", "../x.png", "gone.tif"]
    after = files_of(project.path)
    assert after.pop("originals/scan.tif") == before.pop("scan.tif")
    after.pop("scan.png")
    assert after == before
    assert scraps(project) == []
