"""The training script: caches in, LoRA and samples out, in Musubi's order and words."""

from __future__ import annotations

import argparse
import os
import random
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import toml

from musubitlx import options
from musubitlx.practice import bars, caches, codec, metadata, outputs, sampling, tensors
from musubitlx.practice.network import PracticeNetwork, Sizes
from musubitlx.practice.noise import DRAWS, draw_times
from musubitlx.practice.optimizer import Adam, choose_optimizer, practice_rate
from musubitlx.practice.plan import Batch, read_plan
from musubitlx.practice.prompts import Prompt, load_prompts
from musubitlx.practice.schedule import make_schedule

log = bars.logger("training.trainer_base")
script_log = bars.logger("qwen_image_train_network")
lora_log = bars.logger("networks.lora")

WITHOUT_CAPTION = 0.1  # share of the pictures learnt without their caption, for guidance
NETWORK_MODULES = ("networks.lora_qwen_image", "networks.loha", "networks.lokr")
USUAL_RANK = 4  # when --network_dim is left out
MODEL_BLOCKS = 60  # of the real Qwen-Image
STEP_DELAY = "MUSUBITLX_PRACTICE_STEP_DELAY"  # seconds; see the package's docstring


def train() -> None:
    """Run qwen_image_train_network.py; errors end it with a traceback and exit code 1."""
    bars.start_output()
    args = _parse()
    if args.config_file is not None:
        args = _parse(_read_options(args.config_file))
    _check_options(args)
    Trainer(args).run()


def _parse(known: argparse.Namespace | None = None) -> argparse.Namespace:
    return options.build_parser(options.TRAIN).parse_args(namespace=known)


def _read_options(path: str) -> argparse.Namespace:
    """Options from a TOML file, its sections flattened; exit code 1 when it is missing."""
    file = Path(path if path.endswith(".toml") else path + ".toml")
    if not file.exists():
        log.info("%s not found.", file)
        raise SystemExit(1)
    values: dict = {}
    for key, value in toml.loads(file.read_text(encoding="utf-8")).items():
        values |= value if isinstance(value, dict) else {key: value}
    return argparse.Namespace(**values)


def _check_options(args: argparse.Namespace) -> None:
    """Refuse what Musubi refuses before it reads anything."""
    assert not args.fp8_scaled or args.fp8_base, (
        "fp8_scaled requires fp8_base / fp8_scaledはfp8_baseが必要です"
    )
    if args.sage_attn:
        raise ValueError(
            "SageAttention doesn't support training currently. Please use `--sdpa` or"
            " `--xformers` etc. instead."
        )
    if args.log_with == "tensorboard" and args.logging_dir is None:
        raise ValueError("logging_dir is required when log_with is tensorboard")
    if args.logging_dir is not None:
        log.info("practice run: no TensorBoard logs are written")


