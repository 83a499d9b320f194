"""Whether a safetensors file is whole, and what is in it: from its header, in milliseconds."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
AGAIN = "Delete it and download it again."


@dataclass(frozen=True)
class Problem:
    """Why a file can't be used: a sentence, and what to do. `whole`: nothing of it is missing."""

    text: str
    hint: str
    whole: bool = False


@dataclass(frozen=True)
class Tensor:
    """One row of a header: type as written there (BF16, F8_E4M3...) and shape."""

    dtype: str
    shape: tuple[int, ...]


Tensors = dict[str, Tensor]


def read_header(path: Path) -> tuple[Problem | None, Tensors]:
    """Return what is wrong with one file, and its tensors by name when nothing is."""
    try:
        facts = path.stat()
        if not path.is_file():
            raise FileNotFoundError
        return header_of(str(path), facts.st_size, facts.st_mtime_ns)
    except (FileNotFoundError, NotADirectoryError):
        hint = "Give the path where it is now, or leave the path empty to have it looked for."
        return Problem(f"{path} is not there.", hint), {}
    except OSError as error:
        reason = error.strerror or str(error)
        return Problem(f"{path} can't be read: {reason}.", "Check its access rights."), {}


@lru_cache(maxsize=64)
def header_of(path: str, size: int, mtime_ns: int) -> tuple[Problem | None, Tensors]:
    """read_header, remembered as long as the file does not change."""
    name = Path(path).name
    if size == 0:
        return Problem(f"{name} is empty.", AGAIN), {}
    with Path(path).open("rb") as file:
        first = file.read(512)
        length = struct.unpack("<Q", first[:8])[0] if len(first) >= 8 else None
        if problem := not_safetensors(name, size, first, length):
            return problem, {}
        if 8 + length > size:
            return cut_short(name, size, None), {}
        file.seek(8)
        raw = file.read(length)
    return judge_header(name, size, length, raw)


def not_safetensors(name: str, size: int, first: bytes, length: int | None) -> Problem | None:
    """Tell what a file is when its first bytes are not those of a safetensors file."""
    plain = length is not None and length <= MAX_HEADER_BYTES and first[8:9] in (b"{", b"")
    if plain:
        return None
    text = first.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for start, what, hint in LOOK_ALIKES:
        if text.startswith(start):
            return Problem(f"{name} is {what}, not a model file.", hint)
    return Problem(f"{name} is not a safetensors file.", f"{AGAIN} It has {size:,} bytes.")


LOOK_ALIKES = (
    (b"<", "a web page (perhaps an error page)", f"{AGAIN} Take the link of the file itself."),
    (b"version https://git-lfs", "a pointer of Git LFS", "Run git lfs pull, or download it."),
    (b"gguf", "a GGUF file", "Musubi Tuner reads safetensors only: get the bf16 file."),
    (b"pk\x03\x04", "a PyTorch or zip file", "Musubi Tuner reads safetensors only: get that one."),
    (b"\x80", "a Python pickle", "Musubi Tuner reads safetensors only: get that one."),
    (b"{", "a text file", f"{AGAIN} The server may have sent a message in place of it."),
    (b"access to", "a text file", "The server refused it: accept its terms there, or log in."),
    (b"invalid", "a text file", "The server refused it: check the link and your access."),
)


def judge_header(name: str, size: int, length: int, raw: bytes):
    """Compare a header with the length of its file; return problem and tensors."""
    try:
        rows = {key: row for key, row in json.loads(raw).items() if key != "__metadata__"}
        end = max((row["data_offsets"][1] for row in rows.values()), default=0)
        tensors = {key: Tensor(row["dtype"], tuple(row["shape"])) for key, row in rows.items()}
        whole = 8 + length + int(end)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
        return Problem(f"The header of {name} is damaged.", AGAIN), {}
    if not tensors:
        return Problem(f"{name} holds no weights.", AGAIN), {}
    if size < whole:
        return cut_short(name, size, whole), {}
    if size > whole:
        text = f"{name} is longer than it should be: {size:,} bytes, should be {whole:,}."
        return Problem(text, AGAIN), {}
    return None, tensors


def cut_short(name: str, size: int, whole: int | None) -> Problem:
    """What to say of a file whose end is missing."""
    of = f" of {whole:,}" if whole else ""
    return Problem(
        f"{name} is cut short: it has {size:,}{of} bytes.",
        f"The download or copy was broken off, or is still under way. If not: {AGAIN.lower()}",
    )
