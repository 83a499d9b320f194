"""Who may come in: Host, Origin and token, judged from plain facts of a request.

Three dangers, three rules. A name that an attacker's DNS points at this machine
(rebinding): the Host header must be an IP address or a name this machine is known
by. A foreign page that posts to us from a visitor's browser: a changing request
must come from our own page. Anybody else on the network: only this machine itself
comes in without the access token.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from urllib.parse import urlsplit

from musubitlx.errors import Forbidden, Invalid, Unauthorized, UserError
from musubitlx.home import Home, write_secret

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
OPEN_PATHS = ("/healthz", "/login", "/favicon.ico", "/static/")  # one that ends in / opens a folder

MAX_WRONG_TRIES = 10  # per peer and WINDOW_S
WINDOW_S = 60.0
MAX_PEERS = 1000  # remembered at once, so that many addresses can't fill the memory

TOKEN = re.compile(r"[A-Za-z0-9._~-]+")  # what is itself in a URL and in a cookie
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/@\[\]?#,]+)(?::([0-9]{1,5}))?")
VIRTUAL_INTERFACE = re.compile(r"(?i)docker|br-|veth|virbr|vmnet|vbox|vethernet|cni|flannel|podman")


class TooManyTries(UserError):
    """One peer sent too many wrong tokens; the text says when to try again."""

    http_status = 429


@dataclass(frozen=True)
class Visit:
    """The facts of one request that decide about it; None where a header is absent."""

    method: str
    path: str
    peer: str  # the address of the other end of the socket
    host: str | None
    origin: str | None
    sec_fetch_site: str | None
    forwarded: bool  # some forwarding header is there: a proxy stands between
    cookie: str | None
    query_token: str | None
    bearer: str | None


@dataclass(frozen=True)
class Verdict:
    """Come in; `set_cookie`: the link's token was right, so remember it in a cookie."""

    set_cookie: bool


class Access:
    """The rules of one server.

    `token`: the one to use, kept in memory only; without it the one in
    `home.token_file` is used, and made when there is none. `no_token`: everyone who
    reaches the port comes in; the Host and Origin rules stay. `allow_hosts`: further
    names this machine is known by, without port.
    """

    def __init__(
        self,
        home: Home,
        *,
        token: str | None = None,
        no_token: bool = False,
        allow_hosts: Iterable[str] = (),
    ):
        self.no_token = no_token
        self.token = None if no_token else checked_token(token) or kept_token(home.token_file)
        self._hosts = {plain_name(name) for name in allow_hosts if name.strip()}
        self._wrong = WrongTokens()
        # A look-up in the DNS may take seconds: never in a request, never at start.
        threading.Thread(target=self._learn_full_name, name="full-name", daemon=True).start()

    def check(self, visit: Visit) -> Verdict:
        """Let a visit in, or raise Forbidden (403), Unauthorized (401) or TooManyTries (429)."""
        name = host_name(visit.host)
        self._check_host(name)
        check_site(visit)
        if self.no_token or is_open(visit.path) or is_local(visit, name):
            return Verdict(set_cookie=False)
        return self._check_token(visit)

    def _check_host(self, name: str | None) -> None:
        """Raise Forbidden unless `name` can only mean this machine.

        Any IP address will do, not only one of ours: a browser sends one only when the
        page itself was opened by it, DNS has no say in that, and behind NAT or in a
        container the address people use is not one this machine knows.
        """
        if name is None:
            raise Forbidden("The request names no host, so it was refused.")
        if as_ip(name) is None and name not in self._hosts | machine_names():
            raise Forbidden(
                f"This server does not go by the name {name[:100]}.",
                hint="Open it by its IP address, or start it with --allow-host and that name.",
            )

    def _check_token(self, visit: Visit) -> Verdict:
        given = [token for token in (visit.cookie, visit.query_token, visit.bearer) if token]
        if not given:
            raise Unauthorized("This server asks for its access token.", hint=WHERE_THE_TOKEN_IS)
        self._wrong.refuse_if_too_many(visit.peer)
        if not any([self._is_right(token) for token in given]):
            self._wrong.add(visit)
            raise Unauthorized("The access token is wrong.", hint=WHERE_THE_TOKEN_IS)
        return Verdict(set_cookie=self._is_right(visit.query_token))

    def _is_right(self, token: str | None) -> bool:
        """Compare in a time that tells nothing about the right one."""
        typed = (token or "").encode("utf-8", "surrogatepass")
        return secrets.compare_digest(typed, (self.token or "").encode()) and bool(typed)

    def _learn_full_name(self) -> None:
        self._hosts = self._hosts | {plain_name(socket.getfqdn())}


