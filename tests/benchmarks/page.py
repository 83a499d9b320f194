"""The page over the wire, and a folder of 1000 images as the server lists it."""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from ground import Bench, Row, judge, median
from support import picture

KB = 1024
LINK = re.compile(
    r"""(?:src|href)="([^"#][^"]*)"|(?:from|import)\s*\(?["']([^"']+)["']|url\(["']?([^"')]+)"""
)
ON_DEMAND = re.compile(r"""\bimport\(["']([^"']+)["']\)""")
AT_ONCE = "recipes.js"  # imported late, and by every page that opens
FETCHED = (".css", ".js", ".svg", ".png", ".ico", ".webp", ".woff2")


def rows(bench: Bench) -> Iterator[Row]:
    """Weight of the page, then the thousand images."""
    with bench.program() as program:
        yield weight(program.record["port"])
        fill(program.home / "output" / "thousand", 1000)
        yield thousand(program.record["port"])


def weight(port: int) -> Row:
    """Bytes of `/` and everything that opening it fetches, heads included; and of all the rest."""
    found, foreign, broken = crawl(port)
    everything, more_foreign, more_broken = crawl(port, on_demand=True)
    foreign, broken = {*foreign, *more_foreign}, {*broken, *more_broken}
    total = sum(found.values()) / KB
    later = sum(everything.values()) / KB - total
    measured = f"{total:.0f} KB in {len(found)} files (on demand: {later:.0f} KB more)"
    if foreign:
        measured += f", {len(foreign)} from outside"
    if broken:
        measured += f", not there: {', '.join(sorted(broken))}"
    return Row(
        "page over the wire, compressed, heads included",
        measured,
        "100 KB, nothing from outside",
        "",
        judge(total < 100 and not foreign, not broken),
        {"bytes": found, "on_demand": later, "foreign": [*foreign], "broken": [*broken]},
    )


def crawl(port: int, *, on_demand: bool = False) -> tuple[dict[str, int], list[str], list[str]]:
    """(bytes of each file, addresses elsewhere, files that are not there), beginning at `/`.

    What a module imports when it is used only is left out unless `on_demand`.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    found, foreign, broken, waiting = {}, [], [], ["/"]
    while waiting:
        path = waiting.pop()
        status, size, text = fetch(connection, path)
        if status != 200:
            broken.append(path)
            continue
        found[path] = size
        for target in references(path, text, on_demand):
            parts = urlsplit(target)
            if parts.netloc:
                foreign.append(target)
            elif Path(parts.path).suffix in FETCHED and not {target, parts.path} & seen(
                found, waiting
            ):
                waiting.append(target)
    return found, foreign, broken


def seen(found: dict, waiting: list) -> set[str]:
    """Addresses known already, with and without their version tag: modules import without."""
    known = {*found, *waiting}
    return known | {urlsplit(path).path for path in known if path.endswith(".js")}


def references(path: str, text: str, on_demand: bool) -> Iterator[str]:
    """The addresses a page, style sheet or module refers to."""
    later = {target for target in ON_DEMAND.findall(text) if not target.endswith(AT_ONCE)}
    for match in LINK.finditer(text):
        target = next(part for part in match.groups() if part)
        if target in later and not on_demand:
            continue
        if not target.startswith(("data:", "mailto:")) and "${" not in target:
            yield urljoin(path, target)


def fetch(connection, path: str) -> tuple[int, int, str]:
    """Status, bytes on the wire, and text of one answer."""
    import gzip

    connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
    answer = connection.getresponse()
    body = answer.read()
    head = sum(len(name) + len(value) + 4 for name, value in answer.getheaders()) + 17
    plain = gzip.decompress(body) if answer.getheader("Content-Encoding") == "gzip" else body
    return answer.status, len(body) + head, plain.decode("utf-8", "replace")


def fill(folder: Path, count: int) -> None:
    """Put small pictures with captions into a folder, as if they had been there for long."""
    folder.mkdir(parents=True)
    kinds = [picture(seed, (256, 256)) for seed in range(10)]
    for number in range(count):
        (folder / f"image {number}.jpg").write_bytes(kinds[number % 10])
        (folder / f"image {number}.txt").write_text(f"a red ball, number {number}")


def thousand(port: int) -> Row:
    """The list of a thousand images, first and after that."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    times = []
    for _ in range(6):
        begun = time.monotonic()
        status, size, text = fetch(connection, "/api/projects/thousand?trigger_word=ohwx")
        times.append(1000 * (time.monotonic() - begun))
    right = status == 200 and text.count('"final_text"') == 1000
    return Row(
        "1000 images: the list of them, first and later",
        f"{times[0]:.0f} ms, {median(times[1:]):.0f} ms ({size / KB:.0f} KB)",
        "part of 1 s",
        "",
        judge(times[0] <= 1000, right),
        {"ms": times},
    )
