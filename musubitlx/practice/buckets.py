"""Musubi's bucket arithmetic: to which size an image is brought, and which share a batch."""

from __future__ import annotations

import math
from functools import lru_cache

STEP = 16  # pixels; both sides of a bucket are multiples of it


@lru_cache(maxsize=64)
def bucket_sizes(resolution: tuple[int, int]) -> list[tuple[int, int]]:
    """Return all buckets (width, height) of an area, sorted.

    ZeroDivisionError for areas below 32 x 32, as in Musubi.
    """
    area = resolution[0] * resolution[1]
    side = int(math.sqrt(area))
    sizes = set()
    for width in range(_floor(side // 2), side + STEP, STEP):
        height = _floor(area // width)
        sizes |= {(width, height), (height, width)}
    return sorted(sizes)


def choose_bucket(size: tuple[int, int], dataset) -> tuple[int, int]:
    """Return the bucket of an image of that size under a dataset's settings.

    Without buckets it is the resolution itself; with `bucket_no_upscale` a small
    image keeps its own size, floored to STEP (below 16 pixels: 0).
    """
    if not dataset.enable_bucket:
        return dataset.resolution
    width, height = size
    area = dataset.resolution[0] * dataset.resolution[1]
    if dataset.bucket_no_upscale and width * height <= area:
        return _floor(width), _floor(height)
    aspect = width / height
    return min(
        bucket_sizes(dataset.resolution), key=lambda bucket: abs(bucket[0] / bucket[1] - aspect)
    )


def crop_box(size: tuple[int, int], bucket: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the part of an image, in its pixels, that fills the bucket: the middle."""
    scale = max(bucket[0] / size[0], bucket[1] / size[1])
    width, height = bucket[0] / scale, bucket[1] / scale
    left, top = (size[0] - width) / 2, (size[1] - height) / 2
    return max(0.0, left), max(0.0, top), min(size[0], left + width), min(size[1], top + height)


def _floor(pixels: int) -> int:
    return pixels - pixels % STEP
