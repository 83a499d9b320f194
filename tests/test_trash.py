"""Removed images: gone with all that belongs to them, and back with it when that is undone."""

from __future__ import annotations

import contextlib
import os
import threading

import pytest
from folders import JPEG, PNG, files_of, put, put_all
from support import picture

from musubitlx import trash
from musubitlx.errors import DiskFull, NotFound
from musubitlx.projects import Project

# -- removing --------------------------------------------------------------------------------------


def test_removing_an_image_removes_what_belongs_to_it_and_nothing_else(project):
    stems = ("a", "a_0064x0048", "b", "a-2", "aa", "A1")
    for stem in stems:
        put_all(project, (f"{stem}.jpg", JPEG), (f"{stem}.txt", b"text"))
        project.thumb(f"{stem}.jpg")
        for tail in ("0064x0048_qi", "0999x0048_qi", "12345x0048_qi", "qi_te"):
            (project.path / f"{stem}_{tail}.safetensors").touch()
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
    trash.throw_away(project, ["a.jpg"])
    gone = {"a.jpg", "a.txt", "a_qi_te.safetensors"}
    gone |= {f"a_{size}_qi.safetensors" for size in ("0064x0048", "0999x0048", "12345x0048")}
    assert before - set(files_of(project.path)) == gone
    thumbs = {path.name for path in (project.hidden / "thumbs").iterdir()}
    assert thumbs == {f"{stem}.jpg.jpg" for stem in stems[1:]}
    with pytest.raises(NotFound):
        trash.throw_away(project, ["a.jpg"])
    trash.throw_away(project, ["a_0064x0048.jpg"])
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
    acts = (
        project.image,
        project.thumb,
        lambda n: trash.throw_away(project, [n]),
        lambda n: project.set_caption(n, "x"),
    )
    for act in acts:
        with pytest.raises(NotFound):
            act(name)
    assert files_of(home.root) == before


# -- undo ------------------------------------------------------------------------------------------


def test_what_was_removed_comes_back_as_it_was(project):
    put_all(project, ("a.jpg", JPEG), ("a.txt", "é".encode()), ("b.png", PNG), ("c.jpg", JPEG))
    before = files_of(project.path)
    removed, key = trash.throw_away(project, ["a.jpg", "b.png", "a.jpg"])
    assert removed == ["a.jpg", "b.png"]
    assert set(files_of(project.path)) == {"c.jpg"}
    restored = trash.restore(project, key)
    assert [(image.name, image.caption) for image in restored] == [("a.jpg", "é"), ("b.png", "")]
    assert files_of(project.path) == before
    with pytest.raises(NotFound):
        trash.restore(project, key)


def test_a_name_that_was_taken_meanwhile_is_not_overwritten(project):
    put_all(project, ("a.jpg", JPEG), ("a.txt", b"old"))
    _, key = trash.throw_away(project, ["a.jpg"])
    other = picture(7, (64, 48))
    put_all(project, ("a.jpg", other), ("a.txt", b"new"))
    back = trash.restore(project, key)
    assert [(image.name, image.caption) for image in back] == [("a-2.jpg", "old")]
    assert (project.path / "a.jpg").read_bytes() == other
    assert project.image("a.jpg").caption == "new"


def test_one_name_that_is_not_there_removes_none(project):
    put(project, "a.jpg")
    before = files_of(project.path)
    with pytest.raises(NotFound):
        trash.throw_away(project, ["a.jpg", "gone.jpg"])
    assert files_of(project.path) == before


def test_a_removal_that_fails_in_the_middle_removes_none(project, monkeypatch):
    put_all(project, ("a.jpg", JPEG), ("a.txt", b"text"), ("b.png", PNG))
    before, moved = files_of(project.path), []

    def fails(source, target):
        moved.append(source)
        if len(moved) == 3:
            raise OSError(28, "No space left on device")
        source.replace(target)

    monkeypatch.setattr(trash, "_move", fails)
    with pytest.raises(DiskFull):
        trash.throw_away(project, ["a.jpg", "b.png"])
    monkeypatch.undo()
    assert set(files_of(project.path)) >= {"a.jpg", "b.png"}
    assert files_of(project.path)["b.png"] == before["b.png"]


@pytest.mark.parametrize("key", ["", "..", "../../x", "0" * 31, "0" * 32, "G" * 32])
def test_only_a_key_that_was_given_brings_something_back(project, key):
    with pytest.raises(NotFound):
        trash.restore(project, key)


def test_the_trash_is_emptied_after_a_while(home, project):
    put(project, "a.jpg")
    put(project, "b.jpg")
    _, old = trash.throw_away(project, ["a.jpg"])
    _, young = trash.throw_away(project, ["b.jpg"])
    os.utime(project.hidden / "trash" / old, (1, 1))
    trash.empty(home)
    assert [one.name for one in trash.restore(project, young)] == ["b.jpg"]
    with pytest.raises(NotFound):
        trash.restore(project, old)


def test_an_image_that_shares_its_stem_leaves_the_caption_to_the_other(project):
    for name, data in (("a.jpg", JPEG), ("a.png", PNG)):
        (project.path / name).write_bytes(data)
    (project.path / "a.txt").write_text("a ball")
    (project.path / "a_0064x0048_qi.safetensors").touch()
    trash.throw_away(project, ["a.png"])
    assert project.image("a.jpg").caption == "a ball"
    assert (project.path / "a_0064x0048_qi.safetensors").exists()


def test_a_caption_that_was_written_meanwhile_stays(project):
    put_all(project, ("a.jpg", JPEG), ("a.txt", b"old"))
    _, key = trash.throw_away(project, ["a.jpg"])
    (project.path / "a.txt").write_text("new")
    assert [image.caption for image in trash.restore(project, key)] == ["new"]


def test_of_many_who_bring_back_at_once_one_does_and_nothing_is_lost(project):
    names = [f"{letter}.jpg" for letter in "abcdefgh"]
    for seed, name in enumerate(names):
        put(project, name, picture(seed, (64, 48)))
        project.set_caption(name, name)
    _, key = trash.throw_away(project, names)
    won = []

    def restore() -> None:
        with contextlib.suppress(NotFound):
            won.append(trash.restore(project, key))

    threads = [threading.Thread(target=restore) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert {image.name: image.caption for image in project.images()} == {n: n for n in names}
