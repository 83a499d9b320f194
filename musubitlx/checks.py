"""What stands in the way of a run, found before anything is spent, and what the run will take."""

from __future__ import annotations

import math
import os
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from musubitlx import (
    caches,
    commands,
    estimate,
    flags,
    health,
    looks,
    measured,
    models,
    musubi,
    presets,
    prompts,
    surroundings,
)
from musubitlx.commands import Order
from musubitlx.errors import Advice, Invalid, ManyInvalid, UserError, disk_error
from musubitlx.flags import Flags
from musubitlx.home import Home
from musubitlx.jobs import Plan
from musubitlx.musubi import Trainer
from musubitlx.options import Table
from musubitlx.projects import Image, Project
from musubitlx.prompts import Prompts
from musubitlx.settings import Settings
from musubitlx.settings import read as read_settings
from musubitlx.surroundings import Machine, Way


@dataclass(frozen=True)
class Place:
    """Where a run would take place: home folder, trainer, its options, the machine (None: not
    looked at), and the output folders whose captions a model is about to write."""

    home: Home
    trainer: Trainer
    table: Table
    machine: Machine | None = None
    captioned: frozenset[str] = frozenset()


@dataclass
class Check:
    """What was found before a start: all errors and warnings, and the job that would run.

    `kept` says, per caching stage, how its caches stand.
    """

    errors: list[UserError] = field(default_factory=list)
    warnings: list[UserError] = field(default_factory=list)
    plan: Plan | None = None
    estimate: dict | None = None
    kept: dict[str, caches.Found] = field(default_factory=dict)

    def as_dict(self) -> dict:
        """The answer of POST /api/check."""
        stages = self.plan.stages if self.plan else []
        return {
            "errors": [error.as_dict() for error in self.errors],
            "warnings": [warning.as_dict() for warning in self.warnings],
            "stages": [
                {
                    "name": stage.name,
                    "title": stage.title,
                    "command": shlex.join(stage.argv),
                    **self._told_of(stage.name),
                }
                for stage in stages
            ],
            "steps": self.estimate["steps"] if self.estimate else None,
            "estimate": self.estimate,
        }

    def _told_of(self, stage: str) -> dict:
        found = self.kept.get(stage)
        return {
            "skipped": bool(found and not found.stale),
            "note": found.sentence if found else None,
        }


def check(place: Place, given: object, *, starting: bool = False) -> Check:
    """Look for everything that would fail later, wrong settings included, and build the job.

    Nothing is written. A setting that is wrong is looked at no further, and
    without a job that could run there are no stages. Only when `starting` is the
    network looked at, and only for what Musubi would have to download.
    """
    settings, wrong = read_settings(given)
    found = Check(errors=list(wrong))
    project = Project(place.home, settings["output_dir"])
    images = project.images()
    readable = [image for image in images if image.facts]
    if "output_dir" not in [error.field for error in wrong]:
        found.errors += _dataset_errors(project, images, settings)
        found.errors += _folder_errors(project)
    found.errors += _python_errors(place.trainer)
    found.warnings += _image_warnings(readable, settings)
    found.warnings += _being_captioned(place, project)
    paths = _model_paths(place, found)
    given = _flags(place, settings, project.path, found)
    samples = _prompts(settings, found)
    words, values = given.words, given.values
    order = Order(project, readable, settings, place.trainer, paths, words, values, samples.lines)
    found.warnings += _replaced(project, settings)
    found.errors += surroundings.packages(place.trainer, settings["optimizer_type"], order.values)
    if not wrong:
        found.plan = commands.build(order)
        found.kept = _compared(project, found.plan)
        found.errors += _no_caches(found.kept)
        found.errors += _unknown_options(place.table, found.plan, values)
        found.errors += _tokenizer(place, found, settings, starting)
    if readable:
        found.estimate = _estimate(place, order, found, samples)
        found.warnings += _few_images(readable, settings, found.estimate)
        found.errors += flags.beside_steps(values, settings, found.estimate["steps"])
        _look_around(place, order, given, found)
    return found


def plan_training(place: Place, given: object) -> Plan:
    """The job of a training run, or ManyInvalid with everything that stands in its way."""
    found = check(place, given, starting=True)
    if found.errors:
        raise ManyInvalid(found.errors)
    settings = found.plan.settings
    folder = Project(place.home, settings["output_dir"]).path
    take_log(
        found.plan,
        lambda started: commands.log_path(folder, settings["output_name"], started),
    )
    return found.plan


