"""From settings and an output folder to the stages of a job: one builder for preview and run.

Source of what Musubi needs: its three Qwen-Image scripts, version 0.3.4, measured.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import time
from dataclasses import dataclass, field
from pathlib import Path

from musubitlx import buckets, estimate, flags, health, looks, models, musubi, options, presets
from musubitlx.errors import Advice, Invalid, ManyInvalid, UserError
from musubitlx.flagrules import ATTENTION
from musubitlx.home import Home
from musubitlx.jobs import Plan, Stage
from musubitlx.musubi import Trainer
from musubitlx.options import LATENTS, TEXT_ENCODER, TRAIN
from musubitlx.projects import Image, Project, as_jsonl
from musubitlx.settings import Settings
from musubitlx.settings import read as read_settings

QUEUE = "gpu0"
MODEL_VERSION = "original"

SAMPLE_DEFAULTS = {"w": "256", "h": "256", "f": "1", "s": "20", "l": "4.0", "fs": "2.2"}


@dataclass
class Check:
    """What was found before a start: all errors and warnings, and the job that would run."""

    errors: list[UserError] = field(default_factory=list)
    warnings: list[UserError] = field(default_factory=list)
    plan: Plan | None = None
    estimate: dict | None = None

    def as_dict(self) -> dict:
        """The answer of POST /api/check."""
        stages = self.plan.stages if self.plan else []
        return {
            "errors": [error.as_dict() for error in self.errors],
            "warnings": [warning.as_dict() for warning in self.warnings],
            "stages": [
                {"name": stage.name, "title": stage.title, "command": shlex.join(stage.argv)}
                for stage in stages
            ],
            "steps": self.estimate["steps"] if self.estimate else None,
            "estimate": self.estimate,
        }


def check(home: Home, trainer: Trainer, given: object) -> Check:
    """Look for everything that would fail later, wrong settings included, and build the job.

    Nothing is written. A setting that is wrong is looked at no further, and
    without a job that could run there are no stages.
    """
    settings, wrong = read_settings(given)
    found = Check(errors=list(wrong))
    project = Project(home, settings["output_dir"])
    images = project.images()
    readable = [image for image in images if image.facts]
    if "output_dir" not in [error.field for error in wrong]:
        found.errors += _dataset_errors(project, images, settings)
    found.errors += _python_errors(trainer)
    found.warnings += _image_warnings(readable, settings)
    paths = _model_paths(home, trainer, found)
    words = _flags(settings, project.path, found)
    _check_samples(settings, found)
    if (project.path / f"{settings['output_name']}.safetensors").exists():
        found.warnings.append(
            Invalid(
                f"{settings['output_name']}.safetensors is there already and will be replaced.",
                field="output_name",
                hint="Choose another name to keep the older LoRA.",
            )
        )
    if readable:
        sizes = [(image.facts.width, image.facts.height) for image in readable]
        found.estimate = estimate.steps(settings, sizes)
        found.warnings += _few_images(readable, settings, found.estimate)
    if not wrong:
        found.plan = build(project, readable, settings, trainer, paths, words)
    return found


def plan_training(home: Home, trainer: Trainer, given: object) -> Plan:
    """The job of a training run, or ManyInvalid with everything that stands in its way."""
    found = check(home, trainer, given)
    if found.errors:
        raise ManyInvalid(found.errors)
    settings = found.plan.settings
    _take_log(found.plan, Project(home, settings["output_dir"]).path, settings["output_name"])
    return found.plan


def _take_log(plan: Plan, folder: Path, name: str) -> None:
    """Create the log, so that it is this run's alone: two may be started in one second."""
    started = time.time()
    while True:
        path = log_path(folder, name, started)
        try:
            path.open("x").close()
        except FileExistsError:
            started += 1
        else:
            plan.log = str(path)
            return


def log_path(folder: Path, name: str, started: float) -> Path:
    """Where the log of a training run lies; `started` is in seconds since the epoch."""
    stamp = time.strftime("%Y%m%d_%H%M%S", time.localtime(started))
    return folder / f"training_log_{name}_{stamp}.log"


# -- what could be wrong ---------------------------------------------------------------------------


def _dataset_errors(project: Project, images: list[Image], settings: Settings) -> list[UserError]:
    """No images, and every finding of dataset health that keeps a run from starting."""
    if not images:
        return [
            Invalid(
                "There are no training images in this folder yet.",
                field="images",
                hint="Add images in step 1: 10 to 20 are a good start.",
            )
        ]
    found = health.blocking(project, images, looks.fresh(project), settings)
    return [
        Invalid(one.text, field="images" if one.images else "output_dir", hint=one.hint)
        for one in found
    ]


