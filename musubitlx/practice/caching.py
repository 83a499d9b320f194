"""The two caching scripts: pictures and captions, read once and kept for training."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from musubitlx import options
from musubitlx.practice import bars, buckets, caches
from musubitlx.practice.config import Dataset
from musubitlx.practice.dataset import Source, open_datasets, read_picture

Picture = tuple[Source, tuple[int, int], np.ndarray]  # with the image's own size


def cache_latents() -> None:
    """Run qwen_image_cache_latents.py; errors end it with a traceback and exit code 1."""
    args, log = _start(options.LATENTS)
    if args.vae_dtype is not None:
        raise ValueError("VAE dtype is not supported in Qwen-Image")
    arch = caches.architecture(args)
    datasets = open_datasets(args.dataset_config)
    log.info("Loading VAE model from %s", args.vae)
    log.info("practice run: that file is not needed and was not opened")
    for index, (dataset, sources) in enumerate(datasets):
        bars.logger("cache_latents").info("Encoding dataset [%d]", index)
        written = set()
        for batch in bars.counted(_picture_batches(dataset, sources, _workers(args))):
            for source, size, picture in batch:
                path = caches.latent_path(dataset, source.stem, size, arch)
                written.add(path)
                if not (args.skip_existing and path.exists()):
                    _save_picture(path, source, size, picture)
        ending = f"_{arch}.safetensors"
        caches.remove_old(dataset, ending, written, args.keep_cache, "cache_latents")


def cache_texts() -> None:
    """Run qwen_image_cache_text_encoder_outputs.py; errors end it as above."""
    args, log = _start(options.TEXT_ENCODER)
    arch = caches.architecture(args)
    datasets = open_datasets(args.dataset_config)
    log.info("Loading Qwen2.5-VL: %s", args.text_encoder)
    log.info("practice run: that file is not needed and was not opened")
    log.info("Encoding with Qwen2.5-VL")
    for index, (dataset, sources) in enumerate(datasets):
        bars.logger("cache_text_encoder_outputs").info("Encoding dataset [%d]", index)
        written = set()
        for batch in bars.counted(_chunks(sources, dataset.batch_size)):
            pairs = [(source, caches.text_path(dataset, source.stem, arch)) for source in batch]
            written.update(path for _, path in pairs)
            _save_captions([p for p in pairs if not (args.skip_existing and p[1].exists())])
        ending = f"_{arch}_te.safetensors"
        caches.remove_old(dataset, ending, written, args.keep_cache, "cache_text_encoder_outputs")


def _start(script: str) -> tuple[argparse.Namespace, logging.Logger]:
    bars.start_output()
    args = options.build_parser(script).parse_args()
    log = bars.logger(Path(script).stem)
    log.info("Load dataset config from %s", args.dataset_config)
    return args, log


def _save_picture(path: Path, source: Source, size: tuple[int, int], picture: np.ndarray) -> None:
    shape = caches.save_picture(path, size, picture)
    print(
        f"Saving cache for item {source.image_path} at {path},"
        f" target latents shape: {shape}, control latents shape: None"
    )


def _save_captions(pairs: list[tuple[Source, Path]]) -> None:
    for index, (source, path) in enumerate(pairs):
        caption = source.read_caption()
        caches.save_caption(path, caption)
        print(f"Item {index}: {source.image_path}, prompt: {caption}, control images: None")


def _picture_batches(
    dataset: Dataset, sources: list[Source], workers: int
) -> Iterator[list[Picture]]:
    """Read the images on some threads; yield them in order, a bucket's worth at a time."""
    waiting: dict[tuple[int, int], list[Picture]] = {}
    with ThreadPoolExecutor(workers) as pool:
        read = pool.map(lambda source: read_picture(source.image_path, dataset), sources)
        for source, (size, picture) in zip(sources, read, strict=True):
            bucket = buckets.choose_bucket(size, dataset)
            batch = waiting.setdefault(bucket, [])
            batch.append((source, size, picture))
            if len(batch) >= dataset.batch_size:
                yield waiting.pop(bucket)
    yield from waiting.values()


def _chunks(sources: list[Source], length: int) -> Iterator[list[Source]]:
    for start in range(0, len(sources), max(1, length)):
        yield sources[start : start + max(1, length)]


def _workers(args: argparse.Namespace) -> int:
    return args.num_workers or max(1, (os.cpu_count() or 2) - 1)
