"""The dataset file: which keys Musubi takes, of which type, and how it refuses others."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

import toml

from musubitlx.practice.bars import logger

log = logger("dataset.config_utils")


class MultipleInvalid(Exception):
    """The dataset file has a key or a type that is not allowed; reads as Musubi's own does."""


MultipleInvalid.__module__ = "voluptuous.error"  # what people see, and what diagnosis looks for


@dataclass(frozen=True)
class Dataset:
    """One `[[datasets]]` entry with what `[general]` adds to it; the defaults are Musubi's."""

    resolution: tuple[int, int] = (960, 544)
    caption_extension: str | None = None
    batch_size: int = 1
    num_repeats: int = 1
    enable_bucket: bool = False
    bucket_no_upscale: bool = False
    image_directory: str | None = None
    image_jsonl_file: str | None = None
    cache_directory: str | None = None
    control_directory: str | None = None
    multiple_target: bool = False
    fp_latent_window_size: int = 9
    fp_1f_clean_indices: list[int] | None = None
    fp_1f_target_index: int | None = None
    fp_1f_no_post: bool = False
    no_resize_control: bool = False
    control_resolution: tuple[int, int] | None = None

    def describe(self) -> str:
        """The lines the log shows of it."""
        extension = f'"{self.caption_extension}"' if self.caption_extension else "None"
        rows = [
            "is_image_dataset: True",
            f"resolution: {self.resolution}",
            f"batch_size: {self.batch_size}",
            f"num_repeats: {self.num_repeats}",
            f"caption_extension: {extension}",
            f"enable_bucket: {self.enable_bucket}",
            f"bucket_no_upscale: {self.bucket_no_upscale}",
            f'cache_directory: "{self.cache_directory}"',
            "debug_dataset: False",
            f'  image_directory: "{self.image_directory}"',
            f'  image_jsonl_file: "{self.image_jsonl_file}"',
            f'  control_directory: "{self.control_directory}"',
            f"  multiple_target: {self.multiple_target}",
            f"  fp_latent_window_size: {self.fp_latent_window_size}",
            f"  fp_1f_clean_indices: {self.fp_1f_clean_indices}",
            f"  fp_1f_target_index: {self.fp_1f_target_index}",
            f"  fp_1f_no_post: {self.fp_1f_no_post}",
            f"  no_resize_control: {self.no_resize_control}",
            f"  control_resolution: {self.control_resolution}",
        ]
        return "\n".join(f"  {row}" for row in rows) + "\n\n"


PAIR = "one number or two"
GENERAL_TYPES = {
    "caption_extension": str,
    "batch_size": int,
    "num_repeats": int,
    "resolution": PAIR,
    "enable_bucket": bool,
    "bucket_no_upscale": bool,
}
DATASET_TYPES = {
    **GENERAL_TYPES,
    "image_directory": str,
    "image_jsonl_file": str,
    "cache_directory": str,
    "control_directory": str,
    "multiple_target": bool,
    "fp_latent_window_size": int,
    "fp_1f_clean_indices": list,
    "fp_1f_target_index": int,
    "fp_1f_no_post": bool,
    "no_resize_control": bool,
    "control_resolution": PAIR,
}
ALIASES = {
    "qwen_image_edit_no_resize_control": "no_resize_control",
    "qwen_image_edit_control_resolution": "control_resolution",
}


def load_config(path: str | None) -> list[Dataset]:
    """Read a dataset file (.toml or .json, UTF-8 without byte order mark).

    Raises what Musubi raises: ValueError for a missing file, another extension
    or two datasets with one cache, TomlDecodeError or UnicodeDecodeError for what
    can't be read, MultipleInvalid for keys and types, AssertionError when there
    is no dataset in it.
    """
    content = _read(path)
    problems = list(_problems(content))
    if problems:
        log.error("Invalid user config / ユーザ設定の形式が正しくないようです")
        raise MultipleInvalid(problems[0])
    general = content.get("general", {})
    datasets = [_make({**general, **entry}) for entry in content.get("datasets", [])]
    caches = [dataset.cache_directory for dataset in datasets]
    if len(set(caches)) < len(caches):
        raise ValueError(
            "cache directory should be unique for each dataset (note that cache directory is"
            " image/video directory if not specified)"
        )
    assert datasets, "datasets should not be an empty iterable"
    return datasets


def _read(path: str | None) -> dict:
    if path is None or not Path(path).is_file():
        raise ValueError(f"file not found / ファイルが見つかりません: {path}")
    reader = {".toml": toml.loads, ".json": json.loads}.get(Path(path).suffix.lower())
    if reader is None:
        raise ValueError(f"not supported config file format / 対応していない形式です: {path}")
    return reader(Path(path).read_text(encoding="utf-8"))


def _problems(content: dict):
    """Yield each thing that is not allowed, in the words of Musubi's checker."""
    for key in content:
        if key not in ("general", "datasets"):
            yield f"extra keys not allowed @ data['{key}']"
    yield from _table_problems(content.get("general", {}), GENERAL_TYPES, "data['general']")
    entries = content.get("datasets", [])
    if not isinstance(entries, list):
        yield "expected a list for dictionary value @ data['datasets']"
        return
    for index, entry in enumerate(entries):
        types = {**DATASET_TYPES, **{alias: DATASET_TYPES[name] for alias, name in ALIASES.items()}}
        yield from _table_problems(entry, types, f"data['datasets'][{index}]")


def _table_problems(table: dict, types: dict, place: str):
    if not isinstance(table, dict):
        yield f"expected a dictionary for dictionary value @ {place}"
        return
    for key, value in table.items():
        if key not in types:
            yield f"extra keys not allowed @ {place}['{key}']"
        elif types[key] is PAIR:
            if not isinstance(value, int) and not _two_numbers(value):
                yield f"expected int for dictionary value @ {place}['{key}']"
        elif not isinstance(value, types[key]):
            yield f"expected {types[key].__name__} for dictionary value @ {place}['{key}']"


def _two_numbers(value) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(v, int) for v in value)


def _make(values: dict) -> Dataset:
    """Make a dataset of checked values; ValueError or AssertionError where parts are missing."""
    values = {ALIASES.get(key, key): value for key, value in values.items()}
    for key in ("resolution", "control_resolution"):
        if key in values:
            given = values[key]
            values[key] = (given, given) if isinstance(given, int) else tuple(given)
    if not {"image_directory", "image_jsonl_file"} & values.keys():
        raise ValueError("Unsupported architecture: qi")  # it would be a video dataset
    values.setdefault("cache_directory", values.get("image_directory"))
    assert values["cache_directory"] is not None, (
        "cache_directory is required / cache_directoryは必須です"
    )
    known = {field.name for field in fields(Dataset)}
    return Dataset(**{key: value for key, value in values.items() if key in known})
