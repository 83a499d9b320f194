"""Tiny caption models with random weights, in the layout upstream's files have.

`python tests/captioning/tiny.py OUT` makes OUT/vit-gpt2, OUT/blip-large, OUT/qwen-vl and
OUT/qwen_2.5_vl_7b.safetensors. Their words are words, their sentences are nonsense.
"""

from __future__ import annotations

import json
import os
import sys
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported anywhere here

TEXT = (
    "a the red blue green small large old young bright dark wooden round ball dog cat house tree "
    "woman man child hat coat street field river bridge window table chair flower cloud sky sun "
    "lies stands sits runs looks holds wears on under near behind before with and of in light "
    "shadow soft warm cold morning evening photograph close wide quiet busy empty full long short"
)
WORDS = TEXT.split()
CORPUS = [" ".join(WORDS[n:] + WORDS[:n]) + "." for n in range(0, len(WORDS), 3)]
QWEN_MARKS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
TEXT_ENCODER = "qwen_2.5_vl_7b.safetensors"
SPREAD = 0.3  # of the random weights: enough that the picture makes a difference


@dataclass(frozen=True)
class Size:
    """The measures of a model; `words` is the least its vocabulary has."""

    width: int = 32
    layers: int = 2
    heads: int = 2
    inner: int = 64
    pixels: int = 32
    words: int = 0


TINY = Size()


def make_all(out: Path) -> None:
    """Make all three models in a folder, and the text encoder file."""
    vit_gpt2(out / "vit-gpt2")
    blip(out / "blip-large")
    qwen(out / "qwen-vl", out / TEXT_ENCODER)


def vit_gpt2(folder: Path, size: Size = TINY) -> Path:
    """ViT-GPT2: config, preprocessor, byte-level tokenizer, weights."""
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = byte_level(folder, ["<|endoftext|>"], "GPT2Tokenizer")
    end = vocabulary["<|endoftext|>"]
    shape = {"hidden_size": size.width, "num_hidden_layers": size.layers}
    config = {
        "model_type": "vision-encoder-decoder",
        "architectures": ["VisionEncoderDecoderModel"],
        "is_encoder_decoder": True,
        "tie_word_embeddings": False,
        **{"bos_token_id": end, "eos_token_id": end, "pad_token_id": end},
        "decoder_start_token_id": end,
        "encoder": {
            "model_type": "vit",
            **shape,
            "num_attention_heads": size.heads,
            "intermediate_size": size.inner,
            "image_size": size.pixels,
            "patch_size": 16,
            "initializer_range": SPREAD,
        },
        "decoder": {
            "model_type": "gpt2",
            "add_cross_attention": True,
            "is_decoder": True,
            "n_embd": size.width,
            "n_layer": size.layers,
            "n_head": size.heads,
            "n_positions": 64,
            "vocab_size": max(len(vocabulary), size.words),
            "initializer_range": SPREAD,
            **{"bos_token_id": end, "eos_token_id": end},
            "max_length": 20,
        },
    }
    write(folder / "preprocessor_config.json", square("ViTImageProcessor", size.pixels))
    kind = transformers.VisionEncoderDecoderModel
    return weights(folder, kind, transformers.VisionEncoderDecoderConfig, config)


def blip(folder: Path, size: Size = TINY) -> Path:
    """BLIP: config, preprocessor, word-piece tokenizer, weights without the tied output layer."""
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = word_pieces(folder)
    shape = {
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "hidden_size": size.width,
        "intermediate_size": size.inner,
        "initializer_range": SPREAD,
    }
    config = {
        "model_type": "blip",
        "architectures": ["BlipForConditionalGeneration"],
        "projection_dim": size.width,
        "image_text_hidden_size": size.width,
        "text_config": {
            "model_type": "blip_text_model",
            **shape,
            "encoder_hidden_size": size.width,
            "projection_dim": size.width,
            "vocab_size": max(len(vocabulary), size.words),
            "max_position_embeddings": 64,
            "bos_token_id": vocabulary["[DEC]"],
            "eos_token_id": vocabulary["[SEP]"],
            "sep_token_id": vocabulary["[SEP]"],
            "pad_token_id": vocabulary["[PAD]"],
            "is_decoder": True,
        },
        "vision_config": {
            "model_type": "blip_vision_model",
            **shape,
            "projection_dim": size.width,
            "image_size": size.pixels,
            "patch_size": 16,
        },
    }
    write(folder / "preprocessor_config.json", square("BlipImageProcessor", size.pixels))
    kind = transformers.BlipForConditionalGeneration
    return weights(folder, kind, transformers.BlipConfig, config)


