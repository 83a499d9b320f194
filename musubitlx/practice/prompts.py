"""Sample prompts: Musubi's prompt file, its flags and its defaults."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import toml

NUMBER, DECIMAL, TEXT = r"\d+", r"[\d\.]+", r".+"
# flag -> (key in a TOML or JSON file, what is read of the value, how)
FLAGS = {
    "w": ("width", NUMBER, int),
    "h": ("height", NUMBER, int),
    "f": ("frame_count", NUMBER, int),
    "d": ("seed", NUMBER, int),
    "s": ("sample_steps", NUMBER, lambda value: max(1, min(1000, int(value)))),
    "g": ("guidance_scale", DECIMAL, float),
    "fs": ("discrete_flow_shift", DECIMAL, float),
    "l": ("cfg_scale", DECIMAL, float),
    "n": ("negative_prompt", TEXT, str),
    "i": ("image_path", TEXT, str.strip),
    "ei": ("end_image_path", TEXT, str.strip),
    "cn": ("control_video_path", TEXT, str.strip),
    "ci": ("control_image_path", TEXT, str.strip),  # may be said several times
    "of": ("one_frame", TEXT, str.strip),
}


@dataclass(frozen=True)
class Prompt:
    """One picture to be sampled; the defaults are Musubi's for Qwen-Image."""

    index: int
    prompt: str = ""
    width: int = 256  # pixels
    height: int = 256
    sample_steps: int = 20
    seed: int | None = None  # None: another one each time
    cfg_scale: float = 4.0
    negative_prompt: str = " "
    discrete_flow_shift: float = 14.5
    guidance_scale: float = 1.0
    frame_count: int = 1


def load_prompts(path: str) -> list[Prompt]:
    """Read a prompt file (.txt, .toml or .json, UTF-8).

    Raises FileNotFoundError, UnicodeDecodeError, or ValueError for another extension
    or content that can't be read.
    """
    text = _read(path)
    if path.endswith(".txt"):
        rows = [line.strip() for line in text.split("\n") if line.strip() and line[0] != "#"]
    elif path.endswith(".toml"):
        table = toml.loads(text)["prompt"]
        shared = {key: value for key, value in table.items() if key != "subset"}
        rows = [{**shared, **subset} for subset in table["subset"]]
    else:
        rows = json.loads(text)
    return [make_prompt(index, row) for index, row in enumerate(rows)]


def make_prompt(index: int, row: str | dict) -> Prompt:
    """Make a prompt from a line or a table; sizes become multiples of 16, steps 1 to 1000."""
    values = parse_line(row) if isinstance(row, str) else row
    known = {key: value for key, value in values.items() if key in Prompt.__annotations__}
    prompt = Prompt(**{**known, "index": index})
    rounded = {side: max(16, getattr(prompt, side) // 16 * 16) for side in ("width", "height")}
    steps = max(1, min(1000, prompt.sample_steps))
    return Prompt(**{**vars(prompt), **rounded, "sample_steps": steps})


def parse_line(line: str) -> dict:
    """Split `text --w 512 --d 42` into what its flags say; unknown flags are dropped.

    As in Musubi the text itself is matched against the flags too: a prompt that
    begins with `n ` sets the negative prompt. A number that is none is dropped.
    """
    pieces = line.split(" --")
    values: dict = {"prompt": pieces[0]}
    for piece in pieces:
        for flag, (key, pattern, kind) in FLAGS.items():
            if match := re.match(f"{flag} ({pattern})", piece, re.IGNORECASE):
                _put(values, key, kind, match[1])
                break
    return values


def _put(values: dict, key: str, kind: Callable, text: str) -> None:
    try:
        value = kind(text)
    except ValueError:  # 1.2.3, or more digits than Python takes
        return
    if key == "control_image_path":
        values.setdefault(key, []).append(value)
    else:
        values[key] = value


def _read(path: str) -> str:
    if not path.endswith((".txt", ".toml", ".json")):
        raise ValueError(f"--sample_prompts takes a .txt, .toml or .json file, not {path}")
    return Path(path).read_text(encoding="utf-8")
