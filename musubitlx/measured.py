"""What earlier runs on this machine took: seconds a step and VRAM, for estimates that learn.

One line a run in `output/.jobs/measured.jsonl`, appended by the runner. It outlives the
records of the runs, which people delete.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import median

from musubitlx.home import Home, stamp_of

FILE = "measured.jsonl"
READ_BYTES = 400_000  # the newest lines of the file, some 1000 runs
WARM_UP = 3  # steps at the beginning that say nothing: compiling, filling caches
FEWEST = 5  # steps from which a run says anything
MOST_SCALE = 6.0  # a figure is not carried over to images so many times larger or smaller


@dataclass(frozen=True)
class Load:
    """What a run asks of the card: all that its speed and its memory depend on.

    `pixels` are those of one image, `blocks` those swapped to RAM.
    """

    practice: bool
    pixels: int
    batch: int
    rank: int
    optimizer: str
    fp8: bool = False
    blocks: int = 0
    h2d_only: bool = False
    checkpointing: bool = False
    cpu_offload: bool = False

    def with_flags(self, values: dict) -> Load:
        """The same run with other flags of the trainer, given by option (see `flags.Flags`)."""
        return replace(
            self,
            fp8="--fp8_base" in values,
            blocks=values.get("--blocks_to_swap") or 0,
            h2d_only="--block_swap_h2d_only" in values,
            checkpointing="--gradient_checkpointing" in values,
            cpu_offload="--gradient_checkpointing_cpu_offload" in values,
        )

    @property
    def way(self) -> tuple:
        """What must be the same for a figure to be carried over to other sizes."""
        names = ("practice", "fp8", "blocks", "h2d_only", "checkpointing", "cpu_offload")
        return tuple(getattr(self, name) for name in names)

    @property
    def size(self) -> int:
        """Pixels in one step."""
        return self.pixels * self.batch


@dataclass(frozen=True)
class Measured:
    """A figure of an earlier run; `same` is False where it was carried over from another size."""

    value: float
    same: bool


def note(home: Home, load: dict, gpu: str | None, columns: dict[str, list]) -> None:
    """Keep the figures of a run that is over; `columns` as `metrics.read_columns` gives them.

    Runs of a few steps are left out. Never fails: an estimate is not worth a run.
    """
    times = [value for value in columns["seconds_per_step"] if value][WARM_UP:]
    if len(times) < FEWEST:
        return
    peak = max((value for value in columns["vram"] if value), default=None)
    row = {"load": load, "gpu": gpu, "seconds_per_step": round(median(times), 4), "vram": peak}
    with suppress(OSError), (home.jobs / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def seconds_per_step(home: Home, load: Load, gpu: str | None) -> Measured | None:
    """The time of a step in the newest earlier run like this one, None if there is none.

    One of another size is carried over in proportion to the pixels. The rank hardly
    counts: the weights of the model are trained through, whatever hangs on them.
    """
    carried = None
    for theirs, seconds in _figures(home, gpu, "seconds_per_step"):
        if theirs.way != load.way:
            continue
        if theirs.size == load.size and theirs.optimizer == load.optimizer:
            return Measured(seconds, True)
        scale = load.size / theirs.size
        if carried is None and 1 / MOST_SCALE <= scale <= MOST_SCALE:
            carried = Measured(seconds * scale, False)
    return carried


def vram(home: Home, load: Load, gpu: str | None) -> Measured | None:
    """The most VRAM (bytes) the newest run of just this load needed, None if there was none."""
    same = (vram for theirs, vram in _figures(home, gpu, "vram") if theirs == load)
    return next((Measured(vram, True) for vram in same), None)


def _figures(home: Home, gpu: str | None, key: str) -> Iterator[tuple[Load, float]]:
    """A figure of the runs on this card, newest first."""
    for load, row in _rows(home):
        value = row.get(key)
        if row.get("gpu") == gpu and isinstance(value, (int, float)) and value > 0:
            yield load, value


_read: dict[Path, tuple[object, list]] = {}


def _rows(home: Home) -> Iterator[tuple[Load, dict]]:
    """The runs, newest first; a line that is damaged or of another version is left out."""
    path = home.jobs / FILE
    stamp = stamp_of(path)
    known = _read.get(path)
    if known is None or known[0] != stamp:
        _read.clear()
        known = _read[path] = (stamp, list(_parsed(path)))
    yield from reversed(known[1])


def _parsed(path: Path) -> Iterator[tuple[Load, dict]]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - READ_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return
    names = {one.name for one in fields(Load)}
    for line in lines:
        with suppress(ValueError, TypeError, KeyError, RecursionError):
            row = json.loads(line)
            if set(row["load"]) == names:
                yield Load(**row["load"]), row
