"""A stand-in for the Hugging Face hub, with all that goes wrong there: a fixture and a program.

    python tests/standins/fakehub.py ROOT [--port 0]     prints "PORT n" once it listens

ROOT/<owner>/<name>/<path…> is served as those repositories. Files of `lfs_min` bytes and more are
handed to a CDN, which is the same server under another host name (localhost beside 127.0.0.1), by
links that serve once.

    GET, HEAD /<owner>/<name>/resolve/main/<path>          the file, or 302 to the CDN
    GET       /_cdn/<sha256>?ticket=…                      the file; Range and If-Range are honoured
    GET       /api/models/<owner>/<name>/tree/main         the list of files, in pages
    POST      /_ctl   {field of Mood: value, …}            how it behaves from now on
    GET       /_log                                        every request: see Seen. POST clears it
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import socket
import threading
import time
from dataclasses import asdict, dataclass, field, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GOOD_TOKEN = "hf_good"


@dataclass
class Mood:
    """How the hub behaves. Offsets are bytes of a file; `…_times` how often it does it."""

    lfs_min: int = 1 << 16  # bytes from which a file is large
    drop_at: int | None = None  # the connection is closed there
    drop_times: int = 1
    stall_at: int | None = None  # nothing more comes there
    stall_times: int = 1
    rate: float = 0  # bytes a second; 0: no limit
    ranges: bool = True  # whether Range is honoured
    corrupt_at: int | None = None  # the byte there is wrong
    gated: list[str] = field(default_factory=list)  # repositories that want GOOD_TOKEN
    status: int | None = None  # every request of the hub is answered with that
    status_times: int = 1_000_000
    cdn_refusals: int = 0  # so many requests of the CDN get 403
    one_use: bool = True  # whether a link of the CDN serves once
    redirect: bool = True  # large files: by the CDN, or by the hub itself
    linked: bool = True  # whether the way to the CDN says what the file is
    moved: dict[str, str] = field(default_factory=dict)  # repositories under a new name
    short_by: int = 0  # so much is missing of what the CDN sends, and it says so
    page: int = 1000  # files on one page of a listing
    coding: str | None = None  # the Content-Encoding that bodies of files claim
    tell_length: bool = True  # whether they come with a Content-Length
    etag: str | None = None  # of every file of the hub, as a mirror may have it
    headers: dict[str, str] = field(default_factory=dict)  # more of them, with `status`
    evil: list[str] = field(default_factory=list)  # more names in every listing


@dataclass
class Seen:
    """One request, and how many bytes of a body were sent for it."""

    method: str
    path: str
    host: str
    range: str | None
    token: bool
    status: int
    sent: int


class FakeHub(ThreadingHTTPServer):
    """The server; `mood` may be changed while it runs, `seen` lists what was asked of it."""

    daemon_threads = True

    def __init__(self, root: Path, port: int = 0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.root = root.resolve()
        self.mood = Mood()
        self.seen: list[Seen] = []
        self.ending = threading.Event()
        self.guard = threading.Lock()
        self.tickets: dict[str, Path] = {}
        self._numbers = count()
        self._sums: dict[tuple, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def start(self) -> FakeHub:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        self.ending.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address) -> None:
        """A client that went away is no news."""

    def sent(self, contains: str = "", method: str = "GET") -> int:
        """How many bytes of bodies went out for paths with that in them."""
        return sum(s.sent for s in self.seen if contains in s.path and s.method == method)

    def take(self, name: str) -> bool:
        """Whether something is still to be done once more; counts it."""
        with self.guard:
            left = getattr(self.mood, name)
            setattr(self.mood, name, max(0, left - 1))
            return left > 0

    def file(self, repo: str, path: str) -> Path | None:
        found = (self.root / repo / path).resolve()
        return found if found.is_relative_to(self.root) and found.is_file() else None

    def files(self, repo: str) -> list[Path]:
        return sorted(path for path in (self.root / repo).rglob("*") if path.is_file())

    def sha256(self, path: Path) -> str:
        facts = path.stat()
        key = (path, facts.st_size, facts.st_mtime_ns)
        if key not in self._sums:
            with path.open("rb") as file:
                digest = hashlib.sha256()
                while block := file.read(1 << 20):
                    digest.update(block)
            self._sums[key] = digest.hexdigest()
        return self._sums[key]

    def ticket(self, path: Path) -> str:
        with self.guard:
            name = str(next(self._numbers))
            self.tickets[name] = path
        return name


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub

    def log_message(self, *_args) -> None:
        """Nobody reads it."""

    def do_POST(self) -> None:
        given = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        hub = self.server
        if self.path == "/_ctl":
            known = {one.name for one in fields(Mood)}
            for name in given.keys() & known:
                setattr(hub.mood, name, given[name])
            return self.json(asdict(hub.mood))
        hub.seen.clear()
        return self.json([])

    def do_HEAD(self) -> None:
        self.route()

    def do_GET(self) -> None:
        self.route()

    def route(self) -> None:
        address = urlsplit(self.path)  # of a proxy the whole address is asked
        path, query = unquote(address.path), parse_qs(address.query)
        if path == "/_log":
            return self.json([asdict(one) for one in self.server.seen])
        if match := re.fullmatch("/_cdn/([0-9a-f]{64})", path):
            return self.cdn(match[1], query.get("ticket", [""])[0])
        if match := re.fullmatch("/([^/]+/[^/]+)/resolve/main/(.+)", path):
            return self.resolve(match[1], match[2])
        if match := re.fullmatch("/api/models/([^/]+/[^/]+)/tree/main", path):
            return self.tree(match[1], int(query.get("cursor", ["0"])[0]))
        return self.json({"error": "not found"}, 404)

    # -- answers -----------------------------------------------------------------------------

    def reply(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        sent = 0 if self.command == "HEAD" else len(body)
        self.note(status, sent)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if sent:
            self.wfile.write(body)

    def json(self, value: object, status: int = 200, headers: dict | None = None) -> None:
        headers = {"Content-Type": "application/json", **(headers or {})}
        self.reply(status, headers, json.dumps(value).encode())

    def note(self, status: int, sent: int) -> Seen:
        headers = self.headers
        host, token = headers.get("Host", ""), "Authorization" in headers
        one = Seen(self.command, self.path, host, headers.get("Range"), token, status, sent)
        self.server.seen.append(one)
        return one

    def refused(self, repo: str) -> bool:
        mood, given = self.server.mood, self.headers.get("Authorization")
        if mood.status and self.server.take("status_times"):
            self.json({"error": "trouble"}, mood.status, mood.headers)
        elif given and given != f"Bearer {GOOD_TOKEN}":
            self.json({"error": "Invalid credentials in Authorization header"}, 401)
        elif repo in mood.gated and not given:
            self.json({"error": "restricted"}, 401, {"X-Error-Code": "GatedRepo"})
        elif not (self.server.root / repo).is_dir():
            self.json({"error": "no"}, 404 if given else 401, {"X-Error-Code": "RepoNotFound"})
        else:
            return False
        return True

    def tree(self, repo: str, first: int) -> None:
        if self.refused(repo):
            return
        hub, rows = self.server, []
        for path in hub.files(repo):
            size, name = path.stat().st_size, path.relative_to(hub.root / repo).as_posix()
            row = {"type": "file", "path": name, "size": size, "oid": git_sha1(path)}
            if size >= hub.mood.lfs_min:
                row["lfs"] = {"oid": hub.sha256(path), "size": size, "pointerSize": 135}
            rows.append(row)
        rows += [{"type": "file", "path": name, "size": 6} for name in hub.mood.evil]
        rows.append({"type": "directory", "path": "folder", "size": 0})
        last, headers = first + hub.mood.page, {}
        if last < len(rows):
            address = f"http://{self.headers['Host']}/api/models/{repo}/tree/main?cursor={last}"
            headers["Link"] = f'<{address}>; rel="next"'
        self.json(rows[first:last], headers=headers)

    def resolve(self, repo: str, name: str) -> None:
        if repo not in self.server.mood.moved and self.refused(repo):
            return None
        hub = self.server
        if new := hub.mood.moved.get(repo):
            there = {"Location": f"/{new}/resolve/main/{name}", "Content-Length": "9"}
            return self.reply(307, there, b"elsewhere")
        path = hub.file(repo, name)
        if path is None:
            return self.json({"error": "no"}, 404, {"X-Error-Code": "EntryNotFound"})
        sha256, size = hub.sha256(path), path.stat().st_size
        headers = {"X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if size < hub.mood.lfs_min:
            return self.file(path, hub.mood.etag or git_sha1(path), headers)
        if hub.mood.linked:
            headers |= {"X-Linked-Size": str(size), "X-Linked-ETag": f'"{sha256}"'}
        if not hub.mood.redirect:
            return self.file(path, hub.mood.etag or sha256, headers)
        link = f"http://{self.other_host()}/_cdn/{sha256}?ticket={hub.ticket(path)}"
        return self.reply(302, {**headers, "Location": link, "ETag": f'"{sha256}"'})

    def other_host(self) -> str:
        """The name of the CDN, for a client that called us by another one."""
        host, _, port = self.headers["Host"].partition(":")
        return f"cdn.{host}" if not port else f"{'localhost' if host[0] == '1' else host}:{port}"

    def cdn(self, sha256: str, ticket: str) -> None:
        hub = self.server
        path = hub.tickets.pop(ticket, None) if hub.mood.one_use else hub.tickets.get(ticket)
        if path is None or hub.take("cdn_refusals"):
            return self.reply(403, {}, b"<Error>Request has expired</Error>")
        return self.file(path, f"{sha256[:16]}-3", {})  # its own ETag, as stores have

    def file(self, path: Path, etag: str, headers: dict[str, str]) -> None:
        size, status = path.stat().st_size - self.server.mood.short_by, 200
        start = self.start_of_range(etag)
        headers = {**headers, "ETag": f'"{etag}"', "Content-Type": "application/octet-stream"}
        if start is not None:
            if start >= size:
                return self.reply(416, {**headers, "Content-Range": f"bytes */{size}"})
            status = 206
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        start = start or 0
        seen = self.note(status, 0)  # before the client knows: it may look at once
        self.send_response(status)
        mood = self.server.mood
        if mood.tell_length or self.command == "HEAD":
            headers["Content-Length"] = str(size - start)
        if mood.coding and self.command == "GET":
            headers["Content-Encoding"] = mood.coding
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = self.close_connection or not mood.tell_length
        if self.command == "GET":
            self.pump(path, start, size, seen)
        return None

    def start_of_range(self, etag: str) -> int | None:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        same = (self.headers.get("If-Range") or etag).strip('"') == etag
        return int(match[1]) if match and same and self.server.mood.ranges else None

    def pump(self, path: Path, start: int, end: int, seen: Seen) -> None:
        """Send a file from `start` to `end`, as the mood is."""
        hub, at = self.server, start
        with path.open("rb") as file:
            file.seek(start)
            while at < end:
                mood = hub.mood
                if at == mood.stall_at and hub.take("stall_times"):
                    hub.ending.wait(60)
                if at == mood.drop_at and hub.take("drop_times"):
                    self.close_connection = True
                    return self.connection.shutdown(socket.SHUT_RDWR)
                stops = [s for s in (end, mood.drop_at, mood.stall_at) if s and s > at]
                most = max(1, min(1 << 16, int(mood.rate / 20) or 1 << 16))
                block = file.read(min(most, min(stops) - at))
                if mood.corrupt_at is not None and at <= mood.corrupt_at < at + len(block):
                    odd = mood.corrupt_at - at
                    block = block[:odd] + bytes([block[odd] ^ 255]) + block[odd + 1 :]
                seen.sent += len(block)
                self.wfile.write(block)
                at += len(block)
                if mood.rate:
                    time.sleep(len(block) / mood.rate)
        return None


def git_sha1(path: Path) -> str:
    """The name that git gives to a file."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def main() -> None:
    """Serve a folder until the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--port", type=int, default=0)
    asked = parser.parse_args()
    hub = FakeHub(asked.root, asked.port)
    print("PORT", hub.server_address[1], flush=True)
    hub.serve_forever()


if __name__ == "__main__":
    main()
