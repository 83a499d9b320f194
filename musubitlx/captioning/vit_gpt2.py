"""ViT-GPT2: one plain sentence an image."""

from __future__ import annotations

from musubitlx.captioning import captioner, generation
from musubitlx.captioning.asked import Asked
from musubitlx.captioning.captioner import LoadedCaptioner
from musubitlx.captioning.devices import Place
from musubitlx.captioning.generation import Watch

BEAMS = 6
UNUSED = ("encoder.pooler.",)  # part of the class, but nothing is read from it


class VitGpt2(LoadedCaptioner):
    """The loaded model."""

    side = 448  # twice what it looks at
    beams = BEAMS
    usual_tokens = 14

    def __init__(self, model, processor, words, max_tokens: int):
        self.model, self._processor, self._words = model, processor, words
        room = getattr(model.config.decoder, "n_positions", None) or max_tokens + 1
        self._max_tokens = min(max_tokens, room - 1)

    def write(self, images, watch):
        """The best sentence of a search, or the first where it can't search."""
        pixels = captioner.pixels(self._processor, images)
        pixels = pixels.to(self.model.device, self.model.dtype)
        watch.begin()
        try:
            ids = self._generate(pixels, watch)
        except NotImplementedError:  # transformers 4.52 and 4.53
            if self.beams == 1:
                raise
            watch.say("This transformers can't search for the best sentence: the first is taken.")
            self.beams = 1
            ids = self._generate(pixels, watch)
        watch.end()
        return self._words.batch_decode(ids, skip_special_tokens=True)

    def _generate(self, pixels, watch: Watch):
        import torch

        search = {"length_penalty": 1.2, "early_stopping": True} if self.beams > 1 else {}
        with torch.inference_mode():
            return self.model.generate(
                pixel_values=pixels,
                max_new_tokens=self._max_tokens,
                max_length=None,
                num_beams=self.beams,
                do_sample=False,
                no_repeat_ngram_size=3,
                stopping_criteria=generation.criteria(watch),
                **search,
            )


def load(asked: Asked, place: Place) -> VitGpt2:
    """Load it from the folder with its files; UserError if they can't be used."""
    processor, words, model, _ = captioner.load_whole(
        asked.wish.captioner,
        "VisionEncoderDecoderModel",
        "ViTImageProcessor",
        asked.weights,
        may_lack=UNUSED,
    )
    model = model.to(place.device, place.dtype)
    return VitGpt2(model, processor, words, asked.wish.max_tokens)
