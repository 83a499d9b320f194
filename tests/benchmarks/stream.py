"""Viewers of an event stream: plain sockets, with the time at which each piece arrived."""

from __future__ import annotations

import json
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

Pieces = list[tuple[int, bytes]]  # (monotonic ns after the recv, what it returned)


@dataclass
class Heard:
    """One event, and when its last byte had arrived (monotonic ns)."""

    at: int
    name: str
    data: dict
    id: str | None


class Viewers(threading.Thread):
    """Several open streams of one server, read by one thread that does nothing else."""

    def __init__(self, port: int, path: str, count: int = 1, last_id: str | None = None):
        super().__init__(daemon=True)
        self._over = threading.Event()
        self.opened = time.monotonic_ns()
        self.sockets = [ask(port, path, last_id) for _ in range(count)]
        self.received: list[Pieces] = [[] for _ in self.sockets]
        self.start()

    def run(self) -> None:
        """Read until closed."""
        with selectors.DefaultSelector() as selector:
            for number, connection in enumerate(self.sockets):
                selector.register(connection, selectors.EVENT_READ, number)
            while not self._over.is_set() and selector.get_map():
                for key, _ in selector.select(0.05):
                    data = receive(key.fileobj)
                    self.received[key.data].append((time.monotonic_ns(), data))
                    if not data:
                        selector.unregister(key.fileobj)

    def until(self, what: bytes, seconds: float = 30) -> bool:
        """Wait until every viewer has received these bytes; False after `seconds`."""
        deadline = time.monotonic() + seconds
        for pieces in self.received:
            looked = 0
            while not self._holds(pieces, looked, what):
                looked = max(len(pieces) - 1, 0)
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.02)
        return True

    @staticmethod
    def _holds(pieces: Pieces, start: int, what: bytes) -> bool:
        return what in b"".join(data for _, data in pieces[max(start - 1, 0) :])

    def close(self) -> list[Pieces]:
        """Close all streams; return what each received."""
        self._over.set()
        self.join()
        for connection in self.sockets:
            connection.close()
        return self.received


def ask(port: int, path: str, last_id: str | None = None) -> socket.socket:
    """Send one GET the way a browser opens an event stream."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Accept: text/event-stream"]
    if last_id:
        lines.append(f"Last-Event-ID: {last_id}")
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    return connection


def receive(connection: socket.socket) -> bytes:
    """What has arrived; empty when the other end has closed or broken the connection."""
    try:
        return connection.recv(1 << 18)
    except ConnectionError:
        return b""


class Body:
    """Takes the bytes of one HTTP answer as they come and gives back those of its body."""

    def __init__(self) -> None:
        self._held = b""
        self._chunked: bool | None = None  # None: still in the head
        self._left = 0  # bytes of the chunk that are still to come, its line end included
        self.status: int | None = None

    def feed(self, data: bytes) -> bytes:
        """The next bytes of the connection; returns those of the body among them."""
        self._held += data
        if self._chunked is None and not self._take_head():
            return b""
        if not self._chunked:
            body, self._held = self._held, b""
            return body
        return b"".join(self._chunks())

    def _take_head(self) -> bool:
        head, mark, rest = self._held.partition(b"\r\n\r\n")
        if mark:
            self.status = int(head.split(b" ", 2)[1])
            self._chunked = b"transfer-encoding: chunked" in head.lower()
            self._held = rest
        return bool(mark)

    def _chunks(self) -> Iterator[bytes]:
        while self._held:
            if not self._left:
                size, mark, rest = self._held.partition(b"\r\n")
                if not mark:
                    return
                self._held, self._left = rest, int(size, 16) + 2
            taken, self._held = self._held[: self._left], self._held[self._left :]
            content = self._left - 2
            self._left -= len(taken)
            yield taken[: max(content, 0)]


def status(pieces: Pieces) -> int | None:
    """The HTTP status of an answer."""
    body = Body()
    body.feed(b"".join(data for _, data in pieces))
    return body.status


def heard(pieces: Pieces) -> Iterator[Heard]:
    """The events of one stream."""
    body, held = Body(), b""
    for at, data in pieces:
        held += body.feed(data)
        *blocks, held = held.split(b"\n\n")
        for block in blocks:
            fields = dict(part.split(b": ", 1) for part in block.split(b"\n") if b": " in part[1:])
            if b"event" in fields:
                name, event_id = fields[b"event"].decode(), fields.get(b"id", b"").decode() or None
                yield Heard(at, name, json.loads(fields[b"data"]), event_id)


def log_lines(pieces: Pieces) -> Iterator[tuple[int, str]]:
    """Each line of the log with the time of its arrival."""
    for event in heard(pieces):
        if event.name == "log":
            for line in event.data["text"].splitlines():
                yield event.at, line
