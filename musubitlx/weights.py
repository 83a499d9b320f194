"""The files of a caption model: which it needs of its repository, where they are, what is missing.

Headers and ends of files are read, never whole ones: milliseconds, whatever their size.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from musubitlx import hub, models
from musubitlx.captioners import PREPROCESSOR, Captioner
from musubitlx.downloads import part_bytes
from musubitlx.home import Home, is_component, read_json
from musubitlx.hub import RemoteFile
from musubitlx.tensors import read_header

# What transformers looks for beside the weights, in any of its versions.
SMALL = frozenset(
    (
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "preprocessor_config.json",
        "processor_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
        "vocab.txt",
    )
)
SINGLE, INDEX, PICKLED = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
PART = ".part"  # see downloads.part_of
TEXT_ENCODER = "text_encoder"  # its row in models.CATALOGUE


# -- which are wanted ------------------------------------------------------------------------------


def wanted(files: list[RemoteFile], captioner: Captioner) -> list[RemoteFile]:
    """Return those of a repository's files that a caption model needs, small ones first.

    Of the weights one form: safetensors in one file, else in several, else PyTorch's own; none
    where they are those of the text encoder.
    """
    names = _wanted({one.path for one in files}, captioner)
    return sorted((one for one in files if one.path in names), key=lambda one: one.bytes)


def _wanted(there: set[str], captioner: Captioner) -> set[str] | frozenset[str]:
    """The names of files that are wanted where there are those."""
    return SMALL if captioner.text_encoder else SMALL | _weights(there)


def _weights(names: set[str]) -> set[str]:
    if SINGLE in names:
        return {SINGLE}
    if INDEX in names:
        return {INDEX} | {name for name in names if SHARD.fullmatch(name)}
    return {PICKLED}


# -- where they are --------------------------------------------------------------------------------


def find(home: Home, captioner: Captioner) -> Path | None:
    """Return the folder with all files of a caption model, None if there is none.

    Our own, else the one in the Hugging Face cache, used where it lies: in the revision that
    counts there as main, else in the newest whole one.
    """
    places = (captioner.folder(home), *_cached(captioner.repo))
    return next((place for place in places if problem(place, captioner) is None), None)


def cache() -> Path | None:
    """The Hugging Face cache, as huggingface_hub chooses it; there or not."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if given := os.environ.get(name):
            return hub.named_folder(given)
    folder = hub.folder()
    return folder / "hub" if folder else None


def _cached(repo: str) -> Iterator[Path]:
    """The revisions of a repository in the cache, best first."""
    root = cache()
    if root is None:
        return
    folder = root / f"models--{repo.replace('/', '--')}"
    with suppress(OSError, UnicodeError):
        revision = (folder / "refs" / "main").read_text(encoding="ascii").strip()
        if is_component(revision):
            yield folder / "snapshots" / revision
    with suppress(OSError):
        revisions = [one for one in (folder / "snapshots").iterdir() if one.is_dir()]
        yield from sorted(revisions, key=lambda one: one.stat().st_mtime, reverse=True)


def text_encoder(home: Home) -> models.ModelState:
    """The state of the text encoder file, whose weights a caption model may use."""
    chosen, trouble = models.read_choices(home)
    return models.find_one(home, models.model(TEXT_ENCODER), chosen, trouble)


def missing_bytes(home: Home, captioner: Captioner) -> int:
    """About how much still has to come before it can caption: told without asking the hub."""
    missing = 0
    if find(home, captioner) is None:
        missing = max(0, captioner.download_bytes - _arrived(captioner.folder(home), captioner))
    if captioner.text_encoder and text_encoder(home).problem is not None:
        row = models.model(TEXT_ENCODER)
        missing += max(0, row.expected_bytes - part_bytes(home.root / row.filename))
    return missing


def _arrived(folder: Path, captioner: Captioner) -> int:
    """How many bytes are here of what is wanted; a part counts, not what it is to replace."""
    parts, there = begun(folder), _names(folder)
    wanted = _wanted(there | parts, captioner)
    bytes_of = sum(part_bytes(folder / name) for name in wanted & parts)
    return bytes_of + sum(models.size_of(folder / name) or 0 for name in (wanted & there) - parts)


