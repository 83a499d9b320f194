"""Kinds of values: what an argument of a key=value list takes, and what to write instead."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from musubitlx.flagrules.given import Problem, shown, unknown_key


@dataclass(frozen=True)
class Kind:
    """Which values an argument takes; `words` and `example` finish “Give …, as in key=…”."""

    fits: Callable[[Any], bool]
    words: str
    example: str


Kinds = Mapping[str, Kind]


def number(
    low: float, high: float = 1e9, *, example: str, above: bool = False, below: bool = False
) -> Kind:
    """A number in a range whose ends belong to it, unless it is to be above or below them."""

    def fits(value: Any) -> bool:
        if not _is_number(value) or not math.isfinite(value):
            return False
        return (low < value if above else low <= value) and (
            value < high if below else value <= high
        )

    start = f"above {low:g}" if above else f"from {low:g}"
    end = "" if high >= 1e9 else f" to below {high:g}" if below else f" to {high:g}"
    return Kind(fits, f"a number {start}{end}", example)


def whole(low: int, *, example: str) -> Kind:
    """A whole number from `low`; one that is written with a point is none, as for torch."""
    most = 10**12  # what is more can't be meant, and does not fit everywhere
    return Kind(
        lambda value: type(value) is int and low <= value <= most,
        f"a whole number from {low}",
        example,
    )


def choice(*texts: str) -> Kind:
    """One of some texts, which need quotes of their own."""
    words = ", ".join(f"'{text}'" for text in texts[:-1]) + f" or '{texts[-1]}'"
    return Kind(lambda value: value in texts, f"{words}, quotes and all", f"\"'{texts[0]}'\"")


def only(value: Any) -> Kind:
    """A value that may be said and not changed."""
    return Kind(lambda given: given == value, f"{value} or nothing", str(value))


def maybe(kind: Kind) -> Kind:
    """The kind, or None."""
    return Kind(lambda value: value is None or kind.fits(value), kind.words, kind.example)


def pair(kind: Kind, words: str, example: str) -> Kind:
    """Two values of a kind."""
    return Kind(lambda value: _are(value, kind) and len(value) == 2, words, example)


def several(kind: Kind, words: str, example: str) -> Kind:
    """A list of values of a kind."""
    return Kind(lambda value: _are(value, kind), words, example)


def either(kind: Kind) -> Kind:
    """A value of a kind, or a list with one for each group of parameters."""
    return Kind(
        lambda value: kind.fits(value) or (_are(value, kind) and len(value) > 0),
        kind.words,
        kind.example,
    )


SWITCH = Kind(lambda value: isinstance(value, int) and value in (0, 1), "True or False", "True")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _are(value: Any, kind: Kind) -> bool:
    return isinstance(value, (tuple, list)) and all(kind.fits(one) for one in value)


def wrong(option: str, args: Mapping[str, Any], kinds: Kinds) -> Iterator[Problem]:
    """The keys an option does not know, and the values that are not of their key's kind."""
    for key, value in args.items():
        kind = kinds.get(key)
        if kind is None:
            yield unknown_key(option, key, kinds)
        elif not _fits(kind, value):
            yield Problem(
                f"{option}: {key} can't be {shown(value)}",
                f"Give {kind.words}, as in {key}={kind.example}.",
            )


def fit(args: Mapping[str, Any], kinds: Kinds) -> dict[str, Any]:
    """The arguments that `wrong` has nothing to say about."""
    return {key: value for key, value in args.items() if key in kinds and _fits(kinds[key], value)}


def _fits(kind: Kind, value: Any) -> bool:
    try:
        return bool(kind.fits(value))
    except (TypeError, ValueError, OverflowError):  # numbers of thousands of digits
        return False
