"""What the practice scripts print: log lines, the notice at the start, progress bars."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

NOTICE = (
    "practice run: MusubiTLX's own small trainer, not Musubi Tuner. It shows how everything"
    " works and looks at about 64 pixels; its LoRA is not for Qwen-Image."
)

Item = TypeVar("Item")


def start_output() -> None:
    """Set up both streams as Musubi's are (UTF-8, flushed line by line) and print the notice."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="replace", line_buffering=True)
    logging.basicConfig(level=logging.INFO)
    print(NOTICE)


def logger(module: str) -> logging.Logger:
    """The logger of one of Musubi's modules: its lines read `INFO:musubi_tuner.<module>:…`."""
    return logging.getLogger(f"musubi_tuner.{module}")


def counted(batches: Iterable[Item]) -> Iterator[Item]:
    """Go through batches under the bar of the caching stages, which knows no total."""
    return iter(tqdm(batches, total=None))


def steps_bar(total: int) -> tqdm:
    """The bar of the training: `steps:  25%|…| 2/8 […, avr_loss=0.12]`."""
    return tqdm(total=total, smoothing=0, desc="steps")


def denoising(values: list) -> Iterator:
    """Go through the steps of one sample under its own bar, below the training's."""
    return iter(tqdm(values, desc="Denoising steps"))
