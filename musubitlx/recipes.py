"""Recipes: settings for a purpose, as YAML files that may be read, copied and edited.

A recipe fixes some settings and says how many steps are wanted for how many
images; epochs and image repeats are worked out from that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from musubitlx import estimate, settings, yamls
from musubitlx.errors import Invalid
from musubitlx.home import PACKAGE_ROOT, Home, is_component

SHIPPED = PACKAGE_ROOT / "configs" / "recipes"
ORDER = ("person", "style", "object", "few-images", "many-images", "quick-look")  # on the page
COUNTS = (5, 10, 25, 60, 150)  # images for which the range of a recipe is stated
NO_IMAGES = 10  # what is counted with while there are none
SIDE_PX = 1024  # of an image, where only their number is known: all fall into one bucket
MAX_BYTES = 100_000
MOST_EPOCHS = 1.5  # times those wanted, to come nearer to the steps wanted
EPOCHS_WEIGHT = 0.1  # what being off in epochs counts against being off in steps

PARTS = ("label", "why", "settings", "steps", "epochs", "range", "sources")
WORKED_OUT = ("epochs", "image_repeats")
OTHERS = ("output_dir", "output_name", "trigger_word", "prompt", "sample_prompt_text")


@dataclass(frozen=True)
class Recipe:
    """One recipe. `steps` are pairs of image count and total steps, by count.

    `ranges` says between which numbers `steps` and `looks` lie for the `COUNTS`.
    """

    id: str
    label: str
    why: str
    fixed: dict
    steps: tuple[tuple[int, int], ...]
    epochs: int
    ranges: dict[str, tuple[int, int]]

    def wanted(self, images: int) -> float:
        """The steps wanted for so many images: between two rows on a logarithmic scale.

        Below the first row and above the last one it is that row's number.
        """
        images = _counted(images)
        if images <= self.steps[0][0]:
            return self.steps[0][1]
        for (low, fewer), (high, more) in pairwise(self.steps):
            if images <= high:
                share = math.log(images / low) / math.log(high / low)
                return fewer + share * (more - fewer)
        return self.steps[-1][1]

    def settings_for(self, images: int) -> dict:
        """The settings it sets for so many images; none are counted as ten.

        The batch size is always among them: epochs and repeats are right for that one only.
        """
        epochs, repeats = self._split(_counted(images))
        return {"batch_size": 1, **self.fixed, "epochs": epochs, "image_repeats": repeats}

    def _split(self, images: int) -> tuple[int, int]:
        """Epochs and repeats that come nearest to the steps and the checkpoints wanted."""
        looks = self.wanted(images) * self.fixed.get("batch_size", 1) / images
        most = math.ceil(self.epochs * MOST_EPOCHS)
        pairs = [(epochs, max(1, round(looks / epochs))) for epochs in range(1, most + 1)]

        def off(pair: tuple[int, int]) -> float:
            steps, epochs = pair[0] * pair[1] / looks, pair[0] / self.epochs
            return abs(steps - 1) + EPOCHS_WEIGHT * abs(epochs - 1)

        return min(pairs, key=off)

    def count(self, images: int) -> dict:
        """Steps and looks per image of a run with it, see `estimate.steps`."""
        complete = {**settings.defaults(), **self.settings_for(images)}
        return estimate.steps(complete, {(SIDE_PX, SIDE_PX): _counted(images)})

    def as_dict(self, images: int) -> dict:
        """What the page needs to offer it for so many images."""
        counted = self.count(images)
        return {
            "id": self.id,
            "label": self.label,
            "why": self.why,
            "settings": self.settings_for(images),
            "steps": counted["steps"],
            "looks": counted["looks_per_image"],
            "range": {name: list(ends) for name, ends in self.ranges.items()},
        }


def _counted(images: int) -> int:
    return images if images > 0 else NO_IMAGES


# -- the files -------------------------------------------------------------------------------------


def folders(home: Home) -> list[Path]:
    """Where recipes lie: the shipped ones, then the user's own."""
    return [SHIPPED, home.configs / "recipes"]


def all(folders: Iterable[Path]) -> tuple[list[Recipe], list[Invalid]]:
    """Read every `*.yaml` of the folders, and say what is wrong with those that can't be used.

    Of two files of one name the one in the later folder counts, if it can be
    used. A folder that is not there holds none.
    """
    found, problems = {}, []
    for folder in dict.fromkeys(folder.resolve() for folder in folders):
        for path in _files(folder):
            try:
                found[path.stem] = load(path)
            except Invalid as problem:
                problems.append(problem)
    places = {name: place for place, name in enumerate(ORDER)}
    return sorted(found.values(), key=lambda r: (places.get(r.id, len(places)), r.id)), problems


