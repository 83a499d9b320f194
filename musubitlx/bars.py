"""The progress bars of our own programs: how they are drawn, and how the runner reads them."""

from __future__ import annotations

import re
import sys
import time
from typing import TextIO

WIDTH = 10  # characters of the bar itself
DRAW_S = 0.2  # at most this often
BYTES, IMAGES = "B", "image"  # what is counted
MB = 1e6

LINE = re.compile(  # one `logs.Fold` knows for a bar
    r"(?P<title>[^\r\n|]{1,80}):\s+\d{1,3}%\|[# ]{10}\| "
    r"(?P<done>\d+(?:\.\d+)?)(?:MB)?/(?P<total>\d+(?:\.\d+)?)(?:MB)? "
    r"\[(?P<elapsed>[\d:]+)<(?P<left>[\d:]+|\?), (?P<rate>[\d.]+|\?) (?P<unit>MB/s|s/image)\]"
)


class Bar:
    """A bar that is drawn over itself with carriage returns, as tqdm's are.

    `total` and what `show` gets count bytes or images; parts of an image are allowed, its
    caption grows word by word. `done` is what was there when it began: it counts for the
    length of the bar and not for the speed.
    """

    def __init__(
        self, title: str, total: float, unit: str, *, done: float = 0, out: TextIO | None = None
    ):
        self._title, self._total, self._unit = title, total, unit
        self._began_with, self._done = done, done
        self._out = out or sys.stdout
        self._began = time.monotonic()
        self._drawn = float("-inf")
        self._width = 0  # of what was drawn last

    def show(self, done: float, *, now: bool = False) -> None:
        """Draw how far it is, unless that was done a moment ago and `now` is not set."""
        self._done = max(self._done, min(done, self._total))
        moment = time.monotonic()
        if now or moment - self._drawn >= DRAW_S:
            self._drawn = moment
            line = self.line(moment - self._began)
            self._width = len(line)
            self._out.write("\r" + line)
            self._out.flush()

    def say(self, line: str) -> None:
        """Print a line, and the bar again below it.

        On a terminal it takes the bar's place. In a log it stands behind the bar, as lines that
        others print do: by that `logs.Fold` knows that the bar goes on.
        """
        over = f"\r{' ' * self._width}\r" if self._out.isatty() else " " if self._width else ""
        self._out.write(f"{over}{line}\n")
        self._drawn = float("-inf")
        self.show(self._done)

    def end(self) -> None:
        """Draw it as it is and leave its line."""
        self.show(self._done, now=True)
        self._out.write("\n")
        self._out.flush()

    def line(self, elapsed: float) -> str:
        """The bar as text, `elapsed` seconds after it began."""
        fresh = self._done - self._began_with
        speed = fresh / elapsed if fresh > 0 and elapsed > 0 else 0.0  # bytes or images a second
        left = _clock((self._total - self._done) / speed) if speed else "?"
        share = self._done / self._total if self._total else 1.0
        drawn = ("#" * int(share * WIDTH)).ljust(WIDTH)
        if self._unit == BYTES:
            count = f"{self._done / MB:.1f}MB/{self._total / MB:.1f}MB"
            rate = f"{_number(speed / MB, 2)} MB/s" if speed else "? MB/s"
        else:
            count = f"{_number(self._done)}/{_number(self._total)}"
            rate = f"{_number(1 / speed, 3)} s/image" if speed else "? s/image"
        head = f"{self._title}: {int(share * 100):3d}%|{drawn}| {count}"
        return f"{head} [{_clock(elapsed)}<{left}, {rate}]"


def read(text: str) -> dict | None:
    """What a bar of ours says, in the shape of a job's progress; None for any other text.

    `step` and `total` are bytes or images, as `unit` says; times are in seconds, `per_s` is
    bytes a second.
    """
    match = LINE.fullmatch(text.strip())
    if match is None:
        return None
    scale = MB if match["unit"] == "MB/s" else 1
    rate = None if match["rate"] == "?" else float(match["rate"])
    told = {
        "unit": BYTES if scale == MB else IMAGES,
        "step": int(float(match["done"]) * scale),
        "total": round(float(match["total"]) * scale),
        "elapsed_s": seconds(match["elapsed"]),
        "eta_s": seconds(match["left"]),
    }
    if rate is not None:
        told["per_s" if scale == MB else "seconds_per_step"] = rate * scale
    return told


def seconds(clock: str) -> int | None:
    """Seconds of `MM:SS` or `H:MM:SS`; None when the bar does not know."""
    if "?" in clock:
        return None
    total = 0
    for part in clock.split(":"):
        total = total * 60 + int(part)
    return total


def _number(value: float, places: int = 1) -> str:
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".")


def _clock(seconds: float) -> str:
    whole = int(min(seconds, 359_999))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"
