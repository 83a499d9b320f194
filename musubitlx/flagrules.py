"""What Musubi refuses, fails on late or silently ignores, as rows: the rules of the flag line.

Source: Musubi Tuner 0.3.4, its parser, training/trainer_base.py, modules/, networks/ and
the schedules of transformers and diffusers. Nothing here is read from the installation.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from musubitlx.settings import BY_NAME

# What the command says by itself; a flag of the same name has the last word.
OWN = {
    "--mixed_precision": "bf16",
    "--save_precision": "bf16",
    "--timestep_sampling": "qwen_shift",
    "--weighting_scheme": "none",
    "--max_data_loader_n_workers": 2,
    "--save_every_n_epochs": 1,
    "--network_module": "networks.lora_qwen_image",
}


class Problem(NamedTuple):
    """One thing to say: a part of a sentence, what to do, and whether it stands in the way."""

    text: str
    hint: str
    refused: bool = True


def ignored(text: str, hint: str) -> Problem:
    """Something that does no harm and not what it seems to do."""
    return Problem(text, hint, refused=False)


@dataclass(frozen=True)
class Given:
    """The flags of a line, what holds where they are silent, and where the training runs.

    Relative paths are looked for in `folder`, the training's working directory;
    without it they are not looked for.
    """

    values: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    def has(self, *names: str) -> bool:
        """Tell whether any of the options stands in the line."""
        return any(name in self.values for name in names)

    def get(self, name: str) -> Any:
        """The value that holds: the line's, else the command's own, else Musubi's."""
        for source in (self.values, OWN, self.defaults):
            if name in source:
                return source[name]
        return None


# -- the form, and other scripts -------------------------------------------------------------------


def _field(name: str) -> str:
    return f"Take it out and use the field “{BY_NAME[name].label}”."


_MODEL = "Take it out; MusubiTLX trains the original Qwen-Image."
_FILE = "Take it out and choose the file under “Model files”."
_WRITTEN = "Take it out; MusubiTLX writes this file from the form and the images."

TAKEN = {  # what the form gives, and where it does
    "--dataset_config": _WRITTEN,
    "--config_file": "Take it out and write its options into this line.",
    "--model_version": _MODEL,
    "--edit": _MODEL,
    "--edit_plus": _MODEL,
    "--dit": _FILE,
    "--vae": _FILE,
    "--text_encoder": _FILE,
    "--output_dir": _field("output_dir"),
    "--output_name": _field("output_name"),
    "--seed": _field("seed"),
    "--max_train_epochs": _field("epochs"),
    "--max_train_steps": "Take it out; the number of steps follows from the field “Epochs”.",
    "--learning_rate": _field("learning_rate"),
    "--optimizer_type": _field("optimizer_type"),
    "--network_dim": _field("lora_rank"),
    "--network_alpha": _field("lora_dims"),
    "--sample_prompts": _field("sample_prompt_text"),
    "--sample_at_first": _field("sample_at_first"),
    "--sample_every_n_epochs": _field("sample_every_epochs"),
    "--sample_every_n_steps": _field("sample_every_steps"),
}

ELSEWHERE = {  # options of other trainers that people bring along
    "--help": "What each option does is said in Musubi's documentation.",
    "-h": "What each option does is said in Musubi's documentation.",
    "--resolution": _field("resolution"),
    "--batch_size": _field("batch_size"),
    "--train_batch_size": _field("batch_size"),
    "--unet_lr": _field("learning_rate"),
    "--num_repeats": _field("image_repeats"),
    "--train_data_dir": _field("output_dir"),
    "--full_bf16": "Use --mixed_precision bf16, which is set already.",
    "--full_fp16": "Use --mixed_precision fp16.",
    "--cache_latents": "Take it out; MusubiTLX caches latents before every training.",
    "--cache_text_encoder_outputs": "Take it out; MusubiTLX caches them before every training.",
    "--network_train_unet_only": "Take it out; Musubi never trains the text encoder.",
    "--device": "Take it out; CUDA_VISIBLE_DEVICES chooses the graphics card.",
    "--lowram": "Take it out; --blocks_to_swap is what saves memory here.",
    "--lowvram": "Take it out; --blocks_to_swap is what saves memory here.",
    "--medvram": "Take it out; --blocks_to_swap is what saves memory here.",
    "--noise_offset": "Take it out; Musubi has nothing of the kind.",
    "--min_snr_gamma": "Take it out; Musubi has nothing of the kind.",
    "--save_model_as": "Take it out; Musubi always saves .safetensors.",
    "--mem_eff_attn": "Take it out; --sdpa is used.",
    "--fp8_llm": "For Qwen-Image it is --fp8_vl.",
}

# -- one option by itself --------------------------------------------------------------------------

_ATTENTION_HINT = "Use --sdpa, or --flash_attn or --xformers together with --split_attn."

REFUSED = {  # sections 1, 6 and 14 of the facts about 0.3.4
    "--sage_attn": ("Musubi refuses it for training", _ATTENTION_HINT),
    "--flash3": ("it does not work for Qwen-Image", _ATTENTION_HINT),
    "--show_timesteps": ("it shows a diagram and trains nothing", "Take it out."),
    "--dim_from_weights": (
        "Musubi takes the switch itself for the name of a file and fails",
        "Take it out and set “LoRA rank” to the rank of the weights.",
    ),
    "--remove_first_image_from_target": (
        "Musubi takes it for the layered model only",
        "Take it out.",
    ),
}

