"""The Hugging Face hub as we use it: what a repository holds, its files, and its refusals in words.

Standard library only. Proxies are those of the environment, as urllib.request reads them.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urljoin, urlsplit

from musubitlx.errors import UserError
from musubitlx.home import name_problem
from musubitlx.models import HUB

STALL_S = 30.0  # without a byte, for a connection as for an answer: then it counts as dropped
MAX_LISTING_BYTES = 32_000_000  # of one page of a listing
MAX_PAGES = 200
MAX_WAIT_S = 300.0  # longest pause that the hub may ask for
MAX_TOKEN = 4096  # characters; tokens that mirrors and single sign-on give out are long
SHA1, SHA256 = re.compile("[0-9a-f]{40}"), re.compile("[0-9a-f]{64}")
YES = ("1", "ON", "YES", "TRUE")  # as huggingface_hub reads its variables
PASSING = (408, 416, 425, 429)  # besides 5xx: statuses that may be over in a moment


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: `sha256` is known of large ones (those in LFS), of the others
    `oid`, the SHA-1 that git has of them."""

    path: str
    bytes: int
    sha256: str | None
    oid: str | None = None


@dataclass(frozen=True)
class Version:
    """What a file of a repository is at the moment; another `etag` is another content.

    `sha256` is known of a file in LFS, where the hub tells it by X-Linked-ETag.
    """

    etag: str
    bytes: int
    sha256: str | None
    url: str


class HubTrouble(UserError):
    """The hub did not give what was asked; `passing`: that may be over in a moment.

    `wait_s` is how long the hub asks to be left alone.
    """

    http_status = 502

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        *,
        passing: bool = False,
        wait_s: float = 0,
    ):
        super().__init__(message, hint=hint)
        self.passing, self.wait_s = passing, wait_s


# -- the environment -------------------------------------------------------------------------------


def endpoint() -> str:
    """The address of the hub, or of the mirror in HF_ENDPOINT; UserError if that is none."""
    typed = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or HUB
    try:
        parts = urlsplit(typed)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        fits = fits and not (parts.username or parts.password or parts.query or parts.fragment)
    except ValueError:
        fits = False
    if not fits:
        raise UserError(
            "HF_ENDPOINT is not the address of a mirror of the Hugging Face hub.",
            hint=f"It looks like {HUB}, without user name or password. Unset it for the hub.",
        )
    return typed


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids downloads."""
    return _is_set("HF_HUB_OFFLINE")


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").strip().upper() in YES


def folder() -> Path | None:
    """Where Hugging Face's programs keep token and cache; None for a user without a home."""
    if given := os.environ.get("HF_HOME"):
        return named_folder(given)
    if given := os.environ.get("XDG_CACHE_HOME"):
        return named_folder(given) / "huggingface"
    return _usual_folder()


def named_folder(given: str) -> Path:
    """The folder that a variable of the environment names, with `~` and `$NAME` in it."""
    path = Path(os.path.expandvars(given))
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def access_token() -> str | None:
    """The user's token for the hub; UserError, without a word of it, if it can't be one.

    None as well where HF_HUB_DISABLE_IMPLICIT_TOKEN says that no program is to send it unasked.
    """
    if _is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN"):
        return None
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if given := os.environ.get(name, "").strip():
            return _checked_token(given, name)
    for place in dict.fromkeys(_token_files()):
        try:
            kept = place.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            continue
        if kept:
            return _checked_token(kept, str(place))
    return None


def _token_files() -> Iterator[Path]:
    """Where a login may have left a token: where somebody chose a place, there only."""
    if given := os.environ.get("HF_TOKEN_PATH"):
        yield named_folder(given)
        return
    usual = None if os.environ.get("HF_HOME") else _usual_folder()
    yield from (place / "token" for place in (folder(), usual) if place)


def _usual_folder() -> Path | None:
    try:
        return Path.home() / ".cache" / "huggingface"
    except RuntimeError:
        return None


def _checked_token(token: str, place: str) -> str:
    if len(token) <= MAX_TOKEN and re.fullmatch("[!-~]+", token):
        return token
    raise UserError(
        f"The access token in {place} can't be one: it holds spaces or signs no token has, or is "
        "too long.",
        hint="Copy it again from Settings → Access Tokens on the hub, or remove it.",
    )


