"""The line of advanced flags: every rule, and whatever else may be typed."""

from __future__ import annotations

import argparse
import random
import shlex
import time
from pathlib import Path

import pytest
import weights
from hypothesis import given
from hypothesis import strategies as st
from inputs import patient

from musubitlx import flagrules, flags, options, presets, settings
from musubitlx.errors import Invalid
from musubitlx.flagrules import given as facts
from musubitlx.flagrules import kinds, network, optimizer, paths, schedule, torch_schedule
from musubitlx.options import TRAIN

TABLE = options.recorded()
KNOWN = TABLE.names(TRAIN)


def read(line: str, folder: Path | None = None, **more) -> flags.Flags:
    return flags.read(line, TABLE, {**settings.defaults(), **more}, folder)


def texts(told: list) -> str:
    """Sentences and hints, and that each is whole."""
    for one in told:
        assert one.field == "advanced_flags"
        assert str(one).startswith("Advanced trainer flags: ")
        assert str(one).endswith(".")
        assert one.hint is None or one.hint
    return "\n".join(f"{one} | {one.hint}" for one in told)


# -- good lines ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("  \n ", []),
        ("--fp8_base --blocks_to_swap 45", ["--fp8_base", "--blocks_to_swap", "45"]),
        ("--blocks_to_swap=45", ["--blocks_to_swap=45"]),
        ("--fp8_base\n--fp8_scaled", ["--fp8_base", "--fp8_scaled"]),
        ("--fp8_base \\\n  --fp8_scaled \\\r\n", ["--fp8_base", "--fp8_scaled"]),
        ("--network_args verbose=True", ["--network_args", "verbose=True"]),
        ("--training_comment 'it''s \"it\"'", ["--training_comment", 'its "it"']),
        ("--logit_mean -5 --timestep_sampling logsnr", None),
        ("--logit_mean -.5 --timestep_sampling logsnr", None),
        ("--metadata_title=-x", ["--metadata_title=-x"]),
        ("--metadata_title=--seed", ["--metadata_title=--seed"]),
        ("--metadata_title=", ["--metadata_title="]),
        ("--metadata_title '--seed of mine'", ["--metadata_title", "--seed of mine"]),
        ("--metadata_title -", ["--metadata_title", "-"]),
        ("--metadata_title '– a dash'", ["--metadata_title", "– a dash"]),
        ("--optimizer_args", ["--optimizer_args"]),
        ("--optimizer_args betas=0.9,0.99 weight_decay=0.01", None),
        ("--training_comment 'a; rm -rf / $(x) `y`'", None),
        ("--mixed_precision fp16 --save_precision bf16 --sdpa --fp8_vl", None),
        ("--timestep_sampling shift --discrete_flow_shift 2.2 --sigmoid_scale 1", None),
        ("--weighting_scheme none --network_module networks.loha", None),
        ("--max_data_loader_n_workers 4 --persistent_data_loader_workers", None),
        ("--max_data_loader_n_workers 0", None),
        ("--save_every_n_epochs 2 --save_last_n_epochs 3 --max_grad_norm 0", None),
        ("--save_state --save_last_n_epochs_state 1 --save_every_n_steps 10", None),
        ("--blocks_to_swap 0", None),
        ("--blocks_to_swap 16 --block_swap_h2d_only --gradient_checkpointing", None),
        ("--lr_scheduler cosine --lr_warmup_steps 10%", None),
        ("--lr_scheduler REX --lr_scheduler_min_lr_ratio 0.1", None),
        ("--lr_scheduler cosine_with_min_lr --lr_scheduler_min_lr_ratio 0.1", None),
        ("--lr_scheduler cosine_with_min_lr --lr_scheduler_args min_lr=1e-6", None),
        ("--lr_scheduler piecewise_constant --lr_scheduler_args \"step_rules='1:10,0.1'\"", None),
        ("--lr_scheduler warmup_stable_decay --lr_decay_steps 20%", None),
        ("--lr_scheduler_type StepLR --lr_scheduler_args step_size=10", None),
        ("--lr_scheduler_type torch.optim.lr_scheduler.ConstantLR", None),
        ("--network_args \"exclude_patterns=['.*img.*']\" rank_dropout=0.1", None),
        ("--network_module networks.lokr --network_args factor=8", None),
        ("--network_module musubi_tuner.networks.lora_qwen_image", None),
        ("--logging_dir logs --log_with tensorboard --log_prefix a", None),
        ("--min_timestep 100 --max_timestep 900 --preserve_distribution_shape", None),
        ("--compile --compile_mode max-autotune", None),
        ("--xformers --split_attn", None),
        ("--metadata_reso 1024,1024", None),
    ],
)
def test_a_good_line_is_split_as_a_shell_would(line, words):
    found = read(line)
    assert texts(found.errors) == texts(found.warnings) == ""
    if words is not None:
        assert found.words == words
    TABLE.parser(TRAIN).parse_args(found.words)


def test_the_flags_of_every_profile_are_good():
    for profile in presets.PROFILES:
        found = read(profile.flags)
        assert found.words == profile.flags.split()
        assert (found.errors, found.warnings) == ([], [])
        assert "--max_grad_norm 1.0" in profile.flags


def test_values_are_read_as_musubi_reads_them():
    line = "--fp8_base --blocks_to_swap=4 --lr_warmup_steps 10% --network_args verbose=True"
    found = read(line + " --lr_scheduler cosine")
    assert found.values == {
        "--fp8_base": True,
        "--blocks_to_swap": 4,
        "--lr_warmup_steps": 0.1,
        "--network_args": ["verbose=True"],
        "--lr_scheduler": "cosine",
    }
    assert found.has("--fp8_base") and not found.has("--fp8_vl")
    assert (found.get("--blocks_to_swap"), found.get("--sdpa", 3)) == (4, 3)
    assert read("--fp8_scaled").words == []


# -- errors ----------------------------------------------------------------------------------------

