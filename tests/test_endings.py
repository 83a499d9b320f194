"""How runs end, through the real runner: the real program's logs replayed, a loss of NaN."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
from replays import LOGS, has_logs, replay_plan, stage_of
from support import bare_plan

from musubitlx import settings
from musubitlx.diagnose import TOLD_CHARACTERS, TOLD_LINES
from musubitlx.execution import Execution
from musubitlx.jobs import Job, Jobs, Stage


def run_here(home, plan) -> Job:
    """Run a job to its end by the runner's own code, in this process."""
    jobs = Jobs(home)
    jobs.wake_runner = lambda queue: None
    job = jobs.submit(plan)
    Execution(home, job, threading.Event()).run()
    return Job(job.folder)


# -- the real program's logs -----------------------------------------------------------------------

# log, how the run ended, step, epoch, loss, diagnosis
TABLE = """
latents                                       succeeded  4/4    -      -     -
latents_edit                                  succeeded  4/4    -      -     -
latents_error_corrupt_image                   failed     1/2    -      -     unreadable_image
latents_error_missing_vae                     failed     -      -      -     missing_model_file
latents_error_no_caption_extension            failed     0/4    -      -     no_caption_extension
latents_error_sigterm                         failed     1/4    -      -     terminated
latents_error_toml_syntax                     failed     -      -      -     bad_dataset_file
latents_error_unknown_toml_key                failed     -      -      -     bad_dataset_file
latents_error_wrong_file_as_vae               failed     -      -      -     wrong_model_file
latents_missing_image_dir                     failed     -      -      -     no_images
latents_no_captions                           failed     -      -      -     no_images
latents_removed_image                         succeeded  3/3    -      -     -
latents_skip_existing                         succeeded  4/4    -      -     -
textencoder                                   succeeded  4/4    -      -     -
textencoder_error_missing_file                failed     -      -      -     missing_model_file
textencoder_error_tokenizer_offline           failed     -      -      -     tokenizer_offline
textencoder_fp8_vl                            succeeded  4/4    -      -     -
textencoder_skip_existing                     succeeded  4/4    -      -     -
train                                         succeeded  8/8    2/2    2.14  -
train_accelerate_launch                       succeeded  2/2    1/1    2.29  -
train_buffered_stdout                         succeeded  2/2    1/1    2.29  -
train_error_accelerate_launch                 failed     -      -      -     missing_model_file
train_error_accelerate_sigterm                failed     40/40  10/10  2.05  terminated
train_error_bad_choice                        failed     -      -      -     bad_option
train_error_bad_dataset_path                  failed     -      -      -     missing_file
train_error_bad_network_module                failed     -      -      -     bad_network_module
train_error_bad_optimizer                     failed     -      -      -     bad_optimizer
train_error_bad_scheduler                     failed     -      -      -     bad_scheduler
train_error_blocks_to_swap_too_many           failed     -      -      -     too_many_blocks_swapped
train_error_brackets_in_cache_dir             failed     -      -      -     brackets_in_path
train_error_constant_with_warmup_steps        failed     -      -      -     bad_scheduler
train_error_cp1252_stdout                     failed     -      -      -     unicode_output
train_error_default_optimizer                 failed     -      -      -     bad_optimizer
train_error_dim_from_weights                  failed     -      -      -     dim_from_weights
train_error_fp8_scaled_without_base           failed     -      -      -     fp8_scaled_without_base
train_error_missing_dit                       failed     -      -      -     missing_model_file
train_error_missing_prompts_file              failed     -      -      -     missing_file
train_error_missing_text_encoder_for_sampling failed     -      -      -     missing_model_file
train_error_no_attention                      failed     -      -      -     no_attention
train_error_no_cache                          failed     -      -      -     no_training_items
train_error_no_output_dir                     failed     2/2    1/1    2.29  no_output_dir
train_error_no_output_name                    failed     8/8    2/2    2.2   no_output_name
train_error_oom                               failed     2/6    1/2    2.29  gpu_out_of_memory
train_error_optimizer_8bit_missing            failed     -      -      -     bitsandbytes_missing
train_error_persistent_workers_zero           failed     -      -      -     workers_zero
train_error_resume_missing                    failed     -      -      -     missing_state
train_error_sigint                            failed     2/40   1/10   2.29  interrupted
train_error_sigterm                           failed     2/40   1/10   2.29  terminated
train_error_unknown_flag                      failed     -      -      -     unknown_option
train_fp8                                     succeeded  2/2    1/1    2.3   -
train_lokr                                    succeeded  2/2    1/1    2.22  -
train_network_weights                         succeeded  2/2    1/1    2.29  -
train_resume                                  succeeded  12/12  3/3    2.19  -
train_steps                                   succeeded  6/6    2/2    2.18  -
train_workers_zero                            succeeded  2/2    1/1    2.29  -
"""
REPLAYED = {name: rest for name, *rest in map(str.split, TABLE.strip().splitlines())}
BUTTONS = {  # what the button of each says, for a run with the safest profile
    "bad_dataset_file": None,
    "bad_network_module": "Show the flags",
    "bad_optimizer": "Start again with AdamW",
    "bad_option": "Show the flags",
    "bad_scheduler": "Show the flags",
    "bitsandbytes_missing": "Start again with AdamW",
    "brackets_in_path": None,
    "dim_from_weights": "Start again without --dim_from_weights",
    "fp8_scaled_without_base": "Start again with --fp8_base",
    "gpu_out_of_memory": "Start again at 896x896 px",
    "interrupted": "Start again",
    "missing_file": "Put these settings into the form",
    "missing_model_file": "Show the model file",
    "missing_state": "Start again without --resume",
    "no_attention": "Start again with --sdpa",
    "no_caption_extension": None,
    "no_images": "Show the images",
    "no_output_dir": None,
    "no_output_name": None,
    "no_training_items": "Show the images",
    "terminated": "Start again",
    "tokenizer_offline": "Start again",
    "too_many_blocks_swapped": "Start again with 45 blocks swapped",
    "unicode_output": None,
    "unknown_option": None,
    "unreadable_image": "Show the images",
    "workers_zero": "Start again with one data loader worker",
    "wrong_model_file": "Show the model file",
}


