"""Start, idle cost, and how fast the page and its files are served."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
from ground import MB, Bench, Row, floor_server, judge, median
from stream import Viewers
from support import ROOT, clean_environment

STARTS, ASKS, IDLE_S = 5, 50, 20


def rows(bench: Bench) -> Iterator[Row]:
    """Start to first answer, memory and CPU at rest, `/`, a static file."""
    yield first_answer(bench)
    with bench.program() as program:
        port, pid = program.record["port"], program.process.pid
        yield page_time(port)
        yield static_file(port)
        yield from idle(port, pid)


def first_answer(bench: Bench) -> Row:
    """From the start of the process to the first 200 of /healthz."""
    times = [start_once(bench) for _ in range(STARTS)]
    floor = median(floor_start() for _ in range(3))
    return Row(
        f"start to first answer (median and best of {STARTS})",
        f"{median(times):.2f} s, {min(times):.2f} s",
        "0.3 s",
        f"{floor:.2f} s",
        judge(median(times) <= 0.3),
        {"s": times, "floor_s": floor},
    )


def start_once(bench: Bench) -> float:
    """Seconds from spawn to answer."""
    port = free_port()
    command = [sys.executable, str(ROOT / "webgui.py"), "--home", str(bench.fresh("start"))]
    command += ["--host", "127.0.0.1", "--port", str(port), "--server", bench.server]
    begun = time.monotonic()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=clean_environment(), cwd=bench.folder, **quiet)
    try:
        while not answers(port):
            time.sleep(0.002)
        return time.monotonic() - begun
    finally:
        process.terminate()
        process.wait(timeout=10)


def floor_start() -> float:
    """The same for a bare asyncio server."""
    begun = time.monotonic()
    with floor_server("floor_sse.py", 1, "true") as port:
        answers(port)
        return time.monotonic() - begun


def free_port() -> int:
    """A port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def answers(port: int) -> bool:
    """Whether /healthz says 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def ask_times(port: int, path: str) -> tuple[list[float], int]:
    """Milliseconds of each of `ASKS` requests on one connection, and the last status."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    times, answer = [], None
    for _ in range(ASKS):
        begun = time.monotonic_ns()
        connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        answer.read()
        times.append((time.monotonic_ns() - begun) / 1e6)
    connection.close()
    return times, answer.status


def page_time(port: int) -> Row:
    """`/` compressed, on a connection that is kept."""
    times, status = ask_times(port, "/")
    with floor_server("floor_sse.py", 1, "true") as floor_port:
        floor = median(ask_times(floor_port, "/")[0])
    return Row(
        f"`/` served, gzip (median of {ASKS})",
        f"{median(times):.1f} ms (status {status})",
        "5 ms",
        f"{floor:.1f} ms",
        judge(median(times) <= 5, status == 200),
        {"ms": times, "floor_ms": floor},
    )


def static_file(port: int) -> Row:
    """A static file: compressed, with a tag, and 304 for who has it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def ask(**headers):
        given = {"Accept-Encoding": "gzip", **headers}
        connection.request("GET", "/static/css/tokens.css", headers=given)
        answer = connection.getresponse()
        answer.read()
        return answer

    first = ask()
    tag, coding = first.getheader("ETag"), first.getheader("Content-Encoding")
    second = ask(**{"If-None-Match": tag or "x"})
    connection.close()
    return Row(
        "static file: tag, compressed, not sent twice",
        f"ETag {tag}, {coding}, then {second.status}",
        "ETag, gzip, 304",
        "",
        judge(bool(tag) and coding == "gzip" and second.status == 304),
    )


def idle(port: int, pid: int) -> Iterator[Row]:
    """Memory and CPU of the server with one stream open and nothing to tell."""
    watch = Viewers(port, "/api/events")
    time.sleep(2)
    process = psutil.Process(pid)
    before, begun = process.cpu_times(), time.monotonic()
    time.sleep(IDLE_S)
    after, took = process.cpu_times(), time.monotonic() - begun
    spent = sum(after[:2]) - sum(before[:2])
    watch.close()
    memory, share = process.memory_info().rss / MB, 100 * spent / took
    what = f"idle, one stream open for {IDLE_S} s"
    yield Row(
        f"{what}: memory (RSS)",
        f"{memory:.0f} MB",
        "50 MB",
        "",
        judge(memory <= 50),
        {"mb": memory},
    )
    yield Row(
        f"{what}: CPU",
        f"{share:.2f} % of a core",
        "0.3 %",
        "",
        judge(share < 0.3),
        {"percent": share},
    )
