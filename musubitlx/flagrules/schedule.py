"""Rules of the optimizer and of the learning rate's schedule.

Source: Musubi Tuner 0.3.4, training/trainer_base.py, and the schedules of transformers and
diffusers it calls.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from musubitlx.flagrules.given import (
    RANGES,
    TAKEN,
    Given,
    Problem,
    ignored,
    literals,
    nearest,
    shown,
    unknown_key,
)

# -- the optimizer ---------------------------------------------------------------------------------

OPTIMIZER_ARGS = {  # what the constructor takes besides what Musubi gives itself
    "AdamW": (
        *("betas", "eps", "weight_decay", "amsgrad", "maximize", "foreach", "capturable"),
        *("differentiable", "fused"),
    ),
    "Adafactor": (
        *("eps", "clip_threshold", "decay_rate", "beta1", "weight_decay", "scale_parameter"),
        *("relative_step", "warmup_init"),
    ),
    "AdamW8bit": (
        *("betas", "eps", "weight_decay", "amsgrad", "optim_bits", "args", "min_8bit_size"),
        *("percentile_clipping", "block_wise", "is_paged"),
    ),
}


def optimizer(given: Given) -> Iterator[Problem]:
    """`--optimizer_args` against the optimizer of the form."""
    found: list[Problem] = []
    args = literals(given, "--optimizer_args", found)
    yield from found
    known = OPTIMIZER_ARGS.get(given.settings.get("optimizer_type"), args)
    for key, value in args.items():
        if key == "lr":
            text = "--optimizer_args: lr is set by the form already"
            yield Problem(text, TAKEN["--learning_rate"])
        elif key not in known:
            yield unknown_key("--optimizer_args", key, known)
        elif key == "betas" and not _are_betas(value):
            yield Problem(
                f"--optimizer_args: betas can't be {shown(value)}",
                "Give two numbers from 0 to below 1, as in betas=0.9,0.99.",
            )
        elif key == "weight_decay" and not _is_number(value, 0):
            yield Problem(
                f"--optimizer_args: weight_decay can't be {shown(value)}",
                "Give a number from 0, as in weight_decay=0.01.",
            )


def _is_number(value: object, low: float) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and low <= value < float("inf")


def _are_betas(value: object) -> bool:
    pair = isinstance(value, (tuple, list)) and len(value) == 2
    return pair and all(_is_number(one, 0) and one < 1 for one in value)


# -- the learning rate's schedule ------------------------------------------------------------------

_WARM, _DECAY = "--lr_warmup_steps", "--lr_decay_steps"
_CYCLES, _POWER = "--lr_scheduler_num_cycles", "--lr_scheduler_power"
_SCALE, _RATIO = "--lr_scheduler_timescale", "--lr_scheduler_min_lr_ratio"
_SHAPES = (_WARM, _DECAY, _CYCLES, _POWER, _SCALE, _RATIO)

SCHEDULERS = {  # name -> the options it uses, the keys of --lr_scheduler_args it takes
    "constant": ((), ()),
    "constant_with_warmup": ((_WARM,), ()),
    "linear": ((_WARM,), ()),
    "cosine": ((_WARM,), ("num_cycles",)),
    "cosine_with_restarts": ((_WARM, _CYCLES), ()),
    "polynomial": ((_WARM, _POWER), ("lr_end",)),
    "inverse_sqrt": ((_WARM, _SCALE), ()),
    "cosine_with_min_lr": ((_WARM, _CYCLES, _RATIO), ("min_lr",)),
    "warmup_stable_decay": ((_WARM, _DECAY, _CYCLES, _RATIO), ("warmup_type", "decay_type")),
    "piecewise_constant": ((), ("step_rules",)),
    "rex": ((_WARM, _RATIO), ("rex_alpha", "rex_beta")),
    "adafactor": ((), None),
}
FAILING = {
    "reduce_lr_on_plateau": "Musubi gives it arguments it does not take",
    "cosine_warmup_with_min_lr": "Musubi gives it arguments it does not take",
}
CLASSES = {  # torch's schedulers -> the arguments they can't do without; None: can't be used
    "ConstantLR": (),
    "LinearLR": (),
    "PolynomialLR": (),
    "StepLR": ("step_size",),
    "MultiStepLR": ("milestones",),
    "ExponentialLR": ("gamma",),
    "CosineAnnealingLR": ("T_max",),
    "CosineAnnealingWarmRestarts": ("T_0",),
    "CyclicLR": ("base_lr", "max_lr"),
    "OneCycleLR": ("max_lr", "total_steps"),
    "LambdaLR": None,
    "MultiplicativeLR": None,
    "SequentialLR": None,
    "ChainedScheduler": None,
    "ReduceLROnPlateau": None,
    "LRScheduler": None,
}


def scheduler(given: Given) -> Iterator[Problem]:
    """Names, companions and arguments of the learning rate's schedule."""
    found: list[Problem] = []
    args = literals(given, "--lr_scheduler_args", found)
    yield from found
    for name in (_WARM, _DECAY):
        value = given.values.get(name)
        if isinstance(value, float) and value > 1:
            yield Problem(f"{name} is more than all steps", RANGES[name][2])
    if given.get("--lr_scheduler_type"):
        yield from _scheduler_class(given, args)
        return
    name = given.get("--lr_scheduler") or "constant"
    name = "rex" if name.lower() == "rex" else name
    if _relative(given):
        if given.has("--lr_scheduler") and name != "adafactor":
            yield ignored(
                f"--lr_scheduler {shown(name)} is ignored, Adafactor has a schedule of its own",
                "Add --optimizer_args relative_step=False to use it.",
            )
        name = "adafactor"
    elif name.startswith("adafactor"):
        yield from _adafactor(given, name)
        return
    if name in SCHEDULERS:
        yield from _named(given, name, args)
    else:
        yield _no_scheduler(name)