LOHA = "--network_module networks.loha "
TORCH = "--lr_scheduler_type "
STEP = TORCH + "StepLR --lr_scheduler_args "
CYCLIC = TORCH + "CyclicLR --lr_scheduler_args base_lr=1e-5 max_lr=1e-4 "
ONE = TORCH + "OneCycleLR --lr_scheduler_args max_lr=1e-4 total_steps=20 "
ERRORS = [
    # the words
    ("--fp8_base 'open", "no closing quotation"),
    ('--fp8_base "open', "no closing quotation"),
    ("--fp8_base \\", "no escaped character"),
    ("--fp8_base \x00", "no command can hold"),
    ("--fp8_base \ud800", "no command can hold"),
    ("--fp8_base " * 2001, "longer than 20000"),
    ("--blocks_to_swa 4", "no option --blocks_to_swa, it is cut short. | Write --blocks_to_swap."),
    ("--blocks 4", "Write --blocks_to_swap"),
    ("--save_las 4", "Write --save_last_n_epochs or"),
    ("--blokcs_to_swap 4", "Did you mean --blocks_to_swap?"),
    ("--zzzzzzzzzzzz", "no option --zzzzzzzzzzzz. | None"),
    ("--", "no option --"),
    ("--FP8_BASE", "Write --fp8_base"),
    ("-fp8_base", "Write --fp8_base"),
    ("–fp8_base", "Write --fp8_base"),
    ("—blocks_to_swap 4", "Write --blocks_to_swap"),
    ("--training_comment –fp8_base", "Write --fp8_base"),
    ("--fp8-base", "Write --fp8_base"),
    ("--fp8_base\u00a0--fp8_vl", "special space"),
    ("-h", "no option -h"),
    ("--help", "no option --help"),
    ("--skip_existing", "--skip_existing belongs to the caching of latents and"),
    ("--vae_tiling", "belongs to the caching of latents,"),
    ("--batch_size 4", "the field “Batch size”"),
    ("--resolution 512", "the field “Resolution”"),
    ("--blocks_to_swap", "--blocks_to_swap needs a value"),
    ("--blocks_to_swap --fp8_base", "needs a value"),
    ("--log_with", "needs a value. | Choose tensorboard, wandb or all."),
    ("--metadata_title -x", "is written --metadata_title=-x"),
    ("--logit_mean -1e5", "is written --logit_mean=-1e5"),
    ("--blocks_to_swap four", "needs a whole number, not four"),
    ("--blocks_to_swap 4.0", "needs a whole number, not 4.0"),
    ("--blocks_to_swap=", "needs a whole number, not an empty text"),
    ("--max_grad_norm much", "needs a number, not much"),
    ("--lr_warmup_steps 1%%", "needs a number of steps"),
    ("--lr_warmup_steps ''", "not an empty text"),
    ("--log_with foo", "Choose tensorboard, wandb or all"),
    ("--mixed_precision BF16", "Did you mean bf16?"),
    ("--sdpa=1", "--sdpa is a switch"),
    ("--sdpa=", "--sdpa is a switch"),
    ("--sdpa true", "true belongs to no option. | A switch is on"),
    ("word", "word belongs to no option"),
    ("-5", "-5 belongs to no option"),
    ("-", "- belongs to no option"),
    ("--fp8_base && reboot", "&& reboot belongs to no option"),
    ("''", "an empty text belongs to no option"),
    ("--training_comment “a b”", "straight quotes"),
    ("accelerate launch x.py --fp8_base", "the options only"),
    ("--network_args=verbose=True factor=3", "factor=3 belongs to no option"),
    ("--blocks_to_swap 4 --blocks_to_swap 5", "given twice"),
    ("--blocks_to_swap 4 --blocks_to_swap=5", "given twice"),
    # numbers
    ("--max_grad_norm nan", "not nan"),
    ("--max_grad_norm inf", "not inf"),
    ("--discrete_flow_shift 1e999", "not inf"),
    ("--blocks_to_swap 99999999999999999999", "from 0 to 59"),
    ("--base_weights_multiplier 1 nan", "not nan"),
    ("--blocks_to_swap 60", "from 0 to 59, not 60"),
    ("--blocks_to_swap -1", "from 0 to 59"),
    ("--blocks_to_swap 4 --num_layers 4", "more than --num_layers allows"),
    ("--block_swap_ring_size 0", "from 1 to 59"),
    ("--gradient_accumulation_steps 0", "from 1 to"),
    ("--max_data_loader_n_workers -1", "from 0 to"),
    ("--save_every_n_epochs 0", "from 1 to"),
    ("--save_every_n_epochs -2", "from 1 to"),
    ("--save_every_n_steps 0", "from 1 to"),
    ("--save_last_n_epochs 0", "from 1 to"),
    ("--save_last_n_epochs_state -1", "from 1 to"),
    ("--save_last_n_steps 0", "from 1 to"),
    ("--save_last_n_steps_state 0", "from 1 to"),
    ("--max_grad_norm -1", "0 switches clipping off"),
    ("--network_dropout 1", "from 0 to 0.99"),
    ("--network_dropout -0.1", "from 0 to 0.99"),
    ("--scale_weight_norms -1", "from 0 to"),
    ("--min_timestep 1000", "from 0 to 999"),
    ("--max_timestep 1001", "from 1 to 1000"),
    ("--min_timestep 500 --max_timestep 500", "below --max_timestep"),
    ("--max_timestep 0", "--max_timestep must be from 1"),
    ("--num_timestep_buckets -1", "from 0 to 1000"),
    ("--logit_std -1", "from 0 to"),
    ("--discrete_flow_shift 0", "2.2 is usual"),
    ("--sigmoid_scale 0", "1.0 is usual"),
    ("--lr_warmup_steps -5", "from 0 to"),
    ("--lr_scheduler_num_cycles 0", "from 1 to"),
    ("--lr_scheduler_timescale 0", "from 1 to"),
    ("--lr_scheduler_min_lr_ratio 1.5", "from 0 to 1,"),
    ("--lr_scheduler_power -1", "from 0 to"),
    # what can't be used, alone or together
    ("--sage_attn", "--sage_attn can't be used"),
    ("--flash3", "--flash3 can't be used"),
    ("--show_timesteps image", "--show_timesteps can't be used"),
    ("--show_timesteps=console", "--show_timesteps can't be used"),
    ("--dim_from_weights", "--dim_from_weights can't be used"),
    ("--remove_first_image_from_target", "for the layered model only"),
    ("--xformers --flash_attn", "--flash_attn and --xformers can't be used together"),
    ("--sdpa --xformers", "can't be used together"),
    ("--fp8_scaled", "--fp8_scaled needs --fp8_base"),
    ("--blocks_to_swap 4 --block_swap_h2d_only", "needs --gradient_checkpointing"),
    (
        "--max_data_loader_n_workers 0 --persistent_data_loader_workers",
        "can't be used with 0 workers",
    ),
    ("--log_with tensorboard", "needs --logging_dir"),
    ("--log_with all", "needs --logging_dir"),
    ("--huggingface_repo_id a/b --huggingface_repo_type repo", "can't be repo"),
    ("--resume x --resume_from_huggingface", "no place on Hugging Face"),
    ("--vae_dtype float17", "--vae_dtype can't be float17"),
    ("--metadata_reso 1024x1024", "--metadata_reso can't be 1024x1024"),
    ("--metadata_reso ''", "--metadata_reso can't be"),
    ("--mixed_precision no", "the model itself is in bf16. | Take it out: bf16 is used then."),
    ("--compile --compile_backend nosuch", "--compile_backend can't be nosuch"),
    ("--mode_scale 100 --timestep_sampling sigma --weighting_scheme mode", "1.29 is usual"),
    # what is in files and folders
    ("--network_weights junk.safetensors", "is a web page"),
    ("--network_weights empty.safetensors", "--network_weights: empty.safetensors is empty. | Del"),
    ("--network_weights junk.pt", "junk.pt holds no weights"),
    ("--network_weights shouted.SAFETENSORS", "for a file of torch. | Rename it"),
    ("--network_weights other_rank.safetensors", "have rank 32, not 16. | Set “LoRA rank” to 32"),
    ("--base_weights junk.safetensors", "is a web page"),
    ("--base_weights here.safetensors junk.pt", "junk.pt is not a safetensors file"),
    ("--base_weights no_alpha.safetensors", "lacks the alpha of its layers"),
    ("--resume empty", "it has no model.safetensors and no optimizer.bin and no scheduler.bin"),
    ("--resume other_rank-state", "--resume: the weights of model.safetensors have rank 32"),
    ("--resume run-state " + LOHA, "no layer of model.safetensors has Musubi's name for netw"),
    ("--resume run-state --mixed_precision fp16", "it has no scaler.pt"),
    ("--log_tracker_config junk.toml", "junk.toml is not in the form TOML"),
    # paths
    ("--network_weights /no/such.safetensors", "there is no file /no/such.safetensors"),
    ("--network_weights nosuch.safetensors", "there is no file nosuch.safetensors"),
    ("--network_weights ''", "there is no file"),
    ("--base_weights here.safetensors gone.safetensors", "there is no file gone.safetensors"),
    ("--resume nosuch", "there is no folder nosuch"),
    ("--network_weights ~/lora.safetensors", "~ does not stand"),
    ("--resume ~/no-such-state", "there is no folder"),
    ("--log_tracker_config nosuch.toml", "there is no file nosuch.toml"),
    ("--logging_dir here.safetensors", "--logging_dir names a file"),
    (f"--network_weights {'x' * 5000}", "there is no file xxx"),
    # schedules
    ("--lr_scheduler cosin", "Did you mean cosine?"),
    ("--lr_scheduler COSINE", "Did you mean cosine?"),
    ("--lr_scheduler reduce_lr_on_plateau", "can't be used"),
    ("--lr_scheduler cosine_warmup_with_min_lr", "can't be used"),
    ("--lr_scheduler cosine_with_min_lr", "needs --lr_scheduler_min_lr_ratio"),
    (
        "--lr_scheduler cosine_with_min_lr --lr_scheduler_min_lr_ratio 0.1 "
        "--lr_scheduler_args min_lr=1e-6",
        "can't be used together",
    ),
    ("--lr_scheduler piecewise_constant", "needs step_rules"),
    (
        "--lr_scheduler piecewise_constant --lr_scheduler_args step_rules=1",
        "step_rules can't be 1",
    ),
    (
        "--lr_scheduler piecewise_constant --lr_scheduler_args \"step_rules='1:x,2'\"",
        "step_rules can't be 1:x,2",
    ),
    ("--lr_warmup_steps 5", "can't be used with the scheduler constant"),
    ("--lr_scheduler constant --lr_warmup_steps 10%", "Add --lr_scheduler constant_with_warmup"),
    ("--lr_scheduler cosine --lr_warmup_steps 150%", "more than all steps"),
    (
        "--lr_scheduler warmup_stable_decay --lr_warmup_steps 60% --lr_decay_steps 60%",
        "are more than all steps",
    ),
    (
        "--lr_scheduler warmup_stable_decay --lr_decay_steps 9 --lr_scheduler_args decay_type='a'",
        "can't be read",
    ),
    (
        "--lr_scheduler warmup_stable_decay --lr_decay_steps 9 "
        "--lr_scheduler_args \"decay_type='a'\"",
        "decay_type can't be a",
    ),
    ("--lr_scheduler adafactor", "needs the optimizer Adafactor"),
    ("--lr_scheduler cosine --lr_scheduler_args foo=1", "foo is unknown"),
    ("--lr_scheduler cosine --lr_scheduler_args num_cycles", "not of the form key=value"),
    ("--lr_scheduler rex --lr_scheduler_args rex_alpha=a", "can't be read: a"),
    ("--lr_scheduler_type StepLr", "Did you mean StepLR?"),
    ("--lr_scheduler_type StepLR", "needs step_size"),
    ("--lr_scheduler_type LambdaLR", "can't be used"),
    ("--lr_scheduler_type ReduceLROnPlateau", "can't be used"),
    ("--lr_scheduler ''", "--lr_scheduler can't be"),
    ("--lr_scheduler_args last_epoch=0", "last_epoch can't be 0. | Give -1 or nothing"),
    ("--lr_scheduler cosine --lr_scheduler_args last_epoch=5", "last_epoch can't be 5"),
    ("--lr_scheduler cosine --lr_scheduler_args \"num_cycles='x'\"", "num_cycles can't be x"),
    ("--lr_scheduler cosine --lr_scheduler_args num_cycles=None", "num_cycles can't be None"),
    ("--lr_scheduler cosine --lr_scheduler_args num_cycles=1e999", "num_cycles can't be inf"),
    ("--lr_scheduler rex --lr_scheduler_args rex_alpha=0 rex_beta=0", "more than 0 together"),
    ("--lr_scheduler rex --lr_scheduler_args rex_alpha=-0.9", "rex_alpha can't be -0.9"),
    ("--lr_scheduler rex --lr_scheduler_args rex_alpha=None", "rex_alpha can't be None"),
    ("--lr_scheduler polynomial --lr_warmup_steps 100%", "when all steps are warm-up"),
    ("--lr_scheduler polynomial --lr_scheduler_args \"lr_end='x'\"", "lr_end can't be x"),
    ("--lr_scheduler polynomial --lr_scheduler_args lr_end=1", "not below the learning rate"),
    ("--lr_scheduler cosine_with_min_lr --lr_scheduler_args min_lr=None", "needs --lr_scheduler_m"),
    (
        "--lr_scheduler cosine_with_min_lr --lr_scheduler_args \"min_lr='x'\"",
        "min_lr can't be x. | Give a number from 0, as in min_lr=1e-7.",
    ),
    # schedulers of torch
    (STEP + "step_size=0", "step_size can't be 0. | Give a number above 0, as in step_size=100."),
    (STEP + "\"step_size='3'\"", "step_size can't be 3"),
    (STEP + "step_size=3 foo=1", "foo is unknown"),
    (STEP + "step_size=3 gamma=None", "gamma can't be None"),
    (STEP + "step_size=3 last_epoch=0", "last_epoch can't be 0"),
    ("--lr_scheduler_type torch.optim.lr_scheduler.StepLR", "needs step_size. | Add --lr"),
    ("--lr_scheduler_type torch.optim.lr_scheduler.Foo", "can't be torch.optim"),
    (TORCH + "MultiStepLR --lr_scheduler_args milestones=5", "as in milestones=[100,200]"),
    (TORCH + "MultiStepLR --lr_scheduler_args milestones=[3,[4]]", "milestones can't be"),
    (TORCH + "ConstantLR --lr_scheduler_args factor=0", "above 0 to 1, as in factor=0.5"),
    (TORCH + "ConstantLR --lr_scheduler_args factor=2", "factor can't be 2"),
    (TORCH + "LinearLR --lr_scheduler_args start_factor=0", "start_factor can't be 0"),
    (TORCH + "LinearLR --lr_scheduler_args end_factor=2", "end_factor can't be 2"),
    (TORCH + "PolynomialLR --lr_scheduler_args total_iters=3 power=-1", "power can't be -1"),
    (TORCH + "ExponentialLR --lr_scheduler_args \"gamma='x'\"", "gamma can't be x"),
    (TORCH + "CosineAnnealingLR --lr_scheduler_args T_max=0", "T_max can't be 0"),
    (TORCH + "CosineAnnealingLR --lr_scheduler_args T_max=3 \"eta_min='x'\"", "eta_min can't be x"),
    (TORCH + "CosineAnnealingWarmRestarts --lr_scheduler_args T_0=0", "T_0 can't be 0"),
    (TORCH + "CosineAnnealingWarmRestarts --lr_scheduler_args T_0=2.5", "a whole number from 1"),
    (CYCLIC + "step_size_up=0", "step_size_up can't be 0"),
    (CYCLIC + "\"mode='x'\"", "'triangular', 'triangular2' or 'exp_range', quotes and all"),
    (CYCLIC + "max_momentum=1", "from 0 to below 1, as in max_momentum=0.9"),
    (CYCLIC + "scale_fn=1", "scale_fn can't be 1"),
    (TORCH + "CyclicLR --lr_scheduler_args base_lr=[1e-5,1e-4] max_lr=1e-4", "needs one number"),
    (TORCH + "OneCycleLR --lr_scheduler_args max_lr=1e-4 epochs=2", "needs total_steps"),
    (ONE + "pct_start=1", "pct_start can't be 1. | Give a number from 0.0 to 1.0, with a point"),
    (ONE + "pct_start=0.05", "pct_start leaves the rise of the learning rate a single step"),
    (ONE + "div_factor=0", "div_factor can't be 0"),
    (ONE + "\"anneal_strategy='x'\"", "anneal_strategy can't be x"),
    (
        "--lr_scheduler_type OneCycleLR --lr_scheduler_args total_steps=20 max_lr=[1e-4] "
        "--network_args loraplus_lr_ratio=4",
        "max_lr needs 2 numbers",
    ),
    ("--lr_scheduler_type foo..Bar", "--lr_scheduler_type can't be foo..Bar"),
    ("--lr_scheduler_type .Bar", "--lr_scheduler_type can't be .Bar"),
    ("--lr_scheduler_type foo.", "--lr_scheduler_type can't be foo."),
    # the optimizer
    ("--optimizer_args betas", "not of the form key=value"),
    ("--optimizer_args a=b=c", "not of the form key=value"),
    ("--optimizer_args betas = 0.9", "not of the form key=value"),
    ("--optimizer_args weight_decay=big", "can't be read: big"),
    ("--optimizer_args weight_decay=", "can't be read"),
    ("--optimizer_args weight_decay=-1", "weight_decay can't be -1"),
    ("--optimizer_args weight_decay=1e999", "weight_decay can't be inf"),
    ("--optimizer_args betas=0.9", "betas can't be 0.9"),
    ("--optimizer_args weight_decy=0.1", "Did you mean weight_decay?"),
    ("--optimizer_args lr=1", "lr is set by the form"),
    (f"--optimizer_args weight_decay=-0x{'f' * 9000}", "can't be a huge number"),
    # the network
    ("--network_module networks.nosuch", "Musubi has no --network_module networks.nosuch"),
    ("--network_module lora_qwen_image", "Did you mean networks.lora_qwen_image?"),
    ("--network_module networks.lora_wan", "is for another model"),
    ("--network_module networks.lora", "is for another model"),
    ("--network_module ../evil", "can't be ../evil"),
    ("--network_module ''", "Musubi has no --network_module"),
    ("--network_args rank_dropout", "not of the form key=value"),
    ("--network_args rank_dropout=much", "Write a number."),
    ("--network_args rank_dropout=1", "from 0 to below 1"),
    ("--network_args module_dropout=nan", "from 0 to below 1"),
    ("--network_args conv_dim=4.5", "Write a whole number."),
    ("--network_args loraplus_lr_ratio=inf", "usual size"),
    ("--network_args exclude_patterns=.*", "quotes and all"),
    ("--network_args \"exclude_patterns=['(']\"", "quotes and all"),
    ("--network_args unet=1", "Musubi gives it itself"),
    ("--network_args \"exclude_patterns=['.*']\"", "exclude_patterns leaves no layer to train"),
    (LOHA + "--network_args exclude_patterns=['transformer_blocks.*']", "quotes and all"),
    (
        "--network_args \"exclude_patterns=['.*attn.*','.*mlp.*','.*mod.*']\"",
        "Patterns match whole names such as transformer_blocks.0.attn.to_q",
    ),
    (
        "--network_args \"exclude_patterns=['.*']\" \"include_patterns=['attn']\"",
        "leaves no layer",
    ),
]


