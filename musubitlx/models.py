"""The model files of Qwen-Image: what they are, where they lie, whether they are whole and right.

Everything here reads headers only: milliseconds, whatever the size of the file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from musubitlx import yamls
from musubitlx.errors import Invalid, NotFound
from musubitlx.home import Home, is_storable, write_text
from musubitlx.tensors import MAX_HEADER_BYTES, Problem, Tensors, read_header

HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Model:
    """One row of the catalogue: a file Musubi needs, and where to get it."""

    id: str
    label: str
    filename: str  # as saved in the home folder
    repo: str
    repo_path: str
    expected_bytes: int  # about; for progress, free space and the page, never to judge a file
    folders: tuple[str, ...]  # where ComfyUI keeps such files, below its models folder
    other_names: tuple[str, ...] = ()  # patterns of usual names, best first

    @property
    def source(self) -> str:
        """The address of the file on the hub."""
        return f"{HUB}/{self.repo}/resolve/main/{self.repo_path}"


CATALOGUE = (
    Model(
        id="dit",
        label="Diffusion model (DiT)",
        filename="qwen_image_bf16.safetensors",
        repo="Comfy-Org/Qwen-Image_ComfyUI",
        repo_path="split_files/diffusion_models/qwen_image_bf16.safetensors",
        expected_bytes=40_861_000_000,  # 20.43 billion parameters of two bytes
        folders=("diffusion_models", "unet"),
        other_names=(
            "qwen_image_2512_bf16.safetensors",
            "qwen_image_fp16.safetensors",
            "diffusion_pytorch_model-00001-of-[0-9]*.safetensors",
            "qwen_image*fp8*.safetensors",  # can't be used, but that is said then
        ),
    ),
    Model(
        id="text_encoder",
        label="Text encoder (Qwen2.5-VL 7B)",
        filename="qwen_2.5_vl_7b.safetensors",
        repo="Comfy-Org/Qwen-Image_ComfyUI",
        repo_path="split_files/text_encoders/qwen_2.5_vl_7b.safetensors",
        expected_bytes=16_584_000_000,
        folders=("text_encoders", "clip"),
        other_names=(
            "qwen2.5_vl_7b.safetensors",
            "model-00001-of-[0-9]*.safetensors",
            "qwen_2.5_vl_7b_fp8*.safetensors",
        ),
    ),
    Model(
        id="vae",
        label="VAE",
        filename="diffusion_pytorch_model.safetensors",
        repo="Qwen/Qwen-Image",
        repo_path="vae/diffusion_pytorch_model.safetensors",
        expected_bytes=253_807_000,
        folders=("vae",),
        other_names=("qwen_image_vae.safetensors",),
    ),
)


@dataclass(frozen=True)
class ModelState:
    """One model file as the page shows it; None where there is nothing to say."""

    id: str
    label: str
    filename: str
    path: str | None
    found_in: str | None  # in words
    bytes: int | None  # all parts together
    expected_bytes: int
    whole: bool  # the header reads and the length is what it says
    problem: str | None  # None: the file can be used
    hint: str | None
    source: str

    def as_dict(self) -> dict:
        """The state in the shape of GET /api/models."""
        return asdict(self)


def model(id: str) -> Model:
    """Return the catalogue row of that id; NotFound if there is none."""
    for row in CATALOGUE:
        if row.id == id:
            return row
    known = ", ".join(row.id for row in CATALOGUE)
    raise NotFound(f"There is no model file called {id[:50]}.", hint=f"There are: {known}.")


# -- finding --------------------------------------------------------------------------------------


def find(home: Home) -> list[ModelState]:
    """Return the state of each model file, in the order of the catalogue.

    A path the user set is taken as it is. Else the first usable file counts, in the
    home folder, its models/ and ComfyUI's models folder; when there is none, the
    first unusable one, with what is wrong with it. A models.yaml that can't be read
    is the problem of each: what the user chose is not replaced by a guess.
    """
    chosen, trouble = read_choices(home)
    return [find_one(home, row, chosen, trouble) for row in CATALOGUE]


def find_one(home: Home, row: Model, chosen: dict, trouble: Problem | None = None) -> ModelState:
    """Return the state of one model file, `chosen` being the content of models.yaml."""
    if trouble:
        return state_of(row, None, None, trouble)
    if path := as_path(home, chosen.get(row.id)):
        return state_of(row, path, "the path you set", inspect(path, row.id))
    unusable = None
    for path, place in candidates(home, row, chosen):
        problem = inspect(path, row.id)
        if problem is None:
            return state_of(row, path, place, None)
        unusable = unusable or state_of(row, path, place, problem)
    return unusable or state_of(row, None, None, missing(row))


def missing(row: Model) -> Problem:
    """What to say when a model file is nowhere to be found."""
    gb = row.expected_bytes / 1e9
    size = f"{gb:.0f} GB" if gb >= 1 else f"{gb * 1000:.0f} MB"
    return Problem(
        f"{row.filename} was not found.",
        f"Download it ({size}) from {row.source} into the home folder, or give the path "
        "of the file if you have it elsewhere.",
    )


def candidates(home: Home, row: Model, chosen: dict) -> Iterator[tuple[Path, str]]:
    """Yield the files that may be this model, with the place in words, best first."""
    places = [(home.root, "the home folder"), (home.models, "the models folder")]
    places += [(home.models / folder, "the models folder") for folder in row.folders]
    if comfyui := as_path(home, chosen.get("comfyui")):
        roots = (comfyui, comfyui / "models")
        places += [(root / folder, "ComfyUI") for root in roots for folder in row.folders]
    for folder, place in places:
        for pattern in (row.filename, *row.other_names):
            for path in sorted(folder.glob(pattern)):
                if is_file(path):
                    yield path, place


def state_of(
    row: Model, path: Path | None, place: str | None, problem: Problem | None
) -> ModelState:
    """Return the state of a file that was found, or of none."""
    sizes = [size for part in parts(path) if (size := size_of(part)) is not None] if path else []
    return ModelState(
        id=row.id,
        label=row.label,
        filename=row.filename,
        path=str(path) if path else None,
        found_in=place,
        bytes=sum(sizes) if sizes else None,
        expected_bytes=row.expected_bytes,
        whole=problem is None or problem.whole,
        problem=problem.text if problem else None,
        hint=problem.hint if problem else None,
        source=row.source,
    )


# -- what the user chose --------------------------------------------------------------------------


def choices_file(home: Home) -> Path:
    """The file with the paths the user set: dit, text_encoder, vae, comfyui."""
    return home.configs / "models.yaml"


def read_choices(home: Home) -> tuple[dict, Problem | None]:
    """Return the content of models.yaml, and what is wrong with it when it does not read.

    Where there is no PyYAML it counts as empty.
    """
    file = choices_file(home)
    try:
        value = yamls.read(file)
    except FileNotFoundError:
        return {}, None
    except ModuleNotFoundError as error:  # captioning runs in Pythons that may lack PyYAML
        if error.name != "yaml":
            raise
        return {}, None
    except yamls.Unreadable as why:
        return {}, Problem(f"{file} can't be used: {why}.", MEND_CHOICES)
    if not isinstance(value or {}, dict):
        return {}, Problem(f"{file} holds no list of names and paths.", MEND_CHOICES)
    value = {key: path for key, path in (value or {}).items() if path is not None}
    if odd := next((key for key, path in value.items() if not isinstance(path, str)), None):
        return {}, Problem(f"{file}: {odd} is no path.", MEND_CHOICES)
    return value, None


MEND_CHOICES = (
    "Mend the file (one line each, like  dit: /path/to/file.safetensors) or delete it, "
    "then set the paths on the page again."
)


def set_path(home: Home, id: str, path: str) -> ModelState:
    """Keep the path of a model file, or forget it when `path` is empty; return the new state.

    A path below the home folder may be relative to it. NotFound for an unknown id,
    Invalid for a path that is no file; a file with something wrong is kept, and the
    state says what.
    """
    row = model(id)
    chosen, trouble = read_choices(home)
    if trouble:
        raise Invalid(trouble.text, field=f"models.{id}", hint=trouble.hint)
    if not isinstance(path, str) or not is_storable(path):
        raise Invalid(f"{row.label}: the path must be a text.", field=f"models.{id}")
    typed = path.strip().strip("\"'")  # as copied from a file manager
    chosen.pop(id, None)
    if typed:
        chosen[id] = str(checked_file(home, row, typed))
    write_choices(home, chosen)
    return find_one(home, row, chosen)


def checked_file(home: Home, row: Model, typed: str) -> Path:
    """Return the file at a path a person typed; Invalid if there is none."""
    path = as_path(home, typed)
    if path is None or not is_file(path):
        is_folder = path is not None and is_dir(path)
        raise Invalid(
            f"{typed[:300]} is a folder." if is_folder else f"There is no file {typed[:300]}.",
            field=f"models.{row.id}",
            hint=f"Give the whole path of the file, its name included (like {row.filename}). "
            "It must lie on the machine MusubiTLX runs on.",
        )
    return path


def write_choices(home: Home, chosen: dict) -> None:
    """Replace models.yaml in one step."""
    import yaml

    home.configs.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(chosen, allow_unicode=True, sort_keys=True) if chosen else ""
    head = "# Where the model files lie, as set on the page. comfyui: its models folder.\n"
    write_text(choices_file(home), head + text)


def as_path(home: Home, typed: object) -> Path | None:
    """Return a path a person wrote (relative: from the home folder), None if it is none."""
    if not isinstance(typed, str) or not typed.strip() or "\0" in typed:
        return None
    try:
        return home.root / Path(typed.strip()).expanduser()
    except RuntimeError:  # ~someone who is not there
        return None


def is_file(path: Path) -> bool:
    """Whether a file is there; a path the system can't even look at is none."""
    return size_of(path) is not None


