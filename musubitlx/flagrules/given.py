"""The flags of a line as rules look at them, and what the form gives in place of flags."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from musubitlx.settings import BY_NAME

OWN = {
    "--mixed_precision": "bf16",
    "--save_precision": "bf16",
    "--timestep_sampling": "qwen_shift",
    "--weighting_scheme": "none",
    "--max_data_loader_n_workers": 2,
    "--save_every_n_epochs": 1,
    "--network_module": "networks.lora_qwen_image",
}


class Problem(NamedTuple):
    """One thing to say: a part of a sentence, what to do, and whether it stands in the way."""

    text: str
    hint: str
    refused: bool = True


def ignored(text: str, hint: str) -> Problem:
    """Something that does no harm and not what it seems to do."""
    return Problem(text, hint, refused=False)


@dataclass(frozen=True)
class Given:
    """The flags of a line, what holds where they are silent, and where the training runs.

    Relative paths are looked for in `folder`, the training's working directory;
    without it they are not looked for.
    """

    values: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    def has(self, *names: str) -> bool:
        """Tell whether any of the options stands in the line."""
        return any(name in self.values for name in names)

    def get(self, name: str) -> Any:
        """The value that holds: the line's, else the command's own, else Musubi's."""
        for source in (self.values, OWN, self.defaults):
            if name in source:
                return source[name]
        return None

    def groups(self) -> int:
        """How many groups of parameters the optimizer has: LoRA+ makes two."""
        plus = any(
            word.startswith("loraplus_lr_ratio=") for word in self.get("--network_args") or []
        )
        return 2 if plus and self.get("--network_module").endswith("lora_qwen_image") else 1


# -- the form, and other scripts -------------------------------------------------------------------


def _field(name: str) -> str:
    return f"Take it out and use the field “{BY_NAME[name].label}”."


_MODEL = "Take it out; MusubiTLX trains the original Qwen-Image."
_FILE = "Take it out and choose the file under “Model files”."
_WRITTEN = "Take it out; MusubiTLX writes this file from the form and the images."

TAKEN = {  # what the form gives, and where it does
    "--dataset_config": _WRITTEN,
    "--config_file": "Take it out and write its options into this line.",
    "--model_version": _MODEL,
    "--edit": _MODEL,
    "--edit_plus": _MODEL,
    "--dit": _FILE,
    "--vae": _FILE,
    "--text_encoder": _FILE,
    "--output_dir": _field("output_dir"),
    "--output_name": _field("output_name"),
    "--seed": _field("seed"),
    "--max_train_epochs": _field("epochs"),
    "--max_train_steps": "Take it out; the number of steps follows from the field “Epochs”.",
    "--learning_rate": _field("learning_rate"),
    "--optimizer_type": _field("optimizer_type"),
    "--network_dim": _field("lora_rank"),
    "--network_alpha": _field("lora_dims"),
    "--sample_prompts": _field("sample_prompt_text"),
    "--sample_at_first": _field("sample_at_first"),
    "--sample_every_n_epochs": _field("sample_every_epochs"),
    "--sample_every_n_steps": _field("sample_every_steps"),
}

ELSEWHERE = {  # options of other trainers that people bring along
    "--help": "What each option does is said in Musubi's documentation.",
    "-h": "What each option does is said in Musubi's documentation.",
    "--resolution": _field("resolution"),
    "--batch_size": _field("batch_size"),
    "--train_batch_size": _field("batch_size"),
    "--unet_lr": _field("learning_rate"),
    "--num_repeats": _field("image_repeats"),
    "--train_data_dir": _field("output_dir"),
    "--full_bf16": "Use --mixed_precision bf16, which is set already.",
    "--full_fp16": "Take it out; the model is in bf16, and --mixed_precision bf16 is set already.",
    "--cache_latents": "Take it out; MusubiTLX caches latents before every training.",
    "--cache_text_encoder_outputs": "Take it out; MusubiTLX caches them before every training.",
    "--network_train_unet_only": "Take it out; Musubi never trains the text encoder.",
    "--device": "Take it out; CUDA_VISIBLE_DEVICES chooses the graphics card.",
    "--lowram": "Take it out; --blocks_to_swap is what saves memory here.",
    "--lowvram": "Take it out; --blocks_to_swap is what saves memory here.",
    "--medvram": "Take it out; --blocks_to_swap is what saves memory here.",
    "--noise_offset": "Take it out; Musubi has nothing of the kind.",
    "--min_snr_gamma": "Take it out; Musubi has nothing of the kind.",
    "--save_model_as": "Take it out; Musubi always saves .safetensors.",
    "--mem_eff_attn": "Take it out; --sdpa is used.",
    "--fp8_llm": "For Qwen-Image it is --fp8_vl.",
}


# -- numbers ---------------------------------------------------------------------------------------

