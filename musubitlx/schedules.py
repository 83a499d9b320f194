"""The learning rate of each step, worked out from a run's command: Musubi does not print it.

Source: Musubi Tuner 0.3.4, training/trainer_base.py and the schedules of transformers and
diffusers it calls. What can't be known is not guessed: then there is a reason in its place.
"""

from __future__ import annotations

import argparse
import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from musubitlx.options import TRAIN, recorded

Factor = Callable[[int], float]

ADAPTIVE = ("prodigy", "dadapt", "schedulefree", "mechanic")
OWN_RATE = "the optimizer {} finds the learning rate by itself, so it is not known"
FAR = 10**9  # steps


@dataclass(frozen=True)
class Schedule:
    """The rate of each step from 1 on, or why it is unknown."""

    rate: Callable[[int], float] | None = None
    reason: str | None = None

    def at(self, step: int) -> float | None:
        """The rate step `step` is made with (the first is 1), None where it is unknown."""
        if self.rate is None or not 1 <= step <= FAR:
            return None
        try:
            value = self.rate(step - 1)
        except (ArithmeticError, ValueError, TypeError, LookupError):  # arguments torch refuses
            return None
        return value if isinstance(value, float) and math.isfinite(value) else None


@dataclass(frozen=True)
class Shape:
    """What a schedule is made from: all steps, its parts, and the options' values."""

    base: float
    total: int
    warm: int
    decay: int
    cycles: int
    power: float
    timescale: int | None
    least: float | None
    args: Mapping[str, object]


def of_command(argv: list[str], total: int | None) -> Schedule:
    """The schedule of a training with these arguments and so many steps in all."""
    try:
        given = recorded().parser(TRAIN, _Parser).parse_known_args(argv)[0]
        return _schedule(given, total)
    except (ValueError, TypeError, SyntaxError, ArithmeticError, KeyError, RecursionError):
        return Schedule(reason="the learning rate can't be worked out from this run's settings")


class _Parser(argparse.ArgumentParser):
    def __init__(self, **more):
        super().__init__(**more, add_help=False)

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _schedule(given: argparse.Namespace, total: int | None) -> Schedule:
    if given.config_file:
        return Schedule(reason="the run took settings from a file of its own (--config_file)")
    if reason := _own_rate(given):
        return Schedule(reason=reason)
    if given.lr_scheduler_type:
        name = given.lr_scheduler_type
        return Schedule(reason=f"the scheduler {name} is a class of its own (--lr_scheduler_type)")
    name = given.lr_scheduler.lower() if given.lr_scheduler.lower() == "rex" else given.lr_scheduler
    if name not in FACTORS:
        return Schedule(reason=f"the scheduler {name} is not one whose course is known")
    args = _literals(given.lr_scheduler_args)
    if args.get("last_epoch", -1) != -1 or given.resume:
        return Schedule(reason="the schedule goes on from an earlier run, where is not known")
    if not total:
        if name != "constant":
            return Schedule(reason="the number of all steps is not known yet")
        total = 1
    shape = Shape(
        base=float(given.learning_rate),
        total=total,
        warm=_steps(given.lr_warmup_steps, total),
        decay=_steps(given.lr_decay_steps, total),
        cycles=given.lr_scheduler_num_cycles,
        power=given.lr_scheduler_power,
        timescale=given.lr_scheduler_timescale,
        least=given.lr_scheduler_min_lr_ratio,
        args=args,
    )
    factor = FACTORS[name](shape)
    return Schedule(rate=lambda done: shape.base * factor(done))


def _own_rate(given: argparse.Namespace) -> str | None:
    """Why the rate is the optimizer's own, None if it is the scheduler's."""
    name = given.optimizer_type or ""
    last = name.rsplit(".", 1)[-1]
    if any(word in name.lower() for word in ADAPTIVE):
        return OWN_RATE.format(last)
    if name.lower() == "adafactor":
        args = _literals(given.optimizer_args)
        if args.get("relative_step", True) or args.get("warmup_init", False):
            return OWN_RATE.format("Adafactor")
    return None


def _literals(words: list[str] | None) -> dict[str, object]:
    pairs = (word.split("=") for word in words or [])
    return {key: ast.literal_eval(value) for key, value in pairs}


def _steps(given: float, total: int) -> int:
    """A number of steps, or a share of them all, in steps."""
    return int(given * total) if isinstance(given, float) else given


# -- the courses, as factors of the learning rate after so many steps ------------------------------


def _share(done: float, whole: float) -> float:
    return float(done) / float(max(1, whole))


def _warmed(shape: Shape, after: Factor) -> Factor:
    """Up from 0 in even steps, then what `after` says."""
    return lambda done: _share(done, shape.warm) if done < shape.warm else after(done)


