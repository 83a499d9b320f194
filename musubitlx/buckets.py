"""Buckets: the size an image is trained at, and what of it is cut off. Arithmetic only.

Source of the rules: Musubi Tuner 0.3.4, dataset/bucket.py and dataset/media_utils.py;
`tests/real/` compares them with the real functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

SIDE_PX = 16  # bucket sides are multiples of it

Size = tuple[int, int]  # width, height in px


def area_of(resolution: str) -> Size:
    """Width and height in pixels of a resolution setting such as `1024x1024`."""
    width, height = resolution.split("x")
    return int(width), int(height)


@lru_cache(maxsize=64)
def buckets(width: int, height: int) -> tuple[Size, ...]:
    """Every bucket (width, height in px) Musubi makes for an area of width x height."""
    area = width * height
    side = math.isqrt(area)
    first = side // 2 // SIDE_PX * SIDE_PX
    found = set()
    for w in range(first, side + SIDE_PX, SIDE_PX):
        h = area // w // SIDE_PX * SIDE_PX
        found |= {(w, h), (h, w)}
    return tuple(sorted(found))


@lru_cache(maxsize=4096)
def bucket_of(size: Size, area: Size) -> Size:
    """The bucket whose aspect ratio is nearest to an image of `size`; all in px."""
    aspect = size[0] / size[1]
    return min(buckets(*area), key=lambda bucket: abs(bucket[0] / bucket[1] - aspect))


@dataclass(frozen=True)
class Crop:
    """What a bucket makes of an image.

    `scale` above 1 means that the image is enlarged. The edges are those of the
    part that is kept, as fractions of the image's width or height.
    """

    scale: float
    left: float
    top: float
    right: float
    bottom: float

    @property
    def lost(self) -> float:
        """The share of the image's area that is cut off, 0 to 1."""
        return 1 - (self.right - self.left) * (self.bottom - self.top)


@lru_cache(maxsize=4096)
def crop_of(size: Size, bucket: Size) -> Crop:
    """How an image of `size` is brought into its bucket: scaled to cover it, cut at the middle."""
    scale = max(bucket[0] / size[0], bucket[1] / size[1])
    width, height = (int(side * scale + 0.5) for side in size)
    left, top = (width - bucket[0]) // 2, (height - bucket[1]) // 2
    return Crop(
        scale,
        left / width,
        top / height,
        (left + bucket[0]) / width,
        (top + bucket[1]) / height,
    )
