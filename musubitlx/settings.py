"""The training settings, one row each: what form, YAML, JSON, check and command line read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from musubitlx import presets
from musubitlx.errors import Invalid, ManyInvalid
from musubitlx.home import checked_name, is_storable


@dataclass(frozen=True)
class Setting:
    """One value of a training run: a free line of text, and the base of the other kinds.

    `name` is the key in JSON and YAML and the name of the form's control. `parse`
    takes what a form (text) or JSON (typed) gives and raises Invalid otherwise.
    """

    name: str
    label: str
    default: Any
    help: str
    group: str = "training"
    unit: str = ""
    placeholder: str = ""
    max_length: int = 2000

    kind: ClassVar[str] = "text"
    choices: ClassVar[tuple] = ()
    low: ClassVar[float | None] = None
    high: ClassVar[float | None] = None

    def parse(self, given: Any) -> Any:
        """Return `given` as this setting's type; Invalid says what is allowed."""
        if not isinstance(given, str):
            raise self._invalid("enter text")
        if len(given) > self.max_length:
            raise self._invalid(f"at most {self.max_length} characters")
        if "\x00" in given or not is_storable(given):
            raise self._invalid("it holds a character that no file can hold")
        return self._clean(given)

    def _clean(self, given: str) -> str:
        return " ".join(given.split())

    def _invalid(self, what: str) -> Invalid:
        return Invalid(f"{self.label}: {what}.", field=self.name)


@dataclass(frozen=True)
class AreaSetting(Setting):
    """Text of several lines, kept as typed."""

    max_length: int = 20_000
    kind: ClassVar[str] = "area"

    def _clean(self, given: str) -> str:
        return re.sub("\r\n|[\r\x85\u2028\u2029]", "\n", given).strip()


@dataclass(frozen=True)
class FlagsSetting(AreaSetting):
    """The trainer's flags as one line; None means those of the VRAM profile."""

    def parse(self, given: Any) -> str | None:
        """None (the profile's own flags) or the text, checked later against Musubi's options."""
        return None if given is None else super().parse(given)


@dataclass(frozen=True)
class NameSetting(Setting):
    """A name that becomes one component of a path."""

    def parse(self, given: Any) -> str:
        """The name; Invalid if a file system would not take it."""
        return checked_name(super().parse(given), field=self.name, what=self.label)


@dataclass(frozen=True)
class LoraNameSetting(NameSetting):
    """The name of the LoRA file: none that Musubi would take for a cache or for an option."""

    def parse(self, given: Any) -> str:
        """The name; Invalid for one Musubi can't have."""
        text = super().parse(given)
        if cache := re.search(r"_qi[el]?(_te)?$", text):
            raise Invalid(
                f"{self.label}: a name that ends in {cache[0]} can't be used.",
                field=self.name,
                hint="Musubi would take the LoRA for one of its caches and delete it.",
            )
        if text.startswith("-"):
            raise self._invalid("a name that begins with - can't be used")
        return text


@dataclass(frozen=True)
class WholeSetting(Setting):
    """A whole number from `low` to `high`, both allowed."""

    low: int = 0
    high: int = 1_000_000
    kind: ClassVar[str] = "whole"

    def parse(self, given: Any) -> int:
        """Invalid unless `given` is a whole number in range, typed or as digits."""
        if isinstance(given, str) and re.fullmatch(r"\s*-?[0-9]{1,12}\s*", given):
            given = int(given)
        whole = isinstance(given, int) and not isinstance(given, bool)
        if not whole or not self.low <= given <= self.high:
            raise self._invalid(f"enter a whole number from {self.low} to {self.high}")
        return given


@dataclass(frozen=True)
class RealSetting(Setting):
    """A number above `low` and up to `high`."""

    low: float = 0.0
    high: float = 1.0
    kind: ClassVar[str] = "real"

    def parse(self, given: Any) -> float:
        """Invalid unless `given` is a finite number in range; `5e-5` and `0.00005` are the same."""
        if isinstance(given, str) and re.fullmatch(
            r"\s*[0-9]{0,12}\.?[0-9]{0,30}(e[+-]?[0-9]{1,3})?\s*", given, re.I
        ):
            try:
                given = float(given)
            except ValueError:
                given = None
        number = isinstance(given, (int, float)) and not isinstance(given, bool)
        if not number or not self.low < given <= self.high:  # not a number is in no range
            raise self._invalid(f"enter a number above {self.low:g} and up to {self.high:g}")
        return float(given)


@dataclass(frozen=True)
class ChoiceSetting(Setting):
    """One of a few values; `choices` are pairs of value and label."""

    choices: tuple[tuple[str, str], ...] = ()
    kind: ClassVar[str] = "choice"

    def parse(self, given: Any) -> str:
        """Invalid unless `given` is one of the values; letter case does not matter."""
        if isinstance(given, int) and not isinstance(given, bool):
            given = str(given)  # YAML reads `vram_profile: 12` as a number
        for value, _label in self.choices:
            if isinstance(given, str) and given.strip().lower() == value.lower():
                return value
        raise self._invalid("choose one of " + ", ".join(value for value, _ in self.choices))


