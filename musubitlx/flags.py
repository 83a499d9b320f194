"""The line of advanced flags: split, and checked against Musubi's options and its rules."""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from musubitlx import flagrules
from musubitlx.errors import Invalid, UserError
from musubitlx.flagrules.given import ELSEWHERE, TAKEN, Given, nearest, shown
from musubitlx.options import LATENTS, TEXT_ENCODER, TRAIN, TYPES, Table, recorded

FIELD = "advanced_flags"
LONGEST = 20_000  # characters of a line
MANY = 30  # so many problems are told; more are the same again

DASHES = "‐‑‒–—―−﹘﹣－"  # what word processors and web pages make of a hyphen
QUOTES = "“”„‟‘’‚«»"
MEMORY = (  # what VRAM profiles are about
    *("--fp8_base", "--fp8_scaled", "--fp8_llm", "--fp8_vl", "--disable_numpy_memmap"),
    *("--blocks_to_swap", "--block_swap_h2d_only", "--block_swap_ring_size"),
    *("--use_pinned_memory_for_block_swap", "--gradient_checkpointing"),
    "--gradient_checkpointing_cpu_offload",
)
NEGATIVE = re.compile(r"-\d+$|-\d*\.\d+$")  # what argparse takes for a number, not an option


@dataclass(frozen=True)
class Flags:
    """What a line of flags says.

    `words` are the arguments of the training script, none when there are errors;
    `values` the parsed value of each option that was given and could be read, `typed`
    the words with which it was given.
    """

    words: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    typed: dict[str, list[str]] = field(default_factory=dict)
    errors: list[Invalid] = field(default_factory=list)
    warnings: list[UserError] = field(default_factory=list)

    def has(self, name: str) -> bool:
        """Tell whether the option was given."""
        return name in self.values

    def get(self, name: str, default: Any = None) -> Any:
        """The option's value; `default` when it was not given."""
        return self.values.get(name, default)


