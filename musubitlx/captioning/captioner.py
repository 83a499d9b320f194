"""What the three caption models have in common, and reading their files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from musubitlx.captioners import PREPROCESSOR, Captioner
from musubitlx.captioning import packages
from musubitlx.captioning.generation import Watch
from musubitlx.errors import UserError
from musubitlx.tensors import read_header

CONFIG = "config.json"
SAFE = ("model.safetensors", "model.safetensors.index.json")
PICKLED = ("pytorch_model.bin",)
AGAIN = "Download the caption model again."
NAMED = 3  # weights a message names


class LoadedCaptioner:
    """A model that is ready to write; each model's module has its own kind.

    `side` is what an image's longer side is reduced to before it gets here, in pixels;
    `beams` how many ways each caption is followed; `usual_tokens` about how long one gets.
    """

    side = 768
    beams = 1
    usual_tokens = 20
    model: Any

    def write(self, images: list, watch: Watch) -> list[str]:
        """The raw text for each RGB picture, in order; Stopped when that was asked for."""
        raise NotImplementedError


def require(folder: Path, *files: tuple[str, ...]) -> None:
    """Raise UserError unless of each tuple of names one is a file in the folder."""
    for names in files:
        if not any((folder / name).is_file() for name in names):
            raise UserError(f"{folder} lacks {' or '.join(names)}.", hint=AGAIN)


def require_small(folder: Path, row: Captioner) -> None:
    """Raise UserError unless config, preprocessor and tokenizer are in the folder."""
    require(folder, (CONFIG,), (PREPROCESSOR,))
    if not any(all((folder / name).is_file() for name in names) for names in row.tokenizers):
        lacks = " or ".join(" + ".join(names) for names in row.tokenizers)
        raise UserError(f"{folder} lacks {lacks}.", hint=AGAIN)


def check_weights(folder: Path) -> None:
    """Raise UserError unless the weights of the folder are whole, and can be read here."""
    require(folder, (*SAFE, *PICKLED))
    for file in sorted(folder.glob("*.safetensors")):
        if problem := read_header(file)[0]:
            raise UserError(problem.text, hint=AGAIN)
    pickled_only = not any((folder / name).is_file() for name in SAFE)
    if pickled_only and packages.version("torch") < (2, 6):  # a .bin may run code of its own there
        raise UserError(
            f"{folder} has its weights as .bin, which transformers reads with torch 2.6 or newer "
            "only.",
            hint="Install torch 2.6 or newer.",
        )


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turn what the libraries raise for files they can't use into a UserError.

    What runs out of memory stays what it is.
    """
    from musubitlx.captioning.devices import is_out_of_memory

    try:
        yield
    except UserError:
        raise
    except Exception as error:  # every version raises kinds of its own
        if is_out_of_memory(error):
            raise
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"The files in {folder} can't be used: {said}", hint=AGAIN) from error


def quiet_transformers():
    """The transformers module, its advice and progress bars silenced."""
    import warnings

    warnings.simplefilter("ignore", FutureWarning)  # what they will change is not the person's
    import transformers

    transformers.logging.set_verbosity_error()
    if hide := getattr(transformers.logging, "disable_progress_bar", None):
        hide()
    return transformers


def image_processor(name: str, folder: Path):
    """The image processor of that class, in the form that needs no torchvision."""
    transformers = quiet_transformers()
    kind = getattr(transformers, name + "Pil", None) or getattr(transformers, name)
    return kind.from_pretrained(str(folder))


def pixels(processor, images: list):
    """What a model sees of the pictures, as one tensor.

    Where colours stand is said: of a picture 1 or 3 pixels high it can't be told by looking.
    """
    seen = processor(images=images, return_tensors="pt", input_data_format="channels_last")
    return seen["pixel_values"]


def tokenizer(folder: Path, **more):
    """The tokenizer of a folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), **more)


def load_whole(
    row: Captioner, kind: str, processor: str, folder: Path, *, may_lack: Iterable[str] = ()
):
    """Load image processor, tokenizer and model of a folder that has all of it.

    Returns the three and which weights are missing, see `load_filled`; UserError if the files
    can't be used. `kind` and `processor` are classes of transformers.
    """
    require_small(folder, row)
    check_weights(folder)
    model_kind = getattr(quiet_transformers(), kind)
    with reading(folder):
        looks, words = image_processor(processor, folder), tokenizer(folder)
        model, lacks = load_filled(model_kind, folder, may_lack=may_lack)
    return looks, words, model, lacks


def load_filled(kind: type, folder: Path, *, may_lack: Iterable[str] = ()):
    """Load a model with every weight from the files; return it and those of `may_lack` missing.

    transformers fills what is missing with random numbers and goes on: here it is a
    UserError, but for names that begin with one of `may_lack`.
    """
    model, info = kind.from_pretrained(str(folder), output_loading_info=True)
    missing = sorted(info["missing_keys"])
    mismatched = sorted(str(one[0]) for one in info.get("mismatched_keys", ()))
    lacks = [name for name in missing if name.startswith(tuple(may_lack))]
    if bad := [*(name for name in missing if name not in lacks), *mismatched]:
        raise UserError(
            f"{len(bad)} weights are missing in {folder}: {listed(bad)}.",
            hint=f"It is another model, or incomplete. {AGAIN}",
        )
    return model.eval(), lacks


def listed(names: list[str]) -> str:
    """The first few names, and that there are more."""
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
