"""The options and the rules of flags against the installed Musubi Tuner, without a model."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import weights
from musubi_here import needs_musubi

from musubitlx import flags, musubi, options, settings
from musubitlx.home import Home

pytestmark = needs_musubi


@pytest.fixture
def trainer(tmp_path) -> musubi.Trainer:
    found = musubi.find(Home(tmp_path))
    if found.version != options.RECORDED_VERSION:
        pytest.skip(f"recorded is {options.RECORDED_VERSION}, installed {found.version}")
    return found


def test_the_installed_options_are_the_recorded_ones(trainer):
    assert options.read_installed(trainer)["scripts"] == options.load_table()


# Trains with the trainer's own `train`, from the reading of the options to the last save: only
# the dataset is a list of noise, and the model has one small block with layers of the real names.
ASK = """
import json, logging, sys
from multiprocessing import Value
import torch
import musubi_tuner.qwen_image_train_network as script
from accelerate.state import AcceleratorState
from musubi_tuner.hv_train_network import setup_parser_common
from musubi_tuner.modules.custom_offloading_utils import BlockSwapConfig
from musubi_tuner.qwen_image.qwen_image_model import QwenImageTransformer2DModel
from musubi_tuner.utils import model_utils

SMALL = dict(num_layers=1, attention_head_dim=8, num_attention_heads=4, joint_attention_dim=16)

class Items(list):
    num_train_items, datasets = 5, ()
    def set_max_train_steps(self, steps):
        pass

class Trainer(script.QwenImageNetworkTrainer):
    def _build_dataset(self, args):
        self.num_timestep_buckets = args.num_timestep_buckets
        one = {"latents": torch.ones(1, 16, 1, 4, 4), "vl_embed": [torch.ones(3, 16)]}
        items = Items([{**one, "timesteps": None}] * Items.num_train_items)
        return items, lambda batches: batches[0], Value("i", 0)
    def _load_dit_and_swap(self, args, accelerator, dtype):
        if (args.blocks_to_swap or 0) > 0:  # the rest of it needs a graphics card
            BlockSwapConfig.from_args(args, accelerator.device, supports_backward=True)
            assert args.blocks_to_swap <= 59
        args.blocks_to_swap, args.fp8_base, args.fp8_scaled = 0, False, False
        args.sdpa = args.sdpa or not (args.flash_attn or args.xformers)
        return super()._load_dit_and_swap(args, accelerator, torch.bfloat16)
    def load_transformer(self, accelerator, args, path, attention, split, device, dtype):
        torch.manual_seed(0)
        model = QwenImageTransformer2DModel(
            **SMALL, axes_dims_rope=(2, 2, 4), attn_mode=attention, split_attn=split
        )
        return model.to(dtype)
    def _prepare_with_accelerator(self, args, *more):  # the dtype of the weights is not fp8
        return super()._prepare_with_accelerator(args, *more[:-1], more[-2])

def train(line):
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_autocast_enabled("cpu", False)  # accelerate leaves it on when a step fails
    parser = script.qwen_image_setup_parser(setup_parser_common())
    args = parser.parse_args(line + ["--dit", "x", "--dataset_config", "x"])
    script.qwen_image_utils.resolve_model_version_args(args)
    args.dit_dtype = "bfloat16"
    model_utils.str_to_dtype(args.vae_dtype or "bf16")
    if args.show_timesteps:
        raise RuntimeError("it trains nothing")
    Trainer().train(args)

logging.disable()
torch.set_num_threads(1)  # for so small a model more are slower
for line in json.load(sys.stdin):
    try:
        train(line)
        told = None
    except (Exception, SystemExit) as error:
        told = f"{type(error).__name__}: {error}"[:300]
    print("\\nTOLD", json.dumps(told))
