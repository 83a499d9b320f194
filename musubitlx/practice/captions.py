"""Captions as vectors: what the text encoder is to Qwen-Image."""

from __future__ import annotations

import re
import zlib

import numpy as np

SIZE = 256
PIECE_WEIGHT = 0.3  # three letters count less than the word they are from


def embed(text: str) -> np.ndarray:
    """Turn a text into a vector of length 1; a text without words is the zero vector.

    Each word and each run of three letters adds to one place, found by its
    checksum: texts that share words lie near each other, in any language.
    """
    vector = np.zeros(SIZE, np.float32)
    for word in re.findall(r"\w+", text.lower()):
        _add(vector, word, 1.0)
        for start in range(len(word)):
            _add(vector, "..." + f"^{word}$"[start : start + 3], PIECE_WEIGHT)
    length = float(np.linalg.norm(vector))
    return vector / length if length else vector


def _add(vector: np.ndarray, token: str, weight: float) -> None:
    number = zlib.crc32(token.encode("utf-8", "surrogatepass"))
    vector[number % SIZE] += weight if number >> 31 else -weight
