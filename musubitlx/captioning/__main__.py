"""Caption images: exit status 0 when it went well, 1 with a sentence, 128 + signal if stopped."""

from __future__ import annotations

import sys

from musubitlx.captioning import (
    asked,
    batches,
    blip,
    choosing,
    devices,
    packages,
    qwen_vl,
    vit_gpt2,
)
from musubitlx.captioning.asked import Asked
from musubitlx.captioning.captioner import LoadedCaptioner
from musubitlx.captioning.choosing import Choice
from musubitlx.captioning.run import Run
from musubitlx.captioning.saving import Book
from musubitlx.captioning.stopping import Stop, Stopped
from musubitlx.errors import UserError, printed

LOAD = {"vit-gpt2": vit_gpt2.load, "blip-large": blip.load, "qwen-vl": qwen_vl.load}


def main(argv: list[str]) -> int:
    """Do what the command line says; returns the exit status."""
    speak_utf8()
    stop, wanted = Stop(), None
    stop.listen()
    try:
        wanted = asked.parse(argv)
        return caption(wanted, stop)
    except Stopped as stopped:
        trial = wanted and wanted.wish.trial
        print("Stopped." if trial else "Stopped. Captions that were shown are saved.", flush=True)
        return 128 + stopped.number
    except UserError as error:
        sys.stdout.flush()
        print(printed(error), file=sys.stderr, flush=True)
        return 1


def caption(wanted: Asked, stop: Stop) -> int:
    """Choose the images, load the model, caption them; 0, or a UserError."""
    choice = choosing.choose(wanted.project, wanted.wish)
    if not choice.images and not choice.passed:
        kept = f" ({choice.kept} kept)" if choice.kept else ""
        print(f"Nothing to do: every image has its caption{kept}.", flush=True)
        return 0
    captioner = wanted.wish.captioner
    packages.check(captioner)
    model = loaded(wanted) if choice.images else None
    stop.careful = True
    stop.check()
    title, wish = f"Captions by {captioner.label}", wanted.wish
    book = Book(wanted.project, title, wish.mode, trial=wish.trial)
    return work(wanted, choice, model, book, stop)


def work(wanted: Asked, choice: Choice, model: LoadedCaptioner, book: Book, stop: Stop) -> int:
    """Run the images through the model and say what became of them."""
    at_once = 1
    if model:
        device = model.model.device.type
        free, have = devices.free_bytes(device), packages.version("transformers")
        fits = batches.size(wanted.wish.captioner.id, device, model.beams, free, have)
        at_once = wanted.batch or fits
    run = Run(model or LoadedCaptioner(), wanted.wish, book, stop, at_once)
    run.work(choice)
    if wanted.wish.trial and run.done:
        print("A trial: nothing was saved.", flush=True)
        return 0
    images = "image" if run.done == 1 else "images"
    print(f"Captioned {run.done} {images}, {run.kept} kept, {run.skipped} skipped.", flush=True)
    if run.skipped and not run.done:
        raise UserError("No image could be captioned.", hint="The lines above say why.")
    return 0


def loaded(wanted: Asked) -> LoadedCaptioner:
    """Load the model where it was asked for; UserError if there is not the memory for it."""
    packages.go_offline()
    captioner = wanted.wish.captioner
    print(f"Loading {captioner.label}...", flush=True)
    place = devices.choose(wanted.device, wanted.precision, large=captioner.text_encoder)
    try:
        model = LOAD[captioner.id](wanted, place)
    except Exception as error:
        if not devices.is_out_of_memory(error):
            raise
        raise UserError(
            f"There is not enough memory for {captioner.label} on {place.words}.",
            hint="End what else uses it, or take a smaller caption model.",
        ) from error
    print(f"{captioner.label} is on {place.words}.", flush=True)
    return model


def speak_utf8() -> None:
    """Names and captions hold any letter, whatever the terminal's code page is."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