def _gone(shape: Shape, done: int) -> float:
    """The share of what comes after the warm-up that is over."""
    return _share(done - shape.warm, shape.total - shape.warm)


def _constant(shape: Shape) -> Factor:
    return lambda done: 1.0


def _constant_with_warmup(shape: Shape) -> Factor:
    return _warmed(shape, lambda done: 1.0)


def _linear(shape: Shape) -> Factor:
    left = shape.total - shape.warm
    return _warmed(shape, lambda done: max(0.0, _share(shape.total - done, left)))


def _wave(cycles: float, share: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * cycles * 2.0 * share))


def _cosine(shape: Shape) -> Factor:
    cycles = float(shape.args.get("num_cycles", 0.5))
    return _warmed(shape, lambda done: max(0.0, _wave(cycles, _gone(shape, done))))


def _cosine_with_restarts(shape: Shape) -> Factor:
    def after(done: int) -> float:
        share = _gone(shape, done)
        return _wave(0.5, (shape.cycles * share) % 1.0) if share < 1 else 0.0

    return _warmed(shape, after)


def _polynomial(shape: Shape) -> Factor:
    end = float(shape.args.get("lr_end", 1e-7))

    def after(done: int) -> float:
        if done > shape.total:
            return end / shape.base
        left = 1 - (done - shape.warm) / (shape.total - shape.warm)
        return ((shape.base - end) * left**shape.power + end) / shape.base

    return _warmed(shape, after)


def _inverse_sqrt(shape: Shape) -> Factor:
    scale = shape.warm or 10_000 if shape.timescale is None else shape.timescale
    return _warmed(shape, lambda done: 1.0 / math.sqrt((done + scale - shape.warm) / scale))


def _cosine_with_min_lr(shape: Shape) -> Factor:
    end = shape.args.get("min_lr")
    least = float(shape.least if end is None else end / shape.base)

    def after(done: int) -> float:
        return max(0.0, _wave(shape.cycles / 2, _gone(shape, done)) * (1 - least) + least)

    return _warmed(shape, after)


UP = {
    "linear": lambda share: share,
    "cosine": lambda share: 0.5 * (1.0 - math.cos(math.pi * share)),
    "1-sqrt": lambda share: 1.0 - math.sqrt(1.0 - share),
}


def _warmup_stable_decay(shape: Shape) -> Factor:
    least = shape.least or 0.0
    up, down = shape.args.get("warmup_type", "linear"), shape.args.get("decay_type", "cosine")
    stable = shape.total - shape.decay  # the end of the level part
    courses = {
        "linear": lambda share: 1.0 - share,
        "cosine": lambda share: _wave(shape.cycles / 2, share),
        "1-sqrt": lambda share: 1.0 - math.sqrt(share),
    }

    def factor(done: int) -> float:
        if done < shape.warm:
            course = UP[up](_share(done, shape.warm))
        elif done < stable:
            return 1.0
        elif done < stable + shape.decay:
            course = courses[down](_share(done - stable, shape.decay))
        else:
            return least
        return max(0.0, course * (1.0 - least) + least)

    return factor


def _piecewise_constant(shape: Shape) -> Factor:
    *rules, last = str(shape.args["step_rules"]).split(",")
    pairs = (rule.split(":") for rule in rules)
    until = sorted({int(step): float(factor) for factor, step in pairs}.items())

    def factor(done: int) -> float:
        return next((value for step, value in until if done < step), float(last))

    return factor


def _rex(shape: Shape) -> Factor:
    least = 0.01 if shape.least is None else shape.least
    alpha = float(shape.args.get("rex_alpha", 0.1))
    beta = float(shape.args.get("rex_beta", 0.9))
    left = shape.total - shape.warm

    def factor(done: int) -> float:
        if shape.warm == 1 and done == 1:
            return least
        if shape.warm > 1 and 1 <= done <= shape.warm - 1:
            return least + (1 - least) * (done - 1) / (shape.warm - 1)
        after = done - shape.warm
        if after >= left or after == -1 or left <= 0:
            return least
        part = (left - after % left) / left
        return least + (1.0 - least) * (part / (alpha + beta * part))

    return factor


FACTORS: dict[str, Callable[[Shape], Factor]] = {
    "constant": _constant,
    "constant_with_warmup": _constant_with_warmup,
    "linear": _linear,
    "cosine": _cosine,
    "cosine_with_restarts": _cosine_with_restarts,
    "polynomial": _polynomial,
    "inverse_sqrt": _inverse_sqrt,
    "cosine_with_min_lr": _cosine_with_min_lr,
    "warmup_stable_decay": _warmup_stable_decay,
    "piecewise_constant": _piecewise_constant,
    "rex": _rex,
}
