"""Musubi's caches of an output folder: what each was made from, which are stale.

Musubi goes by file name alone: with `--skip_existing` it keeps a cache whose image
or caption has changed since, without it it makes all of them again, and it trains on
every cache it finds. So `cache_index.json` keeps what each was made from; before a
caching stage whatever no longer fits is removed, and nothing else is made again.

A stage says which caches it needs as plain data, since it goes into a job's record:
`{"with": {...}, "files": {cache name: {"image": name, "of": {...}}}}`. `with` is what
all are made with (trainer, model file), `of` what is each one's own.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from musubitlx import looks, tensors
from musubitlx.buckets import Size, bucket_of
from musubitlx.errors import NotFound
from musubitlx.home import digest_of, read_json, stamp_of, write_json
from musubitlx.projects import Image, Project

INDEX = "cache_index.json"
VERSION = 1  # of the index; one of another version counts as none
LATENTS = re.compile(r".+_\d{4,}x\d{4,}_qi\.safetensors")
TEXTS = re.compile(r".+_qi_te\.safetensors")


# -- what a run needs ------------------------------------------------------------------------------


def wanted_latents(images: Iterable[Image], area: Size, made_with: dict) -> dict:
    """The latents of a run at a resolution of `area` (px): made of image content and bucket.

    The bucket is all that the resolution does to an image, so a changed resolution
    makes those again whose bucket it changes. Images must be readable.
    """
    files = {}
    for image in images:
        size = (image.facts.width, image.facts.height)
        name = f"{image.path.stem}_{size[0]:04d}x{size[1]:04d}_qi.safetensors"
        files[name] = {"image": image.name, "of": {"bucket": list(bucket_of(size, area))}}
    return {"with": made_with, "files": files}


def wanted_texts(images: Iterable[Image], trigger: str, prompt: str, made_with: dict) -> dict:
    """The text encoder outputs of a run: made of the final texts alone, not of the pictures."""
    files = {}
    for image in images:
        text = image.final_text(trigger, prompt).encode("utf-8", "surrogatepass")
        of = {"text": hashlib.sha256(text).hexdigest()}
        files[f"{image.path.stem}_qi_te.safetensors"] = {"image": None, "of": of}
    return {"with": made_with, "files": files}


# -- what is there ---------------------------------------------------------------------------------

REASONS = {  # why a cache is made again: one of them, several of them
    "new": ("is new", "are new"),
    "unknown": ("is of unknown origin", "are of unknown origin"),
    "file": ("was written by something else", "were written by something else"),
    "image": ("is of an image that changed", "are of images that changed"),
    "bucket": ("is of another resolution", "are of another resolution"),
    "text": ("is of another text", "are of other texts"),
    "model": ("was made with another model file", "were made with another model file"),
    "fp8": ("was made in another precision", "were made in another precision"),
    "trainer": ("was made by another trainer", "were made by another trainer"),
}


@dataclass
class Found:
    """How the caches of a stage stand: names of fresh ones, of stale ones with the reason (a
    key of REASONS), and of those that belong to no image of the run."""

    fresh: list[str] = field(default_factory=list)
    stale: dict[str, str] = field(default_factory=dict)
    orphans: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many the stage needs."""
        return len(self.fresh) + len(self.stale)

    @property
    def sentence(self) -> str:
        """What the stage has to do, in words."""
        if not self.stale:
            return f"nothing to do, all {self.count} caches are up to date"
        counts = Counter(self.stale.values())
        why = ", ".join(f"{n} {REASONS[key][n > 1]}" for key, n in counts.most_common())
        return f"{len(self.stale)} of {self.count} caches to make: {why}"


def compare(project: Project, wanted: dict) -> Found:
    """Say which caches of a stage can be kept. Nothing is written.

    An image whose file is the same by size and time is not read again; one whose
    content is the same under a new time (a copied folder) counts as unchanged.
    """
    index, files = _read_index(project), wanted["files"]
    pixels = _Pixels(project)
    found = Found(orphans=_orphans(project, files))
    for name, row in files.items():
        reason = _why_stale(project, name, row, wanted["with"], index.get(name), pixels)
        if reason:
            found.stale[name] = reason
        else:
            found.fresh.append(name)
    return found


def _why_stale(project, name: str, row: dict, made_with: dict, entry, pixels) -> str | None:
    """The key of REASONS that says why a cache can't be kept, None if it can."""
    there = _file_stamp(project.path / name)
    if there is None:
        return "new"
    if not isinstance(entry, dict):
        return "unknown"
    for part, wanted in (("with", made_with), ("of", row["of"])):
        had = entry.get(part)
        had = had if isinstance(had, dict) else {}
        for key in wanted | had:
            if wanted.get(key) != had.get(key):
                return key if key in REASONS else "unknown"
    if entry.get("file") != there:
        return "file"
    if row["image"] is not None and not pixels.same(row["image"], entry.get("image")):
        return "image"
    return None