@dataclass(frozen=True)
class FlagSetting(Setting):
    """On or off."""

    kind: ClassVar[str] = "flag"
    WORDS: ClassVar[dict[str, bool]] = {
        **dict.fromkeys(("true", "on", "yes", "1"), True),
        **dict.fromkeys(("false", "off", "no", "0", ""), False),
    }

    def parse(self, given: Any) -> bool:
        """Invalid unless `given` is true or false, typed or as a form sends it."""
        if isinstance(given, bool):
            return given
        if isinstance(given, str) and given.strip().lower() in self.WORDS:
            return self.WORDS[given.strip().lower()]
        raise self._invalid("choose on or off")


@dataclass(frozen=True)
class ResolutionSetting(Setting):
    """Width x height in pixels, multiples of 16, as text such as `1024x1024`."""

    low: int = 64
    high: int = 4096

    def parse(self, given: Any) -> str:
        """The text in its usual form; Invalid unless both sides are multiples of 16 in range."""
        if isinstance(given, int) and not isinstance(given, bool):
            given = str(given)
        match = isinstance(given, str) and re.fullmatch(
            r"\s*(\d{1,5})(?:\s*[x×*,]\s*(\d{1,5}))?\s*", given, re.I
        )
        if not match:
            raise self._invalid("enter width x height in pixels, such as 1024x1024")
        width, height = int(match[1]), int(match[2] or match[1])
        for side in (width, height):
            if not self.low <= side <= self.high or side % 16:
                raise self._invalid(f"each side is a multiple of 16 from {self.low} to {self.high}")
        return f"{width}x{height}"


OPTIMIZERS = (
    ("AdamW", "AdamW"),
    ("Adafactor", "Adafactor (less VRAM)"),
    ("AdamW8bit", "AdamW8bit (least VRAM, needs bitsandbytes)"),
)

ROWS: tuple[Setting, ...] = (
    NameSetting(
        "output_dir",
        "Output folder",
        "my_lora",
        "The folder under output/ that holds the images, captions, caches, samples and the "
        "finished LoRA. One folder for each subject you train.",
        group="output",
    ),
    LoraNameSetting(
        "output_name",
        "LoRA filename",
        "my_lora",
        "Name of the finished file, without .safetensors. Checkpoints add the epoch to it.",
        group="output",
    ),
    Setting(
        "trigger_word",
        "Trigger word",
        "",
        "The word that calls the LoRA in a prompt. It is put in front of every caption that does "
        "not hold it already; the caption files themselves stay as they are.",
        placeholder="for example: ohwx",
        max_length=200,
    ),
    Setting(
        "prompt",
        "Prompt (subject description)",
        "",
        "Used for images without a caption: they are trained on trigger word plus this text.",
        placeholder="for example: a woman with short red hair",
    ),
    ChoiceSetting(
        "vram_profile",
        "VRAM profile",
        "12",
        "What is moved out of the graphics card's memory to make the training fit. Choose the "
        "size of your card; a safer profile is slower, not worse.",
        choices=tuple((profile.id, profile.label) for profile in presets.PROFILES),
    ),
    ResolutionSetting(
        "resolution",
        "Resolution",
        "1024x1024",
        "The area every image is scaled to, as width x height. Other shapes are kept: each "
        "image goes into the bucket nearest to its own shape. Smaller is faster and needs less "
        "VRAM, and learns less detail.",
        unit="px",
    ),
    WholeSetting(
        "epochs",
        "Epochs",
        6,
        "How often the whole set is gone through. A checkpoint is saved after each, so that you "
        "can choose the best one: an early one may beat the last.",
        low=1,
        high=10_000,
    ),
    WholeSetting(
        "image_repeats",
        "Image repeats",
        10,
        "How often each image is shown in one epoch. Looks per image = epochs x repeats; "
        "50 to 100 in all is usual.",
        low=1,
        high=10_000,
    ),
    WholeSetting(
        "batch_size",
        "Batch size",
        1,
        "Images per step. More needs more VRAM and makes fewer, smoother steps.",
        low=1,
        high=64,
    ),
    RealSetting(
        "learning_rate",
        "Learning rate",
        5e-5,
        "How large each step is. Type it as 5e-5 or as 0.00005, both are the same. Usual is 1e-5 "
        "(careful, few images) to 1e-4 (fast). It acts together with dims / rank: see the "
        "effective strength below.",
        low=0.0,
        high=1.0,
    ),
    ChoiceSetting(
        "optimizer_type",
        "Optimizer",
        "AdamW",
        "The rule that turns gradients into steps. AdamW is the safe choice; AdamW8bit gives "
        "nearly the same and saves some 0.9 GB of VRAM at rank 16, 7 GB at rank 128. Adafactor "
        "chooses the learning rate by itself unless --optimizer_args relative_step=False is given.",
        choices=OPTIMIZERS,
    ),
    WholeSetting(
        "seed",
        "Seed",
        42,
        "Same seed, same settings, same images: same course of training. Samples use it too.",
        low=0,
        high=4_294_967_295,
    ),
    WholeSetting(
        "lora_rank",
        "LoRA rank",
        16,
        "How much the LoRA can hold (--network_dim). For real people 16 is enough and 32 the most "
        "that helps; objects 8 to 16, styles 16 to 32. More learns backgrounds and faults along "
        "with the subject. The file has 18 MB for each rank: 295 MB at 16.",
        group="lora",
        low=1,
        high=1024,
    ),
    RealSetting(
        "lora_dims",
        "Dims (alpha)",
        128.0,
        "Strength of the LoRA while training (--network_alpha). What counts is the effective "
        "strength, dims / rank x learning rate; with dims = rank it is the learning rate itself. "
        "For real people: dims = rank and some 1000 to 2500 steps, or dims of 4 to 8 times the "
        "rank for a short run of some hundred.",
        group="lora",
        low=0.0,
        high=4096.0,
    ),
    FlagSetting(
        "samples_enabled",
        "Make sample images",
        False,
        "Draws your prompts while training, so that you see what it has learned.",
        group="samples",
    ),
    AreaSetting(
        "sample_prompt_text",
        "Sample prompts",
        "",
        "One prompt a line. {{trigger}} stands for the trigger word. Options after the text: "
        "--w and --h size in pixels (256), --s steps (20), --d seed, --l guidance (4), "
        "--n negative prompt.",
        group="samples",
        placeholder="{{trigger}} standing in a garden --w 512 --h 512",
    ),
    WholeSetting(
        "sample_every_epochs",
        "Every N epochs",
        1,
        "Samples after every N epochs; 0 is never.",
        group="samples",
        low=0,
        high=10_000,
    ),
    WholeSetting(
        "sample_every_steps",
        "Every N steps",
        0,
        "Samples after every N steps as well; 0 is never.",
        group="samples",
        low=0,
        high=1_000_000,
    ),
    FlagSetting(
        "sample_at_first",
        "Baseline samples",
        False,
        "Samples before the first step: what the model draws without your LoRA.",
        group="samples",
    ),
    FlagsSetting(
        "advanced_flags",
        "Advanced trainer flags",
        None,
        "Further options of qwen_image_train_network.py, as on a command line. They start as the "
        "VRAM profile's and are passed as they stand here.",
        group="advanced",
    ),
    Setting(
        "recipe",
        "Recipe",
        "",
        "Sets epochs, repeats, learning rate, rank and dims for a purpose and for the number of "
        "images there are. All fields stay yours to change.",
        group="recipe",
        max_length=120,
    ),
)

