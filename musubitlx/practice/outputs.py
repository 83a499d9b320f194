"""What a training leaves in its output folder: LoRA files, states, and which old ones go."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import pickle
import shutil
from pathlib import Path

import numpy as np

from musubitlx.practice import tensors
from musubitlx.practice.bars import logger
from musubitlx.practice.network import PracticeNetwork
from musubitlx.practice.optimizer import Adam

log = logger("utils.train_utils")
accelerator_log = logging.getLogger("accelerate.accelerator")
checkpoint_log = logging.getLogger("accelerate.checkpointing")


class Outputs:
    """Saves one run's files under Musubi's names.

    As in Musubi a missing --output_dir is only found out at the first save (TypeError).
    """

    def __init__(self, args: argparse.Namespace, network: PracticeNetwork, optimizer: Adam):
        self.args, self.network, self.optimizer = args, network, optimizer
        self.dtype = tensors.PRECISIONS[args.save_precision or "fp32"]

    def save_lora(self, name: str, metadata: dict[str, str]) -> None:
        """Write `<name>.safetensors`; the path is printed before it is written."""
        folder = Path(os.fspath(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / (name + ".safetensors")
        print(f"\nsaving checkpoint: {path}")
        arrays = self.network.tensors()
        known = {} if self.args.no_metadata else tensors.hashes(arrays, self.dtype)
        tensors.save(path, arrays, {**metadata, **known}, self.dtype)

    def remove_lora(self, name: str) -> None:
        """Remove an older checkpoint, if it is there."""
        path = Path(self.args.output_dir, name + ".safetensors")
        if path.exists():
            print(f"removing old checkpoint: {path}")
            path.unlink()

    def save_state(self, name: str, announcement: str, rng: np.random.Generator, step: int) -> None:
        """Write the folder `<name>-state`, from which --resume goes on."""
        log.info("")
        log.info(announcement)
        folder = Path(self.args.output_dir, name + "-state")
        folder.mkdir(parents=True, exist_ok=True)
        accelerator_log.info("Saving current state to %s", folder)
        tensors.save(folder / "model.safetensors", self.network.tensors(), {"format": "np"})
        checkpoint_log.info("Model weights saved in %s", folder / "model.safetensors")
        (folder / "optimizer.bin").write_bytes(_pack(self.optimizer.state()))
        checkpoint_log.info("Optimizer state saved in %s", folder / "optimizer.bin")
        (folder / "scheduler.bin").write_text(json.dumps({"step": step}), encoding="utf-8")
        checkpoint_log.info("Scheduler state saved in %s", folder / "scheduler.bin")
        (folder / "random_states_0.pkl").write_bytes(pickle.dumps(rng.bit_generator.state))
        checkpoint_log.info("Random states saved in %s", folder / "random_states_0.pkl")

    def remove_state(self, name: str) -> None:
        """Remove an older state, if it is there."""
        folder = Path(self.args.output_dir, name + "-state")
        if folder.exists():
            log.info("removing old state: %s", folder)
            shutil.rmtree(folder)

    def load_state(self, folder: str) -> int:
        """Take over a state; return the step its learning rate had come to.

        ValueError when the folder is missing or not of the same rank.
        """
        logger("training.trainer_base").info("resume training from local state: %s", folder)
        if not Path(folder).is_dir():
            raise ValueError(f"Tried to find {folder} but folder does not exist")
        accelerator_log.info("Loading states from %s", folder)
        self.network.load(tensors.load(Path(folder, "model.safetensors"))[0])
        checkpoint_log.info("All model weights loaded successfully")
        with np.load(io.BytesIO(Path(folder, "optimizer.bin").read_bytes())) as state:
            self.optimizer.load(dict(state))
        checkpoint_log.info("All optimizer states loaded successfully")
        step = json.loads(Path(folder, "scheduler.bin").read_text(encoding="utf-8"))["step"]
        checkpoint_log.info("All scheduler states loaded successfully")
        checkpoint_log.info("Could not load random states")
        return step


def _pack(arrays: dict[str, np.ndarray]) -> bytes:
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    return packed.getvalue()


def epoch_name(name: str | None, epoch: int) -> str:
    """Name of what is saved at the end of an epoch, counted from 1."""
    return f"{name}-{epoch:06d}"


def step_name(name: str | None, step: int) -> str:
    """Name of what is saved at a step, counted from 1."""
    return f"{name}-step{step:08d}"


def old_epoch(epoch: int, every: int, kept: int | None) -> int | None:
    """The epoch whose files go when those of `epoch` are there; None: nothing goes."""
    old = None if kept is None else epoch - every * kept
    return old if old is not None and old > 0 else None


def old_step(step: int, every: int, kept: int | None) -> int | None:
    """The step whose files go when those of `step` are there; `kept` is a number of steps."""
    if kept is None:
        return None
    old = (step - kept - 1) // every * every
    return old if old > 0 else None
