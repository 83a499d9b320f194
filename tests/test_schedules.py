"""The learning rate of each step, from a run's command. Against Musubi itself: real/."""

from __future__ import annotations

import pytest

from musubitlx.schedules import FACTORS, of_command

BASE = ["--learning_rate", "1e-4", "--optimizer_type", "AdamW"]


def rates(*flags: str, total: int = 100, steps=(1, 11, 51, 100)) -> list[float]:
    found = of_command([*BASE, *flags], total)
    assert found.reason is None
    return [found.at(step) for step in steps]


def test_without_a_scheduler_the_rate_stays():
    assert rates() == [1e-4] * 4
    assert of_command(BASE, None).at(7) == 1e-4  # also before the number of steps is known


@pytest.mark.parametrize("warm", ["10", "10%", "0.1"])
def test_a_warm_up_is_steps_or_a_share_of_them(warm):
    found = rates("--lr_scheduler", "linear", "--lr_warmup_steps", warm, steps=(1, 6, 11, 56))
    assert found == pytest.approx([0, 5e-5, 1e-4, 5e-5])


def test_a_cosine_falls_to_nothing():
    found = rates("--lr_scheduler", "cosine", steps=(1, 51, 101))
    assert found == pytest.approx([1e-4, 5e-5, 0])


def test_the_first_step_of_a_warm_up_learns_nothing():
    flags = ("--lr_scheduler", "constant_with_warmup", "--lr_warmup_steps", "1")
    assert rates(*flags, steps=(1, 2)) == [0, 1e-4]


def test_rules_are_kept_until_their_step():
    rules = "step_rules='1:10,0.1:20,0.01'"
    found = rates(
        *("--lr_scheduler", "piecewise_constant", "--lr_scheduler_args", rules),
        steps=(10, 11, 20, 21),
    )
    assert found == pytest.approx([1e-4, 1e-5, 1e-5, 1e-6])


def test_the_last_of_two_flags_holds_and_an_unknown_one_is_no_matter():
    found = of_command(
        [*BASE, "--brand_new", "1", "--lr_scheduler", "cosine", "--lr_scheduler", "linear"], 100
    )
    assert found.at(51) == pytest.approx(5e-5)


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--optimizer_type", "Adafactor"], "Adafactor"),
        (["--optimizer_type", "prodigyopt.Prodigy"], "Prodigy"),
        (["--optimizer_type", "schedulefree.AdamWScheduleFree"], "AdamWScheduleFree"),
        (["--lr_scheduler_type", "CosineAnnealingLR"], "CosineAnnealingLR"),
        (["--lr_scheduler", "reduce_lr_on_plateau"], "reduce_lr_on_plateau"),
        (["--config_file", "more.toml"], "--config_file"),
        (["--resume", "state"], "earlier run"),
        (["--lr_scheduler", "cosine_with_min_lr"], "worked out"),
        (["--lr_scheduler", "piecewise_constant"], "worked out"),
        (["--lr_scheduler_args", "x"], "worked out"),
        (["--learning_rate", "fast"], "worked out"),
    ],
)
def test_what_is_not_known_is_said_and_not_guessed(flags, word):
    found = of_command([*BASE, *flags], 100)
    assert found.at(5) is None
    assert word in found.reason


def test_adafactor_with_a_given_rate_follows_the_scheduler():
    flags = ["--optimizer_type", "Adafactor", "--optimizer_args", "relative_step=False"]
    assert rates(*flags, "--lr_scheduler", "linear", steps=(51,)) == pytest.approx([5e-5])


@pytest.mark.parametrize("name", sorted(set(FACTORS) - {"constant"}))
def test_before_the_number_of_steps_is_known_a_course_is_not(name):
    assert "number of all steps" in of_command([*BASE, "--lr_scheduler", name], None).reason


@pytest.mark.parametrize("name", sorted(set(FACTORS) - {"piecewise_constant"}))
@pytest.mark.parametrize("total", [1, 2, 7])
@pytest.mark.parametrize("warm", ["0", "1", "100%"])
def test_short_runs_and_odd_warm_ups_never_fail(name, total, warm):
    flags = ["--lr_scheduler", name, "--lr_warmup_steps", warm, "--lr_decay_steps", "50%"]
    found = of_command([*BASE, *flags, "--lr_scheduler_min_lr_ratio", "0.1"], total)
    for step in (0, 1, total, total + 1, 10**12):
        value = found.at(step)
        assert value is None or 0 <= value <= 1.01e-4


@pytest.mark.parametrize("argument", ["decay_type=1", "warmup_type=None", "decay_type=[]"])
def test_a_course_that_is_none_has_no_rate(argument):
    """The run would fail with it; a chart of it does not."""
    words = ["--lr_scheduler", "warmup_stable_decay", "--lr_decay_steps", "0.5"]
    words += ["--lr_warmup_steps", "0.2", "--lr_scheduler_args", argument]
    found = of_command(words, 100)
    assert None in [found.at(step) for step in (1, 100)]
