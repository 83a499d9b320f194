"""How many images go through a model at once."""

from __future__ import annotations

from dataclasses import dataclass

GB = 1e9


@dataclass(frozen=True)
class Need:
    """What one image more takes: `fixed` bytes, and `per_beam` for each way that is followed.

    `on_cpu` images at once are the most that pays on a processor, `at_most` on a card.
    """

    fixed: float
    per_beam: float
    on_cpu: int
    at_most: int


# Measured on processors: from 4 images on more is hardly faster, see tests/benchmarks. The bytes
# are reckoned from the shapes: cache of keys and values, scores of the words, pixels.
NEEDS = {
    "vit-gpt2": Need(0.05 * GB, 0.03 * GB, on_cpu=4, at_most=16),
    "blip-large": Need(0.1 * GB, 0.03 * GB, on_cpu=4, at_most=16),
    "qwen-vl": Need(1.5 * GB, 0.1 * GB, on_cpu=1, at_most=8),
}
RESERVE = 1.0 * GB  # of the card's memory that stays free
DENSE = (4, 53)  # transformers: in older ones each image of a batch looks at all of them,
DENSE_AT_MOST = 2  # in a table that grows with the square of their number
ON_METAL = 2  # images: its memory is everybody's, and nothing tells how much is free


def size(
    model: str, device: str, beams: int, free: float | None, transformers: tuple[int, ...]
) -> int:
    """How many images at once: at least one. `free` is in bytes, None where nobody knows."""
    need = NEEDS[model]
    if device == "cpu":
        return need.on_cpu
    if device == "mps" or free is None:
        return min(ON_METAL, need.at_most)
    fits = int((free - RESERVE) / (need.fixed + need.per_beam * beams))
    dense = model == "qwen-vl" and transformers < DENSE
    return max(1, min(fits, DENSE_AT_MOST if dense else need.at_most))


def halved(tried: int) -> int:
    """How many to try after `tried` (2 or more) took more memory than there is."""
    return max(1, tried // 2)