"""


RANK = 4
STEPS = 10  # 5 items, 2 epochs


def ask(trainer: musubi.Trainer, lines: list[str], folder: Path, optimizer: str) -> list:
    """What the real trainer says of each line: None, or its exception."""
    base = ["--optimizer_type", optimizer, "--learning_rate", "5e-5", "--network_dim", str(RANK)]
    base += ["--network_alpha", "4", "--max_train_epochs", "2", "--mixed_precision", "bf16"]
    base += ["--network_module", "networks.lora_qwen_image", "--max_data_loader_n_workers", "0"]
    base += ["--timestep_sampling", "qwen_shift", "--save_precision", "bf16"]
    base += ["--save_every_n_epochs", "1", "--output_dir", str(folder), "--output_name", "x"]
    ended = subprocess.run(
        [trainer.python, "-c", ASK],
        input=json.dumps([base + shlex.split(line) for line in lines]),
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(trainer.source), "CUDA_VISIBLE_DEVICES": ""},
    )
    told = [line[5:] for line in ended.stdout.splitlines() if line.startswith("TOLD ")]
    assert len(told) == len(lines), ended.stderr[-3000:]
    return [json.loads(line) for line in told]


FAILS = [
    "--fp8_scaled",
    "--sage_attn",
    "--remove_first_image_from_target",
    "--dim_from_weights",
    "--vae_dtype float17",
    "--log_with tensorboard",
    "--blocks_to_swap 4 --block_swap_h2d_only",
    "--blocks_to_swap 4 --block_swap_ring_size 0",
    "--blocks_to_swap 60",
    "--max_data_loader_n_workers 0 --persistent_data_loader_workers",
    "--max_data_loader_n_workers -1",
    "--save_every_n_epochs 0",
    "--save_every_n_steps 0",
    "--gradient_accumulation_steps 0",
    "--metadata_reso 1024x1024",
    "--network_dropout -0.1",
    "--network_weights nosuch.safetensors",
    "--base_weights nosuch.safetensors",
    "--network_module networks.nosuch",
    "--network_module lora_qwen_image",
    "--network_module networks.lora_wan",
    "--network_args rank_dropout",
    "--network_args rank_dropout=much",
    "--network_args rank_dropout=1",
    "--network_args exclude_patterns=.*",
    "--network_args \"exclude_patterns=['.*']\"",
    "--network_args \"exclude_patterns=['.*attn.*','.*mlp.*','.*mod.*']\"",
    "--network_args \"exclude_patterns=['.*']\" \"include_patterns=['attn']\"",
    "--network_module networks.loha --network_args \"exclude_patterns=['.*']\"",
    "--mixed_precision no",
    "--compile --compile_backend nosuch",
    "--timestep_sampling sigma --weighting_scheme mode --mode_scale 100",
    "--log_tracker_config junk.toml",
    "--network_weights junk.safetensors",
    "--network_weights empty.safetensors",
    "--network_weights junk.pt",
    "--network_weights shouted.SAFETENSORS",
    "--network_weights other_rank.safetensors",
    "--base_weights junk.safetensors",
    "--base_weights here.safetensors junk.pt",
    "--base_weights no_alpha.safetensors",
    "--resume empty",
    "--resume no_optimizer-state",
    "--resume no_scheduler-state",
    "--resume other_rank-state",
    "--resume run-state --network_module networks.loha",
    "--network_args unet=1",
    "--optimizer_args betas",
    "--optimizer_args a=b=c",
    "--optimizer_args weight_decay=big",
    "--optimizer_args betas=0.9",
    "--optimizer_args weight_decay=-1",
    "--optimizer_args weight_decy=0.1",
    "--optimizer_args lr=1",
    "--optimizer_args eps=-1",
    "--optimizer_args \"eps='x'\"",
    "--optimizer_args eps=1e-8,1e-3",
    "--optimizer_args betas=0,0.99",
    "--optimizer_args foreach=True fused=True",
    "--optimizer_args differentiable=True",
    "--optimizer_args fused=True amsgrad=1",
    "--optimizer_args weight_decay=None",
    "--lr_scheduler cosin",
    "--lr_scheduler COSINE",
    "--lr_scheduler reduce_lr_on_plateau",
    "--lr_scheduler cosine_warmup_with_min_lr",
    "--lr_scheduler cosine_with_min_lr",
    "--lr_scheduler cosine_with_min_lr --lr_scheduler_min_lr_ratio 0.1 "
    "--lr_scheduler_args min_lr=1e-6",
    "--lr_scheduler piecewise_constant",
    "--lr_scheduler piecewise_constant --lr_scheduler_args step_rules=1",
    "--lr_scheduler piecewise_constant --lr_scheduler_args \"step_rules='1:x,2'\"",
    "--lr_scheduler constant --lr_warmup_steps 10%",
    "--lr_scheduler rex --lr_warmup_steps 150%",
    "--lr_scheduler warmup_stable_decay --lr_scheduler_args \"decay_type='a'\"",
    "--lr_scheduler adafactor",
    "--lr_scheduler inverse_sqrt --lr_scheduler_timescale 0",
    "--lr_scheduler cosine --lr_scheduler_args foo=1",
    "--lr_scheduler constant --lr_scheduler_args num_cycles=1",
    "--lr_scheduler_type StepLr",
    "--lr_scheduler_type StepLR",
    "--lr_scheduler_type LambdaLR",
    "--lr_scheduler_type ReduceLROnPlateau",
    "--lr_scheduler_type OneCycleLR --lr_scheduler_args max_lr=1e-4",
    "--lr_scheduler ''",
    "--lr_scheduler_args last_epoch=0",
    "--lr_scheduler cosine --lr_scheduler_args last_epoch=5",
    "--lr_scheduler cosine --lr_scheduler_args \"num_cycles='x'\"",
    "--lr_scheduler cosine --lr_scheduler_args num_cycles=1e999",
    "--lr_scheduler rex --lr_scheduler_args rex_alpha=0 rex_beta=0",
    "--lr_scheduler rex --lr_scheduler_args rex_alpha=-0.9",
    "--lr_scheduler rex --lr_scheduler_args rex_alpha=None",
    "--lr_scheduler polynomial --lr_warmup_steps 100%",
    "--lr_scheduler polynomial --lr_warmup_steps 10",
    "--lr_scheduler rex --lr_warmup_steps 11",
    "--lr_scheduler polynomial --lr_scheduler_args lr_end=1",
    "--lr_scheduler polynomial --lr_scheduler_args \"lr_end='x'\"",
    "--lr_scheduler cosine_with_min_lr --lr_scheduler_args min_lr=None",
    "--lr_scheduler cosine_with_min_lr --lr_scheduler_args \"min_lr='x'\"",
    "--lr_scheduler_type torch.optim.lr_scheduler.Foo",
    "--lr_scheduler_type .Bar",
    "--lr_scheduler_type foo..Bar",
    *(
        f"--lr_scheduler_type {args.replace(' ', ' --lr_scheduler_args ', 1)}"
        for args in (
            "StepLR step_size=0",
            "StepLR \"step_size='3'\"",
            "StepLR step_size=3 foo=1",
            "StepLR step_size=3 gamma=None",
            "StepLR step_size=3 last_epoch=0",
            "torch.optim.lr_scheduler.StepLR step_size=0",
            "MultiStepLR milestones=5",
            "MultiStepLR milestones=[3,[4]]",
            "ConstantLR factor=0",
            "ConstantLR factor=2",
            "LinearLR start_factor=0",
            "LinearLR end_factor=2",
            "LinearLR \"total_iters='a'\"",
            "PolynomialLR total_iters=3 power=-1",
            "ExponentialLR \"gamma='x'\"",
            "CosineAnnealingLR T_max=0",
            "CosineAnnealingLR T_max=3 \"eta_min='x'\"",
            "CosineAnnealingWarmRestarts T_0=0",
            "CosineAnnealingWarmRestarts T_0=2.5",
            "CosineAnnealingWarmRestarts T_0=2 T_mult=1.5",
            "CyclicLR base_lr=1e-5 max_lr=1e-4 step_size_up=0",
            "CyclicLR base_lr=1e-5 max_lr=1e-4 \"mode='x'\"",
            "CyclicLR base_lr=1e-5 max_lr=1e-4 scale_fn=1",
            "CyclicLR base_lr=1e-5 max_lr=1e-4 max_momentum=1",
            "CyclicLR base_lr=[1e-5,1e-4] max_lr=1e-4",
            "OneCycleLR max_lr=1e-4 epochs=2",
            "OneCycleLR max_lr=1e-4 total_steps=20.0",
            "OneCycleLR max_lr=1e-4 total_steps=20 pct_start=1",
            "OneCycleLR max_lr=1e-4 total_steps=20 pct_start=0.05",
            "OneCycleLR max_lr=1e-4 total_steps=20 div_factor=0",
            "OneCycleLR max_lr=[1e-4] total_steps=20 --network_args loraplus_lr_ratio=4",
        )
    ),
]

WORKS = [
    "--optimizer_args betas=0.9,0.99 weight_decay=0.01 eps=1e-8 amsgrad=True",
    *(f"--lr_scheduler {name}" for name in ("constant", "linear", "cosine", "REX", "inverse_sqrt")),
    *(f"--lr_scheduler {name}" for name in ("constant_with_warmup", "cosine_with_restarts")),
    "--lr_scheduler cosine --lr_warmup_steps 10% --lr_scheduler_args num_cycles=1",
    "--lr_scheduler polynomial --lr_scheduler_power 2 --lr_scheduler_args lr_end=1e-6",
    "--lr_scheduler cosine_with_min_lr --lr_scheduler_min_lr_ratio 0.1",
    "--lr_scheduler cosine_with_min_lr --lr_scheduler_args min_lr=1e-6",
    "--lr_scheduler warmup_stable_decay --lr_warmup_steps 10% --lr_decay_steps 20% "
    "--lr_scheduler_args \"decay_type='1-sqrt'\"",
    "--lr_scheduler piecewise_constant --lr_scheduler_args \"step_rules='1:10,0.1'\"",
    "--lr_scheduler rex --lr_scheduler_args rex_alpha=0.2 --lr_scheduler_min_lr_ratio 0",
    "--lr_scheduler_type StepLR --lr_scheduler_args step_size=10",
    "--lr_scheduler_type torch.optim.lr_scheduler.ConstantLR",
    "--lr_scheduler_type OneCycleLR --lr_scheduler_args max_lr=1e-4 total_steps=200",
    "--lr_scheduler_type OneCycleLR --lr_scheduler_args max_lr=1e-4 epochs=2 steps_per_epoch=50",
    "--lr_scheduler_type CyclicLR --lr_scheduler_args base_lr=1e-5 max_lr=1e-4",
    "--lr_scheduler_type CosineAnnealingLR --lr_scheduler_args T_max=10",
    "--lr_scheduler_type CosineAnnealingWarmRestarts --lr_scheduler_args T_0=10",
    "--lr_scheduler_type ExponentialLR --lr_scheduler_args gamma=0.9",
    "--lr_scheduler_type MultiStepLR --lr_scheduler_args milestones=[10,20]",
    "--network_args rank_dropout=0.1 module_dropout=0.1 \"exclude_patterns=['.*img.*']\"",
    "--network_args loraplus_lr_ratio=4 verbose=True foo=1 conv_dim=4",
    "--network_module networks.loha --network_dropout 0.1",
    "--network_module networks.lokr --network_args factor=8",
    "--network_module musubi_tuner.networks.lora_qwen_image --network_dropout 0.99",
    "--max_data_loader_n_workers 0",
    "--metadata_reso 1024",
    "--vae_dtype fp16",
    "--fp8_base --fp8_scaled",
    "--block_swap_h2d_only",
    "--gradient_accumulation_steps 4",
    "--gradient_checkpointing --gradient_checkpointing_cpu_offload --split_attn",
    "--compile --compile_backend eager",
    "--timestep_sampling sigma --weighting_scheme mode --mode_scale 1.29",
    "--timestep_sampling logsnr --num_timestep_buckets 5",
    "--scale_weight_norms 1 --save_state --save_every_n_steps 2 --save_last_n_steps_state 2",
    "--log_tracker_config good.toml",
    "--network_weights here.safetensors",
    "--network_weights other_names.safetensors",
    "--network_weights loha.safetensors",
    "--base_weights here.safetensors other_rank.safetensors renamed.bin",
    "--base_weights here.safetensors --base_weights_multiplier 1 2 3",
    "--base_weights other_names.safetensors",
    "--base_weights here.safetensors --network_module networks.loha",
    "--resume run-state",
    "--resume run-state --lr_scheduler cosine",
    "--optimizer_args foreach=False fused=True amsgrad=True eps=0 weight_decay=0",
    "--optimizer_args amsgrad=1 maximize=0",
    "--optimizer_args differentiable=False foreach=None betas=0.0,0.9",
    "--optimizer_args betas=[0.9,0.99]",
    "--lr_scheduler_args last_epoch=-1",
    "--lr_scheduler polynomial --lr_warmup_steps 11",
    "--lr_scheduler rex --lr_warmup_steps 10",
    "--lr_scheduler rex --lr_scheduler_args rex_alpha=0 last_epoch=3",
    "--lr_scheduler rex --lr_scheduler_args rex_alpha=1 rex_beta=-0.9",
    "--lr_scheduler cosine_with_min_lr --lr_scheduler_min_lr_ratio 0 "
    "--lr_scheduler_args min_lr=None",
    "--lr_scheduler polynomial --lr_scheduler_args lr_end=0",
    "--lr_scheduler_type OneCycleLR --lr_scheduler_args max_lr=1e-4 total_steps=2",
    "--lr_scheduler_type OneCycleLR --lr_scheduler_args total_steps=None max_lr=1e-4 epochs=2 "
    "steps_per_epoch=5 pct_start=0.0 three_phase=True \"anneal_strategy='linear'\"",
    "--lr_scheduler_type OneCycleLR --lr_scheduler_args max_lr=[1e-4,1e-5] total_steps=20 "
    "--network_args loraplus_lr_ratio=4",
    "--lr_scheduler_type CyclicLR --lr_scheduler_args base_lr=[1e-5] max_lr=1e-4 step_size_up=2.5 "
    "step_size_down=0 \"mode='exp_range'\" gamma=0.9 scale_fn=None \"scale_mode='cycle'\"",
    "--lr_scheduler_type MultiStepLR --lr_scheduler_args milestones=3,4.0 gamma=0",
    "--lr_scheduler_type CosineAnnealingLR --lr_scheduler_args T_max=2.5 eta_min=1e-6",
    "--lr_scheduler_type CosineAnnealingLR --lr_scheduler_args T_max=1",
    "--lr_scheduler_type CosineAnnealingWarmRestarts --lr_scheduler_args T_0=1 T_mult=2",
    "--lr_scheduler_type PolynomialLR --lr_scheduler_args total_iters=3 power=0",
    "--lr_scheduler_type LinearLR --lr_scheduler_args total_iters=0 end_factor=0",
    "--lr_scheduler_type musubi_tuner.modules.lr_schedulers.RexLR --lr_scheduler_args max_lr=1e-4 "
    "min_lr=1e-6 num_steps=10",
    "--network_args \"exclude_patterns=['.*']\" \"include_patterns=('.*attn.*',)\"",
    "--network_args \"exclude_patterns=['transformer_blocks']\"",
    "--network_args \"include_patterns=['nothing']\"",
    "--network_module networks.loha --network_args rank_dropout=0.1 module_dropout=0.1",
]

ADAFACTOR_FAILS = [
    "--lr_warmup_steps 5",
    "--optimizer_args relative_step=False --lr_scheduler adafactor",
    "--optimizer_args relative_step=False --lr_scheduler adafactor:1.2.3",
    "--optimizer_args relative_step=False --lr_scheduler adafactor:0.1 --lr_warmup_steps 5",
    "--optimizer_args relative_step=False warmup_init=True --lr_warmup_steps 5",
    "--optimizer_args betas=0.9,0.99",
    "--optimizer_args eps=1e-8",
    "--optimizer_args relative_step=False eps=1e-8",
    "--optimizer_args eps=None,1e-3",
    "--optimizer_args \"eps=('a','b')\"",
    "--optimizer_args clip_threshold=None",
    "--optimizer_args \"decay_rate='x'\"",
    "--optimizer_args decay_rate=1000",
    "--optimizer_args \"beta1='x'\"",
    "--optimizer_args weight_decay=None",
    "--lr_scheduler_type CyclicLR --lr_scheduler_args base_lr=1e-5 max_lr=1e-4",
    "--lr_scheduler_type OneCycleLR --lr_scheduler_args max_lr=1e-4 total_steps=20",
]
ADAFACTOR_WORKS = [
    "",
    "--lr_scheduler cosine",
    "--lr_scheduler adafactor",
    "--optimizer_args relative_step=False --lr_scheduler constant_with_warmup --lr_warmup_steps 5",
    "--optimizer_args relative_step=False scale_parameter=False weight_decay=0.01",
    "--optimizer_args relative_step=False --lr_scheduler adafactor:0.1",
    "--optimizer_args eps=[1e-30,1e-3] clip_threshold=0.5 decay_rate=-0.5 beta1=0.9",
    "--optimizer_args eps=0,0 decay_rate=0 beta1=None warmup_init=True",
    "--lr_scheduler_type CyclicLR --lr_scheduler_args base_lr=1e-5 max_lr=1e-4 "
    "cycle_momentum=False",
    "--lr_scheduler_type StepLR --lr_scheduler_args step_size=3",
]

EIGHT_BITS_FAIL = [
    "--optimizer_args eps=-1",
    "--optimizer_args eps=None",
    "--optimizer_args \"weight_decay='x'\"",
    "--optimizer_args betas=0.9",
    "--optimizer_args amsgrad=True",
    "--optimizer_args optim_bits=8",
    "--optimizer_args args={}",
    "--optimizer_args min_8bit_size=None",
    "--optimizer_args fused=True",
]
EIGHT_BITS_WORK = [
    "",
    "--optimizer_args betas=0,0.99 eps=0 weight_decay=0 amsgrad=False optim_bits=32 args=None",
    "--optimizer_args min_8bit_size=0 is_paged=False",
    "--lr_scheduler_type CyclicLR --lr_scheduler_args base_lr=1e-5 max_lr=1e-4",
    "--network_args loraplus_lr_ratio=4",
]


@pytest.mark.parametrize(
    ("optimizer", "fails", "works"),
    [
        ("AdamW", FAILS, WORKS),
        ("Adafactor", ADAFACTOR_FAILS, ADAFACTOR_WORKS),
        ("AdamW8bit", EIGHT_BITS_FAIL, EIGHT_BITS_WORK),
    ],
)
def test_what_is_refused_really_fails_and_what_is_taken_works(
    trainer, tmp_path, optimizer, fails, works
):
    if optimizer == "AdamW8bit" and not has(trainer, "bitsandbytes"):
        pytest.skip("Musubi's environment has no bitsandbytes")
    fill(trainer, tmp_path)
    told = ask(trainer, fails + works, tmp_path, optimizer)
    chosen = {**settings.defaults(), "optimizer_type": optimizer, "lora_rank": RANK}
    differ = []
    for line, said in zip(fails + works, told, strict=True):
        found = flags.read(line, options.recorded(), chosen, tmp_path)
        late = flags.beside_steps(found.values, chosen, STEPS)
        errors = [str(error) for error in [*found.errors, *late]]
        if not bool(said) == bool(errors) == (line in fails):
            differ.append((line, said, errors))
    assert differ == []


def has(trainer: musubi.Trainer, package: str) -> bool:
    """Tell whether Musubi's environment has a package."""
    return subprocess.run([trainer.python, "-c", f"import {package}"]).returncode == 0


