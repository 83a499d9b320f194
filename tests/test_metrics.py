"""The figures of a run, as a chart takes them."""

from __future__ import annotations

import itertools
import json

import pytest

from musubitlx.metrics import COLUMNS, POINTS, read_columns


def write(path, count: int, tail: bytes = b"") -> None:
    rows = ({"step": n, "epoch": 1, "loss": 1 / n} for n in range(1, count + 1))
    path.write_bytes("".join(json.dumps(row) + "\n" for row in rows).encode() + tail)


def test_every_row_is_there_and_what_is_unknown_is_none(tmp_path):
    write(tmp_path / "m", 3)
    columns = read_columns(tmp_path / "m")
    assert tuple(columns) == COLUMNS
    assert columns["step"] == [1, 2, 3]
    assert columns["loss"] == [1, 1 / 2, 1 / 3]
    assert columns["vram"] == [None] * 3


@pytest.mark.parametrize("count", [POINTS, POINTS + 1, 2 * POINTS + 7, 40_000])
def test_a_long_run_is_thinned_evenly_and_keeps_its_ends(tmp_path, count):
    write(tmp_path / "m", count)
    steps = read_columns(tmp_path / "m")["step"]
    assert len(steps) == POINTS
    assert (steps[0], steps[-1]) == (1, count)
    gaps = {b - a for a, b in itertools.pairwise(steps)}
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(
    "tail", [b'{"step": 4, "lo', b"\xff\xfe\x00\n", b"[1]\n", b"null\n", b"\n\n"]
)
def test_a_row_cut_short_or_damaged_is_left_out(tmp_path, tail):
    write(tmp_path / "m", 3, tail)
    assert read_columns(tmp_path / "m")["step"] == [1, 2, 3]


def test_a_run_without_figures_has_empty_columns(tmp_path):
    assert read_columns(tmp_path / "m") == {name: [] for name in COLUMNS}
    (tmp_path / "m").touch()
    assert read_columns(tmp_path / "m")["loss"] == []
