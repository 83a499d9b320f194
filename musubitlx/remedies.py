"""From what went wrong with a training to a way out: settings that put it right.

A fix changes only what it must; flags of one's own that are not about it stay.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from musubitlx import estimate, flags, presets
from musubitlx.diagnose import Diagnosis
from musubitlx.flagrules import ATTENTION
from musubitlx.health import SIDES_PX
from musubitlx.measured import Load
from musubitlx.options import TRAIN, Table

GAIN_GB = 1.0  # of VRAM that another profile must save at least, by the table
SLACK = 0.95  # of the card's VRAM may be used


@dataclass(frozen=True)
class Fix:
    """A way out, as a button: `settings`, by name, are what changes.

    `starts`: a run may be started with them at once; else a person has to do something
    first, perhaps at the `field`.
    """

    label: str
    settings: dict = field(default_factory=dict)
    starts: bool = True
    field: str | None = None


@dataclass(frozen=True)
class Run:
    """A training that failed: what it was asked to do, and where it stood."""

    settings: dict
    load: Load
    stage: str
    argv: list[str]  # of the stage
    table: Table
    vram: int | None = None  # bytes of the card, None where there is none

    @property
    def line(self) -> str:
        """Its advanced flags, those of the profile where none were typed."""
        own = self.settings["advanced_flags"]
        return self.profile_line(self.profile) if own is None else own

    @property
    def profile(self) -> presets.Profile:
        """Its VRAM profile."""
        return presets.BY_ID[self.settings["vram_profile"]]

    def profile_line(self, profile: presets.Profile) -> str:
        """The flags of a profile for its Musubi."""
        return profile.line(lambda name: self.table.knows(TRAIN, name))

    def with_profile(self, profile: presets.Profile) -> tuple[dict, Load]:
        """The settings that change with another profile, and what the run would ask then."""
        theirs = flags.read(self.profile_line(profile), self.table)
        if self.settings["advanced_flags"] is None:
            return {"vram_profile": profile.id, "advanced_flags": None}, self.load.with_flags(
                theirs.values
            )
        line = flags.with_memory_of(flags.read(self.line, self.table), theirs)
        values = flags.read(line, self.table).values
        return {"vram_profile": profile.id, "advanced_flags": line}, self.load.with_flags(values)


def fix(found: Diagnosis, run: Run) -> Fix | None:
    """The way out of a failure, None where the page has none to offer. Never raises."""
    with suppress(KeyError, ValueError, TypeError, AttributeError):  # settings of another version
        if way := WAYS.get(found.code):
            return way(found, run)
    return None


def of_nan(settings: dict) -> Fix | None:
    """The way out while the loss is no number: a run with half the learning rate."""
    with suppress(KeyError, TypeError):
        rate = float(f"{settings['learning_rate'] / 2:.3g}")
        return Fix(
            f"Start again with half the learning rate ({_rate(rate)})", {"learning_rate": rate}
        )
    return None


def as_dict(way: Fix | None) -> dict | None:
    """The fix as the job's record holds it."""
    return asdict(way) if way else None


def _rate(rate: float) -> str:
    """A learning rate as one types it: 2.5e-5."""
    return f"{rate:g}".replace("e-0", "e-")


# -- VRAM and RAM ----------------------------------------------------------------------------------


def _less_vram(found: Diagnosis, run: Run) -> Fix | None:
    if run.stage == "latents":
        return _smaller_images(run)
    if run.stage == "text_encoder":
        return _fp8_text_encoder(run)
    return _smaller_profile(run) or _smaller_batch(run) or _smaller_images(run)


def _smaller_profile(run: Run) -> Fix | None:
    """The fastest profile that needs less than the run did."""
    needs = _vram_gb(run.load)
    for profile in reversed(presets.PROFILES):
        settings, load = run.with_profile(profile)
        if _vram_gb(load) <= needs - GAIN_GB:
            return Fix(f"Start again with {_name(profile)}", settings)
    return None


def _fp8_text_encoder(run: Run) -> Fix | None:
    if run.profile.fp8_text_encoder:
        return None
    profile = [one for one in presets.PROFILES if one.fp8_text_encoder][-1]
    return Fix(f"Start again with {_name(profile)}", run.with_profile(profile)[0])


