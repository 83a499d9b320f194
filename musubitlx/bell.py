"""The bell: a runner rings after it wrote, streams wake up and look at the files.

A datagram to a loopback port: a hint, never data. One that is lost costs a
quarter of a second, because streams look that often on their own.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

from musubitlx.home import Home, read_json


class Ringer:
    """Rings the server's bell, if there is a server. Never waits, never fails."""

    def __init__(self, home: Home):
        self._record = home.server_record
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._port: int | None = None
        self._looked_at = 0.0

    def ring(self) -> None:
        """Tell the server that something was written."""
        if port := self._server_port():
            with suppress(OSError):
                self._socket.sendto(b"!", ("127.0.0.1", port))

    def _server_port(self) -> int | None:
        """The port in server.json, looked up once a second: servers come and go."""
        now = time.monotonic()
        if now - self._looked_at > 1.0:
            self._looked_at = now
            port = (read_json(self._record) or {}).get("wake_port")
            self._port = port if isinstance(port, int) and 0 < port < 65536 else None
        return self._port


class Bell:
    """Wakes everything in this process that waits for news.

    `event` and `udp_socket` make the primitives of the server in use: those of
    threading, or gevent's.
    """

    def __init__(self, event=threading.Event, udp_socket=socket.socket):
        self._new_event = event
        self._event = event()
        self._socket = udp_socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    def ring(self) -> None:
        """Wake all who wait now."""
        rung, self._event = self._event, self._new_event()
        rung.set()

    def now(self):
        """What to hand to `wait`; taken before looking at the files, no ring is missed."""
        return self._event

    def wait(self, since, timeout_s: float) -> None:
        """Return when the bell was rung after `since` was taken, or after `timeout_s`."""
        since.wait(timeout_s)

    def listen(self) -> None:
        """Ring for every datagram that comes; never returns."""
        while True:
            with suppress(OSError):
                self._socket.recv(16)
                self.ring()
