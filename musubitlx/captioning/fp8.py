"""Weights that take a byte each: fp8 numbers with one scale for each output row.

fp8 (e4m3) holds three digits of a binary number and reaches from 2^-9 to 448. Weights of a few
hundredths would lie where it holds fewer digits, and the smallest would become zero; so each row
is stretched until its largest is 448. Whatever is computed is computed in bf16.
"""

from __future__ import annotations

from functools import cache

LARGEST = 448.0
AT_ONCE = 1 << 22  # weights that are converted together
UNPACKED = 1 << 27  # weights that are unpacked together: any layer of the 7B but the last


def quantised(weight, device: str):
    """A matrix as (fp8 numbers, scale of each row in bf16), both on `device`.

    Works through the rows in pieces, in one buffer: beside the result little memory is needed.
    """
    import torch

    rows, columns = weight.shape
    packed = torch.empty((rows, columns), dtype=torch.float8_e4m3fn, device=device)
    scale = torch.empty((rows, 1), dtype=torch.bfloat16, device=device)
    step = min(rows, max(1, AT_ONCE // columns))
    buffer = _buffer(max(AT_ONCE, step * columns), device)[: step * columns].view(step, columns)
    for at in range(0, rows, step):
        piece = buffer[: min(step, rows - at)].copy_(weight[at : at + step])
        largest = torch.maximum(piece.amax(1, keepdim=True), -piece.amin(1, keepdim=True))
        # Rounded before it is used, so that nothing is lost by keeping it in bf16.
        scales = (largest / LARGEST).clamp(min=torch.finfo(torch.float32).tiny).bfloat16()
        scale[at : at + step] = scales
        packed[at : at + step] = piece.div_(scales.float()).clamp_(-LARGEST, LARGEST)
    return packed, scale


@cache
def _buffer(length: int, device: str):
    """Room for numbers on their way; made anew each time, it would leave holes in memory."""
    import torch

    return torch.empty(length, dtype=torch.float32, device=device)


def forget_buffers() -> None:
    """Give back what `quantised` used."""
    _buffer.cache_clear()


def unpacked(packed, scale):
    """The matrix that fp8 numbers and scales stand for, in the scales' type."""
    return packed.to(scale.dtype) * scale


def linear(packed, scale, bias=None):
    """A layer in place of nn.Linear that holds its weight as `quantised` gives it."""
    return _layer()(packed, scale, bias)


@cache
def _layer() -> type:
    import torch
    from torch.nn import functional

    class Fp8Linear(torch.nn.Module):
        def __init__(self, packed, scale, bias):
            super().__init__()
            self.out_features, self.in_features = packed.shape
            # Buffers: what asks a model for its type looks at parameters, and must see bf16.
            self.register_buffer("weight", packed)
            self.register_buffer("scale", scale)
            self.bias = bias

        def forward(self, x):
            step = max(1, UNPACKED // self.in_features)
            if self.out_features <= step:
                y = functional.linear(x, self.weight.to(x.dtype))
            else:  # the output layer would take a gigabyte unpacked
                pieces = self.weight.split(step)
                y = torch.cat([functional.linear(x, one.to(x.dtype)) for one in pieces], dim=-1)
            y = y * self.scale.to(x.dtype).squeeze(1)
            return y if self.bias is None else y + self.bias

    return Fp8Linear
