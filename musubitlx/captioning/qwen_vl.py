"""Qwen2.5-VL: follows an instruction, writes a paragraph an image."""

from __future__ import annotations

import inspect
import math

from musubitlx.captioning import captioner, generation, qwen_weights
from musubitlx.captioning.asked import Asked
from musubitlx.captioning.captioner import LoadedCaptioner
from musubitlx.captioning.devices import Place
from musubitlx.captioning.generation import Watch
from musubitlx.captioning.wording import whole_sentences
from musubitlx.errors import UserError

MOST_PX = 1280 * 28 * 28  # of an image, about a megapixel: 1280 tokens
LEAST_SIDE = 56  # px
HEAD = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
)
TAIL = "<|vision_end|>{}<|im_end|>\n<|im_start|>assistant\n"
PLACEHOLDER = "<|image_pad|>"
ENDS = ("<|im_end|>", "<|endoftext|>")


class QwenVl(LoadedCaptioner):
    """The loaded model."""

    side = 2048
    usual_tokens = 120

    def __init__(self, model, processor, words, max_tokens: int, instruction: str):
        self.model, self._processor, self._words = model, processor, words
        self._max_tokens = max_tokens
        self._tail = TAIL.format(_harmless(instruction))
        self._ends = [words.convert_tokens_to_ids(end) for end in ENDS]
        names = inspect.signature(type(model).forward).parameters
        self._tells_kinds = "mm_token_type_ids" in names  # transformers 5.3

    def write(self, images, watch):
        """The likeliest answer to the instruction, to its last whole sentence."""
        seen = self._processor(images=[fitted(one) for one in images], return_tensors="pt")
        asked = self._prompts(seen["image_grid_thw"])
        watch.begin()
        ids = self._generate(asked, seen, watch)
        watch.end()
        return [self._text(row) for row in ids[:, asked["input_ids"].shape[1] :]]

    def _prompts(self, grids) -> dict:
        """The prompts as tokens, with as many placeholders as each image has tokens."""
        merged = self._processor.merge_size**2
        texts = [HEAD + PLACEHOLDER * int(grid.prod() // merged) + self._tail for grid in grids]
        return self._words(texts, padding=True, return_tensors="pt").to(self.model.device)

    def _generate(self, asked, seen, watch: Watch):
        import torch

        device = self.model.device
        more = {}
        if self._tells_kinds:
            image = self._words.convert_tokens_to_ids(PLACEHOLDER)
            more["mm_token_type_ids"] = (asked["input_ids"] == image).int()
        with torch.inference_mode():
            return self.model.generate(
                input_ids=asked["input_ids"],
                attention_mask=asked["attention_mask"],
                pixel_values=seen["pixel_values"].to(device, self.model.dtype),
                image_grid_thw=seen["image_grid_thw"].to(device),
                max_new_tokens=self._max_tokens,
                do_sample=False,
                repetition_penalty=1.05,  # as its makers recommend
                eos_token_id=self._ends,
                pad_token_id=self._ends[1],
                stopping_criteria=generation.criteria(watch),
                **more,
            )

    def _text(self, row) -> str:
        text = self._words.decode(row, skip_special_tokens=True)
        ended = any(end in row.tolist() for end in self._ends)
        return text if ended else whole_sentences(text)


def _harmless(instruction: str) -> str:
    """An instruction without what the model reads as marks of its own."""
    return instruction.replace("<|", "< |")


def fitted(image):
    """A picture of at most `MOST_PX` and no side too short; its proportions are kept."""
    shrink = min(1.0, math.sqrt(MOST_PX / (image.width * image.height)))
    size = tuple(max(LEAST_SIDE, round(side * shrink)) for side in image.size)
    return image if size == image.size else image.resize(size)


def load(asked: Asked, place: Place) -> QwenVl:
    """Load it: tokenizer and the like from the folder, the weights from the text encoder file."""
    folder = asked.weights
    captioner.require_small(folder, asked.wish.captioner)
    qwen_weights.numbers(folder)  # before others trip over it
    captioner.quiet_transformers()
    with captioner.reading(folder):
        processor = captioner.image_processor("Qwen2VLImageProcessor", folder)
        words = captioner.tokenizer(folder, padding_side="left")
    _check_words(words, folder)
    model = qwen_weights.build(folder, asked.text_encoder, place)
    return QwenVl(model, processor, words, asked.wish.max_tokens, asked.wish.instruction)


def _check_words(words, folder) -> None:
    known = words.get_vocab()
    if missing := [mark for mark in (*ENDS, PLACEHOLDER) if mark not in known]:
        raise UserError(
            f"The tokenizer in {folder} is not that of Qwen2.5-VL: it lacks {missing[0]}.",
            hint=captioner.AGAIN,
        )
