"""Rules of `--lr_scheduler_type`: the schedulers of torch, and those of other packages.

Source: Musubi Tuner 0.3.4, training/trainer_base.py, and torch 2.13, optim/lr_scheduler.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from musubitlx.flagrules.given import Given, Problem, ignored, nearest, shown
from musubitlx.flagrules.kinds import (
    SWITCH,
    Kind,
    choice,
    either,
    fit,
    maybe,
    number,
    only,
    several,
    whole,
    wrong,
)

LAST_EPOCH = only(-1)  # with any other torch wants a schedule that was saved
_GAMMA = number(0, 10, example="0.1")
_STEPS = number(0, example="100")
_LENGTH = number(0, above=True, example="100")
_ETA = number(0, example="1e-6")
_RATE = either(number(0, example="1e-4"))
_MOMENTUM = either(number(0, 1, below=True, example="0.9"))
_PART = Kind(  # torch takes 0.0 and 1.0, and not 0 and 1
    lambda value: isinstance(value, float) and 0 <= value <= 1,
    "a number from 0.0 to 1.0, with a point",
    "0.3",
)

CLASSES = {  # torch's schedulers -> the arguments they can't do without, all of them
    "ConstantLR": ((), {"factor": number(0, 1, above=True, example="0.5"), "total_iters": _STEPS}),
    "LinearLR": (
        (),
        {
            "start_factor": number(0, 1, above=True, example="0.1"),
            "end_factor": number(0, 1, example="1.0"),
            "total_iters": _STEPS,
        },
    ),
    "PolynomialLR": ((), {"total_iters": _STEPS, "power": number(0, example="1.0")}),
    "StepLR": (("step_size",), {"step_size": _LENGTH, "gamma": _GAMMA}),
    "MultiStepLR": (
        ("milestones",),
        {
            "milestones": several(
                number(0, example=""), "numbers of steps in brackets", "[100,200]"
            ),
            "gamma": _GAMMA,
        },
    ),
    "ExponentialLR": (("gamma",), {"gamma": number(0, 10, example="0.99")}),
    "CosineAnnealingLR": (("T_max",), {"T_max": _LENGTH, "eta_min": _ETA}),
    "CosineAnnealingWarmRestarts": (
        ("T_0",),
        {"T_0": whole(1, example="100"), "T_mult": whole(1, example="2"), "eta_min": _ETA},
    ),
    "CyclicLR": (
        ("base_lr", "max_lr"),
        {
            "base_lr": either(number(0, example="1e-5")),
            "max_lr": _RATE,
            "step_size_up": _LENGTH,
            "step_size_down": maybe(_STEPS),
            "mode": choice("triangular", "triangular2", "exp_range"),
            "gamma": number(0, 1, example="0.999"),
            "scale_fn": only(None),
            "scale_mode": choice("cycle", "iterations"),
            "cycle_momentum": SWITCH,
            "base_momentum": _MOMENTUM,
            "max_momentum": _MOMENTUM,
        },
    ),
    "OneCycleLR": (
        ("max_lr", "total_steps"),
        {
            "max_lr": _RATE,
            "total_steps": maybe(whole(1, example="1000")),
            "epochs": maybe(whole(1, example="10")),
            "steps_per_epoch": maybe(whole(1, example="100")),
            "pct_start": _PART,
            "anneal_strategy": choice("cos", "linear"),
            "cycle_momentum": SWITCH,
            "base_momentum": _MOMENTUM,
            "max_momentum": _MOMENTUM,
            "div_factor": number(0, above=True, example="25.0"),
            "final_div_factor": number(0, above=True, example="1e4"),
            "three_phase": SWITCH,
        },
    ),
}
UNUSABLE = ("LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler")
UNUSABLE += ("ReduceLROnPlateau", "LRScheduler")  # they need what no flag can give
_TORCH = "torch.optim.lr_scheduler."


def scheduler_class(given: Given, args: dict) -> Iterator[Problem]:
    """`--lr_scheduler_type`: a class of torch by name, or of another package by its path."""
    name = given.get("--lr_scheduler_type")
    bare = name.removeprefix(_TORCH)
    if bare in CLASSES:
        yield from _arguments(given, bare, args)
    elif bare in UNUSABLE:
        yield Problem(
            f"--lr_scheduler_type {bare} can't be used, it needs what no flag can give",
            "Use another scheduler.",
        )
    elif name.startswith(_TORCH) or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", name):
        near = nearest(bare, CLASSES)
        yield Problem(
            f"--lr_scheduler_type can't be {shown(name)}",
            f"Did you mean {near}?" if near else "Give the name of one of torch's schedulers.",
        )
    else:
        yield ignored(
            f"--lr_scheduler_type {shown(name)} is not one of torch's schedulers: it can't be "
            "checked before the training",
            "Its package has to be installed in Musubi's environment, and to take these arguments.",
        )


def _arguments(given: Given, name: str, args: dict) -> Iterator[Problem]:
    needed, kinds = CLASSES[name]
    kinds = {**kinds, "last_epoch": LAST_EPOCH}
    yield from wrong("--lr_scheduler_args", args, kinds)
    if missing := _missing(needed, args):
        told = " ".join(f"{key}={kinds[key].example}" for key in missing)
        yield Problem(
            f"--lr_scheduler_type {name} needs {', '.join(missing)}",
            f"Add --lr_scheduler_args {told}, for instance.",
        )
    else:
        yield from _companions(given, name, fit(args, kinds))


def _missing(needed: tuple[str, ...], args: dict) -> list[str]:
    """The arguments a scheduler can't do without and was not given."""
    missing = [key for key in needed if args.get(key) is None]
    if args.get("epochs") is not None and args.get("steps_per_epoch") is not None:
        return [key for key in missing if key != "total_steps"]  # OneCycleLR's other way to say it
    return missing


def _companions(given: Given, name: str, args: dict) -> Iterator[Problem]:
    """What is wrong with good values because of each other, or of the optimizer."""
    adafactor = given.settings.get("optimizer_type") == "Adafactor"
    if "cycle_momentum" in CLASSES[name][1] and adafactor and args.get("cycle_momentum", True):
        yield Problem(
            f"--lr_scheduler_type {name} can't change the momentum of Adafactor, which has none",
            "Add cycle_momentum=False to --lr_scheduler_args.",
        )
    groups = given.groups()
    for key, value in args.items():
        if isinstance(value, (list, tuple)) and key != "milestones" and len(value) != groups:
            yield Problem(
                f"--lr_scheduler_args: {key} needs {groups} numbers in its list"
                if groups > 1
                else f"--lr_scheduler_args: {key} needs one number",
                f"Give one number, as in {key}={value[0]}.",
            )
    total = args.get("total_steps") or args.get("epochs", 0) * args.get("steps_per_epoch", 0)
    if name == "OneCycleLR" and float(args.get("pct_start", 0.3) * total) == 1.0:
        yield Problem(
            "--lr_scheduler_args: pct_start leaves the rise of the learning rate a single step",
            "Give another pct_start: 0.0 for no rise, or one that makes two steps and more.",
        )
