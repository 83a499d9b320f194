"""Where things lie. Every path made from a name a person typed is built here and nowhere else."""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from musubitlx.errors import Invalid, NotFound

PACKAGE_ROOT = Path(__file__).resolve().parent.parent  # the folder that holds webgui.py

BINARY = getattr(os, "O_BINARY", 0)  # Windows would translate line ends
MAX_COMPONENT_BYTES = 255  # of any name, in every usual file system
RESERVE_BYTES = 200_000_000  # of the disk that what comes in leaves free, for a run under way
MAX_NAME_BYTES = 120  # room for Musubi's suffixes within the 255 bytes file systems allow
WINDOWS_DEVICES = re.compile(
    r"(?i)(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?"
)
CONTROL = ("Cc", "Cs", "Co", "Cn")  # Unicode categories of what is no sign at all
FORBIDDEN = set('/\\:*?"<>|[]')  # separators, what Windows reserves, what Musubi's glob trips over


def is_storable(text: str) -> bool:
    """Tell whether `text` can be written as UTF-8: JSON and file names may hold half characters."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def name_problem(name: str) -> str | None:
    """Say in a few words why `name` can't be one component of a path, or None if it can."""
    if not isinstance(name, str) or not name.strip():
        return "it is empty"
    if bad := next((c for c in name if c in FORBIDDEN), None):
        return f"it contains {bad}"
    if any(unicodedata.category(c) in CONTROL or c == "\ufffd" for c in name):
        return "it contains a control character"
    if name != name.strip() or name.endswith("."):
        return "it begins or ends with a space or a dot"
    if name.startswith("."):
        return "it begins with a dot"
    if WINDOWS_DEVICES.fullmatch(name):
        return "it is a device name on Windows"
    if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        return f"it is longer than {MAX_NAME_BYTES} bytes"
    return None


def checked_name(name: str, *, field: str, what: str) -> str:
    """Return `name` if it is safe as one component of a path, raise Invalid otherwise."""
    if problem := name_problem(name):
        raise Invalid(
            f"{what}: this name can't be used, {problem}.",
            field=field,
            hint="Use letters, digits, spaces, - and _.",
        )
    return name


def child(root: Path, name: str) -> Path:
    """Return `root/name`; NotFound if `name` is hidden, or leads elsewhere than into `root`.

    Meant for what is there: a name that people gave a file by hand may hold
    what is refused in new ones. Links are followed, what lies outside after
    resolving is not there.
    """
    if not is_component(name) or (os.name == "nt" and name_problem(name)):
        raise NotFound("There is nothing by that name.")
    path = root / name
    try:
        inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # links that lead to one another
        inside = False
    if not inside:
        raise NotFound("There is nothing by that name.")
    return path


def is_component(name: object) -> bool:
    """Whether a file in a folder can have this name, hidden ones aside."""
    if not isinstance(name, str) or not name or name.startswith(".") or not is_storable(name):
        return False
    odd = any(c in "/\\" or unicodedata.category(c) == "Cc" for c in name)
    return not odd and len(name.encode()) <= MAX_COMPONENT_BYTES


def natural_key(name: str) -> list:
    """Sort key for names, the way people count: 2 before 10; case decides last."""
    parts = re.split(r"(\d+)", name.casefold())
    numbered = [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]
    return [*numbered, (-1, 0, name)]


class Home:
    """The home folder: output folders, job records, configurations, model files."""

    def __init__(self, root: Path | str = PACKAGE_ROOT):
        self.root = Path(root).expanduser().resolve()
        self.output = self.root / "output"
        self.configs = self.root / "configs"
        self.models = self.root / "models"
        self.jobs = self.output / ".jobs"
        self.server_record = self.jobs / "server.json"
        self.token_file = self.jobs / "token"

    def make(self) -> Home:
        """Create the folders that must be there; returns itself."""
        self.jobs.mkdir(parents=True, exist_ok=True)
        self.configs.mkdir(exist_ok=True)
        return self

    def project(self, name: str) -> Path:
        """The output folder of that name, existing or not; Invalid if the name is unusable."""
        return self.output / checked_name(name, field="output_dir", what="Output folder")


# -- files that are replaced, never half written --------------------------------------------------


@contextmanager
def replacing(path: Path, *, durable: bool = True, mode: int = 0o666):
    """Yield a binary file that takes the place of `path` when the block ends well.

    Written beside, flushed to the disk, then renamed: a reader sees the old
    content or the new, a failure leaves the old one and nothing else. What can
    be made again needs no `durable` wait for the disk. `mode` is what the umask
    leaves of the access rights.
    """
    beside = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, mode)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the file at `path` in one step; OSError if it can't be written."""
    with replacing(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Replace the file at `path` in one step, as UTF-8 without BOM and with the line ends given."""
    write_bytes(path, text.encode("utf-8"))


def write_secret(path: Path, text: str) -> None:
    """Like `write_text`, readable by nobody but the owner."""
    with replacing(path, mode=0o600) as file:
        file.write(text.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """Replace the file at `path` in one step by `value` as JSON."""
    write_bytes(path, json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8"))


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex; read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class Stamp(NamedTuple):
    """What changes when a file is replaced or written anew, by whatever means: `cp -p` and
    archives set the times they like, but `changed` (on Windows the time it was made) and `inode`
    are the system's own. Times in ns."""

    inode: int
    changed: int
    modified: int
    bytes: int


def stamp_of(path: Path) -> Stamp | None:
    """The stamp of a file; None when it is not there."""
    try:
        info = path.stat()
    except OSError:
        return None
    return Stamp(info.st_ino, info.st_ctime_ns, info.st_mtime_ns, info.st_size)


def read_json(path: Path) -> dict | None:
    """Return the JSON object in `path`, or None when it is missing, cut short or no object.

    NaN and infinities, which JSON does not have, become None.
    """
    try:
        value = json.loads(path.read_bytes(), parse_constant=lambda _: None)
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
