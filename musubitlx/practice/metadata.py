"""The metadata of a LoRA file: Musubi's keys, and one that says what it is."""

from __future__ import annotations

import argparse
import json
import random
import time
from datetime import datetime
from pathlib import Path

from musubitlx.practice.caches import MARK
from musubitlx.practice.config import Dataset
from musubitlx.practice.plan import Plan

# (architecture in the file, usual resolution) by the code in cache names
KINDS = {
    "qi": ("qwen_image", "Qwen-Image", "1328x1328"),
    "qie": ("qwen_image_edit", "Qwen-Image-Edit", "1024x1024"),
    "qil": ("qwen_image_layered", "Qwen-Image-Layered", "1280x720"),
}
EDIT_NAMES = {"edit-2509": "Qwen-Image-Edit-Plus", "edit-2511": "Qwen-Image-Edit-2511"}
FROM_OPTIONS = (
    "learning_rate",
    "gradient_checkpointing",
    "gradient_checkpointing_cpu_offload",
    "gradient_accumulation_steps",
    "max_train_steps",
    "lr_warmup_steps",
    "lr_scheduler",
    "network_module",
    "network_dim",
    "network_alpha",
    "network_dropout",
    "mixed_precision",
    "seed",
    "training_comment",
    "max_grad_norm",
    "fp8_base",
    "weighting_scheme",
    "logit_mean",
    "logit_std",
    "mode_scale",
    "guidance_scale",
    "timestep_sampling",
    "sigmoid_scale",
    "discrete_flow_shift",
    "output_name",
)
ALWAYS_KEPT = (
    "ss_base_model_version",
    "ss_network_module",
    "ss_network_dim",
    "ss_network_alpha",
    "ss_network_args",
)


def training_metadata(
    args: argparse.Namespace, arch: str, plan: Plan, optimizer: str
) -> dict[str, str]:
    """Return the `ss_` keys known at the start of a run."""
    values = {f"ss_{name}": getattr(args, name) for name in FROM_OPTIONS}
    values |= {
        "ss_session_id": random.SystemRandom().randint(0, 2**32),
        "ss_training_started_at": time.time(),
        "ss_num_train_items": plan.pictures,
        "ss_num_batches_per_epoch": plan.batches,
        "ss_num_epochs": plan.epochs,
        "ss_base_model_version": KINDS[arch][0],
        "ss_optimizer": optimizer,
        "ss_fp8_base": bool(args.fp8_base),
        "ss_full_fp16": False,
        "ss_full_bf16": False,
        "ss_datasets": json.dumps([_describe(dataset) for dataset in plan.datasets]),
    }
    if args.network_args:
        values["ss_network_args"] = json.dumps(dict(p.split("=") for p in args.network_args))
    for key, path in (("ss_sd_model_name", args.dit), ("ss_vae_name", args.vae)):
        if path is not None:
            values[key] = Path(path).name if Path(path).exists() else path
    return {key: str(value) for key, value in values.items()}


def file_metadata(
    args: argparse.Namespace, arch: str, training: dict[str, str], step: int, epoch: int
) -> dict[str, str]:
    """Return all keys of a LoRA file saved now."""
    values = {
        **training,
        "ss_training_finished_at": str(time.time()),
        "ss_steps": str(step),
        "ss_epoch": str(epoch),
    }
    if args.no_metadata:
        values = {key: values[key] for key in ALWAYS_KEPT if key in values}
    return {**values, **_modelspec(args, arch), **MARK}


def _modelspec(args: argparse.Namespace, arch: str) -> dict[str, str]:
    name = EDIT_NAMES.get(args.model_version or "", KINDS[arch][1])
    title = args.metadata_title or str(args.output_name)
    values = {
        "sai_model_spec": "1.0.0",
        "architecture": f"{name}/lora",
        "implementation": "MusubiTLX practice trainer",
        "title": title,
        "resolution": _resolution(args.metadata_reso) or KINDS[arch][2],
        "date": datetime.now().replace(microsecond=0).isoformat(),
        "author": args.metadata_author,
        "description": args.metadata_description,
        "license": args.metadata_license,
        "tags": args.metadata_tags,
        "timestep_range": _timestep_range(args),
    }
    return {f"modelspec.{key}": value for key, value in values.items() if value is not None}


def _resolution(text: str | None) -> str | None:
    if text is None:
        return None
    sides = [side.strip() for side in text.split(",")]
    return "x".join(sides if len(sides) == 2 else sides * 2)


def _timestep_range(args: argparse.Namespace) -> str | None:
    low, high = args.min_timestep, args.max_timestep
    if low is None and high is None:
        return None
    return f"{0 if low is None else low},{1000 if high is None else high}"


def _describe(dataset: Dataset) -> dict:
    values = {
        "resolution": dataset.resolution,
        "caption_extension": dataset.caption_extension,
        "batch_size_per_device": dataset.batch_size,
        "num_repeats": dataset.num_repeats,
        "enable_bucket": dataset.enable_bucket,
        "bucket_no_upscale": dataset.bucket_no_upscale,
        "has_control": False,
    }
    if dataset.image_directory is not None:
        values["image_directory"] = Path(dataset.image_directory).name
    if dataset.image_jsonl_file is not None:
        values["image_jsonl_file"] = Path(dataset.image_jsonl_file).name
    return values