class Trainer:
    """One run of the training script."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.arch = caches.architecture(args)
        if args.seed is None:
            args.seed = random.SystemRandom().randint(0, 2**32 - 1)
        self.seed = args.seed % 2**64  # NumPy takes no negative ones, Musubi does
        self.order = np.random.default_rng([self.seed, 2])
        self.rng = np.random.default_rng([self.seed, 3])
        self.step = 0
        self.delay_s = float(os.environ.get(STEP_DELAY) or 0)

    def run(self) -> None:
        """Train from the first line to `model saved.`"""
        log.info("Load dataset config from %s", self.args.dataset_config)
        self.plan = read_plan(self.args.dataset_config, self.arch)
        self.losses: deque[float] = deque(maxlen=self.plan.batches)
        self.prompts = self._prepare_sampling()
        self._load_model()
        self._make_network()
        self._prepare_learning()
        self._announce()
        with bars.steps_bar(self.plan.steps) as self.bar:
            log.info("network weights will be saved as %s", self.outputs.dtype)
            self._sample(0)
            log.info("DiT dtype: float32, device: cpu")
            for epoch in range(1, self.plan.epochs + 1):
                self._run_epoch(epoch)
            self._finish()

    def _prepare_sampling(self) -> list[Prompt] | None:
        """Read the prompts now: later changes of the file have no effect, as in Musubi."""
        log.info("preparing accelerator")
        print("accelerator device: cpu")
        path = self.args.sample_prompts
        if path is None:
            return None
        script_log.info("cache Text Encoder outputs for sample prompt: %s", path)
        prompts = load_prompts(path)
        for prompt in prompts:
            for text in (prompt.prompt, prompt.negative_prompt):
                script_log.info("cache Text Encoder outputs for prompt: %s with image: None", text)
        script_log.info("Loading VAE model from %s", self.args.vae)
        return prompts

    def _load_model(self) -> None:
        """Say what Musubi says while it loads the model, and refuse what it refuses then."""
        args = self.args
        log.info("Loading DiT model from %s", args.dit)
        if not (args.sdpa or args.flash_attn or args.xformers or args.flash3):
            raise ValueError(
                "either --sdpa, --flash-attn, --flash3, --sage-attn or --xformers must be specified"
            )
        assert (args.blocks_to_swap or 0) < MODEL_BLOCKS, (
            f"Cannot swap more than {MODEL_BLOCKS - 1} blocks. Requested {args.blocks_to_swap}."
        )
        log.info("practice run: the model files are not needed and were not opened")

    def _make_network(self) -> None:
        args = self.args
        print(f"import network module: {args.network_module}")
        if args.network_module not in NETWORK_MODULES:
            raise ModuleNotFoundError(f"No module named '{args.network_module}'")
        if args.network_dim is None:
            args.network_dim = USUAL_RANK
        self.network = PracticeNetwork(args.network_dim, args.network_alpha, self.seed)
        rank, alpha, count = self.network.rank, self.network.alpha, len(self.network.layers)
        lora_log.info("create LoRA network. base dim (rank): %d, alpha: %s", rank, alpha)
        lora_log.info("create LoRA for U-Net/DiT: %d modules.", count)
        lora_log.info("enable LoRA for U-Net: %d modules", count)
        if args.network_weights is not None:
            self.network.load(tensors.load(args.network_weights)[0])
            print(f"load network weights from {args.network_weights}: <All keys matched>")

    def _prepare_learning(self) -> None:
        args = self.args
        print("prepare optimizer, data loader etc.")
        self.optimizer_name, kwargs = choose_optimizer(args)
        self.optimizer = Adam(self.network.parameters, kwargs)
        if args.persistent_data_loader_workers and args.max_data_loader_n_workers == 0:
            raise ValueError("persistent_workers option needs num_workers > 0")
        self.plan.set_length(args)
        self.rate = make_schedule(args, self.plan.steps)
        self.outputs = outputs.Outputs(args, self.network, self.optimizer)
        self.rate_offset = self.outputs.load_state(args.resume) if args.resume else 0

    def _announce(self) -> None:
        args, plan = self.args, self.plan
        sizes = ", ".join(str(dataset.batch_size) for dataset in plan.datasets)
        accumulation = args.gradient_accumulation_steps
        print("running training / 学習開始")
        print(f"  num train items / 学習画像、動画数: {plan.pictures}")
        print(f"  num batches per epoch / 1epochのバッチ数: {plan.batches}")
        print(f"  num epochs / epoch数: {plan.epochs}")
        print(f"  batch size per device / バッチサイズ: {sizes}")
        print(f"  gradient accumulation steps / 勾配を合計するステップ数 = {accumulation}")
        print(f"  total optimization steps / 学習ステップ数: {plan.steps}")
        self.metadata = metadata.training_metadata(args, self.arch, plan, self.optimizer_name)

    def _run_epoch(self, epoch: int) -> None:
        print(f"\nepoch {epoch}/{self.plan.epochs}")
        batches = self.plan.epoch_batches(self.order)
        together = self.args.gradient_accumulation_steps
        for start in range(0, len(batches), together):
            self._learn(batches[start : start + together])
            self._advance(epoch)
            self.bar.set_postfix(avr_loss=sum(self.losses) / len(self.losses))
            if self.step >= self.plan.steps:
                break
        self._end_epoch(epoch)

    def _learn(self, batches: list[Batch]) -> None:
        """One step of the optimizer, on the mean gradient of the batches."""
        total = np.zeros_like(self.network.gradients)
        for batch in batches:
            self.losses.append(self._backward(batch))
            total += self.network.gradients / np.float32(len(batches))
        rate = practice_rate(self.rate(self.rate_offset + self.step))
        self.optimizer.step(total, rate, self.args.max_grad_norm)
        time.sleep(self.delay_s)

    def _backward(self, batch: Batch) -> float:
        """Loss and gradients of the velocity prediction for a batch, DRAWS noise levels each.

        The velocity is noise - picture; the network's is (noisy - its picture) / time,
        so their difference is that of the pictures over time.
        """
        rows = [item for item in batch for _ in range(DRAWS)]
        sizes = Sizes([item.size for item in rows])
        picture = np.stack([item.picture for item in rows])
        caption = np.stack([item.caption for item in rows])
        caption *= self.rng.random((len(rows), 1), np.float32) >= WITHOUT_CAPTION
        time_now = draw_times(self.args, self.rng, len(batch))[:, None]
        noise = self.rng.standard_normal((len(rows), codec.SIZE), np.float32) * sizes.mask
        noisy = picture + time_now * (noise - picture)
        guess = self.network.predict(noisy, time_now[:, 0], caption, sizes)
        error = (guess - picture) * sizes.mask / time_now
        share = 1 / (sizes.numbers * len(rows))[:, None]
        self.network.backward(2 * error * share / time_now)
        return float(np.sum(error * error * share))

    def _advance(self, epoch: int) -> None:
        """Count the step; make the samples and checkpoints that are due by steps."""
        if self.step == 0:
            self.bar.reset()  # as Musubi does: the first step is left out of the timing
        self.bar.update(1)
        self.step += 1
        if sampling.is_due(self.args, self.step, None):
            sampling.make_samples(self.args, self.network, self.prompts, self.step, None)
        every = self.args.save_every_n_steps
        if every is not None and self.step % every == 0:
            self._save_at_step(every, epoch - 1)  # Musubi counts epochs from 0 here

    def _save_at_step(self, every: int, epoch: int) -> None:
        args, name = self.args, outputs.step_name(self.args.output_name, self.step)
        self._save_lora(name, epoch)
        if args.save_state:
            self._save_state(name, f"saving state at step {self.step}")
            kept = args.save_last_n_steps_state or args.save_last_n_steps
            old = outputs.old_step(self.step, every, kept)
            self._remove(self.outputs.remove_state, outputs.step_name, old)
        old = outputs.old_step(self.step, every, args.save_last_n_steps)
        self._remove(self.outputs.remove_lora, outputs.step_name, old)

    def _end_epoch(self, epoch: int) -> None:
        """Checkpoint, state and samples that are due by epochs."""
        every = self.args.save_every_n_epochs
        if every is not None and epoch % every == 0 and epoch < self.plan.epochs:
            self._save_at_epoch(every, epoch)
        self._sample(epoch)

    def _save_at_epoch(self, every: int, epoch: int) -> None:
        args, name = self.args, outputs.epoch_name(self.args.output_name, epoch)
        self._save_lora(name, epoch)
        old = outputs.old_epoch(epoch, every, args.save_last_n_epochs)
        self._remove(self.outputs.remove_lora, outputs.epoch_name, old)
        if args.save_state:
            self._save_state(name, f"saving state at epoch {epoch}")
            kept = args.save_last_n_epochs_state or args.save_last_n_epochs
            old = outputs.old_epoch(epoch, every, kept)
            self._remove(self.outputs.remove_state, outputs.epoch_name, old)

    def _finish(self) -> None:
        args = self.args
        if args.save_state or args.save_state_on_train_end:
            self._save_state(str(args.output_name), "saving last state.")
        self._save_lora(args.output_name, self.plan.epochs)
        log.info("model saved.")

    def _sample(self, epoch: int) -> None:
        if sampling.is_due(self.args, self.step, epoch):
            sampling.make_samples(self.args, self.network, self.prompts, self.step, epoch)

    def _save_lora(self, name: str, epoch: int) -> None:
        values = metadata.file_metadata(self.args, self.arch, self.metadata, self.step, epoch)
        self.outputs.save_lora(name, values)

    def _save_state(self, name: str, announcement: str) -> None:
        self.outputs.save_state(name, announcement, self.rng, self.rate_offset + self.step)

    def _remove(self, remove: Callable, make_name: Callable, number: int | None) -> None:
        if number is not None:
            remove(make_name(self.args.output_name, number))
