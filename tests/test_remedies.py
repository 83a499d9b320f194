"""What puts a failed run right: only what must change, and what was typed by hand stays."""

from __future__ import annotations

import pytest

from musubitlx import flags, remedies, settings
from musubitlx.diagnose import Diagnosis
from musubitlx.known_errors import ERRORS, SILENT
from musubitlx.measured import Load
from musubitlx.options import recorded
from musubitlx.remedies import Run
from musubitlx.settings import ROWS

GB = 1024**3


def run(stage: str = "train", *, vram: int | None = None, **changed) -> Run:
    """A training with these settings, its load as its flags make it."""
    given = settings.parse({"output_dir": "ball", **changed})
    bare = Load(False, 1024 * 1024, given["batch_size"], 16, "AdamW")
    one = Run(given, bare, stage, ["python", "x.py"], recorded(), vram)
    values = flags.read(one.line, recorded()).values
    return Run(given, bare.with_flags(values), stage, one.argv, recorded(), vram)


def way(code: str, failed: Run, **names):
    return remedies.fix(Diagnosis(code, "", "", names.pop("evidence", ""), names), failed)


@pytest.mark.parametrize(("before", "after"), [("24+", "24"), ("24", "16"), ("16", "12")])
def test_out_of_memory_takes_the_next_smaller_profile(before, after):
    found = way("gpu_out_of_memory", run(vram_profile=before))
    assert found.settings == {"vram_profile": after, "advanced_flags": None}
    assert found.starts and found.label == f"Start again with the {after} GB profile"


def test_flags_that_are_not_about_memory_stay_with_a_smaller_profile():
    own = "--fp8_base --fp8_scaled --blocks_to_swap 20 --gradient_checkpointing --max_grad_norm 0.5"
    found = way("gpu_out_of_memory", run(vram_profile="24", advanced_flags=own))
    read = flags.read(found.settings["advanced_flags"], recorded())
    assert found.settings["vram_profile"] == "16" and read.get("--blocks_to_swap") == 30
    assert read.get("--max_grad_norm") == 0.5 and not read.errors


def test_own_flags_that_swap_more_than_the_profile_are_not_made_worse():
    own = "--fp8_base --fp8_scaled --blocks_to_swap 44 --gradient_checkpointing"
    found = way("gpu_out_of_memory", run(vram_profile="24+", advanced_flags=own))
    read = flags.read(found.settings.get("advanced_flags") or "", recorded())
    assert found.settings.get("vram_profile") in (None, "12")
    assert read.get("--blocks_to_swap", 45) >= 44


def test_with_the_safest_profile_batch_and_then_resolution_come_down():
    found = way("gpu_out_of_memory", run(vram_profile="12", batch_size=4))
    assert found.settings == {"batch_size": 2}
    found = way("gpu_out_of_memory", run(vram_profile="12"))
    assert found.settings == {"resolution": "896x896"}
    assert way("gpu_out_of_memory", run(vram_profile="12", resolution="512x512")) is None


def test_out_of_memory_while_caching_changes_what_caching_needs():
    assert way("gpu_out_of_memory", run("latents", vram_profile="24")).settings == {
        "resolution": "896x896"
    }
    found = way("gpu_out_of_memory", run("text_encoder", vram_profile="24"))
    assert found.settings["vram_profile"] == "16"  # the first with the text encoder in fp8
    assert way("gpu_out_of_memory", run("text_encoder", vram_profile="16")) is None


def test_killed_for_ram_swaps_fewer_blocks_where_the_card_has_room_for_that():
    found = way("killed", run(vram_profile="12", vram=24 * GB))
    assert found.settings["vram_profile"] == "16" and found.starts
    for vram in (12 * GB, None):
        found = way("killed", run(vram_profile="12", vram=vram))
        assert found.settings == {} and not found.starts


def test_nan_halves_the_learning_rate():
    found = way("nan_loss", run(learning_rate=5e-5))
    assert found.settings == {"learning_rate": 2.5e-5} and "2.5e-5" in found.label
    assert remedies.of_nan({}) is None and remedies.of_nan(None) is None


def test_an_unknown_option_is_taken_out_with_its_value():
    failed = run(advanced_flags="--nope 7 --max_grad_norm 1.0 --odd=3")
    found = way("unknown_option", failed, name="--nope 7 --odd=3")
    assert found.settings == {"advanced_flags": "--max_grad_norm 1.0"}
    assert found.label == "Start again without --nope, --odd"
    assert way("unknown_option", run(), name="--fp8_base") is None  # nobody typed it
    assert way("unknown_option", failed, name="--other") is None


def test_attention_that_is_not_installed_gives_way_to_sdpa():
    failed = run(advanced_flags="--xformers --split_attn --max_grad_norm 1.0")
    found = way("attention_missing", failed)
    assert found.settings == {"advanced_flags": "--max_grad_norm 1.0 --sdpa"}


def test_the_tokenizer_is_needed_for_samples_only_once_texts_are_cached():
    asked = {"samples_enabled": True, "sample_prompt_text": "a ball"}
    assert way("tokenizer_offline", run(**asked)).settings == {"samples_enabled": False}
    assert way("tokenizer_offline", run("text_encoder", **asked)).settings == {}


@pytest.mark.parametrize(
    ("stage", "argv", "names", "model"),
    [
        ("latents", [], {}, "vae"),
        ("text_encoder", [], {}, "text_encoder"),
        ("train", [], {}, "dit"),
        ("train", ["--dit", "/m/a.st", "--vae", "/m/b.st"], {"name": "/m/b.st"}, "vae"),
        (
            "train",
            [],
            {"evidence": "Error(s) in loading state_dict for Qwen2_5_VL"},
            "text_encoder",
        ),
    ],
)
def test_a_missing_or_broken_model_leads_to_the_one_it_is(stage, argv, names, model):
    failed = run(stage)
    failed = Run(failed.settings, failed.load, stage, ["python", "x", *argv], recorded())
    found = way("missing_model_file", failed, **names)
    assert (found.field, found.starts) == (f"models.{model}", False)


def test_every_way_is_to_a_known_error_and_its_settings_are_usable():
    codes = {row.code for row in (*ERRORS, *SILENT)} | {"ram_full"}
    known = {row.name for row in ROWS}
    assert set(remedies.WAYS) <= codes | {"killed", "terminated", "crashed", "interrupted"}
    for code in remedies.WAYS:
        for profile in ("12", "24+"):
            failed = run(vram_profile=profile)
            found = way(code, failed, name="x")
            if found is None:
                continue
            assert set(found.settings) <= known
            settings.parse({**failed.settings, **found.settings})
            line = found.settings.get("advanced_flags")
            errors = flags.read(line, recorded(), failed.settings).errors if line else []
            assert not errors, (code, errors)


def test_settings_of_another_version_have_no_way_out_and_break_nothing():
    failed = run()
    for odd in (
        {},
        {**failed.settings, "vram_profile": "99"},
        {**failed.settings, "resolution": 7},
    ):
        other = Run(odd, failed.load, "train", [], recorded())
        for code in remedies.WAYS:
            way(code, other, name="--x")
