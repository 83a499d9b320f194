"""The header of a safetensors file: enough to tell whether the file is whole, in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path

MAX_HEADER_BYTES = 100_000_000  # the format's own limit


class Broken(Exception):
    """The file is no whole safetensors file; the text says why in a few words."""


def read_header(path: Path) -> dict:
    """Return the header: tensor name -> dtype, shape, data_offsets, and `__metadata__`.

    Raises Broken when the file is missing, cut short, too long or something
    else altogether. The tensors themselves are not read.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
                raise Broken("it is cut short or no safetensors file")
            header = json.loads(file.read(length))
        ends = [row["data_offsets"][1] for name, row in header.items() if name != "__metadata__"]
    except FileNotFoundError:
        raise Broken("it is not there") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise Broken("its header can't be read") from error
    if size != 8 + length + max(ends, default=0):
        raise Broken(f"it has {size} bytes instead of {8 + length + max(ends, default=0)}")
    return header
