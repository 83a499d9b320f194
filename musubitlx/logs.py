"""Logs: folding what a terminal program prints into lines, and following a log by byte offset."""

from __future__ import annotations

import codecs
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

BAR_EVERY_S = 30.0  # a bar that goes on leaves a line in the log this often
LONG_LINE = 65_536  # characters of an unfinished line that are kept back
READ_BYTES = 262_144  # the most one look at a log returns

# One state of a tqdm bar, with or without a total; what follows it on the line is glued on.
BAR = re.compile(
    r"(?P<bar>(?P<name>[^|\[\]]*?)(?:\d+%\|[^|]*\| *[\d.]+\w*/[\d.]+\w*|\d+it) \[[^\]]*\])(?P<rest>.*)", re.S
)
DROPPED = bytes(b for b in range(32) if b not in b"\t\n\r\x07\x1b") + b"\x7f"
ESCAPE = re.compile(r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-Z\\^_]|\x07")
CUT_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]{0,200})?\Z")
PIECES = re.compile(r"(\r|\n|\x1b\[\d*A)")


class Fold:
    """Turns a stream of terminal output into log lines and the bar being rewritten.

    A carriage return folds: what it rewrites reaches the log only as its last
    state, and every 30 s while it goes on. `bar` is the line as it stands.
    Colour and cursor codes are dropped, bytes that are not UTF-8 become U+FFFD.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._line = ""  # text since the last line end or carriage return
        self._held = ""  # an escape code cut in two
        self._rewritten: str | None = None  # text that ended in a carriage return
        self._ups = 0  # cursor-up codes whose line feed is still to come
        self._begun = False  # a long line stands in the log without its end
        self._logged_at = clock()
        self._log: list[str] = []
        self._bars: list[str] = []

    @property
    def bar(self) -> str | None:
        """The line being rewritten, or not ended yet, as it stands; None if there is none."""
        match = BAR.match(self._line)
        shown = match["bar"] if match else self._line or self._rewritten
        return shown.strip()[:2000] if shown and shown.strip() else None

    def feed(self, data: bytes) -> tuple[str, list[str]]:
        """Take what was printed; return the text to append to the log and the bar states seen."""
        text = self._held + self._decode(data.translate(None, DROPPED))
        self._held = ""
        if "\r" in text or "\x1b" in text or self._rewritten is not None or self._ups:
            self._fold(text)
        else:
            self._pass(text)
        return self._taken()

    def end(self) -> tuple[str, list[str]]:
        """The stream is over: return what was kept back."""
        self._line += self._held + self._decode(b"", True)
        self._held = ""
        if self._line.strip():
            self._end_line()
        elif self._rewritten is not None:
            self._settle()
        elif self._begun:
            self._put("")
        return self._taken()

    def _taken(self) -> tuple[str, list[str]]:
        log, bars = "".join(self._log), self._bars
        self._log, self._bars = [], []
        return log, bars

    def _pass(self, text: str) -> None:
        """The fast way: whole lines go through in one block."""
        whole, newline, rest = (self._line + text).rpartition("\n")
        if newline:
            self._log.append(whole + newline)
            self._begun = False
        self._line = rest
        self._flush_long()

    def _fold(self, text: str) -> None:
        cut = CUT_ESCAPE.search(text)
        if cut:
            text, self._held = text[: cut.start()], cut[0]
        text = ESCAPE.sub(lambda code: code[0] if code[0].endswith("A") else "", text)
        for piece in PIECES.split(text):
            if piece == "\n":
                self._line_feed()
            elif piece == "\r":
                self._return()
            elif piece.startswith("\x1b"):
                self._return()
                self._ups += int(piece[2:-1] or 1)
            else:
                self._line += piece
        if match := BAR.match(self._line):
            self._bars.append(match["bar"].strip())
        self._flush_long()

    def _flush_long(self) -> None:
        if len(self._line) > LONG_LINE:
            self._settle()
            self._log.append(self._line)
            self._line, self._begun = "", True

    def _line_feed(self) -> None:
        if self._ups:  # moves down to a second bar, ends nothing
            self._ups -= 1
            self._return()
        else:
            self._end_line()

    def _end_line(self) -> None:
        line, self._line = self._line.rstrip(), ""
        match = BAR.match(line) if "[" in line else None
        if match and match["rest"].strip():  # a log line glued to a bar that goes on
            self._show(match["bar"].strip())
            self._put(match["rest"].strip())
        elif match:
            self._show(line.strip())
            self._settle()
        elif not line and self._rewritten is not None:
            self._settle()
        else:
            self._settle()
            self._put(line)

    def _return(self) -> None:
        line, self._line = self._line, ""
        if line.strip():
            self._show(line.strip())
        elif line:  # overwritten with blanks: the bar is gone
            self._settle()

    def _show(self, bar: str) -> None:
        """A new state of a bar; another bar's last state goes to the log first."""
        if self._rewritten is not None and _name(self._rewritten) != _name(bar):
            self._settle()
        if self._rewritten is None:
            self._logged_at = self._clock()
        self._rewritten = bar
        self._bars.append(bar)
        if self._clock() - self._logged_at >= BAR_EVERY_S:
            self._put(bar)

    def _settle(self) -> None:
        """The bar will not be rewritten any more: its last state is a line."""
        if self._rewritten is not None:
            bar, self._rewritten = self._rewritten, None
            self._put(bar)

    def _put(self, line: str) -> None:
        self._log.append(line + "\n")
        self._begun = False
        self._logged_at = self._clock()


