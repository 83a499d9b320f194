"""VRAM profiles: data, not code. Figures: Musubi's docs/qwen_image.md and block_swap.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """What is traded for VRAM: flags of the training stage, and fp8 for the text encoder.

    `faster` are flags that newer versions of Musubi know and that cost nothing.
    `from_gb`: from this much VRAM (in GB of 1024³) on it is the one to begin with;
    a card sold as 12 GB has some less.
    """

    id: str
    label: str
    flags: str
    fp8_text_encoder: bool  # --fp8_vl, for the text-encoder cache and for training
    from_gb: float
    faster: tuple[str, ...] = ()

    def line(self, knows: Callable[[str], bool]) -> str:
        """Its flags, for a Musubi of whose options `knows` tells."""
        return " ".join([self.flags, *filter(knows, self.faster)])


# Copies weights to the card only, never back: 11 instead of 14 s a step on an RTX 3090 (Musubi's
# docs/block_swap.md). For LoRA training with gradient checkpointing, which all profiles have.
H2D_ONLY = ("--block_swap_h2d_only",)

PROFILES = (
    Profile(
        "12",
        "12 GB – safe / recommended (most offload, slowest)",
        "--fp8_base --fp8_scaled --blocks_to_swap 45 --gradient_checkpointing "
        "--gradient_checkpointing_cpu_offload --max_grad_norm 1.0",
        True,
        0,
        H2D_ONLY,
    ),
    Profile(
        "16",
        "16 GB – higher VRAM use (faster, may OOM)",
        "--fp8_base --fp8_scaled --blocks_to_swap 30 --gradient_checkpointing --max_grad_norm 1.0",
        True,
        18,  # by the table it needs about 18 GB; a 16 GB card begins with the safe one
        H2D_ONLY,
    ),
    Profile(
        "24",
        "24 GB – balanced",
        "--fp8_base --fp8_scaled --blocks_to_swap 16 --gradient_checkpointing --max_grad_norm 1.0",
        False,
        22,
        H2D_ONLY,
    ),
    Profile(
        "24+",
        "24+ GB – performance (fastest)",
        "--gradient_checkpointing --max_grad_norm 1.0",
        False,
        44,
    ),
)

BY_ID = {profile.id: profile for profile in PROFILES}


def for_vram(total: int) -> Profile:
    """The profile to begin with on a card of `total` bytes: the fastest that is sure to fit."""
    fitting = [profile for profile in PROFILES if total / 1024**3 >= profile.from_gb]
    return fitting[-1] if fitting else PROFILES[0]
