"""Rules of the network: which there are, and what their arguments may be.

Source: Musubi Tuner 0.3.4, networks/.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from musubitlx.flagrules.given import (
    Given,
    Problem,
    ignored,
    literal,
    nearest,
    pairs,
    shown,
    unknown_key,
)

# -- the network -----------------------------------------------------------------------------------

NETWORKS = ("networks.lora_qwen_image", "networks.loha", "networks.lokr")
OTHER_NETWORKS = tuple(  # of Musubi too; they find nothing to train in Qwen-Image, or too much
    f"networks.lora{name}"
    for name in (
        *("", "_flux", "_flux_2", "_framepack", "_hidream_o1", "_hv_1_5", "_ideogram4"),
        *("_kandinsky", "_krea2", "_wan", "_zimage"),
    )
)
NETWORK_ARGS = {
    "conv_dim": int,
    "conv_alpha": float,
    "rank_dropout": float,
    "module_dropout": float,
    "loraplus_lr_ratio": float,
    "verbose": str,
    "exclude_patterns": list,
    "include_patterns": list,
    "factor": int,
}
RESERVED = ("multiplier", "network_dim", "network_alpha", "vae", "text_encoders", "unet")
RESERVED += ("neuron_dropout", "module_class", "module_kwargs", "target_replace_modules", "prefix")

LAYERS = tuple(  # what Musubi trains of Qwen-Image, by the names its patterns are matched with
    f"transformer_blocks.{block}.{layer}"
    for block in range(60)
    for layer in (
        *("img_mod.1", "txt_mod.1", "attn.to_q", "attn.to_k", "attn.to_v", "attn.add_q_proj"),
        *("attn.add_k_proj", "attn.add_v_proj", "attn.to_out.0", "attn.to_add_out"),
        *("img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2"),
    )
)
MOST_PATTERNS = 50  # that are tried
SLOW = re.compile(r"\)[*+{?]|([*+}][^*+}]*){4}|\(\?|\\\d|.{200}", re.DOTALL)  # to match, maybe


def kind_of(given: Given) -> str:
    """The last part of the network module: lora_qwen_image, loha, lokr."""
    return given.get("--network_module").rsplit(".", 1)[-1]


def network(given: Given) -> Iterator[Problem]:
    """The network's module and its arguments."""
    module = given.get("--network_module")
    name = module.removeprefix("musubi_tuner.")
    if name in OTHER_NETWORKS:
        yield Problem(
            f"--network_module {module} is for another model", f"Use {', '.join(NETWORKS)}."
        )
    elif name.startswith("networks.") or "." not in name:
        if name not in NETWORKS:
            near = nearest(name, NETWORKS)
            yield Problem(
                f"Musubi has no --network_module {shown(module)}",
                f"Did you mean {near}?" if near else f"Use {', '.join(NETWORKS)}.",
            )
    elif not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", module):
        yield Problem(f"--network_module can't be {shown(module)}", f"Use {', '.join(NETWORKS)}.")
    else:
        yield ignored(
            f"--network_module {shown(module)} is not one of Musubi's",
            "Its package has to be installed in Musubi's environment.",
        )
        return
    yield from network_args(given)


def network_args(given: Given) -> Iterator[Problem]:
    """What is wrong with the keys and values of --network_args."""
    found: list[Problem] = []
    given_pairs = pairs(given, "--network_args", found)
    yield from found
    for key, text in given_pairs.items():
        if key in RESERVED:
            yield Problem(
                f"--network_args: {key} can't be given, Musubi gives it itself", "Take it out."
            )
        elif key not in NETWORK_ARGS or (key == "factor" and kind_of(given) != "lokr"):
            known = [one for one in NETWORK_ARGS if one != "factor" or kind_of(given) == "lokr"]
            yield unknown_key("--network_args", key, known, refused=False)
        else:
            yield from _network_value(given, key, text)
    yield from _layers(given_pairs)


def _layers(texts: dict[str, str]) -> Iterator[Problem]:
    """Whether the patterns leave something to train; unreadable ones are told elsewhere."""
    excluding, including = map(texts.get, ("exclude_patterns", "include_patterns"))
    if including is not None and excluding is None:
        yield ignored(
            "--network_args: include_patterns has no effect without exclude_patterns, "
            "all layers are trained",
            "Add \"exclude_patterns=['.*']\" to train only those it names.",
        )
    given = [literal(text) for text in (excluding, including) if text and _are_patterns(text)]
    if excluding and len(given) == (1 if including is None else 2) and _none_left(*given):
        yield Problem(
            "--network_args: exclude_patterns leaves no layer to train",
            "Patterns match whole names such as transformer_blocks.0.attn.to_q; "
            "include_patterns takes some of them back in.",
        )


def _none_left(excluded: list[str], included: Iterable[str] = ()) -> bool:
    """Tell whether every layer is excluded; False when the patterns might take long to try."""
    patterns = [*excluded, *included]
    if len(patterns) > MOST_PATTERNS or any(map(SLOW.search, patterns)):
        return False
    out, back = ([re.compile(one) for one in some] for some in (excluded, included))
    return all(
        any(one.fullmatch(name) for one in out) and not any(one.fullmatch(name) for one in back)
        for name in LAYERS
    )


def _network_value(given: Given, key: str, text: str) -> Iterator[Problem]:
    if problem := _wrong_value(key, text):
        yield Problem(f"--network_args: {key} can't be {shown(text)}", problem)
    elif key in ("conv_dim", "conv_alpha"):
        yield ignored(
            f"--network_args: {key} has no effect, Qwen-Image has no convolutions", "Take it out."
        )
    elif key == "loraplus_lr_ratio" and kind_of(given) in ("loha", "lokr"):
        yield ignored(f"--network_args: {key} has no effect for LoHa and LoKr", "Take it out.")
    elif key == "verbose" and text != "True":
        yield ignored(f"--network_args: verbose={shown(text)} has no effect", "Write verbose=True.")


def _wrong_value(key: str, text: str) -> str | None:
    """What to write instead of a value Musubi can't read; None when it can."""
    kind = NETWORK_ARGS[key]
    if kind is list:
        return (
            None if _are_patterns(text, key) else f"Write \"{key}=['.*attn.*']\", quotes and all."
        )
    try:
        number = kind(text)
    except (ValueError, OverflowError):
        return f"Write a {'whole ' if kind is int else ''}number."
    if key.endswith("_dropout") and not 0 <= number < 1:
        return "Write a number from 0 to below 1."
    return None if kind is str or abs(number) < 1e9 else "Write a number of the usual size."


def _are_patterns(text: str, key: str = "include_patterns") -> bool:
    """Tell whether Musubi reads patterns from it: exclude_patterns has to be a list."""
    try:
        value = literal(text)
        if not isinstance(value, list if key == "exclude_patterns" else (list, tuple)):
            return False
        return all(isinstance(one, str) and re.compile(one) is not None for one in value)
    except (ValueError, re.error, RecursionError, OverflowError):
        return False
