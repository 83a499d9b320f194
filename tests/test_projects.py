"""An output folder: uploads, captions, what is removed, what training left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inputs import patient
from PIL import Image as Pillow
from support import picture

from musubitlx import projects
from musubitlx.errors import DiskFull, Invalid, NotFound
from musubitlx.home import name_problem
from musubitlx.pictures import NotAPicture
from musubitlx.projects import CACHE, Project, Upload, decode, final_text, safe_stem

JPEG = picture(1, (64, 48))
PNG = picture(2, (48, 64), "PNG")


@pytest.fixture
def project(home) -> Project:
    one = Project(home, "ball")
    one.make()
    return one


def put(project: Project, name: str, data: bytes = JPEG) -> projects.Image:
    """One upload, as the server takes it in."""
    received = project.incoming()
    received.write_bytes(data)
    return project.admit(received, name)


def put_all(project: Project, *files: tuple[str, bytes]):
    uploads = []
    for name, data in files:
        received = project.incoming()
        received.write_bytes(data)
        uploads.append(Upload(received, name))
    return project.admit_all(uploads)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but what can be made again."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".musubitlx" not in path.parts
    }


def scraps(project: Project) -> list[Path]:
    return [path for path in (project.hidden / "incoming").iterdir()]


# -- the folder ------------------------------------------------------------------------------------


def test_naming_a_folder_makes_nothing_and_making_it_is_told(home):
    one = Project(home, "new")
    assert not one.exists
    assert one.images() == one.outputs() == one.samples() == []
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
    names = [put(project, name).name for name in ("a.jpg", "a.jpg", "A.jpg", "x/a.jpg")]
    assert names == ["a.jpg", "a-2.jpg", "A-3.jpg", "a-4.jpg"]
    assert put(project, "a.png", PNG).name == "a-5.png"
    assert put(project, "a-2.jpg").name == "a-2-2.jpg"
    assert len({image.path.stem.casefold() for image in project.images()}) == 6


def test_composed_and_decomposed_names_are_one_name(project):
    names = [put(project, name).name for name in ("é.jpg", "e\u0301.jpg")]
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
    added, rejected, captions = put_all(
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
    assert [image.name for image in added] == ["a.jpg", "d.png"]
    assert [image.caption for image in added] == ["a ball", ""]
    assert captions == ["a.jpg"]
    refused = ["b.png", "c.png", "run.py", "cut.jpg", "lonely.txt", "big.txt"]
    assert [one["name"] for one in rejected] == refused
    assert all(one["reason"] for one in rejected)
    assert set(files_of(project.path)) == {"a.jpg", "a.txt", "d.png"}
    assert scraps(project) == []


def test_a_caption_goes_to_the_image_it_came_with(project):
    put_all(project, ("a.jpg", JPEG), ("a.txt", b"the first"))
    added, _, captions = put_all(
        project, ("x/a.jpg", JPEG), ("y/a.jpg", JPEG), ("y/A.TXT", b"of y"), ("x/a.txt", b"of x")
    )
    assert {image.name: image.caption for image in added} == {"a-2.jpg": "of x", "a-3.jpg": "of y"}
    assert sorted(captions) == ["a-2.jpg", "a-3.jpg"]
    assert project.image("a.jpg").caption == "the first"


def test_a_caption_can_come_later_and_replaces_the_old_one(project):
    put_all(project, ("Ball One.jpg", JPEG), ("Ball One.txt", b"old"))
    added, rejected, captions = put_all(project, ("ball one.txt", b"new"))
    assert (added, rejected, captions) == ([], [], ["Ball One.jpg"])
    assert project.image("Ball One.jpg").caption == "new"


def test_a_disk_that_is_full_says_so(project, monkeypatch):
    def full(*_args, **_more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(projects.pictures, "admit", full)
    with pytest.raises(DiskFull):
        put(project, "a.jpg")
    assert scraps(project) == []
    assert files_of(project.path) == {}


# -- captions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"  a ball \n", "a ball"),
        ("Bälle 画像".encode(), "Bälle 画像"),
        ("Bälle".encode("utf-8-sig"), "Bälle"),
        ("Bälle".encode("utf-16"), "Bälle"),
        ("\ufeffBälle".encode("utf-16-be"), "Bälle"),
        ("Bälle – €".encode("cp1252"), "Bälle – €"),
        (b"one\r\ntwo\rthree\n", "one\ntwo\nthree"),
        (b"a\x00b", "ab"),
        (b"\xff\xfe\x00", "ÿþ"),
        (b"\x81\x8d", "\ufffd\ufffd"),
    ],
)
def test_a_caption_is_read_whatever_its_encoding(project, data, text):
    assert decode(data) == text
    added, _, _ = put_all(project, ("a.jpg", JPEG), ("a.txt", data))
    assert added[0].caption == text
    if text:
        assert (project.path / "a.txt").read_bytes() == text.encode()
    else:
        assert not (project.path / "a.txt").exists()


def test_a_caption_is_saved_at_once_and_an_empty_one_is_no_file(project):
    put(project, "a.jpg")
    assert project.set_caption("a.jpg", " été\r\n画像 ").caption == "été\n画像"
    assert (project.path / "a.txt").read_bytes() == "été\n画像".encode()
    assert project.set_caption("a.jpg", "  ").caption == ""
    assert not (project.path / "a.txt").exists()


@pytest.mark.parametrize("text", [None, 5, ["x"], "x" * 10_001, "half \ud800"])
def test_what_is_no_caption_is_refused_and_the_old_one_stays(project, text):
    put(project, "a.jpg")
    project.set_caption("a.jpg", "old")
    with pytest.raises(Invalid) as told:
        project.set_caption("a.jpg", text)
    assert told.value.field == "text"
    assert project.image("a.jpg").caption == "old"


@pytest.mark.parametrize(
    ("caption", "trigger", "prompt", "text"),
    [
        ("a ball", "ohwx", "x", "ohwx, a ball"),
        ("an ohwx ball", "ohwx", "x", "an ohwx ball"),
        ("an OHWX ball", "ohwx", "x", "an OHWX ball"),
        ("ohwx", "OhWx", "x", "ohwx"),
        ("ohwxy ball", "ohwx", "x", "ohwx, ohwxy ball"),
        ("my_ohwx ball", "ohwx", "x", "ohwx, my_ohwx ball"),
        ("(ohwx): ball", "ohwx", "x", "(ohwx): ball"),
        ("ohwx-ball", "ohwx", "x", "ohwx-ball"),
        ("likes c++ a lot", "c++", "x", "likes c++ a lot"),
        ("likes ccc a lot", "c++", "x", "c++, likes ccc a lot"),
        ("a.b", "a+b", "", "a+b, a.b"),
        ("any thing", ".*", "", ".*, any thing"),
        ("(x", "(x", "", "(x"),
        ("two words here", "Two Words", "", "two words here"),
        ("ÉTÉ ball", "été", "", "ÉTÉ ball"),
        ("画像の人", "画像", "", "画像, 画像の人"),
        ("", "ohwx", "a red ball", "ohwx, a red ball"),
        ("  \n", "ohwx", "a red ball", "ohwx, a red ball"),
        ("", "ohwx", "", "ohwx"),
        ("", "", "a red ball", "a red ball"),
        ("", "ohwx", "the ohwx ball", "the ohwx ball"),
        ("", "", "", ""),
        (" kept ", "", "x", "kept"),
        ("kept", "  ", "x", "kept"),
    ],
)
def test_the_text_the_trainer_gets(project, caption, trigger, prompt, text):
    assert final_text(caption, trigger, prompt) == text
    put(project, "a.jpg")
    (project.path / "a.txt").write_text(caption, encoding="utf-8")
    assert project.image("a.jpg").final_text(trigger, prompt) == text
    assert (project.path / "a.txt").read_text(encoding="utf-8") == caption


# -- removing --------------------------------------------------------------------------------------


def test_removing_an_image_removes_what_belongs_to_it_and_nothing_else(project):
    stems = ("a", "a_0064x0048", "b", "a-2", "aa", "A1")
    for stem in stems:
        put_all(project, (f"{stem}.jpg", JPEG), (f"{stem}.txt", b"text"))
        for tail in ("0064x0048_qi", "0999x0048_qi", "12345x0048_qi", "qi_te"):
            (project.path / f"{stem}_{tail}.safetensors").touch()
        project.thumb(f"{stem}.jpg")
    others = [
        "a.safetensors",
        "a-000001.safetensors",
        "dataset.jsonl",
        "a.log",
        "a_qie.safetensors",
    ]
    for name in [*others, "a.md"]:
        (project.path / name).touch()
    before = set(files_of(project.path))
    project.remove("a.jpg")
    gone = {"a.jpg", "a.txt", "a_qi_te.safetensors"}
    gone |= {f"a_{size}_qi.safetensors" for size in ("0064x0048", "0999x0048", "12345x0048")}
    assert before - set(files_of(project.path)) == gone
    thumbs = {path.name for path in (project.hidden / "thumbs").iterdir()}
    assert thumbs == {f"{stem}.jpg.jpg" for stem in stems[1:]}
    with pytest.raises(NotFound):
        project.remove("a.jpg")
    project.remove("a_0064x0048.jpg")
    assert not list(project.path.glob("a_0064x0048*"))
    assert (project.path / "a-2_qi_te.safetensors").exists()


@pytest.mark.parametrize(
    "name", ["../other/a.jpg", "..", "a.txt", "missing.jpg", "out.jpg", "", "/"]
)
def test_nothing_but_an_image_of_the_folder_can_be_named(home, project, name):
    other = Project(home, "other")
    other.make()
    put(other, "a.jpg")
    put_all(project, ("a.jpg", JPEG), ("a.txt", b"x"))
    (project.path / "out.jpg").symlink_to(other.path / "a.jpg")
    before = files_of(home.root)
    acts = (project.remove, project.image, project.thumb, lambda n: project.set_caption(n, "x"))
    for act in acts:
        with pytest.raises(NotFound):
            act(name)
    assert files_of(home.root) == before


def test_a_thumbnail_is_there_at_once_and_follows_the_image(project):
    image = put(project, "a.jpg", picture(1, (800, 400)))
    thumb = project.hidden / "thumbs" / "a.jpg.jpg"
    assert thumb.is_file()
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


SAMPLES = {
    "ball_e000000_00_20260101120000_42_000.png": (0, None, 42, "ohwx on a table"),
    "ball_e000001_01_20260101120001_000.png": (1, None, None, "ohwx at night"),
    "ball_000003_00_20260101120002_7_000.png": (None, 3, 7, "ohwx on a table"),
    "my_e000009_lora_1234567_05_20260101120003_4294967295_000.png": (
        None,
        1234567,
        4294967295,
        None,
    ),
    "e000002_00_20260101120004_42_000.png": (2, None, 42, "ohwx on a table"),
}


def test_a_sample_tells_its_prompt_epoch_step_and_seed(project):
    (project.path / "sample").mkdir()
    (project.path / "sample_prompts.txt").write_text(
        "ohwx on a table --w 256 --d 42\nohwx at night --n blurry -- x\n", encoding="utf-8"
    )
    for age, name in enumerate(SAMPLES):
        (project.path / "sample" / name).write_bytes(PNG)
        os.utime(project.path / "sample" / name, (1000 + age, 1000 + age))
    for name in ("other.png", "ball_e1_00_20260101120000_000.png", "ball.jpg"):
        (project.path / "sample" / name).write_bytes(PNG)
    found = project.samples()
    assert [one["name"] for one in found] == list(SAMPLES)
    for one in found:
        told = (one["epoch"], one["step"], one["seed"], one["prompt"])
        assert told == SAMPLES[one["name"]]
    assert [one["lora"] for one in found] == ["ball", "ball", "ball", "my_e000009_lora", None]
    assert project.sample_thumb(found[0]["name"]).is_file()


def test_samples_without_their_prompt_file_have_no_prompt(project):
    (project.path / "sample").mkdir()
    (project.path / "sample" / next(iter(SAMPLES))).write_bytes(PNG)
    assert project.samples()[0]["prompt"] is None
    (project.path / "sample_prompts.txt").write_bytes(b"\xff")
    assert project.samples()[0]["prompt"] is None


def test_only_results_can_be_downloaded(home, project):
    sample = next(iter(SAMPLES))
    (project.path / "sample").mkdir()
    good = ["ball.safetensors", "ball-000001.safetensors", "training_log_ball_20260101_120000.log"]
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