# -- asking ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hub:
    """The hub at an address, asked with a token or without.

    The token stays with that host, and at home where the way there is not encrypted.
    """

    endpoint: str
    token: str | None = field(default=None, repr=False)

    @classmethod
    def of_environment(cls) -> Hub:
        """The hub as the environment says; UserError where it says nonsense."""
        return cls(endpoint(), access_token())

    def address(self, repo: str, path: str) -> str:
        """Where a file of a repository is asked for."""
        return f"{self.endpoint}/{quote(repo)}/resolve/main/{quote(path)}"

    def files(self, repo: str) -> list[RemoteFile]:
        """Return what a repository holds, HubTrouble if that can't be had.

        Files with names that a file of ours may not have (hidden ones, `..`, what
        Windows reserves) are left out.
        """
        url = f"{self.endpoint}/api/models/{quote(repo)}/tree/main?recursive=true"
        found: list[RemoteFile] = []
        for _ in range(MAX_PAGES):
            with self.answer(url, what=repo) as answer:
                found += _listed(_body(answer))
                following = _next_page(answer.headers.get("Link"))
            if not following:
                return found
            url = urljoin(url, following)
            if origin(url) != origin(self.endpoint):
                break
        raise HubTrouble(f"The list of files of {repo} leads nowhere.", ASK_LATER, passing=True)

    def look(self, repo: str, path: str, *, stall_s: float = STALL_S) -> Version:
        """Ask what a file is, without getting it; HubTrouble if that can't be had."""
        url = self.address(repo, path)
        with self.answer(url, method="HEAD", what=f"{repo}/{path}", stall_s=stall_s) as answer:
            told = answer.headers
        linked = _bare(told.get("X-Linked-ETag"))
        etag = linked or _bare(told.get("ETag"))
        size = told.get("X-Linked-Size") or told.get("Content-Length") or ""
        if not etag or not size.isdecimal():
            raise HubTrouble(
                f"{urlsplit(self.endpoint).hostname} does not say what {path} is and how large.",
                "If HF_ENDPOINT is set to a mirror, unset it or take another.",
            )
        sha256 = linked if SHA256.fullmatch(linked) else None  # a mirror's own ETag may be anything
        return Version(etag, int(size), sha256, url)

    @contextmanager
    def answer(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        what: str = "",
        stall_s: float = STALL_S,
    ) -> Iterator[http.client.HTTPResponse]:
        """Yield the answer to a request, redirects followed; HubTrouble for every refusal.

        What goes wrong while the block reads the answer is HubTrouble as well. A HEAD
        ends at the redirect that says what the file is, as the hub's to its CDN does.
        `what` is asked for, as `owner/name` or `owner/name/path`.
        """
        if is_offline():
            raise HubTrouble(
                "HF_HUB_OFFLINE is set: nothing is downloaded.", "Unset it and start again."
            )
        sent = {"Accept-Encoding": "identity", "User-Agent": "MusubiTLX", **(headers or {})}
        try:
            with self._open(url, method, sent, what, stall_s) as got:
                yield got
        except HTTPError as error:
            error.close()
            raise self._refusal(error, what) from None
        except (OSError, http.client.HTTPException) as error:
            raise no_answer(error, urlsplit(url).hostname or url, stall_s) from None

    def _open(self, url: str, method: str, sent: dict[str, str], what: str, stall_s: float):
        """The answer to a request; HTTPError for a refusal.

        A token that has run out is no reason to be refused what everybody may have: where it is
        at fault, the hub is asked once more without it.
        """
        opener = _opener(allow_http=urlsplit(self.endpoint).scheme == "http")

        def ask(headers: dict[str, str]):
            return _asked(opener, request.Request(url, headers=headers, method=method), stall_s)

        token = self._sendable_token if origin(url) == origin(self.endpoint) else None
        if not token:
            return ask(sent)
        try:
            return ask({**sent, "Authorization": f"Bearer {token}"})
        except HTTPError as error:
            known = error.headers.get("X-Error-Code") in ("GatedRepo", "RepoNotFound")
            if error.code != 401 or known or origin(error.url) != origin(self.endpoint):
                raise
            error.close()
            try:
                return ask(sent)
            except HTTPError as again:
                if again.code not in (401, 403, 404):
                    raise
                again.close()
                raise error from None

    @property
    def _sendable_token(self) -> str | None:
        """The token where it may be sent: not for all to read on the way."""
        parts = urlsplit(self.endpoint)
        return self.token if parts.scheme == "https" or _is_loopback(parts.hostname) else None

    def _refusal(self, error: HTTPError, what: str) -> HubTrouble:
        host, status = urlsplit(error.url).hostname, error.code
        wait_s = _asked_wait(error.headers) if status in (429, 503) else 0
        if origin(error.url) != origin(self.endpoint):  # a link of the CDN that has run out, mostly
            return HubTrouble(
                f"{host} refuses the file (status {status}).",
                ASK_LATER,
                passing=True,
                wait_s=wait_s,
            )
        if status >= 500 or status in PASSING:
            why = "has too many requests" if status == 429 else "is in trouble"
            told = f"{host} {why} (status {status})."
            return HubTrouble(told, ASK_LATER, passing=True, wait_s=wait_s)
        owner, _, rest = what.partition("/")
        name, _, path = rest.partition("/")
        code = error.headers.get("X-Error-Code")
        return _denied(status, code, self._sendable_token, f"{owner}/{name}", path)


