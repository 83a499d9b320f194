"""The figures of a run, step by step, thinned to what a chart can show."""

from __future__ import annotations

import json
from pathlib import Path

COLUMNS = ("step", "epoch", "loss", "seconds_per_step", "ram", "vram", "time")
POINTS = 2000


def read_columns(path: Path, points: int = POINTS) -> dict[str, list]:
    """Return `metrics.jsonl` as one list for each column, at most `points` long.

    Evenly thinned, the first and the last row stay. A row cut short by a crash
    is left out; a missing file gives empty lists.
    """
    rows = _thinned(list(_rows(path)), points)
    return {name: [row.get(name) for row in rows] for name in COLUMNS}


def _rows(path: Path):
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            yield row


def _thinned(rows: list[dict], points: int) -> list[dict]:
    if len(rows) <= points:
        return rows
    stride = (len(rows) - 1) / (points - 1)
    return [rows[round(i * stride)] for i in range(points)]
