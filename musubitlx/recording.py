"""What is kept of a run while it goes on: its log, its status and the rows of its metrics.

The server's bell is rung for whatever was written.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from musubitlx import jobs, resources
from musubitlx.bell import Ringer
from musubitlx.home import Home, write_json
from musubitlx.jobs import RUNNING, Job
from musubitlx.logs import Fold
from musubitlx.progress import Progress

STATUS_S = 0.2  # how often the status is written at most
SEEN_S = 10.0  # how often it is written at least
PIPE_BYTES = 1_048_576
PIECE_BYTES = 65_536  # folded at once; then whoever looks at the progress has its turn
BATCH_S = 0.002  # output that comes faster is read in larger blocks, and rung for once


class LogFile:
    """The log of a run: appended at once, and the bell rung for it.

    A full disk never ends the run: what could not be written is counted, and
    said where writing goes on.
    """

    def __init__(self, path: Path, ringer: Ringer):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._ringer = ringer
        self._file = path.open("ab", buffering=0)
        self._lost = 0  # bytes
        self._end = b"\n"  # of what was written last
        self._last_words = b""  # those that are still to be written
        self._lock = threading.Lock()  # the reader and the main thread both write lines

    def write(self, text: str) -> None:
        """Append text that ends its lines itself."""
        with self._lock:
            if self._file.closed:
                return  # a program's output outlived it
            self._last_words = self._append(self._last_words)
            rest = self._append(text.encode("utf-8", "replace"))  # may set _lost back
            self._lost += len(rest)
        self._ringer.ring()

    def _append(self, data: bytes) -> bytes:
        """Append as much as goes in; returns the rest."""
        try:
            while data and self._lost:
                begin = "" if self._end == b"\n" else "\n"
                told = f"{begin}[{self._lost} bytes of log are lost: disk full]\n".encode()
                if self._put(told) == len(told):
                    self._lost = 0
            while data:
                data = data[self._put(data) :]
        except OSError:
            pass
        return data

    def _put(self, data: bytes) -> int:
        written = self._file.write(data)
        self._end = data[written - 1 : written] or self._end
        return written

    def line(self, text: str = "") -> None:
        """Append one line."""
        self.write(text + "\n")

    def last_lines(self, texts: Iterable[str]) -> None:
        """Append the lines a run ends with. What of them a full disk does not take is not lost:
        `close` tries once more."""
        with self._lock:
            text = "".join(f"{text}\n" for text in texts)
            self._last_words = self._append(text.encode("utf-8", "replace"))
        self._ringer.ring()

    def close(self) -> None:
        """Nothing more will be written."""
        with self._lock:
            self._append(self._last_words)
            self._file.close()


class Seen(NamedTuple):
    """What a program has told since it was last asked: how far it is, its bar, what is new."""

    progress: dict
    bar: str | None
    rows: list[dict]  # of the metrics


class Output(threading.Thread):
    """Reads what a program prints until its pipe ends: into the log, and into the progress."""

    def __init__(self, pipe, log: LogFile):
        super().__init__(daemon=True)
        self._pipe, self._log = pipe, log
        self._fold, self._progress = Fold(), Progress()
        self._lock = threading.Lock()  # fold and progress, against the thread that looks
        self.changed = threading.Event()  # there was output; cleared by whoever takes it
        with suppress(ImportError, OSError, AttributeError):
            import fcntl

            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)  # a burst never waits for us

    @property
    def epoch(self) -> int | None:
        """The epoch it is in, None while it has named none."""
        with self._lock:
            return self._progress.current.get("epoch")

    def take(self, *, all_of_it: bool = False) -> Seen:
        """What there is to keep; the row of the last step only with `all_of_it`."""
        with self._lock:
            rows = self._progress.take_rows(all_of_them=all_of_it)
            return Seen(dict(self._progress.current), self._fold.bar, rows)

    def run(self) -> None:
        """Read in blocks; when they come fast, wait a little so that they come larger."""
        last = 0.0
        while data := self._read():
            self._fold_in(data)
            now = time.monotonic()
            if now - last < BATCH_S:
                time.sleep(BATCH_S)
            last = now
        with self._lock:
            self._keep(*self._fold.end())

    def _read(self) -> bytes:
        try:
            return os.read(self._pipe.fileno(), PIPE_BYTES)
        except (OSError, ValueError):
            return b""

    def _fold_in(self, data: bytes) -> None:
        for start in range(0, len(data), PIECE_BYTES):
            with self._lock:
                self._keep(*self._fold.feed(data[start : start + PIECE_BYTES]))
        self.changed.set()

    def _keep(self, text: str, bars: list[str]) -> None:
        if text:
            self._log.write(text)
            self._progress.read_log(text)
        for bar in bars:
            self._progress.read_bar(bar)


class Recording:
    """The files a run leaves in its record, and its log once that is open.

    `status` is what `write_status` puts on the disk.
    """

    def __init__(self, home: Home, job: Job):
        self.log: LogFile | None = None
        self.status: dict = {
            "state": RUNNING,
            "runner": jobs.identity(),
            "started": time.time(),
            "stage": None,
            "progress": {},
            "bar": None,
        }
        self._folder = job.folder
        self._ringer = Ringer(home)
        self._poller = resources.Poller(home.output)
        self._written_at = 0.0
        self._disk_is_full = False

    def open_log(self, path: Path) -> LogFile:
        """Begin the log; OSError when that can't be."""
        self.log = LogFile(path, self._ringer)
        return self.log

    def card(self) -> dict | None:
        """The graphics card the run uses, as `resources` tells it; None where there is none."""
        return resources.chosen_card(self._poller.snapshot()["gpus"])

    def is_due(self, *, changed: bool) -> bool:
        """Whether it is time to write the status; `changed`: there is something new to say."""
        quiet = time.monotonic() - self._written_at
        return (changed and quiet >= STATUS_S) or quiet >= SEEN_S

    def write_status(self) -> bool:
        """Replace the status; False when the disk would not take it."""
        self.status["last_seen"] = time.time()
        self._written_at = time.monotonic()
        try:
            write_json(self._folder / "status.json", self.status)
        except OSError as error:
            self._disk_is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            return False
        self._ringer.ring()
        return True

    def write_end(self) -> None:
        """Write the status, however long the disk stays full: it must be on record before the
        next job begins."""
        while not self.write_status() and self._disk_is_full:
            time.sleep(1.0)

    def append_metrics(self, rows: list[dict]) -> None:
        """Add rows to the metrics, with the memory in use (bytes) and the time as they are now."""
        if not rows:
            return
        now = self._poller.snapshot()
        card = resources.chosen_card(now["gpus"])
        memory = {
            "ram": now["ram"]["used"],
            "vram": card["used"] if card else None,
            "time": round(time.time(), 3),
        }
        text = "".join(json.dumps({**row, **memory}) + "\n" for row in rows)
        with suppress(OSError), (self._folder / "metrics.jsonl").open("a") as file:
            file.write(text)

    def ring(self) -> None:
        """Tell the server to look: something was written, or has gone."""
        self._ringer.ring()
