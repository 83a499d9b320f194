"""From settings and an output folder to the stages of a job: one builder for preview and run.

Source of what Musubi needs: its three Qwen-Image scripts, version 0.3.4, measured.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from musubitlx import buckets, caches, presets
from musubitlx.flagrules import ATTENTION
from musubitlx.flagrules.given import OWN
from musubitlx.jobs import Plan, Stage
from musubitlx.measured import Load
from musubitlx.musubi import Trainer
from musubitlx.options import LATENTS, TEXT_ENCODER, TRAIN
from musubitlx.projects import Image, Project, as_jsonl
from musubitlx.settings import Settings

QUEUE = "gpu0"
MODEL_VERSION = "original"


@dataclass(frozen=True)
class Order:
    """All a run is made from.

    `images` are the readable ones, `models_at` the model files by id, `words` and
    `values` the advanced flags as arguments and by option, `prompts` the lines of
    the prompt file.
    """

    project: Project
    images: list[Image]
    settings: Settings
    trainer: Trainer
    models_at: dict[str, str]
    words: list[str] = field(default_factory=list)
    values: dict[str, object] = field(default_factory=dict)
    prompts: list[str] = field(default_factory=list)

    @property
    def fp8_text_encoder(self) -> bool:
        """The text encoder is loaded in fp8, for its cache and for the prompts of samples."""
        chosen = presets.BY_ID[self.settings["vram_profile"]].fp8_text_encoder
        return chosen or "--fp8_vl" in self.values

    @property
    def config(self) -> Path:
        """Where the dataset file lies."""
        return self.project.path / "dataset_config.toml"

    @property
    def area(self) -> buckets.Size:
        """The resolution, in px."""
        return buckets.area_of(self.settings["resolution"])

    @property
    def load(self) -> Load:
        """What the training stage asks of the card."""
        width, height = self.area
        run = Load(
            practice=self.trainer.practice,
            pixels=width * height,
            batch=self.settings["batch_size"],
            rank=self.settings["lora_rank"],
            optimizer=self.settings["optimizer_type"],
        )
        return run.with_flags(self.values)


def build(order: Order) -> Plan:
    """The three stages with every argument, and the files that are written as they start."""
    name, folder, settings = order.settings["output_name"], order.project.path, order.settings
    captions = folder / "dataset.jsonl"
    files = {
        str(captions): as_jsonl(
            {
                "image_path": str(image.path),
                "caption": image.final_text(settings["trigger_word"], settings["prompt"]),
            }
            for image in order.images
        ),
        str(order.config): dataset_config(folder, captions, settings),
    }
    if settings["samples_enabled"]:
        files[str(folder / "sample_prompts.txt")] = "".join(f"{one}\n" for one in order.prompts)
    return Plan(
        kind="train",
        queue=QUEUE,
        title=f"Training {name}",
        project=order.project.name,
        settings=settings,
        stages=[_latents(order), _text_encoder(order), _training(order)],
        files=files,
        inputs=[str(image.path) for image in order.images],
        results=[str(folder / f"{name}.safetensors")],
        practice=order.trainer.practice,
        load=asdict(order.load),
    )


def dataset_config(folder: Path, captions: Path, settings: Settings) -> str:
    """The text of dataset_config.toml."""
    width, height = buckets.area_of(settings["resolution"])
    return (
        "[general]\n"
        f"resolution = [{width}, {height}]\n"
        f"batch_size = {settings['batch_size']}\n"
        "enable_bucket = true\n"
        "bucket_no_upscale = false\n"
        "\n"
        "[[datasets]]\n"
        f"image_jsonl_file = {_toml_text(captions)}\n"
        f"cache_directory = {_toml_text(folder)}\n"
        f"num_repeats = {settings['image_repeats']}\n"
    )


def _toml_text(path: Path) -> str:
    """A path as a TOML string, which JSON's are too; toml.dumps gets `\\x` in a path wrong."""
    return json.dumps(str(path), ensure_ascii=False)


def _stage(order: Order, name: str, title: str, script: str, arguments: list, **more) -> Stage:
    """One of Musubi's scripts with its arguments; any working directory does."""
    trainer = order.trainer
    path = os.pathsep.join(filter(None, [str(trainer.source), os.environ.get("PYTHONPATH")]))
    return Stage(
        name=name,
        title=title,
        argv=[trainer.python, str(trainer.scripts / script), *map(str, arguments)],
        cwd=str(order.project.path),
        env={
            "PYTHONPATH": path,
            "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0"),
            "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        },
        **more,
    )


