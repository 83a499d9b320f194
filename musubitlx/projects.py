"""An output folder: its images and captions, and what training left in it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from musubitlx import captions, pictures
from musubitlx.errors import Invalid, NotFound
from musubitlx.home import Home, child, is_storable, name_problem, natural_key, stamp_of

READABLE = pictures.READABLE  # suffixes, lower case
TAKEN_STEMS = {"sample_prompts"}  # their .txt is not a caption
TINY_PX = 256  # a shorter side below this is mostly enlarged
CACHE = re.compile(r"(?P<stem>.+?)(?:_\d{4,}x\d{4,})?_qi(?:_te)?\.safetensors")
OWN_CACHE = re.compile(r"(.+?)(?:_\d{4,}x\d{4,}_qi|_qi_te)\.safetensors")
LONG_NAME_BYTES = 200  # of a file name: a longer one leaves no room for a suffix
SAMPLE = re.compile(
    r"(?:(?P<name>.+)_)?(?:e(?P<epoch>\d{6})|(?P<step>\d{6,}))_(?P<prompt>\d+)_(?P<time>\d{14})"
    r"(?:_(?P<seed>\d+))?_\d{3}\.png"
)
CARD = re.compile(r"LORA_README(?:\.[^/\\]+)?\.md")

_naming = threading.RLock()  # one name is given at a time


@dataclass(frozen=True)
class Image:
    """One training image with its caption, as the files say."""

    path: Path
    facts: pictures.Facts | None
    caption: str

    @property
    def name(self) -> str:
        """File name, the image's key in its folder."""
        return self.path.name

    @property
    def warnings(self) -> list[str]:
        """What the trainer would make badly of it, in sentences."""
        if self.facts is None:
            return ["This file can't be read as an image."]
        told = [f"{self.facts.unfit}."] if self.facts.unfit else []
        if min(self.facts.width, self.facts.height) < TINY_PX:
            size = f"{self.facts.width}x{self.facts.height}"
            told.append(f"Only {size} pixels: it will be enlarged.")
        return told

    def final_text(self, trigger: str, prompt: str) -> str:
        """The exact text the trainer gets for it."""
        return captions.final_text(self.caption, trigger, prompt)


class Project:
    """An output folder by name. Making one from a name makes nothing on the disk."""

    def __init__(self, home: Home, name: str):
        self.home, self.name = home, name
        self.path = home.project(name)
        self.hidden = self.path / ".musubitlx"

    @property
    def exists(self) -> bool:
        """The folder is there."""
        return self.path.is_dir()

    def make(self) -> bool:
        """Create the folder; False if it was there. Invalid if something else has its name."""
        try:
            self.path.mkdir(parents=True)
            return True
        except FileExistsError:
            if not self.exists:
                raise Invalid(
                    "There is a file of that name in output/.", field="output_dir"
                ) from None
            return False

    def unmake(self) -> None:
        """Remove the folder again if nothing is in it, nor on its way into it."""
        if self.image_names():
            return
        for folder in (self.hidden / "incoming", self.hidden, self.path):
            with suppress(OSError):
                folder.rmdir()

    def file(self, name: str) -> Path:
        """A file of the folder, there or not; NotFound for a name that leads elsewhere."""
        return child(self.path, name)

    # -- images ------------------------------------------------------------------------------

    def image_paths(self) -> list[Path]:
        """The image files, sorted by name the way people count: 2 before 10.

        A name that is not UTF-8 can't be said in any of the run's files: it is left out.
        """
        found = []
        with suppress(FileNotFoundError), os.scandir(self.path) as entries:
            found = [self.path / entry.name for entry in entries if self._is_image(entry)]
        return sorted(found, key=lambda path: natural_key(path.name))

    def _is_image(self, entry: os.DirEntry) -> bool:
        name = entry.name
        if name.startswith(".") or not name.lower().endswith(READABLE) or not is_storable(name):
            return False
        try:
            return entry.is_file() and (not entry.is_symlink() or self._is_inside(entry.path))
        except (OSError, RuntimeError):  # a link that leads in a circle
            return False

    def _is_inside(self, path: str) -> bool:
        """Whether a link leads to something in this folder, see `home.child`."""
        return Path(path).resolve().is_relative_to(self.path.resolve())

    def images(self) -> list[Image]:
        """Every image with facts and caption."""
        found = []
        for path in self.image_paths():
            with suppress(FileNotFoundError):  # removed while we look
                found.append(self._image(path))
        return found

    def image(self, name: str) -> Image:
        """One image; NotFound if there is none by that name."""
        path = self.file(name)
        if not name.lower().endswith(READABLE) or not path.is_file():
            raise NotFound(f"There is no image called {name} in {self.name}.")
        return self._image(path)

    def _image(self, path: Path) -> Image:
        return Image(path, pictures.facts(path), captions.read(path.with_suffix(".txt")))

    def set_caption(self, name: str, text: object, *, base: str | None = None) -> Image:
        """Save the caption of an image, see `captions.write`."""
        image = self.image(name)
        captions.write(image.path.with_suffix(".txt"), text, base=base)
        return self.image(name)

    def forget(self, images: Iterable[Image]) -> None:
        """Delete what was made from images and can be made again: thumbnails and caches.

        The caches of a stem stay while another image has it.
        """
        for image in images:
            with suppress(OSError):
                self.thumb_path(image.name).unlink()
        self.forget_caches({image.path.stem for image in images} - self.stems())

    def forget_caches(self, stems: set[str]) -> None:
        """Delete Musubi's caches of images with these stems."""
        with os.scandir(self.path) as entries:
            caches = [
                e.path for e in entries if (m := OWN_CACHE.fullmatch(e.name)) and m[1] in stems
            ]
        for path in caches:
            with suppress(OSError):
                Path(path).unlink()

    def stems(self) -> set[str]:
        """The stems of the images that are there, by their names alone."""
        return {name.rsplit(".", 1)[0] for name in self.image_names()}

    def image_names(self) -> list[str]:
        """The names images have, in no order: cheap, for looking at them again and again."""
        with suppress(FileNotFoundError), os.scandir(self.path) as entries:
            return [entry.name for entry in entries if entry.name.lower().endswith(READABLE)]
        return []

    def thumb(self, name: str) -> Path:
        """The thumbnail of an image, made if need be."""
        return pictures.make_thumb(self.image(name).path, self.thumb_path(name))

    def thumb_path(self, name: str) -> Path:
        """Where the thumbnail of an image lies, made or not."""
        if len(name.encode("utf-8", "surrogatepass")) > LONG_NAME_BYTES:
            name = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        return self.hidden / "thumbs" / f"{name}.jpg"

    def place(self, path: Path, stem: str, suffix: str) -> Path:
        """Move a file into the folder as `stem`, or with the first number that is free."""
        with self.naming:
            target = self.path / (self._free_stem(stem) + suffix)
            path.replace(target)
        return target

    @property
    def naming(self) -> threading.RLock:
        """Held while names are looked at and given."""
        return _naming

    def _free_stem(self, stem: str) -> str:
        """`stem`, or with the first number that is free: Musubi's caches go by stem."""
        taken = {taken.casefold() for taken in self.stems()} | TAKEN_STEMS
        free, number = stem, 1
        while free.casefold() in taken:
            number += 1
            free = f"{stem}-{number}"
        return free

    # -- what training left --------------------------------------------------------------------

    def outputs(self) -> list[Path]:
        """The LoRA files, newest first; caches are not among them, nor what can't be served."""
        files = {}
        for path in self.path.glob("*.safetensors"):
            if not CACHE.fullmatch(path.name):
                with suppress(OSError, NotFound):  # a checkpoint the trainer just removed
                    info = self.file(path.name).stat()
                    if stat.S_ISREG(info.st_mode):
                        files[path] = info.st_mtime_ns
        return sorted(files, key=files.get, reverse=True)

    def result(self, name: str) -> Path:
        """A LoRA, its card, a log or a sample to download; NotFound for anything else."""
        lora = name.endswith(".safetensors") and not CACHE.fullmatch(name)
        if (
            lora
            or CARD.fullmatch(name)
            or re.fullmatch(r"(?:training|captioning)_log_.+\.log", name)
        ):
            path = self.file(name)
        elif SAMPLE.fullmatch(name):
            path = child(self.path / "sample", name)
        else:
            raise NotFound("There is no result by that name.")
        if not path.is_file():
            raise NotFound("There is no result by that name (any more).")
        return path

    def sample_thumb(self, name: str) -> Path:
        """The thumbnail of a sample image."""
        return pictures.make_thumb(self.result(name), self.hidden / "sample_thumbs" / f"{name}.jpg")


