"""Safetensors files as the practice trainer needs them: NumPy arrays, and bfloat16 on disk.

NumPy has no bfloat16 and the safetensors package no stable way to write it
without torch, so the format (8 bytes of length, a JSON header, the data) is
written and read here. Format: huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import numpy as np

PRECISIONS = {"float": "F32", "fp32": "F32", "fp16": "F16", "bf16": "BF16"}  # --save_precision
MAX_HEADER_BYTES = 100_000_000  # the limit the safetensors package has


def save(
    path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str], dtype: str = "F32"
) -> None:
    """Write `arrays` as one safetensors file, every number as `dtype` (F32, F16 or BF16)."""
    Path(path).write_bytes(serialize(arrays, metadata, dtype))


def serialize(arrays: dict[str, np.ndarray], metadata: dict[str, str], dtype: str) -> bytes:
    """Return the bytes of a safetensors file."""
    header: dict = {"__metadata__": metadata} if metadata else {}
    blocks, end = [], 0
    for name in sorted(arrays):
        block = _encode(arrays[name], dtype)
        place = [end, end + len(block)]
        header[name] = {"dtype": dtype, "shape": list(arrays[name].shape), "data_offsets": place}
        blocks.append(block)
        end += len(block)
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data starts at a multiple of eight
    return b"".join([struct.pack("<Q", len(text)), text, *blocks])


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays of a file as float32, and its metadata.

    Raises FileNotFoundError, or ValueError when it is no whole safetensors file
    of F32, F16 or BF16 numbers.
    """
    data = Path(path).read_bytes()
    try:
        length = struct.unpack("<Q", data[:8])[0]
        if length > MAX_HEADER_BYTES:
            raise ValueError("header too long")
        header = json.loads(data[8 : 8 + length])
        metadata = header.pop("__metadata__", {})
        body = memoryview(data)[8 + length :]
        return {name: _decode(body, row) for name, row in header.items()}, metadata
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a readable safetensors file: {path} ({error})") from error


def hashes(arrays: dict[str, np.ndarray], dtype: str) -> dict[str, str]:
    """Return the two checksums LoRA files carry, taken over the file without metadata."""
    data = serialize(arrays, {}, dtype)
    return {
        "sshs_model_hash": hashlib.sha256(data[8 + struct.unpack("<Q", data[:8])[0] :]).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8],
    }


def _encode(array: np.ndarray, dtype: str) -> bytes:
    if dtype == "F16":
        limit = np.finfo(np.float16).max
        return np.clip(array, -limit, limit).astype("<f2").tobytes()
    numbers = np.ascontiguousarray(array, "<f4")
    if dtype == "F32":
        return numbers.tobytes()
    bits = numbers.view("<u4").reshape(-1)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)  # to nearest, ties to even
    return (rounded >> 16).astype("<u2").tobytes()


def _decode(body: memoryview, row: dict) -> np.ndarray:
    start, end = row["data_offsets"]
    block = body[start:end]
    if row["dtype"] == "BF16":
        bits = np.frombuffer(block, "<u2").astype("<u4") << 16
        return bits.view("<f4").reshape(row["shape"])
    kind = {"F32": "<f4", "F16": "<f2"}[row["dtype"]]
    return np.frombuffer(block, kind).astype(np.float32).reshape(row["shape"])
