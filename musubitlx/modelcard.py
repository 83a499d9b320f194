"""The model card of a run: LORA_README.md, ready to go beside the LoRA on Hugging Face.

Made after success by the runner. A card that a person edited is left alone: the
last line of ours holds a digest of the text above it.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from pathlib import Path
from urllib.parse import quote

from musubitlx import __version__, options, samples
from musubitlx.home import stamp_of, write_text
from musubitlx.jobs import Job
from musubitlx.origins import Run
from musubitlx.projects import CARD, Project

NAME = "LORA_README.md"
MARK = re.compile(r"\n<!-- made by MusubiTLX, ([0-9a-f]{64}): .*-->\s*\Z")
MOST_PROMPTS = 10
MOST_PICTURES = 4
WEIGHT = "0.8 to 1.0"
SECRET = re.compile(r"--.*(key|token|password|secret)", re.I)
OURS = {  # said in the table under a name of their own, or of no interest beside the LoRA
    *("--dit", "--vae", "--text_encoder", "--model_version", "--dataset_config", "--output_dir"),
    *("--output_name", "--max_train_epochs", "--learning_rate", "--optimizer_type"),
    *("--network_dim", "--network_alpha", "--seed", "--sample_prompts", "--network_module"),
    *("--sample_every_n_epochs", "--sample_every_n_steps", "--sample_at_first"),
    *("--max_data_loader_n_workers", "--persistent_data_loader_workers"),
}


def cards(project: Project) -> list[Path]:
    """The cards of a folder, the newest first."""
    found = [path for path in project.path.glob("LORA_README*.md") if CARD.fullmatch(path.name)]
    stamps = {path: stamp for path in found if (stamp := stamp_of(path))}  # one may just have gone
    return sorted(stamps, key=lambda path: stamps[path].modified, reverse=True)


def write(project: Project, job: Job, *, progress: dict, ended: float) -> Path | None:
    """Write the card of a run that has just succeeded; returns where, None if nowhere.

    Where a person has edited LORA_README.md it becomes `LORA_README.<name>.md`;
    where that was edited too, no card is written. `progress` is the run's last,
    `ended` in seconds since the epoch.
    """
    text = signed(card(project, job, progress, ended))
    for name in (NAME, f"LORA_README.{job.settings['output_name']}.md"):
        path = project.file(name)
        if not path.exists() or is_ours(path):
            write_text(path, text)
            return path
    return None


def signed(text: str) -> str:
    """A card with the line by which it is known again as long as nobody edits it."""
    note = "once you edit the card, or remove this line, it is yours and not written over"
    return f"{text}\n<!-- made by MusubiTLX, {_digest(text)}: {note} -->\n"


def is_ours(path: Path) -> bool:
    """Whether a card is just as it was made; line ends and what follows them do not count."""
    try:
        text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError):
        return False
    mark = MARK.search(text)
    return bool(mark) and mark[1] == _digest(text[: mark.start()])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


# -- the text --------------------------------------------------------------------------------------


def card(project: Project, job: Job, progress: dict, ended: float) -> str:
    """The card as Markdown with the front matter of Hugging Face.

    No path of the machine, no user name and no key gets into it.
    """
    run, settings = Run(job), job.settings
    name, trigger = settings["output_name"], settings["trigger_word"]
    drawn = _last_samples(project, job)
    parts = [
        _front_matter(trigger, drawn),
        f"# {_plain(name)}",
        _lead(job, trigger),
        *_pictures(drawn),
        *_use(name, trigger),
        *_prompts(run),
        _training(run, progress),
        _versions(job, ended),
    ]
    return "\n\n".join(part for part in parts if part)


def _front_matter(trigger: str, drawn: list[dict]) -> str:
    lines = [
        "---",
        "base_model: Qwen/Qwen-Image",
        "library_name: diffusers",
        "pipeline_tag: text-to-image",
        "tags:",
        *(f"- {tag}" for tag in ("lora", "qwen-image", "text-to-image", "musubi-tuner")),
    ]
    if trigger:
        lines.append(f"instance_prompt: {_yaml(trigger)}")
    if known := [sample for sample in drawn if sample["prompt"]]:
        lines.append("widget:")
        for sample in known:
            lines += [
                f"- text: {_yaml(sample['prompt'])}",
                "  output:",
                f"    url: {_yaml(_address(sample))}",
            ]
    return "\n".join([*lines, "---"])


def _lead(job: Job, trigger: str) -> str:
    lines = ["A LoRA for [Qwen-Image](https://huggingface.co/Qwen/Qwen-Image)."]
    if job.practice:
        lines = [
            "**Practice run: this file shows how everything works. It is not for Qwen-Image.**"
        ]
    if trigger:
        lines.append(f"Trigger word: {_code(trigger)}")
    return "\n\n".join(lines)


def _pictures(drawn: list[dict]) -> list[str]:
    return [
        f"![{_plain(sample['prompt'] or 'Sample')}]({_address(sample)})"
        for sample in drawn[:MOST_PICTURES]
    ]


def _last_samples(project: Project, job: Job) -> list[dict]:
    """The samples of the last place at which the run drew any, one for each prompt."""
    last = {
        sample["prompt_number"]: sample
        for sample in samples.listed(project, [job])
        if sample["run"] == job.id and 0 not in (sample["epoch"], sample["step"])
    }
    return [last[number] for number in sorted(last)][:MOST_PROMPTS]


def _use(name: str, trigger: str) -> list[str]:
    file = f"{name}.safetensors"
    say = f", and put {_code(trigger)} into the prompt" if trigger else ""
    python = f'pipe.load_lora_weights("path/to/this/folder", weight_name={json.dumps(file)})'
    return [
        "## Use",
        f"ComfyUI: put {_code(file)} into `models/loras`, load it with *LoraLoaderModelOnly* at a "
        f"strength of {WEIGHT}{say}.",
        "diffusers:",
        '```python\npipe = DiffusionPipeline.from_pretrained("Qwen/Qwen-Image", '
        f'torch_dtype=torch.bfloat16).to("cuda")\n{python}\n```',
    ]


def _prompts(run: Run) -> list[str]:
    lines = [line.split(" --")[0] for line in run.prompts()][:MOST_PROMPTS]
    return ["## Example prompts", "\n".join(f"- {_code(line)}" for line in lines)] if lines else []


def _training(run: Run, progress: dict) -> str:
    """What was trained, with the values of the command that ran."""
    job, settings = run.job, run.settings
    given = options.of_words(_command(job))
    epochs = progress.get("epochs") or given.get("--max_train_epochs") or settings["epochs"]
    final = run.loss_at()
    rows = {
        "Images": len(job.inputs),
        "Image repeats": settings["image_repeats"],
        "Epochs": epochs,
        "Steps": progress.get("total") or final["step"],
        "Batch size": settings["batch_size"],
        "Resolution": settings["resolution"],
        "LoRA rank": given.get("--network_dim"),
        "Dims (alpha)": given.get("--network_alpha"),
        "Learning rate": given.get("--learning_rate"),
        "Optimizer": given.get("--optimizer_type"),
        "Seed": given.get("--seed"),
        "Final loss": _loss(final),
        "Recipe": settings.get("recipe") or None,
    }
    told = {label: value for label, value in rows.items() if value is not None}
    table = [f"| {label} | {_plain(str(value))} |" for label, value in told.items()]
    if further := _further(given):
        flags = _code(further).replace("|", "\\|")  # a table's cell ends at a bare one
        table.append(f"| Further flags | {flags} |")
    return "\n".join(["## Training", "", "| | |", "|---|---|", *table])


def _loss(final: dict) -> str | None:
    if final["loss"] is None:
        return None
    return f"{final['loss']:.3g}, mean of the last {final['steps']} steps"


def _command(job: Job) -> list[str]:
    return next((stage["argv"][2:] for stage in job.stages if stage["name"] == "train"), [])


def _further(given: dict[str, str]) -> str | None:
    """The other options, as typed; none whose value is a path or a secret."""
    own = {name: value for name, value in given.items() if name not in OURS}
    kept = [
        f"{name} {value}".strip()
        for name, value in own.items()
        if not SECRET.match(name) and not any(sign in value for sign in "/\\")
    ]
    return " ".join(kept) or None


def _versions(job: Job, ended: float) -> str:
    made_by = next(
        (
            stage["caches"]["with"]["trainer"]
            for stage in job.stages
            if stage.get("caches", {}).get("with", {}).get("trainer")
        ),
        "",
    )
    kind, _, number = made_by.partition(" ")
    trainer = f"Musubi Tuner {number}".strip() if kind == "musubi" else "the practice trainer"
    date = time.strftime("%Y-%m-%d", time.localtime(ended))
    return f"Trained on {date} with {trainer} and MusubiTLX {__version__}."


# -- words of people in Markdown -------------------------------------------------------------------


def _yaml(text: str) -> str:
    """A text in YAML: JSON is a part of it, but for signs that YAML takes for line ends."""
    quoted = json.dumps(text, ensure_ascii=False)
    return re.sub("[\x7f-\x9f\u2028\u2029\ufeff]", lambda sign: f"\\u{ord(sign[0]):04x}", quoted)


def _address(sample: dict) -> str:
    return "sample/" + quote(sample["name"])


def _plain(text: str) -> str:
    """A text that Markdown and HTML leave as it is."""
    escaped = re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", text)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _code(text: str) -> str:
    """A text as code, whatever backticks are in it."""
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    room = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{room}{text}{room}{fence}"