def _files(folder: Path) -> list[Path]:
    try:
        paths = [path for path in folder.iterdir() if path.suffix.lower() == ".yaml"]
    except OSError:
        return []
    return sorted(path for path in paths if is_component(path.name))


def load(path: Path) -> Recipe:
    """Read one recipe; Invalid says in a sentence everything that is wrong with it."""
    try:
        given = yamls.read(path, MAX_BYTES)
    except FileNotFoundError:
        raise _invalid(path, ["it is not there any more"]) from None
    except yamls.Unreadable as why:
        raise _invalid(path, [str(why)]) from why
    if not isinstance(given, dict):
        raise _invalid(path, ["it must be lines of `name: value`"])
    reader = _Reader(given)
    recipe = reader.recipe(path.stem)
    if reader.wrong:
        raise _invalid(path, reader.wrong)
    return recipe


def _invalid(path: Path, wrong: list[str]) -> Invalid:
    return Invalid(
        f"The recipe {path.name} can't be used: {'; '.join(wrong)}.",
        field="recipe",
        hint=f"Put it right, or copy one of the shipped recipes: {path}",
    )


class _Reader:
    """Makes a recipe of what a file holds; `wrong` collects what is wrong with it."""

    def __init__(self, given: dict):
        self.given, self.wrong = given, []

    def recipe(self, name: str) -> Recipe | None:
        """The recipe, or None where something is wrong."""
        for part in self.given:
            if part not in PARTS:
                self.wrong.append(f"{_shown(part)} is no part of a recipe")
        label, why = self._text("label", 60), self._text("why", 400)
        fixed, steps = self._fixed(), self._steps()
        epochs = self._whole("epochs", self.given.get("epochs"), 1000)
        ranges = self._ranges()
        if self.wrong:
            return None
        recipe = Recipe(name, label, why, fixed, steps, epochs, ranges)
        return recipe if ranges else Recipe(**{**vars(recipe), "ranges": _count_ranges(recipe)})

    def _text(self, part: str, most: int) -> str:
        text = self.given.get(part)
        text = " ".join(text.split()) if isinstance(text, str) else ""
        if not text or len(text) > most:
            self.wrong.append(f"{part} must be a text of up to {most} characters")
        return text

    def _table(self, part: str) -> dict:
        table = self.given.get(part)
        if not isinstance(table, dict) or not table:
            self.wrong.append(f"{part} must be lines of `name: value`")
            return {}
        return table

    def _whole(self, what: str, typed: object, most: int) -> int:
        if isinstance(typed, str) and typed.isascii() and typed.isdigit() and len(typed) < 10:
            number = int(typed)
            if 1 <= number <= most:
                return number
        self.wrong.append(f"{what} must be a whole number from 1 to {most}")
        return 1

    def _fixed(self) -> dict:
        fixed = {}
        for name, value in self._table("settings").items():
            row = settings.BY_NAME.get(name)
            if row is None:
                self.wrong.append(f"there is no setting called {_shown(name)}")
            elif name in WORKED_OUT:
                self.wrong.append(f"{name} can't be fixed, it follows from the steps wanted")
            elif name in OTHERS:
                self.wrong.append(f"{name} belongs to the folder, not to a recipe")
            else:
                try:
                    fixed[name] = row.parse(value)
                except Invalid as problem:
                    self.wrong.append(str(problem).rstrip("."))
        return fixed

    def _steps(self) -> tuple[tuple[int, int], ...]:
        rows = {}
        for images, steps in self._table("steps").items():
            count = self._whole(f"steps: {_shown(images)}", images, 1_000_000)
            rows[count] = self._whole(f"steps for {_shown(images)} images", steps, 1_000_000)
        return tuple(sorted(rows.items()))

    def _ranges(self) -> dict[str, tuple[int, int]]:
        if "range" not in self.given:
            return {}
        table, ranges = self._table("range"), {}
        for name in ("steps", "looks"):
            ends = table.get(name)
            if not isinstance(ends, list) or len(ends) != 2:
                self.wrong.append(f"range: {name} must be two numbers, like [500, 2000]")
                continue
            low, high = (self._whole(f"range: {name}", end, 1_000_000_000) for end in ends)
            if low > high:
                self.wrong.append(f"range: {name} must begin with the smaller number")
            ranges[name] = (low, high)
        return ranges


def _count_ranges(recipe: Recipe) -> dict[str, tuple[int, int]]:
    """The ranges, counted, of a recipe that states none."""
    counted = [recipe.count(images) for images in COUNTS]
    steps = [one["steps"] for one in counted]
    looks = [one["looks_per_image"] for one in counted]
    return {"steps": (min(steps), max(steps)), "looks": (min(looks), max(looks))}


def _shown(name: object) -> str:
    return name[:40] if isinstance(name, str) else "a list"
