"""What all benchmarks share: a row of the table, the server under test, jobs, figures, pictures."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import psutil
from support import Program, bare_plan, wait_until

from musubitlx.home import Home
from musubitlx.jobs import Job, Jobs

PROGRAMS = Path(__file__).resolve().parent / "programs"
REACHED, MISSED, WRONG, SKIPPED = "reached", "MISSED", "WRONG", "skipped"
MB = 1_000_000


@dataclass
class Row:
    """One line of the table, ready to print; `figures` are its numbers for --json."""

    what: str
    measured: str
    reach: str = ""
    floor: str = ""
    verdict: str = ""
    figures: dict = field(default_factory=dict)


def judge(reached: bool, right: bool = True) -> str:
    """The verdict: whether the figure is reached; WRONG where the result itself is."""
    if not right:
        return WRONG
    return REACHED if reached else MISSED


def skipped(what: str, reason: str) -> Row:
    """A row that can't be measured here."""
    return Row(what, reason, verdict=SKIPPED)


def percentile(values: Iterable[float], share: float) -> float:
    """The value that `share` (0 to 1) of the values do not exceed; nan if there are none."""
    ordered = sorted(values)
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Iterable[float]) -> float:
    """The middle value."""
    return percentile(values, 0.5)


def spread(values: list[float]) -> str:
    """Milliseconds as `p50 / p95 / max`."""
    parts = (percentile(values, 0.5), percentile(values, 0.95), max(values, default=float("nan")))
    return " / ".join(f"{part:.1f}" for part in parts) + " ms"


# -- the server under test -------------------------------------------------------------------------


class Bench:
    """One call of the benchmarks: the kind of server, and a folder that goes away with it."""

    def __init__(self, server: str):
        self.server = server
        self._folder = tempfile.TemporaryDirectory(prefix="musubitlx-bench-")
        self.folder = Path(self._folder.name)

    def close(self) -> None:
        """Remove everything that was written."""
        self._folder.cleanup()

    def fresh(self, name: str = "x") -> Path:
        """A new empty folder."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))

    @contextmanager
    def program(self, *arguments: str, env: dict | None = None, server: str | None = None):
        """The real server, started for this measurement; all its runs end with it."""
        home = self.fresh("home") / "home"
        program = Program(home, "--server", server or self.server, *arguments, env=env)
        try:
            yield program.start()
        finally:
            program.stop()

    @cached_property
    def photos(self) -> list[Path]:
        """40 different JPEG files of about 2 MB and 4 megapixels."""
        folder = self.fresh("photos")
        paths = [folder / f"{number}.jpg" for number in range(40)]
        for number, path in enumerate(paths):
            path.write_bytes(photo(number))
        return paths


def photo(seed: int) -> bytes:
    """A grainy picture that makes a JPEG file of about 2 MB."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:1800, 0:2400].astype("float32") / 2400
    ground = np.stack([120 + 90 * y, 90 + 80 * x, 140 - 60 * x * y], -1)
    grain = rng.integers(-26, 27, (1800, 2400, 1), dtype="int16")
    file = io.BytesIO()
    Image.fromarray((ground + grain).astype("uint8")).save(file, "JPEG", quality=90)
    return file.getvalue()


# -- jobs ------------------------------------------------------------------------------------------


def fill_log(log: Path, lines: int = 1_600_000) -> None:
    """Write a log of lines of 64 bytes, 100 MB."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        for start in range(0, lines, 10_000):
            some = range(start, start + 10_000)
            file.write("".join(f"old {n:08d} ".ljust(63, ".") + "\n" for n in some))


def submit(program: Program, script: str, *arguments: object, **plan) -> Job:
    """Queue a run of one of our programs, as the web server would."""
    home = Home(program.home)
    argv = [sys.executable, str(PROGRAMS / script), *map(str, arguments)]
    return Jobs(home).submit(bare_plan(home, argv, **plan))


def look(program: Program, job_id: str) -> Job:
    """The job as its files say now, without asking the server."""
    return Jobs(Home(program.home)).get(job_id)


def until_ended(program: Program, job_id: str, seconds: float = 60) -> Job:
    """Wait for a job's end without disturbing the server."""

    def ended():
        job = look(program, job_id)
        return job if job.ended else None

    return wait_until(ended, seconds=seconds, what=f"the end of {job_id}", every=0.1)


def until_running(program: Program, job_id: str, seconds: float = 20) -> Job:
    """Wait until a job's program has been started."""

    def started():
        job = look(program, job_id)
        return job if job.status.get("child") else None

    return wait_until(started, seconds=seconds, what=f"the start of {job_id}", every=0.05)


# -- programs of ours ------------------------------------------------------------------------------


@contextmanager
def floor_server(script: str, *arguments: object) -> Iterator[int]:
    """A bare server in a process of its own; gives its port, which it prints first."""
    argv = [sys.executable, str(PROGRAMS / script), *map(str, arguments)]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, env=env)
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(timeout=10)
        process.stdout.close()


class Probe:
    """A process that asks a server for pages all the time and notes how long each took."""

    def __init__(self, port: int, *paths: str):
        argv = [sys.executable, str(PROGRAMS / "probe.py"), str(port), *paths]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._process.stdout.readline()  # it has begun

    def end(self) -> list[tuple[int, float]]:
        """Stop asking; return (monotonic ns of the question, ms until the answer) of each."""
        told, _ = self._process.communicate(timeout=20)
        return [tuple(pair) for pair in json.loads(told)]


class Peak(threading.Thread):
    """Watches the memory (RSS) of a process: `grown` is the peak beyond what it had at first."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self._process = psutil.Process(pid)
        self._over = threading.Event()
        self.before = self.peak = self._process.memory_info().rss
        self.start()

    def run(self) -> None:
        """Look 50 times a second."""
        with suppress(psutil.Error):
            while not self._over.wait(0.02):
                self.peak = max(self.peak, self._process.memory_info().rss)

    def grown(self) -> float:
        """Stop watching; MB more at the peak than at first."""
        self._over.set()
        self.join()
        return (self.peak - self.before) / MB


def end_process(pid: int) -> None:
    """Kill one process that a measurement left, if it is still there."""
    with suppress(OSError):
        os.kill(pid, signal.SIGKILL)


def lives(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def seconds_until(condition, limit_s: float) -> float:
    """Seconds until `condition` holds, looked at every 5 ms; infinity after `limit_s`."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > limit_s:
            return float("inf")
        time.sleep(0.005)
    return time.monotonic() - begun