def read(
    line: str,
    table: Table,
    settings: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> Flags:
    """Read a line of flags for the training script; whatever was typed, it never raises.

    `settings` are those of the form, where they are known: some flags go with
    some optimizers only. Relative paths are looked for in `folder`, where the
    training runs; without it they are not looked for.
    """
    reader = _Reader(table)
    reader.read(line)
    given = Given(reader.values, _defaults(table), settings or {}, folder)
    for problem in flagrules.problems(given):
        reader.tell(*problem)
    if not reader.errors:
        reader.ask_argparse()
    errors = reader.errors[:MANY]
    words = [] if errors else reader.words
    return Flags(words, reader.values, reader.typed, errors, reader.warnings[:MANY])


def with_memory_of(given: Flags, profile: Flags) -> str:
    """The line `given` with what it says of memory replaced by what a VRAM profile says.

    All other options stay as they were typed, also where the profile has them.
    """
    kept = {name: words for name, words in given.typed.items() if name not in MEMORY}
    words = {**{name: words for name, words in profile.typed.items() if name not in kept}, **kept}
    return shlex.join(word for option in words.values() for word in option)


def beside_steps(
    values: Mapping[str, Any], settings: Mapping[str, Any], steps: int
) -> list[Invalid]:
    """What is wrong with the values of a line once the number of all steps is known."""
    reader = _Reader(recorded())
    for problem in flagrules.beside_steps(Given(values, settings=settings), steps):
        reader.tell(*problem)
    return reader.errors


def _defaults(table: Table) -> dict[str, Any]:
    rows = table.options(TRAIN)
    return {name: row.get("default") for row in rows for name in row["option_strings"]}


class _Refused(Exception):
    """What argparse would have ended the program with."""


class _Parser(argparse.ArgumentParser):
    def __init__(self, **more):
        super().__init__(**more, add_help=False)  # help would end the program

    def error(self, message: str) -> NoReturn:
        raise _Refused(message)


class _Reader:
    """Goes through the words as argparse would, and goes on after each problem."""

    def __init__(self, table: Table):
        self.table = table
        self.rows = {name: row for row in table.options(TRAIN) for name in row["option_strings"]}
        self.plain = {_plain(name): name for name in (*TAKEN, *self.rows)}
        self.words: list[str] = []
        self.typed: dict[str, list[str]] = {}
        self.values: dict[str, Any] = {}
        self.errors: list[Invalid] = []
        self.warnings: list[UserError] = []

    def tell(self, text: str, hint: str | None = None, refused: bool = True) -> None:
        """Note one problem, each only once."""
        kind, told = (Invalid, self.errors) if refused else (UserError, self.warnings)
        text = f"Advanced trainer flags: {text}."
        if all(str(one) != text for one in told):
            told.append(kind(text, field=FIELD, hint=hint))

    def read(self, line: str) -> None:
        """Split the line and take it option by option."""
        if problem := _unreadable(line):
            self.tell(*problem)
            return
        try:
            self.words = shlex.split(re.sub(r"\\\r?\n", " ", line))
        except ValueError as error:
            self.tell(*_unsplit(str(error)))
            return
        at = 0
        while at < len(self.words) and len(self.errors) < MANY:
            at = self._take(at)

    def _take(self, at: int) -> int:
        """Read the option at `at` with its values; returns where the next begins."""
        word = self.words[at]
        name, equals, value = word.partition("=")
        if word in self.rows:
            name, equals = word, ""
        if not self._is_option(word):
            end = self._end(at)
            self._stray(self.words[at:end])
            return end
        if name in TAKEN:
            self.tell(f"{shown(name)} is set by the form already", TAKEN[name])
            return self._end(at + 1)
        if name not in self.rows:
            self.tell(*self._unknown(name))
            return self._end(at + 1)
        end = at + 1 if equals else self._last(name, at + 1)
        self.typed[self.rows[name]["option_strings"][0]] = self.words[at:end]
        self._given(name, [value] if equals else self.words[at + 1 : end], end, bool(equals))
        return end

    def _is_option(self, word: str) -> bool:
        """Tell an option from a value, as argparse does; a pasted dash makes one too."""
        name = word.partition("=")[0]
        if word in self.rows or name in self.rows or name in TAKEN:
            return True
        if word and word[0] in DASHES:
            return self._meant(name) is not None
        if not word.startswith("-"):
            return False
        if self._starts(name):
            return True
        return word != "-" and not NEGATIVE.match(word) and " " not in word

    def _end(self, at: int) -> int:
        """Where the values that begin at `at` end."""
        while at < len(self.words) and not self._is_option(self.words[at]):
            at += 1
        return at

    def _last(self, name: str, at: int) -> int:
        """Where the values an option takes end."""
        return min(self._end(at), at + _amounts(self.rows[name])[1])

    # -- values ------------------------------------------------------------------------------------

    def _given(self, name: str, texts: list[str], at: int, explicit: bool) -> None:
        """Read the values of an option; `at` is where its next word would stand.

        `explicit`: the value stands behind a `=`.
        """
        row = self.rows[name]
        if row["action"] == "store_true":
            if explicit:
                self.tell(f"{name} is a switch and takes no value", SWITCH)
            self._store(name, True)
        elif len(texts) < _amounts(row)[0]:
            self.tell(f"{name} needs a value", self._value_hint(name, at))
        else:
            values = [self._value(name, row, text) for text in texts]
            if None not in values:
                one = row.get("nargs", "?") == "?"
                self._store(name, (values or [None])[0] if one else values)

    def _value_hint(self, name: str, at: int) -> str:
        word = self.words[at] if at < len(self.words) else ""
        if re.match(r"-[^-]", word):
            return f"A value that begins with - is written {name}={shown(word)}."
        choices = self.rows[name].get("choices")
        return f"Choose {_listed(choices)}." if choices else f"Write {name}, a space and the value."

    def _value(self, name: str, row: dict, text: str) -> Any:
        """The text as the option's type; None when it is none, which is told."""
        kind = row.get("type", "str")
        try:
            value = TYPES.get(kind, str)(text)
        except (ValueError, OverflowError):
            self.tell(f"{name} needs {KINDS.get(kind, 'another value')}, not {_named(text)}")
            return None
        choices = row.get("choices")
        if choices and value not in choices:
            self.tell(f"{name} can't be {_named(text)}", _choices(text, choices))
            return None
        return value

    def _store(self, name: str, value: Any) -> None:
        name = self.rows[name]["option_strings"][0]
        if name in self.values and self.values[name] != value:
            self.tell(f"{name} is given twice, with different values", "Keep one of them.")
        self.values[name] = value

    # -- what is no option -------------------------------------------------------------------------

    def _stray(self, words: list[str]) -> None:
        text = shown(" ".join(map(_named, words[:5])))
        hint = "Take it out, or put a value of several words in quotes."
        if any(mark in word for word in words for mark in QUOTES):
            hint = "Use straight quotes, ' or \"; these are the curly ones of a text."
        elif words[0].lower() in ("true", "false", "yes", "no", "on", "off", "0", "1"):
            hint = SWITCH
        elif any(word.endswith(".py") or word == "accelerate" for word in words):
            hint = "Write the options only, not the command that takes them."
        self.tell(f"{text} belongs to no option", hint)

    def _unknown(self, name: str) -> tuple[str, str | None]:
        """What to say of an option the training script does not have."""
        text = f"Musubi's training script has no option {shown(name)}"
        if name == "--":
            return text, "Take it out."
        if re.match(r"-[.\d]", name):
            return (
                f"{shown(name)} is no option",
                f"A negative value is written --option={shown(name)}.",
            )
        meant = self._meant(name)
        if others := [script for script in CACHING if self.table.knows(script, name)]:
            places = " and ".join(CACHING[script] for script in others)
            text = f"{shown(name)} belongs to {places}, not to the training"
            return text, ELSEWHERE.get(name, "Take it out.")
        if name in ELSEWHERE:
            return text, ELSEWHERE[name]
        if meant:
            return text, f"Write {meant}."
        if re.search(r"[^\S ]", name):
            return text, "It holds a special space, as web pages do: type an ordinary one."
        if whole := self._starts(name):
            return f"{text}, it is cut short", f"Write {' or '.join(whole[:4])}."
        near = difflib.get_close_matches(_plain(name)[:80], list(self.plain), n=1)
        return text, f"Did you mean {self.plain[near[0]]}?" if near else None

    def _meant(self, name: str) -> str | None:
        """The option whose name this is but for dashes and letter case."""
        return self.plain.get(_plain(name))

    def _starts(self, name: str) -> list[str]:
        """The options an abbreviation may stand for."""
        cut = name.startswith("--") and len(name) > 2
        return [one for one in self.rows if one.startswith(name)] if cut else []

    def ask_argparse(self) -> None:
        """Musubi's own way to read the words has the last say."""
        try:
            self.table.parser(TRAIN, _Parser).parse_args(self.words)
        except (_Refused, argparse.ArgumentError) as error:
            self.tell(f"Musubi would refuse the line: {shown(error, 300)}")


SWITCH = "A switch is on when it is there and off when it is left out."
CACHING = {LATENTS: "the caching of latents", TEXT_ENCODER: "the caching of captions"}
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "_int_or_float": "a number of steps, or a share such as 0.1 or 10%",
}


