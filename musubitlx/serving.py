"""The servers a web app can run under: gevent, waitress, Flask's own.

Each gives the same few things: a bell made of its own primitives, a nap that
lets others work, a way to do heavy work aside, and whether a client has gone.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from musubitlx.bell import Bell
from musubitlx.errors import UserError

NAMES = ("gevent", "waitress", "flask")
WAITRESS_THREADS = 32
CORES = min(os.cpu_count() or 1, 8)
SOCKET_KEY = "musubitlx.socket"  # where a request's environ holds its connection


class CantListen(UserError):
    """The address or the port can't be had; the text says why."""


class Server:
    """One way to serve. `streams` is how many may be open at once, None for no limit."""

    name = ""
    streams: int | None = None
    nap: Callable[[float], None] = staticmethod(time.sleep)

    def bell(self) -> Bell:
        """A bell that is listening."""
        bell = Bell()
        threading.Thread(target=bell.listen, name="bell", daemon=True).start()
        return bell

    def offload(self, work: Callable, *args):
        """Do heavy work without holding up others; return what it returns."""
        return work(*args)

    def gone(self, environ: dict) -> bool:
        """Whether the client of a request has closed its connection."""
        return peer_closed(environ.get(SOCKET_KEY))

    def bind(self, app, host: str, port: int) -> int:
        """Listen; return the port, which the system chooses for 0. Raises CantListen."""
        raise NotImplementedError

    def serve(self) -> None:
        """Answer requests until `stop` is called."""
        raise NotImplementedError


class GeventServer(Server):
    """gevent: one thread, a greenlet for each request; heavy work goes to a few real threads."""

    name = "gevent"

    def __init__(self) -> None:
        import gevent
        import gevent.pywsgi

        self.nap = gevent.sleep
        self._pool = None

    def bell(self) -> Bell:
        import gevent
        import gevent.event
        import gevent.socket

        bell = Bell(event=gevent.event.Event, udp_socket=gevent.socket.socket)
        gevent.spawn(bell.listen)
        return bell

    def offload(self, work: Callable, *args):
        if self._pool is None:
            from gevent.threadpool import ThreadPool

            self._pool = ThreadPool(CORES + 1)
        value, error = self._pool.apply(_outcome, (work, args))
        if error is not None:
            raise error
        return value

    def bind(self, app, host: str, port: int) -> int:
        from gevent.pywsgi import WSGIHandler, WSGIServer

        class Handler(WSGIHandler):
            def handle(self):
                # Else a small answer waits up to 40 ms until the one before is acknowledged.
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                super().handle()

            def finalize_headers(self):
                super().finalize_headers()
                if self.command == "HEAD":  # else the end of a body follows that is not there
                    self.response_use_chunked = False

            def get_environ(self):
                return {**super().get_environ(), SOCKET_KEY: self.socket}

        with port_errors(host, port):
            self._server = WSGIServer((host, port), app, log=None, handler_class=Handler)
            self._server.start()
        return self._server.server_port

    def serve(self) -> None:
        self._server.serve_forever()


class WaitressServer(Server):
    """waitress: a thread for each request, so streams are counted and pages always get one."""

    name = "waitress"
    streams = 20  # measured: with a stream in every thread the server is dead

    def __init__(self) -> None:
        import waitress.server  # noqa: F401 - so that a missing package is noticed here

        # It would warn whenever a page waits for a thread, which streams make usual.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)

    def gone(self, environ: dict) -> bool:
        closed = environ.get("waitress.client_disconnected")
        return bool(closed and closed())

    def bind(self, app, host: str, port: int) -> int:
        from waitress.server import create_server

        with port_errors(host, port):
            self._server = create_server(
                app,
                host=host,
                port=port,
                threads=WAITRESS_THREADS,
                channel_request_lookahead=1,  # else it does not notice closed connections
                connection_limit=500,
                max_request_body_size=2**44,  # free disk decides
                ident=None,
            )
        return int(getattr(self._server, "effective_port", None) or port)

    def serve(self) -> None:
        self._server.run()


class FlaskServer(Server):
    """Flask's development server: for a machine that has neither of the others."""

    name = "flask"
    streams = 100

    def gone(self, environ: dict) -> bool:
        return peer_closed(environ.get("werkzeug.socket"))

    def bind(self, app, host: str, port: int) -> int:
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_request(self, *_):
                pass

        with port_errors(host, port):
            probe = socket.create_server((host, port), reuse_port=False) if port else None
            if probe:
                probe.close()  # werkzeug would end the program on a taken port
            self._server = make_server(host, port, app, threaded=True, request_handler=Quiet)
        return self._server.server_port

    def serve(self) -> None:
        self._server.serve_forever()


def _outcome(work: Callable, args: tuple) -> tuple:
    """What work returned and what it raised: gevent prints every error that leaves a thread."""
    try:
        return work(*args), None
    except Exception as error:
        return None, error


def each(work: Callable, items: Iterable) -> list:
    """Do heavy work for each item, on as many cores as there are; results in their order.

    To be called within work that is itself offloaded.
    """
    with ThreadPoolExecutor(CORES, initializer=stand_back) as pool:
        return list(pool.map(work, items))


def stand_back() -> None:
    """Give this thread less of the processor than the one that serves (Linux, per thread)."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)


KINDS = {"gevent": GeventServer, "waitress": WaitressServer, "flask": FlaskServer}


def choose(name: str = "auto") -> Server:
    """The server asked for, or with `auto` the best one installed; UserError if it is not there."""
    for candidate in NAMES if name == "auto" else (name,):
        try:
            return KINDS[candidate]()
        except ImportError:
            continue
    raise UserError(f"The server {name} is not installed.", hint=f"pip install {name}")


def peer_closed(connection) -> bool:
    """Whether the other end of a socket has closed it; looks without taking anything."""
    if connection is None:
        return False
    try:
        number = connection.fileno()
        if not select.select([number], [], [], 0)[0]:
            return False
        with socket.fromfd(number, connection.family, connection.type) as real:
            real.setblocking(False)
            return real.recv(1, socket.MSG_PEEK) == b""
    except (OSError, ValueError):
        return True


@contextmanager
def port_errors(host: str, port: int):
    """Turn the ways servers report a taken port into CantListen."""
    try:
        yield
    except (OSError, SystemExit) as error:
        text = getattr(error, "strerror", None) or str(error)
        hint = HINTS.get(getattr(error, "errno", None), "Choose another --host or --port.")
        raise CantListen(f"MusubiTLX can't listen on {host}:{port}: {text}.", hint=hint) from error


NO_ADDRESS = "This machine has no such address: use --host 0.0.0.0 or 127.0.0.1."
HINTS = {
    errno.EADDRINUSE: "Is it running already? Else choose another port with --port.",
    errno.EACCES: "Choose a --port above 1023.",
    errno.EADDRNOTAVAIL: NO_ADDRESS,
    socket.EAI_NONAME: NO_ADDRESS,
}