def fill(folder: Path) -> None:
    """The files the lines name, and states of trainings with these weights."""
    weights.fill(folder, settings.defaults()["lora_rank"])
    for source, state in (("here", "run-state"), ("other_rank", "other_rank-state")):
        (folder / state).mkdir()
        for name in paths.STATE:
            (folder / state / name).touch()
        (folder / state / "model.safetensors").write_bytes(
            (folder / f"{source}.safetensors").read_bytes()
        )


@pytest.mark.parametrize(("line", "words"), ERRORS)
def test_a_bad_line_is_refused_with_the_reason(line, words, tmp_path, capsys):
    fill(tmp_path)
    found = read(line, tmp_path)
    assert words in texts(found.errors)
    assert all(isinstance(one, Invalid) for one in found.errors)
    assert found.words == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", facts.TAKEN)
def test_what_the_form_gives_is_not_said_twice(name):
    for line in (f"{name} x", f"{name}=x", f"--fp8_base {name} 1"):
        found = read(line)
        assert len(found.errors) == 1
        assert f"{name} is set by the form already" in texts(found.errors)
        assert found.errors[0].hint
    assert name in KNOWN


def test_a_taken_option_names_the_field_by_its_label():
    assert "“Seed”" in texts(read("--seed 3").errors)
    assert "“LoRA rank”" in texts(read("--network_dim 3").errors)
    assert "“Model files”" in texts(read("--dit x").errors)