NO_EFFECT = {
    "--vae_dtype": "the Qwen-Image VAE has its own",
    "--guidance_scale": "Qwen-Image has no such guidance",
    "--img_in_txt_in_offloading": "it is for other models",
    "--ddp_timeout": "the training runs on one graphics card",
    "--ddp_gradient_as_bucket_view": "the training runs on one graphics card",
    "--ddp_static_graph": "the training runs on one graphics card",
}

ANY = (-1e9, 1e9, "Give a number of the usual size.")
RANGES = {  # option -> lowest, highest, what to do; both ends are allowed
    "--blocks_to_swap": (0, 59, "Qwen-Image has 60 blocks, and one has to stay; 0 swaps none."),
    "--block_swap_ring_size": (1, 59, "2 is usual."),
    "--num_layers": (1, 1000, "Leave it out: Qwen-Image has 60."),
    "--gradient_accumulation_steps": (1, 100_000, "1 is no accumulation."),
    "--max_data_loader_n_workers": (0, 256, "2 is usual."),
    "--save_every_n_epochs": (1, 1e6, "A number above that of the epochs saves only the end."),
    "--save_every_n_steps": (1, 1e9, "Leave it out to save by epochs only."),
    "--save_last_n_epochs": (1, 1e6, "Leave it out to keep all."),
    "--save_last_n_epochs_state": (1, 1e6, "Leave it out to keep all."),
    "--save_last_n_steps": (1, 1e9, "Leave it out to keep all."),
    "--save_last_n_steps_state": (1, 1e9, "Leave it out to keep all."),
    "--max_grad_norm": (0, 1e6, "1.0 is usual, 0 switches clipping off."),
    "--network_dropout": (0, 0.99, "0 is none; 0.1 is a usual start."),
    "--scale_weight_norms": (0, 1e6, "1 is a usual start."),
    "--min_timestep": (0, 999, "Leave it out to begin at 0."),
    "--max_timestep": (1, 1000, "Leave it out to end at 1000."),
    "--num_timestep_buckets": (0, 1000, "2 or more are buckets; leave it out for none."),
    "--logit_mean": (-1000, 1000, "0.0 is usual."),
    "--logit_std": (0, 1000, "1.0 is usual."),
    "--mode_scale": (-100, 100, "1.29 is usual."),
    "--sigmoid_scale": (0.001, 1000, "1.0 is usual."),
    "--discrete_flow_shift": (0.001, 1000, "2.2 is usual."),
    "--lr_warmup_steps": (0, 1e9, "Give steps (100) or a share of all steps (10% or 0.1)."),
    "--lr_decay_steps": (0, 1e9, "Give steps (100) or a share of all steps (10% or 0.1)."),
    "--lr_scheduler_num_cycles": (1, 1e6, "1 is usual."),
    "--lr_scheduler_power": (0, 1000, "1 is usual."),
    "--lr_scheduler_timescale": (1, 1e9, "Leave it out to have it follow the warm-up."),
    "--lr_scheduler_min_lr_ratio": (0, 1, "0.1 ends at a tenth of the learning rate."),
    "--compile_cache_size_limit": (1, 1e6, "32 is usual."),
    "--base_weights_multiplier": (-100, 100, "1.0 is usual."),
}

# -- options that go together ----------------------------------------------------------------------

ATTENTION = ("--sdpa", "--flash_attn", "--xformers")  # Musubi takes the first of several
_UPLOAD = ("--huggingface_repo_type", "--huggingface_path_in_repo", "--huggingface_repo_visibility")

NEEDS = (  # without one of the second these have no effect
    *((f"--compile_{name}", ("--compile",)) for name in ("backend", "mode", "dynamic")),
    *((f"--compile_{name}", ("--compile",)) for name in ("fullgraph", "cache_size_limit")),
    *((f"--dynamo_{name}", ("--dynamo_backend",)) for name in ("mode", "fullgraph", "dynamic")),
    ("--gradient_checkpointing_cpu_offload", ("--gradient_checkpointing",)),
    ("--use_pinned_memory_for_block_swap", ("--blocks_to_swap",)),
    ("--block_swap_h2d_only", ("--blocks_to_swap",)),
    ("--block_swap_ring_size", ("--block_swap_h2d_only",)),
    ("--log_prefix", ("--logging_dir",)),
    ("--log_tracker_name", ("--logging_dir", "--log_with")),
    ("--log_config", ("--logging_dir", "--log_with")),
    *((name, ("--huggingface_repo_id",)) for name in _UPLOAD),
    ("--async_upload", ("--huggingface_repo_id",)),
    ("--huggingface_token", ("--huggingface_repo_id", "--resume_from_huggingface")),
    ("--save_state_to_huggingface", ("--huggingface_repo_id",)),
    ("--save_state_to_huggingface", ("--save_state", "--save_state_on_train_end")),
    ("--resume_from_huggingface", ("--resume",)),
    ("--save_last_n_epochs_state", ("--save_state",)),
    ("--save_last_n_steps", ("--save_every_n_steps",)),
    ("--save_last_n_steps_state", ("--save_every_n_steps",)),
    ("--save_last_n_steps_state", ("--save_state",)),
    ("--base_weights_multiplier", ("--base_weights",)),
    ("--preserve_distribution_shape", ("--min_timestep", "--max_timestep")),
)

