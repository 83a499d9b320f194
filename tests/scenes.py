"""Drawn scenes that pass for photos: edges, gradients and grain, each seed another one."""

from __future__ import annotations

import io
import random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


def scene(seed: int, size: tuple[int, int] = (1024, 768)) -> Image.Image:
    """A picture of flat shapes before a gradient, with a little grain, sharp."""
    rng = random.Random(seed)
    width, height = size
    image = Image.new("RGB", size)
    draw = ImageDraw.Draw(image)
    sky, ground = ([rng.randrange(256) for _ in range(3)] for _ in range(2))
    for y in range(height):
        share = y / height
        colour = (int(a * (1 - share) + b * share) for a, b in zip(sky, ground, strict=True))
        draw.line([(0, y), (width, y)], fill=tuple(colour))
    for _ in range(rng.randint(4, 12)):
        _shape(rng, draw, width, height)
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(0.7))).astype(float)
    grain = np.random.default_rng(seed).normal(0, 4, (height, width, 1))
    return Image.fromarray((soft + grain).clip(0, 255).astype("uint8"))


def _shape(rng: random.Random, draw: ImageDraw.ImageDraw, width: int, height: int) -> None:
    x, y, reach = rng.randrange(width), rng.randrange(height), rng.randint(width // 25, width // 3)
    colour = tuple(rng.randrange(256) for _ in range(3))
    box = (x - reach / 2, y - reach / 3, x + reach / 2, y + reach / 3)
    kind = rng.choice("erp")
    if kind == "e":
        draw.ellipse(box, fill=colour)
    elif kind == "r":
        draw.rectangle(box, fill=colour)
    else:
        corners = [(x, y - reach / 2), (x - reach / 2, y + reach / 2), (x + reach / 2, y)]
        draw.polygon(corners, fill=colour)


def jpeg(image: Image.Image, quality: int = 92) -> bytes:
    """The picture as a JPEG file."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()
