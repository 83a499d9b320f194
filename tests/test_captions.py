"""Captions: read whatever their encoding, saved whole, never over what somebody else wrote."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest
from folders import JPEG, put, put_all
from support import ROOT

from musubitlx import captions
from musubitlx.captions import Edited, decode, final_text, tag
from musubitlx.errors import Invalid

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
    taken = put_all(project, ("a.jpg", JPEG), ("a.txt", data))
    assert taken.added[0].caption == text
    if text:
        assert (project.path / "a.txt").read_bytes() == text.encode()
    else:
        assert not (project.path / "a.txt").exists()


def no_captions(folder):
    """Files that must not be taken for a caption, or for none, by what is the matter with them."""
    (folder / "outside.md").write_text("mine")
    inner = folder / "inner"
    (inner / "folder.txt").mkdir(parents=True)
    (inner / "long.txt").write_text("x" * (captions.MAX_CAPTION + 1))
    (inner / "blanks.txt").write_bytes(b"a" + b" " * captions.MAX_BYTES)
    (inner / "out.txt").symlink_to(folder / "outside.md")
    (inner / "nowhere.txt").symlink_to("gone.txt")
    (inner / "round.txt").symlink_to("round.txt")
    (inner / "locked.txt").write_text("mine")
    (inner / "locked.txt").chmod(0)
    if hasattr(os, "mkfifo"):
        os.mkfifo(inner / "pipe.txt")
    if os.access(inner / "locked.txt", os.R_OK):  # root reads anything
        (inner / "locked.txt").unlink()
    return sorted(inner.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_what_cannot_be_read_whole_as_a_caption_is_told_apart(tmp_path):
    for path in no_captions(tmp_path):
        assert not captions.is_whole(path), path.name
        assert len(captions.read(path)) in (0, 1, captions.MAX_CAPTION), path.name


def test_a_caption_of_any_length_and_none_are_whole(tmp_path):
    path = tmp_path / "a.txt"
    assert captions.is_whole(path)
    for text in ("", "a ball", "画" * captions.MAX_CAPTION):
        path.write_text(text, encoding="utf-8")
        assert captions.is_whole(path)
        assert captions.read(path) == text


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_within_the_folder_is_whole(tmp_path):
    (tmp_path / "a.txt").write_text("a ball")
    (tmp_path / "b.txt").symlink_to("a.txt")
    assert captions.is_whole(tmp_path / "b.txt")


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


# -- two writers -----------------------------------------------------------------------------------


def test_a_caption_that_was_changed_elsewhere_is_not_overwritten(project):
    put(project, "a.jpg")
    project.set_caption("a.jpg", "first")
    project.set_caption("a.jpg", "second", base=tag("first"))
    with pytest.raises(Edited) as told:
        project.set_caption("a.jpg", "third", base=tag("first"))
    assert told.value.http_status == 409
    assert told.value.as_dict()["caption"] == "second"
    assert project.image("a.jpg").caption == "second"
    project.set_caption("a.jpg", "third", base=told.value.as_dict()["tag"])
    assert project.image("a.jpg").caption == "third"


def test_saying_the_same_again_is_no_conflict(project):
    put(project, "a.jpg")
    project.set_caption("a.jpg", "a ball", base=tag(""))
    assert project.set_caption("a.jpg", " a ball ", base=tag("")).caption == "a ball"


def test_of_many_writers_at_once_exactly_one_wins(project):
    put(project, "a.jpg")
    path, won = project.path / "a.txt", []

    def write(number: int) -> None:
        try:
            captions.write(path, f"by {number}", base=tag(""))
            won.append(number)
        except Edited:
            pass

    threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_text()] == [f"by {number}" for number in won]


@pytest.mark.parametrize(
    ("text", "trigger", "has"),
    [("an OHWX ball", "ohwx", True), ("ohwxy", "ohwx", False), ("x", "", False), ("", "x", False)],
)
def test_whether_a_caption_has_the_trigger_word(text, trigger, has):
    assert captions.has_trigger(text, trigger) is has


RACER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from musubitlx import captions
path, mark = Path(sys.argv[2]), sys.argv[3]
won = 0
for number in range(300):
    seen = captions.read(path)
    try:
        captions.write(path, f"{seen} {mark}".strip()[-9000:], base=captions.tag(seen))
        won += 1
    except captions.Edited:
        pass
print(won)
"""


@pytest.mark.skipif(os.name == "nt", reason="processes don't wait for one another there")
def test_two_processes_never_write_over_one_another_unseen(tmp_path):
    path = tmp_path / "a.txt"
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(ROOT), str(path), mark],
            stdout=subprocess.PIPE,
            text=True,
        )
        for mark in "xy"
    ]
    won = sum(int(racer.communicate(timeout=60)[0]) for racer in racers)
    assert len(captions.read(path).split()) == won  # each write that went through is there


@pytest.mark.skipif(os.name == "nt", reason="processes don't wait for one another there")
def test_a_process_that_holds_the_folder_for_ever_holds_nobody_up(tmp_path):
    import fcntl

    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    began = time.monotonic()
    captions.write(tmp_path / "a.txt", "a cat")
    assert captions.read(tmp_path / "a.txt") == "a cat"
    assert time.monotonic() - began < 3 * captions.PATIENCE_S
    os.close(handle)