@dataclass(frozen=True)
class Folder:
    """The images of an output folder at one moment: which there are, and in which version.

    `images` maps a name to the stamps of image and caption; `changed` and `looks`
    are the stamps of the folder itself and of what is known of the pixels.
    """

    project: Project
    changed: int
    looks: tuple | None
    images: dict[str, tuple]

    def since(self, before: Folder) -> Iterator[tuple[str, dict]]:
        """Events for what is new: `captions` with the changed ones, `looks` without content."""
        added = [name for name in self.images if name not in before.images]
        removed = [name for name in before.images if name not in self.images]
        edited = [
            name
            for name, stamps in self.images.items()
            if before.images.get(name, stamps) != stamps
        ]
        if added or removed or edited:
            rows = [self._row(name) for name in edited]
            yield "captions", {"captions": rows, "added": added, "removed": removed}
        if self.looks != before.looks:
            yield "looks", {}

    def _row(self, name: str) -> dict:
        path = self.project.path / name
        text = captions.read(path.with_suffix(".txt"))
        return {"name": name, "caption": text, "tag": captions.tag(text), "version": version(path)}


def version(path: Path) -> str:
    """What an image's address ends with, so that a browser keeps it until it is another one."""
    try:
        return f"{path.stat().st_mtime_ns:x}"
    except OSError:
        return ""


def look_at(project: Project, before: Folder | None = None) -> Folder:
    """The images of a folder now; `before` itself when nothing in it was made or replaced."""
    changed = project.path.stat().st_mtime_ns
    looks = stamp_of(project.hidden / "looks.json")
    if before and (before.changed, before.looks) == (changed, looks):
        return before
    if before and before.changed == changed:
        return replace(before, looks=looks)
    images = {
        path.name: (stamp_of(path), stamp_of(path.with_suffix(".txt")))
        for path in project.image_paths()
    }
    return Folder(project, changed, looks, images)


def all_projects(home: Home) -> list[dict]:
    """Every output folder: name, number of images and captions, when it changed; newest first."""
    found = []
    with suppress(FileNotFoundError), os.scandir(home.output) as entries:
        for entry in entries:
            if entry.is_dir() and name_problem(entry.name) is None:
                found.append(_summary(Project(home, entry.name)))
    return sorted(found, key=lambda summary: summary["modified"], reverse=True)


def _summary(project: Project) -> dict:
    paths = project.image_paths()
    return {
        "name": project.name,
        "images": len(paths),
        "captions": sum(path.with_suffix(".txt").is_file() for path in paths),
        "modified": project.path.stat().st_mtime,
    }


def as_jsonl(rows: Iterable[dict]) -> str:
    """One JSON object a line, as Musubi's image_jsonl_file wants it."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
