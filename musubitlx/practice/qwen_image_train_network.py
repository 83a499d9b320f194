"""Musubi's script of this name, for practice: trains a LoRA on the caches."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # started as a file: find the package
    from musubitlx.practice.training import train

    train()
