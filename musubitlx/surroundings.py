"""Whether the machine can take a run: VRAM, RAM, disk, other programs, packages, tokenizer.

What would surely fail is an error. What follows from estimates is a warning: they may be
wrong, and a person may know better.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from urllib import request
from urllib.parse import urlsplit

from musubitlx import estimate, musubi, presets, resources
from musubitlx.errors import Invalid, Offer, UserError
from musubitlx.estimate import GB
from musubitlx.home import RESERVE_BYTES
from musubitlx.hub import endpoint
from musubitlx.measured import Load, Measured
from musubitlx.musubi import Trainer

# An estimate may be so much above what there is. With fp8 the table is on the high side: by it the
# 10 swapped blocks that Musubi's own GUI gives a 24 GB card would need 26 GB. The bf16 weights
# alone are 38 GB.
SLACK = {True: 1.13, False: 1.02}
ADVISED_RAM_GB = 64  # by Musubi, when blocks are swapped
LEAST_RAM_GB = 44  # below this it is worth saying
DESKTOP_BYTES = 1 * GB  # of VRAM in other hands: what a desktop holds, not worth a word
HELD_BYTES = 2 * GB  # worth saying even where there is room
SIDES_PX = (1024, 768, 512)


@dataclass(frozen=True)
class Machine:
    """The machine at one moment: a snapshot of `resources.Poller`, and whether a run of ours
    holds the card now (then what is free says nothing about later)."""

    memory: dict
    busy: bool = False

    @property
    def gpu(self) -> dict | None:
        """The card a run would use: the first that CUDA_VISIBLE_DEVICES leaves visible."""
        return resources.chosen_card(self.memory["gpus"])

    @property
    def gpu_name(self) -> str | None:
        """Its name, None without one."""
        return self.gpu["name"] if self.gpu else None


# -- memory of the card ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """How a run would be with another profile: the settings to change, and its load."""

    profile: presets.Profile
    settings: dict
    load: Load


def vram(
    machine: Machine, load: Load, known: Measured | None, ways: Callable[[], Iterable[Way]]
) -> Iterator[UserError]:
    """Warnings about VRAM.

    `known` is what an earlier run of this very load needed (bytes), `ways` what else
    could be done, the safest first.
    """
    card = machine.gpu
    if load.practice:
        return
    if card is None:
        reason = machine.memory["gpu_reason"] or "No graphics card was found."
        yield UserError(
            f"{reason} Musubi Tuner needs an NVIDIA card to train Qwen-Image.",
            field="vram_profile",
            hint="If there is one, check that nvidia-smi shows it on this machine.",
        )
        return
    need = known.value if known else estimate.vram_gb(load) * GB
    if need > card["total"] * (1 if known else SLACK[load.fp8]):
        yield _too_small(card, load, need, list(ways()), known)
    elif not machine.busy:
        yield from _held(card, need / SLACK[load.fp8])


def _too_small(
    card: dict, load: Load, need: float, ways: list[Way], known: Measured | None
) -> UserError:
    """The card has less than is needed: offer the fastest profile, else the size, that fits.

    Where an earlier run needed more than the table says, all others count as more, too.
    """
    source = "as an earlier run did" if known else "by Musubi’s table"
    text = (
        f"This needs about {need / GB:.0f} GB of VRAM ({source}), and the {card['name']} has "
        f"{card['total'] / GB:.0f} GB: it would run out of memory, or get very slow."
    )
    more = max(1, need / (estimate.vram_gb(load) * GB))

    def fits(other: Load) -> bool:
        slack = 1 if known else SLACK[other.fp8]
        return estimate.vram_gb(other) * GB * more <= card["total"] * slack

    for way in reversed(ways):
        if fits(way.load):
            label = f"Use {way.profile.label.split(' (')[0]}"
            return Offer(text, label=label, settings=way.settings, field="vram_profile")
    safest = ways[0]
    for side in SIDES_PX:
        smaller = replace(safest.load, pixels=side * side, batch=1)
        if smaller.size < load.size and fits(smaller):
            settings = {**safest.settings, "resolution": f"{side}x{side}", "batch_size": 1}
            label = f"Use {side}x{side} and the safest profile"
            return Offer(text, label=label, settings=settings, field="resolution")
    hint = "A smaller rank, AdamW8bit and a smaller resolution need less."
    return UserError(text, field="vram_profile", hint=hint)


def _held(card: dict, need: float) -> Iterator[UserError]:
    """Another program has VRAM of the `need` bytes, or so much that both get slower."""
    used, free = card["used"], card["total"] - card["used"]
    if used < DESKTOP_BYTES or (used < HELD_BYTES and need <= free):
        return
    who = holders(card)
    text = f"{who} hold{'s' if who.count(',') == 0 else ''} {used / GB:.1f} GB of the VRAM"
    if need > free:
        text += f", and this run needs about {need / GB:.0f} of {card['total'] / GB:.0f} GB."
        yield UserError(text, field="vram_profile", hint="End it before you start.")
    else:
        hint = "There is room for both, but both will be slower."
        yield UserError(text + ".", field="vram_profile", hint=hint)


def holders(card: dict) -> str:
    """Who holds VRAM, by name where the driver tells."""
    names = [f"{one['name']} (process {one['pid']})" for one in card.get("processes") or []]
    return ", ".join(names[:3]) if names else "Another program"


# -- RAM and disk ----------------------------------------------------------------------------------


def ram(machine: Machine, load: Load) -> Iterator[UserError]:
    """Warnings about main memory."""
    if load.practice:
        return
    memory = machine.memory["ram"]
    total, available = memory["total"] / GB, (memory["total"] - memory["used"]) / GB
    need = estimate.ram_gb(load)
    of = "the container is allowed" if memory["limit"] == "container" else "this machine has"
    if need > total:
        yield UserError(
            f"This needs about {need:.0f} GB of main memory (RAM), and {of} {total:.0f} GB.",
            field="vram_profile",
            hint="Fewer swapped blocks need less RAM and more VRAM.",
        )
    elif need > available and not machine.busy:
        yield UserError(
            f"This needs about {need:.0f} GB of main memory (RAM), "
            f"and {available:.0f} GB are free.",
            field="vram_profile",
            hint="Close other programs before you start.",
        )
    elif load.blocks and total < LEAST_RAM_GB:
        yield UserError(
            f"Musubi advises {ADVISED_RAM_GB} GB of main memory (RAM) when blocks are swapped; "
            f"{of} {total:.0f} GB.",
            field="vram_profile",
            hint="It may work; a run that fills the RAM is aborted at 95 %.",
        )


def disk(machine: Machine, needed: dict) -> Iterator[UserError]:
    """An error when the disk can't hold what the run writes; `needed` is `estimate.disk`."""
    free = machine.memory["disk"]["free"]
    if free is None or needed["all"] + RESERVE_BYTES <= free:
        return
    files = f"{needed['files']} LoRA files of {_size(needed['lora'])}"
    states = f", {_size(needed['states'])} of training states" if needed["states"] else ""
    yield Invalid(
        f"The run writes about {_size(needed['all'])} ({files}{states}, caches), and the disk has "
        f"{_size(free)} free.",
        field="epochs",
        hint="Free some space, train fewer epochs, or keep fewer checkpoints with "
        "--save_last_n_epochs 2 in the advanced flags.",
    )


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