def _relative(given: Given) -> bool:
    """Tell whether the optimizer sets the learning rate itself, as Adafactor does by default."""
    if given.settings.get("optimizer_type") != "Adafactor":
        return False
    args = literals(given, "--optimizer_args", [])
    return bool(args.get("relative_step", True) or args.get("warmup_init", False))


def _adafactor(given: Given, name: str) -> Iterator[Problem]:
    optimizer = given.settings.get("optimizer_type")
    if optimizer not in (None, "Adafactor"):
        yield Problem(
            "--lr_scheduler adafactor needs the optimizer Adafactor",
            "Choose Adafactor under “Optimizer”, or take the scheduler out.",
        )
    elif optimizer and not re.fullmatch(r"adafactor:[0-9.]+(e-?[0-9]+)?", name):
        yield Problem(
            "--lr_scheduler adafactor can't be used with relative_step=False",
            "Use constant_with_warmup, or take relative_step=False out.",
        )


def _no_scheduler(name: str) -> Problem:
    if name in FAILING:
        return Problem(
            f"--lr_scheduler {name} can't be used, {FAILING[name]}",
            "Use cosine, or cosine_with_min_lr with --lr_scheduler_min_lr_ratio 0.1.",
        )
    near = nearest(name, SCHEDULERS)
    names = ", ".join(SCHEDULERS)
    return Problem(
        f"--lr_scheduler can't be {shown(name)}",
        (f"Did you mean {near}? " if near else "") + f"Musubi has {names}.",
    )


def _named(given: Given, name: str, args: dict) -> Iterator[Problem]:
    used, keys = SCHEDULERS[name]
    for option in _SHAPES:
        if not given.has(option) or option in used:
            continue
        if option == _WARM and name in ("constant", "adafactor"):
            if given.get(_WARM):
                yield _no_warm_up(name)
        elif given.get(option):
            yield ignored(
                f"{option} has no effect with the scheduler {name}",
                f"Take it out, or choose one that uses it: {', '.join(_users(option))}.",
            )
    for key in args:
        if keys is not None and key not in (*keys, "last_epoch"):
            yield unknown_key("--lr_scheduler_args", key, (*keys, "last_epoch"))
    if keys is None and args:
        yield ignored(
            "--lr_scheduler_args has no effect with Adafactor's own schedule", "Take it out."
        )
    yield from COMPANIONS.get(name, lambda given, args: ())(given, args)


def _no_warm_up(name: str) -> Problem:
    hint = "Add --lr_scheduler constant_with_warmup, or take the warm-up out."
    if name == "adafactor":
        hint = "Take it out, or add --optimizer_args relative_step=False."
    return Problem(f"{_WARM} can't be used with the scheduler {name}", hint)


def _users(option: str) -> list[str]:
    return [name for name, (used, _) in SCHEDULERS.items() if option in used]