ANY = (-1e9, 1e9, "Give a number of the usual size.")
RANGES = {  # option -> lowest, highest, what to do; both ends are allowed
    "--blocks_to_swap": (0, 59, "Qwen-Image has 60 blocks, and one has to stay; 0 swaps none."),
    "--block_swap_ring_size": (1, 59, "2 is usual."),
    "--num_layers": (1, 1000, "Leave it out: Qwen-Image has 60."),
    "--gradient_accumulation_steps": (1, 100_000, "1 is no accumulation."),
    "--max_data_loader_n_workers": (0, 256, "2 is usual."),
    "--save_every_n_epochs": (1, 1e6, "A number above that of the epochs saves only the end."),
    "--save_every_n_steps": (1, 1e9, "Leave it out to save by epochs only."),
    "--save_last_n_epochs": (1, 1e6, "Leave it out to keep all."),
    "--save_last_n_epochs_state": (1, 1e6, "Leave it out to keep all."),
    "--save_last_n_steps": (1, 1e9, "Leave it out to keep all."),
    "--save_last_n_steps_state": (1, 1e9, "Leave it out to keep all."),
    "--max_grad_norm": (0, 1e6, "1.0 is usual, 0 switches clipping off."),
    "--network_dropout": (0, 0.99, "0 is none; 0.1 is a usual start."),
    "--scale_weight_norms": (0, 1e6, "1 is a usual start."),
    "--min_timestep": (0, 999, "Leave it out to begin at 0."),
    "--max_timestep": (1, 1000, "Leave it out to end at 1000."),
    "--num_timestep_buckets": (0, 1000, "2 or more are buckets; leave it out for none."),
    "--logit_mean": (-1000, 1000, "0.0 is usual."),
    "--logit_std": (0, 1000, "1.0 is usual."),
    "--mode_scale": (-1, 7, "1.29 is usual; further off Musubi draws timesteps there are none of."),
    "--sigmoid_scale": (0.001, 1000, "1.0 is usual."),
    "--discrete_flow_shift": (0.001, 1000, "2.2 is usual."),
    "--lr_warmup_steps": (0, 1e9, "Give steps (100) or a share of all steps (10% or 0.1)."),
    "--lr_decay_steps": (0, 1e9, "Give steps (100) or a share of all steps (10% or 0.1)."),
    "--lr_scheduler_num_cycles": (1, 1e6, "1 is usual."),
    "--lr_scheduler_power": (0, 1000, "1 is usual."),
    "--lr_scheduler_timescale": (1, 1e9, "Leave it out to have it follow the warm-up."),
    "--lr_scheduler_min_lr_ratio": (0, 1, "0.1 ends at a tenth of the learning rate."),
    "--compile_cache_size_limit": (1, 1e6, "32 is usual."),
    "--base_weights_multiplier": (-100, 100, "1.0 is usual."),
}


# -- key=value lists -------------------------------------------------------------------------------


def literal(text: str) -> Any:
    """What Python's literal_eval makes of it; ValueError otherwise, whatever went wrong."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(str(error)) from error


def pairs(given: Given, name: str, found: list[Problem]) -> dict[str, str]:
    """The list as key and text; what has no `=` or two is added to `found`."""
    pairs = {}
    for word in given.values.get(name) or []:
        key, *rest = word.split("=")
        if len(rest) == 1 and key:
            pairs[key] = rest[0]
        else:
            found.append(
                Problem(
                    f"{name}: {shown(word)} is not of the form key=value",
                    "Write key=value with exactly one = and no spaces around it.",
                )
            )
    return pairs


def literals(given: Given, name: str, found: list[Problem]) -> dict[str, Any]:
    """The list with its values as Python reads them."""
    read = {}
    for key, text in pairs(given, name, found).items():
        try:
            read[key] = literal(text)
        except ValueError:
            found.append(
                Problem(
                    f"{name}: the value of {shown(key)} can't be read: {shown(text)}",
                    "Numbers, True, False and None stand as they are; text needs quotes of its "
                    f"own, as in {name} \"{shown(key)}='text'\".",
                )
            )
    return read


def nearest(word: str, known) -> str | None:
    """The known word that was probably meant; None when none is near."""
    folded = {one.lower(): one for one in known}
    word = word.lower()
    if word in folded:
        return folded[word]
    near = difflib.get_close_matches(word[:80], list(folded), n=1, cutoff=0.6)
    return folded[near[0]] if near else None


def shown(text: object, limit: int = 60) -> str:
    """A word as it may stand in a sentence: printable, in one line, not too long."""
    try:
        text = str(text)
    except ValueError:  # Python writes no number of more than some thousand digits
        return "a huge number"
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= limit else text[: limit - 1] + "…"


def unknown_key(name: str, key: str, known, refused: bool = True) -> Problem:
    """A key that the list of an option does not know, with the nearest it does."""
    near = nearest(key, known)
    hint = f"Did you mean {near}?" if near else f"Known are {', '.join(known)}."
    text = f"{name}: {shown(key)} is unknown" + ("" if refused else " and ignored")
    return Problem(text, hint, refused)
