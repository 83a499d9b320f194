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
# Every repetition is bounded: a megabyte of digits must not cost time.
BAR = re.compile(
    r"(?P<bar>(?P<name>[^|\[\]]{0,200}?)"
    r"(?:\d{1,3}%\|[^|]{0,500}\| *[\d.]{1,20}\w{0,3}/[\d.]{1,20}\w{0,3}|\d{1,12}it)"
    r" \[[^\]]{0,500}\])(?P<rest>.*)",
    re.S,
)
DROPPED = bytes(b for b in range(32) if b not in b"\t\n\r\x07\x1b") + b"\x7f"
UP = re.compile(r"\x1b\[(\d{0,9})A")
ESCAPE = re.compile(  # a title, a colour or cursor code, another code, a code that is none
    r"\x1b\][^\x07\x1b\r\n]{0,500}(?:\x07|\x1b\\)|\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]"
    r"|\x1b[ -/]{0,8}[0-~]|[\x1b\x07]"
)
CUT = re.compile(  # what the next piece may go on with
    r"(?:\r|\x1b(?:\[[0-?]{0,64}[ -/]{0,8}|\][^\x07\x1b\r\n]{0,500}\x1b?|[ -/]{0,8})?)\Z"
)
PIECES = re.compile(r"(\r|\n|\x1b\[\d{0,9}A)")
SPECIAL = re.compile(r"[\r\x1b\x07]")
MAX_UPS = 100  # bars below one another


class Fold:
    """Turns a stream of terminal output into log lines and the bar being rewritten.

    A carriage return folds: what it rewrites reaches the log only as its last
    state, and every 30 s while it goes on. `bar` is the line as it stands.
    Colour and cursor codes are dropped, bytes that are not UTF-8 become U+FFFD.
    How the stream is cut into pieces changes nothing about the log.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._line = ""  # text since the last line end or carriage return
        self._redrawn = False  # that text began with a carriage return, so it may be a bar
        self._held = ""  # a code or line end that may be cut in two
        self._rewritten: str | None = None  # text that ended in a carriage return
        self._ups = 0  # cursor-up codes whose line feed is still to come
        self._begun = False  # a long line stands in the log without its end
        self._logged_at = clock()  # when the bar last got a line
        self._log: list[str] = []
        self._bars: list[str] = []

    @property
    def bar(self) -> str | None:
        """The line being rewritten, or not ended yet, as it stands; None if there is none."""
        match = BAR.match(self._line)
        shown = (match["bar"] if match else self._line).strip() or self._rewritten
        return shown[:2000] if shown else None

    def feed(self, data: bytes) -> tuple[str, list[str]]:
        """Take what was printed; return the text to append to the log and the bar states seen."""
        text = self._held + self._decode(data.translate(None, DROPPED))
        self._held = ""
        if cut := CUT.search(text, max(len(text) - 600, 0)):
            text, self._held = text[: cut.start()], cut[0]
        self._take(text)
        return self._taken()

    def end(self) -> tuple[str, list[str]]:
        """The stream is over: return what was kept back."""
        held, self._held = self._held, ""
        self._take(("" if held.startswith("\x1b") else held) + self._decode(b"", True))
        if self._line.strip() or self._begun:
            self._end_line()
        self._settle()
        return self._taken()

    def _taken(self) -> tuple[str, list[str]]:
        log, bars = "".join(self._log), self._bars
        self._log, self._bars = [], []
        return log, bars

    def _take(self, text: str) -> None:
        text = text.replace("\r\n", "\n")
        if SPECIAL.search(text):
            self._fold(text)
        else:
            self._pass(text)
        if self._redrawn and (match := BAR.match(self._line)):
            self._bars.append(match["bar"].strip())
        if len(self._line) > LONG_LINE:
            self._settle()
            self._log.append(self._line)
            self._line, self._redrawn, self._begun = "", False, True

    def _pass(self, text: str) -> None:
        """The fast way: once no bar is under way, whole lines go through in one block."""
        while text and (self._redrawn or self._rewritten is not None or self._ups):
            line, newline, text = text.partition("\n")
            self._line += line
            if newline:
                self._line_feed()
        whole, newline, rest = (self._line + text).rpartition("\n")
        if newline:
            self._log.append(whole + newline)
            self._begun = False
        self._line = rest

    def _fold(self, text: str) -> None:
        text = ESCAPE.sub(lambda code: code[0] if UP.fullmatch(code[0]) else "", text)
        for piece in PIECES.split(text):
            if piece == "\n":
                self._line_feed()
            elif piece == "\r":
                self._return()
            elif piece.startswith("\x1b"):
                self._return()
                self._ups = min(self._ups + (int(piece[2:-1] or 1) or 1), MAX_UPS)
            else:
                self._line += piece

    def _line_feed(self) -> None:
        if self._ups:  # moves down to a second bar, ends nothing
            self._ups -= 1
            self._return()
        else:
            self._end_line()

    def _end_line(self) -> None:
        line, redrawn = self._line, self._redrawn and not self._is_long
        self._line, self._redrawn = "", False
        match = BAR.match(line) if redrawn else None
        if match and match["rest"].strip():  # a log line glued to a bar that goes on
            self._show(match["bar"].strip())
            self._put(match["rest"].strip())
        elif match or (redrawn and self._is_same(line)):
            self._show(line.strip())
            self._settle()
        else:
            blank = not line.strip() and not self._begun
            if not (blank and self._settle()):
                self._settle()
                self._put(line.rstrip() if redrawn else line)

    def _is_same(self, line: str) -> bool:
        """The line is a further state of what is being rewritten."""
        shown = self._rewritten
        return bool(line.strip()) and shown is not None and _name(shown) == _name(line)

    @property
    def _is_long(self) -> bool:
        """The line is too long for a bar: it goes to the log as it is, in parts."""
        return self._begun or len(self._line) > LONG_LINE

    def _return(self) -> None:
        if self._is_long:
            self._end_line()
        line, self._line = self._line, ""
        self._redrawn = True
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
            self._logged_at = self._clock()
            self._put(bar)

    def _settle(self) -> bool:
        """The bar will not be rewritten any more: its last state is a line. False without a bar."""
        if self._rewritten is None:
            return False
        bar, self._rewritten = self._rewritten, None
        self._put(bar)
        return True

    def _put(self, line: str) -> None:
        self._log.append(line + "\n")
        self._begun = False


def _name(bar: str) -> str:
    """What tells one bar from another: the text before its numbers."""
    match = BAR.match(bar)
    return (match["name"] if match else re.split(r"\d", bar, maxsplit=1)[0]).strip()


def read_lines(log: Path, offset: int, limit: int = READ_BYTES) -> tuple[str, int]:
    """Return the whole lines that follow `offset`, and the offset to read from next.

    `offset` and `limit` are bytes. A line that has no end yet waits for the
    next call, unless it alone is longer than `limit`: then it comes in parts,
    cut between characters. Bytes that are not UTF-8 become U+FFFD. A log that
    is missing, can't be read, or is not longer than `offset`, reads as empty.
    """
    try:
        with log.open("rb") as file:
            file.seek(offset)
            data = file.read(limit)
    except OSError:
        return "", offset
    whole = data.rfind(b"\n") + 1
    if not whole and len(data) == limit:
        whole = _whole_characters(data)
    return data[:whole].decode("utf-8", "replace"), offset + whole


def _whole_characters(data: bytes) -> int:
    """How many bytes of `data` end on a character's end."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data)
    return len(data) - len(decoder.getstate()[0])