def take_log(plan: Plan, path_at: Callable[[float], Path]) -> None:
    """Create the log, so that it is this run's alone: two may be started in one second.

    `path_at` names it by the time of the start, in seconds since the epoch.
    """
    started = time.time()
    while True:
        try:
            path = path_at(started)
            path.open("x").close()
        except FileExistsError:
            started += 1
        except OSError as error:
            raise disk_error(error, error.filename) from error
        else:
            plan.log = str(path)
            return


# -- images ----------------------------------------------------------------------------------------


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


def _folder_errors(project: Project) -> Iterator[UserError]:
    """A folder in which nothing can be written: caches, samples and LoRA would be lost."""
    if project.exists and not os.access(project.path, os.W_OK | os.X_OK):
        yield Invalid(
            f"The output folder {project.path} can't be written.",
            field="output_dir",
            hint="Check its access rights, and whether its disk is mounted read-only.",
        )


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


def _being_captioned(place: Place, project: Project) -> Iterator[UserError]:
    """Captions that are still to come: a run takes them as they are when it is asked for."""
    if project.name in place.captioned:
        yield UserError(
            "A model is writing captions in this folder, or waits to: this run takes them as they "
            "are now.",
            field="captions",
            hint="Start it once captioning is over.",
        )


# -- Musubi, its files and options -----------------------------------------------------------------


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


def _model_paths(place: Place, found: Check) -> dict[str, str]:
    """Where the model files are; what is missing or broken becomes an error.

    The practice trainer opens none: its commands name the files it would take.
    """
    paths = {}
    for state in models.find(place.home):
        row = state.as_dict()
        paths[row["id"]] = row["path"] or str(place.home.root / row["filename"])
        usable = row["path"] and row["whole"] and not row["problem"]
        if not place.trainer.practice and not usable:
            found.errors.append(
                Invalid(
                    f"{row['label']}: {row['problem'] or 'the file is missing'}",
                    field=f"models.{row['id']}",
                    hint=row["hint"],
                )
            )
    return paths


def _flags(place: Place, settings: Settings, folder: Path, found: Check) -> Flags:
    """The advanced flags, or those of the profile; what is wrong with them becomes an error."""
    line = settings["advanced_flags"]
    if line is None:
        line = profile_line(place.table, settings["vram_profile"])
    read = flags.read(line, place.table, settings, folder)
    found.errors += read.errors
    found.warnings += read.warnings
    return read


def profile_line(table: Table, profile: str) -> str:
    """The flags of a VRAM profile for the Musubi whose options `table` holds."""
    return presets.BY_ID[profile].line(lambda name: table.knows(flags.TRAIN, name))


def _unknown_options(table: Table, plan: Plan, values: dict) -> Iterator[UserError]:
    """Options we would give that this version of Musubi does not know.

    Those among the advanced flags, `values`, have been looked at there.
    """
    for stage in plan.stages:
        names = {word.split("=", 1)[0] for word in stage.argv[2:] if word.startswith("--")}
        script = Path(stage.argv[1]).name
        ours = names - set(values) if script == flags.TRAIN else names
        if unknown := sorted(name for name in ours if not table.knows(script, name)):
            yield _too_old(table, unknown, stage.title)


def _too_old(table: Table, names: list[str], title: str) -> Invalid:
    return Invalid(
        f"{title}: {table.source} has no option {', '.join(names)}.",
        field="musubi",
        hint="Update Musubi Tuner: version 0.3.4 has it.",
    )


def _tokenizer(
    place: Place, found: Check, settings: Settings, starting: bool
) -> Iterator[UserError]:
    """Whether the tokenizer can be had, where this run needs it; a mere word is a warning."""
    texts = found.kept.get("text_encoder")
    if not settings["samples_enabled"] and texts and not texts.stale:
        return
    for told in surroundings.tokenizer(place.trainer, place.table.hub, ask=starting):
        if isinstance(told, Invalid):
            yield told
        else:
            found.warnings.append(told)


def _replaced(project: Project, settings: Settings) -> Iterator[UserError]:
    file = f"{settings['output_name']}.safetensors"
    if (project.path / file).exists():
        yield Invalid(
            f"{file} is there already and will be replaced.",
            field="output_name",
            hint="Choose another name to keep the older LoRA.",
        )


# -- samples ---------------------------------------------------------------------------------------


