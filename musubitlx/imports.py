"""Pictures that lie in a folder on the server already: looking at them, and copying them in."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from musubitlx import yamls
from musubitlx.errors import Invalid, NotFound
from musubitlx.home import (
    BINARY,
    RESERVE_BYTES,
    Home,
    is_component,
    is_storable,
    name_problem,
    natural_key,
)
from musubitlx.pictures import MAX_FILE_BYTES, MAX_TEXT_BYTES, NAMED

MB = 1_000_000
BLOCK = 1 << 20  # bytes read and written at a time
KERNEL_BLOCK = 1 << 26  # bytes the kernel copies at a time
MAX_LISTED = 20_000  # entries of a folder that are looked at
MAX_COUNTED = 1_000  # entries of a folder below it
MAX_COUNTED_IN_ALL = 100_000  # entries of all folders below it
KINDS = {**dict.fromkeys(NAMED, "image"), ".txt": "caption", ".zip": "archive"}  # by suffix

# Nothing outside is revealed: what is forbidden and what is missing sound alike.
NO_FOLDER = "There is no such folder to import from."
NO_FILE = "it is not there, or leads out of the folders images may be imported from"
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)  # or become a link
MEND_ROOTS = "Write it as `roots: [/data/pictures, ~/photos]`."

# Where a folder can be opened, and its entries from there, no link can slip in on the way.
WALKS = os.open in os.supports_dir_fd and hasattr(os, "O_DIRECTORY") and hasattr(os, "O_NOFOLLOW")
NOFOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
FOLDER = getattr(os, "O_DIRECTORY", 0) | NOFOLLOW
STEP = FOLDER | getattr(os, "O_PATH", os.O_RDONLY)  # going through needs no right to list
READ = os.O_RDONLY | NOFOLLOW | BINARY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY | getattr(os, "O_CLOEXEC", 0)


@dataclass(frozen=True)
class Root:
    """A folder below which images may be imported; `path` with its links resolved.

    With a `problem`, a sentence, nothing can be imported from it. The home
    folder's own `import` may be missing without that being one.
    """

    path: str
    name: str
    exists: bool
    problem: str | None


class Imports:
    """The folders on the server that images may be imported from.

    `<home>/import`, what `configs/imports.yaml` names (relative paths: from the
    home folder), and `extra_roots` (relative: from the working folder). The
    file is read each time, so that a change counts at once.
    """

    def __init__(self, home: Home, extra_roots: Iterable[str | Path] = ()):
        self.home = home
        self._extra = [Path.cwd() / os.path.expanduser(root) for root in extra_roots]  # noqa: PTH111

    # -- roots -------------------------------------------------------------------------------

    def roots(self) -> list[dict]:
        """Every root as {path, name, exists, problem}; what is wrong with the file is one too."""
        return [asdict(root) for root in self._roots()]

    def _roots(self) -> list[Root]:
        """Every root once, whoever named it."""
        named, trouble = self._configured()
        own = self._root(str(self.home.root / "import"), may_be_missing=True)
        found = {own.path: own}
        for root in [*map(self._root, named), *map(self._root, map(str, self._extra))]:
            found.setdefault(root.path, root)
        return [*found.values(), *trouble]

    def _configured(self) -> tuple[list, list[Root]]:
        """What the file lists, unchecked, and a Root that tells what is wrong with the file."""
        file = self.home.configs / "imports.yaml"
        try:
            return _roots_in(file), []
        except Invalid as error:
            return [], [Root(str(file), file.name, True, f"{error} {error.hint or ''}".strip())]

    def _root(self, typed: object, *, may_be_missing: bool = False) -> Root:
        """A root as somebody wrote it, checked."""
        if not isinstance(typed, str) or not typed.strip() or not _is_clean(typed):
            told = repr(typed)[:100]
            return Root(told, told, False, "This is no path: write it in quotation marks.")
        typed = os.path.expanduser(typed.strip())  # noqa: PTH111 - one who is not there is no error
        place = _resolved(self.home.root / typed)
        exists = os.path.exists(place)  # noqa: PTH110
        problem = self._problem(place) if exists or not may_be_missing else None
        return Root(place, Path(typed).name or Path(place).name or place, exists, problem)

    def _problem(self, place: str) -> str | None:
        """Why nothing can be imported from a folder, in a sentence."""
        if Path(place).parent == Path(place):
            return "A whole disk can't be opened for imports: name a folder on it."
        if self._is_own(place):
            return "MusubiTLX keeps its own records there: name another folder."
        if not os.path.exists(place):  # noqa: PTH110
            return "This folder is not there."
        if not Path(place).is_dir():
            return "This is a file: name the folder it is in."
        if not os.access(place, os.R_OK | os.X_OK):
            return "This folder can't be read: its access rights forbid it."
        return None

    def _is_own(self, place: str) -> bool:
        """Whether a place is where the token, job records and settings are."""
        return _is_in(place, [_resolved(self.home.jobs), _resolved(self.home.configs)])

    def _open_roots(self) -> list[Root]:
        return [root for root in self._roots() if root.exists and not root.problem]

    def _allows(self, place: str, roots: list[Root]) -> bool:
        """Whether a file or folder, links resolved, may be read."""
        return _is_in(place, [root.path for root in roots]) and not self._is_own(place)

    def _shows(self, place: str, roots: list[Root]) -> bool:
        """Whether a folder may be looked into: none of those hidden below a root."""
        ways = [_way(root.path, place) for root in roots]
        seen = any(way is not None and not any(p.startswith(".") for p in way) for way in ways)
        return seen and not self._is_own(place)

    def _folder(self, path: object, roots: list[Root]) -> str:
        """A folder somebody asked for, links resolved; NotFound unless it may be shown."""
        if isinstance(path, str) and _is_clean(path) and os.path.isabs(path):  # noqa: PTH117
            place = _resolved(path)
            if self._shows(place, roots):
                return place
        raise NotFound(NO_FOLDER)

    # -- looking -----------------------------------------------------------------------------

    def browse(self, path: str | None) -> dict:
        """What is in a folder: {path, parent, folders, files, images, captions, bytes, cut}.

        `path` is absolute and lies in a root once links are resolved, and so is
        the one answered; None gives the roots as folders. `parent` is None where
        there is nothing above that may be seen. `folders`: [{name, path, images,
        more}], `more` when not all in it was counted. `files`: [{name, bytes,
        kind}], kind image, caption or archive. `captions` counts those with an
        image of their name. `cut`: there are more than `MAX_LISTED` entries.
        Hidden and unreadable things, and links that lead out, are not there.
        NotFound for a folder that is not there or not in a root; Invalid for one
        whose access rights forbid it.
        """
        roots = self._open_roots()
        if path is None:
            return self._overview(roots)
        place = self._folder(path, roots)
        with _folder_errors(), _opened(place) as folder, folder.entries() as entries:
            looked_at = list(islice(entries, MAX_LISTED + 1))
            folders, files = self._sorted_out(place, looked_at[:MAX_LISTED], roots)
        above = str(Path(place).parent)
        return {
            "path": place,
            "parent": above if self._shows(above, roots) else None,
            "folders": _counted(folders),
            **_summed_up(files),
            "cut": len(looked_at) > MAX_LISTED,
        }

    def _overview(self, roots: list[Root]) -> dict:
        folders = [(root.name, root.path, root.path) for root in roots]
        nothing = {"path": None, "parent": None, "cut": False}
        return {**nothing, "folders": _counted(folders), **_summed_up([])}

    def _sorted_out(
        self, place: str, entries: list[os.DirEntry], roots: list[Root]
    ) -> tuple[list[tuple[str, str, str]], list[tuple[str, int]]]:
        """Folders as (name, path, path with links resolved), files as (name, bytes)."""
        folders, files = [], []
        for entry in entries:
            if not is_component(entry.name):
                continue
            path = str(Path(place) / entry.name)
            with suppress(OSError):  # gone while we look, or a link to nothing
                target, info = self._seen(entry, path, roots)
                if stat.S_ISDIR(info.st_mode) and self._shows(target, roots):
                    folders.append((entry.name, path, target))
                elif stat.S_ISREG(info.st_mode) and _kind(entry.name):
                    files.append((entry.name, info.st_size))
        return folders, files

    def _seen(self, entry: os.DirEntry, path: str, roots: list[Root]) -> tuple[str, os.stat_result]:
        """Where an entry leads and what is there; OSError if that is out of reach."""
        if WALKS and not entry.is_symlink():
            return path, entry.stat(follow_symlinks=False)
        target = _resolved(path)
        if not self._allows(target, roots):
            raise FileNotFoundError(target)
        return target, Path(target).stat()

    # -- copying -----------------------------------------------------------------------------

    def copy(
        self, path: str, names: list[str], fresh: Callable[[], Path]
    ) -> tuple[list[tuple[Path, str]], list[dict]]:
        """Copy files of a folder to paths got from `fresh()`: [(path, name)] and [{name, reason}].

        The copies are files of their own, sharing the disk's blocks where it can
        do that. Each file is checked anew; one that is too big (archives may have
        any size), can't be read, or leads out of the roots gets a reason and the
        others go on. NotFound as in `browse`; Invalid if `names` is no list of
        texts. When the disk has no room, everything this call copied is removed
        and the OSError goes on.
        """
        names = _checked_names(names)
        roots = self._open_roots()
        place = self._folder(path, roots)
        with _folder_errors(), _opened(place):
            pass
        copied: list[tuple[Path, str]] = []
        rejected = []
        try:
            for name in names:
                try:
                    with self._source(place, name, roots) as source:
                        copied.append((_copied(source, fresh()), name))
                except Invalid as error:
                    rejected.append({"name": name, "reason": str(error)})
        except BaseException:
            for copy, _ in copied:
                copy.unlink(missing_ok=True)
            raise
        return copied, rejected

    @contextmanager
    def _source(self, place: str, name: str, roots: list[Root]) -> Iterator[int]:
        """Open a file to be copied; Invalid with the reason unless it may and can be."""
        if not is_component(name) or (os.name == "nt" and name_problem(name)):
            raise Invalid(NO_FILE)
        if _kind(name) is None:
            raise Invalid("it is neither an image nor a caption nor a .zip")
        target = _resolved(Path(place) / name)
        if not self._allows(target, roots):
            raise Invalid(NO_FILE)
        handle = _open_file(target)
        try:
            _check_size(name, os.fstat(handle).st_size)
            yield handle
        finally:
            os.close(handle)


def _roots_in(file: Path) -> list:
    """What a configuration file names as roots, unchecked; Invalid if it makes no sense."""
    try:
        given = yamls.read(file)
    except FileNotFoundError:
        return []
    except yamls.Unreadable as why:
        raise Invalid(f"{file.name} can't be used: {why}.", hint=MEND_ROOTS) from why
    roots = given.get("roots", given) if isinstance(given, dict) else given
    if roots is not None and (given is roots or not isinstance(roots, list)):
        raise Invalid(f"{file.name} holds no list of roots.", hint=MEND_ROOTS)
    return roots or []


# -- places ----------------------------------------------------------------------------------------


def _is_clean(path: str) -> bool:
    """Whether a text can be a path at all."""
    return "\0" not in path and is_storable(path)


def _resolved(path: str | Path) -> str:
    """A path without links and dots; what can't be followed stays as it is."""
    return os.path.realpath(path)