def test_all_problems_are_told_at_once_and_each_once():
    found = read("--blokcs 4 --fp8_scaled --seed 3 --seed 3 --log_with x --vae_dtype bf16")
    assert len(found.errors) == 4
    assert len(found.warnings) == 1
    many = read(" ".join(f"--zzz{n}" for n in range(2000)))
    assert len(many.errors) == flags.MANY


OPTIMIZERS = [  # optimizer, line, the words of an error, those of a warning
    ("Adafactor", "--lr_warmup_steps 5", "relative_step=False", ""),
    ("Adafactor", "--lr_scheduler cosine", "", "Adafactor has a schedule of its own"),
    ("Adafactor", "--lr_scheduler adafactor", "", ""),
    ("Adafactor", "--optimizer_args relative_step=False --lr_scheduler cosine", "", ""),
    (
        "Adafactor",
        "--optimizer_args relative_step=False --lr_scheduler adafactor",
        "can't be used with relative_step=False",
        "",
    ),
    (
        "Adafactor",
        "--optimizer_args relative_step=False warmup_init=True --lr_warmup_steps 5",
        "can't be used with the scheduler adafactor",
        "",
    ),
    ("Adafactor", "--optimizer_args betas=0.9,0.99", "betas is unknown", ""),
    ("AdamW8bit", "--optimizer_args fused=True", "fused is unknown", ""),
    ("AdamW8bit", "--optimizer_args betas=0.9,0.99", "", ""),
    ("AdamW", "--optimizer_args relative_step=False", "relative_step is unknown", ""),
    (
        "AdamW",
        "--optimizer_args eps=-1",
        "eps can't be -1. | Give a number from 0, as in eps=1",
        "",
    ),
    ("AdamW", "--optimizer_args \"eps='x'\"", "eps can't be x", ""),
    ("AdamW", "--optimizer_args eps=1e-8,1e-3", "eps can't be (1e-08, 0.001)", ""),
    ("AdamW", "--optimizer_args betas=0,0.99", "with a point, as in betas=0.9,0.99", ""),
    ("AdamW8bit", "--optimizer_args betas=0,0.99", "", ""),
    ("AdamW", "--optimizer_args foreach=True fused=True", "can't be True together", ""),
    ("AdamW", "--optimizer_args foreach=False fused=True amsgrad=True", "", ""),
    ("AdamW", "--optimizer_args amsgrad=1 maximize=0", "", ""),
    ("AdamW", "--optimizer_args fused=True amsgrad=1", "Write amsgrad=True.", ""),
    ("AdamW", "--optimizer_args \"amsgrad='False'\"", "amsgrad can't be False. | Give True or", ""),
    ("AdamW", "--optimizer_args differentiable=True", "differentiable can't be True", ""),
    ("AdamW", "--optimizer_args differentiable=False foreach=None", "", ""),
    ("AdamW8bit", "--optimizer_args amsgrad=True", "amsgrad can't be True", ""),
    (
        "AdamW8bit",
        "--optimizer_args optim_bits=8",
        "optim_bits can't be 8. | Give 32 or nothing",
        "",
    ),
    ("AdamW8bit", "--optimizer_args args={}", "args can't be {}", ""),
    ("AdamW8bit", "--optimizer_args min_8bit_size=None", "min_8bit_size can't be None", ""),
    ("AdamW8bit", "--optimizer_args is_paged=True optim_bits=32 args=None", "", ""),
    ("AdamW8bit", "--optimizer_args percentile_clipping=5", "", "newer versions of bitsandbytes"),
    ("Adafactor", "--optimizer_args eps=1e-8", "as in eps=1e-30,1e-3", ""),
    ("Adafactor", "--optimizer_args eps=None,1e-3", "eps can't be (None, 0.001)", ""),
    ("Adafactor", "--optimizer_args eps=1e-30,1e-3 beta1=None decay_rate=-0.5", "", ""),
    ("Adafactor", "--optimizer_args clip_threshold=None", "clip_threshold can't be None", ""),
    ("Adafactor", "--optimizer_args decay_rate=0.8", "from -10 to 0, as in decay_rate=-0.8", ""),
    ("Adafactor", "--optimizer_args \"beta1='x'\"", "beta1 can't be x", ""),
    (
        "Adafactor",
        "--optimizer_args relative_step=False --lr_scheduler adafactor:1.2.3",
        "can't be used with relative_step=False",
        "",
    ),
    (
        "Adafactor",
        "--optimizer_args relative_step=False --lr_scheduler adafactor:0.1 --lr_warmup_steps 5",
        "can't be used with the scheduler adafactor",
        "",
    ),
    ("Adafactor", CYCLIC, "which has none. | Add cycle_momentum=False", ""),
    ("Adafactor", CYCLIC + "cycle_momentum=False", "", ""),
    ("AdamW8bit", CYCLIC, "", ""),
]


