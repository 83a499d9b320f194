"""The caption models one can choose, and what is asked of one: data, no code of theirs.

Source of the figures: the models' cards, and what loading them took; VRAM is the weights plus
what a small batch takes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from musubitlx.errors import Invalid
from musubitlx.home import Home, is_storable

TOKENS_LOW, TOKENS_HIGH = 32, 512
DETAIL_LOW, DETAIL_HIGH, DETAIL = 1, 5, 3
MODES = ("keep", "replace", "append")  # what becomes of a caption that is there
WHICH = ("empty", "all")  # or a list of names
MAX_INSTRUCTION = 2000  # characters
GB = 1e9
PREPROCESSOR = "preprocessor_config.json"
FAST, BYTE_LEVEL, WORD_PIECES = (  # the files of a tokenizer: by its library, else by its kind
    ("tokenizer.json",),
    ("vocab.json", "merges.txt", "tokenizer_config.json"),
    ("vocab.txt",),
)

INSTRUCTION = (
    "Describe this image in one paragraph for training an image model. Name the main subject, what "
    "it does and wears, the setting, composition, colours, light and style. State only what can be "
    "seen, without introduction, opinion or guesses."
)


@dataclass(frozen=True)
class Detail:
    """What one detail level means for BLIP: beams, and the length penalty (above 1: longer)."""

    label: str
    beams: int
    length_penalty: float


DETAILS = {
    1: Detail("basic", 6, 1.1),
    2: Detail("more", 8, 1.3),
    3: Detail("detailed", 10, 1.5),
    4: Detail("very detailed", 15, 2.0),
    5: Detail("extremely detailed", 20, 2.5),
}


@dataclass(frozen=True)
class Captioner:
    """One caption model: `repo` on the hub has its files, all or those that are small.

    `max_tokens` is the default length; `transformers` the oldest version that has the model;
    `download_bytes` is about; `vram` says, by how the weights are held, about how many bytes of
    VRAM must be free; of each tuple in `tokenizers` the files are enough to tell its words.
    """

    id: str
    label: str
    short: str
    repo: str
    max_tokens: int
    download_bytes: int
    vram: dict[str, float]
    transformers: tuple[int, int]
    packages: tuple[str, ...]
    note: str
    tokenizers: tuple[tuple[str, ...], ...] = (FAST, BYTE_LEVEL)
    detail: bool = False
    instruction: bool = False
    text_encoder: bool = False  # its weights are the text encoder file that training uses
    slow_on_cpu: bool = False

    def as_dict(self) -> dict:
        """What the page needs to offer it."""
        names = ("id", "label", "short", "max_tokens", "note", "detail", "instruction")
        whole = asdict(self)
        return {name: whole[name] for name in names}

    def folder(self, home: Home) -> Path:
        """Where its files from the hub are kept, there or not."""
        return home.models / "captioning" / self.repo.partition("/")[2]


IMPORTED = {"pillow": "PIL"}  # packages that are imported by another name
OFFLINE = {  # for a captioning process: what is missing was fetched before, nothing is looked for
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "USE_TF": "0",  # where TensorFlow is installed too, it would be loaded for nothing
    "USE_FLAX": "0",
    "PYTORCH_ENABLE_MPS_FALLBACK": "1",
}
BASICS = ("torch", "transformers", "safetensors", "pillow")

CAPTIONERS = (
    Captioner(
        id="vit-gpt2",
        label="ViT-GPT2",
        short="fast and small, one plain sentence",
        repo="nlpconnect/vit-gpt2-image-captioning",
        max_tokens=128,
        download_bytes=990_000_000,
        vram={"fp16": 2 * GB},
        transformers=(4, 44),
        packages=BASICS,
        note="Names the main thing in a few words, whatever the length allowed. Good for a first "
        "look, or where trigger word and one sentence are enough.",
    ),
    Captioner(
        id="blip-large",
        label="BLIP large",
        short="better sentences, five levels of detail",
        repo="Salesforce/blip-image-captioning-large",
        max_tokens=160,
        download_bytes=1_880_000_000,
        vram={"fp16": 4 * GB},
        transformers=(4, 44),
        packages=BASICS,
        tokenizers=(FAST, WORD_PIECES),
        detail=True,
        note="It was trained on short captions: more detail searches longer and makes the sentence "
        "somewhat longer, but never a paragraph. For that take Qwen-VL.",
    ),
    Captioner(
        id="qwen-vl",
        label="Qwen2.5-VL 7B",
        short="the best: follows an instruction, writes paragraphs",
        repo="Qwen/Qwen2.5-VL-7B-Instruct",
        max_tokens=256,
        download_bytes=12_000_000,
        vram={"fp8": 10 * GB, "bf16": 18 * GB},
        transformers=(4, 49),
        packages=(*BASICS, "accelerate"),
        tokenizers=(FAST,),
        instruction=True,
        text_encoder=True,
        slow_on_cpu=True,
        note="Uses the text encoder file that training needs anyway. Its weights are held in "
        "8 bits (fp8, about 8 GB of VRAM, 10 with what captioning takes) and computed in bf16; "
        "where fp8 does not work, in bf16 (16 GB, 18 in all).",
    ),
)
BY_ID = {one.id: one for one in CAPTIONERS}


@dataclass(frozen=True)
class Wish:
    """What somebody wants captioned, and how. `names` is None for `which` "empty" and "all"."""

    captioner: Captioner
    max_tokens: int
    detail: int = DETAIL
    instruction: str = INSTRUCTION
    which: str | None = "empty"
    names: list[str] | None = field(default=None)
    mode: str = "keep"
    trial: bool = False

    @classmethod
    def parse(cls, given: object) -> Wish:
        """Read a posted wish; Invalid names the field that is wrong."""
        if not isinstance(given, dict):
            raise Invalid("What is to be captioned is given as {model, which, …}.", field="model")
        captioner = named(given.get("model"))
        which, names = _which(given.get("which", "empty"))
        trial = given.get("trial") is True
        if trial and (names is None or len(names) != 1):
            raise Invalid("A trial is on one image: give its name.", field="which")
        return cls(
            captioner=captioner,
            max_tokens=_whole(
                given.get("max_tokens"),
                captioner.max_tokens,
                "max_tokens",
                "Caption length",
                TOKENS_LOW,
                TOKENS_HIGH,
            ),
            detail=_whole(
                given.get("detail"), DETAIL, "detail", "Detail level", DETAIL_LOW, DETAIL_HIGH
            ),
            instruction=_instruction(given.get("instruction")),
            which=which,
            names=names,
            mode=_mode(given.get("mode", "keep")),
            trial=trial,
        )


def named(id: object) -> Captioner:
    """The caption model of that id; Invalid if there is none."""
    if isinstance(id, str) and id in BY_ID:
        return BY_ID[id]
    known = ", ".join(BY_ID)
    raise Invalid(
        f"There is no caption model called {str(id)[:50]}.",
        field="model",
        hint=f"There are: {known}.",
    )


def _whole(given: object, default: int, name: str, label: str, low: int, high: int) -> int:
    if given is None:
        return default
    if not isinstance(given, int) or isinstance(given, bool) or not low <= given <= high:
        unit = " tokens" if name == "max_tokens" else ""
        raise Invalid(f"{label}: enter a whole number from {low} to {high}{unit}.", field=name)
    return given


def _which(given: object) -> tuple[str | None, list[str] | None]:
    if given in WHICH and isinstance(given, str):
        return given, None
    names = isinstance(given, list) and all(isinstance(name, str) for name in given)
    if not names:
        raise Invalid('Which images: "empty", "all" or a list of names.', field="which")
    if not given:
        raise Invalid("No image is chosen.", field="which", hint="Choose some images, or all.")
    return None, list(dict.fromkeys(given))


def _mode(given: object) -> str:
    if given in MODES and isinstance(given, str):
        return given
    raise Invalid(
        f"What becomes of captions that are there: {', '.join(MODES)}.",
        field="mode",
    )


def _instruction(given: object) -> str:
    if given is None:
        return INSTRUCTION
    fits = isinstance(given, str) and len(given) <= MAX_INSTRUCTION and is_storable(given)
    if not fits:
        raise Invalid(
            f"The instruction is text of at most {MAX_INSTRUCTION} characters.", field="instruction"
        )
    return given.replace("\r\n", "\n").replace("\x00", "").strip() or INSTRUCTION
