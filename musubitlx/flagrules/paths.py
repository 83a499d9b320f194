"""Rules of the files and folders that flags name: there, whole, and of the right kind.

Source: Musubi Tuner 0.3.4, training/trainer_base.py and networks/, and what accelerate 1.6
reads of the folder of a training state.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from musubitlx import tensors
from musubitlx.flagrules.given import Given, Problem, ignored, shown
from musubitlx.flagrules.network import kind_of

FILES = ("--network_weights", "--base_weights", "--log_tracker_config")
STATE = ("optimizer.bin", "scheduler.bin")  # besides the weights
MARKS = {  # network -> a tensor every layer has, one whose first size is the rank
    "lora_qwen_image": (".lora_down.weight", ".lora_down.weight"),
    "loha": (".hada_w1_b", ".hada_w1_b"),
    "lokr": (".lokr_w1", ".lokr_w2_b"),
}


def paths(given: Given) -> Iterator[Problem]:
    """Files and folders that have to be there when the training reads them."""
    for name in FILES:
        told = given.values.get(name, [])
        for path in [told] if isinstance(told, str) else told:
            if problem := _not_there(given, name, path, "file"):
                yield problem
            elif full := _full(given, path):
                yield from LOOKS[name](given, name, full)
    if given.has("--resume") and not given.has("--resume_from_huggingface"):
        path = _expanded(given.get("--resume"))
        if problem := _not_there(given, "--resume", path, "folder"):
            yield problem
        elif full := _full(given, path):
            yield from _state(given, full)
    path = given.values.get("--logging_dir")
    if path and _is(given, path, "file"):
        yield Problem("--logging_dir names a file", "Name a folder; it is made when missing.")


def _expanded(path: str) -> str:
    """The path with ~ as one's own folder, as accelerate reads it and nobody else does."""
    try:
        return str(Path(path).expanduser()) if path else path
    except RuntimeError:
        return path


def _not_there(given: Given, name: str, path: str, kind: str) -> Problem | None:
    if path.startswith("~"):
        return Problem(
            f"{name}: {shown(path)} is not found, ~ does not stand for your own folder here",
            "Write the whole path.",
        )
    if path and _is(given, path, kind) is not False:
        return None
    return Problem(
        f"{name}: there is no {kind} {shown(path)}",
        "Write the whole path, with / or in quotes: a bare \\ is lost, as in a shell.",
    )


def _is(given: Given, path: str, kind: str) -> bool | None:
    """Tell whether the path is a file or a folder; None when it can't be told."""
    full = _full(given, path)
    if full is None:
        return None
    try:
        return full.is_file() if kind == "file" else full.is_dir()
    except (OSError, ValueError):
        return False


def _full(given: Given, path: str) -> Path | None:
    """The path as the training has it; None when it is not known where that runs."""
    if Path(path).is_absolute():
        return Path(path)
    return given.folder / path if given.folder else None


# -- what is in them -------------------------------------------------------------------------------


def _network_weights(given: Given, name: str, file: Path) -> Iterator[Problem]:
    if file.suffix == ".safetensors":
        yield from _weights(given, name, file)
        return
    problem, _ = tensors.read_header(file)  # whatever else it is called Musubi gives to torch
    if problem is None:
        yield Problem(
            f"{name}: Musubi takes {shown(file.name)} for a file of torch",
            "Rename it: its name has to end in .safetensors, in small letters.",
        )
    elif not _is_pickled(file):
        yield Problem(f"{name}: {shown(file.name)} holds no weights", "Give a .safetensors file.")


def _is_pickled(file: Path) -> bool:
    """Tell whether it begins as torch's own files do."""
    try:
        with file.open("rb") as opened:
            return opened.read(4).startswith((b"PK\x03\x04", b"\x80"))
    except OSError:
        return False


def _base_weights(given: Given, name: str, file: Path) -> Iterator[Problem]:
    yield from _weights(given, name, file)


def _weights(given: Given, name: str, file: Path) -> Iterator[Problem]:
    """A file of a network's weights: readable, of the chosen kind, of the form's rank."""
    problem, found = tensors.read_header(file)
    if problem:
        yield Problem(f"{name}: {shown(problem.text.removesuffix('.'), 200)}", problem.hint)
        return
    if kind_of(given) not in MARKS:
        return
    mark, _ = MARKS[kind_of(given)]
    layers = [key.removesuffix(mark) for key in found if key.endswith(mark)]
    layers = [layer for layer in layers if layer.startswith("lora_unet_")]
    if name == "--base_weights":
        if layers and any(f"{layer}.alpha" not in found for layer in layers):
            yield Problem(
                f"--base_weights: {shown(file.name)} lacks the alpha of its layers",
                "Merge a LoRA that was saved by Musubi or by kohya's scripts.",
            )
    elif problem := _other_rank(given, name, file, found):
        yield problem
    if not layers:
        loses = "nothing of it is merged" if name == "--base_weights" else "nothing of it is loaded"
        yield ignored(
            f"{name}: {loses}, no layer of {shown(file.name)} has Musubi's name for "
            f"{given.get('--network_module')}",
            "Give a file that was trained with the same --network_module, and if need be "
            "convert it with Musubi's convert_lora.py.",
        )


def _other_rank(given: Given, name: str, file: Path, found: tensors.Tensors) -> Problem | None:
    """What to say of weights whose rank is not that of the form."""
    _, mark = MARKS[kind_of(given)]
    ranks = {row.shape[0] for key, row in found.items() if key.endswith(mark) and row.shape}
    wanted = given.settings.get("lora_rank")
    if wanted is None or not ranks or ranks == {wanted}:
        return None
    rank = max(ranks - {wanted})
    return Problem(
        f"{name}: the weights of {shown(file.name)} have rank {rank}, not {wanted}",
        f"Set “LoRA rank” to {rank}, or take {name} out.",
    )


def _state(given: Given, folder: Path) -> Iterator[Problem]:
    """The folder of `--resume`: everything accelerate reads, for the chosen network."""
    weights = folder / "model.safetensors"
    pickled = (folder / "pytorch_model.bin").is_file()
    needed = [*STATE, "scaler.pt"] if given.get("--mixed_precision") == "fp16" else STATE
    missing = [name for name in needed if not (folder / name).is_file()]
    if not weights.is_file() and not pickled:
        missing.insert(0, weights.name)
    if missing:
        yield Problem(
            f"--resume: {shown(folder.name)} is not the folder of a training state, it has no "
            + " and no ".join(missing),
            "Give a folder that --save_state made; its name ends in -state.",
        )
    elif weights.is_file():
        yield from map(_refuse, _weights(given, "--resume", weights))


def _refuse(problem: Problem) -> Problem:
    """A state has to fit the network in full, unlike a file of weights."""
    return problem._replace(refused=True)


def _tracker(given: Given, name: str, file: Path) -> Iterator[Problem]:
    import toml

    try:
        toml.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, LookupError, RecursionError) as error:
        yield Problem(
            f"{name}: {shown(file.name)} is not in the form TOML: {shown(error)}", "Correct it."
        )


LOOKS = {
    "--network_weights": _network_weights,
    "--base_weights": _base_weights,
    "--log_tracker_config": _tracker,
}