@pytest.mark.parametrize(("optimizer", "line", "error", "warning"), OPTIMIZERS)
def test_some_flags_go_with_some_optimizers_only(optimizer, line, error, warning):
    found = read(line, optimizer_type=optimizer)
    for told, words in ((found.errors, error), (found.warnings, warning)):
        assert words in texts(told)
        assert bool(told) == bool(words)


@pytest.mark.parametrize(
    ("line", "words"),
    [  # of 10 steps
        ("--lr_scheduler rex --lr_warmup_steps 11", "longer than the training's 10 steps"),
        ("--lr_scheduler REX --lr_warmup_steps 10", ""),
        ("--lr_scheduler rex --lr_warmup_steps 100%", ""),
        ("--lr_scheduler polynomial --lr_warmup_steps 10", "the very number of all steps"),
        ("--lr_scheduler polynomial --lr_warmup_steps 11", ""),
        ("--lr_scheduler cosine --lr_warmup_steps 10", ""),
        ("--lr_warmup_steps 10", ""),
        ("--lr_scheduler rex", ""),
        ("--lr_scheduler_type ConstantLR --lr_scheduler rex --lr_warmup_steps 11", ""),
    ],
)
def test_a_warm_up_is_held_against_the_number_of_steps(line, words):
    told = texts(flags.beside_steps(read(line).values, settings.defaults(), 10))
    assert words in told and bool(told) == bool(words)
    adafactor = {**settings.defaults(), "optimizer_type": "Adafactor"}
    assert flags.beside_steps(read(line).values, adafactor, 10) == []


