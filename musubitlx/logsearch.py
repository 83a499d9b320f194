"""Finding the way in a long log: pieces of it by byte offset, and the lines that hold a text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from musubitlx.errors import Invalid
from musubitlx.logs import READ_BYTES, blocks, line_start, read_lines, whole_size

MOST_LINES = 5000  # whose offsets are told; all are counted
LONGEST = 200  # characters of what is looked for


@dataclass(frozen=True)
class Piece:
    """Whole lines of a log, and between which bytes they lie."""

    text: str
    start: int
    end: int


@dataclass
class Found:
    """How many lines of the first `size` bytes hold a text, and where the first of them begin."""

    count: int = 0
    offsets: list[int] = field(default_factory=list)
    size: int = 0


def after(log: Path, offset: int, limit: int = READ_BYTES) -> Piece:
    """Up to `limit` bytes of whole lines from `offset` on; empty where there are none."""
    offset = min(offset, whole_size(log))
    text, end = read_lines(log, offset, limit)
    return Piece(text, offset, end)


def before(log: Path, offset: int, limit: int = READ_BYTES) -> Piece:
    """Up to `limit` bytes of whole lines that end at `offset`, which is where a line begins."""
    offset = min(offset, whole_size(log))
    start = line_start(log, max(0, offset - limit), offset)
    data = b"".join(blocks(log, start, offset)) if offset > start else b""
    return Piece(data.decode("utf-8", "replace"), start, offset)


def search(log: Path, text: str) -> Found:
    """The lines that hold `text`, whatever the case of its letters (of A to Z; others as typed).

    Invalid for a text that no line can hold. A log that is missing holds nothing.
    """
    text = text.strip("\r\n")
    if not text or "\n" in text or len(text) > LONGEST:
        raise Invalid(f"Look for 1 to {LONGEST} characters of one line.", field="q")
    wanted = text.encode("utf-8", "replace").lower()  # of bytes: A to Z alone
    found = Found(size=whole_size(log))
    for start, block in _whole_lines(log, found.size):
        data, at = block.lower(), 0
        while (hit := data.find(wanted, at)) >= 0:
            found.count += 1
            if len(found.offsets) < MOST_LINES:
                found.offsets.append(start + data.rfind(b"\n", 0, hit) + 1)
            end = data.find(b"\n", hit)
            at = end + 1 if end >= 0 else len(data)
    return found


def _whole_lines(log: Path, size: int) -> Iterator[tuple[int, bytes]]:
    """The log in blocks that end with a line, each with its offset; but for lines without end."""
    start, rest = 0, b""
    if not size:
        return
    for block in blocks(log, 0, size):
        data = rest + block
        cut = data.rfind(b"\n") + 1 or len(data)
        yield start, data[:cut]
        start, rest = start + cut, data[cut:]
    if rest:
        yield start, rest
