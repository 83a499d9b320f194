"""Dataset health: how long the inspector looks, and what a report costs the server."""

from __future__ import annotations

import http.client
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
from ground import MB, Bench, Peak, Probe, Row, judge, median, spread
from page import fetch, fill
from support import Program

IMAGES = 200


def rows(bench: Bench) -> Iterator[Row]:
    """Two hundred photos put into a folder by hand, then a thousand small images."""
    yield from two_hundred(bench)
    with bench.program() as program:
        fill(program.home / "output" / "thousand", 1000)
        yield thousand(program)
        yield checked(program)


def two_hundred(bench: Bench) -> Iterator[Row]:
    """From the first question until every image has been looked at."""
    with bench.program() as program:
        folder = program.home / "output" / "many"
        folder.mkdir(parents=True)
        for number in range(IMAGES):
            photo = bench.photos[number % len(bench.photos)]
            shutil.copy(photo, folder / f"{number}.jpg")
        memory, probe = Peak(program.process.pid), Probe(program.record["port"], "/healthz")
        took, most = looked_at(program)
        asked, grown = [ms for _, ms in probe.end()], memory.grown()
    yield Row(
        f"{IMAGES} images of 2 MB: all looked at",
        f"{took:.1f} s ({1000 * took / IMAGES:.0f} ms an image), inspector {most:.0f} MB",
        figures={"s": took, "inspector_mb": most},
    )
    yield Row(
        f"{IMAGES} images of 2 MB: server meanwhile, memory and /healthz (p50 / p95 / max)",
        f"+{grown:.0f} MB, {spread(asked)}",
        "+40 MB, 50 ms",
        "",
        judge(grown <= 40 and max(asked) <= 50),
        {"ms": asked},
    )


def looked_at(program: Program) -> tuple[float, float]:
    """Seconds until all is known, and the most memory (MB) the inspector had."""
    begun, most = time.monotonic(), 0.0
    while True:
        report = program.get("/api/projects/many/health")
        if report["looked"] == report["of"] == IMAGES:
            return time.monotonic() - begun, most
        for child in psutil.Process(program.process.pid).children():
            with suppress(psutil.Error):
                most = max(most, child.memory_info().rss / MB)
        time.sleep(0.1)


def thousand(program: Program) -> Row:
    """A report on a thousand images that have all been looked at."""
    while True:
        report = program.get("/api/projects/thousand/health")
        if report["looked"] == report["of"]:
            break
        time.sleep(0.2)
    connection = http.client.HTTPConnection("127.0.0.1", program.record["port"], timeout=30)
    times = []
    for _ in range(6):
        begun = time.monotonic()
        status, size, text = fetch(connection, "/api/projects/thousand/health")
        times.append(1000 * (time.monotonic() - begun))
    right = status == 200 and len(json.loads(text)["findings"]) > 0
    return Row(
        "1000 images: dataset health, first and later",
        f"{times[0]:.0f} ms, {median(times[1:]):.0f} ms ({size / 1024:.0f} KB)",
        "part of 1 s",
        "",
        judge(times[0] <= 1000, right),
        {"ms": times},
    )


def checked(program: Program) -> Row:
    """The check of a thousand images, as the page asks for it while one types."""
    body = {"project": "thousand", "settings": {"trigger_word": "ohwx"}}
    times = []
    for _ in range(6):
        begun = time.monotonic()
        told = program.post("/api/check", body)
        times.append(1000 * (time.monotonic() - begun))
    first, later = times[0], median(times[1:])
    return Row(
        "1000 images: check before the start, first and later",
        f"{first:.0f} ms, {later:.0f} ms",
        "part of 1 s",
        "",
        judge(later <= 300, bool(told["steps"])),
        {"ms": times},
    )