def _prompts(settings: Settings, found: Check) -> Prompts:
    """The sample prompts as they are written; what is wrong with them becomes an error."""
    text, trigger = settings["sample_prompt_text"], settings["trigger_word"]
    read = prompts.read(text, trigger=trigger, seed=settings["seed"])
    if not settings["samples_enabled"]:
        return read
    found.errors += read.errors
    found.warnings += read.warnings
    if not read.lines and not read.errors:
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
    return read


# -- what it takes ---------------------------------------------------------------------------------


def _compared(project: Project, plan: Plan) -> dict[str, caches.Found]:
    return {
        stage.name: caches.compare(project, stage.caches) for stage in plan.stages if stage.caches
    }


def _no_caches(kept: dict[str, caches.Found]) -> Iterator[UserError]:
    """Files that Musubi would take for caches."""
    for found in kept.values():
        if found.trouble:
            yield Invalid(found.trouble, field="output_dir", hint=caches.RENAME)


def _estimate(place: Place, order: Order, found: Check, samples: Prompts) -> dict:
    """The answer's `estimate`: sizes in bytes, times in seconds, each with where it is from."""
    sizes = [(image.facts.width, image.facts.height) for image in order.images]
    values, load, home = order.values, order.load, place.home
    counted = estimate.steps(
        order.settings, sizes, values.get("--gradient_accumulation_steps") or 1
    )
    gpu, total_gb = _card(place.machine)
    known = measured.seconds_per_step(home, load, gpu)
    step_s = known.value if known else estimate.step_seconds(load, gpu, total_gb)
    vram = measured.vram(home, load, gpu)
    work = _work(order, found, counted["steps"], samples)
    return {
        **counted,
        "seconds_per_step": round(step_s, 4),
        "seconds": round(estimate.seconds(load, counted["steps"], step_s, work), 1),
        "time_source": estimate.source_of(known),
        "vram": round(vram.value if vram else estimate.vram_gb(load) * estimate.GB),
        "vram_source": estimate.source_of(vram) if vram else "Musubi's table",
        "ram": round(estimate.ram_gb(load) * estimate.GB),
        "disk": estimate.disk(order.settings, values, len(sizes), counted["steps"], load),
    }


def _card(machine: Machine | None) -> tuple[str | None, float | None]:
    """Name and GB of the card a run would use, None where there is none."""
    card = machine.gpu if machine else None
    return (card["name"], card["total"] / estimate.GB) if card else (None, None)


def _work(order: Order, found: Check, steps: int, samples: Prompts) -> estimate.Work:
    """What there is to do besides steps."""
    stale = {name: len(kept.stale) for name, kept in found.kept.items()}
    count, drawn = len(order.images), 0
    if order.settings["samples_enabled"]:
        one_set = sum(
            one.width * one.height * one.steps * (2 if one.guidance > 1 else 1)
            for one in samples.prompts
        )
        drawn = one_set * _sample_sets(order.settings, steps)
    return estimate.Work(stale.get("latents", count), stale.get("text_encoder", count), drawn)


def _sample_sets(settings: Settings, steps: int) -> int:
    """How often samples are made in a run."""
    by_epochs, by_steps = settings["sample_every_epochs"], settings["sample_every_steps"]
    sets = settings["epochs"] // by_epochs if by_epochs else 0
    sets += steps // by_steps if by_steps else 0
    return sets + settings["sample_at_first"]


def _look_around(place: Place, order: Order, given: Flags, found: Check) -> None:
    """Whether the machine can take the run; of its memory only when the flags could be read."""
    machine, load = place.machine, order.load
    if machine is None:
        return
    found.errors += surroundings.disk(machine, found.estimate["disk"])
    if not given.errors:
        known = measured.vram(place.home, load, machine.gpu_name)
        ways = partial(_ways, place.table, order, given)
        found.warnings += surroundings.vram(machine, load, known, ways)
        found.warnings += surroundings.ram(machine, load)


def _ways(table: Table, order: Order, given: Flags) -> Iterator[Way]:
    """The run with each of the VRAM profiles; flags of one's own that are not about memory stay."""
    own = order.settings["advanced_flags"] is not None
    for profile in presets.PROFILES:
        theirs = flags.read(profile_line(table, profile.id), table)
        line = flags.with_memory_of(given, theirs) if own else None
        values = flags.read(line, table).values if own else theirs.values
        settings = {"vram_profile": profile.id, "advanced_flags": line}
        yield Way(profile, settings, order.load.with_flags(values))