def _amounts(row: dict) -> tuple[int, int]:
    """How many words an option takes, at least and at most."""
    if row["action"] == "store_true":
        return 0, 0
    nargs = row.get("nargs", 1)
    if isinstance(nargs, int):
        return nargs, nargs
    return (1 if nargs == "+" else 0), (1 if nargs == "?" else LONGEST)


def _plain(name: str) -> str:
    """A name without its dashes, as the table writes it."""
    name = re.sub(f"[-{DASHES}]", "-", name).lower()
    return name.lstrip("-").replace("-", "_")


def _named(text: str) -> str:
    """A word in a sentence; an empty one can be seen."""
    return shown(text) if text.strip() else "an empty text"


def _listed(choices: list) -> str:
    return ", ".join(map(str, choices[:-1])) + f" or {choices[-1]}" if choices[1:] else choices[0]


def _choices(text: str, choices: list) -> str:
    """All choices, the nearest first."""
    near = nearest(text, [str(one) for one in choices])
    first = f"Did you mean {near}? " if near else ""
    return f"{first}Choose {_listed(choices)}."


def _unreadable(line: str) -> tuple[str, str] | None:
    """Why a line can't be the arguments of a program."""
    if len(line) > LONGEST:
        return f"the line is longer than {LONGEST} characters", "Shorten it."
    if "\x00" in line or re.search("[\ud800-\udfff]", line):
        return "the line holds a character no command can hold", "Type it anew."
    return None


def _unsplit(reason: str) -> tuple[str, str]:
    """The two ways a line can't be split, in shlex's words and ours."""
    if "escaped" in reason:
        return "the line can't be read (no escaped character)", "Take out the \\ at the end."
    hint = 'Close the quote, or put the value in the other kind: "it\'s".'
    return f"the line can't be read ({reason.lower()})", hint
