"""A log of 100 MB: a page that opens it, and pages that come back after having been cut off."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

from ground import MB, Bench, Peak, Row, fill_log, judge, median, spread, submit, until_running
from stream import Viewers, heard
from support import wait_until

OPENINGS, RETURNS, CUTS = 5, 8, 10


def rows(bench: Bench) -> Iterator[Row]:
    """First text, then resuming at random offsets, then a stream cut again and again."""
    with bench.program() as program:
        log = program.home / "output/bare/training_log_long.log"
        fill_log(log)
        job = submit(program, "long_log.py", log=str(log))
        until_running(program, job.id)
        memory = Peak(program.process.pid)
        reader = Reader(program.record["port"], job.id, log)
        yield first_text(reader)
        yield from coming_back(reader)
        yield cut_often(reader)
        grown = memory.grown()
        yield Row("100 MB log: server memory through all of that", f"+{grown:.0f} MB", "", "", "")


class Reader:
    """Opens streams of one job and compares them with the log."""

    def __init__(self, port: int, job: str, log: Path):
        self.port, self.job, self.log = port, job, log

    def read(self, last_id: str | None, enough) -> tuple[int, list]:
        """Open a stream until `enough(bytes seen)`; when it was opened, and its log events."""
        watch = Viewers(self.port, f"/api/events?job={self.job}", last_id=last_id)
        wait_until(lambda: enough(sum(len(d) for _, d in watch.received[0])), every=0.002)
        pieces = watch.close()[0]
        return watch.opened, [event for event in heard(pieces) if event.name == "log"]

    def matches(self, start: int, events: list) -> bool:
        """Whether the events are exactly the log's bytes from `start` on."""
        text = "".join(event.data["text"] for event in events).encode()
        with self.log.open("rb") as file:
            file.seek(start)
            same = file.read(len(text)) == text
        ends = int(events[-1].id.rpartition(":")[2]) if events else start
        return same and ends == start + len(text)

    def some_offset(self, low: int, high: int) -> int:
        """A random start of a line."""
        with self.log.open("rb") as file:
            file.seek(random.randrange(low, high))
            file.readline()
            return file.tell()


def first_text(reader: Reader) -> Row:
    """What a reload or a second tab waits for: the newest 256 KiB."""
    times, right = [], True
    for _ in range(OPENINGS):
        opened, events = reader.read(None, lambda seen: seen > 200_000)
        times.append((events[0].at - opened) / 1e6)
        right = right and reader.matches(events[0].data.get("skipped", 0), events)
        right = right and events[0].data.get("skipped", 0) > 0
    return Row(
        f"100 MB log: first text on opening (median of {OPENINGS})",
        f"{median(times):.0f} ms" if right else "the text differs from the log",
        "200 ms",
        "",
        judge(median(times) <= 200, right),
        {"ms": times},
    )


def coming_back(reader: Reader) -> Iterator[Row]:
    """Last-Event-ID at random offsets of the last 4 MB, and one in the middle."""
    times, right = [], True
    for _ in range(RETURNS):
        size = reader.log.stat().st_size
        offset = reader.some_offset(size - 4 * MB, size - 2 * MB)
        opened, events = reader.read(f"{reader.job}:{offset}", lambda seen: seen > 1.5 * MB)
        times.append((events[0].at - opened) / 1e6)
        right = right and reader.matches(offset, events)
    yield Row(
        f"100 MB log: coming back {RETURNS} times, first text (p50 / p95 / max)",
        spread(times) if right else "lines missing or twice",
        "200 ms, each once",
        "",
        judge(max(times) <= 200, right),
        {"ms": times},
    )
    offset, begun = reader.some_offset(50 * MB, 52 * MB), time.monotonic()
    _, events = reader.read(f"{reader.job}:{offset}", lambda seen: seen > 40 * MB)
    speed = 40 / (time.monotonic() - begun)
    right = reader.matches(offset, events)
    yield Row(
        "100 MB log: after a long sleep, the 40 MB missed",
        f"{speed:.0f} MB/s" if right else "lines missing or twice",
        "each once",
        "",
        judge(True, right),
        {"mb_per_s": speed},
    )


def cut_often(reader: Reader) -> Row:
    """One page that is cut off at random moments and comes back each time."""
    start = at = reader.some_offset(60 * MB, 62 * MB)
    events = []
    for _ in range(CUTS):
        enough = random.randrange(1, 3 * MB)
        _, more = reader.read(f"{reader.job}:{at}", lambda seen, enough=enough: seen > enough)
        events += more
        at = int(events[-1].id.rpartition(":")[2]) if events else at
    right = reader.matches(start, events)
    return Row(
        f"100 MB log: cut off {CUTS} times at random, {(at - start) / MB:.1f} MB put together",
        "the same as the log" if right else "lines missing or twice",
        "each once",
        "",
        judge(True, right),
    )
