"""Pictures as vectors of frequencies: what a VAE is to Qwen-Image.

A picture becomes one brightness plane and two colour planes, each turned into
cosine frequencies (DCT-II, orthonormal, so white noise stays white noise and
squared errors mean the same as in pixels). Brightness keeps 64 x 64 of them,
colour 32 x 32, as JPEG does. A picture of any shape fits into the one vector:
what it has no frequencies for is left out by `mask`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

SIDE = 64  # pixels of the longer side
SHORTEST = 8  # pixels; very wide pictures are made no flatter
PLANES = (64, 32, 32)  # frequencies per direction: brightness, red-blue, green-purple
SIZE = sum(side * side for side in PLANES)
COLOURS = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]], np.float32)
COLOURS /= np.linalg.norm(COLOURS, axis=1, keepdims=True)

CHANNEL = np.repeat(np.arange(3), [side * side for side in PLANES])
ROW = np.concatenate([np.repeat(np.arange(side), side) for side in PLANES])
COLUMN = np.concatenate([np.tile(np.arange(side), side) for side in PLANES])


def practice_size(width: int, height: int) -> tuple[int, int]:
    """Return width and height with the same aspect and SIDE pixels on the longer side."""
    scale = SIDE / max(width, height)
    return max(SHORTEST, round(width * scale)), max(SHORTEST, round(height * scale))


def encode(picture: np.ndarray) -> np.ndarray:
    """Turn a picture (height, width, 3; -1 to 1; sides at most 64) into a vector of SIZE."""
    height, width, _ = picture.shape
    vector = np.zeros(SIZE, np.float32)
    for plane, colour, side in zip(_planes(vector), COLOURS, PLANES, strict=True):
        frequencies = _cosines(height) @ (picture @ colour) @ _cosines(width).T
        rows, columns = min(height, side), min(width, side)
        plane[:rows, :columns] = frequencies[:rows, :columns]
    return vector


def decode(vector: np.ndarray, width: int, height: int) -> np.ndarray:
    """Turn a vector of SIZE into a picture of the size it was made for (not clipped)."""
    planes = []
    for plane, side in zip(_planes(vector), PLANES, strict=True):
        rows, columns = min(height, side), min(width, side)
        part = plane[:rows, :columns]
        planes.append(_cosines(height)[:rows].T @ part @ _cosines(width)[:columns])
    return np.stack(planes, axis=-1) @ COLOURS


@lru_cache(maxsize=256)
def mask(width: int, height: int) -> np.ndarray:
    """Return 1 for each frequency a picture of that size has, else 0."""
    return ((height > ROW) & (width > COLUMN)).astype(np.float32)


def _planes(vector: np.ndarray) -> list[np.ndarray]:
    """The three planes as views into the vector."""
    ends = np.cumsum([side * side for side in PLANES])[:-1]
    parts = np.split(vector, ends)
    return [part.reshape(side, side) for part, side in zip(parts, PLANES, strict=True)]


@lru_cache(maxsize=64)
def _cosines(length: int) -> np.ndarray:
    """The orthonormal DCT-II matrix for that many pixels."""
    wave, pixel = np.arange(length)[:, None], np.arange(length)[None]
    matrix = np.sqrt(2 / length) * np.cos(np.pi * wave * (2 * pixel + 1) / (2 * length))
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)
