"""Qwen2.5-VL built from its single file, tensor by tensor: never twice in memory."""

from __future__ import annotations

import json
from pathlib import Path

from musubitlx.bars import BYTES, Bar
from musubitlx.captioning import fp8, qwen_file
from musubitlx.captioning.captioner import AGAIN, CONFIG
from musubitlx.captioning.devices import Place
from musubitlx.errors import UserError

NO_NUMBERS = ("architectures", "model_type", "transformers_version", "torch_dtype", "dtype")

# The shape of Qwen2.5-VL-7B-Instruct, for a folder without config.json.
SEVEN_B = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "hidden_act": "silu",
    "max_position_embeddings": 128000,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "attention_dropout": 0.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "use_sliding_window": False,
    "sliding_window": 32768,
    "max_window_layers": 28,
    "tie_word_embeddings": False,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "vision_token_id": 151654,
    "vision_config": {
        "depth": 32,
        "hidden_size": 1280,
        "hidden_act": "silu",
        "intermediate_size": 3420,
        "num_heads": 16,
        "in_channels": 3,
        "in_chans": 3,
        "patch_size": 14,
        "spatial_patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "out_hidden_size": 3584,
        "tokens_per_second": 2,
    },
}


def build(folder: Path, file: Path, place: Place):
    """The model with the weights of `file`, at `place`, ready to write.

    `folder` may have a config.json. UserError for files that don't fit together.
    """
    held = qwen_file.inspect(file)
    model, tied = empty(folder)
    wanted = {name: tuple(one.shape) for name, one in model.state_dict().items()}
    keys = qwen_file.matched(file.name, held, wanted, tied=tied)
    sizes = {weight: qwen_file.size(held[key][1]) for weight, key in keys.items()}
    bar, done = Bar("Loading", sum(sizes.values()), BYTES), 0
    with qwen_file.tensors_of(held) as read:
        for weight, key in keys.items():
            _fill(model, weight, read(key), place)
            done += sizes[weight]
            bar.show(done)
    bar.end()
    fp8.forget_buffers()
    _bring_buffers(model, place.device)
    return model.eval().requires_grad_(False)


def empty(folder: Path):
    """The model without weights, and whether its output layer may share the word table."""
    import transformers
    from accelerate import init_empty_weights

    told = numbers(folder)
    try:
        config = transformers.Qwen2_5_VLConfig(**told)
        with init_empty_weights():
            model = transformers.Qwen2_5_VLForConditionalGeneration(config)
    except (TypeError, ValueError, KeyError, AttributeError, ZeroDivisionError) as error:
        raise UserError(f"{folder / CONFIG} can't be used: {error}", hint=AGAIN) from error
    return model, bool(told.get("tie_word_embeddings"))


def numbers(folder: Path) -> dict:
    """The model's measures, from the folder's config.json if there is one.

    UserError if it is none of this model.
    """
    file = folder / CONFIG
    if not file.is_file():
        return SEVEN_B
    try:
        told = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} can't be read: {error}", hint=AGAIN) from error
    if not isinstance(told, dict) or told.get("model_type") != "qwen2_5_vl":
        raise UserError(f"{file} is not that of Qwen2.5-VL.", hint=AGAIN)
    return {name: value for name, value in told.items() if name not in NO_NUMBERS}


def _fill(model, weight: str, tensor, place: Place) -> None:
    """Put one tensor where it belongs, in the form that is computed with."""
    import torch

    owner_name, _, leaf = weight.rpartition(".")
    owner = model.get_submodule(owner_name)
    if leaf == "weight" and isinstance(owner, torch.nn.Embedding) and place.device != "cpu":
        _replace(model, owner_name, off_card(tensor.to(place.dtype)))
    elif leaf == "weight" and isinstance(owner, torch.nn.Linear) and place.fp8:
        layer = fp8.linear(*fp8.quantised(tensor, place.device), bias=owner.bias)
        _replace(model, owner_name, layer)
    elif leaf in owner._parameters:
        here = tensor.to(place.device, place.dtype)
        owner._parameters[leaf] = torch.nn.Parameter(here, requires_grad=False)
    else:
        owner._buffers[leaf] = tensor.to(place.device)


def _replace(model, name: str, layer) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, layer)


def _bring_buffers(model, device: str) -> None:
    """Bring what is in no file to the device, in its own precision: the angles of positions."""
    for module in model.modules():
        for name, tensor in module._buffers.items():
            if tensor is not None and tensor.device.type != device:
                module._buffers[name] = tensor.to(device)


def off_card(table):
    """A word table that stays in main memory: of its gigabyte a few rows are needed at a time."""
    import torch
    from torch.nn import functional

    class OffCard(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.__dict__["weight"] = table  # no parameter: nothing moves or counts it

        def forward(self, ids):
            return functional.embedding(ids.to(table.device), table).to(ids.device)

    return OffCard()