def test_a_schedule_ends_below_where_it_begins():
    line = "--lr_scheduler polynomial"
    assert read(line).errors == []
    assert "not below the learning rate" in texts(read(line, learning_rate=1e-8).errors)


def test_without_settings_and_folder_only_what_is_known_is_said():
    line = "--lr_scheduler adafactor --optimizer_args foo=1 --network_weights x.safetensors"
    found = flags.read(line, TABLE)
    assert (found.errors, found.warnings) == ([], [])


# -- warnings --------------------------------------------------------------------------------------

WARNINGS = [
    ("--flash_attn", "--split_attn"),
    ("--xformers", "--split_attn"),
    ("--blocks_to_swap 46", "main memory"),
    ("--block_swap_h2d_only", "no effect without --blocks_to_swap"),
    ("--block_swap_h2d_only --blocks_to_swap 0", "no effect without --blocks_to_swap"),
    ("--block_swap_ring_size 2", "no effect without --block_swap_h2d_only"),
    ("--use_pinned_memory_for_block_swap", "no effect without --blocks_to_swap"),
    (
        "--gradient_checkpointing_cpu_offload",
        "no effect without --gradient_checkpointing. | Add",
    ),
    ("--vae_dtype bf16", "--vae_dtype has no effect"),
    ("--guidance_scale 2", "--guidance_scale has no effect"),
    ("--img_in_txt_in_offloading", "has no effect"),
    ("--ddp_static_graph", "one graphics card"),
    ("--discrete_flow_shift 2.2", "Add --timestep_sampling shift"),
    (
        "--timestep_sampling uniform --sigmoid_scale 2",
        "no effect with --timestep_sampling uniform.",
    ),
    ("--logit_mean 1", "qwen_shift, which MusubiTLX gives"),
    ("--logit_std 1", "has no effect"),
    ("--mode_scale 1", "--weighting_scheme mode"),
    ("--weighting_scheme logit_normal", "--timestep_sampling sigma"),
    ("--timestep_sampling sigma --num_timestep_buckets 4", "has no effect"),
    ("--num_timestep_buckets 1", "Give 2 or more"),
    ("--preserve_distribution_shape", "without --min_timestep or --max_timestep"),
    ("--log_with wandb", "wandb.ai"),
    ("--log_with all --logging_dir logs", "wandb.ai"),
    ("--wandb_run_name x", "without --log_with wandb"),
    ("--log_with wandb --wandb_api_key x", "plain text"),
    ("--log_prefix x", "without --logging_dir"),
    ("--log_config", "without --logging_dir or --log_with"),
    ("--compile_mode default", "without --compile."),
    ("--dynamo_mode default", "without --dynamo_backend"),
    ("--dynamo_mode default --dynamo_backend NO", "without --dynamo_backend"),
    ("--huggingface_repo_id a/b", "leaves this machine"),
    ("--huggingface_repo_id a/b", "without --huggingface_path_in_repo"),
    ("--huggingface_token x", "plain text"),
    ("--huggingface_repo_visibility public", "without --huggingface_repo_id"),
    (
        "--huggingface_repo_id a/b --huggingface_repo_visibility open",
        "makes the repository private",
    ),
    ("--async_upload", "without --huggingface_repo_id"),
    ("--save_state_to_huggingface", "without --save_state or"),
    ("--resume_from_huggingface", "without --resume"),
    ("--resume run-state", "from the first epoch again"),
    ("--resume a/b/c:main:model --resume_from_huggingface", "from the first epoch again"),
    ("--save_last_n_steps 5", "without --save_every_n_steps"),
    ("--save_last_n_epochs_state 5", "without --save_state"),
    ("--base_weights_multiplier 1", "without --base_weights"),
    ("--base_weights here.safetensors --base_weights_multiplier 1 2", "differ in number"),
    ("--base_weights", "without a file"),
    ("--base_weights here.safetensors --fp8_base --fp8_scaled", "not merged rightly"),
    ("--num_layers 30", "does not fit Qwen-Image"),
    (LOHA + "--network_dropout 0.1", "no effect for LoHa"),
    (LOHA + "--scale_weight_norms 1", "no effect for LoHa"),
    (LOHA + "--network_args loraplus_lr_ratio=4", "no effect for LoHa"),
    ("--network_module lycoris.kohya", "not one of Musubi's"),
    ("--network_args foo=1", "foo is unknown and ignored"),
    ("--network_args dropout=0.1", "Did you mean"),
    ("--network_args factor=1", "factor is unknown and ignored"),
    ("--network_args conv_dim=4", "no convolutions"),
    ("--network_args verbose=true", "verbose=True"),
    ("--network_args \"include_patterns=['.*attn.*']\"", "without exclude_patterns"),
    ("--network_weights other_names.safetensors", "nothing of it is loaded, no layer of other_na"),
    ("--network_weights loha.safetensors", "nothing of it is loaded"),
    ("--base_weights other_names.safetensors", "nothing of it is merged"),
    ("--base_weights here.safetensors " + LOHA, "nothing of it is merged"),
    ("--lr_scheduler_type my.own.Scheduler", "it can't be checked before the training"),
    ("--lr_scheduler linear --lr_scheduler_power 2", "no effect with the scheduler linear"),
    ("--lr_decay_steps 5", "no effect with the scheduler constant"),
    ("--lr_scheduler warmup_stable_decay", "never decays"),
    ("--lr_scheduler_type ConstantLR --lr_warmup_steps 3", "beside --lr_scheduler_type"),
]