# -- the caching stages ----------------------------------------------------------------------------
# Both run with --skip_existing, since what is stale has been removed before (see `caches.py`), and
# with --keep_cache, or Musubi would delete every file that has the ending of a cache.

CACHING = ("--skip_existing", "--keep_cache")


def _latents(order: Order) -> Stage:
    arguments = ["--dataset_config", order.config, "--vae", order.models_at["vae"]]
    arguments += ["--model_version", MODEL_VERSION, *CACHING]
    made_with = {"trainer": _made_by(order)}
    wanted = caches.wanted_latents(order.images, order.area, made_with, order.models_at["vae"])
    title = "Caching latents"
    return _stage(order, "latents", title, LATENTS, arguments, **_caches(order, wanted))


def _text_encoder(order: Order) -> Stage:
    settings, model = order.settings, order.models_at["text_encoder"]
    arguments = ["--dataset_config", order.config, "--text_encoder", model]
    arguments += ["--batch_size", settings["batch_size"], "--model_version", MODEL_VERSION]
    arguments += [*CACHING, *_fp8_text_encoder(order)]
    made_with = {"trainer": _made_by(order), "fp8": order.fp8_text_encoder}
    wanted = caches.wanted_texts(
        order.images, settings["trigger_word"], settings["prompt"], made_with, model
    )
    title = "Caching text encoder outputs"
    return _stage(order, "text_encoder", title, TEXT_ENCODER, arguments, **_caches(order, wanted))


def _made_by(order: Order) -> str:
    """Who makes the caches; another trainer's, or another version's, are not taken."""
    return "practice" if order.trainer.practice else f"musubi {order.trainer.version}"


def _caches(order: Order, wanted: dict) -> dict:
    """What a stage says of its caches, and of the files it must leave."""
    outputs = [str(order.project.path / name) for name in wanted["files"]]
    return {"outputs": outputs, "caches": wanted}


def _fp8_text_encoder(order: Order) -> list[str]:
    return ["--fp8_vl"] if order.fp8_text_encoder else []


# -- training --------------------------------------------------------------------------------------


def _training(order: Order) -> Stage:
    settings, folder, at = order.settings, order.project.path, order.models_at
    arguments = [
        *("--dit", at["dit"], "--vae", at["vae"], "--text_encoder", at["text_encoder"]),
        *("--model_version", MODEL_VERSION, "--dataset_config", order.config),
        *("--output_dir", folder, "--output_name", settings["output_name"]),
        *("--max_train_epochs", settings["epochs"]),
        *("--learning_rate", plain(settings["learning_rate"])),
        *("--optimizer_type", settings["optimizer_type"]),
        *("--network_dim", settings["lora_rank"]),
        *("--network_alpha", plain(settings["lora_dims"])),
        *("--seed", settings["seed"]),
        *_own(order.values),
        *(flag for flag in _fp8_text_encoder(order) if flag not in order.values),
        *_sampling(folder, settings),
        *order.words,
    ]
    outputs = [str(folder / f"{settings['output_name']}.safetensors")]
    title = "Training the LoRA"
    return _stage(order, "train", title, TRAIN, arguments, outputs=outputs)


def _own(values: dict) -> list[str]:
    """What is given where the advanced flags say nothing else; Musubi's own defaults are wrong
    for Qwen-Image in many places."""
    arguments = [word for pair in OWN.items() if pair[0] not in values for word in pair]
    if values.get("--max_data_loader_n_workers") != 0:  # with no worker Musubi refuses it
        arguments += [w for w in ["--persistent_data_loader_workers"] if w not in values]
    return arguments + ([] if any(name in values for name in ATTENTION) else ["--sdpa"])


def _sampling(folder: Path, settings: Settings) -> list:
    """The options for samples; an interval of 0 is left out, Musubi would divide by it."""
    if not settings["samples_enabled"]:
        return []
    arguments = ["--sample_prompts", folder / "sample_prompts.txt"]
    if settings["sample_every_epochs"]:
        arguments += ["--sample_every_n_epochs", settings["sample_every_epochs"]]
    if settings["sample_every_steps"]:
        arguments += ["--sample_every_n_steps", settings["sample_every_steps"]]
    return arguments + (["--sample_at_first"] if settings["sample_at_first"] else [])


def log_path(folder: Path, name: str, started: float) -> Path:
    """Where the log of a training run lies; `started` is in seconds since the epoch."""
    stamp = time.strftime("%Y%m%d_%H%M%S", time.localtime(started))
    return folder / f"training_log_{name}_{stamp}.log"


def plain(number: float) -> str:
    """A number as a person would write it: 128, 5e-05, 0.5."""
    return str(int(number)) if float(number).is_integer() else repr(float(number))