def _way(root: str, place: str) -> tuple[str, ...] | None:
    """The steps from a root down to a place, both resolved; None if it lies elsewhere."""
    try:
        return Path(place).relative_to(root).parts
    except ValueError:
        return None


def _is_in(place: str, roots: list[str]) -> bool:
    """Whether a resolved place is one of the roots, or below one."""
    return any(_way(root, place) is not None for root in roots)


def _kind(name: str) -> str | None:
    """What a file is by its suffix; None for what is not offered."""
    return KINDS.get(Path(name).suffix.lower())


class _Folder:
    """A folder whose entries are reached by its descriptor, on Windows by its path."""

    def __init__(self, place: str, handle: int | None):
        self._place, self._handle = place, handle

    def _at(self, name: str) -> dict:
        if self._handle is None:
            return {"path": str(Path(self._place) / name)}
        return {"path": name, "dir_fd": self._handle}

    def stat(self, name: str) -> os.stat_result:
        """What an entry is itself, should it be a link."""
        return os.stat(**self._at(name), follow_symlinks=False)

    def open(self, name: str) -> int:
        """A descriptor to read an entry by; OSError if it is a link. A pipe does not block."""
        return os.open(**self._at(name), flags=READ)

    @contextmanager
    def entries(self) -> Iterator[Iterator[os.DirEntry]]:
        """The entries, to be looked at within the block."""
        if self._handle is None:
            with os.scandir(self._place) as entries:
                yield entries
            return
        handle = os.open(".", os.O_RDONLY | FOLDER, dir_fd=self._handle)
        try:
            with os.scandir(handle) as entries:
                yield entries
        finally:
            os.close(handle)