def _smaller_batch(run: Run) -> Fix | None:
    batch = run.settings["batch_size"]
    if batch < 2:
        return None
    return Fix(f"Start again with batch size {batch // 2}", {"batch_size": batch // 2})


def _smaller_images(run: Run) -> Fix | None:
    width, height = map(int, run.settings["resolution"].split("x"))
    for side in reversed(SIDES_PX):
        if side * side < 0.9 * width * height:
            size = f"{side}x{side}"
            return Fix(f"Start again at {size} px", {"resolution": size})
    return None


def _less_ram(found: Diagnosis, run: Run) -> Fix:
    """The profile that swaps the most blocks while it swaps fewer, if the card has room for it."""
    for profile in presets.PROFILES:
        settings, load = run.with_profile(profile)
        fits = run.vram and _vram_gb(load) * estimate.GB <= SLACK * run.vram
        if run.stage == "train" and load.blocks < run.load.blocks and fits:
            return Fix(f"Start again with {_name(profile)}", settings)
    return KEEP


def _vram_gb(load: Load) -> float:
    return estimate.vram_gb(replace(load, practice=False))


def _name(profile: presets.Profile) -> str:
    size, _, words = profile.label.split(" (")[0].partition(" – ")
    return f"the {size} profile" if words else profile.label


# -- flags -----------------------------------------------------------------------------------------


def _with_flags(
    label: str, changes: dict[str, str | None], *, without: tuple[str, ...] = ()
) -> Callable[[Diagnosis, Run], Fix]:
    """A fix that sets options, or takes them out (`without`)."""

    def way(found: Diagnosis, run: Run) -> Fix:
        line = without_options(run.line, (*changes, *without))
        words = [word for option in changes.items() for word in option if word is not None]
        return Fix(label, {"advanced_flags": " ".join(filter(None, [line, shlex.join(words)]))})

    return way


def without_options(line: str, names: tuple[str, ...]) -> str:
    """A line of flags without some options and their values; ValueError if it can't be split."""
    kept, leaving = [], False
    for word in shlex.split(line.replace("\\\n", " ")):
        if word.startswith("--"):
            leaving = word.partition("=")[0] in names
        if not leaving:
            kept.append(word)
    return shlex.join(kept)


def _without_unknown(found: Diagnosis, run: Run) -> Fix | None:
    names = tuple(
        word.partition("=")[0] for word in found.names["name"].split() if word.startswith("--")
    )
    line = without_options(run.line, names)
    if run.settings["advanced_flags"] is None or not names or line == without_options(run.line, ()):
        return None
    return Fix(f"Start again without {', '.join(names)}", {"advanced_flags": line})


# -- model files and images ------------------------------------------------------------------------

MODELS = {"--dit": "dit", "--vae": "vae", "--text_encoder": "text_encoder"}
READ_BY = {"latents": "vae", "text_encoder": "text_encoder", "train": "dit"}
NETWORKS = {"AutoencoderKL": "vae", "QwenImageTransformer": "dit", "Qwen2": "text_encoder"}


def _show_model(found: Diagnosis, run: Run) -> Fix:
    return Fix("Show the model file", starts=False, field=f"models.{_model(found, run)}")


def _model(found: Diagnosis, run: Run) -> str:
    """Which of the three files the error is about: the one it names, else the stage's own."""
    named = Path(found.names.get("name", "")).name
    given = list(zip(run.argv, run.argv[1:], strict=False))
    for option, path in given:
        if option in MODELS and named and Path(path).name == named:
            return MODELS[option]
    for word, model in NETWORKS.items():
        if word in found.evidence:
            return model
    return READ_BY[run.stage]


def _only(way: Fix | None) -> Callable[[Diagnosis, Run], Fix | None]:
    return lambda found, run: way


AGAIN = Fix("Start again")
KEEP = Fix("Put these settings into the form", starts=False)
SHOW_FLAGS = Fix("Show the flags", starts=False, field="advanced_flags")
SHOW_IMAGES = Fix("Show the images", starts=False, field="images")
SHOW_CAPTIONS = Fix("Show the captions", starts=False, field="captions")


def _without_samples(found: Diagnosis, run: Run) -> Fix:
    """Without samples the training itself needs no tokenizer."""
    if run.stage == "train" and run.settings["samples_enabled"]:
        return Fix("Start again without samples", {"samples_enabled": False})
    return AGAIN


WORKERS, PERSISTENT = "--max_data_loader_n_workers", "--persistent_data_loader_workers"
WAYS: dict[str, Callable[[Diagnosis, Run], Fix | None]] = {
    "gpu_out_of_memory": _less_vram,
    **dict.fromkeys(("killed", "out_of_ram", "ram_full"), _less_ram),
    "nan_loss": lambda found, run: of_nan(run.settings),
    "bitsandbytes_missing": _only(Fix("Start again with AdamW", {"optimizer_type": "AdamW"})),
    "bad_optimizer": _only(Fix("Start again with AdamW", {"optimizer_type": "AdamW"})),
    **dict.fromkeys(
        ("missing_model_file", "wrong_model_file", "broken_model_file"),
        _show_model,
    ),
    "tokenizer_offline": _without_samples,
    "unknown_option": _without_unknown,
    "attention_missing": _with_flags(
        "Start again with --sdpa",
        {"--sdpa": None},
        without=(*ATTENTION, "--split_attn", "--sage_attn", "--flash3"),
    ),
    "no_attention": _with_flags("Start again with --sdpa", {"--sdpa": None}),
    "workers_died": _with_flags("Start again with one data loader worker", {WORKERS: "1"}),
    "too_many_files": _with_flags("Start again with one data loader worker", {WORKERS: "1"}),
    "workers_zero": _with_flags("Start again with one data loader worker", {WORKERS: "1"}),
    "shared_memory_full": _with_flags(
        "Start again without data loader workers", {WORKERS: "0"}, without=(PERSISTENT,)
    ),
    "too_many_blocks_swapped": _with_flags(
        "Start again with 45 blocks swapped", {"--blocks_to_swap": "45"}
    ),
    "fp8_scaled_without_base": _with_flags("Start again with --fp8_base", {"--fp8_base": None}),
    "dim_from_weights": _with_flags(
        "Start again without --dim_from_weights", {}, without=("--dim_from_weights",)
    ),
    "missing_state": _with_flags("Start again without --resume", {}, without=("--resume",)),
    **dict.fromkeys(
        ("bad_option", "bad_scheduler", "bad_network_module", "every_zero", "wrong_weights"),
        _only(SHOW_FLAGS),
    ),
    **dict.fromkeys(
        ("unreadable_image", "image_too_small", "no_images", "no_training_items"),
        _only(SHOW_IMAGES),
    ),
    "caption_not_utf8": _only(SHOW_CAPTIONS),
    **dict.fromkeys(("crashed", "terminated", "interrupted", "gpu_fault"), _only(AGAIN)),
    **dict.fromkeys(
        (
            *("disk_full", "no_permission", "gpu_busy", "no_gpu", "gpu_driver_too_old"),
            *("gpu_not_supported", "module_missing", "musubi_not_installed", "missing_file"),
        ),
        _only(KEEP),
    ),
}
