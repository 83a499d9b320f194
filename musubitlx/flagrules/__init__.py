"""What Musubi refuses, fails on late or silently ignores, as rows: the rules of the flag line.

Source: Musubi Tuner 0.3.4, its parser, training/trainer_base.py and modules/. Nothing here
is read from the installation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from musubitlx.flagrules import network, optimizer, paths, schedule
from musubitlx.flagrules.given import ANY, RANGES, Given, Problem, ignored, shown

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
    Rule(
        "--mixed_precision",
        lambda given: given.get("--mixed_precision") == "no",
        "--mixed_precision no can't be used, the model itself is in bf16",
        "Take it out: bf16 is used then.",
    ),
    Rule(
        "--compile_backend",
        lambda given: given.get("--compile_backend") not in BACKENDS,
        "--compile_backend can't be {value}",
        "Use inductor, which is the usual one.",
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
        lambda given: network.kind_of(given) in ("loha", "lokr"),
        "--scale_weight_norms has no effect for LoHa and LoKr",
        "Take it out.",
        refused=False,
    ),
    Rule(
        "--network_dropout",
        lambda given: network.kind_of(given) in ("loha", "lokr"),
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
BACKENDS = ("inductor", "cudagraphs", "eager", "aot_eager", "onnxrt", "tvm", "ts", "openxla")
BACKENDS += ("tensorrt", "torch_tensorrt", "openvino", "ipex", "hidet", "aot_ts")  # of packages
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
    for look in (paths.paths, optimizer.optimizer, schedule.scheduler, network.network):
        yield from look(given)


def beside_steps(given: Given, steps: int) -> Iterator[Problem]:
    """What can only be said once the number of all steps is known."""
    yield from schedule.warm_up(given, steps)


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
