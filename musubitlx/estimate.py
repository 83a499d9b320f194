"""Steps and buckets of a run, exactly as Musubi will count them: arithmetic only.

Source of the rules: Musubi Tuner 0.3.4, dataset/bucket.py and the training loop, measured.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

from musubitlx.settings import Settings

SIDE_PX = 16  # bucket sides are multiples of it


def area_of(resolution: str) -> tuple[int, int]:
    """Width and height in pixels of a resolution setting such as `1024x1024`."""
    width, height = resolution.split("x")
    return int(width), int(height)


@lru_cache(maxsize=64)
def buckets(width: int, height: int) -> tuple[tuple[int, int], ...]:
    """Every bucket (width, height in px) Musubi makes for an area of width x height."""
    area = width * height
    side = math.isqrt(area)
    first = side // 2 // SIDE_PX * SIDE_PX
    found = set()
    for w in range(first, side + SIDE_PX, SIDE_PX):
        h = area // w // SIDE_PX * SIDE_PX
        found |= {(w, h), (h, w)}
    return tuple(sorted(found))


def bucket_of(size: tuple[int, int], area: tuple[int, int]) -> tuple[int, int]:
    """The bucket whose aspect ratio is nearest to an image of `size`; all in px."""
    aspect = size[0] / size[1]
    return min(buckets(*area), key=lambda bucket: abs(bucket[0] / bucket[1] - aspect))


def steps(settings: Settings, sizes: Iterable[tuple[int, int]]) -> dict:
    """Count a run over images of these sizes (px): steps_per_epoch, steps, looks_per_image."""
    area = area_of(settings["resolution"])
    counts = Counter(bucket_of(size, area) for size in sizes)
    repeats, batch = settings["image_repeats"], settings["batch_size"]
    per_epoch = sum(math.ceil(count * repeats / batch) for count in counts.values())
    return {
        "steps_per_epoch": per_epoch,
        "steps": per_epoch * settings["epochs"],
        "looks_per_image": repeats * settings["epochs"],
    }