def fill(trainer: musubi.Trainer, folder: Path) -> None:
    """The files the lines name, and states the trainer itself has saved."""
    weights.fill(folder, RANK)
    lines = ["--save_state_on_train_end", f"--save_state_on_train_end --network_dim {RANK * 2}"]
    for state, line in zip(("run-state", "other_rank-state"), lines, strict=True):
        assert ask(trainer, [line], folder, "AdamW") == [None]
        (folder / "x-state").rename(folder / state)
    for name in ("optimizer", "scheduler"):
        shutil.copytree(folder / "run-state", folder / f"no_{name}-state")
        (folder / f"no_{name}-state/{name}.bin").unlink()


def test_steps_and_shares_are_read_as_musubi_reads_them(trainer):
    texts = ["10", "0.1", "10%", "1.0", "1e3", "0", "-5", "1.5", "150%", "x", "", "%", "1%%"]
    code = (
        "import argparse, json, sys\n"
        "from musubi_tuner.training.parser_common import _int_or_float\n"
        "for text in json.load(sys.stdin):\n"
        "    try: print(repr(_int_or_float(text)))\n"
        "    except argparse.ArgumentTypeError: print('refused')\n"
    )
    ended = subprocess.run(
        [trainer.python, "-c", code],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(trainer.source)},
    )

    def ours(text: str) -> str:
        try:
            return repr(options.steps_or_share(text))
        except ValueError:
            return "refused"

    assert ended.stdout.split("\n")[:-1] == list(map(ours, texts)), ended.stderr[-2000:]
