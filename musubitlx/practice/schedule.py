"""How the learning rate changes over a run: Musubi's `--lr_scheduler` names."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

from musubitlx.practice.bars import logger

log = logger("training.trainer_base")

Shape = Callable[[float, argparse.Namespace], float]  # share of the run done (0..1) -> factor


def _cosine(done: float, args: argparse.Namespace) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))


def _cosine_with_restarts(done: float, args: argparse.Namespace) -> float:
    return _cosine(done * args.lr_scheduler_num_cycles % 1.0, args) if done < 1 else 0.0


def _cosine_with_floor(done: float, args: argparse.Namespace) -> float:
    floor = args.lr_scheduler_min_lr_ratio
    if floor is None:
        raise ValueError("One of min_lr or min_lr_rate should be set through `lr_scheduler_kwargs`")
    return floor + (1 - floor) * _cosine(done, args)


def _rex(done: float, args: argparse.Namespace) -> float:
    return (1 - done) / (1 - done / 2)


SHAPES: dict[str, Shape] = {
    "constant": lambda done, args: 1.0,
    "constant_with_warmup": lambda done, args: 1.0,
    "linear": lambda done, args: 1 - done,
    "cosine": _cosine,
    "cosine_with_restarts": _cosine_with_restarts,
    "cosine_with_min_lr": _cosine_with_floor,
    "polynomial": lambda done, args: (1 - done) ** args.lr_scheduler_power,
    "rex": _rex,
}
HELD_CONSTANT = ("inverse_sqrt", "warmup_stable_decay", "piecewise_constant", "adafactor")


def make_schedule(args: argparse.Namespace, total: int) -> Callable[[int], float]:
    """Return the function that gives the learning rate at a step, counted from 0.

    Raises ValueError for a name Musubi does not know, and for `constant` with a
    warm-up. A few rare ones are known but held constant; a log line says so.
    """
    shape = _shape(args)
    warmup = _in_steps(args.lr_warmup_steps, total)
    if args.lr_scheduler == "constant" and warmup:
        raise ValueError(
            "SchedulerType.CONSTANT does not require `num_warmup_steps`. Set None or 0."
        )
    shape(0.0, args)  # a missing argument shows now, not in mid-run

    def rate(step: int) -> float:
        if step < warmup:
            return args.learning_rate * step / warmup
        return args.learning_rate * shape((step - warmup) / max(1, total - warmup), args)

    return rate


def _shape(args: argparse.Namespace) -> Shape:
    name = args.lr_scheduler_type or args.lr_scheduler
    if args.lr_scheduler_type or name in HELD_CONSTANT:
        log.info("practice run: the learning rate stays constant instead of following %s", name)
        return SHAPES["constant"]
    if name not in SHAPES:
        raise ValueError(f"{name} is not a valid SchedulerType, please select one of {[*SHAPES]}")
    return SHAPES[name]


def _in_steps(value: int | float | None, total: int) -> int:
    """Whole numbers are steps, fractions a share of the run."""
    return int(value * total) if isinstance(value, float) else value or 0