# -- what Musubi's interpreter has -----------------------------------------------------------------

BY_OPTION = (  # an option that is set -> the package it needs, and how it is got
    ("--xformers", "xformers", "pip install xformers"),
    ("--flash_attn", "flash_attn", "pip install flash-attn"),
    ("--log_with", "tensorboard", "pip install tensorboard"),
    ("--log_with", "wandb", "pip install wandb"),
)


def packages(trainer: Trainer, optimizer: str, flags) -> Iterator[UserError]:
    """Errors for packages a setting needs that the interpreter lacks; `flags` has `.get`."""
    if trainer.practice:
        return
    if optimizer.lower().endswith("8bit") and musubi.lacks(trainer, "bitsandbytes"):
        yield Invalid(
            f"{optimizer} needs the package bitsandbytes, which the Python for Musubi Tuner lacks.",
            field="optimizer_type",
            hint=f"Install it with:  {trainer.python} -m pip install bitsandbytes  "
            "or choose AdamW.",
        )
    for option, package, how in BY_OPTION:
        if _wants(option, package, flags) and musubi.lacks(trainer, package):
            yield Invalid(
                f"{option} needs the package {package}, which the Python for Musubi Tuner lacks.",
                field="advanced_flags",
                hint=f"Install it with:  {trainer.python} -m {how}",
            )


