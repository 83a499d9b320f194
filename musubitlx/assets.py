"""The page's own files, read and compressed once, each with a tag that changes when it does."""

from __future__ import annotations

import gzip
import hashlib
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
        self._known: dict[str, tuple[tuple, Asset]] = {}

    def load(self, name: str) -> Asset:
        """Return a file as it is now, read again only if it changed; NotFound if there is none."""
        path = self._root
        for part in name.split("/"):
            path = child(path, part)
        if not path.is_file():
            raise NotFound("There is no such file.")
        info = path.stat()
        stamp = (info.st_mtime_ns, info.st_size)
        known = self._known.get(name)
        if known is None or known[0] != stamp:
            known = self._known[name] = (stamp, _read(path))
        return known[1]


def _read(path: Path) -> Asset:
    plain = path.read_bytes()
    packed = gzip.compress(plain, 9, mtime=0)
    return Asset(
        tag=hashlib.sha256(plain).hexdigest()[:16],
        plain=plain,
        packed=packed if len(packed) < len(plain) else None,
        content_type=TYPES.get(path.suffix, "application/octet-stream"),
    )
