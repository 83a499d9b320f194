"""The rows of a captioning run, and the run as a step that can be undone."""

from __future__ import annotations

import pytest
from folders import put
from support import picture

from musubitlx import captioned, edits
from musubitlx.errors import Conflict, NotFound
from musubitlx.home import write_json


@pytest.fixture
def folder(project):
    """Three images, the first with a caption."""
    for seed, name in enumerate(("a.jpg", "b.jpg", "c.jpg")):
        put(project, name, picture(seed, (64, 48)))
    project.set_caption("a.jpg", "by hand")
    return project


def write(project, rows, *, run="run-1", saved=True) -> None:
    """What the program does: the row first, then the caption."""
    path = captioned.begin(project, run)
    edits.begin_run(project, "Captioned by BLIP large", run)
    for row in rows:
        captioned.append(path, row)
        if saved and "after" in row:
            project.set_caption(row["name"], row["after"])


ROWS = [
    {"name": "a.jpg", "before": "by hand", "after": "a cat"},
    {"name": "b.jpg", "before": "", "after": "a dog"},
    {"name": "c.jpg", "problem": "can't be read"},
]


def texts(project) -> dict[str, str]:
    return {image.name: image.caption for image in project.images()}


def test_a_captioning_run_is_the_step_that_can_be_undone(folder):
    write(folder, ROWS)
    told = edits.last(folder)
    assert (told["title"], told["count"]) == ("Captioned by BLIP large", 2)
    assert told["run"] == "run-1"
    assert edits.undo(folder, told["at"]) == (["a.jpg", "b.jpg"], [])
    assert texts(folder) == {"a.jpg": "by hand", "b.jpg": "", "c.jpg": ""}
    with pytest.raises(NotFound):
        edits.undo(folder)


def test_undo_leaves_what_was_edited_since(folder):
    write(folder, ROWS)
    folder.set_caption("b.jpg", "my dog")
    assert edits.undo(folder) == (["a.jpg"], ["b.jpg"])
    assert texts(folder)["b.jpg"] == "my dog"


def test_a_row_whose_caption_was_never_written_harms_nothing(folder):
    write(folder, ROWS, saved=False)  # killed between the row and the caption
    edits.undo(folder)
    assert texts(folder) == {"a.jpg": "by hand", "b.jpg": "", "c.jpg": ""}


def test_a_later_step_by_hand_is_the_one_that_is_undone(folder):
    write(folder, ROWS)
    edit = edits.Edit.parse({"kind": "prefix", "text": "ohwx"})
    found = edits.changes(folder.images(), edit)
    edits.apply(folder, edit, found, None)
    assert edits.last(folder)["run"] is None
    edits.undo(folder)
    assert texts(folder)["a.jpg"] == "a cat"


def test_a_run_that_has_written_nothing_yet_is_no_step(folder):
    write(folder, [ROWS[2]])
    assert edits.last(folder) is None


def test_the_undo_of_another_step_than_shown_is_refused(folder):
    write(folder, ROWS)
    with pytest.raises(Conflict):
        edits.undo(folder, 1.0)


@pytest.mark.parametrize("run", ["../x", 3, None, "", "nowhere", ["a"], "a\0b"])
def test_an_odd_run_has_no_rows(folder, run):
    assert captioned.read(folder, run) == []
    folder.hidden.mkdir(exist_ok=True)
    write_json(folder.hidden / edits.RECORD, {"title": "x", "at": 1.0, "run": run})
    assert edits.last(folder) is None


def test_a_row_that_was_cut_short_costs_only_itself(folder):
    write(folder, ROWS)
    path = captioned.path_of(folder, "run-1")
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        rows = captioned.read(folder, "run-1")
        assert rows == ROWS[: len(rows)]
        assert len(rows) >= whole[:cut].count(b"\n")


@pytest.mark.parametrize("line", [b"[]", b"3", b'{"name": 3}', b"{", b"\xff\xfe", b'"x"', b"null"])
def test_what_is_no_row_is_left_out(folder, line):
    path = captioned.begin(folder, "run-1")
    path.write_bytes(line + b"\n" + b'{"name": "a.jpg", "text": "ok"}\n')
    assert captioned.read(folder, "run-1") == [{"name": "a.jpg", "text": "ok"}]


def test_the_rows_of_old_runs_do_not_pile_up(folder):
    place = folder.hidden / captioned.FOLDER
    for number in range(captioned.KEPT + 5):
        captioned.begin(folder, f"run-{number:03d}")
        (place / f"names-{number:03d}.json").touch()
    captioned.begin(folder, "run-last")
    left = sorted(path.name for path in place.glob("*.jsonl"))
    assert len(left) == captioned.KEPT and left[-1] == "run-last.jsonl"
    assert len(list(place.glob("names-*.json"))) == captioned.KEPT


def test_trials_cost_no_run_its_undo(folder):
    write(folder, ROWS)
    for number in range(captioned.KEPT + 5):
        path = captioned.begin(folder, f"trial-{number:03d}", trial=True)
        captioned.append(path, {"name": "a.jpg", "text": str(number)})
    assert edits.last(folder)["count"] == 2
    assert captioned.read(folder, f"trial-{captioned.KEPT + 4:03d}")[0]["text"]
    assert captioned.read(folder, "trial-000") == []


def test_of_two_rows_about_one_image_the_last_is_undone_first(folder):
    rows = [
        {"name": "a.jpg", "before": "by hand", "after": "one"},
        {"name": "a.jpg", "before": "one", "after": "two"},
    ]
    write(folder, rows)
    edits.undo(folder)
    assert texts(folder)["a.jpg"] == "by hand"


def test_texts_of_any_language_come_back(folder):
    path = captioned.begin(folder, "run-1")
    row = {"name": "画.jpg", "text": 'ein "Hündchen"\nmit \u2028 Zeilen'}
    captioned.append(path, row)
    assert captioned.read(folder, "run-1") == [row]
