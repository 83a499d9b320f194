"""Musubi's script of this name, for practice: caches the pictures of a dataset."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # started as a file: find the package
    from musubitlx.practice.caching import cache_latents

    cache_latents()
