"""An output folder: its images and captions, and what training left in it."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import threading
import unicodedata
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from musubitlx import pictures
from musubitlx.errors import DiskFull, Invalid, NotFound, UserError
from musubitlx.home import (
    CONTROL,
    FORBIDDEN,
    WINDOWS_DEVICES,
    Home,
    child,
    is_storable,
    name_problem,
    write_text,
)

READABLE = pictures.READABLE  # suffixes, lower case
MAX_CAPTION = 10_000  # characters
MAX_STEM_BYTES = 80  # leaves room for Musubi's suffixes
TAKEN_STEMS = {"sample_prompts"}  # their .txt is not a caption
SMALL_PX = 256  # a shorter side below this is mostly enlarged
CACHE = re.compile(r"(?P<stem>.+?)(?:_\d{4,}x\d{4,})?_qi(?:_te)?\.safetensors")
SAMPLE = re.compile(
    r"(?:(?P<name>.+)_)?(?:e(?P<epoch>\d{6})|(?P<step>\d{6,}))_(?P<prompt>\d+)_(?P<time>\d{14})"
    r"(?:_(?P<seed>\d+))?_\d{3}\.png"
)

_naming = threading.Lock()  # one name is given at a time


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
        if min(self.facts.width, self.facts.height) < SMALL_PX:
            size = f"{self.facts.width}x{self.facts.height}"
            return [f"Only {size} pixels: it will be enlarged."]
        return []

    def final_text(self, trigger: str, prompt: str) -> str:
        """The exact text the trainer gets for it."""
        return final_text(self.caption, trigger, prompt)


def final_text(caption: str, trigger: str, prompt: str) -> str:
    """The caption with the trigger word in front unless it holds it as a whole word, any case.

    Without a caption it is trigger word and subject description.
    """
    text = caption.strip() or prompt.strip()
    trigger = trigger.strip()
    if not trigger or re.search(rf"(?<!\w){re.escape(trigger)}(?!\w)", text, re.I):
        return text
    return f"{trigger}, {text}" if text else trigger


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
        """Remove the folder again if nothing but our own scraps is in it."""
        if all(entry == self.hidden for entry in self.path.iterdir()):
            shutil.rmtree(self.path, ignore_errors=True)

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
            found = [
                self.path / entry.name
                for entry in entries
                if entry.name.lower().endswith(READABLE)
                and not entry.name.startswith(".")
                and is_storable(entry.name)
                and entry.is_file()
                and (not entry.is_symlink() or self._is_inside(entry.path))
            ]
        return sorted(found, key=_natural)

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
        return Image(path, pictures.facts(path), read_caption(path.with_suffix(".txt")))

    def set_caption(self, name: str, text: object) -> Image:
        """Save the caption of an image as UTF-8 text; an empty one removes the file."""
        image = self.image(name)
        if not isinstance(text, str) or len(text) > MAX_CAPTION or not is_storable(text):
            raise Invalid(f"A caption is text of at most {MAX_CAPTION} characters.", field="text")
        _write_caption(image.path.with_suffix(".txt"), text)
        return self.image(name)

    def remove(self, name: str) -> None:
        """Remove an image with its caption, thumbnail and caches."""
        image = self.image(name)
        caption, thumb = image.path.with_suffix(".txt"), self._thumb_path(name)
        for path in [image.path, caption, thumb, *self._caches_of(image.path.stem)]:
            path.unlink(missing_ok=True)

    def _caches_of(self, stem: str) -> list[Path]:
        own = re.compile(re.escape(stem) + r"(_\d{4,}x\d{4,}_qi|_qi_te)\.safetensors")
        return [path for path in self.path.glob("*.safetensors") if own.fullmatch(path.name)]

    def thumb(self, name: str) -> Path:
        """The thumbnail of an image, made if need be."""
        return pictures.make_thumb(self.image(name).path, self._thumb_path(name))

    def _thumb_path(self, name: str) -> Path:
        return self.hidden / "thumbs" / f"{name}.jpg"

    # -- uploads -----------------------------------------------------------------------------

    def incoming(self) -> Path:
        """A fresh path for a file being received, in the folder so that it can be renamed."""
        folder = self.hidden / "incoming"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{uuid.uuid4().hex}.part"

    def admit(self, received: Path, name: str) -> Image:
        """Take a received file in as an image under a safe new name; NotAPicture if it is none.

        Whatever happens, `received` is gone afterwards and no other file is touched.
        """
        verified = self._verify(received)
        if isinstance(verified, UserError):
            raise verified
        return self._settle(received, name, verified)

    def _verify(self, received: Path) -> str | UserError:
        """The heavy part: make a received file fit for training, and its thumbnail beside it.

        Returns the suffix it must be stored under; of an error, which is
        returned and not raised, nothing is left on the disk.
        """
        thumb = received.with_suffix(".jpg")
        try:
            return pictures.admit(received, thumb)
        except (OSError, UserError) as error:
            received.unlink(missing_ok=True)
            thumb.unlink(missing_ok=True)
            return error if isinstance(error, UserError) else disk_error(error)

    def _settle(self, received: Path, name: str, suffix: str) -> Image:
        """Give a verified file and its thumbnail their names."""
        thumb = received.with_suffix(".jpg")
        try:
            with _naming:
                path = self.path / (self._free_stem(safe_stem(name)) + suffix)
                received.replace(path)
            with suppress(OSError):
                final = self._thumb_path(path.name)
                final.parent.mkdir(parents=True, exist_ok=True)
                thumb.replace(final)
                os.utime(final)
            return self._image(path)
        except OSError as error:
            raise disk_error(error) from error
        finally:
            received.unlink(missing_ok=True)
            thumb.unlink(missing_ok=True)

    def _free_stem(self, stem: str) -> str:
        """`stem`, or with the first number that is free: Musubi's caches go by stem."""
        with os.scandir(self.path) as entries:
            names = [entry.name for entry in entries if entry.name.lower().endswith(READABLE)]
        taken = {name.rsplit(".", 1)[0].casefold() for name in names} | TAKEN_STEMS
        free, number = stem, 1
        while free.casefold() in taken:
            number += 1
            free = f"{stem}-{number}"
        return free

    def admit_all(self, uploads: list[Upload], each: Callable = map):
        """Take in what one request brought: images first, then the captions that belong to them.

        Returns (images added, [{name, reason}] rejected, names of images captioned).
        `each` is a `map` that may do the heavy part, decoding, on several cores.
        """
        added, rejected, by_stem = [], [], {}
        images = [upload for upload in uploads if not upload.is_text]
        verified = each(self._verify, [upload.received for upload in images])
        for upload, outcome in zip(images, verified, strict=True):
            try:
                if isinstance(outcome, UserError):
                    raise outcome
                image = self._settle(upload.received, upload.name, outcome)
            except UserError as error:
                rejected.append({"name": upload.name, "reason": str(error)})
                continue
            added.append(image)
            by_stem.setdefault(upload.stem, image.name)
        captioned = []
        for upload in uploads:
            if upload.is_text:
                try:
                    captioned.append(self._admit_caption(upload, by_stem))
                except UserError as error:
                    rejected.append({"name": upload.name, "reason": str(error)})
        added = [self.image(image.name) if image.name in captioned else image for image in added]
        return added, rejected, captioned

    def _admit_caption(self, upload: Upload, by_stem: dict[str, str]) -> str:
        """Store a received .txt as the caption of its image; returns the image's name."""
        try:
            if upload.received.stat().st_size > 4 * MAX_CAPTION:
                raise Invalid("it is too long for a caption")
            text = decode(upload.received.read_bytes())
        finally:
            upload.received.unlink(missing_ok=True)
        name = by_stem.get(upload.stem)
        if name is None:
            stem = safe_stem(upload.name).casefold()
            fitting = (path.name for path in self.image_paths() if path.stem.casefold() == stem)
            name = next(fitting, None)
        if name is None:
            raise Invalid("there is no image of that name for this caption")
        self.set_caption(name, text)
        return name

    # -- what training left --------------------------------------------------------------------

    def outputs(self) -> list[Path]:
        """The LoRA files, newest first; caches are not among them."""
        files = {}
        for path in self.path.glob("*.safetensors"):
            if not CACHE.fullmatch(path.name):
                with suppress(FileNotFoundError):  # a checkpoint the trainer just removed
                    files[path] = path.stat().st_mtime_ns
        return sorted(files, key=files.get, reverse=True)

    def samples(self) -> list[dict]:
        """The sample images, oldest first, each with prompt, epoch or step, and seed."""
        prompts = self._sample_prompts()
        found = []
        for path in (self.path / "sample").glob("*.png"):
            if match := SAMPLE.fullmatch(path.name):
                with suppress(FileNotFoundError):
                    found.append(self._sample(path, match, prompts))
        return sorted(found, key=lambda sample: (sample["modified"], sample["name"]))

    def _sample(self, path: Path, match: re.Match, prompts: list[str]) -> dict:
        number = int(match["prompt"])
        return {
            "name": path.name,
            "lora": match["name"],
            "prompt": prompts[number] if number < len(prompts) else None,
            "prompt_number": number,
            "epoch": int(match["epoch"]) if match["epoch"] else None,
            "step": int(match["step"]) if match["step"] else None,
            "seed": int(match["seed"]) if match["seed"] else None,
            "modified": path.stat().st_mtime,
        }

    def _sample_prompts(self) -> list[str]:
        """The prompts of the last run, without their options."""
        try:
            text = (self.path / "sample_prompts.txt").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return []
        return [line.split(" --")[0] for line in text.splitlines() if line.strip()]

    def result(self, name: str) -> Path:
        """A LoRA, log or sample to download; NotFound for anything else in the folder."""
        lora = name.endswith(".safetensors") and not CACHE.fullmatch(name)
        if lora or re.fullmatch(r"training_log_.+\.log", name):
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
class Upload:
    """One received file: where its bytes lie, and the name its sender gave it."""

    received: Path
    name: str

    @property
    def is_text(self) -> bool:
        """It is a caption, going by its name."""
        return self.name.lower().endswith(".txt")

    @property
    def stem(self) -> str:
        """What a caption and its image share, folders included."""
        return self.name.replace("\\", "/").rsplit(".", 1)[0].casefold()