def begun(folder: Path) -> set[str]:
    """The names of files of a folder that have arrived in part, and that a model may need."""
    names = {name[: -len(PART)] for name in _names(folder) if name.endswith(PART)}
    large = {name for name in names if name in (SINGLE, INDEX, PICKLED) or SHARD.fullmatch(name)}
    return (names & SMALL) | large


def _names(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except OSError:
        return set()


# -- whether they are whole ------------------------------------------------------------------------


def problem(folder: Path, captioner: Captioner) -> str | None:
    """Say why a caption model can't be loaded from a folder, None if it can: without network."""
    if not folder.is_dir():
        return f"The files of {captioner.label} are not there."
    if parts := _wanted(_names(folder) | begun(folder), captioner) & begun(folder):
        return f"{min(parts)} has arrived in part only."
    if read_json(folder / "config.json") is None:
        return _of("config.json", folder)
    if read_json(folder / PREPROCESSOR) is None:
        return _of(PREPROCESSOR, folder)
    if not any(all(_is_there(folder / name) for name in names) for names in captioner.tokenizers):
        return f"The tokenizer of {captioner.label} is missing: tokenizer.json."
    if tokenizer := _unreadable(folder, ("tokenizer.json", "tokenizer_config.json", "vocab.json")):
        return _of(tokenizer, folder)
    return None if captioner.text_encoder else _weights_problem(folder, captioner)


def _weights_problem(folder: Path, captioner: Captioner) -> str | None:
    if _is_there(folder / SINGLE):
        return _safetensors_problem(folder / SINGLE)
    if _is_there(folder / INDEX):
        shards = _shards(folder / INDEX)
        told = (_safetensors_problem(folder / name) for name in shards)
        return next((one for one in told if one), None if shards else _of(INDEX, folder))
    if _is_there(folder / PICKLED):
        whole = _is_whole_pickle(folder / PICKLED)
        return None if whole else f"{PICKLED} is damaged or cut short."
    return f"The weights of {captioner.label} are missing: {SINGLE} or {PICKLED}."


def _safetensors_problem(path: Path) -> str | None:
    if not _is_there(path):
        return f"{path.name} is missing."
    found, _ = read_header(path)
    return found.text if found else None


def _shards(index: Path) -> list[str]:
    """The names in an index of weights; none if it is none."""
    table = (read_json(index) or {}).get("weight_map")
    names = set(table.values()) if isinstance(table, dict) and _all_text(table) else set()
    return sorted(names) if all(map(is_component, names)) else []


def _all_text(table: dict) -> bool:
    return all(isinstance(value, str) for value in table.values())


def _is_whole_pickle(path: Path) -> bool:
    """Whether a PyTorch file can be whole: a zip with its directory at its end, or a pickle.

    The older form has no end one could tell.
    """
    try:
        with path.open("rb") as file:
            start = file.read(2)
        if start == b"PK":
            with zipfile.ZipFile(path) as archive:
                return bool(archive.namelist())
        return start[:1] == b"\x80"
    except (OSError, zipfile.BadZipFile, ValueError):
        return False


def _is_there(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size > 0
    except OSError:
        return False


def _unreadable(folder: Path, names: tuple[str, ...]) -> str | None:
    """The first of these files that is there and holds no JSON object."""
    there = (name for name in names if (folder / name).is_file())
    return next((name for name in there if not _ends_as_json(folder / name)), None)


def _ends_as_json(path: Path) -> bool:
    """Whether a file begins and ends as a JSON object does; reading 7 MB of it would take long."""
    try:
        with path.open("rb") as file:
            start = file.read(64).lstrip()
            file.seek(max(0, path.stat().st_size - 64))
            return start[:1] == b"{" and file.read().rstrip()[-1:] == b"}"
    except OSError:
        return False


def _of(name: str, folder: Path) -> str:
    return f"{name} is {'damaged' if _is_there(folder / name) else 'missing'}."
