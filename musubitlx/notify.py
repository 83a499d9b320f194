"""Word of a run's end, by a webhook a person names: ntfy, Discord, Slack or plain JSON.

Nothing is sent unless `configs/notify.yaml` names an address. Whoever knows that
address can write to the person, so it is a secret: it is kept in a file only the
owner can read, and no message, log or answer repeats more of it than the host.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from musubitlx import __version__, yamls
from musubitlx.errors import Conflict, Invalid, NotFound, UserError, disk_error
from musubitlx.home import Home, is_storable, read_json, write_json, write_secret

KINDS = {"ntfy": "ntfy", "discord": "Discord", "slack": "Slack", "json": "JSON"}
TIMEOUT_S = 5.0
RETRY_S = 2.0
GIVE_UP_S = 2 * TIMEOUT_S + RETRY_S + 1.0  # looking up a name has no time limit of its own
LONGEST_URL = 2000
LONGEST_TEXT = 1500  # characters; Discord takes 4096 and ntfy 4096 bytes

TITLES = {
    "succeeded": "{work} completed",
    "failed": "{work} failed",
    "stopped": "{work} stopped",
    "interrupted": "{work} was interrupted",
}
WORK = {"train": "Training", "caption": "Captioning", "download": "Download"}
COLOURS = {"succeeded": 0x2E9E5B, "failed": 0xC0392B, "interrupted": 0xC98A1B}  # Discord's bar
TAGS = {"succeeded": "white_check_mark", "failed": "x", "interrupted": "warning"}  # ntfy's signs


class Undelivered(UserError):
    """The message could not be delivered; the sentence tells of the address only its host."""

    http_status = 502

    def __init__(self, message: str, *, again: bool, hint: str | None = None):
        super().__init__(message, hint=hint)
        self.again = again  # a second attempt may help


@dataclass(frozen=True)
class Target:
    """Where messages go, and how they are written there."""

    kind: str
    url: str

    @property
    def where(self) -> str:
        """What of the address may be shown: its host."""
        return urlsplit(self.url).hostname or ""

    def __repr__(self) -> str:  # a traceback shows this
        return f"Target({self.kind!r}, {self.where!r})"


@dataclass(frozen=True)
class Message:
    """What is said: a title, a text, and the same as data for programs."""

    title: str
    text: str
    state: str
    data: dict


# -- what is set ----------------------------------------------------------------------------------


def path_of(home: Home) -> Path:
    """Where the address is kept."""
    return home.configs / "notify.yaml"


def read(home: Home) -> Target | None:
    """Where messages go, None when nobody asked for any; Invalid when the file can't be used."""
    path = path_of(home)
    try:
        held = yamls.read(path)
    except FileNotFoundError:
        return None
    except yamls.Unreadable as error:
        raise Invalid(f"configs/{path.name}: {error}.") from None
    if held is None:
        return None
    if not isinstance(held, dict):
        raise Invalid(f"configs/{path.name} holds no kind and url.")
    return checked(held.get("kind"), held.get("url"))


def checked(kind: object, url: object) -> Target:
    """The target a person means; Invalid, without the address, when it can't be one."""
    if not isinstance(kind, str) or kind not in KINDS:
        known = ", ".join(KINDS)
        raise Invalid(f"The kind of notification must be one of: {known}.", field="kind")
    url = url.strip() if isinstance(url, str) else ""
    if not url:
        raise Invalid("Enter the address messages go to.", field="url")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    plain = len(url) <= LONGEST_URL and re.fullmatch(r"[\x21-\x7e]+", url)
    if not usable or not plain:
        raise Invalid(
            "This is no address of a webhook.",
            field="url",
            hint="It begins with https:// (or http:// in your own network) and holds no spaces.",
        )
    if kind == "ntfy" and not parts.path.strip("/"):
        raise Invalid(
            "The topic is missing at the end of the ntfy address.",
            field="url",
            hint="It looks like https://ntfy.sh/ and then a name nobody guesses.",
        )
    return Target(kind, url)


def save(home: Home, kind: object, url: object) -> Target:
    """Keep where messages go. Without `url` the kept one stays if it is of that kind."""
    target = chosen(home, kind, url)
    import yaml

    text = yaml.safe_dump({"kind": target.kind, "url": target.url}, sort_keys=False)
    try:
        write_secret(
            path_of(home),
            "# Who is told when a run ends. Whoever knows the address can write to you.\n" + text,
        )
    except OSError as error:
        raise disk_error(error, path_of(home).name) from error
    _result_path(home).unlink(missing_ok=True)
    return target


def chosen(home: Home, kind: object, url: object) -> Target:
    """The target of a form whose address may be left empty: the kept one is not shown there."""
    if not url and (kept := read(home)) and kind in (None, kept.kind):
        return kept
    return checked(kind, url)


def forget(home: Home) -> None:
    """Send nothing any more; NotFound when nothing was set."""
    try:
        path_of(home).unlink()
    except FileNotFoundError:
        raise NotFound("No notification is set.") from None
    except OSError as error:
        raise disk_error(error, path_of(home).name) from error
    _result_path(home).unlink(missing_ok=True)