WHERE_THE_TOKEN_IS = (
    "Open the link with ?token= that the server printed at start. On its machine the token is "
    "also in the file output/.jobs/token."
)


# -- the parts of a visit -------------------------------------------------------------------------


def host_name(host: str | None) -> str | None:
    """Return the name in a Host header without port and brackets, None if it is no Host."""
    match = HOST.fullmatch((host or "").lower())
    return plain_name(match[1].strip("[]")) if match else None


def plain_name(name: str) -> str:
    """A host name as it is compared: lower case, no dot at the end."""
    return name.strip().lower().removesuffix(".")


def machine_names() -> set[str]:
    """The names this machine goes by on its own network; asks no server."""
    name = plain_name(socket.gethostname())
    short = name.partition(".")[0]
    return {"localhost", name, short, f"{short}.local"} - {""}


def as_ip(name: str) -> IPv4Address | IPv6Address | None:
    """Return the IP address written in `name` (IPv4 in IPv6 clothes as IPv4), None if none is."""
    try:
        address = ip_address(name)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_loopback(name: str) -> bool:
    """Whether `name` is an address or name by which only this machine reaches itself."""
    address = as_ip(name)
    return address.is_loopback if address else name == "localhost"


def is_local(visit: Visit, name: str) -> bool:
    """Whether this machine visits itself, and no proxy stands between that hides who it is."""
    return is_loopback(visit.peer) and is_loopback(name) and not visit.forwarded


def is_open(path: str) -> bool:
    """Whether `path` tells nothing and changes nothing, so that it needs no token."""
    return any(path == p or (p.endswith("/") and path.startswith(p)) for p in OPEN_PATHS)


def check_site(visit: Visit) -> None:
    """Raise Forbidden when a foreign page wants to change something or to read the API.

    Browsers tell where a request comes from by Sec-Fetch-Site (over HTTPS and to
    localhost) or by Origin; what sends neither is not a browser.
    """
    if visit.method in SAFE_METHODS:
        # The answer could not be read there anyway, but a stream would take up a place.
        foreign = visit.sec_fetch_site == "cross-site" and visit.path.startswith("/api/")
    elif visit.sec_fetch_site is not None:
        foreign = visit.sec_fetch_site not in ("same-origin", "none")
    else:
        foreign = visit.origin is not None and not is_own_origin(visit.origin, visit.host)
    if foreign:
        raise Forbidden(
            "This request came from another web site, so it was refused.",
            hint="Open the page of MusubiTLX itself and try again there.",
        )


def is_own_origin(origin: str, host: str | None) -> bool:
    """Whether an Origin header names the same host and port as the Host header."""
    try:
        parts = urlsplit(origin)
        default = {"http": 80, "https": 443}[parts.scheme]
        theirs = (host_name(parts.netloc), parts.port or default)
    except (KeyError, ValueError):  # "null", or something else that is no web page's origin
        return False
    match = HOST.fullmatch((host or "").lower())
    return bool(match) and theirs == (host_name(host), int(match[2] or default))


# -- tokens ---------------------------------------------------------------------------------------


def checked_token(token: str | None) -> str | None:
    """Return a token a person chose, or None if none; Invalid if it can't stand in a URL."""
    if token is not None and not TOKEN.fullmatch(token):
        raise Invalid(
            "The access token can't be used as it is.",
            field="token",
            hint="Use letters, digits and - . _ ~ only, without spaces.",
        )
    return token


