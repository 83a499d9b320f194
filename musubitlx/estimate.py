"""What a run will take: steps (exact), time, VRAM, RAM, file size, disk. Arithmetic only.

Steps: Musubi Tuner 0.3.4, dataset/bucket.py and the training loop, measured. VRAM: the table
of its docs/qwen_image.md. Time: docs/block_swap.md (11 s a step on an RTX 3090 at 1024x1024,
14 s with the older way of swapping), carried over to other cards by their dense bf16 speed.
Sizes: the layers of the 60 blocks that `networks.lora_qwen_image` trains.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from musubitlx.buckets import Size, area_of, bucket_of
from musubitlx.measured import Load, Measured
from musubitlx.settings import Settings

GB = 1024**3
USUAL_PX = 1024 * 1024  # an image of the tables

# -- steps -----------------------------------------------------------------------------------------


def steps(
    settings: Settings, sizes: Iterable[Size] | Mapping[Size, int], accumulation: int = 1
) -> dict:
    """Count a run over images of these sizes (px): steps_per_epoch, steps, looks_per_image.

    Of a mapping the values are how many images have that size. `accumulation` are Musubi's
    gradient accumulation steps: so many batches make a step.
    """
    area = area_of(settings["resolution"])
    counts: Counter = Counter()
    for size, count in Counter(sizes).items():
        counts[bucket_of(size, area)] += count
    repeats, batch = settings["image_repeats"], settings["batch_size"]
    batches = sum(math.ceil(count * repeats / batch) for count in counts.values())
    per_epoch = math.ceil(batches / max(1, accumulation))
    return {
        "steps_per_epoch": per_epoch,
        "steps": per_epoch * settings["epochs"],
        "looks_per_image": repeats * settings["epochs"],
    }


# -- sizes of files --------------------------------------------------------------------------------

BLOCKS = 60
WIDTH = 3072  # of the DiT; attention 8 layers, 4 of the MLPs to and from 4 x, 2 modulations to 6 x
IN_AND_OUT = 8 * 2 * WIDTH + 4 * 5 * WIDTH + 2 * 7 * WIDTH
LORA_PARAMETERS = BLOCKS * IN_AND_OUT  # for each rank
PRACTICE_PARAMETERS = 10_146  # of the practice network, for each rank
PRECISION_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4, "float": 4}
STATE_BYTES = {"adamw8bit": 6, "adafactor": 5}  # of optimizer state and weight for a parameter
ADAMW_BYTES = 12
TEXT_CACHE_BYTES = 1_000_000  # some 140 tokens of 3584 bf16 numbers


def lora_bytes(rank: int, *, precision: str = "bf16", practice: bool = False) -> int:
    """The size of a LoRA file."""
    count = PRACTICE_PARAMETERS if practice else LORA_PARAMETERS
    return rank * count * PRECISION_BYTES.get(precision, 4) + (8_000 if practice else 150_000)


@dataclass(frozen=True)
class Kept:
    """Which files a run leaves: how many checkpoints (the last one included) and states at most."""

    checkpoints: int
    states: int


def kept(settings: Settings, flags: dict, total_steps: int) -> Kept:
    """Count the checkpoints and states of a run; `flags` maps options to values."""
    every_epochs = flags.get("--save_every_n_epochs") or 1
    by_epochs = max(0, math.ceil(settings["epochs"] / every_epochs) - 1)
    by_steps = 0
    if every := flags.get("--save_every_n_steps"):
        by_steps = max(0, math.ceil(total_steps / every) - 1)
    epochs_left, steps_left = by_epochs, by_steps
    if last := flags.get("--save_last_n_epochs"):
        epochs_left = min(by_epochs, math.ceil(last / every_epochs) + 1)
    if (last := flags.get("--save_last_n_steps")) and every:
        steps_left = min(by_steps, math.ceil(last / every) + 1)
    states = 0
    if flags.get("--save_state"):
        states = epochs_left + steps_left + 1
        if last := flags.get("--save_last_n_epochs_state"):
            states = min(by_epochs, math.ceil(last / every_epochs) + 1) + steps_left + 1
    elif flags.get("--save_state_on_train_end"):
        states = 1
    return Kept(epochs_left + steps_left + 1, states)


def disk(settings: Settings, flags: dict, images: int, total_steps: int, load: Load) -> dict:
    """What a run writes, in bytes: checkpoints, states, caches, samples (PNG), and the sum."""
    files = kept(settings, flags, total_steps)
    precision = flags.get("--save_precision") or "bf16"
    lora = lora_bytes(load.rank, precision=precision, practice=load.practice)
    state = lora_bytes(load.rank, precision="fp32", practice=load.practice)
    state = state * (1 + _state_bytes(load) / 4)
    parts = {
        "checkpoints": files.checkpoints * lora,
        "states": round(files.states * state),
        "caches": images * (load.pixels // 64 * 16 * 2 + TEXT_CACHE_BYTES),
    }
    return {**parts, "all": sum(parts.values()), "lora": lora, "files": files.checkpoints}


def _state_bytes(load: Load) -> int:
    return STATE_BYTES.get(load.optimizer.lower(), ADAMW_BYTES) - 4


# -- memory ----------------------------------------------------------------------------------------

TABLE_FP8 = ((0, 30.0), (16, 24.0), (45, 12.0))  # blocks swapped -> GB, at 1024x1024, batch 1
TABLE_BF16 = ((0, 42.0),)
BLOCK_GB = {True: 0.34, False: 0.68}  # one block in fp8 and in bf16
TABLE_OPTIMIZER_BYTES = 147e6 * 10  # in the table: rank 16 with AdamW8bit, gradients included
ACTIVATIONS_GB = 3.0  # of the table, grows with the pixels in a step
WITHOUT_CHECKPOINTING = 12  # times as many activations
OFFLOADED_GB = 1.5  # of them when they are moved to RAM
RAM_BASE_GB = 8.0  # the program, its workers, what loading needs
TEXT_ENCODER_GB = 17.0  # read into RAM while captions are encoded


def vram_gb(load: Load) -> float:
    """VRAM a run needs by Musubi's table, in GB of 1024³; for the practice trainer 0."""
    if load.practice:
        return 0.0
    weights = _between(TABLE_FP8 if load.fp8 else TABLE_BF16, load.blocks, BLOCK_GB[load.fp8])
    optimizer = load.rank * LORA_PARAMETERS * (8 + _state_bytes(load))  # weight and gradient: 8
    activations = ACTIVATIONS_GB * load.size / USUAL_PX
    if not load.checkpointing:
        activations *= WITHOUT_CHECKPOINTING
    elif load.cpu_offload:
        activations -= OFFLOADED_GB * load.size / USUAL_PX
    extra = (optimizer - TABLE_OPTIMIZER_BYTES) / GB
    return max(4.0, weights + activations - ACTIVATIONS_GB + extra)


