"""Whether this interpreter has what a caption model needs: told before anything is imported."""

from __future__ import annotations

import os
import re
import sys
from importlib import metadata
from importlib.util import find_spec

from musubitlx.captioners import IMPORTED, OFFLINE, Captioner
from musubitlx.errors import UserError


def go_offline() -> None:
    """Keep the libraries off the network; they read this when they are imported."""
    os.environ.update(OFFLINE)


def check(captioner: Captioner) -> None:
    """Raise UserError unless the packages are there and new enough."""
    missing = [name for name in captioner.packages if not find_spec(IMPORTED.get(name, name))]
    if missing:
        raise UserError(
            f"{captioner.label} needs {_listed(missing)}, not installed for {sys.executable}.",
            hint=f"Install with: {sys.executable} -m pip install {' '.join(missing)}",
        )
    have, need = version("transformers"), captioner.transformers
    if have < need:
        wanted = ".".join(map(str, need))
        raise UserError(
            f"{captioner.label} needs transformers {wanted} or newer; here it is "
            f"{metadata.version('transformers')}.",
            hint=f'Install with: {sys.executable} -m pip install -U "transformers>={wanted}"',
        )


def version(package: str) -> tuple[int, ...]:
    """The first two numbers of an installed package's version, (0, 0) when it has none."""
    try:
        told = metadata.version(package)
    except metadata.PackageNotFoundError:
        return (0, 0)
    numbers = re.match(r"(\d+)\.(\d+)", told)
    return tuple(map(int, numbers.groups())) if numbers else (0, 0)


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