SIGMOIDS = ("sigmoid", "shift", "flux_shift", "flux2_shift", "qwen_shift", "krea2_shift")
SIGMOIDS += ("qinglong_flux", "qinglong_qwen")


def _uses_logit(sampling: str, scheme: str) -> bool:
    return sampling in ("logsnr", "qinglong_flux") or (sampling, scheme) == (
        "sigma",
        "logit_normal",
    )


SAMPLED = (  # option, when it has an effect (by sampling and weighting scheme), what gives it one
    (
        "--discrete_flow_shift",
        lambda how, scheme: how in ("shift", "sigma") or scheme in ("sigma_sqrt", "cosmap"),
        "--timestep_sampling shift",
    ),
    ("--sigmoid_scale", lambda how, _: how in SIGMOIDS, "--timestep_sampling sigmoid"),
    ("--logit_mean", _uses_logit, "--timestep_sampling logsnr"),
    ("--logit_std", _uses_logit, "--timestep_sampling logsnr"),
    (
        "--mode_scale",
        lambda how, scheme: (how, scheme) == ("sigma", "mode"),
        "--timestep_sampling sigma --weighting_scheme mode",
    ),
    (
        "--weighting_scheme",
        lambda how, scheme: how == "sigma" or scheme not in ("logit_normal", "mode"),
        "--timestep_sampling sigma",
    ),
    (
        "--preserve_distribution_shape",
        lambda how, _: how != "sigma",
        "--timestep_sampling qwen_shift",
    ),
    ("--num_timestep_buckets", lambda how, _: how != "sigma", "--timestep_sampling qwen_shift"),
)


@dataclass(frozen=True)
class Rule:
    """Speaks when `option` is in the line and `when` holds; {value} is the option's value."""

    option: str
    when: Callable[[Given], Any]
    text: str
    hint: str
    refused: bool = True


def _truthy(given: Given, *names: str) -> bool:
    return any(given.get(name) for name in names)


def _wandb(given: Given) -> bool:
    return given.get("--log_with") in ("wandb", "all")


_TOKEN_HINT = "Take it out and log in once in Musubi's environment instead: {how}."

