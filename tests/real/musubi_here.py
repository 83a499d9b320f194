"""The real Musubi that the tests here ask, as the environment names it."""

from __future__ import annotations

import os

import pytest

GIVEN = {name: os.environ.get(name) for name in ("MUSUBI_DIR", "MUSUBI_PYTHON")}

needs_musubi = [
    pytest.mark.real,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not all(GIVEN.values()), reason="the real Musubi: set " + ", ".join(GIVEN)),
]
