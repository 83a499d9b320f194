"""The figures of a run, as a chart takes them."""

from __future__ import annotations

import itertools
import json
import time

import pytest

from musubitlx import metrics
from musubitlx.metrics import COLUMNS, POINTS, as_csv, read_columns


def row(step: int, **more) -> dict:
    return {"step": step, "epoch": 1, "loss": 1 / step, **more}


def write(path, rows, tail: bytes = b"") -> None:
    path.write_bytes("".join(json.dumps(one) + "\n" for one in rows).encode() + tail)


def write_many(path, count: int, tail: bytes = b"") -> None:
    write(path, map(row, range(1, count + 1)), tail)


def test_every_row_is_there_and_what_is_unknown_is_none(tmp_path):
    write_many(tmp_path / "m", 3)
    columns = read_columns(tmp_path / "m")
    assert set(COLUMNS) < set(columns)
    assert columns["step"] == [1, 2, 3]
    assert columns["loss"] == columns["mean"] == [1, 1 / 2, 1 / 3]
    assert columns["vram"] == [None] * 3
    assert (columns["count"], columns["thinned"]) == (3, False)


@pytest.mark.parametrize("count", [POINTS + 1, 2 * POINTS + 7, 40_000])
def test_a_long_run_is_thinned_evenly_and_keeps_its_ends(tmp_path, count):
    write_many(tmp_path / "m", count)
    columns = read_columns(tmp_path / "m")
    steps = columns["step"]
    assert POINTS / 4 < len(steps) <= POINTS + 2
    assert (steps[0], steps[-1]) == (1, count)
    assert all(a < b for a, b in itertools.pairwise(steps))
    assert max(b - a for a, b in itertools.pairwise(steps)) <= 2 * count / (POINTS / 4)
    assert (columns["count"], columns["thinned"]) == (count, True)


def test_no_peak_is_lost_by_thinning(tmp_path):
    odd = {7_001: {"loss": 9.0}, 12_345: {"loss": -1.0}, 30_000: {"loss": None}}
    odd |= {20_002: {"vram": 24 * 2**30}, 25_001: {"seconds_per_step": 99.5}}
    base = {"loss": 0.5, "vram": 2**30, "seconds_per_step": 1.0}
    write(tmp_path / "m", (row(n, **{**base, **odd.get(n, {})}) for n in range(1, 40_001)))
    columns = read_columns(tmp_path / "m", points=200)
    assert set(odd) < set(columns["step"])
    at = columns["step"].index
    assert columns["loss"][at(7_001)] == 9.0
    assert columns["loss"][at(30_000)] is None
    assert columns["vram"][at(20_002)] == 24 * 2**30


def test_the_mean_of_a_part_is_that_of_all_its_steps(tmp_path):
    write(tmp_path / "m", (row(n, loss=1.0 if n % 10 else 11.0) for n in range(1, 4_001)))
    columns = read_columns(tmp_path / "m", points=80)
    assert columns["mean"] == pytest.approx([2.0] * len(columns["step"]))


def test_a_range_is_given_in_full_with_a_neighbour_on_each_side(tmp_path):
    write_many(tmp_path / "m", 40_000)
    columns = read_columns(tmp_path / "m", 20_000, 20_500)
    assert columns["step"] == list(range(19_999, 20_502))
    assert columns["thinned"] is False
    assert read_columns(tmp_path / "m", 39_990, 50_000)["step"][-1] == 40_000
    assert read_columns(tmp_path / "m", 0, 1)["step"] == [1, 2]
    assert read_columns(tmp_path / "m", 50_000, 60_000)["step"] == [40_000]


def test_what_is_appended_is_there_on_the_next_look(tmp_path):
    write_many(tmp_path / "m", 3, b'{"step": 4, "loss"')
    assert read_columns(tmp_path / "m")["step"] == [1, 2, 3]
    with (tmp_path / "m").open("a") as file:
        file.write(': 0.5}\n{"step": 5, "loss": 0.25}\n')
    assert read_columns(tmp_path / "m")["loss"][2:] == [1 / 3, 0.5, 0.25]


def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    write_many(tmp_path / "m", 30)
    assert len(read_columns(tmp_path / "m")["step"]) == 30
    write(tmp_path / "m", [row(8), row(9)])
    assert read_columns(tmp_path / "m")["step"] == [8, 9]
    (tmp_path / "m").unlink()
    assert read_columns(tmp_path / "m")["step"] == []