RULES = (
    # memory
    Rule(
        "--fp8_scaled",
        lambda given: not given.has("--fp8_base"),
        "--fp8_scaled needs --fp8_base",
        "Add --fp8_base.",
    ),
    Rule(
        "--blocks_to_swap",
        lambda given: 45 < given.get("--blocks_to_swap") <= 59,
        "--blocks_to_swap {value} needs a lot of main memory",
        "45 is Musubi's own advice for the smallest cards; have 64 GB or more.",
        refused=False,
    ),
    Rule(
        "--blocks_to_swap",
        lambda given: (
            given.has("--num_layers")
            and given.get("--blocks_to_swap") > max(given.get("--num_layers") - 1, 0)
        ),
        "--blocks_to_swap {value} is more than --num_layers allows",
        "At least one block has to stay on the graphics card.",
    ),
    Rule(
        "--block_swap_h2d_only",
        lambda given: _truthy(given, "--blocks_to_swap") and not given.has(_CHECKPOINTING),
        "--block_swap_h2d_only needs --gradient_checkpointing",
        "Add --gradient_checkpointing.",
    ),
    Rule(
        "--num_layers",
        lambda given: given.get("--num_layers") != 60,
        "--num_layers {value} does not fit Qwen-Image, which has 60",
        "Take it out, unless your model really has so many.",
        refused=False,
    ),
    Rule(
        "--persistent_data_loader_workers",
        lambda given: given.get("--max_data_loader_n_workers") == 0,
        "--persistent_data_loader_workers can't be used with 0 workers",
        "Take it out, or give --max_data_loader_n_workers 1 or more.",
    ),
    # attention
    *(
        Rule(
            name,
            lambda given: not given.has("--split_attn"),
            f"{name} is meant to be used with --split_attn",
            "Add --split_attn; images of one batch with captions of different length may "
            "fail without it.",
            refused=False,
        )
        for name in ("--flash_attn", "--xformers")
    ),
    # timesteps
    Rule(
        "--num_timestep_buckets",
        lambda given: given.get("--num_timestep_buckets") in (0, 1),
        "--num_timestep_buckets {value} has no effect",
        "Give 2 or more, or take it out.",
        refused=False,
    ),
    # logging
    Rule(
        "--log_with",
        lambda given: given.get("--log_with") != "wandb" and not given.get("--logging_dir"),
        "--log_with {value} needs --logging_dir",
        "Add --logging_dir and a folder.",
    ),
    Rule(
        "--log_with",
        _wandb,
        "--log_with {value} sends the training's figures to wandb.ai",
        "It needs the package wandb and an account there; without them the training fails.",
        refused=False,
    ),
    *(
        Rule(
            name,
            lambda given: not _wandb(given),
            f"{name} has no effect without --log_with wandb",
            "Add --log_with wandb, or take it out.",
            refused=False,
        )
        for name in ("--wandb_run_name", "--wandb_api_key")
    ),
    *(
        Rule(
            name,
            lambda given: True,
            f"{name} is kept in plain text in the job's record",
            _TOKEN_HINT.format(how=how),
            refused=False,
        )
        for name, how in (
            ("--wandb_api_key", "wandb login"),
            ("--huggingface_token", "hf auth login"),
        )
    ),
    # Hugging Face
    Rule(
        "--huggingface_repo_id",
        lambda given: True,
        "--huggingface_repo_id uploads the LoRA to Hugging Face: it leaves this machine",
        "It needs a token of your account; a failed upload is told in the log only.",
        refused=False,
    ),
    Rule(
        "--huggingface_repo_id",
        lambda given: not given.get("--huggingface_path_in_repo"),
        "--huggingface_repo_id uploads nothing without --huggingface_path_in_repo",
        "Add --huggingface_path_in_repo and a folder of the repository.",
        refused=False,
    ),
    Rule(
        "--huggingface_repo_visibility",
        lambda given: (
            given.get("--huggingface_repo_visibility") not in ("public", "private")
            and given.has("--huggingface_repo_id")
        ),
        "--huggingface_repo_visibility {value} makes the repository private",
        "Only the word public makes it public.",
        refused=False,
    ),
    Rule(
        "--huggingface_repo_type",
        lambda given: given.get("--huggingface_repo_type") not in ("model", "dataset", "space"),
        "--huggingface_repo_type can't be {value}",
        "Use model, or leave it out.",
    ),
    Rule(
        "--resume",
        lambda given: (
            given.has("--resume_from_huggingface")
            and not re.fullmatch(r"[^/:]+/[^/:]+/[^:]*(:[^:]*){0,2}", given.get("--resume"))
        ),
        "--resume {value} is no place on Hugging Face",
        "Write owner/repository/folder, and :revision:type behind it where needed.",
    ),
    Rule(
        "--resume",
        lambda given: True,
        "--resume loads weights, optimizer and schedule, and counts from the first epoch again",
        "All epochs of the form are trained once more; give what is left under “Epochs”, and "
        "another LoRA filename to keep the older files.",
        refused=False,
    ),
    # network
    Rule(
        "--scale_weight_norms",
        lambda given: _kind_of(given) in ("loha", "lokr"),
        "--scale_weight_norms has no effect for LoHa and LoKr",
        "Take it out.",
        refused=False,
    ),
    Rule(
        "--network_dropout",
        lambda given: _kind_of(given) in ("loha", "lokr"),
        "--network_dropout has no effect for LoHa and LoKr",
        "Use --network_args rank_dropout=0.1 or module_dropout=0.1.",
        refused=False,
    ),
    Rule(
        "--base_weights",
        lambda given: given.has("--fp8_scaled"),
        "--base_weights are not merged rightly into weights of --fp8_scaled",
        "Take --fp8_scaled out, or merge them into the model file first.",
        refused=False,
    ),
    Rule(
        "--base_weights",
        lambda given: not given.get("--base_weights"),
        "--base_weights without a file has no effect",
        "Give the files, or take it out.",
        refused=False,
    ),
    Rule(
        "--base_weights_multiplier",
        lambda given: (
            given.has("--base_weights")
            and len(given.get("--base_weights_multiplier")) != len(given.get("--base_weights"))
        ),
        "--base_weights_multiplier and --base_weights differ in number",
        "Give one multiplier for each file; Musubi takes 1.0 where one is missing and ignores "
        "what is left over.",
        refused=False,
    ),
    # metadata: read at the first save only, after the first epoch
    Rule(
        "--metadata_reso",
        lambda given: not _is_size(given.get("--metadata_reso")),
        "--metadata_reso can't be {value}",
        "Write width and height in pixels, as in 1024,1024.",
    ),
    Rule(
        "--vae_dtype",
        lambda given: given.get("--vae_dtype") not in DTYPES,
        "--vae_dtype can't be {value}",
        "Take it out; it has no effect for Qwen-Image.",
    ),
)
_CHECKPOINTING = "--gradient_checkpointing"
DTYPES = ("bf16", "bfloat16", "fp16", "float16", "fp32", "float32", "float", "fp8", "float8")
DTYPES += tuple(
    f"{head}{tail}"
    for head in ("fp8_", "", "float8_")
    for tail in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz")
)


def _is_size(text: str) -> bool:
    try:
        return all(int(part) > 0 for part in text.split(","))
    except ValueError:
        return False


# -- paths -----------------------------------------------------------------------------------------

FILES = ("--network_weights", "--base_weights", "--log_tracker_config")


def _paths(given: Given) -> Iterator[Problem]:
    """Files and folders that have to be there when the training reads them."""
    for name in FILES:
        told = given.values.get(name, [])
        for path in [told] if isinstance(told, str) else told:
            yield from _there(given, name, path, "file")
    if given.has("--resume") and not given.has("--resume_from_huggingface"):
        yield from _there(given, "--resume", given.get("--resume"), "folder")
    path = given.values.get("--logging_dir")
    if path and _is(given, path, "file"):
        yield Problem("--logging_dir names a file", "Name a folder; it is made when missing.")


def _there(given: Given, name: str, path: str, kind: str) -> Iterator[Problem]:
    if path.startswith("~"):
        yield Problem(
            f"{name}: {shown(path)} is not found, ~ does not stand for your own folder here",
            "Write the whole path.",
        )
    elif not path or _is(given, path, kind) is False:
        yield Problem(
            f"{name}: there is no {kind} {shown(path)}",
            "Write the whole path, with / or in quotes: a bare \\ is lost, as in a shell.",
        )


def _is(given: Given, path: str, kind: str) -> bool | None:
    """Tell whether the path is a file or a folder; None when it can't be told."""
    full = Path(path)
    if not full.is_absolute():
        if given.folder is None:
            return None
        full = given.folder / full
    try:
        return full.is_file() if kind == "file" else full.is_dir()
    except (OSError, ValueError):
        return False


