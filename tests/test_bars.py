"""Bars of our own programs: what they draw is what the runner reads."""

from __future__ import annotations

import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inputs import patient

from musubitlx import bars
from musubitlx.bars import BYTES, IMAGES, Bar
from musubitlx.logs import Fold
from musubitlx.progress import Progress


def bar(total: float, unit: str, **more) -> Bar:
    return Bar("Captioning", total, unit, out=io.StringIO(), **more)


@patient
@given(
    st.sampled_from([BYTES, IMAGES]),
    st.floats(0, 1e11),
    st.floats(1, 1e11),
    st.floats(0, 400_000),
)
def test_whatever_a_bar_says_is_read_again(unit, done, total, elapsed):
    one = bar(total, unit)
    one.show(done)
    told = bars.read(one.line(elapsed))
    assert told["unit"] == unit
    assert 0 <= told["step"] <= max(told["total"], told["step"] * 0.999)
    assert math.isclose(told["total"], total, rel_tol=1e-3, abs_tol=1e5)
    assert told["elapsed_s"] == int(min(elapsed, 359_999))


def test_bytes_are_told_with_speed_and_time_left():
    one = bar(1.88e9, BYTES, done=0.88e9)
    one.show(1.38e9)
    told = bars.read(one.line(10.0))
    assert told == {
        "unit": "B",
        "step": 1_380_000_000,
        "total": 1_880_000_000,
        "elapsed_s": 10,
        "eta_s": 10,
        "per_s": 50e6,  # what was there before does not count
    }


def test_images_are_told_with_seconds_each_and_parts_of_one_count():
    one = bar(40, IMAGES)
    one.show(2.5)
    told = bars.read(one.line(5.0))
    assert (told["step"], told["total"], told["seconds_per_step"]) == (2, 40, 2.0)
    assert told["eta_s"] == 75
    assert "2.5/40 [" in one.line(5.0)


def test_a_bar_that_has_not_moved_promises_nothing():
    told = bars.read(bar(40, IMAGES).line(3.0))
    assert told["eta_s"] is None and "seconds_per_step" not in told


def test_a_bar_never_goes_back_nor_over_its_end():
    one = bar(10, IMAGES)
    one.show(6)
    one.show(4)
    assert "6/10" in one.line(1)
    one.show(12)
    assert "10/10" in one.line(1) and "100%" in one.line(1)


def test_lines_and_bars_fold_into_a_readable_log():
    out = io.StringIO()
    one = Bar("Captioning", 3, IMAGES, out=out)
    for number in range(1, 4):
        one.show(number - 0.5, now=True)
        one.say(f"{number}.jpg: a cat")
        one.show(number, now=True)
    one.end()
    fold, progress = Fold(), Progress()
    text, states = fold.feed(out.getvalue().encode())
    rest, more = fold.end()
    lines = [line for line in (text + rest).splitlines() if line.strip()]
    assert [line for line in lines if "jpg" in line] == [f"{n}.jpg: a cat" for n in (1, 2, 3)]
    assert sum("s/image]" in line for line in lines) == 1  # only its last state
    for state in [*states, *more]:
        progress.read_bar(state)
    assert (progress.current["step"], progress.current["total"]) == (3, 3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "100%|##########| 3/3 [00:01<00:00, 1.00it/s]",
        "Captioning:  50%|#####     | 1/2 cats [00:01<00:01, 1 s/image]",
        "steps:  50%|#####     | 1/2 [00:01<00:01,  1.00it/s, avr_loss=0.1]",
    ],
)
def test_bars_of_others_are_not_ours(text):
    assert bars.read(text) is None


def test_musubis_bars_are_read_as_before():
    progress = Progress()
    progress.read_bar(
        "steps:  50%|#####     | 10/20 [00:20<00:20,  2.00s/it, avr_loss=0.123]",
    )
    assert progress.current["step"] == 10 and "unit" not in progress.current
