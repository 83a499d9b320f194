"""Sample prompts: what a person types, checked, and written so that Musubi reads just that.

Source of the reading rules: Musubi Tuner 0.3.4, training/sampling_prompts.py; `tests/real/`
compares. Musubi cuts a line at every " --" and holds each piece against its options, the prompt
text too: a prompt that begins with "w 5 " sets the width. Of two pieces that set the same the
later one counts, so every option is written out behind the text. What a text beginning with "i ",
"ei ", "cn ", "ci " or "of " sets is read by nothing when a plain Qwen-Image LoRA is trained.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches

from musubitlx.errors import Invalid, UserError

FIELD = "sample_prompt_text"
MAX_PROMPTS = 100
MAX_LENGTH = 4000  # characters of a line: the text encoder takes 1024 tokens and drops the rest
SIDE_PX = 16  # sizes are rounded down to multiples of it
NO_NEGATIVE = " "  # what Musubi takes where none is given
NEGATIVE = "n"
WHOLE, DECIMAL = r"-?[0-9]{1,12}", r"-?(?:[0-9]{1,4}(?:\.[0-9]{0,6})?|\.[0-9]{1,6})"


@dataclass(frozen=True)
class Option:
    """One option of a prompt line: a number from `low` to `high`, both allowed.

    `key` is the attribute of a Prompt, `words` are names people give it instead of the letter.
    """

    letter: str
    key: str
    label: str
    low: float
    high: float
    example: str
    words: tuple[str, ...]
    whole: bool = True

    @property
    def usage(self) -> str:
        """How to write it."""
        return f"--{self.letter} {self.example}"


# In the order they are written in.
OPTIONS = (
    Option("w", "width", "the width in pixels", 64, 4096, "512", ("width", "wide")),
    Option("h", "height", "the height in pixels", 64, 4096, "512", ("height", "high")),
    Option("f", "frames", "the number of frames", 1, 1, "1", ("frames", "frame_count")),
    Option("s", "steps", "the number of steps", 1, 1000, "20", ("steps", "step", "sample_steps")),
    Option(
        *("l", "guidance", "the guidance", 0, 100, "4.0"),
        ("cfg", "cfg_scale", "scale", "guidance", "guidance_scale"),
        whole=False,
    ),
    Option(
        *("fs", "flow_shift", "the flow shift", 0.01, 100, "2.2"),
        ("shift", "flow_shift", "discrete_flow_shift"),
        whole=False,
    ),
    Option("d", "seed", "the seed", 0, 2**32 - 1, "42", ("seed", "rand", "random")),
)
BY_LETTER = {option.letter: option for option in OPTIONS}
UNUSED = {
    "i": "a start image",
    "ei": "an end image",
    "cn": "a control video",
    "ci": "a control image",
    "of": "one-frame settings",
}
EMBEDDED = "g"  # the guidance of other models: Musubi reads it, Qwen-Image does not
LETTERS = {  # a name people write -> the letter of the option
    **{name: option.letter for option in OPTIONS for name in (option.letter, *option.words)},
    **dict.fromkeys((NEGATIVE, "neg", "no", "negative", "negative_prompt"), NEGATIVE),
}
SHAPES = ("ar", "aspect", "size", "resolution")  # no such option: two are needed

LINE_END = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
INVISIBLE = re.compile(
    "[\ud800-\udfff\u00ad\u200b\u200e\u200f\u2060\ufeff\u202a-\u202e\u2066-\u2069]"
)
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
PLACEHOLDER = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
NEARLY = re.compile(
    r"[\[{<]{1,3}\s*trigger(?:[ _]?word)?\s*[\]}>]{1,3}", re.I
)  # as other tools have it
OTHER_DASH = re.compile(  # -w 512, —w 512, –n blurry
    r"(?<!\S)(?:(?:-|-?[‐-―−]-?)(?:w|h|f|s|l|fs|d)[ =]?[0-9][0-9.]*(?!\S)|-?[‐-―−]-?n \S+)", re.I
)


@dataclass(frozen=True)
class Prompt:
    """One picture to be drawn. Sizes in pixels; each default is said aloud in its line."""

    text: str
    seed: int
    width: int = 256
    height: int = 256
    steps: int = 20
    guidance: float = 4.0
    negative: str = NO_NEGATIVE
    flow_shift: float = 2.2  # left out, Musubi takes 14.5
    frames: int = 1


@dataclass(frozen=True)
class Prompts:
    """What was read: `prompts` and their `lines` of sample_prompts.txt, and what was found.

    A line with an error is in `errors` alone; one with a warning is drawn.
    """

    lines: list[str] = field(default_factory=list)
    prompts: list[Prompt] = field(default_factory=list)
    errors: list[UserError] = field(default_factory=list)
    warnings: list[UserError] = field(default_factory=list)


def read(text: str, *, trigger: str, seed: int) -> Prompts:
    """Read prompts, one a line, and find everything wrong with them at once.

    `{{trigger}}` becomes the trigger word; empty lines and those that begin with # are left
    out. Options are written as `--w 512`, `--w=512` is taken too, `--w512` is an error. The
    seed of the training stands where a prompt gives none. Sizes are rounded down to
    multiples of 16, as Musubi would. Nothing that can be typed raises an error.
    """
    found, seen, count = Prompts(), {}, 0
    for number, typed in enumerate(LINE_END.split(text), start=1):
        line = clean(typed)
        if not line or line.startswith("#"):
            continue
        notes, count = _Notes(number, found), count + 1
        if count > MAX_PROMPTS:
            notes.error(
                f"there are more than {MAX_PROMPTS} prompts.",
                "Take some out: every one is drawn each time samples are made.",
            )
            break
        prompt = _prompt(line, clean(trigger), seed, notes)
        if prompt is None or notes.failed:
            continue
        first = seen.setdefault(prompt, number)
        if first != number:
            notes.warn(
                f"this draws the same picture as line {first}.",
                "Give it another --d (seed), or take it out.",
            )
        found.prompts.append(prompt)
        found.lines.append(compose(prompt))
    return found


def compose(prompt: Prompt) -> str:
    """The line that Musubi reads as this prompt, whatever its text looks like."""
    pieces = [prompt.text]
    if prompt.negative != NO_NEGATIVE or re.match("n .", prompt.text, re.I):
        pieces.append(f"n {prompt.negative}")  # never last: its blank would be stripped
    if re.match(r"g [\d.]", prompt.text, re.I):
        pieces.append("g 1.0")
    for option in OPTIONS:
        pieces.append(f"{option.letter} {_written(getattr(prompt, option.key))}")
    return " --".join(pieces)


def clean(line: str) -> str:
    """One line without control and invisible characters, each run of blanks one space."""
    return " ".join(CONTROL.sub(" ", INVISIBLE.sub("", line)).split())


def _written(number: int | float) -> str:
    """A number in digits and a dot alone: Musubi would read 1e-05 as 1."""
    if isinstance(number, int):
        return str(number)
    digits = f"{number:.6f}".rstrip("0")
    return digits + "0" if digits.endswith(".") else digits


class _Notes:
    """What is found in one line."""

    def __init__(self, number: int, found: Prompts):
        self.number, self.found, self.failed = number, found, False

    def error(self, what: str, remedy: str) -> None:
        self.failed = True
        self.found.errors.append(Invalid(f"Line {self.number}: {what}", field=FIELD, hint=remedy))

    def warn(self, what: str, remedy: str) -> None:
        error = UserError(f"Line {self.number}: {what}", field=FIELD, hint=remedy)
        self.found.warnings.append(error)


def _prompt(line: str, trigger: str, seed: int, notes: _Notes) -> Prompt | None:
    """The prompt of a line; what is wrong goes into the notes. None if it can't be taken apart."""
    line = clean(_filled(line, trigger, notes))
    if len(line) > MAX_LENGTH:
        notes.error(
            f"it has {len(line)} characters, {MAX_LENGTH} are allowed.",
            "Shorten it: the model reads about 1000 words and drops the rest.",
        )
        return None
    text, *pieces = (part.rstrip() for part in f" {line}".split(" --"))
    text = text.strip()
    if not text:
        notes.error(
            "there is no prompt text in front of the options."
            if pieces
            else "nothing is left of it to draw.",
            "Write what the picture shows, options after it: a red ball --w 512 --h 512.",
        )
    if text.startswith("#"):
        notes.error(
            "it begins with # once the trigger word is filled in, and would be skipped.",
            "Write a word in front, or take another trigger word.",
        )
    given = {"seed": seed, **_options(pieces, notes)}
    prompt = Prompt(text=text, **given)
    _look_at(prompt, notes)
    return prompt