# -- key=value lists -------------------------------------------------------------------------------


def _literal(text: str) -> Any:
    """What Python's literal_eval makes of it; ValueError otherwise, whatever went wrong."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(str(error)) from error


def _pairs(given: Given, name: str, found: list[Problem]) -> dict[str, str]:
    """The list as key and text; what has no `=` or two is added to `found`."""
    pairs = {}
    for word in given.values.get(name) or []:
        key, *rest = word.split("=")
        if len(rest) == 1 and key:
            pairs[key] = rest[0]
        else:
            found.append(
                Problem(
                    f"{name}: {shown(word)} is not of the form key=value",
                    "Write key=value with exactly one = and no spaces around it.",
                )
            )
    return pairs


def _literals(given: Given, name: str, found: list[Problem]) -> dict[str, Any]:
    """The list with its values as Python reads them."""
    read = {}
    for key, text in _pairs(given, name, found).items():
        try:
            read[key] = _literal(text)
        except ValueError:
            found.append(
                Problem(
                    f"{name}: the value of {shown(key)} can't be read: {shown(text)}",
                    "Numbers, True, False and None stand as they are; text needs quotes of its "
                    f"own, as in {name} \"{shown(key)}='text'\".",
                )
            )
    return read


def nearest(word: str, known) -> str | None:
    """The known word that was probably meant; None when none is near."""
    folded = {one.lower(): one for one in known}
    word = word.lower()
    if word in folded:
        return folded[word]
    near = difflib.get_close_matches(word[:80], list(folded), n=1, cutoff=0.6)
    return folded[near[0]] if near else None


def shown(text: object, limit: int = 60) -> str:
    """A word as it may stand in a sentence: printable, in one line, not too long."""
    try:
        text = str(text)
    except ValueError:  # Python writes no number of more than some thousand digits
        return "a huge number"
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _unknown_key(name: str, key: str, known, refused: bool = True) -> Problem:
    near = nearest(key, known)
    hint = f"Did you mean {near}?" if near else f"Known are {', '.join(known)}."
    text = f"{name}: {shown(key)} is unknown" + ("" if refused else " and ignored")
    return Problem(text, hint, refused)


# -- the optimizer ---------------------------------------------------------------------------------

OPTIMIZER_ARGS = {  # what the constructor takes besides what Musubi gives itself
    "AdamW": (
        *("betas", "eps", "weight_decay", "amsgrad", "maximize", "foreach", "capturable"),
        *("differentiable", "fused"),
    ),
    "Adafactor": (
        *("eps", "clip_threshold", "decay_rate", "beta1", "weight_decay", "scale_parameter"),
        *("relative_step", "warmup_init"),
    ),
    "AdamW8bit": (
        *("betas", "eps", "weight_decay", "amsgrad", "optim_bits", "args", "min_8bit_size"),
        *("percentile_clipping", "block_wise", "is_paged"),
    ),
}


def _optimizer(given: Given) -> Iterator[Problem]:
    """`--optimizer_args` against the optimizer of the form."""
    found: list[Problem] = []
    args = _literals(given, "--optimizer_args", found)
    yield from found
    known = OPTIMIZER_ARGS.get(given.settings.get("optimizer_type"), args)
    for key, value in args.items():
        if key == "lr":
            text = "--optimizer_args: lr is set by the form already"
            yield Problem(text, TAKEN["--learning_rate"])
        elif key not in known:
            yield _unknown_key("--optimizer_args", key, known)
        elif key == "betas" and not _are_betas(value):
            yield Problem(
                f"--optimizer_args: betas can't be {shown(value)}",
                "Give two numbers from 0 to below 1, as in betas=0.9,0.99.",
            )
        elif key == "weight_decay" and not _is_number(value, 0):
            yield Problem(
                f"--optimizer_args: weight_decay can't be {shown(value)}",
                "Give a number from 0, as in weight_decay=0.01.",
            )


def _is_number(value: object, low: float) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and low <= value < float("inf")


def _are_betas(value: object) -> bool:
    pair = isinstance(value, (tuple, list)) and len(value) == 2
    return pair and all(_is_number(one, 0) and one < 1 for one in value)


# -- the learning rate's schedule ------------------------------------------------------------------

_WARM, _DECAY = "--lr_warmup_steps", "--lr_decay_steps"
_CYCLES, _POWER = "--lr_scheduler_num_cycles", "--lr_scheduler_power"
_SCALE, _RATIO = "--lr_scheduler_timescale", "--lr_scheduler_min_lr_ratio"
_SHAPES = (_WARM, _DECAY, _CYCLES, _POWER, _SCALE, _RATIO)

SCHEDULERS = {  # name -> the options it uses, the keys of --lr_scheduler_args it takes
    "constant": ((), ()),
    "constant_with_warmup": ((_WARM,), ()),
    "linear": ((_WARM,), ()),
    "cosine": ((_WARM,), ("num_cycles",)),
    "cosine_with_restarts": ((_WARM, _CYCLES), ()),
    "polynomial": ((_WARM, _POWER), ("lr_end",)),
    "inverse_sqrt": ((_WARM, _SCALE), ()),
    "cosine_with_min_lr": ((_WARM, _CYCLES, _RATIO), ("min_lr",)),
    "warmup_stable_decay": ((_WARM, _DECAY, _CYCLES, _RATIO), ("warmup_type", "decay_type")),
    "piecewise_constant": ((), ("step_rules",)),
    "rex": ((_WARM, _RATIO), ("rex_alpha", "rex_beta")),
    "adafactor": ((), None),
}
FAILING = {
    "reduce_lr_on_plateau": "Musubi gives it arguments it does not take",
    "cosine_warmup_with_min_lr": "Musubi gives it arguments it does not take",
}
CLASSES = {  # torch's schedulers -> the arguments they can't do without; None: can't be used
    "ConstantLR": (),
    "LinearLR": (),
    "PolynomialLR": (),
    "StepLR": ("step_size",),
    "MultiStepLR": ("milestones",),
    "ExponentialLR": ("gamma",),
    "CosineAnnealingLR": ("T_max",),
    "CosineAnnealingWarmRestarts": ("T_0",),
    "CyclicLR": ("base_lr", "max_lr"),
    "OneCycleLR": ("max_lr", "total_steps"),
    "LambdaLR": None,
    "MultiplicativeLR": None,
    "SequentialLR": None,
    "ChainedScheduler": None,
    "ReduceLROnPlateau": None,
    "LRScheduler": None,
}


def _scheduler(given: Given) -> Iterator[Problem]:
    """Names, companions and arguments of the learning rate's schedule."""
    found: list[Problem] = []
    args = _literals(given, "--lr_scheduler_args", found)
    yield from found
    for name in (_WARM, _DECAY):
        value = given.values.get(name)
        if isinstance(value, float) and value > 1:
            yield Problem(f"{name} is more than all steps", RANGES[name][2])
    if given.get("--lr_scheduler_type"):
        yield from _scheduler_class(given, args)
        return
    name = given.get("--lr_scheduler") or "constant"
    name = "rex" if name.lower() == "rex" else name
    if _relative(given):
        if given.has("--lr_scheduler") and name != "adafactor":
            yield ignored(
                f"--lr_scheduler {shown(name)} is ignored, Adafactor has a schedule of its own",
                "Add --optimizer_args relative_step=False to use it.",
            )
        name = "adafactor"
    elif name.startswith("adafactor"):
        yield from _adafactor(given, name)
        return
    if name in SCHEDULERS:
        yield from _named(given, name, args)
    else:
        yield _no_scheduler(name)


