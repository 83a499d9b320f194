"""VRAM profiles: data, not code. Figures: Musubi's own table, in its docs/qwen_image.md."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """What is traded for VRAM: flags of the training stage, and fp8 for the text encoder."""

    id: str
    label: str
    flags: str  # appended to the training command; the page's text box starts with them
    fp8_text_encoder: bool  # --fp8_vl, for the text-encoder cache and for training

    def as_dict(self) -> dict:
        """What the page needs to offer it."""
        return {"id": self.id, "label": self.label, "flags": self.flags}


PROFILES = (
    Profile(
        "12",
        "12 GB – safe / recommended (most offload, slowest)",
        "--fp8_base --fp8_scaled --blocks_to_swap 45 --gradient_checkpointing "
        "--gradient_checkpointing_cpu_offload --max_grad_norm 1.0",
        True,
    ),
    Profile(
        "16",
        "16 GB – higher VRAM use (faster, may OOM)",
        "--fp8_base --fp8_scaled --blocks_to_swap 30 --gradient_checkpointing --max_grad_norm 1.0",
        True,
    ),
    Profile(
        "24",
        "24 GB – balanced",
        "--fp8_base --fp8_scaled --blocks_to_swap 16 --gradient_checkpointing --max_grad_norm 1.0",
        False,
    ),
    Profile(
        "24+",
        "24+ GB – performance (fastest, about 42 GB at 1024x1024)",
        "--gradient_checkpointing --max_grad_norm 1.0",
        False,
    ),
)

BY_ID = {profile.id: profile for profile in PROFILES}
