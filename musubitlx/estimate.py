"""Steps of a run, exactly as Musubi will count them: arithmetic only.

Source of the rules: Musubi Tuner 0.3.4, dataset/bucket.py and the training loop, measured.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from musubitlx.buckets import area_of, bucket_of
from musubitlx.settings import Settings


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
