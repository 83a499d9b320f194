"""The optimizer: Adam with decoupled weight decay, under the names Musubi takes."""

from __future__ import annotations

import argparse
import ast
import math

import numpy as np

from musubitlx.practice.bars import logger

log = logger("training.trainer_base")

# Names torch.optim has; Musubi takes these without a dot, in this spelling.
TORCH_OPTIMIZERS = (
    "ASGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "LBFGS",
    "Muon",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
)
SIMULATED = "practice run: Adam does the work of %s here, no other package is needed"
USUAL_RATE = 5e-5  # a usual --learning_rate for Qwen-Image ...
PRACTICE_RATE = 5e-4  # ... and the rate at which the practice network learns as well
CHUNK = 32_768  # numbers; what is worked on at a time fits into the processor's cache


def practice_rate(rate: float) -> float:
    """Translate a learning rate for Qwen-Image into one for the practice network.

    The practice network is some ten thousand times smaller and wants larger
    steps. The root keeps everything from 1e-5 to 1e-3 in a range where it learns.
    """
    return PRACTICE_RATE * math.sqrt(max(rate, 0.0) / USUAL_RATE)


def choose_optimizer(args: argparse.Namespace) -> tuple[str, dict]:
    """Return the optimizer's full name and its arguments, and log them as Musubi does.

    Raises AttributeError or ImportError for names Musubi could not find, ValueError
    for `--optimizer_args` that are not `key=value`.
    """
    kwargs = key_values(args.optimizer_args)
    name, lower = args.optimizer_type, args.optimizer_type.lower()
    if lower == "adamw":
        log.info("use AdamW optimizer | %s", kwargs)
        return "torch.optim.adamw.AdamW", kwargs
    if lower == "adamw8bit":
        log.info("use 8-bit AdamW optimizer | %s", kwargs)
        full = "bitsandbytes.optim.adamw.AdamW8bit"
    elif lower == "adafactor":
        log.info("use Adafactor optimizer | %s", {"relative_step": True, **kwargs})
        full = "transformers.optimization.Adafactor"
    else:
        log.info("use %s | %s", name, kwargs)
        full = _other_name(name)
    if full != "torch.optim.Adam":
        log.info(SIMULATED, name)
    return full, kwargs


def _other_name(name: str) -> str:
    if "." in name:
        return name
    if name not in TORCH_OPTIMIZERS:
        raise AttributeError(f"module 'torch.optim' has no attribute '{name}'")
    return f"torch.optim.{name}"


def key_values(pairs: list[str] | None) -> dict:
    """Read `key=value` pairs; values are Python literals, anything else raises ValueError."""
    values = {}
    for pair in pairs or []:
        key, value = pair.split("=")
        values[key] = ast.literal_eval(value)
    return values


class Adam:
    """Adam with decoupled weight decay over one flat array of parameters."""

    def __init__(self, parameters: np.ndarray, kwargs: dict):
        self.parameters = parameters
        self.first = np.zeros_like(parameters)  # running mean of the gradients
        self.second = np.zeros_like(parameters)  # running mean of their squares
        self.steps = 0
        self.decay = float(kwargs.get("weight_decay", 0.01))
        self.betas = _two_betas(kwargs.get("betas"))

    def step(self, gradients: np.ndarray, rate: float, max_norm: float) -> None:
        """Change the parameters; gradients longer than `max_norm` are shortened (0: never)."""
        self.steps += 1
        norm = math.sqrt(float(gradients @ gradients))
        factor = max_norm / norm if max_norm and norm > max_norm else 1.0
        for start in range(0, len(self.parameters), CHUNK):
            self._step_chunk(slice(start, start + CHUNK), gradients, rate, factor)

    def _step_chunk(self, part: slice, gradients: np.ndarray, rate: float, factor: float) -> None:
        slow, fast = (1 - beta for beta in self.betas)
        gradient = gradients[part] * np.float32(factor)
        first, second, values = self.first[part], self.second[part], self.parameters[part]
        first += np.float32(slow) * (gradient - first)
        np.square(gradient, out=gradient)
        second += np.float32(fast) * (gradient - second)
        bias = math.sqrt(1 - self.betas[1] ** self.steps) / (1 - self.betas[0] ** self.steps)
        np.sqrt(second, out=gradient)
        gradient += np.float32(1e-8)
        np.divide(first, gradient, out=gradient)
        values *= np.float32(1 - rate * self.decay)
        values -= np.float32(rate * bias) * gradient

    def state(self) -> dict[str, np.ndarray]:
        """What has to be kept to go on later."""
        return {"first": self.first, "second": self.second, "steps": np.array(self.steps)}

    def load(self, state: dict[str, np.ndarray]) -> None:
        """Take over what `state` gave; ValueError when it is of another size."""
        if state["first"].shape != self.first.shape:
            raise ValueError("loaded state dict contains a parameter group of another size")
        self.first[...], self.second[...] = state["first"], state["second"]
        self.steps = int(state["steps"])


def _two_betas(given) -> tuple[float, float]:
    """The two betas; optimizers that have another number of them get the usual pair."""
    usual = (0.9, 0.999)
    fits = isinstance(given, (tuple, list)) and len(given) == 2 and all(0 <= b < 1 for b in given)
    return tuple(given) if fits else usual