def qwen(folder: Path, file: Path, size: Size = TINY, *, tied: bool = False) -> Path:
    """Qwen2.5-VL: config, preprocessor and tokenizer in `folder`, weights as ComfyUI's `file`."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = byte_level(folder, list(QWEN_MARKS), "Qwen2Tokenizer")
    head = size.width // size.heads  # of each attention head
    sections = [head // 2 - 2 * (head // 6), head // 6, head // 6]
    config = {
        "model_type": "qwen2_5_vl",
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "vocab_size": max(len(vocabulary), size.words),
        "hidden_size": size.width,
        "intermediate_size": size.inner,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads // 2,
        "max_position_embeddings": 4096,
        "rope_theta": 1000000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": sections},
        "max_window_layers": size.layers,
        "tie_word_embeddings": tied,
        "bos_token_id": vocabulary["<|endoftext|>"],
        "eos_token_id": vocabulary["<|im_end|>"],
        "image_token_id": vocabulary["<|image_pad|>"],
        "video_token_id": vocabulary["<|video_pad|>"],
        "vision_start_token_id": vocabulary["<|vision_start|>"],
        "vision_end_token_id": vocabulary["<|vision_end|>"],
        "vision_token_id": vocabulary["<|vision_pad|>"],
        "vision_config": {
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "in_channels": 3,
            "in_chans": 3,
            "patch_size": 14,
            "spatial_patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [1],
            "out_hidden_size": size.width,
            "tokens_per_second": 2,
        },
    }
    write(folder / "config.json", config)
    write(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "Qwen2VLImageProcessor",
            **{"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2},
            **{"min_pixels": 3136, "max_pixels": 12845056},
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
        },
    )
    return text_encoder(config, file)


def text_encoder(config: dict, file: Path) -> Path:
    """Random bf16 weights for a config, under the keys of ComfyUI's single file."""
    import torch
    import transformers
    from accelerate import init_empty_weights
    from safetensors.torch import save_file

    numbers = {key: value for key, value in config.items() if key != "model_type"}
    with init_empty_weights():
        model = transformers.Qwen2_5_VLForConditionalGeneration(
            transformers.Qwen2_5_VLConfig(**numbers)
        )
    chance = torch.Generator().manual_seed(7)
    tensors = {}
    for name, one in model.state_dict().items():
        key = name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")
        if one.ndim == 1:
            tensors[key] = torch.full(one.shape, float("norm" in key or "ln_q" in key))
        else:
            spread = SPREAD if one.shape[-1] < 256 else one.shape[-1] ** -0.5
            tensors[key] = torch.empty(one.shape).normal_(0, spread, generator=chance)
        tensors[key] = tensors[key].bfloat16()
    if config["tie_word_embeddings"]:
        del tensors["lm_head.weight"]
    save_file(tensors, str(file), metadata={"format": "pt"})
    return file


def weights(folder: Path, kind: type, config_kind: type, config: dict) -> Path:
    """Write random weights and, as upstream has it, the config."""
    import torch

    torch.manual_seed(3)
    kind(config_kind.from_dict(deepcopy(config))).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    write(folder / "config.json", config)
    return folder


def square(kind: str, pixels: int) -> dict:
    """A preprocessor that makes pictures square."""
    return {
        "image_processor_type": kind,
        **{"do_resize": True, "do_rescale": True, "do_normalize": True},
        "size": {"height": pixels, "width": pixels},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 2,
    }


def byte_level(folder: Path, marks: list[str], kind: str) -> dict[str, int]:
    """A byte-level tokenizer that knows the words; returns its vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        CORPUS * 2,
        trainers.BpeTrainer(vocab_size=400, special_tokens=marks, show_progress=False),
    )
    made.save(str(folder / "tokenizer.json"))
    made.model.save(str(folder))
    end = marks[0]
    write(
        folder / "tokenizer_config.json",
        {"tokenizer_class": kind, "eos_token": end, "pad_token": end, "model_max_length": 4096},
    )
    return made.get_vocab()


def word_pieces(folder: Path) -> dict[str, int]:
    """A word-piece tokenizer that knows the words; returns its vocabulary."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: n for n, word in enumerate([*marks, *WORDS, ".", ",", "[DEC]"])}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.add_special_tokens([*marks, "[DEC]"])
    made.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in vocabulary))
    write(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "BertTokenizer", "do_lower_case": True},
    )
    return vocabulary


def write(path: Path, value: dict) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(value, indent=1))


if __name__ == "__main__":
    make_all(Path(sys.argv[1]))