ASK_LATER = "Try again in a while; what has arrived is kept."


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port: whom one talks to."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _is_loopback(host: str | None) -> bool:
    """Whether what is sent there stays on this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _bare(etag: str | None) -> str:
    """An ETag without its quotes; empty if there is none."""
    return (etag or "").strip().removeprefix("W/").strip('"')


def _asked_wait(headers: http.client.HTTPMessage) -> float:
    """How long a refusal asks to wait, in seconds: by Retry-After, or by the hub's RateLimit."""
    told = [headers.get("Retry-After", "").strip()]
    told += re.findall(r";\s*t=(\d+)", headers.get("RateLimit", ""))
    return min(MAX_WAIT_S, max(float(one) if one.isdecimal() else 0.0 for one in told))


def _asked(opener: request.OpenerDirector, asked: request.Request, stall_s: float):
    """The answer to a request; for a HEAD a redirect is one."""
    try:
        return opener.open(asked, timeout=stall_s)
    except HTTPError as error:
        if asked.get_method() == "HEAD" and 300 <= error.code < 400:
            return error
        raise
    except ValueError:  # a redirect to what is no address
        raise URLError("it leads to what is no address") from None


def _opener(*, allow_http: bool) -> request.OpenerDirector:
    """What opens addresses: no files and no ftp, as urlopen does."""
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.HTTPHandler(),
        request.HTTPSHandler(),
        request.HTTPDefaultErrorHandler(),
        request.HTTPErrorProcessor(),
        request.UnknownHandler(),
        _Redirects(allow_http),
    ):
        opener.add_handler(handler)
    return opener


class _Redirects(request.HTTPRedirectHandler):
    """Follows redirects: the token never to another host, and never from https to http.

    What a proxy is told is for each request's own proxy, and set anew by what leads there.
    """

    def __init__(self, allow_http: bool):
        self._allow_http = allow_http

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        """The request that follows, None to take the redirect as the answer."""
        if urlsplit(newurl).scheme not in ("https", *(["http"] if self._allow_http else [])):
            raise URLError(f"it leads to an address that is not https ({newurl[:60]})")
        if req.get_method() == "HEAD" and headers["X-Linked-ETag"] and headers["X-Linked-Size"]:
            return None
        own = ("host", "proxy-authorization")
        sent = {name: value for name, value in req.headers.items() if name.lower() not in own}
        if origin(newurl) != origin(req.full_url):
            sent.pop("Authorization", None)
        return request.Request(newurl, headers=sent, method=req.get_method(), unverifiable=True)

    http_error_308 = request.HTTPRedirectHandler.http_error_302  # Python 3.10 does not know it


# -- what it says ----------------------------------------------------------------------------------


