"""Print the options of Musubi's scripts as JSON: a program for Musubi's own interpreter.

    python read_options.py <folder of the scripts> <script>...

Standard library only. Each script is run up to the point where it reads its
command line; its parser is taken from there, and the script goes no further.
What the scripts print while they are imported comes before the marker line.
"""

from __future__ import annotations

import argparse
import json
import runpy
import sys
from pathlib import Path

MARKER = "--- options of Musubi's scripts ---"


class _Captured(BaseException):
    """Carries the parser out of the script; no `except Exception` stops it."""

    def __init__(self, parser: argparse.ArgumentParser):
        self.parser = parser


def _capture(parser: argparse.ArgumentParser, *_args, **_more):
    raise _Captured(parser)


def parser_of(script: Path) -> argparse.ArgumentParser:
    """Run a script as a program up to its command line; RuntimeError if it never reads it."""
    sys.argv = [str(script)]
    try:
        runpy.run_path(str(script), run_name="__main__")
    except _Captured as captured:
        return captured.parser
    raise RuntimeError(f"{script.name} ended without reading a command line")


def described(parser: argparse.ArgumentParser) -> dict:
    """A parser as data: its options in order, and the defaults set for the whole of it."""
    return {
        "options": [_option(action) for action in parser._actions if action.option_strings],
        "parser_defaults": {name: _plain(value) for name, value in parser._defaults.items()},
    }


def _option(action: argparse.Action) -> dict:
    """One option; what is None or False is left out."""
    row = {"option_strings": list(action.option_strings), "dest": action.dest}
    kind = _kind(action)
    if kind == "store":
        row["nargs"] = action.nargs
        row["type"] = getattr(action.type, "__name__", None)
        row["choices"] = None if action.choices is None else [_plain(c) for c in action.choices]
    if kind != "help":
        row["required"] = action.required
        row["default"] = _plain(action.default)
    row["action"] = kind
    return {name: value for name, value in row.items() if value is not None and value is not False}


def _kind(action: argparse.Action) -> str:
    """`help` ends the program, `store_true` takes no value, `store` takes what nargs says."""
    if isinstance(action, (argparse._HelpAction, argparse._VersionAction)):
        return "help"
    return "store_true" if action.nargs == 0 else "store"


def _plain(value: object) -> object:
    """A value JSON can hold; others as text."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def hub() -> dict | None:
    """Where the scripts look for what comes from Hugging Face, and whether they may download."""
    try:
        from huggingface_hub import constants
    except ImportError:
        return None
    return {"cache": str(constants.HF_HUB_CACHE), "offline": bool(constants.HF_HUB_OFFLINE)}


def main() -> None:
    """Print the marker, then the table of the scripts and the hub on one line."""
    folder, names = Path(sys.argv[1]).resolve(), sys.argv[2:]
    sys.path[0] = str(folder)  # not this file's folder: its modules would hide others
    argparse.ArgumentParser.parse_args = _capture
    argparse.ArgumentParser.parse_known_args = _capture
    scripts = {name: described(parser_of(folder / name)) for name in names}
    print("\n" + MARKER)
    print(json.dumps({"scripts": scripts, "hub": hub()}), flush=True)


if __name__ == "__main__":
    main()
