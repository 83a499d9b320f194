"""Rules of the optimizer: which arguments it takes, and of what kinds.

Source: Musubi Tuner 0.3.4, training/trainer_base.py, and the constructors and first steps of
torch 2.13, transformers 4.57 and bitsandbytes 0.45 to 0.50.
"""

from __future__ import annotations

from collections.abc import Iterator

from musubitlx.flagrules.given import TAKEN, Given, Problem, ignored, literals
from musubitlx.flagrules.kinds import SWITCH, Kind, fit, maybe, number, only, pair, whole, wrong

_SHARE = number(0, 1, below=True, example="0.9")
_BETAS = pair(_SHARE, "two numbers from 0 to below 1", "0.9,0.99")
_EPS = number(0, example="1e-8")
_DECAY = number(0, example="0.01")
_FLOAT = Kind(lambda value: isinstance(value, float) and _SHARE.fits(value), "", "")

OPTIMIZERS = {  # what each constructor takes besides what Musubi gives itself
    "AdamW": {
        "betas": pair(_FLOAT, "two numbers from 0.0 to below 1, with a point", "0.9,0.99"),
        "eps": _EPS,
        "weight_decay": _DECAY,
        "amsgrad": SWITCH,
        "maximize": SWITCH,
        "foreach": maybe(SWITCH),
        "capturable": SWITCH,
        "differentiable": only(False),
        "fused": maybe(SWITCH),
    },
    "Adafactor": {
        "eps": pair(number(0, example=""), "two numbers from 0", "1e-30,1e-3"),
        "clip_threshold": number(0, above=True, example="1.0"),
        "decay_rate": number(-10, 0, example="-0.8"),
        "beta1": maybe(_SHARE),
        "weight_decay": _DECAY,
        "scale_parameter": SWITCH,
        "relative_step": SWITCH,
        "warmup_init": SWITCH,
    },
    "AdamW8bit": {
        "betas": _BETAS,
        "eps": _EPS,
        "weight_decay": _DECAY,
        "amsgrad": only(False),
        "optim_bits": only(32),
        "args": only(None),
        "min_8bit_size": whole(0, example="4096"),
        "is_paged": SWITCH,
        "percentile_clipping": whole(1, example="100"),
        "block_wise": SWITCH,
    },
}
OLDER = ("percentile_clipping", "block_wise")  # bitsandbytes gave them up on the way to 0.50


def optimizer(given: Given) -> Iterator[Problem]:
    """`--optimizer_args` against the optimizer of the form."""
    found: list[Problem] = []
    args = literals(given, "--optimizer_args", found)
    yield from found
    if "lr" in args:
        text = "--optimizer_args: lr is set by the form already"
        yield Problem(text, TAKEN["--learning_rate"])
    args.pop("lr", None)
    kinds = OPTIMIZERS.get(given.settings.get("optimizer_type"))
    if kinds is None:
        return
    yield from wrong("--optimizer_args", args, kinds)
    args = fit(args, kinds)
    if args.get("foreach") and args.get("fused"):
        yield Problem(
            "--optimizer_args: foreach and fused can't be True together", "Take one of them out."
        )
    for key in ("amsgrad", "maximize"):
        if args.get("fused") and not isinstance(args.get(key, False), bool):
            yield Problem(
                f"--optimizer_args: {key} can't be {args[key]} when fused is True",
                f"Write {key}={bool(args[key])}.",
            )
    for key in OLDER:
        if key in args:
            yield ignored(
                f"--optimizer_args: {key} is unknown to newer versions of bitsandbytes",
                "Take it out: with one of them the training fails.",
            )