def _body(answer: http.client.HTTPResponse) -> bytes:
    """The whole body of a listing; with a limit given, `read` is silent about a broken one."""
    body = answer.read(MAX_LISTING_BYTES)
    if answer.length and len(body) < MAX_LISTING_BYTES:
        raise http.client.IncompleteRead(body)
    return body


def _listed(page: bytes) -> Iterator[RemoteFile]:
    """The files of one page of a listing."""
    try:
        for row in json.loads(page):
            large = row.get("lfs") or {}
            path, size, sha256 = row["path"], large.get("size", row["size"]), large.get("oid")
            oid = None if large else row.get("oid")  # git has of a large file only its pointer
            fits = isinstance(path, str) and isinstance(size, int) and size >= 0
            if row["type"] != "file" or not fits or any(map(name_problem, path.split("/"))):
                continue
            yield RemoteFile(path, size, _sum(SHA256, sha256), _sum(SHA1, oid))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise HubTrouble(
            "What came is no list of files.",
            "Something else answers in place of the hub: a log-in page of the network, a proxy, "
            "or a mirror in HF_ENDPOINT.",
        ) from None


def _sum(kind: re.Pattern, given: object) -> str | None:
    """A checksum of that kind, None if it is none."""
    return given if isinstance(given, str) and kind.fullmatch(given) else None


def _next_page(link: str | None) -> str | None:
    match = re.search(r'<([^>]+)>\s*;\s*rel="?next"?', link or "")
    return match[1] if match else None


def _denied(status: int, code: str | None, token: str | None, repo: str, path: str) -> HubTrouble:
    """What a status of the hub itself means for the person."""
    if code == "GatedRepo":
        if token:
            text = (
                f"The access token in use has no access to {repo}: its owner grants it one by one."
            )
            return HubTrouble(text, f"Accept the terms on {HUB}/{repo} with that token's account.")
        return HubTrouble(
            f"{repo} is gated: its owner wants its terms accepted first.",
            f"Accept them on {HUB}/{repo}, then set HF_TOKEN to a token of that account "
            "(Settings → Access Tokens) and start again.",
        )
    if status == 401 and token and code != "RepoNotFound":
        return HubTrouble(
            "The hub does not accept the access token in use.",
            "Set HF_TOKEN to a valid one, or remove it: public files need none.",
        )
    if code == "EntryNotFound" or (status == 404 and path and code != "RepoNotFound"):
        return HubTrouble(
            f"There is no file {path} in {repo}.", "Its owner may have renamed or removed it."
        )
    if status in (401, 403, 404):
        return HubTrouble(
            f"There is no repository {repo} on the hub, or it is private.",
            "If it is private, set HF_TOKEN to a token of an account that may see it. With a "
            "mirror in HF_ENDPOINT, it may not have it.",
        )
    return HubTrouble(f"The hub refuses {repo} (status {status}).", ASK_LATER)


def no_answer(error: Exception, host: str, stall_s: float) -> HubTrouble:
    """What it means for the person that there was no answer, or none to its end."""
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return HubTrouble(
            f"The certificate of {host} is not valid here: {reason.verify_message}.",
            "Check the date of this machine. Where a proxy opens encrypted connections, "
            "name its certificate in SSL_CERT_FILE.",
        )
    passing = not isinstance(reason, str)
    hint = "Check the network of this machine"
    hint += " and the proxy that is set in the environment." if request.getproxies() else "."
    return HubTrouble(_why(reason, host, stall_s), hint, passing=passing)


def _why(reason: object, host: str, stall_s: float) -> str:
    if isinstance(reason, socket.gaierror):
        return f"The name {host} can't be resolved: there is no network, or no name server."
    if isinstance(reason, TimeoutError):
        return f"{host} has not answered for {stall_s:g} s."
    if isinstance(reason, ConnectionRefusedError):
        return f"{host} can't be reached: the connection was refused."
    if isinstance(reason, ssl.SSLError):
        return f"No encrypted connection to {host}: {reason.reason or 'it broke off'}."
    if isinstance(reason, (ConnectionError, http.client.HTTPException)):
        return f"The connection to {host} broke off."
    if isinstance(reason, OSError):
        return f"{host} can't be reached: {reason.strerror or reason}."
    return f"{host} can't be reached: {reason}."