def _filled(line: str, trigger: str, notes: _Notes) -> str:
    """The line with the trigger word in place of {{trigger}}."""
    names = [match[1] for match in PLACEHOLDER.finditer(line)]
    used = any(name.lower() == "trigger" for name in names)
    for name in dict.fromkeys(name for name in names if name.lower() != "trigger"):
        notes.warn(
            f"{{{{{name[:40]}}}}} stands for nothing and is drawn as it stands.",
            "Only {{trigger}} is filled in. Write the word itself.",
        )
    if near := NEARLY.search(PLACEHOLDER.sub("", line)):
        notes.warn(f"{near[0]} is not filled in.", "Write {{trigger}} with two braces each side.")
    if used and not trigger:
        notes.warn(
            "{{trigger}} is used, and there is no trigger word.",
            "Fill in the trigger word, or take {{trigger}} out.",
        )
    if used and " --" in f" {trigger}":
        notes.error(
            f"the trigger word {trigger[:40]} holds --, which begins an option.",
            "Take another trigger word, or leave {{trigger}} out.",
        )
    return PLACEHOLDER.sub(lambda m: trigger if m[1].lower() == "trigger" else m[0], line)


def _look_at(prompt: Prompt, notes: _Notes) -> None:
    """Warn of what is allowed and hardly meant."""
    for part in (prompt.text, prompt.negative):
        if near := OTHER_DASH.search(part):
            notes.warn(
                f"“{near[0][:40]}” is taken as words to draw, not as an option.",
                "An option begins with two short dashes and its letter: --w 512.",
            )
    if prompt.negative != NO_NEGATIVE and prompt.guidance <= 1:
        notes.warn(
            f"the negative prompt does nothing with --l {_written(prompt.guidance)}.",
            "Write a guidance above 1, such as --l 4.0.",
        )


