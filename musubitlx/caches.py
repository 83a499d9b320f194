"""Musubi's caches of an output folder: what each was made from, which are stale.

Musubi goes by file name alone: with `--skip_existing` it keeps a cache whose image
or caption has changed since, without it it makes all of them again, and it trains on
every cache it finds. So `cache_index.json` keeps what each was made from; before a
caching stage whatever no longer fits is removed, and nothing else is made again.

A stage says which caches it needs as plain data, since it goes into a job's record:
`{"kind": ..., "with": {...}, "model": path, "files": {cache name: {"image": name,
"of": {...}}}}`. `with` and the model file are what all are made with, `of` is what
each one's own is. The model file is looked at when the stage begins, not before: it
may be replaced while a run waits.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from musubitlx import looks, models, tensors
from musubitlx.buckets import Size, bucket_of
from musubitlx.errors import NotFound
from musubitlx.home import digest_of, read_json, stamp_of, write_json
from musubitlx.projects import Image, Project

INDEX = "cache_index.json"
VERSION = 1  # of the index; one of another version counts as none
MAKING = "making"  # in place of the stamp of a cache that is about to be made


@dataclass(frozen=True)
class Kind:
    """What caches of a stage look like: Musubi finds them by `ending`, their whole name has the
    `shape`, and one that Musubi wrote holds a tensor whose name begins with `tensor`."""

    ending: str
    shape: re.Pattern
    tensor: str


KINDS = {
    "latents": Kind("_qi.safetensors", re.compile(r".+_\d{4,}x\d{4,}_qi\.safetensors"), "latents_"),
    "texts": Kind("_qi_te.safetensors", re.compile(r".+_qi_te\.safetensors"), "varlen_vl_embed_"),
}


# -- what a run needs ------------------------------------------------------------------------------


def wanted_latents(images: Iterable[Image], area: Size, made_with: dict, model: str) -> dict:
    """The latents of a run at a resolution of `area` (px): made of image content and bucket.

    The bucket is all that the resolution does to an image, so a changed resolution
    makes those again whose bucket it changes. Images must be readable. `model` is
    the path of the VAE.
    """
    files = {}
    for image in images:
        size = (image.facts.width, image.facts.height)
        of = {"bucket": list(bucket_of(size, area))}
        files[_latents_name(image)] = {"image": image.name, "of": of}
    return {"kind": "latents", "with": made_with, "model": model, "files": files}


def _latents_name(image: Image) -> str:
    """How Musubi calls the latents of a readable image: by stem and size (px)."""
    return f"{image.path.stem}_{image.facts.width:04d}x{image.facts.height:04d}_qi.safetensors"


def wanted_texts(
    images: Iterable[Image], trigger: str, prompt: str, made_with: dict, model: str
) -> dict:
    """The text encoder outputs of a run: made of the final texts alone, not of the pictures.

    `model` is the path of the text encoder.
    """
    files = {}
    for image in images:
        text = image.final_text(trigger, prompt).encode("utf-8", "surrogatepass")
        of = {"text": hashlib.sha256(text).hexdigest()}
        files[f"{image.path.stem}_qi_te.safetensors"] = {"image": None, "of": of}
    return {"kind": "texts", "with": made_with, "model": model, "files": files}


def _made_with(wanted: dict) -> dict:
    """What all caches of a stage are made with now; another value of any makes them stale."""
    return {**wanted["with"], "model": models.fingerprint(Path(wanted["model"]))}


# -- what is there ---------------------------------------------------------------------------------

REASONS = {  # why a cache is made again: one of them, several of them
    "new": ("is new", "are new"),
    "unknown": ("is of unknown origin", "are of unknown origin"),
    "file": ("was written by something else", "were written by something else"),
    "image": ("is of an image that changed", "are of images that changed"),
    "bucket": ("is of another resolution", "are of another resolution"),
    "text": ("is of another text", "are of other texts"),
    "cut": ("was not finished", "were not finished"),
    "model": ("was made with another model file", "were made with another model file"),
    "fp8": ("was made in another precision", "were made in another precision"),
    "trainer": ("was made by another trainer", "were made by another trainer"),
}


@dataclass
class Found:
    """How the caches of a stage stand, by name: fresh ones, stale ones with the reason (a key
    of REASONS), those that belong to no image of the run, and files that Musubi would take for
    caches though they are none."""

    fresh: list[str] = field(default_factory=list)
    stale: dict[str, str] = field(default_factory=dict)
    orphans: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

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

    @property
    def trouble(self) -> str | None:
        """Why no run can start, in words: such a file would be lost, or training fail on it."""
        if not self.foreign:
            return None
        more = f" and {len(self.foreign) - 1} more" if len(self.foreign) > 1 else ""
        named = f"{self.foreign[0]}{more} in the output folder"
        return f"{named} is named like a cache of Musubi’s and is none."


RENAME = "Rename it, or move it elsewhere: Musubi takes every file whose name ends in _qi for one."


def compare(project: Project, wanted: dict) -> Found:
    """Say which caches of a stage can be kept. Nothing is written.

    An image whose file has not been touched is not read again; one whose content is
    the same under a new stamp (a copied folder) counts as unchanged.
    """
    index, files, kind = _read_index(project), wanted["files"], KINDS[wanted["kind"]]
    pixels, made_with = _Pixels(project), _made_with(wanted)
    found = Found()
    for name, row in files.items():
        reason = _why_stale(project, name, row, made_with, index.get(name), pixels)
        if reason is None:
            found.fresh.append(name)
            continue
        found.stale[name] = reason
        if not _may_go(project.path / name, kind, index.get(name), wanted=True):
            found.foreign.append(name)
    for name in _others(project, files, kind):
        if _may_go(project.path / name, kind, index.get(name), wanted=False):
            found.orphans.append(name)
        elif kind is KINDS["latents"]:  # by these it goes when it trains; the others lie idle
            found.foreign.append(name)
    return found


def _why_stale(project, name: str, row: dict, made_with: dict, entry, pixels) -> str | None:
    """The key of REASONS that says why a cache can't be kept, None if it can."""
    there = _cache_stamp(project.path / name)
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
    if entry.get("file") == MAKING:
        if tensors.read_header(project.path / name)[0]:
            return "cut"
    elif entry.get("file") != there:
        return "file"
    if row["image"] is not None and not pixels.same(row["image"], entry.get("image")):
        return "image"
    return None


