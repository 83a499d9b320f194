"""BLIP large: one sentence an image, more of it the longer it searches."""

from __future__ import annotations

import re

from musubitlx.captioners import DETAILS, Detail
from musubitlx.captioning import captioner, generation
from musubitlx.captioning.asked import Asked
from musubitlx.captioning.captioner import LoadedCaptioner
from musubitlx.captioning.devices import Place

HEAD = "text_decoder.cls.predictions.decoder.weight"
LEFT_OUT = ("text_decoder.cls.predictions.decoder.",)  # some versions save it once: tied


class Blip(LoadedCaptioner):
    """The loaded model."""

    usual_tokens = 18

    def __init__(self, model, processor, words, max_tokens: int, detail: Detail):
        self.model, self._processor, self._words = model, processor, words
        self._detail = detail
        self.beams = detail.beams
        self._max_tokens = min(max_tokens, model.config.text_config.max_position_embeddings)

    def write(self, images, watch):
        """The best sentence of a search; its detail level says how far it goes."""
        import torch

        pixels = captioner.pixels(self._processor, images)
        watch.begin()
        with torch.inference_mode():
            ids = self.model.generate(
                pixel_values=pixels.to(self.model.device, self.model.dtype),
                max_new_tokens=self._max_tokens,
                max_length=None,
                num_beams=self.beams,
                do_sample=False,
                length_penalty=self._detail.length_penalty,
                repetition_penalty=1.3,
                no_repeat_ngram_size=3,
                stopping_criteria=generation.criteria(watch),
            )
        watch.end()
        texts = self._words.batch_decode(ids, skip_special_tokens=True)
        return [joined(text) for text in texts]


def joined(text: str) -> str:
    """A text without the blanks its tokenizer leaves around ' and - within words."""
    text = re.sub(r"(?<=\w) ?(['’]) ?(?=(?:s|t|re|ve|ll|d|m)\b)", r"\1", text)
    return re.sub(r"(?<=\w) - (?=\w)", "-", text)


def load(asked: Asked, place: Place) -> Blip:
    """Load it from the folder with its files; UserError if they can't be used."""
    processor, words, model, lacks = captioner.load_whole(
        asked.wish.captioner,
        "BlipForConditionalGeneration",
        "BlipImageProcessor",
        asked.weights,
        may_lack=LEFT_OUT,
    )
    if lacks:
        tie_head(model)
    model = model.to(place.device, place.dtype)
    detail = DETAILS[asked.wish.detail]
    return Blip(model, processor, words, asked.wish.max_tokens, detail)


def tie_head(model) -> None:
    """Give the output layer the weights of the word embeddings, which its files have once."""
    predictions = model.text_decoder.cls.predictions
    predictions.decoder.weight = model.text_decoder.bert.embeddings.word_embeddings.weight
    predictions.decoder.bias = predictions.bias
