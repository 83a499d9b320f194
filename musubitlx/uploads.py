"""Files that come in from outside: each is made fit for training and gets a safe name."""

from __future__ import annotations

import filecmp
import re
import shutil
import threading
import unicodedata
import uuid
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from musubitlx import captions, pictures
from musubitlx.errors import DiskFull, Invalid, NotFound, UserError, disk_error
from musubitlx.home import (
    CONTROL,
    FORBIDDEN,
    WINDOWS_DEVICES,
    Home,
    digest_of,
    read_json,
    write_json,
)
from musubitlx.projects import READABLE, Image, Project

MOST_COMPARED = 50  # images of one name that a file is compared with
MAX_STEM_BYTES = 80  # leaves room for Musubi's suffixes


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
    def is_archive(self) -> bool:
        """It is a .zip, going by its name."""
        return self.name.lower().endswith(".zip")

    @property
    def stem(self) -> str:
        """What a caption and its image share, folders included."""
        return self.name.replace("\\", "/").rsplit(".", 1)[0].casefold()


@dataclass
class Taken:
    """What became of the files of one request; nothing of them is unanswered for.

    `present`: [{name, image}] that were there already, by name and content;
    `rejected`: [{name, reason}]; `captioned`: names of images that got a caption.
    """

    added: list[Image] = field(default_factory=list)
    present: list[dict] = field(default_factory=list)
    rejected: list[dict] = field(default_factory=list)
    captioned: list[str] = field(default_factory=list)
    full: DiskFull | None = None  # the disk got full on the way

    def refuse(self, name: str, error: UserError) -> None:
        """Note why a file was not taken."""
        if isinstance(error, DiskFull):
            self.full = error
        self.rejected.append({"name": name, "reason": str(error)})


def incoming(project: Project) -> Path:
    """A fresh path for a file being received, in the folder so that it can be renamed."""
    folder = project.hidden / "incoming"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{uuid.uuid4().hex}.part"


def clear_incoming(home: Home) -> None:
    """Remove what uploads left half received when a server was killed; for its start."""
    for scrap in home.output.glob("*/.musubitlx/incoming/*"):
        with suppress(OSError):
            scrap.unlink()


def admit(project: Project, received: Path, name: str) -> Image | dict:
    """Take a received file in as an image under a safe new name; NotAPicture if it is none.

    Returns the image, or {name, image} when the same file is there already
    under that name. Whatever happens, `received` is gone afterwards and no other
    file is touched.
    """
    fitted = _fit(received)
    if isinstance(fitted, UserError):
        raise fitted
    return _settle(project, received, name, fitted)


def admit_all(project: Project, uploads: list[Upload], each: Callable = map) -> Taken:
    """Take in what one request brought: images first, then the captions that belong to them.

    `each` is a `map` that may do the heavy part, looking at the files, on
    several cores.
    """
    taken, by_stem, new, known = Taken(), {}, set(), set()
    images = [upload for upload in uploads if not upload.is_text]
    for upload, outcome in zip(images, each(_fit, [one.received for one in images]), strict=True):
        try:
            if isinstance(outcome, UserError):
                raise outcome
            settled = _settle(project, upload.received, upload.name, outcome, new)
        except UserError as error:
            taken.refuse(upload.name, error)
            continue
        if isinstance(settled, Image):
            taken.added.append(settled)
            new.add(settled.name)
        else:
            taken.present.append(settled)
            known.add(settled["image"])
        stored = settled.name if isinstance(settled, Image) else settled["image"]
        by_stem.setdefault(upload.stem, stored)
    for upload in uploads:
        if upload.is_text:
            try:
                taken.captioned.append(_admit_caption(project, upload, by_stem, known))
            except UserError as error:
                taken.refuse(upload.name, error)
    changed = set(taken.captioned)
    taken.added = [project.image(one.name) if one.name in changed else one for one in taken.added]
    return taken


def mend_all(project: Project, names: list[str]) -> tuple[list[Image], list[dict]]:
    """Mend several files, see `mend`: (images, [{name, reason}] that could not be)."""
    mended, rejected = [], []
    for name in dict.fromkeys(names):
        try:
            mended.append(mend(project, name))
        except UserError as error:
            rejected.append({"name": name, "reason": str(error)})
    return mended, rejected


def mend(project: Project, name: str) -> Image:
    """Make a file that was put into the folder by hand fit for training, as an upload is.

    Its stem stays, and so its caption, unless another image has that stem. The
    file as it was is kept in `originals/`: it may be the only one. NotAPicture
    if it can't be read.
    """
    with _mending:
        return _mended(project, name)


_mending = threading.Lock()  # what two ask for is done once


