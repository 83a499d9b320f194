"""What a Python interpreter has, asked without importing any of it: its version, its packages."""

from __future__ import annotations

import json
import os
import subprocess
import time
from functools import lru_cache

REMEMBER_S = 30.0  # so long an answer holds; asking starts an interpreter, some 50 ms
PATIENCE_S = 20.0
DISTRIBUTIONS = {"PIL": "pillow"}  # where it is not the name that is imported

ASK = """
import importlib.metadata as metadata, importlib.util as util, json, sys
found = {"python": sys.version.split()[0]}
for pair in sys.argv[1:]:
    name, distribution = pair.split("=")
    try:
        if util.find_spec(name):
            found[name] = ""
            found[name] = metadata.version(distribution)
    except (ImportError, ValueError, metadata.PackageNotFoundError):
        pass
print(json.dumps(found))
"""


def packages(python: str, names: tuple[str, ...], source: str = "") -> dict[str, str] | None:
    """The versions of those packages an interpreter has, by the name they are imported by.

    Its own stands under "python"; one that has none to tell is "". `source` goes on
    PYTHONPATH. None when the interpreter can't be started. Remembered for half a minute.
    """
    return _asked(python, names, source, int(time.monotonic() / REMEMBER_S))


@lru_cache(maxsize=16)
def _asked(python: str, names: tuple[str, ...], source: str, _now: int) -> dict[str, str] | None:
    pairs = [f"{name}={DISTRIBUTIONS.get(name, name)}" for name in names]
    try:
        answer = subprocess.run(
            [python, "-c", ASK, *pairs],
            env={**os.environ, "PYTHONPATH": source} if source else None,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        found = json.loads(answer.stdout) if answer.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return found if isinstance(found, dict) else None


def forget() -> None:
    """Ask anew the next time: something may have been installed."""
    _asked.cache_clear()