def kept_token(path: Path) -> str:
    """Return the token kept in `path`, made when there is none; only the owner can read it.

    Two servers that start at once get the same one. A file that holds no token is
    replaced. On Windows the rights are those of the folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_urlsafe(24)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return read_token(path) or replaced_token(path, token)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(token + "\n")
    return token


def read_token(path: Path, patience_s: float = 0.5) -> str | None:
    """Return the token in `path`, None if it holds none even after `patience_s`.

    The other server may just have made the file and not written it yet.
    """
    deadline = time.monotonic() + patience_s
    while True:
        text = path.read_bytes().decode("ascii", "replace")
        if text.endswith("\n") and TOKEN.fullmatch(text.strip()):
            if os.name == "posix" and path.stat().st_mode & 0o077:
                path.chmod(0o600)
            return text.strip()
        if time.monotonic() >= deadline:
            return text.strip() if TOKEN.fullmatch(text.strip()) else None
        time.sleep(0.02)


def replaced_token(path: Path, token: str) -> str:
    """Put `token` in the place of a file that holds none, readable by the owner only."""
    write_secret(path, token + "\n")
    return token


class WrongTokens:
    """Who sent wrong tokens in the last minute, so that guessing is slow.

    At the limit no token of that peer is looked at, a right one neither. A wrong
    cookie counts once however often it comes: a page left open from before the token
    changed is not guessing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._lock = threading.Lock()
        self._peers: dict[str, dict[object, float]] = {}

    def refuse_if_too_many(self, peer: str) -> None:
        """Raise TooManyTries when `peer` has to wait."""
        with self._lock:
            tries = self._recent(peer)
        if len(tries) >= MAX_WRONG_TRIES:
            wait = max(1, round(min(tries.values()) + WINDOW_S - self._clock()))
            raise TooManyTries(f"Too many wrong access tokens. Try again in {wait} s.")

    def add(self, visit: Visit) -> None:
        """Remember a visit whose tokens were all wrong."""
        only_cookie = not visit.query_token and not visit.bearer
        what = hash(visit.cookie) if only_cookie else object()
        with self._lock:
            tries = self._recent(visit.peer)
            tries.setdefault(what, self._clock())
            self._peers[visit.peer] = tries
            while len(self._peers) > MAX_PEERS:
                del self._peers[next(iter(self._peers))]

    def _recent(self, peer: str) -> dict[object, float]:
        """The tries of the last WINDOW_S; moves the peer to the end, where it is forgotten last."""
        since = self._clock() - WINDOW_S
        tries = {k: t for k, t in self._peers.pop(peer, {}).items() if t > since}
        if tries:
            self._peers[peer] = tries
        return tries


# -- where people can open the page ---------------------------------------------------------------


def addresses(port: int, host: str) -> list[tuple[str, str]]:
    """Return (label, address without slash at the end) of each way to the page, nearest first.

    Listening on all addresses gives this computer and each of its networks, the
    virtual ones (containers, virtual machines) last.
    """
    wanted = as_ip(host.strip("[]"))
    if wanted is None or not wanted.is_unspecified:
        label = "this computer" if is_loopback(host) else "network"
        return [(label, base_url(host, port))]
    ipv6 = wanted.version == 6
    here = base_url("localhost" if ipv6 else "127.0.0.1", port)
    others = [("network", base_url(address, port)) for address in lan_addresses(ipv6=ipv6)]
    return [("this computer", here), *others]


def base_url(host: str, port: int) -> str:
    """The address of a host and port, an IPv6 one in brackets."""
    bare = host.strip("[]")
    return f"http://[{bare}]:{port}" if ":" in bare else f"http://{bare}:{port}"


def lan_addresses(*, ipv6: bool) -> list[str]:
    """The addresses others can reach this machine by, real network cards first."""
    import psutil  # 30 ms

    families = (socket.AF_INET, socket.AF_INET6) if ipv6 else (socket.AF_INET,)
    found = []
    for name, entries in psutil.net_if_addrs().items():
        for entry in entries:
            address = as_ip(entry.address) if entry.family in families else None
            if address and not (address.is_loopback or address.is_link_local):
                found.append((bool(VIRTUAL_INTERFACE.match(name)), address.version, str(address)))
    return [address for *_, address in sorted(found)]