def clear_incoming(home: Home) -> None:
    """Remove what uploads left half received when a server was killed; for its start."""
    for scrap in home.output.glob("*/.musubitlx/incoming/*"):
        with suppress(OSError):
            scrap.unlink()


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


def safe_stem(name: str) -> str:
    """A stem for a file from the name a browser sent: no folders, no reserved signs, not too long.

    Unicode stays (in composed form); what a file system or Musubi trips over
    becomes `_`.
    """
    base = unicodedata.normalize("NFC", name.replace("\\", "/").rsplit("/", 1)[-1])
    stem = base.rsplit(".", 1)[0] if "." in base.strip(".") else base
    kept = "".join("_" if c in FORBIDDEN or unicodedata.category(c) in CONTROL else c for c in stem)
    kept = kept.encode("utf-8")[:MAX_STEM_BYTES].decode("utf-8", "ignore")
    kept = re.sub(r"^[\s.]+|[\s.]+$", "", kept) or "image"
    if re.search(r"_qi(_te)?$", kept):
        kept = f"{kept}_"
    return f"_{kept}" if WINDOWS_DEVICES.fullmatch(kept) else kept


def read_caption(path: Path) -> str:
    """The caption in a file; empty if there is none."""
    try:
        return decode(path.read_bytes())
    except (FileNotFoundError, IsADirectoryError):
        return ""


def decode(data: bytes) -> str:
    """Text of a caption file in whatever encoding: a BOM decides, else UTF-8, else Windows-1252."""
    for bom, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"", "utf-8-sig")):
        if data.startswith(bom):
            with suppress(UnicodeDecodeError):
                return _plain(data.decode(encoding))
    return _plain(data.decode("cp1252", "replace"))


def _plain(text: str) -> str:
    """Text with one kind of line end, and without the NULs some programs leave."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "").strip()


def _write_caption(path: Path, text: str) -> None:
    text = _plain(text)
    try:
        if text:
            write_text(path, text)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(error) from error


def disk_error(error: OSError) -> UserError:
    """What a failed write means for the person: a full disk or one that can't be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskFull("The disk is full.", hint="Free some space and try again.")
    return UserError(f"The file can't be written: {error.strerror}.")


def _natural(path: Path) -> list:
    """Sort key: runs of digits count as numbers."""
    parts = re.split(r"(\d+)", path.name.casefold())
    numbered = [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]
    return [*numbered, (-1, 0, path.name)]  # names that differ in letter case only keep an order


def as_jsonl(rows: Iterable[dict]) -> str:
    """One JSON object a line, as Musubi's image_jsonl_file wants it."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