def is_dir(path: Path) -> bool:
    """Whether a folder is there; see is_file."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def size_of(path: Path) -> int | None:
    """The length of a file in bytes, None when there is no such file."""
    try:
        return path.stat().st_size if path.is_file() else None
    except (OSError, ValueError):
        return None


# -- whether a file is whole ----------------------------------------------------------------------

SPLIT = re.compile(r"(.*?)(\d+)-of-(\d+)\.safetensors")


def parts(path: Path) -> list[Path]:
    """Return the files of a model: of a split set all that belong to it, there or not.

    Named as Musubi looks for them: five digits, beside the first.
    """
    match = SPLIT.fullmatch(path.name)
    if not match or int(match[3]) > 999:
        return [path]
    stem, count = match[1], int(match[3])
    names = (f"{stem}{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1))
    return [path.with_name(name) for name in names]


def fingerprint(path: Path) -> str | None:
    """What tells a model file from another one, wherever it lies: length, time and header.

    None for a file that is not there or can't be read. Hashing all of 17 GB would
    take minutes; another model of the same make differs in time and mostly in length.
    """
    digest = hashlib.sha256()
    for part in parts(path):
        try:
            facts = part.stat()
            with part.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = file.read(min(length, MAX_HEADER_BYTES))
        except OSError:
            return None
        digest.update(f"{facts.st_size} {facts.st_mtime_ns} ".encode() + header)
    return digest.hexdigest()[:32]


def inspect(path: Path, kind: str | None = None) -> Problem | None:
    """Say what is wrong with a model file, or None if nothing is.

    `kind` is the id of the model it is meant to be; None looks only whether it is
    whole. Of a split set `path` must be the first, and all are looked at.
    """
    files = parts(path)
    if path not in files or (len(files) > 1 and path != files[0]):
        return Problem(
            f"{path.name} is not the first part of its set.",
            f"Choose {files[0].name if files else 'the first part'} in the same folder.",
        )
    tensors: Tensors = {}
    for file in files:
        problem, found = read_header(file)
        if problem:
            return problem
        tensors |= found
    return wrong_kind(path.name, kind, tensors) if kind else None


# -- whether it is the right one ------------------------------------------------------------------


def has(*beginnings: str) -> Callable[[Tensors], bool]:
    """A test: for each of the beginnings there is a tensor whose name starts so."""
    return lambda tensors: all(any(key.startswith(b) for key in tensors) for b in beginnings)


# What a file is, told from its names: the first row that fits.
KINDS = (
    ("lora", "a LoRA", lambda t: any(".lora_" in k or k.startswith("lora_") for k in t)),
    ("dit", "the diffusion model of Qwen-Image", has("transformer_blocks.0.img_mod.", "txt_norm.")),
    ("vae", "the VAE of Qwen-Image", has("encoder.conv_in.", "encoder.down_blocks.0.conv1.")),
    ("vae", "the VAE of Qwen-Image", has("encoder.downsamples.0.residual.", "decoder.upsamples.")),
    ("text_encoder", "Qwen2.5-VL", has("model.layers.", "visual.")),
    ("", "Qwen2.5-VL saved by a newer transformers", has("model.language_model.", "model.visual.")),
    ("", "a language model without its image part", has("model.layers.")),
    ("", "the VAE of another model", has("encoder.", "decoder.")),
    ("", "another diffusion model", has("transformer_blocks.")),
    ("", "another diffusion model", has("double_blocks.")),
    ("", "another diffusion model", has("joint_blocks.")),
    ("", "another diffusion model", has("blocks.0.")),
    ("", "another text encoder", has("text_model.")),
    ("", "another text encoder", has("encoder.block.")),
)


def kind_of(tensors: Tensors) -> tuple[str, str]:
    """Return the id of the model these tensors are ("" if none of ours), and it in words."""
    bare = {key.removeprefix("model.diffusion_model."): row for key, row in tensors.items()}
    for id, words, fits in KINDS:
        if fits(bare):
            return id, words
    return "", "no model file of Qwen-Image"


def wrong_kind(name: str, kind: str, tensors: Tensors) -> Problem | None:
    """Say why Musubi would refuse these tensors as the model `kind`, or None if it would not."""
    row = model(kind)
    is_kind, words = kind_of(tensors)
    get = f"Get {row.filename} from {row.source}."
    if is_kind != kind:
        belongs = f" It belongs in the row {model(is_kind).label}." if is_kind in IDS else ""
        text = f"{name} is not the {row.label}: it is {words}."
        return Problem(text, f"Choose another file.{belongs} {get}", whole=True)
    if is_fp8(tensors):
        text = f"{name} holds fp8 or other 8-bit weights, which Musubi Tuner can't train with."
        return Problem(text, f"{get} Musubi makes fp8 of it by itself.", whole=True)
    if variant := other_variant(kind, tensors):
        return Problem(f"{name} is {variant}.", get, whole=True)
    return None


IDS = {row.id for row in CATALOGUE}


def is_fp8(tensors: Tensors) -> bool:
    """Whether weights are stored in 8 bits: by their type, or by the scales that go with it."""
    marks = ("scaled_fp8", ".scale_weight", ".scale_input", ".weight_scale")
    small = ("F8", "F4", "I8", "U8", "I4", "U4")
    return any(
        key.endswith(marks) or (key.endswith(".weight") and tensor.dtype.startswith(small))
        for key, tensor in tensors.items()
    )


def other_variant(kind: str, tensors: Tensors) -> str | None:
    """Tell files of the right kind, but of a model this program does not train."""
    if kind == "dit" and any(key.endswith("__index_timestep_zero__") for key in tensors):
        return "the diffusion model of Qwen-Image-Edit 2511"
    if kind == "vae":
        first = tensors.get("encoder.conv_in.weight") or tensors.get("encoder.conv1.weight")
        if first and len(first.shape) == 4:
            return "the VAE of another model"
        if first and len(first.shape) == 5 and first.shape[1] == 4:
            return "the VAE of Qwen-Image-Layered (4 channels)"
    if kind == "text_encoder":
        norm = tensors.get("model.norm.weight")
        if norm and norm.shape and norm.shape[0] != 3584:
            return f"a Qwen2.5-VL of another size (width {norm.shape[0]}, should be 3584)"
    return None
