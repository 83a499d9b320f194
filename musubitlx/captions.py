"""One caption: the text of an image in the .txt beside it, and the text the trainer gets."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from musubitlx.errors import Conflict, Invalid, disk_error
from musubitlx.home import BINARY, is_storable, write_text

MAX_CAPTION = 10_000  # characters
MAX_BYTES = 4 * MAX_CAPTION  # the most they take

try:
    import fcntl
except ImportError:  # Windows: there only our own threads wait for one another
    fcntl = None

PATIENCE_S = 0.5  # for another process that is writing a caption in the folder; a look and a write

_writing = threading.Lock()  # nobody writes between another's look and write


class Edited(Conflict):
    """The caption is not any more what its writer started from; nothing was written."""

    def __init__(self, current: str):
        super().__init__(
            "This caption was changed elsewhere meanwhile.",
            field="text",
            hint="Keep your text or take the other one.",
        )
        self.current = current

    def as_dict(self) -> dict:
        """The error, with the caption as it is now and its tag."""
        return {**super().as_dict(), "caption": self.current, "tag": tag(self.current)}


def final_text(caption: str, trigger: str, prompt: str) -> str:
    """The caption with the trigger word in front unless it holds it as a whole word, any case.

    Without a caption it is trigger word and subject description.
    """
    text = caption.strip() or prompt.strip()
    trigger = trigger.strip()
    if not trigger or has_trigger(text, trigger):
        return text
    return f"{trigger}, {text}" if text else trigger


def has_trigger(text: str, trigger: str) -> bool:
    """Whether a text holds the trigger word as a whole word, any case; False without one."""
    trigger = trigger.strip()
    return bool(trigger and re.search(rf"(?<!\w){re.escape(trigger)}(?!\w)", text, re.I))


def tag(text: str) -> str:
    """A short fingerprint of a caption: by it a writer says what it started from."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def checked(text: object) -> str:
    """The text as it is stored; Invalid if it can't be a caption."""
    if not isinstance(text, str) or len(text) > MAX_CAPTION or not is_storable(text):
        raise Invalid(f"A caption is text of at most {MAX_CAPTION} characters.", field="text")
    return plain(text)


def read(path: Path) -> str:
    """The caption in a file; empty if there is none, or something else has its name.

    Of a file longer than a caption may be it is the beginning, see `is_whole`.
    """
    data = _data(path)
    return "" if data is None else decode(data[:MAX_BYTES])[:MAX_CAPTION]


def is_whole(path: Path) -> bool:
    """Whether `read` tells all there is in a caption's place: what it can't must not be replaced.

    True if nothing is there. False for a file that can't be read or is longer than
    a caption, for what is no ordinary file, and for a link that leads elsewhere.
    """
    if not os.path.lexists(path):
        return True
    data = _data(path)
    return data is not None and len(data) <= MAX_BYTES and len(decode(data)) <= MAX_CAPTION


def _data(path: Path) -> bytes | None:
    """What a caption file holds, at most a byte more than a caption has; None if it can't be read.

    Only an ordinary file of the same folder is read: a pipe would never end, a link
    could lead anywhere.
    """
    try:
        if path.is_symlink() and path.resolve().parent != path.parent.resolve():
            return None
        handle = os.open(path, os.O_RDONLY | BINARY | getattr(os, "O_NONBLOCK", 0))
    except (OSError, RuntimeError):
        return None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(MAX_BYTES + 1)
    except OSError:
        return None
    finally:
        os.close(handle)


def write(path: Path, text: object, *, base: str | None = None) -> str:
    """Save a caption as UTF-8 without BOM; an empty one removes the file. Returns what is stored.

    `base` is the tag of the caption its writer started from: if it is another
    one by now, Edited is raised and nothing is written. A text that stands
    there already is never a conflict: it was this writer's, and the answer got lost.
    """
    text = checked(text)
    with _writing, _alone_in(path.parent):
        if base is not None:
            current = read(path)
            if current != text and tag(current) != base:
                raise Edited(current)
        try:
            if text:
                write_text(path, text)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(error) from error
    return text


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes from writing captions in a folder: the page and a model may both.

    One that holds it for long, since it was halted, or a file system without locks, keeps
    nobody from writing.
    """
    handle = None
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY) if fcntl else None
    until = time.monotonic() + PATIENCE_S
    while handle is not None and time.monotonic() < until:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(0.001)
        except OSError:
            break
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def decode(data: bytes) -> str:
    """Text of a caption file in whatever encoding: a BOM decides, else UTF-8, else Windows-1252."""
    for bom, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"", "utf-8-sig")):
        if data.startswith(bom):
            with suppress(UnicodeDecodeError):
                return plain(data.decode(encoding))
    return plain(data.decode("cp1252", "replace"))


def plain(text: str) -> str:
    """Text with one kind of line end, and without the NULs some programs leave."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "").strip()
