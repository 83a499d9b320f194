"""Measure MusubiTLX and print a table: run.py [theme ...] [--server gevent] [--json FILE]."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent)]

from ground import WRONG, Bench, Row  # noqa: E402

THEMES = {
    "startup": "startup",
    "page": "page",
    "latency": "log_latency",
    "burst": "burst",
    "tail": "tail",
    "crash": "crash",
    "stop": "stop",
    "viewers": "viewers",
    "upload": "upload",
    "health": "health",
    "practice": "practice",
    "captioning": "captioning",
    "browser": "browser",
}
HEADS = ("what", "measured", "to reach", "floor", "verdict")


def main() -> int:
    """Run the themes asked for, all by default; 0 whatever they show."""
    arguments = parse()
    bench, found, begun = Bench(arguments.server), [], time.monotonic()
    about = surroundings(arguments.server)
    try:
        for theme in arguments.row or THEMES:
            found += measure(theme, bench)
    finally:
        bench.close()
    about |= {"load_after": os.getloadavg()[0], "took_s": round(time.monotonic() - begun)}
    print(headline(about))
    print(table(found))
    if arguments.json:
        rows = [asdict(row) for row in found]
        arguments.json.write_text(json.dumps({**about, "rows": rows}, indent=1))
    return 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    known = [*THEMES, []]  # the empty list is what argparse checks when none is given
    themes = f"any of {', '.join(THEMES)}; all by default"
    parser.add_argument("row", nargs="*", choices=known, metavar="theme", help=themes)
    parser.add_argument("--server", choices=["gevent", "waitress", "flask"], default="gevent")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser.parse_args()


def measure(theme: str, bench: Bench) -> list[Row]:
    """All rows of a theme; one that breaks off becomes a row that says so."""
    found = []
    try:
        for row in importlib.import_module(THEMES[theme]).rows(bench):
            print(f"{row.what}: {row.measured}  {row.verdict}", file=sys.stderr, flush=True)
            found.append(row)
    except Exception as error:
        traceback.print_exc()
        what = f"{theme}: broke off"
        found.append(Row(what, f"{type(error).__name__}: {error}"[:90], verdict=WRONG))
    return found


def surroundings(server: str) -> dict:
    """What the figures depend on."""
    return {
        "server": server,
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load_before": os.getloadavg()[0],
    }


def headline(about: dict) -> str:
    """The surroundings in a line."""
    return (
        f"{about['server']}, Python {about['python']}, {about['cores']} cores, "
        f"load {about['load_before']:.1f} before and {about['load_after']:.1f} after, "
        f"{about['took_s']} s in all"
    )


def table(rows: list[Row]) -> str:
    """The rows with their columns aligned."""
    cells = [HEADS] + [(r.what, r.measured, r.reach, r.floor, r.verdict) for r in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADS))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    sys.exit(main())
