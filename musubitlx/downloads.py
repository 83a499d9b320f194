"""Downloading one file of the hub: into a part beside it, resumed after whatever came between.

NAME.part holds what has arrived and NAME.part.json what it is part of. Only a file that is
whole, and that has the checksum the hub gives for it, gets its name.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from musubitlx.errors import Conflict, DiskFull, UserError, disk_error
from musubitlx.home import BINARY, RESERVE_BYTES, child, read_json, write_json
from musubitlx.hub import STALL_S, Hub, HubTrouble, RemoteFile, Version
from musubitlx.lease import Lease

BLOCK = 1 << 20  # bytes: what is read, hashed and written at a time, at most
POINTER = b"version https://git-lfs"  # how what git has in place of a large file begins
WAITS_S = (1, 2, 4, 8, 15, 30, 60, 60, 120, 120)  # between tries that brought nothing


class Stopped(Exception):
    """It was asked to stop; the part is kept."""


class Damaged(UserError):
    """What arrived is not what the hub has; the part is gone."""

    http_status = 502


def _ignore(*_told: object) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True)
class Terms:
    """How a download behaves, and whom it tells what.

    `on_progress` gets the bytes of the file that are here, fewer than before when it has to
    start anew; `on_check` how many of how many bytes have been read again after a start;
    `on_wait` why there is a pause, and its seconds.
    """

    on_progress: Callable[[int], None] = _ignore
    on_check: Callable[[int, int], None] = _ignore
    on_wait: Callable[[HubTrouble, float], None] = _ignore
    stop: threading.Event = field(default_factory=threading.Event)
    stall_s: float = STALL_S
    waits_s: tuple[float, ...] = WAITS_S


def download(
    hub: Hub,
    repo: str,
    path: str,
    target: Path,
    *,
    listed: RemoteFile | None = None,
    terms: Terms,
) -> None:
    """Get a file of a repository to `target`, unless it is there with the right length.

    `listed` is what a listing says of it: what comes must have its length and its checksum.
    Raises HubTrouble when the hub does not give it, DiskFull, Damaged, Conflict while another
    process downloads it or where a link leads to what is not there, and Stopped; but for
    Damaged, what has arrived stays for the next time.
    """
    _check_link(target)
    target = child(target.parent, target.name)
    with _alone(target):
        part = Part(target, terms)
        try:
            _Transfer(hub, repo, path, part, terms).run(listed)
        finally:
            part.close()


def _check_link(target: Path) -> None:
    """Raise Conflict for a link to what is not there: a disk that is not connected, mostly."""
    with suppress(OSError, ValueError):  # what can be no name is told elsewhere
        if target.is_symlink() and not target.exists():
            raise Conflict(
                f"{target} is a link to {target.parent / target.readlink()}, which is not there.",
                hint="Connect the disk it leads to, or remove the link, and start again.",
            )


def forget_part(target: Path) -> None:
    """Remove what has arrived of a file that nobody needs any more.

    What another process is getting stays, and so does what can't be removed.
    """
    if part_of(target).is_file():
        with suppress(UserError), _alone(target):
            Part(target, Terms()).forget()


def patiently(action: Callable[[], object], terms: Terms):
    """Return what `action` returns, tried again while its trouble may be over in a moment."""
    for wait in (*terms.waits_s, None):
        try:
            return action()
        except HubTrouble as trouble:
            if wait is None or not trouble.passing:
                raise
            pause(trouble, wait, terms)


def pause(trouble: HubTrouble, seconds: float, terms: Terms) -> None:
    """Wait before another try, longer if the hub asks for it; Stopped as soon as that is asked."""
    seconds = max(seconds, trouble.wait_s)
    terms.on_wait(trouble, seconds)
    if terms.stop.wait(seconds):
        raise Stopped


def check_room(folder: Path, wanted: int) -> None:
    """Raise DiskFull unless the disk of `folder` takes `wanted` more bytes and keeps a reserve."""
    free = shutil.disk_usage(folder).free
    if wanted + RESERVE_BYTES > free:
        raise DiskFull(
            f"There is not enough disk space: {amount(wanted)} are still to come, "
            f"{amount(free)} are free in {folder}.",
            hint=f"Free {amount(wanted + RESERVE_BYTES - free)} there, and start again. "
            f"{amount(RESERVE_BYTES)} stay free for what else is under way.",
        )


def amount(count: int) -> str:
    """Bytes as people read them, in decimal units."""
    for unit, size, digits in (("GB", 1e9, 2), ("MB", 1e6, 1), ("kB", 1e3, 1)):
        if count >= size:
            return f"{count / size:.{digits}f} {unit}"
    return f"{count} bytes"


def part_of(target: Path) -> Path:
    """Where what has arrived of a file lies."""
    return target.with_name(target.name + ".part")


def part_bytes(target: Path) -> int:
    """How much of a file that is not whole has arrived."""
    return _length(part_of(target)) or 0


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Hold what is to be written; Conflict if another process does. Its lock goes with success."""
    lock = target.with_name(target.name + ".part.lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lease = Lease(lock)
        taken = lease.take()
    except OSError as error:
        raise disk_error(error, target.parent) from error
    if not taken:
        raise Conflict(
            f"{target.name} is being downloaded already, by another process.",
            hint="Wait until that has ended, or stop it: the next one goes on from there.",
        )
    try:
        yield
        with suppress(OSError):  # Windows keeps what is open
            lock.unlink()
    finally:
        lease.give_back()


# -- what has arrived ------------------------------------------------------------------------------


class Part:
    """The bytes of a file that have arrived, with their checksum, and the note of what they are.

    They are written without a buffer of ours: what was counted survives the end of the process.
    """

    def __init__(self, target: Path, terms: Terms):
        self.target = target
        self.bytes = 0
        self._path, self._note = part_of(target), target.with_name(target.name + ".part.json")
        self._terms = terms
        self._handle: int | None = None
        self._digest = hashlib.sha256()

    def take_up(self, version: Version) -> None:
        """Open what is there of this version of the file, or begin anew if it is another's."""
        same = self._is_of(version)
        with self._writing(version):
            if self._handle is None:
                flags = os.O_RDWR | os.O_CREAT | BINARY
                self._handle = os.open(self._path, flags, 0o666)
                if same and os.fstat(self._handle).st_size <= version.bytes:
                    self._read_again()
                    return
                same = False
            if not same:
                self.restart(version)
                write_json(self._note, {**_note(version), "url": version.url})

    def _is_of(self, version: Version) -> bool:
        """Whether the note is of this version: a checksum decides, where both have one.

        Mirrors have ETags of their own for the same file.
        """
        noted, told = read_json(self._note) or {}, _note(version)
        by = "sha256" if noted.get("sha256") and version.sha256 else "etag"
        return noted.get("size") == version.bytes and noted.get(by) == told[by]

    def _read_again(self) -> None:
        whole = os.fstat(self._handle).st_size
        os.lseek(self._handle, 0, os.SEEK_SET)
        while block := os.read(self._handle, BLOCK):
            if self._terms.stop.is_set():
                raise Stopped
            self._digest.update(block)
            self.bytes += len(block)
            self._terms.on_check(self.bytes, whole)

    def restart(self, version: Version) -> None:
        """Drop what has arrived."""
        with self._writing(version):
            os.ftruncate(self._handle, 0)
            os.lseek(self._handle, 0, os.SEEK_SET)
        self.bytes, self._digest = 0, hashlib.sha256()

    def append(self, block: bytes, version: Version) -> None:
        """Add what came; DiskFull where the disk has no room for it."""
        with self._writing(version):
            rest = memoryview(block)
            while rest:
                written = os.write(self._handle, rest)
                self._digest.update(rest[:written])
                self.bytes += written
                rest = rest[written:]

    def finish(self, version: Version, oid: str | None) -> None:
        """Give the file its name if it is what it should be; else remove it and raise Damaged.

        `oid` is the SHA-1 that git has of it; it counts where there is no better checksum.
        """
        if trouble := self._damage(version, oid):
            self.close()
            self.forget()
            raise Damaged(
                f"{self.target.name} arrived damaged: {trouble}.",
                hint="It was removed. Start again; if it comes back, a proxy, a mirror in "
                "HF_ENDPOINT or the disk is at fault.",
            )
        with self._writing(version):
            os.fsync(self._handle)
            self.close()
            self._path.replace(self.target)
            with suppress(OSError):
                self._note.unlink()

    def _damage(self, version: Version, oid: str | None) -> str | None:
        os.lseek(self._handle, 0, os.SEEK_SET)
        if os.read(self._handle, len(POINTER)) == POINTER:
            return "it is a pointer of Git LFS, not the file itself"
        right = self.bytes == version.bytes
        if version.sha256:
            right = right and self._digest.hexdigest() == version.sha256
        elif oid:
            right = right and self._git_sha1() == oid
        return None if right else "its checksum is not the one on the hub"

    def _git_sha1(self) -> str:
        """The name that git gives to what has arrived."""
        digest = hashlib.sha1(b"blob %d\0" % self.bytes, usedforsecurity=False)
        os.lseek(self._handle, 0, os.SEEK_SET)
        while block := os.read(self._handle, BLOCK):
            digest.update(block)
        return digest.hexdigest()

    def forget(self) -> None:
        """Remove what has arrived, and the note."""
        for path in (self._path, self._note):
            with suppress(OSError):
                path.unlink()

    def close(self) -> None:
        """Let go of the file."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    @contextmanager
    def _writing(self, version: Version) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            if not full:
                raise disk_error(error, self._path) from error
            raise DiskFull(
                f"The disk is full: {amount(self.bytes)} of {amount(version.bytes)} of "
                f"{self.target.name} have arrived.",
                hint=f"Free {amount(version.bytes - self.bytes + RESERVE_BYTES)} there and start "
                "again: it goes on from there.",
            ) from error


def _note(version: Version) -> dict:
    """What tells one version of a file from another."""
    return {"etag": version.etag, "size": version.bytes, "sha256": version.sha256}


# -- getting it ------------------------------------------------------------------------------------


class _Transfer:
    """One file on its way: tries, and tries again, until it is here."""

    def __init__(self, hub: Hub, repo: str, path: str, part: Part, terms: Terms):
        self._hub, self._repo, self._path = hub, repo, path
        self._part, self._terms = part, terms

    def run(self, listed: RemoteFile | None) -> None:
        """Get it; see download."""
        most, waits = -1, iter(self._terms.waits_s)
        while True:
            try:
                version = self._attempt(listed)
                break
            except HubTrouble as trouble:
                if not trouble.passing:
                    raise
                if self._part.bytes > most >= 0:  # more than ever: it is worth going on
                    waits = iter(self._terms.waits_s)
                most = max(most, self._part.bytes)
                wait = next(waits, None)
                if wait is None:
                    raise
                pause(trouble, wait, self._terms)
        if version:
            self._part.finish(version, listed.oid if listed else None)

    def _attempt(self, listed: RemoteFile | None) -> Version | None:
        """Ask what the file is, and get what is missing of it; None if it is there already."""
        if self._terms.stop.is_set():
            raise Stopped
        version = self._version(listed)
        if _length(self._part.target) == version.bytes:
            self._part.close()
            self._part.forget()
            return None
        self._part.take_up(version)
        self._terms.on_progress(self._part.bytes)
        check_room(self._part.target.parent, version.bytes - self._part.bytes)
        if self._part.bytes < version.bytes:
            self._receive(version)
        return version

    def _version(self, listed: RemoteFile | None) -> Version:
        """What the hub says the file is; HubTrouble if its listing says otherwise."""
        version = self._hub.look(self._repo, self._path, stall_s=self._terms.stall_s)
        if listed is None:
            return version
        if listed.bytes != version.bytes:
            raise HubTrouble(
                f"{self._part.target.name} has {version.bytes} bytes, but {listed.bytes} in the "
                f"list of files of {self._repo}.",
                "Something else answers in place of the hub, or the file was just changed there. "
                "Start again.",
            )
        return replace(version, sha256=listed.sha256 or version.sha256)

    def _receive(self, version: Version) -> None:
        """Get the rest in one answer; HubTrouble if it ends before its time."""
        part, headers = self._part, {}
        if part.bytes:
            headers["Range"] = f"bytes={part.bytes}-"
            if not version.sha256:
                # Of a file with a checksum the ETag is that; the CDN that sends it has others.
                headers["If-Range"] = f'"{version.etag}"'
        what = f"{self._repo}/{self._path}"
        asked = self._hub.answer(
            version.url, headers=headers, what=what, stall_s=self._terms.stall_s
        )
        with asked as answer:
            self._check(answer, version)
            while part.bytes < version.bytes:
                if self._terms.stop.is_set():
                    raise Stopped
                block = answer.read1(min(BLOCK, version.bytes - part.bytes))
                if not block:
                    raise http.client.IncompleteRead(b"")
                part.append(block, version)
                self._terms.on_progress(part.bytes)

    def _check(self, answer: http.client.HTTPResponse, version: Version) -> None:
        """Make sure that what comes goes where the part ends; else begin anew.

        What can't be the file is HubTrouble, and costs nothing of the part.
        """
        part = self._part
        coding = answer.headers.get("Content-Encoding", "identity").strip().lower()
        if coding not in ("", "identity"):
            raise self._something_else(f"came packed ({coding[:20]}), which was not asked for")
        if answer.status == 206:
            return self._check_range(answer.headers.get("Content-Range", ""), version)
        length = answer.headers.get("Content-Length")
        if length is None:
            raise self._something_else("came without its length")
        if length != str(version.bytes):
            raise self._other_length(length, version)
        if part.bytes:
            part.restart(version)
        return None

    def _check_range(self, told: str, version: Version) -> None:
        part = self._part
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", told)
        if match and match[2] not in ("*", str(version.bytes)):
            raise self._other_length(match[2], version)
        if match and int(match[1]) == part.bytes:
            return
        part.restart(version)
        raise HubTrouble(f"{part.target.name} did not go on where it stopped.", passing=True)

    def _other_length(self, length: str, version: Version) -> HubTrouble:
        return self._something_else(f"came with {length} bytes, it should have {version.bytes}")

    def _something_else(self, how: str) -> HubTrouble:
        return HubTrouble(
            f"{self._part.target.name} {how}.",
            "Something else answers in place of the hub, or the file was just changed there. "
            "Start again.",
            passing=True,
        )


def _length(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
