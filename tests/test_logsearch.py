"""Pieces of a long log, and the lines that hold a text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inputs import patient

from musubitlx import logs, logsearch
from musubitlx.errors import Invalid

LINES = [f"step {n} – lösung {'x' * (n % 70)}\n" for n in range(2000)]
TEXT = "".join(LINES)


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "run.log"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.mark.parametrize("limit", [200, 1000, 4096, 262_144])
def test_reading_backwards_in_pieces_gives_the_whole_log(log, limit):
    pieces, end = [], 10**12
    while end > 0:
        piece = logsearch.before(log, end, limit)
        assert piece.text.endswith("\n") and len(piece.text.encode()) <= limit
        assert piece.start < piece.end <= end
        pieces.insert(0, piece.text)
        end = piece.start
    assert "".join(pieces) == TEXT


@pytest.mark.parametrize("limit", [200, 1000, 262_144])
def test_reading_forwards_in_pieces_gives_the_whole_log(log, limit):
    text, at = "", 0
    while (piece := logsearch.after(log, at, limit)).text:
        text, at = text + piece.text, piece.end
    assert text == TEXT


def test_a_line_that_is_not_ended_yet_is_in_no_piece(log):
    with log.open("a") as file:
        file.write("half a li")
    assert logsearch.before(log, 10**12, 300).text.endswith(LINES[-1])
    assert "half" not in logsearch.after(log, log.stat().st_size - 200).text


def test_lines_are_found_where_they_begin_whatever_their_case(log):
    found = logsearch.search(log, "STEP 1234 ")
    assert found.count == 1
    assert found.offsets == [len("".join(LINES[:1234]).encode())]
    assert logsearch.after(log, found.offsets[0]).text.startswith("step 1234 ")
    assert logsearch.search(log, "lösung").count == 2000
    assert logsearch.search(log, "x" * 69).count == len([n for n in range(2000) if n % 70 == 69])
    assert logsearch.search(log, "nowhere").offsets == []
    assert logsearch.search(log, ".*").count == 0


def test_a_line_with_several_hits_counts_once(tmp_path):
    log = tmp_path / "a.log"
    log.write_text("aaa aaa\nb\na\n")
    assert logsearch.search(log, "a").offsets == [0, 10]


@pytest.mark.parametrize("text", ["", "\n", "a\nb", "x" * 201])
def test_what_no_line_can_hold_is_refused(log, text):
    with pytest.raises(Invalid):
        logsearch.search(log, text)


def test_a_log_that_is_missing_or_empty_holds_nothing(tmp_path):
    log = tmp_path / "none.log"
    for _ in range(2):
        assert logsearch.search(log, "a") == logsearch.Found()
        assert logsearch.before(log, 100, 10).text == logsearch.after(log, 0).text == ""
        log.touch()


@patient
@given(
    st.lists(st.text(alphabet="abä 画", max_size=9), max_size=40),
    st.text("abä画", min_size=1, max_size=2),
)
def test_what_is_found_is_what_a_plain_look_finds(tmp_path_factory, lines, needle):
    log = tmp_path_factory.mktemp("log") / "a.log"
    log.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    found = logsearch.search(log, needle)
    place, wanted = 0, []
    for line in lines:
        if needle in line:
            wanted.append(place)
        place += len(f"{line}\n".encode())
    assert (found.offsets, found.count) == (wanted, len(wanted))


def test_a_hit_across_two_blocks_is_found(tmp_path):
    log = tmp_path / "a.log"
    filler = "y" * (logs.READ_BYTES - 12) + "\n"
    log.write_text(filler + "begin needle end\n")
    assert logsearch.search(log, "needle").offsets == [len(filler)]


def test_a_hundred_megabytes_are_searched_within_a_second(tmp_path):
    log = tmp_path / "long.log"
    block = b"".join(b"step %d: avr_loss=0.1234, all is well\n" % n for n in range(25_000))
    with log.open("wb") as file:
        while file.tell() < 100_000_000:
            file.write(block)
        file.write(b"the needle\n")
    began = time.monotonic()
    found = logsearch.search(log, "needle")
    assert found.count == 1 and time.monotonic() - began < 3
    began = time.monotonic()
    many = logsearch.search(log, "well")
    assert len(many.offsets) == logsearch.MOST_LINES and many.count > 2_000_000
    assert time.monotonic() - began < 8