def _wants(option: str, package: str, flags) -> bool:
    value = flags.get(option)
    return value in (package, "all") if option == "--log_with" else bool(value)


# -- the tokenizer ---------------------------------------------------------------------------------

TOKENIZER = ("models--Qwen--Qwen-Image", "tokenizer")
TOKENIZER_FILES = ("vocab.json", "tokenizer.json")
HUB_S = 3.0  # patience for a connection
REMEMBER_S = 30.0


def tokenizer(trainer: Trainer, hub: dict | None, *, ask: bool) -> Iterator[UserError]:
    """Whether Musubi will get the tokenizer, which it takes from the Hugging Face cache or hub.

    `hub` is what Musubi's interpreter says of its hub ({cache, offline}; None: not
    known yet). Only with `ask` is a connection tried; Musubi's own message, when
    there is none, helps nobody.
    """
    if trainer.practice or hub is None or has_tokenizer(Path(hub["cache"])):
        return
    fetch = "huggingface-cli download Qwen/Qwen-Image --include 'tokenizer/*'"
    if hub["offline"]:
        yield Invalid(
            "The tokenizer of Qwen-Image is not in the Hugging Face cache, and HF_HUB_OFFLINE "
            "forbids downloading it.",
            field="musubi",
            hint=f"Unset HF_HUB_OFFLINE for the first run, or fetch it once:  {fetch}",
        )
    elif ask:
        trouble = no_hub(
            "The tokenizer of Qwen-Image is not in the Hugging Face cache, and the hub can't be "
            "reached to download it.",
            field="musubi",
            hint=f"Connect this machine to the network for the first run, set HF_ENDPOINT to a "
            f"mirror, or copy the cache ({hub['cache']}) from a machine where you ran:  {fetch}",
        )
        yield from [trouble] if trouble else []
    else:
        yield UserError(
            "The first run downloads the tokenizer of Qwen-Image (some 10 MB) from Hugging Face.",
            field="musubi",
        )


def has_tokenizer(cache: Path) -> bool:
    """Whether a Hugging Face cache holds the tokenizer, in any revision."""
    snapshots = cache / TOKENIZER[0] / "snapshots"
    try:
        folders = [revision / TOKENIZER[1] for revision in snapshots.iterdir()]
    except OSError:
        return False
    return any((folder / name).is_file() for folder in folders for name in TOKENIZER_FILES)


@lru_cache(maxsize=2)
def hub_answers(_now: int) -> bool:
    """Whether the hub, or the mirror in HF_ENDPOINT, takes a connection.

    Where a proxy leads there, of the environment or of the system, that can't be told and counts
    as yes. UserError if HF_ENDPOINT is no address.
    """
    parts = urlsplit(endpoint())
    proxies = request.getproxies()
    proxied = proxies.get(parts.scheme) or proxies.get("all")
    if proxied and not request.proxy_bypass(parts.hostname):
        return True
    try:
        port = parts.port or (80 if parts.scheme == "http" else 443)
        with socket.create_connection((parts.hostname, port), HUB_S):
            return True
    except (OSError, ValueError):
        return False


def no_hub(text: str, *, field: str, hint: str) -> Invalid | None:
    """The error of a hub that can't be reached, None if it can; of an odd HF_ENDPOINT its own."""
    try:
        if hub_answers(int(time.monotonic() / REMEMBER_S)):
            return None
    except UserError as error:
        text, hint = str(error), error.hint
    return Invalid(text, field=field, hint=hint)
