"""Files of a network's weights for tests: one layer under its real name, and what goes wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

LAYER = "lora_unet_transformer_blocks_0_attn_to_q"


def a_lora(path: Path, rank: int, alpha: bool = True, layer: str = LAYER) -> Path:
    """A LoRA of one layer."""
    sizes = {"lora_down.weight": (rank, 32), "lora_up.weight": (32, rank)}
    if alpha:
        sizes["alpha"] = ()
    return write(path, {f"{layer}.{key}": size for key, size in sizes.items()})


def write(path: Path, sizes: dict[str, tuple[int, ...]]) -> Path:
    """A safetensors file of zeros."""
    save_file({key: np.zeros(size, np.float16) for key, size in sizes.items()}, path)
    return path


def fill(folder: Path, rank: int) -> None:
    """Everything the lines of tests name: good files, and files with one fault each."""
    a_lora(folder / "here.safetensors", rank)
    a_lora(folder / "shouted.SAFETENSORS", rank)
    a_lora(folder / "renamed.bin", rank)
    a_lora(folder / "other_rank.safetensors", rank * 2)
    a_lora(folder / "no_alpha.safetensors", rank, alpha=False)
    a_lora(folder / "other_names.safetensors", rank, layer="transformer_blocks.0.attn.to_q")
    write(folder / "loha.safetensors", {f"{LAYER}.hada_w1_b": (rank, 32), f"{LAYER}.alpha": ()})
    (folder / "empty.safetensors").touch()
    (folder / "junk.safetensors").write_bytes(b"<html>")
    (folder / "junk.pt").write_text("junk")
    (folder / "good.toml").write_text("[tensorboard]\n")
    (folder / "junk.toml").write_text("a = = 1\n")
    (folder / "empty").mkdir()