def _others(project: Project, files: dict, kind: Kind) -> Iterator[str]:
    """What Musubi takes for caches of this kind besides those of the run's images."""
    for path in project.path.glob(f"*{kind.ending}"):
        if path.name not in files:
            yield path.name


def _may_go(path: Path, kind: Kind, entry: object, *, wanted: bool) -> bool:
    """Whether what lies at the place of a cache is one, ours or Musubi's, and can be removed.

    Where one is wanted, what can't be read is one too: a caching that was killed left it.
    """
    there = _cache_stamp(path)
    if there is None:
        return True
    if not path.is_file():
        return False
    if isinstance(entry, dict) and entry.get("file") == there:
        return True
    problem, names = tensors.read_header(path)
    if problem:
        return wanted
    return bool(kind.shape.fullmatch(path.name)) and any(n.startswith(kind.tensor) for n in names)


class _Pixels:
    """The content of a folder's images, read only where it is not known."""

    def __init__(self, project: Project):
        self._project = project
        self._looks: dict | None = None

    def same(self, name: str, known: object) -> bool:
        """Whether the image is the one that `known` (a row of the index) was made from."""
        there = stamp_of(self._project.path / name)
        if there is None or not isinstance(known, dict):
            return False
        if known.get("stamp") == list(there):
            return True
        if known.get("bytes") != there.bytes:
            return False
        return known.get("sha256") == (self._digest(name) or "unreadable")

    def note(self, name: str) -> dict | None:
        """What the index keeps of an image, None if it can't be read."""
        stamp = stamp_of(self._project.path / name)
        digest = self._digest(name) if stamp else None
        if digest is None:
            return None
        return {"name": name, "stamp": list(stamp), "bytes": stamp.bytes, "sha256": digest}

    def _digest(self, name: str) -> str | None:
        """SHA-256 of an image, from what the inspector noted where that is fresh."""
        path = self._project.path / name
        if self._looks is None:
            self._looks = looks.read(self._project)
        look, stamp = self._looks.get(name), stamp_of(path)
        if look and look.digest and look.stamp == stamp:
            return look.digest
        try:
            return _digest(path, stamp)
        except OSError:
            return None


@lru_cache(maxsize=10_000)
def _digest(path: Path, _stamp: object) -> str:
    """SHA-256 of a version of a file, read once: a form is checked at every letter typed."""
    return digest_of(path)


def _cache_stamp(path: Path) -> list[int] | None:
    """Size and time of a cache as they stand in the index: a copied folder keeps its caches."""
    stamp = stamp_of(path)
    return None if stamp is None else [stamp.bytes, stamp.modified]


# -- before and after a stage ----------------------------------------------------------------------


def begin(project: Project, wanted: dict, found: Found) -> None:
    """Remove what a stage must make anew and what belongs to no image; OSError if it can't be.

    What the caches to come are made from is noted now, so that those that get
    finished are known even if the runner is killed.
    """
    for name in [*found.stale, *found.orphans]:
        (project.path / name).unlink(missing_ok=True)
    if not found.stale:
        return
    index, pixels, made_with = _read_index(project), _Pixels(project), _made_with(wanted)
    for name in found.stale:
        row = wanted["files"][name]
        index[name] = {"with": made_with, "of": row["of"], "file": MAKING}
        if row["image"] is not None:
            index[name]["image"] = pixels.note(row["image"])
    _write_index(project, index)


def finish(project: Project, wanted: dict) -> None:
    """Note which of the caches begun are there. Never fails: without a note one is made again.

    Left out are files that are missing or cut short, and those whose image or model
    file is not what it was when the stage began.
    """
    index, pixels, made_with = _read_index(project), _Pixels(project), _made_with(wanted)
    before = dict(index)
    for name, row in wanted["files"].items():
        entry = index.get(name)
        if isinstance(entry, dict) and entry.get("file") == MAKING:
            if _why_stale(project, name, row, made_with, entry, pixels):
                del index[name]
            else:
                index[name] = {**entry, "file": _cache_stamp(project.path / name)}
    index = {name: entry for name, entry in index.items() if _is_there(project, name)}
    if index != before:
        _write_index(project, index)


def resized(project: Project, wanted: dict) -> list[str]:
    """The images that have another size now than the names of their latents say."""
    found = []
    for name, row in wanted["files"].items():
        if row["image"] is None or _is_there(project, name):
            continue
        with suppress(NotFound):
            image = project.image(row["image"])
            if image.facts and _latents_name(image) != name:
                found.append(image.name)
    return found


def _is_there(project: Project, name: str) -> bool:
    return (project.path / name).exists()


# -- the index -------------------------------------------------------------------------------------


def _write_index(project: Project, index: dict) -> None:
    with suppress(OSError):
        write_json(project.path / INDEX, {"version": VERSION, "caches": index})
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
