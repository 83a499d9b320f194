"""The options of Musubi's scripts, as data: read from a recorded table, turned into a parser."""

from __future__ import annotations

import argparse
import json
from functools import lru_cache
from pathlib import Path

RECORDED = Path(__file__).parent / "data" / "musubi-options-0.3.4.json"

LATENTS = "qwen_image_cache_latents.py"
TEXT_ENCODER = "qwen_image_cache_text_encoder_outputs.py"
TRAIN = "qwen_image_train_network.py"
SCRIPTS = (LATENTS, TEXT_ENCODER, TRAIN)


def steps_or_share(text: str) -> int | float:
    """Read `10`, `0.1` or `10%` as Musubi's warm-up options do; ValueError otherwise."""
    if text.endswith("%"):
        return float(text[:-1]) / 100
    return float(text) if "." in text else int(text)


TYPES = {"str": str, "int": int, "float": float, "Path": str, "_int_or_float": steps_or_share}


@lru_cache(maxsize=4)
def load_table(path: Path = RECORDED) -> dict:
    """Return the option table of one Musubi version: `{script: {options, parser_defaults}}`."""
    return json.loads(path.read_text(encoding="utf-8"))["scripts"]


def build_parser(
    script: str, parser_class: type[argparse.ArgumentParser] = argparse.ArgumentParser
) -> argparse.ArgumentParser:
    """Return a parser that takes and refuses what the real `script` does (v0.3.4).

    Abbreviations are on and a wrong option ends the program with exit code 2,
    as argparse does it; give a `parser_class` of your own to act otherwise.
    """
    table = load_table()[script]
    parser = parser_class(prog=script)
    for option in table["options"]:
        if option["action"] != "help":
            parser.add_argument(*option["option_strings"], **_arguments(option))
    parser.set_defaults(**table["parser_defaults"])
    return parser


def _arguments(option: dict) -> dict:
    """What `add_argument` needs besides the names."""
    given = {"dest": option["dest"], "action": option["action"], "default": option.get("default")}
    if option["action"] == "store_true":
        return {**given, "default": option.get("default", False)}
    given["type"] = TYPES.get(option.get("type"), str)
    for key in ("nargs", "choices", "required"):
        if key in option:
            given[key] = option[key]
    return given