def _relative(given: Given) -> bool:
    """Tell whether the optimizer sets the learning rate itself, as Adafactor does by default."""
    if given.settings.get("optimizer_type") != "Adafactor":
        return False
    args = _literals(given, "--optimizer_args", [])
    return bool(args.get("relative_step", True) or args.get("warmup_init", False))


def _adafactor(given: Given, name: str) -> Iterator[Problem]:
    optimizer = given.settings.get("optimizer_type")
    if optimizer not in (None, "Adafactor"):
        yield Problem(
            "--lr_scheduler adafactor needs the optimizer Adafactor",
            "Choose Adafactor under “Optimizer”, or take the scheduler out.",
        )
    elif optimizer and not re.fullmatch(r"adafactor:[0-9.]+(e-?[0-9]+)?", name):
        yield Problem(
            "--lr_scheduler adafactor can't be used with relative_step=False",
            "Use constant_with_warmup, or take relative_step=False out.",
        )


def _no_scheduler(name: str) -> Problem:
    if name in FAILING:
        return Problem(
            f"--lr_scheduler {name} can't be used, {FAILING[name]}",
            "Use cosine, or cosine_with_min_lr with --lr_scheduler_min_lr_ratio 0.1.",
        )
    near = nearest(name, SCHEDULERS)
    names = ", ".join(SCHEDULERS)
    return Problem(
        f"--lr_scheduler can't be {shown(name)}",
        (f"Did you mean {near}? " if near else "") + f"Musubi has {names}.",
    )


def _named(given: Given, name: str, args: dict) -> Iterator[Problem]:
    used, keys = SCHEDULERS[name]
    for option in _SHAPES:
        if not given.has(option) or option in used:
            continue
        if option == _WARM and name in ("constant", "adafactor"):
            if given.get(_WARM):
                yield _no_warm_up(name)
        elif given.get(option):
            yield ignored(
                f"{option} has no effect with the scheduler {name}",
                f"Take it out, or choose one that uses it: {', '.join(_users(option))}.",
            )
    for key in args:
        if keys is not None and key not in (*keys, "last_epoch"):
            yield _unknown_key("--lr_scheduler_args", key, (*keys, "last_epoch"))
    if keys is None and args:
        yield ignored(
            "--lr_scheduler_args has no effect with Adafactor's own schedule", "Take it out."
        )
    yield from COMPANIONS.get(name, lambda given, args: ())(given, args)


def _no_warm_up(name: str) -> Problem:
    hint = "Add --lr_scheduler constant_with_warmup, or take the warm-up out."
    if name == "adafactor":
        hint = "Take it out, or add --optimizer_args relative_step=False."
    return Problem(f"{_WARM} can't be used with the scheduler {name}", hint)


def _users(option: str) -> list[str]:
    return [name for name, (used, _) in SCHEDULERS.items() if option in used]


def _min_lr(given: Given, args: dict) -> Iterator[Problem]:
    if given.get(_RATIO) is None and "min_lr" not in args:
        yield Problem(
            f"--lr_scheduler cosine_with_min_lr needs {_RATIO}", f"Add {_RATIO} 0.1, for instance."
        )
    elif given.get(_RATIO) is not None and "min_lr" in args:
        yield Problem(f"{_RATIO} and min_lr can't be used together", "Take one of them out.")


