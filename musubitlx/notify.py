"""Sending word of a run's end to the webhook a person has named.

Nothing is sent unless `configs/notify.yaml` names an address, see `targets.py`.
"""

from __future__ import annotations

import base64
import threading
import time
from contextlib import suppress
from urllib.parse import unquote, urlsplit, urlunsplit

from musubitlx import __version__, messages, targets
from musubitlx.errors import Conflict, UserError
from musubitlx.home import Home, write_json
from musubitlx.messages import Message
from musubitlx.targets import Target

TIMEOUT_S = 5.0
RETRY_S = 2.0
GIVE_UP_S = 2 * TIMEOUT_S + RETRY_S + 1.0  # looking up a name has no time limit of its own


class Undelivered(UserError):
    """The message could not be delivered; the sentence tells of the address only its host."""

    http_status = 502

    def __init__(self, message: str, *, again: bool, hint: str | None = None):
        super().__init__(message, hint=hint)
        self.again = again  # a second attempt may help


def send(target: Target, message: Message) -> None:
    """Deliver a message, at the second attempt if need be; Undelivered when that fails, too."""
    try:
        _post(target, message)
    except Undelivered as error:
        if not error.again:
            raise
        time.sleep(RETRY_S)
        _post(target, message)


_trying = threading.Lock()  # held while a test is on its way


def try_out(target: Target) -> None:
    """Send a test message, once; Undelivered if that fails, Conflict while another is sent."""
    if not _trying.acquire(blocking=False):
        raise Conflict("A test is on its way already.", hint="Try again in a few seconds.")
    try:
        _post(target, messages.trial())
    finally:
        _trying.release()


def _post(target: Target, message: Message) -> None:
    """One attempt. The answer is not read, but for its status."""
    import http.client
    import urllib.error
    import urllib.request

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_):
            return None  # the message goes where the person said, and nowhere else

    body, headers = messages.body_of(target.kind, message)
    url, login = _without_login(target.url)
    asked = urllib.request.Request(url, data=body, method="POST")
    # Discord turns away the name that urllib gives itself.
    for name, value in {**headers, **login, "User-Agent": f"MusubiTLX/{__version__}"}.items():
        asked.add_header(name, value)
    limit = Limit(TIMEOUT_S)
    try:
        opener = urllib.request.build_opener(Stay, *_limited(limit))
        with limit, opener.open(asked, timeout=TIMEOUT_S):
            if limit.passed:
                raise TimeoutError
            return
    except urllib.error.HTTPError as error:
        error.close()
        raise _refusal(target, error.code) from None
    except urllib.error.URLError as error:
        problem = _trouble(TimeoutError() if limit.passed else error.reason)
    except (OSError, http.client.HTTPException, ValueError) as error:
        problem = _trouble(TimeoutError() if limit.passed else error)
    raise Undelivered(
        f"{target.where} {problem}.",
        again=True,
        hint="Does this machine reach it, and is the address right?",
    ) from None


class Limit:
    """Ends a connection after so many seconds, however slowly the other end goes on talking.

    The timeout of a socket counts anew with every byte that comes.
    """

    def __init__(self, seconds: float):
        self.passed = False
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._held: list = []

    def watch(self, connection) -> None:
        """End this socket, too, when the time is up; TimeoutError when it is already."""
        import socket

        if self.passed:
            raise TimeoutError
        self._held.append(socket.fromfd(connection.fileno(), connection.family, connection.type))

    def _end(self) -> None:
        import socket

        self.passed = True
        for connection in list(self._held):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Limit:
        self._timer.start()
        return self

    def __exit__(self, *_) -> None:
        self._timer.cancel()
        for connection in self._held:
            connection.close()


def _limited(limit: Limit) -> tuple:
    """Handlers for urllib whose connections are watched by a limit."""
    import http.client
    import urllib.request

    class Plain(http.client.HTTPConnection):
        def connect(self):
            super().connect()
            limit.watch(self.sock)

    class Secure(http.client.HTTPSConnection):
        def connect(self):
            super().connect()
            limit.watch(self.sock)

    class Http(urllib.request.HTTPHandler):
        def http_open(self, asked):
            return self.do_open(Plain, asked)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, asked):
            return self.do_open(Secure, asked)

    return Http, Https


def _trouble(reason: object) -> str:
    """Why no answer came, as the end of a sentence; the words of the error could be anything."""
    import socket
    import ssl

    if isinstance(reason, TimeoutError):
        return f"did not answer within {TIMEOUT_S:g} s"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return "has a certificate this machine does not trust"
    if isinstance(reason, ssl.SSLError):
        return "does not speak https as it should"
    if isinstance(reason, socket.gaierror):
        return "is a name this machine can't find"
    if isinstance(reason, (ConnectionResetError, BrokenPipeError)) or not isinstance(
        reason, OSError
    ):
        return "broke the connection off"
    return "could not be reached"


def _without_login(url: str) -> tuple[str, dict[str, str]]:
    """An address without the name and password in it, and the header that carries them."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url, {}
    login, host = parts.netloc.rsplit("@", 1)
    packed = base64.b64encode(unquote(login).encode()).decode()
    return urlunsplit(parts._replace(netloc=host)), {"Authorization": f"Basic {packed}"}


def _refusal(target: Target, code: int) -> Undelivered:
    hint = "Is the address right, and of the kind chosen?"
    if 300 <= code < 400:
        hint = "It leads to another address. Enter the one it leads to."
    elif code == 429:
        hint = "It takes no more messages for now. Wait a while."
    elif code >= 500:
        hint = "The trouble is at the other end."
    return Undelivered(
        f"{target.where} refused the message (status {code}).", again=code >= 500, hint=hint
    )


def tell(home: Home, job: dict) -> threading.Thread | None:
    """Send word of an ended job, in a thread of its own; None when nobody asked for it.

    Never raises and never waits: what became of it is written beside the job records.
    """
    try:
        target = targets.read(home)
    except Exception:  # a file written by hand ends no run
        return None
    if target is None or job["state"] not in messages.TITLES:  # its record was deleted meanwhile
        return None
    thread = threading.Thread(target=_tell, args=(home, target, job), daemon=True)
    thread.start()
    return thread


def _tell(home: Home, target: Target, job: dict) -> None:
    told = {"ok": True, "text": f"Sent to {target.where}."}
    try:
        send(target, messages.of_job(job))
    except UserError as error:
        told = {"ok": False, "text": str(error)}
    except Exception as error:  # ours, and no reason to end a run; its text could hold the address
        told = {"ok": False, "text": f"It could not be sent ({type(error).__name__})."}
    with suppress(OSError):
        write_json(targets.result_path(home), {**told, "job": job["id"], "time": time.time()})
