"""Dataset health: what is wrong with the images and captions of a folder, and what to do."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property

from musubitlx import looks
from musubitlx.buckets import area_of, bucket_of, crop_of
from musubitlx.home import is_storable, natural_key
from musubitlx.looks import Look
from musubitlx.pictures import NAMED, READABLE
from musubitlx.projects import TAKEN_STEMS, TINY_PX, Image, Project
from musubitlx.settings import Settings

# From this blur on a picture is called blurred. Measured with `inspector.blur` on 16 photos of
# skimage and sklearn: as they are 0.05 to 0.34; blurred with a radius of 4 (at 1024 px) 0.46 to
# 0.79, of 6 0.64 to 0.84. Drawn scenes: 0.23 to 0.42 sharp, from 0.62 on at a radius of 2.
BLURRY = 0.55
CROPPED = 0.2  # of the area cut off: worth telling
ENLARGED = 1.02  # a scale up to this is not worth telling
SIDES_PX = (512, 640, 768, 896, 1024, 1280, 1328)  # square resolutions people train at
NAMES_SHOWN = 3
UNREAD = (*(suffix for suffix in NAMED if suffix not in READABLE), ".jxl")


@dataclass(frozen=True)
class Finding:
    """One thing that was found. `tone` is danger (it keeps a run from starting), warn or note.

    `images` are names; `groups` those that belong together; `action` what the
    page can do about it: mend, adopt, remove_copies.
    """

    kind: str
    tone: str
    text: str
    hint: str
    images: list[str] = field(default_factory=list)
    groups: list[list[str]] | None = None
    action: str | None = None


def report(project: Project, settings: Settings) -> dict:
    """The answer of GET …/health: findings, buckets, and how many images were looked at."""
    images = project.images()
    known = looks.fresh(project)
    return {
        "looked": sum(image.name in known for image in images),
        "of": len(images),
        "findings": [asdict(one) for one in findings(project, images, known, settings)],
        "buckets": bucket_table(images, settings),
    }


def findings(
    project: Project, images: list[Image], known: dict[str, Look], settings: Settings
) -> list[Finding]:
    """Everything found, the serious first. Looks that are missing are simply not known yet."""
    seen = Seen(project, images, known, settings)
    return [finding for check in (*BLOCKING, *OTHERS) if (finding := check(seen))]


def blocking(
    project: Project, images: list[Image], known: dict[str, Look], settings: Settings
) -> list[Finding]:
    """Those findings that keep a run from starting: the ones of the tone danger."""
    seen = Seen(project, images, known, settings)
    return [finding for check in BLOCKING if (finding := check(seen))]


@dataclass(frozen=True)
class Seen:
    """What the checks look at."""

    project: Project
    images: list[Image]
    looks: dict[str, Look]
    settings: Settings

    @cached_property
    def copies(self) -> tuple[list[list[str]], list[list[str]]]:
        """Groups of the same files, and of pictures that look nearly the same."""
        exact, near = looks.groups(self.looks)
        return tuple([sorted(names, key=natural_key) for names in kind] for kind in (exact, near))

    @property
    def sizes(self) -> Iterator[tuple[Image, tuple[int, int]]]:
        """The readable images with their sizes."""
        return ((one, (one.facts.width, one.facts.height)) for one in self.images if one.facts)

    def named(self, fits: Callable[[Image, Look | None], object]) -> list[str]:
        """Names of the images for which something holds."""
        return [one.name for one in self.images if fits(one, self.looks.get(one.name))]


# -- sentences -------------------------------------------------------------------------------------


def listed(names: Collection[str]) -> str:
    """Some names for a sentence: at most three, and how many more."""
    shown = list(names)[:NAMES_SHOWN]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def many(count: int, one: str, several: str | None = None) -> str:
    """A number with its noun: 1 image, 2 images."""
    return f"{count} {one if count == 1 else several or one + 's'}"


def _images(names: Collection[str], one: str, several: str) -> str:
    """`3 images are blurred: a, b, c.`"""
    return f"{many(len(names), 'image')} {one if len(names) == 1 else several}: {listed(names)}."


# -- what is looked for ----------------------------------------------------------------------------


def _unreadable(seen: Seen) -> Finding | None:
    reasons = {}
    for image in seen.images:
        look = seen.looks.get(image.name)
        if image.facts is None:
            reasons[image.name] = "it is no image"
        elif look and look.problem:
            reasons[image.name] = look.problem
    if not reasons:
        return None
    why = next(iter(reasons.values()))
    text = f"{many(len(reasons), 'image')} can’t be read: {listed(reasons)} – {why}."
    hint = "The run would stop there: remove them, or replace them by whole files."
    return Finding("unreadable", "danger", text, hint, list(reasons))


def _unfit(seen: Seen) -> Finding | None:
    reasons = {}
    for image in seen.images:
        look = seen.looks.get(image.name)
        if reason := (image.facts and image.facts.unfit) or (look and look.unfit):
            reasons[image.name] = reason
    if not reasons:
        return None
    text = f"{_images(reasons, 'needs mending', 'need mending')} {next(iter(reasons.values()))}."
    hint = "Dataset health can mend that; the originals are kept in originals/."
    return Finding("unfit", "danger", text, hint, list(reasons), action="mend")


def _same_stem(seen: Seen) -> Finding | None:
    stems = Counter(image.path.stem.casefold() for image in seen.images)
    names = seen.named(lambda image, _: stems[image.path.stem.casefold()] > 1)
    if not names:
        return None
    text = f"Several images differ in their ending only: {listed(names)}."
    hint = "Musubi would mix up their caches and captions: rename all but one of each."
    return Finding("same_stem", "danger", text, hint, names)


def _place(seen: Seen) -> Finding | None:
    if not re.search(r"[\[\]*?]", str(seen.project.path)):
        return None
    text = (
        f"The path {seen.project.path} contains one of [ ] * ?, and Musubi finds no caches there."
    )
    hint = "Move the home folder, or start with --home and another folder."
    return Finding("place", "danger", text, hint)


def _left_out(seen: Seen) -> Finding | None:
    names, unsayable = [], 0
    with suppress(OSError), os.scandir(seen.project.path) as entries:
        for entry in entries:
            if entry.name.startswith(".") or not entry.is_file():
                continue
            if not is_storable(entry.name):
                unsayable += entry.name.lower().endswith(NAMED)
            elif entry.name.lower().endswith(UNREAD):
                names.append(entry.name)
    names.sort(key=natural_key)
    if names:
        text = f"{many(len(names), 'file')} of a kind the trainer does not read: {listed(names)}."
        hint = "Taken in, they are converted; the originals are kept in originals/."
        return Finding("left_out", "warn", text, hint, names, action="adopt")
    if unsayable:
        text = f"{many(unsayable, 'image')} left out: the name is not UTF-8."
        return Finding("left_out", "warn", text, "Rename it on the server.")
    return None


def _no_text(seen: Seen) -> Finding | None:
    trigger, prompt = seen.settings["trigger_word"], seen.settings["prompt"]
    names = seen.named(lambda image, _: not image.final_text(trigger, prompt))
    if not names:
        return None
    text = _images(names, "has no text at all", "have no text at all")
    hint = "Write captions, or give a trigger word and a subject description in step 2."
    return Finding("no_text", "warn", text, hint, names)


def _duplicates(seen: Seen) -> Finding | None:
    groups = seen.copies[0]
    names = [name for group in groups for name in group]
    if not names:
        return None
    text = f"{many(len(names), 'image')} are there more than once: {_grouped(groups)}."
    hint = "A picture that is there twice counts twice: keep one of each."
    return Finding("duplicates", "warn", text, hint, names, groups, "remove_copies")


def _near_duplicates(seen: Seen) -> Finding | None:
    groups = seen.copies[1]
    names = [name for group in groups for name in group]
    if not names:
        return None
    text = f"{many(len(names), 'image')} look nearly the same: {_grouped(groups)}."
    hint = "Keep the best of each, or the LoRA learns that one view by heart."
    return Finding("near_duplicates", "warn", text, hint, names, groups)


def _grouped(groups: list[list[str]]) -> str:
    shown = "; ".join(" = ".join(group[:NAMES_SHOWN]) for group in groups[:NAMES_SHOWN])
    more = len(groups) - NAMES_SHOWN
    return shown + (f" and {many(more, 'group')} more" if more > 0 else "")


def _blurry(seen: Seen) -> Finding | None:
    names = seen.named(lambda _, look: look and look.blur is not None and look.blur >= BLURRY)
    if not names:
        return None
    text = _images(names, "looks blurred", "look blurred")
    hint = "The LoRA learns the blur, too: use sharper pictures where there are some."
    return Finding("blurry", "warn", text, hint, names)


def _tiny(seen: Seen) -> Finding | None:
    names = [image.name for image, size in seen.sizes if min(size) < TINY_PX]
    if not names:
        return None
    text = _images(names, "is very small", "are very small")
    hint = f"Below {TINY_PX} px on the shorter side there is little to learn: use larger ones."
    return Finding("tiny", "warn", text, hint, names)


def _enlarged(seen: Seen) -> Finding | None:
    area = area_of(seen.settings["resolution"])
    scales = {image.name: _scale(size, area) for image, size in seen.sizes}
    names = [name for name, scale in scales.items() if scale > ENLARGED]
    if not names:
        return None
    most = max(scales.values())
    text = (
        f"{many(len(names), 'image is', 'images are')} smaller than the training resolution and "
        f"will be enlarged, up to {most:.1f} times: {listed(names)}."
    )
    hint = "Enlarged pictures teach softness: use larger ones" + _smaller_resolution(seen, names)
    return Finding("enlarged", "warn", text, hint, names)


def _scale(size: tuple[int, int], area: tuple[int, int]) -> float:
    return crop_of(size, bucket_of(size, area)).scale


def _smaller_resolution(seen: Seen, enlarged: list[str]) -> str:
    """The end of the hint: the largest usual resolution at which fewest images are enlarged."""
    width, height = area_of(seen.settings["resolution"])
    counts = {}
    for side in SIDES_PX:
        if side * side < width * height:
            sizes = (size for _, size in seen.sizes)
            counts[side] = sum(_scale(size, (side, side)) > ENLARGED for size in sizes)
    if not counts or min(counts.values()) >= len(enlarged):
        return "."
    fewest = min(counts.values())
    best = max(side for side, count in counts.items() if count == fewest)
    left = "none" if fewest == 0 else f"only {fewest}"
    return f", or train at {best}x{best}, which would enlarge {left}."


def _cropped(seen: Seen) -> Finding | None:
    area = area_of(seen.settings["resolution"])
    names = [
        image.name
        for image, size in seen.sizes
        if crop_of(size, bucket_of(size, area)).lost > CROPPED
    ]
    if not names:
        return None
    text = f"More than a fifth is cut off of {many(len(names), 'image')}: {listed(names)}."
    hint = (
        "Only the middle is trained on, shaded on the cards: crop them yourself where it matters."
    )
    return Finding("cropped", "warn", text, hint, names)


def _no_caption(seen: Seen) -> Finding | None:
    trigger, prompt = seen.settings["trigger_word"], seen.settings["prompt"]
    names = seen.named(
        lambda image, _: not image.caption.strip() and image.final_text(trigger, prompt)
    )
    if not names:
        return None
    text = _images(names, "has no caption of its own", "have no caption of their own")
    hint = "Trigger word and subject description stand in for it. A caption of its own is better."
    return Finding("no_caption", "note", text, hint, names)


def _lonely_captions(seen: Seen) -> Finding | None:
    stems = {image.path.stem for image in seen.images} | TAKEN_STEMS
    names = []
    with suppress(OSError), os.scandir(seen.project.path) as entries:
        names = [
            entry.name
            for entry in entries
            if entry.name.endswith(".txt")
            and not entry.name.startswith(".")
            and is_storable(entry.name)
            and entry.name[:-4] not in stems
        ]
    if not names:
        return None
    names.sort(key=natural_key)
    text = f"{many(len(names), 'text file')} without an image of that name: {listed(names)}."
    hint = "Captions whose image is missing? Add it under the same name, or ignore them."
    return Finding("lonely_captions", "note", text, hint, names)


BLOCKING = (_unreadable, _unfit, _same_stem, _place)
OTHERS = (
    _left_out,
    _no_text,
    _duplicates,
    _near_duplicates,
    _blurry,
    _tiny,
    _enlarged,
    _cropped,
    _no_caption,
    _lonely_captions,
)


def bucket_table(images: list[Image], settings: Settings) -> list[dict]:
    """The buckets Musubi will make, the fullest first: {width, height (px), images (names)}."""
    area = area_of(settings["resolution"])
    table: dict[tuple[int, int], list[str]] = {}
    for image in images:
        if image.facts:
            bucket = bucket_of((image.facts.width, image.facts.height), area)
            table.setdefault(bucket, []).append(image.name)
    rows = sorted(table.items(), key=lambda row: (-len(row[1]), row[0]))
    return [{"width": w, "height": h, "images": names} for (w, h), names in rows]
