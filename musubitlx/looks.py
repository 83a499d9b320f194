"""What the pixels of an output folder's images say, kept in its `looks.json`.

The inspector (`inspector.py`, a process of its own) looks at each image once per
version of its file; the web process only reads what it found.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise
from pathlib import Path

from musubitlx.home import PACKAGE_ROOT, Stamp, read_json, replacing, stamp_of
from musubitlx.processes import start_detached
from musubitlx.projects import Project

VERSION = 1  # of what is measured; a file of another one counts as missing
BITS, SEGMENTS = 64, 9  # of a perceptual hash: two that differ in 8 bits share a segment
NEAR_BITS = 8  # see `groups`
NEAR_COLOURS = 6.0
MOST_AT_ONCE = 2  # inspectors
FINISH_S = 30.0  # a start waits so long for the looks; then the trainer has to find out
PATIENCE_S = (2.0, 10.0, 60.0)  # before another try when inspectors end without result


@dataclass(frozen=True)
class Look:
    """What one version of a file says.

    `stamp` tells the version; `problem` why its pixels can't be read to the end,
    None if they can. `unfit`: what the trainer would get wrong that only the
    pixels tell. `phash` are 64 bits of the picture's coarse shapes, `colours` 48
    numbers, the mean RGB of 4 x 4 fields at a mean of 128 over all. `blur` is 0 (sharp) to 1,
    None for a picture without contrast. `digest`: SHA-256 of the file, in hex.
    """

    stamp: Stamp
    problem: str | None = None
    unfit: str | None = None
    phash: int | None = None
    colours: tuple[int, ...] = ()
    blur: float | None = None
    digest: str | None = None


def path_of(project: Project) -> Path:
    """Where the looks of a folder are kept."""
    return project.hidden / "looks.json"


_read: dict[Path, tuple[object, dict[str, Look]]] = {}


def read(project: Project) -> dict[str, Look]:
    """What is known of the images by name, fresh or not; parsed once per version of the file."""
    path = path_of(project)
    stamp = stamp_of(path)
    known = _read.get(path)
    if known is None or known[0] != stamp:
        if len(_read) > 16:
            _read.clear()
        known = _read[path] = (stamp, _parsed(read_json(path) or {}))
    return known[1]


def _parsed(data: dict) -> dict[str, Look]:
    rows = data.get("images")
    if data.get("version") != VERSION or not isinstance(rows, dict):
        return {}
    found = {}
    for name, row in rows.items():
        with suppress(TypeError, ValueError, KeyError):
            lists = {key: tuple(map(int, row[key])) for key in ("stamp", "colours")}
            if all(row[key] is None or isinstance(row[key], kind) for key, kind in KINDS.items()):
                found[name] = Look(**{**row, **lists})
    return found


KINDS = {"problem": str, "unfit": str, "phash": int, "blur": float, "digest": str}


def write(project: Project, looks: dict[str, Look]) -> None:
    """Replace what is known; for the inspector alone."""
    import json

    rows = {name: asdict(look) for name, look in looks.items()}
    with replacing(path_of(project), durable=False) as file:
        file.write(json.dumps({"version": VERSION, "images": rows}).encode("utf-8"))


def fresh(project: Project) -> dict[str, Look]:
    """The looks that are of the images as they are now, by name."""
    known = read(project)
    return {path.name: known[path.name] for path in project.image_paths() if _is_fresh(path, known)}


def missing(project: Project) -> list[Path]:
    """The images that have not been looked at in their present version."""
    known = read(project)
    return [path for path in project.image_paths() if not _is_fresh(path, known)]


def _is_fresh(path: Path, known: dict[str, Look]) -> bool:
    return path.name in known and known[path.name].stamp == stamp_of(path)


# -- copies ----------------------------------------------------------------------------------------


def groups(looks: dict[str, Look]) -> tuple[list[list[str]], list[list[str]]]:
    """Names of images that are the same file, and of images that look nearly the same.

    Near are two pictures whose hashes differ in at most 8 of 64 bits and whose
    colours differ by 6 on average at most. Measured on 40 drawn scenes and 16
    photos: all re-encodings at quality 60, halvings and 10 % more light are found
    (up to 8 bits, 2.9), and 52 of 56 crops of 2 %; no two different ones of them
    are taken for near. Two views of one thing from different places are not found.
    What is in an exact group counts once among the near ones.
    """
    by_digest: dict[str, list[str]] = {}
    for name, look in looks.items():
        if look.digest:
            by_digest.setdefault(look.digest, []).append(name)
    exact = [names for names in by_digest.values() if len(names) > 1]
    single = {names[0]: looks[names[0]] for names in by_digest.values()}
    return exact, _connected(_near_pairs(single))


def _near_pairs(looks: dict[str, Look]) -> Iterator[tuple[str, str]]:
    """Pairs that are near. Of nine pieces of a hash such two have one at least in common."""
    edges = [BITS * number // SEGMENTS for number in range(SEGMENTS + 1)]
    for low, high in pairwise(edges):
        shelves: dict[int, list[tuple[int, str]]] = {}
        for name, look in looks.items():
            if look.phash is not None:
                piece = look.phash >> low & (1 << high - low) - 1
                shelves.setdefault(piece, []).append((look.phash, name))
        for shelf in shelves.values():
            for (phash, one), (other_phash, other) in combinations(shelf, 2):
                if (phash ^ other_phash).bit_count() <= NEAR_BITS and _same_colours(
                    looks[one], looks[other]
                ):
                    yield one, other


def _same_colours(one: Look, other: Look) -> bool:
    apart = sum(abs(a - b) for a, b in zip(one.colours, other.colours, strict=False))
    return apart <= NEAR_COLOURS * max(1, len(one.colours))


def _connected(pairs: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Groups of what is linked by pairs, directly or over others; in order of name."""
    group_of: dict[str, set[str]] = {}
    for one, other in pairs:
        group, more = group_of.setdefault(one, {one}), group_of.setdefault(other, {other})
        if group is not more:
            group, more = (group, more) if len(group) > len(more) else (more, group)
            group |= more
            group_of.update(dict.fromkeys(more, group))
    found = {id(names): sorted(names) for names in group_of.values()}
    return sorted(found.values())


