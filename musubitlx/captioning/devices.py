"""Where and in which numbers a model computes, and what running out of memory looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from musubitlx.errors import UserError

BY_NAME = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
NO_MEMORY = (  # as the parts of torch say it, in lower case
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "invalid buffer size",  # MPS
    "alloc_failed",  # cuBLAS, cuDNN
)


@dataclass(frozen=True)
class Place:
    """Where a model goes: `device` and `dtype` of torch; `fp8`: its large weights take a byte."""

    device: str
    dtype: Any
    fp8: bool = False

    @property
    def words(self) -> str:
        """For the log: device and precision."""
        names = {"cuda": "the GPU", "mps": "the GPU (Metal)", "cpu": "the processor"}
        short = {long: name for name, long in BY_NAME.items()}[str(self.dtype).split(".")[1]]
        return f"{names[self.device]} in {'fp8' if self.fp8 else short}"


def choose(device: str, precision: str, *, large: bool) -> Place:
    """The place for what was asked; UserError where it is not to be had.

    `large`: the model is Qwen2.5-VL, which by itself goes to fp8 or bf16, never to fp16 or
    fp32: the one has too little range for it, the other would take twice the memory.
    """
    import torch

    device = _device(device)
    if precision == "auto":
        precision = _best_for_large(device) if large else _best_for_small(device)
    if precision == "fp8":
        if not casts_fp8(device):
            raise UserError("fp8 does not work here.", hint="Take another precision, like bf16.")
        return Place(device, torch.bfloat16, fp8=True)
    return Place(device, getattr(torch, BY_NAME[precision]))


def _device(asked: str) -> str:
    import torch

    metal = getattr(torch.backends, "mps", None)
    have = {
        "cuda": torch.cuda.is_available(),
        "mps": bool(metal and metal.is_available()),
        "cpu": True,
    }
    if asked == "auto":
        return next(name for name, there in have.items() if there)
    if not have[asked]:
        raise UserError(
            f"This torch ({torch.__version__}) finds no device of the kind {asked}.",
            hint="Take --device auto, or install a torch for your card.",
        )
    return asked


def _best_for_large(device: str) -> str:
    if device == "cuda" and casts_fp8(device):
        return "fp8"
    if device == "mps" and not multiplies_bf16(device):
        raise UserError(
            "Qwen2.5-VL needs bf16, which this Mac's GPU, its macOS or its torch can't compute in.",
            hint="Take BLIP large, or --device cpu, which is slow.",
        )
    return "bf16"


def _best_for_small(device: str) -> str:
    return "fp16" if device == "cuda" and convolves_fp16(device) else "fp32"


def casts_fp8(device: str) -> bool:
    """Whether numbers come back right from fp8 there: tried out, versions tell too little."""
    import torch

    try:
        some = torch.tensor([1.0, -3.5, 448.0, 0.0], device=device)
        back = some.to(torch.float8_e4m3fn).to(torch.bfloat16).float()
        return torch.equal(some.cpu(), back.cpu())
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False


def multiplies_bf16(device: str) -> bool:
    """Whether bf16 matrices can be multiplied there."""
    import torch

    try:
        some = torch.ones(4, 4, device=device, dtype=torch.bfloat16)
        return bool((some @ some)[0, 0].item() == 4.0)
    except (RuntimeError, TypeError, NotImplementedError):
        return False


def convolves_fp16(device: str) -> bool:
    """Whether fp16 pictures are looked at rightly there: on some cards (GTX 16xx) all is NaN."""
    import torch
    from torch.nn import functional

    chance = torch.Generator().manual_seed(1)
    picture = torch.randn(2, 3, 64, 64, generator=chance)
    patches = torch.randn(64, 3, 16, 16, generator=chance) / 28  # numbers of about 1 come out
    wanted = functional.conv2d(picture, patches, stride=16)
    try:
        half = (one.to(device, torch.float16) for one in (picture, patches))
        got = functional.conv2d(*half, stride=16).float().cpu()
    except (RuntimeError, TypeError, NotImplementedError):
        return False
    return torch.allclose(got, wanted, atol=0.05)  # NaN is close to nothing


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a card or in main memory."""
    import torch

    kinds = [MemoryError]
    for owner in (torch, torch.cuda):  # older versions have one of them only
        if kind := getattr(owner, "OutOfMemoryError", None):
            kinds.append(kind)
    if isinstance(error, tuple(kinds)):
        return True
    text = str(error).lower()
    return isinstance(error, (RuntimeError, OSError)) and any(words in text for words in NO_MEMORY)


def free_bytes(device: str) -> int | None:
    """What is free on a CUDA card, in bytes; None elsewhere."""
    import torch

    return torch.cuda.mem_get_info()[0] if device == "cuda" else None


def release(device: str) -> None:
    """Give back what torch keeps of the card's memory; frames of an error must be gone by then."""
    import gc

    import torch

    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    elif device == "mps" and hasattr(torch, "mps"):
        torch.mps.empty_cache()
