"""Notes on a run."""

from __future__ import annotations

import pytest

from musubitlx import notes
from musubitlx.errors import Invalid, NotFound


def test_notes_are_a_plain_file_in_the_record(tmp_path):
    assert notes.read(tmp_path) == ""
    assert notes.write(tmp_path, "Épreuve 3: too sharp\r\nnext: rank 8 ") == (
        "Épreuve 3: too sharp\nnext: rank 8"
    )
    assert notes.read(tmp_path) == (tmp_path / "notes.txt").read_text(encoding="utf-8")
    assert notes.write(tmp_path, "") == ""
    assert not list(tmp_path.iterdir())


def test_of_two_who_write_at_once_nobody_loses_a_word(tmp_path):
    base = notes.tag(notes.write(tmp_path, "first"))
    notes.write(tmp_path, "mine", base=base)
    with pytest.raises(notes.Edited) as told:
        notes.write(tmp_path, "yours", base=base)
    assert notes.read(tmp_path) == "mine"
    assert told.value.as_dict()["text"] == "mine"
    notes.write(tmp_path, "yours", base=told.value.as_dict()["tag"])
    notes.write(tmp_path, "yours", base=base)  # an answer got lost: it stands there already
    assert notes.read(tmp_path) == "yours"


@pytest.mark.parametrize("text", [None, 7, ["x"], "x" * 20_001, "\ud800"])
def test_what_is_no_note_is_refused(tmp_path, text):
    with pytest.raises(Invalid):
        notes.write(tmp_path, text)
    assert not list(tmp_path.iterdir())


def test_notes_on_a_deleted_run_are_a_sentence(tmp_path):
    with pytest.raises(NotFound):
        notes.write(tmp_path / "gone", "x")