def _between(table: tuple, blocks: int, block_gb: float) -> float:
    """A row of the table, a value between two, or beyond the last by what a block takes."""
    for (low, from_gb), (high, to_gb) in pairwise(table):
        if blocks <= high:
            return from_gb + (to_gb - from_gb) * (blocks - low) / (high - low)
    return table[-1][1] - (blocks - table[-1][0]) * block_gb


def ram_gb(load: Load) -> float:
    """RAM a run needs, in GB of 1024³: swapped blocks, or the text encoder where that is more."""
    if load.practice:
        return 0.0
    offloaded = OFFLOADED_GB * load.size / USUAL_PX if load.cpu_offload else 0
    return max(RAM_BASE_GB + load.blocks * BLOCK_GB[load.fp8] + offloaded, TEXT_ENCODER_GB)


# -- time ------------------------------------------------------------------------------------------

STEP_TFLOP = 780  # one image of 1024x1024: 11 s on an RTX 3090, which has 71 TFLOPS
FASTEST_S = 0.9  # no card keeps its whole speed on steps this short
PCIE_GB_S = 12  # swapped blocks cross the bus twice in a step, however small the images are
OLD_SWAP = 1.27  # 14 s for 11 s, with 40 blocks swapped
PRACTICE_STEP_S = 0.004
SAMPLE_SHARE = 0.3  # a forward pass without gradients, of a training step
FIXED_S = {"latents": 25, "text_encoder": 60, "train": 150}  # imports, and loading the models
IMAGE_S = {"latents": 0.5, "text_encoder": 0.3}  # for each
PRACTICE_FIXED_S = {"latents": 0.3, "text_encoder": 0.3, "train": 0.6}