def _name(bar: str) -> str:
    """What tells one bar from another: the text before its numbers."""
    match = BAR.match(bar)
    return (match["name"] if match else re.split(r"\d", bar, maxsplit=1)[0]).strip()


def read_lines(log: Path, offset: int, limit: int = READ_BYTES) -> tuple[str, int]:
    """Return the whole lines that follow `offset`, and the offset to read from next.

    `offset` and `limit` are bytes. A line that has no end yet waits for the
    next call, unless it alone is longer than `limit`: then it comes in parts,
    cut between characters. Bytes that are not UTF-8 become U+FFFD. A log that
    is missing, or not longer than `offset`, reads as empty.
    """
    try:
        with log.open("rb") as file:
            file.seek(offset)
            data = file.read(limit)
    except FileNotFoundError:
        return "", offset
    whole = data.rfind(b"\n") + 1
    if not whole and len(data) == limit:
        whole = _whole_characters(data)
    return data[:whole].decode("utf-8", "replace"), offset + whole


def _whole_characters(data: bytes) -> int:
    """How many bytes of `data` end on a character's end."""
    for cut in range(len(data), max(len(data) - 4, 0), -1):
        if cut == len(data) and data[-1] < 0x80:
            return cut
        if data[cut - 1] >= 0xC0:  # the first byte of a character that may be cut
            return cut - 1
    return len(data)


def start_of_tail(log: Path, limit: int = READ_BYTES) -> int:
    """The offset of the first whole line among the last `limit` bytes; 0 for a shorter log."""
    try:
        size = log.stat().st_size
        if size <= limit:
            return 0
        with log.open("rb") as file:
            file.seek(size - limit)
            return size - limit + file.read(limit).find(b"\n") + 1
    except OSError:
        return 0


def read_tail(log: Path, limit: int = 65_536) -> str:
    """The last whole lines of a log, at most `limit` bytes; empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(start_of_tail(log, limit))
            return file.read(limit).decode("utf-8", "replace")
    except OSError:
        return ""


def whole_size(log: Path) -> int:
    """Bytes of a log up to the end of its last whole line; 0 if there is none."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            start = max(size - READ_BYTES, 0)
            file.seek(start)
            cut = file.read(size - start).rfind(b"\n") + 1
    except OSError:
        return 0
    return start + cut if cut else start


def blocks(log: Path, start: int, end: int, size: int = READ_BYTES) -> Iterator[bytes]:
    """The bytes of a log from `start` to `end`, a block at a time."""
    with log.open("rb") as file:
        file.seek(start)
        while start < end and (data := file.read(min(size, end - start))):
            start += len(data)
            yield data
