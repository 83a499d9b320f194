"""The figures of a run, step by step: all of them, or thinned to what a chart can show."""

from __future__ import annotations

import bisect
import csv
import io
import json
import math
import os
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from threading import Lock

COLUMNS = ("step", "epoch", "loss", "seconds_per_step", "ram", "vram", "time")
WHOLE = ("step", "epoch", "ram", "vram")
PEAKS = (("loss", min), ("loss", max), ("vram", max), ("seconds_per_step", max))
POINTS = 2000
KEPT_ROWS = 500_000  # of the runs looked at last, some 28 MB
READ_BYTES = 4_194_304
TOGETHER = 1000  # lines that are parsed at once
UNKNOWN = math.nan
CSV_HEAD = ("step", "epoch", "loss", "seconds_per_step", "lr", "vram_bytes", "ram_bytes", "time")

Rate = Callable[[int], float | None]


class Figures:
    """All rows of one `metrics.jsonl`. What is appended to it is read on the next look.

    When the count of steps begins again, the rows before that are another
    training's: `columns` shows what came since, and never both in one line.
    """

    def __init__(self, path: Path):
        self.path = path
        self._lock = Lock()
        self._forget()

    def _forget(self) -> None:
        self._read_to = 0
        self._file = None
        self._begin = 0  # of the training that is shown
        self._epochs: list[tuple[int, int]] = []  # each with its first step
        self._values = {name: array("d") for name in COLUMNS}

    def columns(
        self, first: int | None = None, last: int | None = None, points: int | None = POINTS
    ) -> dict:
        """One list for each column, about `points` long, None: every row.

        `first` and `last` name the range of steps; a row more is given on each
        side, so that a line runs on to the edge. Of every part of a long range
        the rows with the least and the most loss, the most VRAM and the slowest
        step are kept, and the two ends of the range. `mean` is the mean loss of
        the part a row is from. `count` says how many rows there are in all,
        `thinned` whether some of the range were left out, `epochs` where each
        epoch begins: [epoch, step].
        """
        with self._lock:
            self._refresh()
            low, high = self._range(first, last)
            chosen, means = self._chosen(low, high, points)
            told: dict = {name: self._told(name, chosen) for name in COLUMNS}
            told["mean"] = means
            told["count"] = len(self._values["step"]) - self._begin
            told["thinned"] = len(chosen) < high - low
            told["epochs"] = [list(begun) for begun in self._epochs]
            return told

    def last_loss(self, most: int, *, epoch: int | None = None, step: int | None = None) -> dict:
        """{loss, step, steps}: the mean loss of up to `most` steps before a place, that included.

        The place is the end of an epoch, a step, or (neither given) the last row. Steps whose
        loss is no number are passed over; what is not known is None.
        """
        with self._lock:
            self._refresh()
            steps, end = self._values["step"], self._end_of(epoch, step)
            if end == self._begin or (step is not None and steps[end - 1] != step):
                return {"loss": None, "step": step, "steps": None}
            part = self._values["loss"][max(self._begin, end - most) : end]
            known = [value for value in part if value == value]
            mean = fmean(known) if known else None
            return {"loss": mean, "step": int(steps[end - 1]), "steps": len(known) or None}

    def _end_of(self, epoch: int | None, step: int | None) -> int:
        """The row after the last one of an epoch, or after a step."""
        steps, end = self._values["step"], len(self._values["step"])
        if step is not None:
            end = bisect.bisect_right(steps, step, self._begin)
        later = [first for part, first in self._epochs if epoch is not None and part > epoch]
        return min(end, bisect.bisect_left(steps, min(later), self._begin)) if later else end

    @property
    def size(self) -> int:
        """How many rows are held in memory."""
        return len(self._values["step"])

    def rows(self) -> Iterator[dict]:
        """Every row of the file, those of an earlier count included, as they are now."""
        with self._lock:
            self._refresh()
            values = {name: column[:] for name, column in self._values.items()}
        for i in range(len(values["step"])):
            yield {name: _shown(name, column[i]) for name, column in values.items()}

    # -- reading -------------------------------------------------------------------------------

    def _refresh(self) -> None:
        try:
            with self.path.open("rb") as file:
                info = _identity(file)
                if info[0] != self._file or info[1] < self._read_to:
                    self._forget()
                    self._file = info[0]
                file.seek(self._read_to)
                while block := file.read(READ_BYTES):
                    end = block.rfind(b"\n") + 1
                    if not end:
                        return  # a line that is half written, or none of ours
                    self._take(block[:end].splitlines())
                    self._read_to += end
                    file.seek(self._read_to)
        except OSError:
            self._forget()

    def _take(self, lines: list[bytes]) -> None:
        rows = [row for row in _parsed(lines) if isinstance(row, dict)]
        steps = array("d", (_number(row.get("step")) for row in rows))
        if any(step != step for step in steps):
            rows = [row for row, step in zip(rows, steps, strict=True) if step == step]
            steps = array("d", (step for step in steps if step == step))
        known = self._values["step"]
        last = known[-1] if len(known) > self._begin else -math.inf
        for i, (step, row) in enumerate(zip(steps, rows, strict=True), len(known)):
            if step <= last:
                self._begin, self._epochs = i, []
            last = step
            epoch = row.get("epoch")
            if type(epoch) is int and (not self._epochs or self._epochs[-1][0] != epoch):
                self._epochs.append((epoch, int(step)))
        for name, column in self._values.items():
            column.extend([_number(row.get(name)) for row in rows])

    # -- choosing ------------------------------------------------------------------------------

    def _range(self, first: int | None, last: int | None) -> tuple[int, int]:
        steps, low, high = self._values["step"], self._begin, len(self._values["step"])
        if first is not None:
            low = max(low, bisect.bisect_left(steps, first, low) - 1)
        if last is not None:
            high = min(high, bisect.bisect_right(steps, last, low) + 1)
        return low, high

    def _chosen(self, low: int, high: int, points: int | None) -> tuple[list, list]:
        if points is None or high - low <= points:
            losses = self._told("loss", range(low, high))
            return list(range(low, high)), losses
        parts = max(1, points // len(PEAKS))
        chosen, means = [], []
        for part in range(parts):
            begin = low + (high - low) * part // parts
            end = low + (high - low) * (part + 1) // parts
            rows = self._peaks(begin, end, low, high)
            chosen += rows
            means += [self._mean(begin, end)] * len(rows)
        return chosen, means

    def _peaks(self, begin: int, end: int, low: int, high: int) -> list[int]:
        """The rows of a part that a chart must not lose, in order."""
        kept = {row for row in (low, high - 1) if begin <= row < end}
        for name, most in PEAKS:
            part = self._values[name][begin:end]
            total = sum(part)
            if total == total:
                kept.add(begin + part.index(most(part)))
                continue
            known = [row for row, value in enumerate(part) if value == value]
            if known:
                kept.add(begin + most(known, key=part.__getitem__))
            if name == "loss":
                kept.add(begin + next(row for row, value in enumerate(part) if value != value))
        return sorted(kept)

    def _mean(self, begin: int, end: int) -> float | None:
        known = [value for value in self._values["loss"][begin:end] if value == value]
        return sum(known) / len(known) if known else None

    def _told(self, name: str, rows) -> list:
        column = self._values[name]
        return [_shown(name, column[row]) for row in rows]


def _identity(file) -> tuple:
    """Which file it is, and how long."""
    info = os.fstat(file.fileno())
    return (info.st_dev, info.st_ino), info.st_size


def _parsed(lines: list[bytes]) -> Iterator:
    """What the lines say; all at once, which is quicker, unless one of them is damaged."""
    for begin in range(0, len(lines), TOGETHER):
        some = lines[begin : begin + TOGETHER]
        try:
            rows = json.loads(b"[" + b",".join(some) + b"]")
        except (ValueError, RecursionError):
            rows = []
        # A damaged line may, with the comma between, read as two values.
        yield from rows if len(rows) == len(some) else filter(None, map(_parsed_alone, some))


def _parsed_alone(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _number(value: object) -> float:
    """The value as a number; what is none, or can't be drawn, is unknown."""
    kind = type(value)
    if kind is float:
        return value if -math.inf < value < math.inf else UNKNOWN
    if value is None:
        return UNKNOWN
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return UNKNOWN
    try:
        number = float(value)
    except OverflowError:
        return UNKNOWN
    return number if math.isfinite(number) else UNKNOWN


def _shown(name: str, value: float) -> float | int | None:
    if value != value:
        return None
    return int(value) if name in WHOLE else value


_known: OrderedDict[Path, Figures] = OrderedDict()
_known_lock = Lock()


def figures(path: Path) -> Figures:
    """The figures in a file; those of the runs looked at last stay read."""
    with _known_lock:
        found = _known.pop(path, None) or Figures(path)
        _known[path] = found
        rows = sum(one.size for one in _known.values())
        while rows > KEPT_ROWS and len(_known) > 1:
            rows -= _known.popitem(last=False)[1].size
        return found


def read_columns(
    path: Path,
    first: int | None = None,
    last: int | None = None,
    points: int | None = POINTS,
) -> dict:
    """Return what `Figures.columns` says of `metrics.jsonl`.

    A row cut short by a crash is left out; a missing file gives empty lists.
    """
    return figures(path).columns(first, last, points)


def as_csv(path: Path, rate: Rate) -> str:
    """Every row as comma-separated values; `rate` gives the learning rate of a step."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    for row in figures(path).rows():
        known = {**row, "lr": rate(row["step"])}
        names = (name.removesuffix("_bytes") for name in CSV_HEAD)
        writer.writerow([known[name] for name in names])
    return text.getvalue()