def start_of_tail(log: Path, limit: int = READ_BYTES) -> int:
    """The offset of the first whole line among the last `limit` bytes; 0 for a shorter log.

    If no line begins there, it is where the last line's last `limit` bytes begin.
    """
    try:
        size = log.stat().st_size
    except OSError:
        return 0
    return line_start(log, max(0, size - limit), size)


def line_start(log: Path, start: int, end: int) -> int:
    """Where the first line begins that begins after `start` and before `end`; 0 stays 0.

    Where none does it is the first character from `start` on.
    """
    if start <= 0:
        return 0
    try:
        with log.open("rb") as file:
            file.seek(start)
            data = file.read(end - start)
    except OSError:
        return 0
    line = data.find(b"\n") + 1
    return start + (line if 0 < line < len(data) else _character_start(data))


def _character_start(data: bytes) -> int:
    """How many bytes at the start of `data` belong to a character that began before it."""
    return next((n for n, byte in enumerate(data[:3]) if byte & 0xC0 != 0x80), min(len(data), 3))


def read_tail(log: Path, limit: int = READ_BYTES) -> str:
    """The last `limit` bytes of a log, their first line perhaps cut; empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(file.seek(0, 2) - limit, 0))
            return file.read(limit).decode("utf-8", "replace")
    except OSError:
        return ""


def whole_size(log: Path) -> int:
    """Bytes of a log up to the end of its last whole line; 0 if there is none.

    Of a line that goes on for more than `READ_BYTES` the part before those counts.
    """
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            start = max(size - READ_BYTES, 0)
            file.seek(start)
            data = file.read(size - start)
    except OSError:
        return 0
    whole = data.rfind(b"\n") + 1
    return start + (whole or (_character_start(data) if start else 0))


def blocks(log: Path, start: int, end: int, size: int = READ_BYTES) -> Iterator[bytes]:
    """The bytes of a log from `start` to `end`, a block at a time."""
    with log.open("rb") as file:
        file.seek(start)
        while start < end and (data := file.read(min(size, end - start))):
            start += len(data)
            yield data