def _stable(given: Given, args: dict) -> Iterator[Problem]:
    shares = [given.get(name) for name in (_WARM, _DECAY)]
    if not given.get(_DECAY):
        yield ignored(
            f"--lr_scheduler warmup_stable_decay never decays without {_DECAY}",
            f"Add {_DECAY} 20%, for instance.",
        )
    elif all(isinstance(share, float) for share in shares) and sum(shares) > 1:
        yield Problem(f"{_WARM} and {_DECAY} are more than all steps", "Together at most 100%.")
    for key in ("warmup_type", "decay_type"):
        if args.get(key, "linear") not in ("linear", "cosine", "1-sqrt"):
            yield Problem(
                f"--lr_scheduler_args: {key} can't be {shown(args[key])}",
                "Use 'linear', 'cosine' or '1-sqrt'.",
            )


def _steps_rules(given: Given, args: dict) -> Iterator[Problem]:
    if not _are_rules(args.get("step_rules")):
        yield Problem(
            "--lr_scheduler piecewise_constant needs step_rules",
            "Add --lr_scheduler_args \"step_rules='1:100,0.1:200,0.01'\": 100 steps at the "
            "learning rate, up to step 200 at a tenth, then a hundredth.",
        )


def _are_rules(text: object) -> bool:
    """Tell whether diffusers can read it: factor:step, …, factor."""
    if not isinstance(text, str):
        return False
    *rules, last = text.split(",")
    try:
        pairs = [rule.split(":") for rule in rules]
        numbers = [float(last), *(float(factor) for factor, _ in pairs)]
        return all(int(step) > 0 for _, step in pairs) and all(0 <= n < 1e9 for n in numbers)
    except ValueError:
        return False


def _above_the_end(given: Given, args: dict) -> Iterator[Problem]:
    end = args.get("lr_end", 1e-7)
    if not _is_number(end, 0) or given.settings.get("learning_rate", 1) <= end:
        yield Problem(
            f"--lr_scheduler polynomial ends at {shown(end)}, which is not below the learning rate",
            "Raise the learning rate, or add --lr_scheduler_args lr_end=0.0.",
        )


COMPANIONS = {
    "cosine_with_min_lr": _min_lr,
    "warmup_stable_decay": _stable,
    "piecewise_constant": _steps_rules,
    "polynomial": _above_the_end,
}


def _scheduler_class(given: Given, args: dict) -> Iterator[Problem]:
    """`--lr_scheduler_type`: a class of torch by name, or of another package by its path."""
    name = given.get("--lr_scheduler_type")
    if others := [one for one in ("--lr_scheduler", *_SHAPES) if given.has(one)]:
        yield ignored(
            f"{', '.join(others)} has no effect beside --lr_scheduler_type",
            "Give the scheduler's own arguments with --lr_scheduler_args.",
        )
    bare = name.removeprefix("torch.optim.lr_scheduler.")
    if "." not in bare and bare not in CLASSES:
        near = nearest(bare, CLASSES)
        yield Problem(
            f"--lr_scheduler_type can't be {shown(name)}",
            f"Did you mean {near}?" if near else "Give the name of one of torch's schedulers.",
        )
    elif CLASSES.get(bare, ()) is None:
        yield Problem(
            f"--lr_scheduler_type {bare} can't be used, it needs what no flag can give",
            "Use another scheduler.",
        )
    elif missing := [key for key in CLASSES.get(bare, ()) if key not in args]:
        told = " ".join(f"{key}=…" for key in missing)
        yield Problem(
            f"--lr_scheduler_type {bare} needs {', '.join(missing)}",
            f"Add --lr_scheduler_args {told}",
        )


# -- the network -----------------------------------------------------------------------------------

NETWORKS = ("networks.lora_qwen_image", "networks.loha", "networks.lokr")
OTHER_NETWORKS = tuple(  # of Musubi too; they find nothing to train in Qwen-Image, or too much
    f"networks.lora{name}"
    for name in (
        *("", "_flux", "_flux_2", "_framepack", "_hidream_o1", "_hv_1_5", "_ideogram4"),
        *("_kandinsky", "_krea2", "_wan", "_zimage"),
    )
)
NETWORK_ARGS = {
    "conv_dim": int,
    "conv_alpha": float,
    "rank_dropout": float,
    "module_dropout": float,
    "loraplus_lr_ratio": float,
    "verbose": str,
    "exclude_patterns": list,
    "include_patterns": list,
    "factor": int,
}
RESERVED = ("multiplier", "network_dim", "network_alpha", "vae", "text_encoders", "unet")
RESERVED += ("neuron_dropout", "module_class", "module_kwargs", "target_replace_modules", "prefix")


def _kind_of(given: Given) -> str:
    return given.get("--network_module").rsplit(".", 1)[-1]


def _network(given: Given) -> Iterator[Problem]:
    """The network's module and its arguments."""
    module = given.get("--network_module")
    name = module.removeprefix("musubi_tuner.")
    if name in OTHER_NETWORKS:
        yield Problem(
            f"--network_module {module} is for another model", f"Use {', '.join(NETWORKS)}."
        )
    elif name.startswith("networks.") or "." not in name:
        if name not in NETWORKS:
            near = nearest(name, NETWORKS)
            yield Problem(
                f"Musubi has no --network_module {shown(module)}",
                f"Did you mean {near}?" if near else f"Use {', '.join(NETWORKS)}.",
            )
    elif not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", module):
        yield Problem(f"--network_module can't be {shown(module)}", f"Use {', '.join(NETWORKS)}.")
    else:
        yield ignored(
            f"--network_module {shown(module)} is not one of Musubi's",
            "Its package has to be installed in Musubi's environment.",
        )
        return
    yield from _network_args(given)


