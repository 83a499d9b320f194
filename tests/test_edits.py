"""Bulk steps over captions: what they do, that they are done as shown, and their undo."""

from __future__ import annotations

import pytest
from folders import put
from hypothesis import given
from hypothesis import strategies as st
from inputs import patient
from support import picture

from musubitlx import edits
from musubitlx.edits import Edit
from musubitlx.errors import Conflict, Invalid, NotFound


@pytest.fixture
def folder(project):
    """Four images: three with captions, one without."""
    texts = {"a.jpg": "a red ball", "b.jpg": "a Ball, red", "c.jpg": "", "d.jpg": "a balloon"}
    for seed, (name, text) in enumerate(texts.items()):
        put(project, name, picture(seed, (64, 48)))
        project.set_caption(name, text)
    return project


def captions_of(project) -> dict[str, str]:
    return {image.name[0]: image.caption for image in project.images()}


def do(project, **step) -> list[str]:
    edit = Edit.parse({"kind": "replace", "text": "", **step})
    found = edits.changes(project.images(), edit)
    changed, left = edits.apply(project, edit, found, edits.tag(found))
    assert left == []
    return changed


@pytest.mark.parametrize(
    ("step", "before", "after"),
    [
        ({"find": "ball", "text": "cube"}, "a Ball and a balloon", "a cube and a cubeoon"),
        (
            {"find": "ball", "text": "cube", "whole_words": True},
            "a Ball, balloon",
            "a cube, balloon",
        ),
        ({"find": "ball", "text": "x", "match_case": True}, "Ball ball", "Ball x"),
        ({"find": ".", "text": "!"}, "a. b", "a! b"),
        ({"find": "a", "text": r"\1\g<0>"}, "a", r"\1\g<0>"),
        ({"find": "画像", "text": "絵"}, "画像の人", "絵の人"),
        ({"find": "blurry"}, "red, blurry, ball", "red, ball"),
        ({"find": "blurry"}, "blurry, red", "red"),
        ({"find": "blurry"}, "red, blurry", "red"),
        ({"find": "very"}, "a very red ball .", "a red ball."),
        ({"find": "x"}, "nothing  to , find", "nothing  to , find"),
        ({"find": "\n", "text": ", "}, "one\ntwo", "one, two"),
        ({"kind": "prefix", "text": "photo of"}, "a ball", "photo of a ball"),
        ({"kind": "prefix", "text": "photo of "}, "a ball", "photo of a ball"),
        ({"kind": "prefix", "text": "photo of"}, "photo of a ball", "photo of a ball"),
        ({"kind": "prefix", "text": "photo"}, "", ""),
        ({"kind": "prefix", "text": "cat"}, "category of things", "cat category of things"),
        ({"kind": "prefix", "text": "photo, "}, "photo, red", "photo, red"),
        ({"kind": "suffix", "text": "art"}, "pop smart", "pop smart art"),
        ({"kind": "suffix", "text": ", art"}, "pop, art", "pop, art"),
        ({"kind": "prefix", "text": "photo", "also_empty": True}, "", "photo"),
        ({"kind": "suffix", "text": ", on white"}, "a ball", "a ball, on white"),
        ({"kind": "suffix", "text": "on white"}, "a ball", "a ball on white"),
        ({"kind": "suffix", "text": "on white"}, "a ball on white", "a ball on white"),
        ({"kind": "suffix", "text": "x", "also_empty": True}, "", "x"),
    ],
)
def test_what_a_step_makes_of_a_caption(step, before, after):
    edit = Edit.parse({"kind": "replace", "text": "", **step})
    changed, _ = edit.apply(before)
    assert changed.strip() == after


def test_the_preview_says_where_the_old_text_is_hit(folder):
    edit = Edit.parse({"kind": "replace", "find": "BALL", "text": "cube"})
    found = edits.changes(folder.images(), edit)
    hits = {change.name: [change.before[a:b] for a, b in change.spans] for change in found}
    assert hits == {"a.jpg": ["ball"], "b.jpg": ["Ball"], "d.jpg": ["ball"]}
    assert captions_of(folder)["a"] == "a red ball"


def test_a_step_is_done_and_undone(folder):
    before = captions_of(folder)
    assert do(folder, find="ball", text="cube", whole_words=True) == ["a.jpg", "b.jpg"]
    assert captions_of(folder) == {**before, "a": "a red cube", "b": "a cube, red"}
    assert edits.last(folder)["title"] == "“ball” replaced by “cube”"
    assert edits.last(folder)["count"] == 2
    assert edits.undo(folder) == (["a.jpg", "b.jpg"], [])
    assert captions_of(folder) == before
    assert edits.last(folder) is None
    with pytest.raises(NotFound):
        edits.undo(folder)


