"""Where things lie: usable names, paths that stay inside, files that are never half written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inputs import patient

from musubitlx import home as house
from musubitlx.errors import Invalid, NotFound
from musubitlx.home import (
    Home,
    child,
    name_problem,
    natural_key,
    read_json,
    replacing,
    write_json,
    write_text,
)

BAD = ["", " ", ".", "..", "...", "a/b", "a\\b", "/etc", "C:", "C:\\x", "a:b", "x*", "x?", "[x]"]
BAD += ['"', "<", ">", "|", "\x00", "a\nb", "a\rb", "\x7f", "\ud800", " a", "a ", "a.", ".a"]
BAD += ["CON", "con", "nul.txt", "COM1", "lpt9.x.y", "COM¹", "CONIN$", "é" * 61, "x" * 121]
BAD += ["\u00a0a", "a\u3000", None, 5, b"a"]
GOOD = [
    "a",
    "my lora",
    "Anna-2_x",
    "画像",
    "😀",
    "é" * 60,
    "x" * 120,
    "con1",
    "comet",
    "a..b",
    "~",
    "%41",
]


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_is_no_plain_file_name_is_refused_everywhere(home, name):
    assert name_problem(name)
    with pytest.raises(Invalid) as told:
        home.project(name)
    assert told.value.field == "output_dir"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "...",
        ".a",
        "a/b",
        "/etc",
        "a\\b",
        "\x00",
        "a\nb",
        "\ud800",
        "x" * 256,
        None,
        5,
    ],
)
def test_a_name_that_leads_elsewhere_is_not_there(home, name):
    with pytest.raises(NotFound):
        child(home.output, name)


def test_a_file_named_by_hand_can_be_opened(home):
    for name in ("img [1].png", "what?.png", "a:b.png", " blank.png", "x" * 200):
        (home.output / name).write_text("x")
        assert child(home.output, name).read_text() == "x"


@pytest.mark.parametrize("name", GOOD)
def test_a_plain_name_is_taken_and_a_disk_can_hold_it(home, name):
    assert name_problem(name) is None
    path = home.project(name)
    assert path.parent == home.output
    path.mkdir()
    assert child(home.output, name) == path


@patient
@given(st.text(max_size=20) | st.text(alphabet="./\\: aCON~", max_size=8))
def test_no_name_leads_out_of_its_folder(tmp_path_factory, name):
    root = tmp_path_factory.getbasetemp()
    try:
        path = child(root, name)
    except NotFound:
        return
    assert path.parent == root
    assert path.resolve().parent == root.resolve()


def test_a_link_out_of_the_folder_is_not_found(tmp_path):
    (tmp_path / "secret").write_text("x")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("x")
    (tmp_path / "in" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "in" / "up").symlink_to("..")
    (tmp_path / "in" / "alias").symlink_to("file")
    assert child(tmp_path / "in", "alias").read_text() == "x"
    for name in ("out", "up"):
        with pytest.raises(NotFound):
            child(tmp_path / "in", name)


def test_a_home_that_is_a_link_is_as_good(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    home = Home(tmp_path / "link").make()
    assert child(home.output, "x") == home.output / "x"
    assert home.root == tmp_path / "real"


def test_making_a_home_makes_its_folders_and_nothing_else(tmp_path):
    home = Home(tmp_path / "new" / "home").make()
    home.make()
    made = {str(path.relative_to(home.root)) for path in home.root.rglob("*")}
    assert made == {"output", "output/.jobs", "configs"}
    home.project("x")
    assert not (home.output / "x").exists()


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "x"
    write_text(path, "old\r\n")
    with pytest.raises(RuntimeError), replacing(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old\r\n"
    write_text(path, "new é\n")
    assert path.read_bytes() == "new é\n".encode()
    assert [*tmp_path.iterdir()] == [path]


def test_a_file_that_cannot_be_written_says_so_and_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_text(tmp_path / "folder", "x")
    with pytest.raises(OSError):
        write_text(tmp_path / "missing" / "x", "x")
    assert [*tmp_path.iterdir()] == [tmp_path / "folder"]


def test_json_is_read_back_and_what_is_none_is_none(tmp_path):
    write_json(tmp_path / "x", {"é": [1, None]})
    assert read_json(tmp_path / "x") == {"é": [1, None]}
    for text in (b"", b"{", b"[1]", b"null", b'{"a": 1', b"\xff", b"\x00"):
        (tmp_path / "y").write_bytes(text)
        assert read_json(tmp_path / "y") is None
    assert read_json(tmp_path / "missing") is None
    assert read_json(tmp_path) is None


def test_half_characters_are_not_storable():
    assert house.is_storable("é 😀 \x00")
    assert not house.is_storable("\ud800")


@patient
@given(st.lists(st.text(alphabet="0129aB²٣ ._", max_size=6)))
def test_names_are_sorted_as_people_count_whatever_is_in_them(names):
    assert sorted(["b", "10", "a10", "2", "B", "a9"], key=natural_key) == [
        *("2", "10", "a9", "a10", "B", "b")
    ]
    assert sorted(names, key=natural_key) == sorted(reversed(names), key=natural_key)
