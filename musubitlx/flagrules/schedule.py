"""Rules of the learning rate's schedule.

Source: Musubi Tuner 0.3.4, training/trainer_base.py, and the schedules of transformers and
diffusers it calls.
"""

from __future__ import annotations

from collections.abc import Iterator

from musubitlx.flagrules.given import RANGES, Given, Problem, ignored, literals, nearest, shown
from musubitlx.flagrules.kinds import Kind, choice, fit, maybe, number, whole, wrong
from musubitlx.flagrules.torch_schedule import LAST_EPOCH, scheduler_class

# -- the learning rate's schedule ------------------------------------------------------------------

_WARM, _DECAY = "--lr_warmup_steps", "--lr_decay_steps"
_CYCLES, _POWER = "--lr_scheduler_num_cycles", "--lr_scheduler_power"
_SCALE, _RATIO = "--lr_scheduler_timescale", "--lr_scheduler_min_lr_ratio"
_SHAPES = (_WARM, _DECAY, _CYCLES, _POWER, _SCALE, _RATIO)


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


_RULES = Kind(_are_rules, "factors and steps in quotes", "\"'1:100,0.1:200,0.01'\"")
_LR_END = number(0, example="1e-7")
_SHAPE = choice("linear", "cosine", "1-sqrt")

SCHEDULERS = {  # name -> the options it uses, the keys of --lr_scheduler_args it takes
    "constant": ((), {}),
    "constant_with_warmup": ((_WARM,), {}),
    "linear": ((_WARM,), {}),
    "cosine": ((_WARM,), {"num_cycles": number(0, 1e6, example="0.5")}),
    "cosine_with_restarts": ((_WARM, _CYCLES), {}),
    "polynomial": ((_WARM, _POWER), {"lr_end": _LR_END}),
    "inverse_sqrt": ((_WARM, _SCALE), {}),
    "cosine_with_min_lr": ((_WARM, _CYCLES, _RATIO), {"min_lr": maybe(_LR_END)}),
    "warmup_stable_decay": (
        (_WARM, _DECAY, _CYCLES, _RATIO),
        {"warmup_type": _SHAPE, "decay_type": _SHAPE},
    ),
    "piecewise_constant": ((), {"step_rules": _RULES}),
    "rex": (
        (_WARM, _RATIO),
        {
            "rex_alpha": number(0, example="0.1"),
            "rex_beta": number(-1e9, example="0.9"),
            "last_epoch": whole(-1, example="-1"),
        },
    ),
    "adafactor": ((), None),
}
FAILING = {
    "reduce_lr_on_plateau": "Musubi gives it arguments it does not take",
    "cosine_warmup_with_min_lr": "Musubi gives it arguments it does not take",
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
        yield from _no_effect_beside_a_class(given)
        yield from scheduler_class(given, args)
        return
    name = given.get("--lr_scheduler")
    name = "constant" if name is None else "rex" if name.lower() == "rex" else name
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


def warm_up(given: Given, steps: int) -> Iterator[Problem]:
    """The two schedules that fail on a warm-up because of the number of all steps."""
    name, warm = given.get("--lr_scheduler") or "", given.get(_WARM)
    if given.get("--lr_scheduler_type") or _relative(given) or not isinstance(warm, int):
        return
    if name.lower() == "rex" and warm > steps:
        text = f"{_WARM} {warm} is longer than the training's {steps} steps"
        yield Problem(text, f"Give less, or a share of all steps such as {_WARM} 10%.")
    elif name == "polynomial" and warm == steps:
        text = (
            f"{_WARM} {warm} is the very number of all steps, which polynomial can't be used with"
        )
        yield Problem(text, f"Give less, or a share of all steps such as {_WARM} 10%.")


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
    elif optimizer and not _has_rate(name):
        yield Problem(
            "--lr_scheduler adafactor can't be used with relative_step=False",
            "Use constant_with_warmup, or take relative_step=False out.",
        )
    elif optimizer and given.get(_WARM):
        yield _no_warm_up("adafactor")


def _has_rate(name: str) -> bool:
    """Tell whether Musubi finds a learning rate in the name: adafactor:0.001."""
    try:
        return float(name.split(":")[1]) >= 0
    except (LookupError, ValueError):
        return False


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
    if keys is not None:
        keys = {"last_epoch": LAST_EPOCH, **keys}
        yield from wrong("--lr_scheduler_args", args, keys)
        args = fit(args, keys)
    elif args:
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
    least = args.get("min_lr")
    if given.get(_RATIO) is None and least is None:
        yield Problem(
            f"--lr_scheduler cosine_with_min_lr needs {_RATIO}", f"Add {_RATIO} 0.1, for instance."
        )
    elif given.get(_RATIO) is not None and least is not None:
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


def _steps_rules(given: Given, args: dict) -> Iterator[Problem]:
    if "step_rules" not in literals(given, "--lr_scheduler_args", []):
        yield Problem(
            "--lr_scheduler piecewise_constant needs step_rules",
            f"Add --lr_scheduler_args step_rules={_RULES.example}: 100 steps at the "
            "learning rate, up to step 200 at a tenth, then a hundredth.",
        )


def _curve(given: Given, args: dict) -> Iterator[Problem]:
    if args.get("rex_alpha", 0.1) + args.get("rex_beta", 0.9) <= 0:
        yield Problem(
            "--lr_scheduler_args: rex_alpha and rex_beta must be more than 0 together",
            "0.1 and 0.9 are usual.",
        )


def _above_the_end(given: Given, args: dict) -> Iterator[Problem]:
    end = args.get("lr_end", 1e-7)
    if given.values.get(_WARM) == 1.0 and isinstance(given.values[_WARM], float):
        yield Problem(
            "--lr_scheduler polynomial can't be used when all steps are warm-up",
            f"Give {_WARM} less than 100%.",
        )
    if given.settings.get("learning_rate", 1) <= end:
        yield Problem(
            f"--lr_scheduler polynomial ends at {shown(end)}, which is not below the learning rate",
            "Raise the learning rate, or add --lr_scheduler_args lr_end=0.0.",
        )


COMPANIONS = {
    "cosine_with_min_lr": _min_lr,
    "warmup_stable_decay": _stable,
    "piecewise_constant": _steps_rules,
    "polynomial": _above_the_end,
    "rex": _curve,
}


def _no_effect_beside_a_class(given: Given) -> Iterator[Problem]:
    if others := [one for one in ("--lr_scheduler", *_SHAPES) if given.has(one)]:
        yield ignored(
            f"{', '.join(others)} has no effect beside --lr_scheduler_type",
            "Give the scheduler's own arguments with --lr_scheduler_args.",
        )