# -- the inspectors --------------------------------------------------------------------------------


class Inspections:
    """Starts inspectors for a web server: one for a folder at a time, a few in all."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen] = {}
        self._tries: dict[str, tuple[int, float, frozenset]] = {}  # folder: tries, when, missing
        self._lock = threading.Lock()

    def ask(self, project: Project) -> None:
        """See to it that the images of a folder are looked at. Never fails.

        Reads the folder, so it is work to be offloaded.
        """
        with self._lock, suppress(OSError):
            self._reap()
            if project.name in self._running or len(self._running) >= MOST_AT_ONCE:
                return
            left = frozenset((path.name, stamp_of(path)) for path in missing(project))
            if left and self._may_try(project.name, left):
                self._start(project)

    def finish(self, project: Project, most_s: float = FINISH_S) -> bool:
        """Wait until every image has been looked at; False if that took too long."""
        until = time.monotonic() + most_s
        while missing(project):
            if time.monotonic() > until:
                return False
            self.ask(project)
            time.sleep(0.1)
        return True

    def _reap(self) -> None:
        ended = [name for name, child in self._running.items() if child.poll() is not None]
        for name in ended:
            del self._running[name]

    def _may_try(self, name: str, left: frozenset) -> bool:
        """Whether to start: one that got nowhere with these is not started again at once."""
        if len(self._tries) > 1000:
            self._tries.clear()
        tries, when, before = self._tries.get(name, (0, 0.0, frozenset()))
        tries = tries + 1 if left == before else 0
        if tries and time.monotonic() - when < PATIENCE_S[min(tries, len(PATIENCE_S)) - 1]:
            return False
        self._tries[name] = (tries, time.monotonic(), left)
        return True

    def _start(self, project: Project) -> None:
        argv = [sys.executable, "-m", "musubitlx.inspector", str(project.home.root), project.name]
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        log = str(project.home.jobs / "inspector.log")
        self._running[project.name] = start_detached(argv, cwd=str(PACKAGE_ROOT), env=env, log=log)
