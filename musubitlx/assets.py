"""The page's own files, read and compressed once, each with a tag that changes when it does."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from musubitlx.errors import NotFound
from musubitlx.home import child

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}


@dataclass(frozen=True)
class Asset:
    """One file: its bytes, and compressed where that makes them fewer."""

    tag: str
    plain: bytes
    packed: bytes | None
    content_type: str


class Assets:
    """The files below a folder, by names such as `js/main.js`."""

    def __init__(self, root: Path):
        self._root = root
        self._known: dict[str, tuple[Path, tuple, Asset]] = {}

    def load(self, name: str) -> Asset:
        """Return a file as it is now, read again only if it changed; NotFound if there is none."""
        path = self._known[name][0] if name in self._known else self._path(name)
        try:
            info = path.stat()
        except OSError:
            raise NotFound("There is no such file.") from None
        stamp = (info.st_mtime_ns, info.st_size)
        if name not in self._known or self._known[name][1] != stamp:
            self._known[name] = (path, stamp, _read(path))
        return self._known[name][2]

    def _path(self, name: str) -> Path:
        path = self._root
        for part in name.split("/"):
            path = child(path, part)
        if not path.is_file():
            raise NotFound("There is no such file.")
        return path


# A comment that has its lines to itself. Line numbers stay, for whoever debugs in a browser.
COMMENT = re.compile(rb"(?m)^[ \t]*(?:/\*(?:[^*]|\*(?!/))*\*/|//[^\n]*)[ \t]*$")


def without_comments(text: bytes) -> bytes:
    """Script or style sheet without comments of whole lines, which make a seventh of the page."""
    return COMMENT.sub(lambda comment: b"\n" * comment[0].count(b"\n"), text)


def _read(path: Path) -> Asset:
    plain = path.read_bytes()
    if path.suffix in (".js", ".css"):
        plain = without_comments(plain)
    packed = gzip.compress(plain, 9, mtime=0)
    return Asset(
        tag=hashlib.sha256(plain).hexdigest()[:16],
        plain=plain,
        packed=packed if len(packed) < len(plain) else None,
        content_type=TYPES.get(path.suffix, "application/octet-stream"),
    )