def _python_errors(trainer: Trainer) -> list[UserError]:
    """What the interpreter that runs Musubi lacks; the practice trainer runs in ours."""
    missing = None if trainer.practice else musubi.missing_packages(trainer)
    if trainer.practice or missing == []:
        return []
    text = f"The Python for Musubi Tuner ({trainer.python}) can't be started."
    if missing:
        text = f"The Python for Musubi Tuner ({trainer.python}) lacks {', '.join(missing)}."
    return [
        Invalid(
            text,
            field="musubi",
            hint="Install Musubi Tuner as its README says, or name the interpreter of its "
            "environment in MUSUBI_PYTHON, then start MusubiTLX again.",
        )
    ]


def _image_warnings(images: list[Image], settings: Settings) -> list[UserError]:
    trigger, prompt = settings["trigger_word"], settings["prompt"]
    silent = [image for image in images if not image.final_text(trigger, prompt)]
    bare = [image for image in images if not image.caption.strip()]
    if silent:
        text = f"{len(silent)} of {len(images)} images have no text at all."
        hint = "Write captions, or give a trigger word and a subject description."
        return [Invalid(text, field="captions", hint=hint)]
    if bare:
        text = f"{len(bare)} of {len(images)} images have no caption of their own."
        hint = "They are trained on the trigger word and the subject description."
        return [Invalid(text, field="captions", hint=hint)]
    return []


FEW_IMAGES, FEW_STEPS = 8, 300  # fewer of both: the original tool's warning, and its four points


def _few_images(images: list[Image], settings: Settings, counted: dict) -> list[UserError]:
    if len(images) >= FEW_IMAGES or counted["steps"] >= FEW_STEPS:
        return []
    many = f"{len(images)} image{'' if len(images) == 1 else 's'}"
    epochs = math.ceil(FEW_STEPS / counted["steps_per_epoch"])
    text = f"Only {many} and {counted['steps']} steps: the LoRA will hardly learn anything of use."
    points = [
        "Use 10 to 20 images or more, with different backgrounds, light and angles.",
        f"Train more epochs: {epochs} instead of {settings['epochs']} make {FEW_STEPS} steps.",
        "Lower the learning rate, to 1e-5 for instance: with few images a high one learns them "
        "by heart.",
        "Write more specific captions: what they name can be changed later, what they leave out "
        "becomes part of the LoRA.",
    ]
    return [Advice(text, points, field="images")]


def _model_paths(home: Home, trainer: Trainer, found: Check) -> dict[str, str]:
    """Where the model files are; what is missing or broken becomes an error.

    The practice trainer opens none: its commands name the files it would take.
    """
    paths = {}
    for state in models.find(home):
        row = state.as_dict()
        paths[row["id"]] = row["path"] or str(home.root / row["filename"])
        if not trainer.practice and not (row["path"] and row["whole"] and not row["problem"]):
            found.errors.append(
                Invalid(
                    f"{row['label']}: {row['problem'] or 'the file is missing'}",
                    field=f"models.{row['id']}",
                    hint=row["hint"],
                )
            )
    return paths


def _flags(settings: Settings, folder: Path, found: Check) -> list[str]:
    """The advanced flags as arguments; what is wrong with them becomes an error."""
    line = settings["advanced_flags"]
    if line is None:
        line = presets.BY_ID[settings["vram_profile"]].flags
    told = flags.read(line, options.recorded(), settings, folder)
    found.errors += told.errors
    found.warnings += told.warnings
    return told.words


def _check_samples(settings: Settings, found: Check) -> None:
    if not settings["samples_enabled"]:
        return
    if not sample_lines(settings):
        found.errors.append(
            Invalid(
                "Samples are switched on, and there is no prompt to draw.",
                field="sample_prompt_text",
                hint="Write at least one prompt, or switch samples off.",
            )
        )
    when = ("sample_every_epochs", "sample_every_steps", "sample_at_first")
    if not any(settings[name] for name in when):
        found.errors.append(
            Invalid(
                "Samples are switched on, and never made.",
                field="sample_every_epochs",
                hint="Give a number of epochs or steps, or switch samples off.",
            )
        )


# -- the job -------------------------------------------------------------------------------------


