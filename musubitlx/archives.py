"""A .zip of pictures and captions: its members become files to take in, and nothing more."""

from __future__ import annotations

import copy
import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from musubitlx.errors import DiskFull, Invalid
from musubitlx.home import RESERVE_BYTES
from musubitlx.pictures import MAX_FILE_BYTES, MAX_TEXT_BYTES, NAMED

MB = 1_000_000
BLOCK = 1 << 20  # bytes read and written at a time
MAX_MEMBERS = 20_000  # what is passed over not counted
MAX_DIRECTORY_BYTES = 8_000_000  # of the archive's own list, which is read in one go
NOISE_FOLDERS = {"__macosx", "@eadir"}
NOISE_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini"}
ENCRYPTED = 0x1 | 0x40  # the flags of a member that needs a password

# zipfile holds back only what deflate makes of a block; its other methods turn one block of a
# few bytes into gigabytes of memory.
UNPACKABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# What zipfile raises over bytes that are not as they should be.
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    RuntimeError,
    OverflowError,
)


@dataclass(frozen=True)
class Unpacked:
    """What came out of an archive.

    `files`: where the bytes lie, and the name inside the archive as it stands
    there, folders included: it is not safe as a path. `rejected`: [{name,
    reason}]. Both empty means that nothing but folders and hidden files was in it.
    """

    files: list[tuple[Path, str]]
    rejected: list[dict]


def unpack(archive: Path, fresh: Callable[[], Path], *, free: int) -> Unpacked:
    """Write every usable member of a .zip to a path of its own, got from `fresh()`.

    Usable is, by its name, an image or a caption, or what has no suffix at all;
    whether it is an image is for the caller to find out. Folders and what systems
    leave in archives are passed over. `free` is the room on the disk in bytes:
    DiskFull if what the archive says it holds does not fit, before anything is
    written. Invalid if it is no .zip or can't be read as one. An OSError (the
    disk got full all the same) goes on. Whatever happens, no file is left that is
    not in `files`. Holds no more than a few blocks in memory.
    """
    with _opened(archive) as bundle:
        members, rejected = _sorted_out(bundle)
        _check_room(members, free)
        files: list[tuple[Path, str]] = []
        try:
            for member in members:
                path = fresh()
                try:
                    _write(bundle, member, path)
                except Invalid as error:
                    rejected.append({"name": member.filename, "reason": str(error)})
                else:
                    files.append((path, member.filename))
        except BaseException:
            for path, _ in files:
                path.unlink(missing_ok=True)
            raise
    return Unpacked(files, rejected)


# -- the archive -----------------------------------------------------------------------------------


class _Source(io.BufferedReader):
    """An archive that does not follow its own headers to where nothing can be."""

    def __init__(self, path: Path):
        super().__init__(io.FileIO(path))
        self.bytes = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1) -> bytes:
        """Read, unless it is a list of more members than anybody's pictures are."""
        if size is not None and size > MAX_DIRECTORY_BYTES:
            raise Invalid(_too_many())
        return super().read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; BadZipFile if it is not in the file."""
        if whence == os.SEEK_SET and not 0 <= offset <= self.bytes:
            raise zipfile.BadZipFile("an offset is wrong")
        return super().seek(offset, whence)


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    """Open a .zip; Invalid says what it is instead."""
    with _Source(archive) as source:
        try:
            bundle = zipfile.ZipFile(source)
        except DAMAGED as error:
            raise _told_apart(source) from error
        with bundle:
            yield bundle


def _told_apart(source: _Source) -> Invalid:
    """What to say of a file that does not open as a .zip."""
    source.seek(0)
    if source.read(2) == b"PK":
        return Invalid("The archive is damaged or cut off.", hint="Make it anew or send it again.")
    return Invalid("This is not a .zip archive.", hint="Send a .zip, or the images themselves.")


def _sorted_out(bundle: zipfile.ZipFile) -> tuple[list[zipfile.ZipInfo], list[dict]]:
    """What is to be written, and what is not with its reasons."""
    wanted, rejected = [], []
    for member in bundle.infolist():
        if _is_noise(member):
            continue
        if reason := _problem(member):
            rejected.append({"name": member.filename, "reason": reason})
        else:
            wanted.append(member)
    if len(wanted) + len(rejected) > MAX_MEMBERS:
        raise Invalid(_too_many())
    return wanted, rejected


def _too_many() -> str:
    return f"The archive holds more than {MAX_MEMBERS} files: split it into several."


def _check_room(members: list[zipfile.ZipInfo], free: int) -> None:
    """DiskFull unless all that is declared fits, and a reserve stays."""
    needed = sum(member.file_size for member in members) + RESERVE_BYTES
    if members and needed > free:
        raise DiskFull(
            f"The disk has no room for what is in the archive: {-(-needed // MB)} MB are needed, "
            f"{max(free, 0) // MB} MB are free.",
            hint="Free some space and try again.",
        )


# -- its members -----------------------------------------------------------------------------------


def _parts(member: zipfile.ZipInfo) -> list[str]:
    return member.filename.replace("\\", "/").split("/")


def _is_noise(member: zipfile.ZipInfo) -> bool:
    """Whether it is a folder, hidden, or what a system leaves about: nobody meant to send it."""
    *folders, name = _parts(member)
    if not name or stat.S_ISDIR(_mode(member)):
        return True
    if any(part.startswith(".") and part.strip(".") for part in (*folders, name)):
        return True
    noisy = any(folder.lower() in NOISE_FOLDERS for folder in folders)
    return noisy or name.lower() in NOISE_FILES


def _mode(member: zipfile.ZipInfo) -> int:
    """The kind of file and its rights, as Unix has them; 0 where the archive does not say."""
    return member.external_attr >> 16


def _problem(member: zipfile.ZipInfo) -> str | None:
    """Why a member can't be taken, going by what the archive says of it; None if it may be."""
    name = _parts(member)[-1].lower()
    if name.endswith(".zip"):
        return "it is an archive inside the archive: unpack it and send what is in it"
    if "." in name.strip(".") and not name.endswith((*NAMED, ".txt")):
        return "it is neither an image nor a caption"
    if stat.S_IFMT(_mode(member)) not in (0, stat.S_IFREG):
        return "it is a link, or no ordinary file"
    if member.flag_bits & ENCRYPTED:
        return "it is protected by a password"
    if name.endswith(".txt") and member.file_size > MAX_TEXT_BYTES:
        return "it is too long for a caption"
    if member.file_size > MAX_FILE_BYTES:
        return f"it is bigger than {MAX_FILE_BYTES // MB} MB"
    if member.compress_type not in UNPACKABLE:
        return "its kind of compression can't be read here: make an ordinary .zip (deflate)"
    return None


def _write(bundle: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    """Write one member to a path that must be free; if that fails, nothing is left of it.

    Raises Invalid with the reason when it is the archive's fault, OSError when
    it is the disk's.
    """
    file = path.open("xb")
    try:
        with file:
            for block in _blocks(bundle, member):
                file.write(block)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _blocks(bundle: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield what is in a member, never more than it declares; Invalid if it is something else."""
    open_ended = copy.copy(member)  # zipfile would cut off in silence what is too much
    open_ended.file_size += 2 * BLOCK
    left = member.file_size
    try:
        with bundle.open(open_ended) as stream:
            while block := stream.read(BLOCK):
                left -= len(block)
                if left < 0:
                    raise Invalid("it holds more than the archive says")
                yield block
    except DAMAGED as error:
        raise Invalid("it is damaged or cut off") from error
    if left:
        raise Invalid("it is damaged or cut off")
