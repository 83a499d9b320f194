"""Sample pictures during training: when, under which name, and how they are made."""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
from PIL import Image

from musubitlx.practice import bars, captions, codec
from musubitlx.practice.network import PracticeNetwork, Sizes
from musubitlx.practice.noise import shift_times
from musubitlx.practice.prompts import Prompt

log = bars.logger("training.trainer_base")
script_log = bars.logger("qwen_image_train_network")

# A guidance scale of 4 suits Qwen-Image; the practice network needs less of it.
GUIDANCE_SHARE = 0.15  # of what the scale is above 1


def is_due(args: argparse.Namespace, step: int, epoch: int | None) -> bool:
    """Whether samples are made now, by Musubi's rules; `epoch` only at the end of one.

    ZeroDivisionError when an interval is 0.
    """
    if step == 0:
        return bool(args.sample_at_first)
    by_steps, by_epochs = args.sample_every_n_steps, args.sample_every_n_epochs
    if by_steps is not None and step % by_steps == 0:
        return True
    return by_epochs is not None and epoch is not None and epoch % by_epochs == 0


def make_samples(
    args: argparse.Namespace,
    network: PracticeNetwork,
    prompts: list[Prompt] | None,
    step: int,
    epoch: int | None,
) -> None:
    """Sample every prompt into `<output_dir>/sample`; without prompts only an error line."""
    log.info("")
    log.info("generating sample images at step / サンプル画像生成 ステップ: %d", step)
    if prompts is None:
        log.error("No prompt file / プロンプトファイルがありません: %s", args.sample_prompts)
        return
    folder = Path(args.output_dir, "sample")
    folder.mkdir(parents=True, exist_ok=True)
    for prompt in prompts:
        _announce(prompt)
        picture = draw(network, prompt)
        script_log.info("Decoding video from latents: %s", [1, 3, 1, *picture.shape[:2]])
        name = file_name(args.output_name, prompt, step, epoch)
        _enlarge(picture, (prompt.width, prompt.height)).save(folder / name)
        script_log.info("Decoding complete")


def file_name(output_name: str | None, prompt: Prompt, step: int, epoch: int | None) -> str:
    """Musubi's name for a sample made now."""
    when = f"{step:06d}" if epoch is None else f"e{epoch:06d}"
    parts = [when, f"{prompt.index:02d}", time.strftime("%Y%m%d%H%M%S")]
    if output_name is not None:
        parts.insert(0, output_name)
    if prompt.seed is not None:
        parts.append(str(prompt.seed))
    return "_".join(parts) + "_000.png"


def draw(network: PracticeNetwork, prompt: Prompt) -> np.ndarray:
    """Follow the learnt velocity from noise to a picture (height, width, 3; about -1 to 1)."""
    width, height = codec.practice_size(prompt.width, prompt.height)
    sizes = Sizes([(width, height)])
    rng = np.random.default_rng(prompt.seed)
    noisy = rng.standard_normal((1, codec.SIZE), np.float32) * sizes.mask
    times = shift_times(np.linspace(1, 0, prompt.sample_steps + 1), prompt.discrete_flow_shift)
    for now, later in bars.denoising(list(itertools.pairwise(times))):
        clean = _guided(network, noisy, now, prompt, sizes)
        velocity = (noisy - clean) / np.float32(now)
        noisy = (noisy + np.float32(later - now) * velocity) * sizes.mask
    return codec.decode(noisy[0], width, height)


def _guided(
    network: PracticeNetwork, noisy: np.ndarray, now: float, prompt: Prompt, sizes: Sizes
) -> np.ndarray:
    """The clean picture the network believes in, pushed away from the negative prompt."""
    time_now = np.full(1, now, np.float32)
    wanted = network.predict(noisy, time_now, captions.embed(prompt.prompt)[None], sizes)
    if prompt.cfg_scale <= 1:
        return wanted
    negative = captions.embed(prompt.negative_prompt)[None]
    unwanted = network.predict(noisy, time_now, negative, sizes)
    return wanted + np.float32(GUIDANCE_SHARE * (prompt.cfg_scale - 1)) * (wanted - unwanted)


def _enlarge(picture: np.ndarray, size: tuple[int, int]) -> Image.Image:
    pixels = np.rint((np.clip(picture, -1, 1) + 1) * 127.5).astype(np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def _announce(prompt: Prompt) -> None:
    rows = [
        ("prompt", prompt.prompt),
        ("height", prompt.height),
        ("width", prompt.width),
        ("frame count", prompt.frame_count),
        ("sample steps", prompt.sample_steps),
        ("guidance scale", prompt.guidance_scale),
        ("discrete flow shift", prompt.discrete_flow_shift),
        ("seed", prompt.seed),
        ("negative prompt", prompt.negative_prompt),
        ("cfg scale", prompt.cfg_scale),
    ]
    for name, value in rows:
        if value is not None:
            log.info("%s: %s", name, value)