def _network_args(given: Given) -> Iterator[Problem]:
    found: list[Problem] = []
    pairs = _pairs(given, "--network_args", found)
    yield from found
    for key, text in pairs.items():
        if key in RESERVED:
            yield Problem(
                f"--network_args: {key} can't be given, Musubi gives it itself", "Take it out."
            )
        elif key not in NETWORK_ARGS or (key == "factor" and _kind_of(given) != "lokr"):
            known = [one for one in NETWORK_ARGS if one != "factor" or _kind_of(given) == "lokr"]
            yield _unknown_key("--network_args", key, known, refused=False)
        else:
            yield from _network_value(given, key, text)


def _network_value(given: Given, key: str, text: str) -> Iterator[Problem]:
    if problem := _wrong_value(key, text):
        yield Problem(f"--network_args: {key} can't be {shown(text)}", problem)
    elif key in ("conv_dim", "conv_alpha"):
        yield ignored(
            f"--network_args: {key} has no effect, Qwen-Image has no convolutions", "Take it out."
        )
    elif key == "loraplus_lr_ratio" and _kind_of(given) in ("loha", "lokr"):
        yield ignored(f"--network_args: {key} has no effect for LoHa and LoKr", "Take it out.")
    elif key == "verbose" and text != "True":
        yield ignored(f"--network_args: verbose={shown(text)} has no effect", "Write verbose=True.")


def _wrong_value(key: str, text: str) -> str | None:
    """What to write instead of a value Musubi can't read; None when it can."""
    kind = NETWORK_ARGS[key]
    if kind is list:
        return None if _are_patterns(text) else f"Write \"{key}=['.*attn.*']\", quotes and all."
    try:
        number = kind(text)
    except (ValueError, OverflowError):
        return f"Write a {'whole ' if kind is int else ''}number."
    if key.endswith("_dropout") and not 0 <= number < 1:
        return "Write a number from 0 to below 1."
    return None if kind is str or abs(number) < 1e9 else "Write a number of the usual size."


def _are_patterns(text: str) -> bool:
    try:
        value = _literal(text)
        if not isinstance(value, list):
            return False
        return all(isinstance(one, str) and re.compile(one) is not None for one in value)
    except (ValueError, re.error, RecursionError, OverflowError):
        return False


# -- all of them -----------------------------------------------------------------------------------


def problems(given: Given) -> Iterator[Problem]:
    """Everything there is to say about the flags, each alone and together."""
    yield from _by_themselves(given)
    yield from _numbers(given)
    yield from _together(given)
    for rule in RULES:
        if given.has(rule.option) and rule.when(given):
            text = rule.text.replace("{value}", shown(given.get(rule.option)))
            yield Problem(text, rule.hint, rule.refused)
    for look in (_paths, _optimizer, _scheduler, _network):
        yield from look(given)


def _by_themselves(given: Given) -> Iterator[Problem]:
    for name, (why, hint) in REFUSED.items():
        if given.has(name):
            yield Problem(f"{name} can't be used, {why}", hint)
    for name, why in NO_EFFECT.items():
        if given.has(name):
            yield ignored(f"{name} has no effect, {why}", "Take it out.")


def _numbers(given: Given) -> Iterator[Problem]:
    for name, value in given.values.items():
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, (int, float)) and not isinstance(number, bool):
                low, high, hint = RANGES.get(name, ANY)
                if not low <= number <= high:  # not a number is in no range
                    text = f"{name} must be from {low:.12g} to {high:.12g}, not {shown(number)}"
                    yield Problem(text, hint)
    low, high = given.values.get("--min_timestep"), given.values.get("--max_timestep")
    low, high = 0 if low is None else low, 1000 if high is None else high
    if low >= high and given.has("--min_timestep", "--max_timestep"):
        yield Problem("--min_timestep must be below --max_timestep", "Exchange or change them.")


def _together(given: Given) -> Iterator[Problem]:
    backends = [name for name in ATTENTION if given.has(name)]
    if len(backends) > 1:
        yield Problem(f"{' and '.join(backends)} can't be used together, choose one", "Keep one.")
    for name, others in NEEDS:
        if given.has(name) and not any(_counts(given, other) for other in others):
            yield ignored(
                f"{name} has no effect without {' or '.join(others)}",
                f"Add {others[0]}, or take it out.",
            )
    how, scheme = given.get("--timestep_sampling"), given.get("--weighting_scheme")
    for name, works, with_what in SAMPLED:
        if given.has(name) and not works(how, scheme):
            own = "" if given.has("--timestep_sampling") else ", which MusubiTLX gives"
            yield ignored(
                f"{name} has no effect with --timestep_sampling {how}{own}",
                f"Add {with_what}, or take it out.",
            )


def _counts(given: Given, name: str) -> bool:
    """Tell whether an option is in the line and says more than no."""
    value = given.values.get(name)
    nothing = value in (None, False, "", "NO", []) or (name, value) == ("--blocks_to_swap", 0)
    return not nothing or (value == 0 and name in ("--min_timestep", "--max_timestep"))