BY_NAME = {row.name: row for row in ROWS}

Settings = dict[str, Any]  # every name of ROWS -> its parsed value


def defaults() -> Settings:
    """Every setting at its default."""
    return {row.name: row.default for row in ROWS}


def parse(given: Any) -> Settings:
    """Return complete settings from what a form or a file gives; left out means default.

    Raises ManyInvalid with every wrong field at once, unknown names included.
    """
    settings, problems = read(given)
    if problems:
        raise ManyInvalid(problems)
    return settings


def read(given: Any) -> tuple[Settings, list[Invalid]]:
    """Like `parse`, but a bad value is left at its default and named in the second result."""
    if not isinstance(given, Mapping):
        return defaults(), [Invalid("The settings must be an object of names and values.")]
    settings, problems = defaults(), []
    for name, value in given.items():
        row = BY_NAME.get(name) if isinstance(name, str) else None
        try:
            if row is None:
                raise Invalid(
                    f"There is no setting called {str(name)[:80]!r}.", field=str(name)[:80]
                )
            settings[name] = row.parse(value)
        except Invalid as problem:
            problems.append(problem)
    return settings, problems


STORED = {"whole": int, "real": (int, float), "flag": bool}  # by kind; all others are text
MOST = 1e15  # no setting, time in seconds, number of steps or of bytes reaches it


def stored(given: Mapping) -> Settings:
    """Settings from a record, as they were parsed once; what can't be such a value is left out."""
    return {name: value for name, value in given.items() if _is_stored(BY_NAME.get(name), value)}


def _is_stored(row: Setting | None, value: Any) -> bool:
    if row is None:
        return False
    if isinstance(row, FlagsSetting) and value is None:
        return True
    if not isinstance(value, STORED.get(row.kind, str)):
        return False
    is_number = row.kind in ("whole", "real")
    return not is_number or (not isinstance(value, bool) and -MOST < value < MOST)


def as_typed(value: Any) -> str | bool:
    """A parsed value as a person would type it into the form: `5e-5`, `128`, or on/off as it is."""
    if isinstance(value, float):
        if value.is_integer():
            return str(int(value))
        return repr(value).replace("e-0", "e-")
    return value if isinstance(value, bool) else "" if value is None else str(value)


def form_rows() -> list[dict]:
    """What a form needs of every row, in order; `default` is as typed."""
    names = ("name", "label", "kind", "choices", "low", "high", "unit", "help", "group")
    names += ("placeholder",)
    return [
        {**{name: getattr(row, name) for name in names}, "default": as_typed(row.default)}
        for row in ROWS
    ]