@contextmanager
def _opened(place: str) -> Iterator[_Folder]:
    """Go to a resolved folder step by step, following no link: it is the one that was checked.

    OSError if it is not there, or something on the way has become a link. On
    Windows, which knows no such steps, the path is looked at and then taken.
    """
    if not WALKS:
        if _resolved(place) != place or not Path(place).is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), place)
        yield _Folder(place, None)
        return
    anchor, *steps = Path(place).parts
    handle = os.open(anchor, STEP)
    try:
        for step in steps:
            below = os.open(step, STEP, dir_fd=handle)
            os.close(handle)
            handle = below
        yield _Folder(place, handle)
    finally:
        os.close(handle)


@contextmanager
def _folder_errors() -> Iterator[None]:
    """Say what the system says of a folder in a root."""
    try:
        yield
    except OSError as error:
        if error.errno in GONE:
            raise NotFound(NO_FOLDER) from error
        raise Invalid(f"This folder can't be read: {error.strerror}.") from error


# -- listing ---------------------------------------------------------------------------------------


def _counted(folders: list[tuple[str, str, str]]) -> list[dict]:
    """Folders in the order people count, each with how many images are directly in it."""
    told, left = [], MAX_COUNTED_IN_ALL
    for name, path, target in sorted(folders, key=lambda folder: natural_key(folder[0])):
        limit = min(left, MAX_COUNTED)
        names = _names_in(target, limit + 1) if limit else []
        left -= len(names)
        images = sum(is_component(one) and _kind(one) == "image" for one in names[:limit])
        more = not limit or len(names) > limit
        told.append({"name": name, "path": path, "images": images, "more": more})
    return told