def test_a_count_that_begins_again_is_another_training(tmp_path):
    write(tmp_path / "m", [row(1), row(2), row(3), row(1, loss=7), row(2, loss=8)])
    columns = read_columns(tmp_path / "m")
    assert (columns["step"], columns["loss"], columns["count"]) == ([1, 2], [7, 8], 2)
    assert as_csv(tmp_path / "m", lambda step: None).count("\n") == 6  # nothing is kept back


def test_it_is_told_where_epochs_begin(tmp_path):
    write(tmp_path / "m", (row(n, epoch=(n - 1) // 5_000 + 1) for n in range(1, 15_001)))
    columns = read_columns(tmp_path / "m", points=80)
    assert columns["epochs"] == [[1, 1], [2, 5_001], [3, 10_001]]


@pytest.mark.parametrize(
    "tail",
    [
        *(b'{"step": 4, "lo', b"\xff\xfe\x00\n", b"[1]\n", b"null\n", b"\n\n"),
        *(b'{"step": null}\n', b'{"step": true}\n', b'{"step": 1e999}\n', b"[" * 9_999 + b"\n"),
        b'{"step": ' + b"9" * 400 + b"}\n",
    ],
)
def test_a_row_cut_short_or_damaged_is_left_out(tmp_path, tail):
    write_many(tmp_path / "m", 3, tail)
    assert read_columns(tmp_path / "m")["step"] == [1, 2, 3]


def test_a_run_without_figures_has_empty_columns(tmp_path):
    for _ in range(2):
        columns = read_columns(tmp_path / "m")
        assert all(columns[name] == [] for name in (*COLUMNS, "mean", "epochs"))
        (tmp_path / "m").touch()


def test_the_table_has_every_step_with_its_rate(tmp_path):
    write(tmp_path / "m", [row(1, vram=5, ram=6, seconds_per_step=0.5, time=7.25), row(2)])
    assert as_csv(tmp_path / "m", lambda step: step / 1e4).splitlines() == [
        "step,epoch,loss,seconds_per_step,lr,vram_bytes,ram_bytes,time",
        "1,1,1.0,0.5,0.0001,5,6,7.25",
        "2,1,0.5,,0.0002,,,",
    ]


def test_only_the_runs_looked_at_last_stay_read(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "KEPT_ROWS", 1000)
    for n in range(8):
        write_many(tmp_path / f"{n}", 300)
        read_columns(tmp_path / f"{n}")
        assert tmp_path / f"{n}" in metrics._known
    assert sum(one.size for one in metrics._known.values()) <= 1300
    assert tmp_path / "6" in metrics._known and tmp_path / "1" not in metrics._known


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ({}, (38.5, 40, 4)),
        ({"epoch": 1}, (8.5, 10, 4)),
        ({"epoch": 9}, (38.5, 40, 4)),
        ({"epoch": 0}, (None, None, None)),
        ({"step": 12}, (10.5, 12, 4)),
        ({"step": 2}, (1.5, 2, 2)),
        ({"step": 41}, (None, 41, None)),
        ({"step": 25}, (23, 25, 3)),
    ],
)
def test_the_loss_at_a_place_is_that_of_the_last_steps_before_it(tmp_path, place, told):
    rows = [row(n, loss=n if n != 24 else None, epoch=(n - 1) // 10 + 1) for n in range(1, 41)]
    write(tmp_path / "m", rows)
    found = metrics.figures(tmp_path / "m").last_loss(4, **place)
    loss, step, steps = told
    assert found["steps"] == steps and found["step"] == step
    assert found["loss"] == (pytest.approx((22 + 23 + 25) / 3) if step == 25 else loss)


def test_the_loss_is_that_of_the_training_that_counts_now(tmp_path):
    write(tmp_path / "m", [row(1, loss=9), row(2, loss=9), row(1, loss=1)])
    assert metrics.figures(tmp_path / "m").last_loss(10)["loss"] == 1


def test_a_look_into_a_long_run_is_quick_once_it_was_read(tmp_path):
    write_many(tmp_path / "m", 100_000)
    read_columns(tmp_path / "m")
    begun = time.monotonic()
    for n in range(10):
        read_columns(tmp_path / "m", n * 1_000, n * 1_000 + 5_000)
    assert time.monotonic() - begun < 2