def _mended(project: Project, name: str) -> Image:
    path = project.file(name)
    if not path.is_file():
        raise NotFound(f"There is no file called {name} in {project.name}.")
    copy = incoming(project)
    try:
        shutil.copyfile(path, copy)
        fitted = _fit(copy)
        if isinstance(fitted, UserError):
            raise fitted
        if fitted.source is None and name.lower().endswith(READABLE):
            return project.image(name)  # nothing to mend
        with project.naming:
            kept = _keep_original(project, path)
            try:
                stored = project.place(copy, path.stem, fitted.suffix)
            except OSError:
                kept.replace(path)
                raise
        image = project.image(stored.name)
        project.forget_caches({image.path.stem})
        return image
    except OSError as error:
        raise disk_error(error) from error
    finally:
        copy.unlink(missing_ok=True)


def _keep_original(project: Project, path: Path) -> Path:
    folder = project.path / "originals"
    if folder.is_symlink():
        raise UserError("originals/ is a link: the file as it was would leave the folder.")
    folder.mkdir(exist_ok=True)
    kept, number = folder / path.name, 1
    while kept.exists():
        number += 1
        kept = folder / f"{path.stem}-{number}{path.suffix}"
    return path.replace(kept)


@dataclass(frozen=True)
class _Fit:
    """A received file that can be trained on: the suffix it needs, and what it was when it came."""

    suffix: str
    source: str | None  # sha256 of the file as it was sent, where it was written anew


def _fit(received: Path) -> _Fit | UserError:
    """The heavy part: make a received file fit for training.

    Of an error, which is returned and not raised, nothing is left on the disk.
    """
    try:
        fresh = received.with_suffix(".fit")
        suffix = pictures.admit(received, fresh).suffix
        if not fresh.exists():
            return _Fit(suffix, None)
        source = digest_of(received)
        fresh.replace(received)
        return _Fit(suffix, source)
    except (OSError, UserError) as error:
        received.unlink(missing_ok=True)
        return error if isinstance(error, UserError) else disk_error(error)


def _settle(
    project: Project, received: Path, name: str, fit: _Fit, new: Collection[str] = ()
) -> Image | dict:
    """Give a fitting file its name, unless the same file has that name already.

    Those in `new` came with the same request: they are meant to be there beside it.
    """
    stem = safe_stem(name)
    try:
        with project.naming:
            if same := _same(project, received, stem, fit, new):
                return {"name": name, "image": same.name}
            path = project.place(received, stem, fit.suffix)
            if fit.source:
                _remember_source(project, path, fit.source)
        return project.image(path.name)
    except OSError as error:
        raise disk_error(error) from error
    finally:
        received.unlink(missing_ok=True)


def _same(
    project: Project, received: Path, stem: str, fit: _Fit, new: Collection[str]
) -> Path | None:
    """The image that was made of the same file sent under the same name, if there is one.

    So a folder that is dropped a second time, or a file that is sent again
    because the answer got lost, adds nothing twice.
    """
    own = re.compile(re.escape(stem) + r"(-\d+)?\.\w+", re.I)
    sources = _sources(project) if fit.source else {}
    names = [name for name in project.image_names() if own.fullmatch(name) and name not in new]
    for name in sorted(names, key=len)[:MOST_COMPARED]:
        with suppress(OSError):
            path = project.path / name
            if fit.source and sources.get(name) == [fit.source, *_stamp(path)]:
                return path
            if not fit.source and filecmp.cmp(path, received, shallow=False):
                return path
    return None


# Of images that were written anew as they came (turned, flattened, converted): what was sent.


def _sources(project: Project) -> dict:
    return read_json(project.hidden / "sources.json") or {}


def _remember_source(project: Project, path: Path, digest: str) -> None:
    with suppress(OSError):  # only spares a second copy
        there = set(project.image_names())
        known = {name: row for name, row in _sources(project).items() if name in there}
        known[path.name] = [digest, *_stamp(path)]
        write_json(project.hidden / "sources.json", known)


def _stamp(path: Path) -> tuple[int, int]:
    info = path.stat()
    return info.st_size, info.st_mtime_ns


def _admit_caption(
    project: Project, upload: Upload, by_stem: dict[str, str], known: Collection[str]
) -> str:
    """Store a received .txt as the caption of its image; returns the image's name.

    Sent alone it replaces what is there. Sent along with an image that was there
    already (`known`) it does not: that caption may have been edited since.
    """
    try:
        if upload.received.stat().st_size > pictures.MAX_TEXT_BYTES:
            raise Invalid("it is too long for a caption")
        text = captions.decode(upload.received.read_bytes())
    finally:
        upload.received.unlink(missing_ok=True)
    name = by_stem.get(upload.stem)
    if name is None:
        stem = safe_stem(upload.name).casefold()
        stems = ((name.rsplit(".", 1)[0].casefold(), name) for name in project.image_names())
        name = next((name for one, name in stems if one == stem), None)
    if name is None:
        raise Invalid("there is no image of that name for this caption")
    if name in known and project.image(name).caption not in ("", text):
        raise Invalid("its image is there already, with another caption: that one stays")
    project.set_caption(name, text)
    return name


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