def _min_lr(given: Given, args: dict) -> Iterator[Problem]:
    if given.get(_RATIO) is None and "min_lr" not in args:
        yield Problem(
            f"--lr_scheduler cosine_with_min_lr needs {_RATIO}", f"Add {_RATIO} 0.1, for instance."
        )
    elif given.get(_RATIO) is not None and "min_lr" in args:
        yield Problem(f"{_RATIO} and min_lr can't be used together", "Take one of them out.")


def _stable(given: Given, args: dict) -> Iterator[Problem]:
    shares = [given.get(name) for name in (_WARM, _DECAY)]
    if not given.get(_DECAY):
        yield ignored(
            f"--lr_scheduler warmup_stable_decay never decays without {_DECAY}",
            f"Add {_DECAY} 20%, for instance.",
        )
    elif all(isinstance(share, float) for share in shares) and sum(shares) > 1:
        yield Problem(f"{_WARM} and {_DECAY} are more than all steps", "Together at most 100%.")
    for key in ("warmup_type", "decay_type"):
        if args.get(key, "linear") not in ("linear", "cosine", "1-sqrt"):
            yield Problem(
                f"--lr_scheduler_args: {key} can't be {shown(args[key])}",
                "Use 'linear', 'cosine' or '1-sqrt'.",
            )


def _steps_rules(given: Given, args: dict) -> Iterator[Problem]:
    if not _are_rules(args.get("step_rules")):
        yield Problem(
            "--lr_scheduler piecewise_constant needs step_rules",
            "Add --lr_scheduler_args \"step_rules='1:100,0.1:200,0.01'\": 100 steps at the "
            "learning rate, up to step 200 at a tenth, then a hundredth.",
        )


def _are_rules(text: object) -> bool:
    """Tell whether diffusers can read it: factor:step, …, factor."""
    if not isinstance(text, str):
        return False
    *rules, last = text.split(",")
    try:
        pairs = [rule.split(":") for rule in rules]
        numbers = [float(last), *(float(factor) for factor, _ in pairs)]
        return all(int(step) > 0 for _, step in pairs) and all(0 <= n < 1e9 for n in numbers)
    except ValueError:
        return False


def _above_the_end(given: Given, args: dict) -> Iterator[Problem]:
    end = args.get("lr_end", 1e-7)
    if not _is_number(end, 0) or given.settings.get("learning_rate", 1) <= end:
        yield Problem(
            f"--lr_scheduler polynomial ends at {shown(end)}, which is not below the learning rate",
            "Raise the learning rate, or add --lr_scheduler_args lr_end=0.0.",
        )


COMPANIONS = {
    "cosine_with_min_lr": _min_lr,
    "warmup_stable_decay": _stable,
    "piecewise_constant": _steps_rules,
    "polynomial": _above_the_end,
}


def _scheduler_class(given: Given, args: dict) -> Iterator[Problem]:
    """`--lr_scheduler_type`: a class of torch by name, or of another package by its path."""
    name = given.get("--lr_scheduler_type")
    if others := [one for one in ("--lr_scheduler", *_SHAPES) if given.has(one)]:
        yield ignored(
            f"{', '.join(others)} has no effect beside --lr_scheduler_type",
            "Give the scheduler's own arguments with --lr_scheduler_args.",
        )
    bare = name.removeprefix("torch.optim.lr_scheduler.")
    if "." not in bare and bare not in CLASSES:
        near = nearest(bare, CLASSES)
        yield Problem(
            f"--lr_scheduler_type can't be {shown(name)}",
            f"Did you mean {near}?" if near else "Give the name of one of torch's schedulers.",
        )
    elif CLASSES.get(bare, ()) is None:
        yield Problem(
            f"--lr_scheduler_type {bare} can't be used, it needs what no flag can give",
            "Use another scheduler.",
        )
    elif missing := _missing(bare, args):
        told = " ".join(f"{key}=…" for key in missing)
        yield Problem(
            f"--lr_scheduler_type {bare} needs {', '.join(missing)}",
            f"Add --lr_scheduler_args {told}",
        )


def _missing(scheduler: str, args: dict) -> list[str]:
    """The arguments a scheduler of torch can't do without and was not given."""
    missing = [key for key in CLASSES.get(scheduler, ()) if key not in args]
    if {"epochs", "steps_per_epoch"} <= set(args):  # OneCycleLR's other way to say how long
        return [key for key in missing if key != "total_steps"]
    return missing