# -- options ---------------------------------------------------------------------------------------


def _options(pieces: list[str], notes: _Notes) -> dict:
    """What the pieces after the text set, by the attributes of a Prompt."""
    said, given = set(), {}
    for piece in pieces:
        name, value = re.fullmatch(r"([^\s=]*)(?:\s*=\s*|\s+|$)(.*)", piece).groups()
        letter = name.lower()
        if letter in said:
            notes.error(f"--{letter} is given twice.", "Take one of them out.")
        elif letter == NEGATIVE:
            given |= _negative(value, notes)
        elif letter in BY_LETTER:
            given |= _number(BY_LETTER[letter], value, notes)
        elif letter == EMBEDDED:
            notes.warn("--g does nothing for Qwen-Image.", "The guidance is --l, such as --l 4.0.")
        elif letter in UNUSED:
            notes.error(
                f"--{letter} gives {UNUSED[letter]}, which training Qwen-Image does not use.",
                f"Take --{letter} out.",
            )
        else:
            _unknown(name, value, notes)
        if letter in BY_LETTER or letter == NEGATIVE:
            said.add(letter)
    return given


def _negative(value: str, notes: _Notes) -> dict:
    if not value:
        notes.error("--n has no words after it.", "Write --n blurry, text, or take --n out.")
    return {"negative": value}


def _number(option: Option, value: str, notes: _Notes) -> dict:
    """The value of an option, or nothing and an error."""
    letter, number, rest = option.letter, *f"{value} ".split(" ", 1)
    kind = "a whole number" if option.whole else "a number"
    limits = f"{_written(option.low)} to {_written(option.high)}"
    if not value:
        notes.error(f"--{letter} has no value.", f"Write {option.usage}, or take it out.")
    elif not option.whole and re.fullmatch("[0-9]+,[0-9]+", number):
        dotted = number.replace(",", ".")
        notes.error(f"--{letter} {number} has a comma.", f"Write a dot: --{letter} {dotted}.")
    elif not re.fullmatch(WHOLE if option.whole else DECIMAL, number):
        notes.error(
            f"--{letter} is {option.label}, {kind}; {number[:40]} is none.",
            f"Write it like {option.usage}.",
        )
    elif rest.strip():
        notes.error(
            f"more words follow --{letter} {number}: {rest.strip()[:40]}.",
            "Write all of the prompt text in front of the first option.",
        )
    elif letter == "f" and int(number) != 1:
        notes.error("--f above 1 would be a video.", "Take --f out: Qwen-Image draws pictures.")
    elif number.startswith("-") or not option.low <= float(number) <= option.high:
        remedy = f"Write it like {option.usage}."
        if letter == "d":
            remedy = "Take --d out for the seed of the training."
        what = f"--{letter} {number} is out of range, {option.label} is from {limits}."
        notes.error(what, remedy)
    else:
        return {option.key: _fitted(option, number, notes)}
    return {}


def _fitted(option: Option, number: str, notes: _Notes) -> int | float:
    if not option.whole:
        return float(number)
    value = int(number)
    if option.key in ("width", "height") and value % SIDE_PX:
        rounded = value // SIDE_PX * SIDE_PX
        notes.warn(
            f"--{option.letter} {value} becomes {rounded}.",
            f"Sizes are multiples of {SIDE_PX}: {rounded} or {rounded + SIDE_PX}.",
        )
        return rounded
    return value


def _unknown(name: str, value: str, notes: _Notes) -> None:
    """Say that there is no such option, and which one may be meant."""
    plain = name.lower().strip("-").replace("-", "_")[:40]
    if not plain:
        notes.error(
            "-- stands there with no option after it.",
            "Write a single dash, or – , where it belongs to the text.",
        )
        return
    glued = re.fullmatch(r"([a-z_]+?)_?([0-9.]+)", plain)
    if glued and glued[1] in LETTERS:
        remedy = f"Write --{LETTERS[glued[1]]} {glued[2]}."
        notes.error(f"--{name[:40]} lacks a blank.", remedy)
    else:
        notes.error(f"there is no option --{name[:40]}.", _remedy(plain, value))


def _remedy(plain: str, value: str) -> str:
    near = get_close_matches(plain, [*LETTERS, *SHAPES], 1)
    if not near:
        return "Take it out. " + ", ".join(_known()) + " are known."
    if near[0] in SHAPES:
        return "Write --w 512 --h 512."
    letter = LETTERS[near[0]]
    usual = BY_LETTER[letter].example if letter in BY_LETTER else "and what not to draw"
    return f"Write --{letter} {value[:40] or usual}."


def _known() -> Iterator[str]:
    yield from (f"--{letter}" for letter in BY_LETTER if letter != "f")
    yield f"--{NEGATIVE}"