def _names_in(place: str, limit: int) -> list[str]:
    """At most so many names of what is in a folder; none if it can't be read."""
    with suppress(OSError), _opened(place) as folder, folder.entries() as entries:
        return [entry.name for entry in islice(entries, limit)]
    return []


def _summed_up(files: list[tuple[str, int]]) -> dict:
    """Files in the order people count, and what they come to."""
    told = [
        {"name": name, "bytes": size, "kind": _kind(name)}
        for name, size in sorted(files, key=lambda file: natural_key(file[0]))
    ]
    stems = {kind: [] for kind in KINDS.values()}
    for file in told:
        stems[file["kind"]].append(Path(file["name"]).stem.casefold())
    return {
        "files": told,
        "images": len(stems["image"]),
        "captions": len(set(stems["caption"]) & set(stems["image"])),
        "bytes": sum(file["bytes"] for file in told),
    }


# -- one file --------------------------------------------------------------------------------------


def _checked_names(names: object) -> list[str]:
    """The names asked for, each once; Invalid if they are none."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Invalid("The files to import must be a list of names.", field="names")
    if len(names) > MAX_LISTED:
        raise Invalid(f"At most {MAX_LISTED} files are imported at a time.", field="names")
    return list(dict.fromkeys(names))


def _open_file(target: str) -> int:
    """Open an ordinary file at a resolved path; Invalid with the reason if it can't be.

    What is no ordinary file is not even opened. Should it be exchanged on the
    way, what was opened is looked at again.
    """
    try:
        with _opened(str(Path(target).parent)) as folder:
            _check_ordinary(folder.stat(Path(target).name))
            handle = folder.open(Path(target).name)
    except OSError as error:
        if error.errno in GONE:
            raise Invalid(NO_FILE) from error
        raise Invalid(f"it can't be read: {error.strerror}") from error
    try:
        _check_ordinary(os.fstat(handle))
        _check_same(handle, target)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _check_ordinary(info: os.stat_result) -> None:
    if stat.S_ISLNK(info.st_mode):  # one that came since, or leads in a circle
        raise Invalid(NO_FILE)
    if not stat.S_ISREG(info.st_mode):
        raise Invalid("it is no ordinary file")


def _check_same(handle: int, target: str) -> None:
    """Invalid if a path that could not be gone step by step leads elsewhere than when checked."""
    if WALKS:
        return
    try:
        same = os.path.samestat(os.fstat(handle), Path(target).lstat())
    except OSError:
        same = False
    if not same or _resolved(target) != target:
        raise Invalid(NO_FILE)


def _check_size(name: str, size: int) -> None:
    """Invalid for what is too big to be what its name says."""
    kind = _kind(name)
    if kind == "caption" and size > MAX_TEXT_BYTES:
        raise Invalid("it is too long for a caption")
    if kind == "image" and size > MAX_FILE_BYTES:
        raise Invalid(f"it is bigger than {MAX_FILE_BYTES // MB} MB")


def _copied(source: int, path: Path) -> Path:
    """Copy an open file to a path that must be free, and return that; on failure nothing is left.

    Invalid when the source can't be read or changes meanwhile, OSError when the
    disk has no room.
    """
    before = os.fstat(source)
    if shutil.disk_usage(path.parent).free < before.st_size + RESERVE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    target = os.open(path, WRITE, 0o666)
    try:
        try:
            _pour(source, target, before.st_size)
        finally:
            os.close(target)
        after = os.fstat(source)
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise Invalid("it is still being written: try again when it is whole")
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _pour(source: int, target: int, size: int) -> None:
    """Copy `size` bytes, the kernel doing what it can; Invalid if they are not to be had."""
    left = size - _poured_by_kernel(source, target, size)
    while left > 0:
        try:
            block = os.read(source, min(left, BLOCK))
        except OSError as error:
            raise Invalid(f"it can't be read: {error.strerror}") from error
        if not block:
            raise Invalid("it is shorter than it says: try again when it is whole")
        left -= len(block)
        while block:
            block = block[os.write(target, block) :]


def _poured_by_kernel(source: int, target: int, size: int) -> int:
    """Copy as much as the kernel can by itself, as a clone where the disk knows them.

    Returns the bytes copied, both descriptors standing behind them. Between some
    file systems that is none; what else was wrong an ordinary copy will say.
    """
    done = 0
    if hasattr(os, "copy_file_range"):
        with suppress(OSError):
            while step := os.copy_file_range(source, target, min(size - done, KERNEL_BLOCK)):
                done += step
    return done
