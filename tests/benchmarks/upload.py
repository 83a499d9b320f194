"""200 images of 2 MB, sent by curl."""

from __future__ import annotations

import http.client
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ground import MB, Bench, Peak, Probe, Row, floor_server, judge, skipped, spread

CURL = shutil.which("curl")
IMAGES = 200
BATCH, AT_ONCE = 8, 2  # as static/js/upload.js sends them


def rows(bench: Bench) -> Iterator[Row]:
    """One request with all, then requests of eight as the page sends them, against the floor."""
    if not CURL:
        yield skipped(f"{IMAGES} images of 2 MB", "curl is not there")
        return
    photos, decoding = bench.photos, floor_decode(bench.photos)
    size = sum(path.stat().st_size for path in photos) / len(photos) / MB
    ways = {"one request": send_at_once, "as the page sends them": send_as_page}
    for way, send in ways.items():
        what, least = f"{IMAGES} images of {size:.1f} MB, {way}", floor(bench, send)
        yield from measure(bench, what, send, least, decoding)


def measure(bench: Bench, what: str, send, least: float, decoding: float) -> Iterator[Row]:
    """Time, memory, other pages, thumbnails."""
    with bench.program() as program:
        memory = Peak(program.process.pid)
        probe = Probe(program.record["port"], "/healthz")
        begun, ended = send(f"{program.url}/api/projects/many/images", bench.photos, IMAGES)
        asked = [ms for at, ms in probe.end() if begun <= at <= ended]
        grown, took = memory.grown(), (ended - begun) / 1e9
        ready, count = thumbnails(program, begun)
    yield Row(
        what,
        f"{took:.1f} s ({took / least:.1f} x floor), {count} there",
        "2 x floor",
        f"writing {least:.1f} s, decoding alone {decoding:.1f} s",
        judge(took <= 2 * least, count == IMAGES),
        {"s": took, "floor_s": least, "decode_s": decoding},
    )
    yield Row(f"{what}: server memory", f"+{grown:.0f} MB", "+40 MB", "", judge(grown <= 40))
    yield Row(
        f"{what}: last thumbnail served, from the start",
        f"{ready:.1f} s",
        "10 s",
        "",
        judge(ready <= 10),
    )
    yield Row(f"{what}: /healthz meanwhile (p50 / p95 / max)", spread(asked), figures={"ms": asked})


def thumbnails(program, begun: int) -> tuple[float, int]:
    """Fetch all thumbnails; seconds from `begun` (monotonic ns) to the last, and how many."""
    images = program.get("/api/projects/many")["images"]
    connection = http.client.HTTPConnection("127.0.0.1", program.record["port"], timeout=30)
    served = 0
    for image in images:
        connection.request("GET", image["thumb"])
        answer = connection.getresponse()
        served += answer.status == 200 and answer.read()[:2] == b"\xff\xd8"
    return (time.monotonic_ns() - begun) / 1e9, served


def floor_decode(photos: list[Path]) -> float:
    """Seconds Pillow takes to decode as many on two threads, scaled down in passing."""
    from PIL import Image

    def decode(number: int) -> None:
        with Image.open(photos[number % len(photos)]) as image:
            image.draft("RGB", (320, 320))
            image.load()

    begun = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(decode, range(IMAGES)))
    return time.monotonic() - begun


def floor(bench: Bench, send) -> float:
    """Seconds the same upload takes to a server that only writes."""
    folder = bench.fresh("floor")
    with floor_server("floor_disk.py", folder) as port:
        begun, ended = send(f"http://127.0.0.1:{port}/", bench.photos, IMAGES)
    shutil.rmtree(folder)
    return (ended - begun) / 1e9


def send_at_once(url: str, photos: list[Path], count: int) -> tuple[int, int]:
    """One request with `count` files; monotonic ns of begin and end."""
    begun = time.monotonic_ns()
    curl(url, photos, range(count))
    return begun, time.monotonic_ns()


def send_as_page(url: str, photos: list[Path], count: int) -> tuple[int, int]:
    """Two requests at a time with eight files each; monotonic ns of begin and end."""
    batches = [range(n, min(n + BATCH, count)) for n in range(0, count, BATCH)]
    begun = time.monotonic_ns()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda batch: curl(url, photos, batch), batches))
    return begun, time.monotonic_ns()


def curl(url: str, photos: list[Path], numbers: range) -> None:
    """Send photos under numbered names in one request."""
    command = [CURL, "--silent", "--show-error", "--fail", "--output", "/dev/null", "-H", "Expect:"]
    for number in numbers:
        path = photos[number % len(photos)]
        command += ["-F", f"files=@{path};filename=photo {number:03d}.jpg"]
    subprocess.run([*command, url], check=True, timeout=300)
