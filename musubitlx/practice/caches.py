"""The cache files between the three scripts: names, contents, and which old ones go."""

from __future__ import annotations

import argparse
import glob
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from musubitlx.practice import buckets, captions, codec, tensors
from musubitlx.practice.bars import logger
from musubitlx.practice.config import Dataset

log = logger("dataset.image_video_dataset")

FORMAT_VERSION = "1.0.1"
MARK = {"musubitlx_practice": "made by the practice trainer, not for Qwen-Image"}
ARCHITECTURES = {  # --model_version -> the code in cache names
    "original": "qi",
    "edit": "qie",
    "edit-2509": "qie",
    "edit-2511": "qie",
    "layered": "qil",
}


@dataclass(frozen=True)
class Item:
    """One picture to train on: its vectors, and how large it is."""

    bucket: tuple[int, int]  # pixels of the real thing
    size: tuple[int, int]  # pixels here
    picture: np.ndarray  # codec.SIZE
    caption: np.ndarray  # captions.SIZE


def architecture(args: argparse.Namespace) -> str:
    """Return the code in cache names; ValueError for an unknown --model_version."""
    version = args.model_version or ("edit-2509" if args.edit_plus else None)
    version = (version or ("edit" if args.edit else "original")).lower()
    if version not in ARCHITECTURES:
        names = "', '".join(sorted(ARCHITECTURES))
        raise ValueError(f"Invalid model_version: {version}. Must be one of '{names}'.")
    return ARCHITECTURES[version]


def latent_path(dataset: Dataset, stem: str, size: tuple[int, int], arch: str) -> Path:
    """Where the picture of an image of that size (its own, before resizing) is kept."""
    return Path(dataset.cache_directory) / f"{stem}_{size[0]:04d}x{size[1]:04d}_{arch}.safetensors"


def text_path(dataset: Dataset, stem: str, arch: str) -> Path:
    """Where the caption of an image is kept."""
    return Path(dataset.cache_directory) / f"{stem}_{arch}_te.safetensors"


def save_picture(path: Path, size: tuple[int, int], picture: np.ndarray) -> list[int]:
    """Write a picture (height, width, 3) as Musubi writes latents; return the stored shape."""
    height, width, _ = picture.shape
    array = np.ascontiguousarray(picture.transpose(2, 0, 1)[:, None])
    metadata = {**_metadata(), "width": str(size[0]), "height": str(size[1])}
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors.save(path, {f"latents_1x{height}x{width}_float32": array}, metadata)
    return list(array.shape)


def save_caption(path: Path, caption: str) -> None:
    """Write a caption as Musubi writes text encoder outputs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = captions.embed(caption)[None]
    metadata = {**_metadata(), "caption1": caption}
    tensors.save(path, {"varlen_vl_embed_float32": array}, metadata)


def _metadata() -> dict[str, str]:
    return {"architecture": "qwen_image", "format_version": FORMAT_VERSION, **MARK}


def remove_old(dataset: Dataset, ending: str, current: set[Path], keep: bool, module: str) -> None:
    """Delete the caches of images that are no longer there, or only say so with `keep`."""
    for path in _files(dataset, ending):
        if path in current:
            continue
        if keep:
            logger(module).info("Keep cache file not in the dataset: %s", path)
        else:
            path.unlink()
            logger(module).info("Removed old cache file: %s", path)


def load_items(dataset: Dataset, arch: str) -> list[Item]:
    """Read every picture that has both caches, whether its image is still there or not.

    Raises ValueError for caches the real Musubi Tuner made, or damaged ones.
    """
    items = []
    for path in _files(dataset, f"_{arch}.safetensors"):
        stem, size = path.name.rsplit("_", 2)[:2]
        text = text_path(dataset, stem, arch)
        if not text.exists():
            log.warning("Text encoder output cache file not found: %s", text)
            continue
        width, height = map(int, size.split("x"))
        bucket = buckets.choose_bucket((width, height), dataset)
        picture, caption = _load_one(path, 4), _load_one(text, 2)
        shape = (picture.shape[3], picture.shape[2])
        vector = codec.encode(picture[:, 0].transpose(1, 2, 0))
        items.append(Item(bucket, shape, vector, caption[0]))
    return items


def _load_one(path: Path, dimensions: int) -> np.ndarray:
    """The one array of a practice cache."""
    arrays, metadata = tensors.load(path)
    fitting = [array for array in arrays.values() if array.ndim == dimensions]
    if not MARK.keys() <= metadata.keys() or len(fitting) != 1:
        raise ValueError(
            f"{path} was not made by the practice trainer: run both caching stages again"
            " (without --skip_existing)"
        )
    return fitting[0]


def _files(dataset: Dataset, ending: str) -> list[Path]:
    """The caches of a folder. As in Musubi, one with `[`, `*` or `?` in its path has none:
    better found out in a practice run than after hours."""
    names = glob.glob(f"{dataset.cache_directory}/*{ending}")  # noqa: PTH207 (reads the brackets)
    return sorted(Path(name) for name in names)