@pytest.mark.parametrize(("line", "words"), WARNINGS)
def test_what_is_ignored_or_unwise_is_a_warning(line, words, tmp_path):
    fill(tmp_path)
    found = read(line, tmp_path)
    assert texts(found.errors) == ""
    assert words in texts(found.warnings)
    assert found.words


# -- the rules as data -----------------------------------------------------------------------------


def test_every_rule_is_about_options_there_are():
    named = {*facts.TAKEN, *facts.OWN, *flagrules.REFUSED, *flagrules.NO_EFFECT}
    named |= {*facts.RANGES, *flagrules.ATTENTION, *paths.FILES}
    named |= {rule.option for rule in flagrules.RULES}
    named |= {name for name, others in flagrules.NEEDS for name in (name, *others)}
    named |= {name for name, _, _ in flagrules.SAMPLED}
    named |= {name for used, _ in schedule.SCHEDULERS.values() for name in used}
    assert named <= set(KNOWN)
    assert not set(facts.ELSEWHERE) & set(KNOWN)


def test_no_default_of_musubi_and_nothing_of_the_command_is_out_of_range():
    rows = {name: row for row in TABLE.options(TRAIN) for name in row["option_strings"]}
    for name, (low, high, _) in facts.RANGES.items():
        value = facts.OWN.get(name, rows[name].get("default"))
        assert value is None or low <= value <= high, name


TABLES = {
    **{name: table for name, (_, table) in torch_schedule.CLASSES.items()},
    **{name: table for name, (_, table) in schedule.SCHEDULERS.items() if table},
    **optimizer.OPTIMIZERS,
}


@pytest.mark.parametrize("name", TABLES)
def test_what_a_hint_gives_as_an_example_is_of_the_kind(name):
    for key, kind in TABLES[name].items():
        (word,) = shlex.split(f"{key}={kind.example}")
        value = facts.literal(word.removeprefix(f"{key}="))
        assert list(kinds.wrong("--x", {key: value}, TABLES[name])) == [], (name, key)
        assert kind.words


def test_a_scheduler_with_the_examples_of_its_hints_is_taken():
    for name, (needed, table) in torch_schedule.CLASSES.items():
        args = " ".join(f"{key}={table[key].example}" for key in needed)
        found = read(f"--lr_scheduler_type {name} --lr_scheduler_args {args}")
        assert texts(found.errors) == texts(found.warnings) == ""


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        ("\"exclude_patterns=['.*attn.*','.*mlp.*']\"", True),  # the modulation stays
        ("\"exclude_patterns=['transformer_blocks']\"", True),  # no whole name
        ("\"exclude_patterns=['transformer_blocks[.][0-5]?[0-9][.].*']\"", False),
        ("\"exclude_patterns=['transformer_blocks[.][0-4]?[0-9][.].*']\"", True),
        ("\"exclude_patterns=['.*']\" \"include_patterns=['.*attn.*']\"", True),
        ("\"exclude_patterns=['.*']\" \"include_patterns=('.*attn.*',)\"", True),
        ('"exclude_patterns=[\'.*\']" "include_patterns=[]"', False),
        ("\"exclude_patterns=['([a-z_]+)+x','(.*)*','.*.*.*.*.*.*.*.*x']\"", True),  # not tried
    ],
)
def test_patterns_are_tried_on_the_layers_of_the_model(patterns, left):
    began = time.monotonic()
    assert (texts(read(f"--network_args {patterns}").errors) == "") is left
    assert time.monotonic() - began < 1
    assert len(set(network.LAYERS)) == 60 * 14