def _orphans(project: Project, files: dict) -> list[str]:
    """Caches of the same kind that are of no image of the run: Musubi would train on them."""
    kind = next((k for k in (TEXTS, LATENTS) if any(map(k.fullmatch, files))), None)
    if kind is None:
        return []
    names = (path.name for path in project.path.glob("*_qi*.safetensors"))
    return [name for name in names if kind.fullmatch(name) and name not in files]


class _Pixels:
    """The content of a folder's images, read only where size and time don't tell."""

    def __init__(self, project: Project):
        self._project = project
        self._looks: dict | None = None

    def same(self, name: str, known: object) -> bool:
        """Whether the image is the one that `known` (a row of the index) was made from."""
        there = _file_stamp(self._project.path / name)
        if there is None or not isinstance(known, dict):
            return False
        stamp = known.get("stamp")
        if stamp == there:
            return True
        same_size = isinstance(stamp, list) and stamp[:1] == there[:1]
        return same_size and known.get("sha256") == (self.digest(name) or "unreadable")

    def digest(self, name: str) -> str | None:
        """SHA-256 of an image, from what the inspector noted where that is fresh."""
        path = self._project.path / name
        if self._looks is None:
            self._looks = looks.read(self._project)
        look = self._looks.get(name)
        if look and look.digest and look.stamp == stamp_of(path):
            return look.digest
        try:
            return digest_of(path)
        except OSError:
            return None


def _file_stamp(path: Path) -> list[int] | None:
    """Size and time of a file as they stand in the index; a copy that keeps its time is the
    same, so the inode is left out."""
    stamp = stamp_of(path)
    return None if stamp is None else [stamp[2], stamp[1]]


# -- before and after a stage ----------------------------------------------------------------------


def clear(project: Project, found: Found) -> None:
    """Remove what a stage must make anew, and what belongs to no image; OSError if it can't be."""
    for name in [*found.stale, *found.orphans]:
        (project.path / name).unlink(missing_ok=True)


def stamps(project: Project, wanted: dict) -> dict[str, list[int] | None]:
    """The images of a stage as they are before it starts, for `record`."""
    names = {row["image"] for row in wanted["files"].values() if row["image"] is not None}
    return {name: _file_stamp(project.path / name) for name in names}


def resized(project: Project, wanted: dict) -> list[str]:
    """The images that have another size now than the names of their latents say."""
    found = []
    for name, row in wanted["files"].items():
        if row["image"] is None or (project.path / name).exists():
            continue
        with suppress(NotFound):
            facts = project.image(row["image"]).facts
            if facts and f"_{facts.width:04d}x{facts.height:04d}_qi." not in name:
                found.append(row["image"])
    return found


def record(project: Project, wanted: dict, names: Iterable[str], images: dict) -> None:
    """Note what the caches `names` were made from. Never fails: without a note one is made again.

    Left out are files that are missing or cut short, and those whose image is not
    what it was in `images` (see `stamps`) when the stage began.
    """
    index, pixels = _read_index(project), _Pixels(project)
    for name in names:
        index.pop(name, None)
        row, there = wanted["files"][name], _file_stamp(project.path / name)
        if there is None or tensors.read_header(project.path / name)[0]:
            continue
        entry = {"with": wanted["with"], "of": row["of"], "file": there}
        if (image := row["image"]) is not None:
            stamp = _file_stamp(project.path / image)
            if stamp is None or stamp != images.get(image):
                continue
            entry["image"] = {"name": image, "stamp": stamp, "sha256": pixels.digest(image)}
        index[name] = entry
    kept = {name: entry for name, entry in index.items() if (project.path / name).exists()}
    with suppress(OSError):
        write_json(project.path / INDEX, {"version": VERSION, "caches": kept})
    _read.pop(project.path, None)


_read: dict[Path, tuple[object, dict]] = {}  # the index read last, by folder


def _read_index(project: Project) -> dict:
    """A copy of what is known, by name of the cache; empty for a missing or odd file."""
    stamp = stamp_of(project.path / INDEX)
    known = _read.get(project.path)
    if known is None or known[0] != stamp:
        data = read_json(project.path / INDEX) or {}
        rows = data.get("caches") if data.get("version") == VERSION else None
        if len(_read) > 16:
            _read.clear()
        known = _read[project.path] = (stamp, rows if isinstance(rows, dict) else {})
    return dict(known[1])
