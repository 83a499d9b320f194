"""The text encoder as one file: whether it is Qwen2.5-VL, and which tensor goes where."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from musubitlx import models
from musubitlx.captioning.captioner import listed
from musubitlx.errors import UserError
from musubitlx.tensors import Tensor, read_header

HEAD, TABLE = "lm_head.weight", "model.embed_tokens.weight"
RENAMED = (("model.", "model.language_model."), ("visual.", "model.visual."))  # transformers 4.52
NEWER = "model.language_model."
PLAIN = {"BF16": 2, "F16": 2, "F32": 4}  # types that are read, bytes a number
GET = "Take the file the models section of the page offers, qwen_2.5_vl_7b.safetensors."

Held = dict[str, tuple[Path, Tensor]]  # by key


def inspect(first: Path) -> Held:
    """What a file (or the split set it begins) holds, from the headers alone.

    UserError for what is not there, cut short, another model, or in 8 bits already.
    """
    files = models.parts(first)
    if first not in files or (len(files) > 1 and first != files[0]):
        raise UserError(f"{first.name} is not the first part of its set.", hint=GET)
    held: Held = {}
    for file in files:
        problem, tensors = read_header(file)
        if problem:
            raise UserError(problem.text, hint=problem.hint)
        held |= {key: (file, tensor) for key, tensor in tensors.items()}
    _check_kind(first.name, {key: tensor for key, (_, tensor) in held.items()})
    return held


def _check_kind(name: str, tensors: dict[str, Tensor]) -> None:
    kind, words = models.kind_of(tensors)
    if kind != "text_encoder":
        raise UserError(f"{name} is not the text encoder Qwen2.5-VL: it is {words}.", hint=GET)
    if models.is_fp8(tensors):
        raise UserError(f"{name} holds fp8 or other 8-bit weights, which are not read.", hint=GET)
    if odd := sorted({tensor.dtype for tensor in tensors.values()} - set(PLAIN)):
        raise UserError(f"{name} holds weights of the kind {odd[0]}, not read here.", hint=GET)


def matched(name: str, held: Held, wanted: dict[str, tuple[int, ...]], *, tied: bool) -> dict:
    """Which key of the file each weight of the model has: {weight: key}.

    `wanted` are the model's weights with their shapes, `tied`: its output layer may
    have the numbers of the word table. UserError naming file and keys unless all fit.
    """
    newer = any(weight.startswith(NEWER) for weight in wanted)
    by_weight = {_renamed(key) if newer else key: key for key in held}
    if tied and HEAD not in by_weight and TABLE in held:
        by_weight[HEAD] = TABLE
    _refuse(name, "weights are missing in", wanted.keys() - by_weight.keys())
    _refuse(name, "weights are unknown in", by_weight.keys() - wanted.keys())
    shapes = {weight: held[key][1].shape for weight, key in by_weight.items()}
    odd = [
        f"{weight} ({_size(shapes[weight])}, should be {_size(shape)})"
        for weight, shape in wanted.items()
        if shapes[weight] != tuple(shape)
    ]
    _refuse(name, "weights have another size in", odd)
    return {weight: by_weight[weight] for weight in wanted}


def _renamed(key: str) -> str:
    for old, new in RENAMED:
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def _size(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "one number"


def _refuse(name: str, what: str, weights: Iterable[str]) -> None:
    if found := sorted(weights):
        raise UserError(
            f"{len(found)} {what} {name}: {listed(found)}.", hint=f"It is another model. {GET}"
        )


def size(tensor: Tensor) -> int:
    """How many bytes a tensor takes in its file."""
    return math.prod(tensor.shape) * PLAIN[tensor.dtype]


@contextmanager
def tensors_of(held: Held) -> Iterator:
    """A function that reads the tensor of a key; it lies in the file until it is converted."""
    from safetensors import safe_open

    with ExitStack() as stack:
        opened = {
            file: stack.enter_context(safe_open(str(file), framework="pt", device="cpu"))
            for file in sorted({file for file, _ in held.values()})
        }
        yield lambda key: opened[held[key][0]].get_tensor(key)