def test_undo_leaves_what_was_edited_since(folder):
    do(folder, kind="prefix", text="photo of", also_empty=True)
    folder.set_caption("a.jpg", "typed since")
    (folder.path / "d.jpg").unlink()
    restored, left = edits.undo(folder)
    assert (restored, left) == (["b.jpg", "c.jpg"], ["a.jpg", "d.jpg"])
    assert captions_of(folder) == {"a": "typed since", "b": "a Ball, red", "c": ""}


def test_a_step_that_broke_off_can_be_undone(folder, monkeypatch):
    before, saved = captions_of(folder), folder.set_caption
    calls = []

    def breaks(name, text, **more):
        calls.append(name)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return saved(name, text, **more)

    monkeypatch.setattr(folder, "set_caption", breaks)
    with pytest.raises(OSError):
        do(folder, find="a", text="the")
    monkeypatch.undo()
    assert captions_of(folder) != before
    assert edits.undo(folder)[1] == []
    assert captions_of(folder) == before


def test_a_caption_that_is_edited_meanwhile_is_left_and_the_others_are_changed(folder):
    edit = Edit.parse({"kind": "replace", "find": "ball", "text": "cube"})
    found = edits.changes(folder.images(), edit)
    folder.set_caption("b.jpg", "typed since")
    (folder.path / "d.jpg").unlink()
    assert edits.apply(folder, edit, found, None) == (["a.jpg"], ["b.jpg", "d.jpg"])
    assert captions_of(folder) == {"a": "a red cube", "b": "typed since", "c": ""}
    assert edits.undo(folder) == (["a.jpg"], ["b.jpg", "d.jpg"])


def test_undo_means_the_step_it_was_offered_for(folder):
    do(folder, find="ball", text="cube")
    first = edits.last(folder)["at"]
    do(folder, find="cube", text="cone")
    with pytest.raises(Conflict):
        edits.undo(folder, first)
    assert captions_of(folder)["a"] == "a red cone"
    edits.undo(folder, edits.last(folder)["at"])
    assert captions_of(folder)["a"] == "a red cube"


def test_a_step_is_only_done_as_it_was_shown(folder):
    edit = Edit.parse({"kind": "replace", "find": "ball", "text": "cube"})
    seen = edits.tag(edits.changes(folder.images(), edit))
    folder.set_caption("a.jpg", "a green ball")
    before = captions_of(folder)
    with pytest.raises(Conflict):
        edits.apply(folder, edit, edits.changes(folder.images(), edit), seen)
    assert captions_of(folder) == before
    assert edits.last(folder) is None


@pytest.mark.parametrize(
    ("step", "field"),
    [
        (None, "kind"),
        ({"kind": "explode"}, "kind"),
        ({"kind": "replace", "find": ""}, "find"),
        ({"kind": "replace", "find": 5}, "find"),
        ({"kind": "replace", "find": "x", "text": "y" * 3000}, "text"),
        ({"kind": "prefix", "text": "  "}, "text"),
        ({"kind": "suffix"}, "text"),
    ],
)
def test_a_step_that_makes_no_sense_names_its_field(step, field):
    with pytest.raises(Invalid) as told:
        Edit.parse(step)
    assert told.value.field == field


def test_a_step_that_makes_a_caption_too_long_changes_nothing(folder):
    before = captions_of(folder)
    folder.set_caption("a.jpg", "x" * 9000)
    with pytest.raises(Invalid):
        do(folder, find="x", text="yy")
    assert captions_of(folder) == {**before, "a": "x" * 9000}


@pytest.mark.parametrize(
    "record", ["", "[]", '{"title": 1}', '{"title": "x", "changes": [1]}', "{"]
)
def test_a_record_that_is_odd_is_nothing_to_undo(folder, record):
    folder.hidden.mkdir(exist_ok=True)
    (folder.hidden / edits.RECORD).write_text(record)
    assert edits.last(folder) is None
    with pytest.raises(NotFound):
        edits.undo(folder)


@patient
@given(st.text(max_size=60), st.text(min_size=1, max_size=6), st.text(max_size=6), st.booleans())
def test_spans_are_exactly_what_is_replaced(caption, find, text, whole):
    text = text if text.strip() else "x"  # a blank one takes out, and tidies up
    edit = Edit("replace", text, find, match_case=True, whole_words=whole)
    after, spans = edit.apply(caption)
    pieces, at = [], 0
    for begin, end in spans:
        assert caption[begin:end] == find
        pieces += [caption[at:begin], edit.text]
        at = end
    assert "".join([*pieces, caption[at:]]) == after