def build(
    project: Project,
    images: list[Image],
    settings: Settings,
    trainer: Trainer,
    models_at: dict[str, str],
    words: list[str],
) -> Plan:
    """The three stages with every argument, and the files that are written as they start."""
    name, folder = settings["output_name"], project.path
    config, captions = folder / "dataset_config.toml", folder / "dataset.jsonl"
    files = {
        str(captions): as_jsonl(
            {
                "image_path": str(image.path),
                "caption": image.final_text(settings["trigger_word"], settings["prompt"]),
            }
            for image in images
        ),
        str(config): dataset_config(folder, captions, settings),
    }
    if settings["samples_enabled"]:
        lines = "".join(line + "\n" for line in sample_lines(settings))
        files[str(folder / "sample_prompts.txt")] = lines
    lora = str(folder / f"{name}.safetensors")
    return Plan(
        kind="train",
        queue=QUEUE,
        title=f"Training {name}",
        project=project.name,
        settings=settings,
        stages=[
            _latents(trainer, config, images, models_at),
            _text_encoder(trainer, config, images, settings, models_at),
            _training(trainer, config, folder, settings, models_at, words),
        ],
        files=files,
        inputs=[str(image.path) for image in images],
        results=[lora],
        practice=trainer.practice,
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


def _stage(
    trainer: Trainer, name: str, title: str, script: str, arguments: list, cwd: Path, outputs
):
    """One of Musubi's scripts with its arguments; any working directory does."""
    path = os.pathsep.join(filter(None, [str(trainer.source), os.environ.get("PYTHONPATH")]))
    return Stage(
        name=name,
        title=title,
        argv=[trainer.python, str(trainer.scripts / script), *map(str, arguments)],
        cwd=str(cwd),
        env={
            "PYTHONPATH": path,
            "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0"),
            "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        },
        outputs=[str(path) for path in outputs],
    )


def _latents(trainer, config: Path, images: list[Image], models_at) -> Stage:
    arguments = ["--dataset_config", config, "--vae", models_at["vae"]]
    arguments += ["--model_version", MODEL_VERSION]
    caches = [
        image.path.with_name(
            f"{image.path.stem}_{image.facts.width:04d}x{image.facts.height:04d}_qi.safetensors"
        )
        for image in images
    ]
    title = "Caching latents"
    return _stage(trainer, "latents", title, LATENTS, arguments, config.parent, caches)


def _text_encoder(trainer, config: Path, images: list[Image], settings, models_at) -> Stage:
    arguments = ["--dataset_config", config, "--text_encoder", models_at["text_encoder"]]
    arguments += ["--batch_size", settings["batch_size"], "--model_version", MODEL_VERSION]
    arguments += _fp8_text_encoder(settings)
    caches = [image.path.with_name(f"{image.path.stem}_qi_te.safetensors") for image in images]
    title = "Caching text encoder outputs"
    return _stage(trainer, "text_encoder", title, TEXT_ENCODER, arguments, config.parent, caches)


def _fp8_text_encoder(settings: Settings) -> list[str]:
    return ["--fp8_vl"] if presets.BY_ID[settings["vram_profile"]].fp8_text_encoder else []


def _training(trainer, config: Path, folder: Path, settings, models_at, words: list[str]) -> Stage:
    """Musubi's parser defaults are wrong for Qwen-Image in many places: all is said aloud."""
    arguments = [
        *("--dit", models_at["dit"], "--vae", models_at["vae"]),
        *("--text_encoder", models_at["text_encoder"], "--model_version", MODEL_VERSION),
        *("--dataset_config", config, "--output_dir", folder),
        *("--output_name", settings["output_name"]),
        *("--max_train_epochs", settings["epochs"], "--save_every_n_epochs", 1),
        *("--learning_rate", plain(settings["learning_rate"])),
        *("--optimizer_type", settings["optimizer_type"]),
        *("--network_module", "networks.lora_qwen_image"),
        *("--network_dim", settings["lora_rank"]),
        *("--network_alpha", plain(settings["lora_dims"])),
        *("--seed", settings["seed"], "--mixed_precision", "bf16", "--save_precision", "bf16"),
        *("--timestep_sampling", "qwen_shift", "--weighting_scheme", "none"),
        *_workers(words),
        *_attention(words),
        *[flag for flag in _fp8_text_encoder(settings) if flag not in words],
        *_sampling(folder, settings),
        *words,
    ]
    lora = folder / f"{settings['output_name']}.safetensors"
    return _stage(trainer, "train", "Training the LoRA", TRAIN, arguments, folder, [lora])


def _workers(words: list[str]) -> list:
    """Two workers that stay; not when the flags ask for none, which can't stay (Musubi fails)."""
    asked = " ".join(words).replace("=", " ")
    none = re.search(r"--max_data_loader_n_workers 0+(\s|$)", asked)
    return [] if none else ["--max_data_loader_n_workers", 2, "--persistent_data_loader_workers"]


def _attention(words: list[str]) -> list[str]:
    return [] if any(word in ATTENTION for word in words) else ["--sdpa"]


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


def sample_lines(settings: Settings) -> list[str]:
    """The lines of sample_prompts.txt: trigger filled in, every default written out.

    Without a seed Musubi draws a new one each time, so the training seed is
    given; without a flow shift it takes 14.5, so 2.2 is given.
    """
    given = settings["sample_prompt_text"].replace("{{trigger}}", settings["trigger_word"])
    lines = (" ".join(line.split()) for line in given.splitlines())
    defaults = {**SAMPLE_DEFAULTS, "d": str(settings["seed"])}
    return [_complete(line, defaults) for line in lines if line and not line.startswith("#")]


def _complete(line: str, defaults: dict[str, str]) -> str:
    """One prompt line with the options it leaves out."""
    parts = [part.partition(" ") for part in line.split(" --")[1:]]
    said = {name.lower() for name, _, value in parts if value}
    missing = "".join(f" --{name} {value}" for name, value in defaults.items() if name not in said)
    return line + missing


def plain(number: float) -> str:
    """A number as a person would write it: 128, 5e-05, 0.5."""
    return str(int(number)) if float(number).is_integer() else repr(float(number))