# -- whatever else is typed ------------------------------------------------------------------------

ODD = ["1", "-1", "1.5", "nan", "1e999", "=", "--x=y", "''", '"a b"', "'", "\\", "--", "-", "10%"]
ODD += ["\ud800", "a=b", "a=1", "betas=(", "cosine", "adafactor", "adafactor:x", "rex", "~", "/"]
ODD += ["–fp8_base", "networks.loha", "step_rules='1:1'", "exclude_patterns=[1]", "wandb", "0"]
WORDS = st.sampled_from(KNOWN) | st.text(max_size=12) | st.sampled_from(ODD)
LINE = st.lists(WORDS, max_size=8).map(" ".join)
JOINED = st.builds("{}={}".format, st.sampled_from(KNOWN), st.text(max_size=8))


def check(line: str) -> flags.Flags:
    """Taken or refused, never anything between; what is taken Musubi's parser takes."""
    found = read(line)
    texts(found.errors + found.warnings)
    if found.errors:
        assert found.words == []
    else:
        assert not set(facts.TAKEN) & {word.split("=")[0] for word in found.words}
        TABLE.parser(TRAIN, Strict).parse_args(found.words)
    return found


class Strict(argparse.ArgumentParser):
    """Raises where argparse would end the tests."""

    def __init__(self, **more):
        super().__init__(**more, add_help=False)

    def error(self, message):
        raise AssertionError(message)


@patient
@given(LINE | JOINED | st.text(max_size=60))
def test_whatever_is_typed_is_taken_or_refused(line):
    check(line)


@patient
@given(st.sampled_from([line for line, _ in ERRORS + WARNINGS]), st.randoms())
def test_a_line_with_a_slip_is_taken_or_refused(line, rng):
    line = line[:300]
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(line) + 1)
        line = line[:at] + rng.choice([*"-=' \"\\~.0e%\n–", ""]) + line[at + rng.randint(0, 2) :]
    check(line)


VALUES = {"int": "3", "float": "0.5", "_int_or_float": "5", "Path": "x"}


def good(name: str) -> str:
    """An option with a value of its type."""
    row = next(row for row in TABLE.options(TRAIN) if name in row["option_strings"])
    if row["action"] == "store_true":
        return name
    choices = row.get("choices")
    return f"{name} {choices[-1] if choices else VALUES.get(row.get('type'), 'x')}"


def broken() -> list[str]:
    """Each option in every way a slip breaks it."""
    rng, lines = random.Random(1), []
    for name in KNOWN:
        row = next(row for row in TABLE.options(TRAIN) if name in row["option_strings"])
        at = rng.randrange(3, len(name) - 1)
        lines += [good(name).replace("--", "-", 1), good(name).replace("--", "—", 1)]
        lines.append(name[:at] + "ß" + name[at:])
        if row.get("nargs") != "*":  # a list takes every word that follows it
            lines.append(good(name) + " stray and alone")
        lines.append(good(name.upper()) if name.upper() in KNOWN else name.upper())
        if row["action"] == "store_true":
            lines += [f"{name}=1", f"{name} 1"]
        elif "nargs" not in row:
            lines += [name, f"{name} 'x"]
            if row.get("type") in VALUES and row["type"] != "Path":
                lines += [f"{name} x", f"{name}=", f"{name} nan", f"{name} 1e99"]
            if row.get("choices"):
                lines += [f"{name} nosuch", f"{name}="]
    return lines


@pytest.mark.parametrize(
    "piece",
    ["--zzz ", "-", "x ", "a=b ", "--x=", "'' ", "9", "(", "[", "--fp8_base=1 ", "– ", "\u00a0"],
)
def test_the_longest_line_is_read_at_once(piece):
    for start in ("", "--optimizer_args a=", "--network_args exclude_patterns=", "--resume "):
        line = (start + piece * flags.LONGEST)[: flags.LONGEST]
        began = time.monotonic()
        check(line)
        assert time.monotonic() - began < 2


def test_hundreds_of_broken_lines_each_have_an_error():
    lines = broken()
    assert len(lines) > 500
    for line in lines:
        found = check(line)
        assert found.errors, line


# -- another profile's memory ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("--gradient_checkpointing", "--fp8_base --fp8_scaled --max_grad_norm 1.0"),
        (
            "--max_grad_norm=0.5 --save_precision fp32 --blocks_to_swap=4",
            "--fp8_base --fp8_scaled --max_grad_norm=0.5 --save_precision fp32",
        ),
        (
            "--network_args \"exclude_patterns=['a b']\" loraplus_lr_ratio=4 --fp8_base",
            "--fp8_base --fp8_scaled --max_grad_norm 1.0 --network_args "
            "\"exclude_patterns=['a b']\" loraplus_lr_ratio=4",
        ),
    ],
)
def test_another_profile_leaves_what_is_not_about_memory(typed, wanted):
    profile = "--fp8_base --fp8_scaled --max_grad_norm 1.0"
    line = flags.with_memory_of(read(typed), read(profile))
    assert shlex.split(line) == shlex.split(wanted)


def test_patterns_that_take_long_to_try_are_not_tried():
    slow = ", ".join(f"'.*.*.*x{n}'" for n in range(1000))
    began = time.monotonic()
    found = read(f"--network_args \"exclude_patterns=[{slow}, '.*']\"")
    assert time.monotonic() - began < 2
    assert not found.errors