# Dense bf16 TFLOPS with fp32 sums, by the makers' data sheets; the first name that fits counts.
CARDS = (
    (r"5090", 209), (r"5080", 113), (r"5070 ?Ti", 88), (r"5070", 62), (r"5060 ?Ti", 47),
    (r"5060", 38), (r"4090", 165), (r"4080", 98), (r"4070 ?Ti", 80), (r"4070", 58),
    (r"4060 ?Ti", 44), (r"4060", 30), (r"3090 ?Ti", 80), (r"3090", 71), (r"3080", 60),
    (r"3070", 41), (r"3060 ?Ti", 32), (r"3060", 26), (r"B200", 2250), (r"H200|H100|GH200", 900),
    (r"A100", 312), (r"L40S|RTX 6000 Ada|PRO 6000", 362), (r"L40|A6000|A40", 155), (r"L4\b", 60),
    (r"A5000|A10\b", 115), (r"A4500", 95), (r"A4000", 77),
)  # fmt: skip
UNKNOWN_CARDS = ((15, 26), (22, 44), (40, 100))  # GB up to which -> TFLOPS of what is usual there
UNKNOWN_LARGE = 300


def step_seconds(load: Load, gpu: str | None, total_gb: float | None) -> float:
    """A guess at the seconds of a step, by the card's name, else by its VRAM."""
    if load.practice:
        return PRACTICE_STEP_S * load.batch
    counting = STEP_TFLOP / _tflops(gpu, total_gb) * load.size / USUAL_PX
    moving = 2 * load.blocks * BLOCK_GB[load.fp8] / PCIE_GB_S
    step = max(FASTEST_S, counting, moving)
    if load.blocks and not load.h2d_only:
        step *= 1 + (OLD_SWAP - 1) * min(1, load.blocks / 40)
    return step


def _tflops(gpu: str | None, total_gb: float | None) -> float:
    for pattern, tflops in CARDS:
        if gpu and re.search(pattern, gpu, re.IGNORECASE):
            return tflops
    for limit, tflops in UNKNOWN_CARDS:
        if (total_gb or 0) < limit:
            return tflops
    return UNKNOWN_LARGE


@dataclass(frozen=True)
class Work:
    """What there is to do besides steps: caches to make, and pixels of samples to draw.

    `samples` are pixels x sampling steps x passes (2 with guidance), of all samples.
    """

    latents: int
    texts: int
    samples: float


def seconds(load: Load, total_steps: int, step_s: float, work: Work) -> float:
    """The time of a run from click to LoRA, caching, loading and samples included."""
    fixed = PRACTICE_FIXED_S if load.practice else FIXED_S
    per_image = {"latents": 0.01, "text_encoder": 0.001} if load.practice else IMAGE_S
    total = fixed["train"] + total_steps * step_s
    if work.latents:
        total += fixed["latents"] + work.latents * per_image["latents"] * load.pixels / USUAL_PX
    if work.texts:
        total += fixed["text_encoder"] + work.texts * per_image["text_encoder"]
    share = 0 if load.practice else SAMPLE_SHARE
    return total + share * step_s * work.samples / load.size


# -- all together ----------------------------------------------------------------------------------


def source_of(figure: Measured | None) -> str:
    """Where a figure is from: `measured` here, `carried over` from another size, or a `guess`."""
    return "guess" if figure is None else "measured" if figure.same else "carried over"