def replay(home, name: str) -> Job:
    """A run that prints this log and ends as it did."""
    return run_here(home, replay_plan(home, name))


def shown(*numbers: float | None) -> str:
    """Numbers as in the table."""
    return "-" if None in numbers else "/".join(map(str, numbers))


@has_logs
@pytest.mark.parametrize("name", REPLAYED)
def test_a_replayed_log_shows_its_phase_progress_loss_end_and_diagnosis(home, name):
    told = replay(home, name).as_dict()
    state, step, epoch, loss, code = REPLAYED[name]
    assert told["state"] == state
    assert told["stage"]["name"] == stage_of(name)
    progress, found = told["progress"], told["diagnosis"]
    assert shown(progress["step"], progress["total"]) == step
    assert shown(progress["epoch"], progress["epochs"]) == epoch
    assert shown(progress["loss"]) == loss
    assert (found["id"] if found else "-") == code
    assert (found and found["fix"] and found["fix"]["label"]) == BUTTONS.get(code)
    if found:
        assert told["reason"] and told["hint"]
        assert 0 < len(found["lines"]) <= TOLD_LINES
        assert all(0 < len(line) <= TOLD_CHARACTERS for line in found["lines"])
        assert not any("usage:" in line or "sageattention" in line for line in found["lines"])


@has_logs
def test_every_log_is_replayed():
    assert {path.stem for path in LOGS.glob("*.log")} == set(REPLAYED)


@has_logs
def test_the_lines_that_tell_end_with_the_error_and_name_where_it_came_from(home):
    lines = replay(home, "train_error_oom").as_dict()["diagnosis"]["lines"]
    assert lines[-1].startswith("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 288")
    assert any("in _run_training_loop" in line for line in lines)
    assert any(line.startswith("steps:  33%") and "2/6" in line for line in lines)
    (usage,) = replay(home, "train_error_bad_choice").as_dict()["diagnosis"]["lines"]
    assert "error: argument --mixed_precision: invalid choice: 'fp32'" in usage


def test_an_earlier_stage_is_not_taken_for_the_cause(home):
    failing = "import sys; print('Traceback (most recent call last):\\n  x\\nValueError: old')"
    plan = bare_plan(home, [sys.executable, "-c", failing])
    later = Stage("train", "Training", [sys.executable, "-c", "raise SystemExit(7)"], "/")
    plan.stages.append(later)
    told = run_here(home, plan).as_dict()
    assert told["reason"] == "Training ended with exit code 7." and told["diagnosis"] is None


# -- a loss that is no number ----------------------------------------------------------------------

DRAW = """
import sys, time
for step, loss in enumerate(sys.argv[1:], 1):
    sys.stderr.write(f"\\rsteps: 1%|#| {step}/9 [00:02<00:04,  2.00s/it, avr_loss={loss}]")
    sys.stderr.flush()
    time.sleep(0.3)
"""


def draws(home, *losses: str) -> Job:
    given = settings.parse({"output_dir": "bare", "learning_rate": 1e-4})
    return run_here(home, bare_plan(home, [sys.executable, "-c", DRAW, *losses], settings=given))


def test_nan_several_times_in_a_row_is_warned_of_and_said_in_the_log_once(home):
    job = draws(home, "2.1", "nan", "nan", "nan", "nan", "nan", "nan")
    warning = job.as_dict()["warning"]
    assert warning["id"] == "nan_loss" and "since step 2" in warning["text"]
    assert warning["fix"]["settings"] == {"learning_rate": 5e-5} and warning["hint"]
    assert Path(job.log).read_text().count("WARNING: The loss is NaN since step 2") == 1


@pytest.mark.parametrize("losses", [("2", "nan", "nan", "2"), ("nan", "2", "nan", "2", "nan")])
def test_nan_now_and_then_is_no_alarm(home, losses):
    job = draws(home, *losses)
    assert job.as_dict()["warning"] is None and "WARNING" not in Path(job.log).read_text()


def test_a_warning_goes_when_the_loss_is_a_number_again(home):
    job = draws(home, "nan", "nan", "nan", "nan", "2.0", "1.9")
    assert job.as_dict()["warning"] is None
    assert Path(job.log).read_text().count("WARNING: The loss is NaN since step 1") == 1
