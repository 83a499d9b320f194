"""Folding a terminal stream into a log, and following a log by byte offset."""

from __future__ import annotations

import itertools
import os
import random
import re
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inputs import patient
from support import ROOT

from musubitlx import logs
from musubitlx.logs import Fold, blocks, read_lines, read_tail, start_of_tail, whole_size

REAL = Path(os.environ.get("MUSUBI_LOGS") or ROOT.parent / "shared" / "musubi" / "logs")
REAL_LOGS = sorted(REAL.glob("*.log"))
BAR_UPDATE = re.compile(rb"\r((?:steps|Denoising steps|[^\r\n|]*):? +\d+%\|[^\r\n]*?\])")

needs_real_logs = pytest.mark.skipif(
    not REAL_LOGS, reason="no captured output of Musubi: name its folder in MUSUBI_LOGS"
)


def fold(data: bytes, cuts=(), clock=lambda: 0.0) -> str:
    """The log that comes of a stream, cut into pieces at these places."""
    one, text = Fold(clock), []
    edges = [0, *sorted(cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        text.append(one.feed(data[start:end])[0])
    return "".join(text) + one.end()[0]


def each_byte(data: bytes) -> range:
    return range(1, len(data))


def lines(text: str) -> list[str]:
    """Lines as every reader of the log counts them."""
    return text.split("\n")[:-1]


# -- the real output ------------------------------------------------------------------------------


@needs_real_logs
@pytest.mark.parametrize("path", REAL_LOGS, ids=lambda path: path.stem)
def test_how_a_real_stream_is_cut_changes_nothing(path):
    data, rng = path.read_bytes(), random.Random(path.name)
    whole = fold(data)
    assert fold(data, each_byte(data)) == whole
    for share in (0.5, 0.05, 0.002):
        cuts = [n for n in each_byte(data) if rng.random() < share]
        assert fold(data, cuts) == whole


@needs_real_logs
@pytest.mark.parametrize("path", REAL_LOGS, ids=lambda path: path.stem)
def test_a_real_log_reads_well_in_an_editor(path):
    text = fold(path.read_bytes())
    assert not re.search(r"[\r\x1b\x07\x08]", text)
    assert text.endswith("\n")
    glued = [line for line in lines(text) if re.search(r"\d+/\d+ \[.*\]\s*\S", line)]
    assert glued == []
    assert not re.search(r"it/s\](?!$)|s/it\](?!$)", text, re.M)


@needs_real_logs
@pytest.mark.parametrize("path", REAL_LOGS, ids=lambda path: path.stem)
def test_every_ordinary_line_of_a_real_stream_is_in_the_log(path):
    text = fold(path.read_bytes())
    plain = path.read_bytes().decode().replace("\x1b[A", "")
    said = [
        re.sub(r".*?\d+/\d+ \[[^\]]*\]|\d+it \[[^\]]*\]", "", piece).strip()
        for piece in re.split(r"[\r\n]", plain)
    ]
    found = {line.strip() for line in lines(text)}
    assert [piece for piece in said if piece and piece not in found] == []


@needs_real_logs
@pytest.mark.parametrize("path", REAL_LOGS, ids=lambda path: path.stem)
def test_the_last_state_of_every_bar_is_in_the_log(path):
    states: dict[bytes, bytes] = {}
    for match in BAR_UPDATE.finditer(path.read_bytes()):
        states[match[1].split(b"%|")[0].rstrip(b" 0123456789")] = match[1]
    text = fold(path.read_bytes())
    for state in states.values():
        assert state.decode().strip() in text


@needs_real_logs
@pytest.mark.parametrize(("name", "samples"), [("train", 6), ("train_steps", 6)])
def test_a_denoising_bar_leaves_one_line_for_each_sample(name, samples):
    text = fold((REAL / f"{name}.log").read_bytes())
    bars = [line for line in lines(text) if line.startswith("Denoising")]
    assert len(bars) == text.count("Decoding complete") == samples
    assert all("100%" in line and "2/2" in line for line in bars)


# -- bars ------------------------------------------------------------------------------------------


def bar(step: int, total: int = 9, more: str = "") -> str:
    return f"steps: {100 * step // total:3d}%|##| {step}/{total} [00:01<00:02,  2.00s/it{more}]"


def test_a_bar_that_is_rewritten_is_one_line():
    stream = "before\n" + "".join("\r" + bar(n) for n in range(10)) + "\nafter\n"
    assert lines(fold(stream.encode())) == ["before", bar(9), "after"]


def test_a_line_glued_to_a_bar_becomes_a_line_of_its_own_at_once():
    one = Fold()
    text, _ = one.feed(("\r" + bar(1)).encode())
    assert text == ""
    text, _ = one.feed(b"INFO:saved\n")
    assert text == "INFO:saved\n"
    assert one.bar == bar(1)
    assert one.end()[0] == bar(1) + "\n"


def test_a_bar_that_goes_on_leaves_a_line_every_30_seconds():
    now = [0.0]
    one, text = Fold(lambda: now[0]), ""
    for second in range(100):
        now[0] = float(second)
        text += one.feed(("\r" + bar(second, 100)).encode())[0]
    assert lines(text) == [bar(30, 100), bar(60, 100), bar(90, 100)]
    assert one.end()[0] == bar(99, 100) + "\n"


def test_the_30_seconds_run_on_while_other_lines_come():
    now = [0.0]
    one, text = Fold(lambda: now[0]), ""
    for second in range(70):
        now[0] = float(second)
        text += one.feed(f"\r{bar(second, 100)}loss of step {second}\n".encode())[0]
    shown = [line for line in lines(text) if line.startswith("steps")]
    assert shown == [bar(30, 100), bar(60, 100)]
    assert len(lines(text)) == 72


def test_a_bar_wiped_out_with_blanks_leaves_its_last_state():
    stream = "\r" + bar(3) + "\r" + " " * 60 + "\rafter\n"
    assert lines(fold(stream.encode())) == [bar(3), "after"]


def test_a_shorter_redraw_leaves_no_blanks():
    stream = "\r" + bar(3, more=", avr_loss=2.35") + "\r" + bar(4) + "               \n"
    assert fold(stream.encode()) == bar(4) + "\n"


def test_two_bars_do_not_overwrite_one_another():
    stream = "\rfirst: " + bar(3) + "\rsecond: " + bar(4) + "\rsecond: " + bar(5) + "\n"
    assert lines(fold(stream.encode())) == ["first: " + bar(3), "second: " + bar(5)]


def test_a_progress_line_of_another_make_is_folded_too():
    assert fold(b"\rcopied 1 MB\rcopied 20 MB\rcopied 300 MB\ndone\n") == "copied 300 MB\ndone\n"
    assert fold(b"\r1 %\r20 %\r\x1b[K\ndone\n") == "20 %\ndone\n"


def test_the_bar_is_shown_as_it_stands():
    one = Fold()
    assert one.bar is None
    one.feed(("\r" + bar(1)).encode())
    assert one.bar == bar(1)
    one.feed(("\r" + bar(2) + "  \r").encode())
    assert one.bar == bar(2)
    one.feed(b"\n")
    assert one.bar is None
    _, seen = one.feed(("\r" + bar(3) + "\r" + bar(4)).encode())
    assert seen == [bar(3), bar(4)]


def test_an_unfinished_line_waits_and_is_not_lost():
    one = Fold()
    assert one.feed(b"half a li")[0] == ""
    assert one.bar == "half a li"
    assert one.feed(b"ne\nnext")[0] == "half a line\n"
    assert one.end()[0] == "next\n"
    assert one.end()[0] == ""


# -- bytes -----------------------------------------------------------------------------------------


def test_bytes_that_are_not_utf8_become_a_mark_and_the_rest_stays():
    assert fold(b"a\xff\xfeb \xc3\n\xe2\x96\nok\n") == "a\ufffd\ufffdb \ufffd\n\ufffd\nok\n"
    assert fold(b"cut off \xe2\x96") == "cut off \ufffd\n"


def test_characters_and_codes_cut_in_two_are_put_together():
    stream = "\x1b[31mröd\x1b[0m █ 画像 😀\x1b]0;title\x07\x1b]8;;http://x\x1b\\link\x1b(B\x1b7\r\n"
    data = stream.encode()
    assert fold(data) == "röd █ 画像 😀link\n"
    assert fold(data, each_byte(data)) == "röd █ 画像 😀link\n"


@pytest.mark.parametrize(
    "code",
    [
        "\x1b",
        "\x1b[",
        "\x1b[31",
        "\x1b]0;never ended",
        "\x1b[1;2A",
        "\x1bA",
        "\x1b[\x1b[",
        "\x07\x08",
    ],
)
def test_no_code_is_left_whatever_it_is(code):
    for stream in (f"a{code}", f"a{code}\n", f"a{code}\nb\n", f"\ra{code}\n"):
        assert not re.search(r"[\r\x07\x08\x1b]", fold(stream.encode()))
        assert "a" in fold(stream.encode())


def test_a_wild_cursor_code_does_not_swallow_the_log():
    stream = "\x1b[999999999A" + "".join(f"line {n} {'x' * n}\n" for n in range(300))
    kept = fold(stream.encode())
    assert all(f"line {n} {'x' * n}\n" in kept for n in range(150, 300))


def test_windows_line_ends_are_line_ends_and_indents_stay():
    stream = b"Traceback:\r\n  File x\r\n    raise\r\n\r\nAError: 1\r\nAError: 2\r\n"
    wanted = stream.decode().replace("\r\n", "\n")
    assert fold(stream) == wanted
    assert fold(stream, each_byte(stream)) == wanted


def test_plain_text_is_passed_as_it_is():
    stream = "  indented \t\n\n\n   \ntrailing   \nüber | 3it | [x]\n5 items it [a]\n"
    assert fold(stream.encode()) == stream
    assert fold(stream.encode(), each_byte(stream.encode())) == stream


PARTS = [
    "\r",
    "\n",
    "\r\n",
    "\x1b[A",
    "\x1b[K",
    "\x1b[31m",
    "\x1b]0;t\x07",
    "\x1b",
    "[",
    "é",
    "😀",
    " ",
]
PARTS += ["   ", "a", "INFO: x", bar(1), bar(2), "3it [00:04,  1.37s/it]", "1", "%|", "]", "x" * 30]


@patient
@given(st.lists(st.sampled_from(PARTS), max_size=25), st.randoms(use_true_random=False))
def test_how_any_stream_is_cut_changes_nothing(parts, rng):
    data = "".join(parts).encode()
    whole = fold(data)
    assert fold(data, each_byte(data)) == whole
    assert fold(data, [n for n in each_byte(data) if rng.random() < 0.2]) == whole
    assert not re.search(r"[\r\x1b\x07]", whole)
    assert whole == "" or whole.endswith("\n")


@patient
@given(st.binary(max_size=300), st.randoms(use_true_random=False))
def test_how_any_bytes_are_cut_changes_nothing(data, rng):
    cuts = [n for n in each_byte(data) if rng.random() < 0.3]
    assert fold(data, cuts) == fold(data)


@patient
@given(st.lists(st.sampled_from(["w1", "w2", "\n", " ", bar(1), "\x1b[0m", "é"]), max_size=30))
def test_without_carriage_returns_nothing_is_folded(parts):
    text = "".join(parts)
    kept = text.replace("\x1b[0m", "")
    kept = kept if kept.endswith("\n") or not kept.rpartition("\n")[2].strip() else kept + "\n"
    assert fold(text.encode()).split() == kept.split()
    assert fold(text.encode()).count("w1") == text.count("w1")


# -- size and speed --------------------------------------------------------------------------------


def test_a_line_of_5_mb_passes_whole_in_bounded_memory():
    one, size, kept, begun = Fold(), 0, 0, b"x" * 50_000
    one.feed(("\r" + bar(1)).encode())
    tracemalloc.start()
    try:
        for _ in range(100):
            text, _ = one.feed(begun)
            size += text.count("x")
            kept = max(kept, len(text))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    text, _ = one.feed(b"\nafter\n")
    assert size + text.count("x") == 5_000_000
    assert kept < 200_000
    assert peak < 2_000_000
    assert text.endswith("\nafter\n")


@pytest.mark.parametrize("lead", ["", "before\n", "\r" + bar(1), "\r"])
@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", ""])
def test_how_a_long_line_is_cut_changes_nothing(lead, end):
    data = (lead + "y" * 200_000 + end + "after\n").encode()
    whole = fold(data)
    assert whole.count("y") == 200_000
    assert whole.endswith("after\n")
    for size in (1000, 65_536, 65_537, 150_000, len(lead) + 200_000):
        assert fold(data, range(size, len(data), size)) == whole


def test_a_long_line_without_an_end_gets_one_when_the_stream_is_over():
    assert fold(b"y" * 70_000) == fold(b"y" * 70_000, [69_000]) == "y" * 70_000 + "\n"


@pytest.mark.parametrize("stuff", ["9", "1%|", "1 ", "[", "it [", "|", "\x1b[", "\x1b]", "1/"])
def test_strange_long_lines_cost_no_time(stuff):
    data = ("\r" + bar(1) + "\r" + stuff * (400_000 // len(stuff)) + "\n").encode()
    began = time.perf_counter()
    fold(data, range(10_000, len(data), 10_000))
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("lead", ["", "\r" + bar(1)])
def test_a_burst_of_100_000_lines_takes_the_fast_way(lead):
    data = (lead + "".join(f"\nline {n} of a burst" for n in range(100_000))).encode() + b"\n"
    began = time.perf_counter()
    text = fold(data, range(65_536, len(data), 65_536))
    assert time.perf_counter() - began < 2
    assert len(lines(text)) == 100_001


# -- following a log -------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path) -> Path:
    return tmp_path / "run.log"


def read_all(log: Path, limit: int) -> list[str]:
    pieces, offset = [], 0
    while True:
        text, after = read_lines(log, offset, limit)
        if after == offset:
            return pieces
        assert len(text.encode()) == after - offset
        pieces.append(text)
        offset = after


def test_reading_gives_whole_lines_and_goes_on_where_it_was(log):
    log.write_bytes("één\ntwo\nthr".encode())
    assert read_lines(log, 0) == ("één\ntwo\n", 10)
    assert read_lines(log, 10) == ("", 10)
    with log.open("ab") as file:
        file.write(b"ee\n")
    assert read_lines(log, 10) == ("three\n", 16)


def test_a_log_that_is_missing_empty_or_shorter_reads_as_empty(log):
    assert read_lines(log, 7) == ("", 7)
    assert (start_of_tail(log), whole_size(log), read_tail(log)) == (0, 0, "")
    log.touch()
    assert read_lines(log, 0) == ("", 0)
    assert (start_of_tail(log), whole_size(log), read_tail(log)) == (0, 0, "")
    log.write_bytes(b"a\n")
    assert read_lines(log, 100) == ("", 100)


@pytest.mark.parametrize("limit", [4, 5, 7, 16, 100])
def test_a_line_longer_than_the_limit_comes_in_whole_characters(log, limit):
    text = "aé画😀" * 20 + "\nshort\n" + "😀é" * 9 + "\n"
    log.write_text(text, encoding="utf-8", newline="")
    pieces = read_all(log, limit)
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces)


@patient
@given(st.text(alphabet="a\né画😀", max_size=60), st.integers(4, 30))
def test_reading_in_pieces_loses_nothing(tmp_path_factory, text, limit):
    log = tmp_path_factory.mktemp("logs") / "x.log"
    log.write_text(text, encoding="utf-8", newline="")
    read = "".join(read_all(log, limit))
    assert text.startswith(read)
    assert "\n" not in text[len(read) :]
    assert len(text[len(read) :].encode()) < limit


def test_the_tail_begins_with_a_whole_line(log):
    log.write_bytes(b"first\nsecond\nthird\n")
    assert start_of_tail(log, 100) == 0
    assert start_of_tail(log, 8) == 13
    assert start_of_tail(log, 19) == 0


@pytest.mark.parametrize("end", ["", "\n"])
def test_the_tail_of_one_long_line_is_its_end_in_whole_characters(log, end):
    log.write_text("x" + "é" * 500 + end, encoding="utf-8", newline="")
    for limit in range(10, 20):
        start = start_of_tail(log, limit)
        text = log.read_bytes()[start:].decode("utf-8")
        assert 4 <= len(text) <= limit


def test_the_last_bytes_are_there_for_a_diagnosis_without_a_line_end(log):
    log.write_bytes(b"old\n" * 1000 + b"ValueError: gone wrong")
    assert read_tail(log, 50).endswith("ValueError: gone wrong")
    assert len(read_tail(log, 50)) == 50
    log.write_bytes(b"\xff short")
    assert read_tail(log) == "\ufffd short"


def test_the_whole_size_ends_with_a_line(log):
    log.write_bytes("één\ntwo\nthr".encode())
    assert whole_size(log) == 10
    log.write_bytes(b"no line yet")
    assert whole_size(log) == 0
    log.write_bytes(b"x\n" + b"y" * logs.READ_BYTES)
    assert whole_size(log) == 2
    log.write_text("\n" + "é" * logs.READ_BYTES, encoding="utf-8", newline="")
    assert whole_size(log) == 1 + logs.READ_BYTES
    log.write_text("\nx" + "é" * logs.READ_BYTES + "z", encoding="utf-8", newline="")
    assert log.read_bytes()[: whole_size(log)].decode("utf-8")


def test_blocks_give_exactly_what_was_asked_for(log):
    log.write_bytes(bytes(range(256)))
    assert b"".join(blocks(log, 10, 200, size=7)) == bytes(range(10, 200))
    assert b"".join(blocks(log, 250, 999, size=7)) == bytes(range(250, 256))
    assert list(blocks(log, 5, 5)) == []