def describe(home: Home) -> dict:
    """What the page may know: the kind, the host, and how the last message fared."""
    target = problem = None
    try:
        target = read(home)
    except Invalid as error:
        problem = str(error)
    return {
        "kind": target.kind if target else None,
        "host": target.where if target else None,
        "problem": problem,
        "last": read_json(_result_path(home)),
    }


def _result_path(home: Home) -> Path:
    return home.jobs / "notify.json"


# -- what is said ---------------------------------------------------------------------------------


def of_job(job: dict) -> Message:
    """The message for a job that has ended, as `Job.as_dict` tells it."""
    work = WORK.get(job["kind"], "Run")
    title = TITLES[job["state"]].format(work=work)
    name = job["project"] or job["title"]
    outputs = [Path(path).name for path in job["outputs"]]
    lines = [job["reason"], job["hint"], _figures(job), ", ".join(outputs[:5])]
    if job["practice"]:
        lines.append("Practice run: its LoRA is not for Qwen-Image.")
    data = {
        "event": "run_ended",
        **{key: job[key] for key in ("id", "kind", "project", "title", "state", "reason", "hint")},
        **{key: job[key] for key in ("practice", "exit_code", "created", "started", "ended")},
        "outputs": outputs,
    }
    text = "\n".join(storable(line) for line in lines if line)
    return Message(storable(f"{title}: {name}"), shortened(text), job["state"], data)


def _figures(job: dict) -> str:
    """How long it took, how far it came, the loss: what of it is known."""
    progress, found = job["progress"], []
    if job["started"] and job["ended"]:
        found.append(duration(job["ended"] - job["started"]))
    if progress.get("total"):
        found.append(f"step {progress.get('step') or 0} of {progress['total']}")
    if isinstance(progress.get("loss"), float):
        found.append(f"loss {progress['loss']:.3g}")
    return ", ".join(found)


def duration(seconds: float) -> str:
    """A time as people say it: 42 s, 7 min, 2 h 05 min."""
    if seconds < 60:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def trial() -> Message:
    """What “Send a test” sends."""
    text = "This is how you will hear that a run has ended."
    return Message("MusubiTLX: a test", text, "test", {"event": "test", "text": text})


def shortened(text: str) -> str:
    """A text of a length that every service takes."""
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


def storable(text: str) -> str:
    """A text without halves of characters, which no service could be sent."""
    return text if is_storable(text) else text.encode("utf-8", "replace").decode()


# -- how it is written ----------------------------------------------------------------------------


def body_of(kind: str, message: Message) -> tuple[bytes, dict[str, str]]:
    """The body of the request and its headers, as the service wants them."""
    if kind == "ntfy":
        tags = TAGS.get(message.state, "")
        headers = {"Title": _header(message.title), **({"Tags": tags} if tags else {})}
        headers["Content-Type"] = "text/plain; charset=utf-8"
        return (message.text or message.title).encode(), headers
    said = {
        "discord": _discord,
        "slack": _slack,
        "json": lambda one: {**one.data, "message_title": one.title, "message_text": one.text},
    }[kind](message)
    return json.dumps(said).encode(), {"Content-Type": "application/json"}


def _discord(message: Message) -> dict:
    embed = {"title": message.title[:256], "description": _plain_markdown(message.text)}
    if message.state in COLOURS:
        embed["color"] = COLOURS[message.state]
    return {"embeds": [embed], "allowed_mentions": {"parse": []}}  # a file name calls nobody


def _plain_markdown(text: str) -> str:
    """A text that shows as it is: names of files have underscores and stars."""
    return re.sub(r"([\\*_~`|>\[\]])", r"\\\1", text)


def _slack(message: Message) -> dict:
    text = f"{message.title}\n{message.text}"
    for sign, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, name)
    return {"text": text, "mrkdwn": False}


def _header(text: str) -> str:
    """A text as one line of a header; ntfy reads what is not ASCII in the way mail writes it."""
    line = " ".join(text.split())
    if line.isascii():
        return line
    return f"=?UTF-8?B?{base64.b64encode(line.encode()).decode()}?="


# -- how it is sent -------------------------------------------------------------------------------


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
        _post(target, trial())
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

    body, headers = body_of(target.kind, message)
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
        """End this socket, too, when the time is up."""
        import os
        import socket

        self._held.append(socket.socket(fileno=os.dup(connection.fileno())))

    def _end(self) -> None:
        import socket

        self.passed = True
        for connection in self._held:
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
        target = read(home)
    except Exception:  # a file written by hand ends no run
        return None
    if target is None or job["state"] not in TITLES:  # its record was deleted meanwhile
        return None
    thread = threading.Thread(target=_tell, args=(home, target, job), daemon=True)
    thread.start()
    return thread


def _tell(home: Home, target: Target, job: dict) -> None:
    told = {"ok": True, "text": f"Sent to {target.where}."}
    try:
        send(target, of_job(job))
    except UserError as error:
        told = {"ok": False, "text": str(error)}
    except Exception as error:  # ours, and no reason to end a run; its text could hold the address
        told = {"ok": False, "text": f"It could not be sent ({type(error).__name__})."}
    with suppress(OSError):
        write_json(_result_path(home), {**told, "job": job["id"], "time": time.time()})
