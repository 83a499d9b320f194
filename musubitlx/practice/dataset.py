"""The images and captions of a dataset, found and read by Musubi's rules."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from musubitlx.practice import buckets, codec
from musubitlx.practice.bars import logger
from musubitlx.practice.config import Dataset, load_config

log = logger("dataset.datasources")
config_log = logger("dataset.config_utils")

EXTENSIONS = [".png", ".jpg", ".jpeg", ".webp", ".bmp", ".avif"]
EXTENSIONS += [extension.upper() for extension in EXTENSIONS]  # `.Jpg` is missed, as in Musubi


@dataclass(frozen=True)
class Source:
    """One image with where its caption is."""

    image_path: str
    caption: str | None = None  # from a JSONL file
    caption_path: str | None = None  # beside the image

    @property
    def stem(self) -> str:
        """The part of the name that caches have too."""
        return Path(self.image_path).stem

    def read_caption(self) -> str:
        """Return the caption; UnicodeDecodeError when the file is not UTF-8."""
        if self.caption is not None:
            return self.caption
        return Path(self.caption_path).read_text(encoding="utf-8").strip()


def open_datasets(path: str | None) -> list[tuple[Dataset, list[Source]]]:
    """Read the dataset file and list its images, with the log lines Musubi prints for it."""
    found = [(dataset, find_sources(dataset)) for dataset in load_config(path)]
    for index, (dataset, _) in enumerate(found):
        config_log.info("[Dataset %d]\n%s", index, dataset.describe())
        if dataset.control_directory or dataset.multiple_target:
            config_log.info("practice run: control images and layers are not looked at")
    return found


def find_sources(dataset: Dataset) -> list[Source]:
    """List a dataset's images in Musubi's order; one without a caption is left out."""
    if dataset.image_jsonl_file is not None:
        return _from_jsonl(dataset.image_jsonl_file)
    log.info("glob images in %s", dataset.image_directory)
    sources = []
    for path in sorted(_images(dataset.image_directory)):
        if dataset.caption_extension is None:
            raise FileNotFoundError(2, "No such file or directory", "")
        caption = Path(path).with_suffix(dataset.caption_extension)
        if caption.is_file():
            sources.append(Source(path, caption_path=str(caption)))
    log.info("found %d images", len(sources))
    return sources


def read_picture(path: str, dataset: Dataset) -> tuple[tuple[int, int], np.ndarray]:
    """Return an image's own size and its picture at practice size (height, width, 3; -1 to 1).

    Cut to its bucket as Musubi cuts it: EXIF rotation is not applied, alpha is
    dropped without blending. Raises what Pillow raises for unreadable files.
    """
    with Image.open(path) as image:
        size = image.size
        bucket = buckets.choose_bucket(size, dataset)
        if min(bucket) < 1:
            raise ValueError(f"the bucket of {path} would be {bucket[0]}x{bucket[1]} pixels")
        image.draft("RGB", (4 * codec.SIDE, 4 * codec.SIDE))  # a large JPEG: decode less of it
        box = buckets.crop_box(image.size, bucket)
        small = image.convert("RGB").resize(
            codec.practice_size(*bucket), Image.Resampling.LANCZOS, box
        )
    return size, np.asarray(small, np.float32) / 127.5 - 1


def _images(directory: str) -> list[str]:
    folder = Path(directory)
    if not folder.is_dir():
        return []
    return [str(path) for path in folder.iterdir() if path.suffix in EXTENSIONS]


def _from_jsonl(path: str) -> list[Source]:
    log.info("load image jsonl from %s", path)
    sources = []
    with Path(path).open(encoding="utf-8") as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                log.error("failed to load json: %s @ %s", line, path)
                raise
            image = row.get("image_path", row.get("image_path_0"))
            sources.append(Source(image, caption=row["caption"]))
    log.info("loaded %d images", len(sources))
    return sources
