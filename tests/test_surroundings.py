"""Whether the machine can take a run, on machines of all kinds."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest
from test_estimate import load

from musubitlx import estimate, flags, musubi, options, presets, surroundings
from musubitlx.errors import Invalid, Offer
from musubitlx.estimate import GB
from musubitlx.measured import Measured
from musubitlx.surroundings import Machine, Way, disk, packages, ram, tokenizer

SAFE = load(fp8=True, blocks=45, cpu_offload=True, h2d_only=True)


def machine(
    gb=24.0, used=0.5, ram_gb=64.0, ram_used=4.0, free=500e9, busy=False, **card
) -> Machine:
    cards = [
        {"index": 0, "name": "RTX 4090", "used": int(used * GB), "total": int(gb * GB), **card}
    ]
    memory = {
        "ram": {"total": int(ram_gb * GB), "used": int(ram_used * GB), "limit": "machine"},
        "gpus": cards if gb else [],
        "gpu_reason": None if gb else "No NVIDIA driver was found: no VRAM figures.",
        "disk": {"free": None if free is None else int(free), "total": int(1e12)},
    }
    return Machine(memory, busy)


def under(one, profile: presets.Profile):
    """The same run with the flags of a profile."""
    return one.with_flags(flags.read(profile.flags, options.recorded()).values)


def vram(machine, one, known):
    def ways():
        for profile in presets.PROFILES:
            settings = {"vram_profile": profile.id, "advanced_flags": None}
            yield Way(profile, settings, under(one, profile))

    return surroundings.vram(machine, one, known, ways)


def said(found) -> str:
    return " ".join(f"{one} {one.hint or ''}" for one in found)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in ("CUDA_VISIBLE_DEVICES", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    surroundings.hub_answers.cache_clear()


# -- VRAM ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gb", "profile"), [(11.6, "12"), (24, "24"), (48, "24+"), (20, "16")])
def test_the_profile_a_card_begins_with_is_not_warned_of(gb, profile):
    one = under(load(optimizer="AdamW"), presets.BY_ID[profile])
    assert presets.for_vram(int(gb * GB)).id == profile
    assert list(vram(machine(gb), one, None)) == []


def test_the_larger_ranks_of_recipes_fit_the_card_s_own_profile_too():
    for gb, profile in ((12, "12"), (24, "24")):
        one = under(load(optimizer="AdamW", rank=32), presets.BY_ID[profile])
        assert list(vram(machine(gb), one, None)) == []
    assert list(vram(machine(40), load(), None))  # bf16 weights alone fill it


def test_the_fastest_profile_on_a_smaller_card_is_warned_of_with_the_balanced_one():
    (warning,) = vram(machine(24), load(), None)
    assert "42 GB of VRAM" in str(warning) and "has 24 GB" in str(warning)
    assert isinstance(warning, Offer)
    assert warning.as_dict()["fix"] == {
        "label": "Use 24 GB – balanced",
        "settings": {"vram_profile": "24", "advanced_flags": None},
    }


def test_what_no_profile_makes_fit_is_offered_smaller():
    (warning,) = vram(machine(12), replace(SAFE, pixels=2048 * 2048, batch=2), None)
    fix = warning.as_dict()["fix"]["settings"]
    assert fix["vram_profile"] == "12" and fix["batch_size"] == 1
    side = int(fix["resolution"].split("x")[0])
    smaller = replace(SAFE, pixels=side * side)
    assert estimate.vram_gb(smaller) <= 12 * surroundings.SLACK[True]


def test_what_nothing_makes_fit_is_a_warning_without_a_button():
    (warning,) = vram(machine(6), load(rank=512, optimizer="AdamW"), None)
    assert not isinstance(warning, Offer) and warning.hint


def test_a_measured_need_goes_before_the_table():
    assert list(vram(machine(24), load(), Measured(20 * GB, True))) == []
    (warning,) = vram(machine(24), SAFE, Measured(26 * GB, True))
    assert "an earlier run" in str(warning)
    assert "resolution" in warning.settings  # no profile fits, whatever the table says


def test_a_program_that_holds_the_card_is_named():
    holders = [{"pid": 77, "name": "python3", "used": 16 * GB}]
    (warning,) = vram(machine(24, used=16, processes=holders), SAFE, None)
    assert "python3 (process 77) holds 16.0 GB" in str(warning) and "End it" in warning.hint
    (warning,) = vram(machine(24, used=4), SAFE, None)
    assert "Another program holds 4.0 GB" in str(warning) and "room for both" in warning.hint
    assert list(vram(machine(24, used=1), SAFE, None)) == []


def test_a_run_of_ours_under_way_says_nothing_about_later():
    assert list(vram(machine(24, used=20, busy=True), SAFE, None)) == []
    assert list(ram(machine(ram_used=60, busy=True), SAFE)) == []


def test_without_a_card_there_is_a_warning_with_the_reason():
    (warning,) = vram(machine(0), SAFE, None)
    assert "No NVIDIA driver" in str(warning) and not isinstance(warning, Invalid)


def test_the_second_card_is_looked_at_when_it_is_the_one_that_is_visible(monkeypatch):
    two = machine(24)
    two.memory["gpus"].append({"index": 1, "name": "small", "used": 0, "total": 8 * GB})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert two.gpu_name == "small" and "small" in said(vram(two, SAFE, None))


def test_the_practice_trainer_needs_no_card():
    practice = load(practice=True)
    assert list(vram(machine(0), practice, None)) == list(ram(machine(), practice)) == []


# -- RAM and disk ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "used", "words"),
    [(16, 2, "this machine has 16 GB"), (32, 20, "12 GB are free"), (32, 2, "advises 64 GB")],
)
def test_too_little_main_memory_is_a_warning(total, used, words):
    (warning,) = ram(machine(ram_gb=total, ram_used=used), SAFE)
    assert words in str(warning) and not isinstance(warning, Invalid)


def test_enough_main_memory_is_no_word():
    assert list(ram(machine(ram_gb=64), SAFE)) == []
    assert list(ram(machine(ram_gb=32), load(fp8=True))) == []


def test_a_disk_that_cannot_hold_the_checkpoints_is_an_error():
    needed = {"all": 3_000_000_000, "lora": 295_000_000, "files": 10, "states": 0}
    (error,) = disk(machine(free=2e9), needed)
    assert isinstance(error, Invalid) and error.field == "epochs"
    assert "3.0 GB" in str(error) and "10 LoRA files of 295 MB" in str(error)
    assert "2.0 GB free" in str(error)
    assert list(disk(machine(free=4e9), needed)) == []
    assert list(disk(machine(free=None), needed)) == []


# -- packages and tokenizer ------------------------------------------------------------------------


@pytest.fixture
def real(home):
    practice = musubi.find(home, practice=True)
    return replace(practice, practice=False, python="/opt/python")


@pytest.mark.parametrize(
    ("optimizer", "flags", "package", "field"),
    [
        ("AdamW8bit", {}, "bitsandbytes", "optimizer_type"),
        ("AdamW", {"--xformers": True}, "xformers", "advanced_flags"),
        ("AdamW", {"--log_with": "tensorboard"}, "tensorboard", "advanced_flags"),
        ("AdamW", {"--log_with": "all"}, "tensorboard", "advanced_flags"),
        ("AdamW", {"--log_with": "all"}, "wandb", "advanced_flags"),
        ("AdamW", {"--log_with": "wandb"}, "wandb", "advanced_flags"),
    ],
)
def test_a_package_that_is_needed_and_missing_is_told_with_its_line(
    real, monkeypatch, optimizer, flags, package, field
):
    monkeypatch.setattr(musubi, "lacks", lambda trainer, name: name == package)
    (error,) = packages(real, optimizer, flags)
    assert error.field == field and package in str(error)
    assert f"/opt/python -m pip install {package}" in error.hint
    monkeypatch.setattr(musubi, "lacks", lambda trainer, name: False)
    assert list(packages(real, optimizer, flags)) == []
    assert list(packages(replace(real, practice=True), optimizer, flags)) == []


def test_a_real_interpreter_is_asked_for_its_packages(real):
    import sys

    ours = replace(real, python=sys.executable)
    assert musubi.lacks(ours, "xformers")
    assert not musubi.lacks(ours, "safetensors")
    assert not musubi.lacks(replace(ours, python="/no/such/python"), "xformers")  # not known


def hub(tmp_path: Path, *, offline=False, there=False) -> dict:
    if there:
        folder = tmp_path / "models--Qwen--Qwen-Image" / "snapshots" / "abc" / "tokenizer"
        folder.mkdir(parents=True)
        (folder / "vocab.json").write_text("{}")
    return {"cache": str(tmp_path), "offline": offline}


def test_a_cached_tokenizer_is_no_word(real, tmp_path):
    assert list(tokenizer(real, hub(tmp_path, there=True, offline=True), ask=True)) == []


def test_no_tokenizer_and_no_way_to_get_it_is_an_error_that_says_how(real, tmp_path, monkeypatch):
    (error,) = tokenizer(real, hub(tmp_path, offline=True), ask=False)
    assert isinstance(error, Invalid) and "HF_HUB_OFFLINE" in str(error)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        (error,) = tokenizer(real, hub(tmp_path), ask=True)
    assert isinstance(error, Invalid) and "can't be reached" in str(error)
    assert "Qwen/Qwen-Image" in error.hint and str(tmp_path) in error.hint


def test_a_hub_that_answers_is_enough(real, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert list(tokenizer(real, hub(tmp_path), ask=True)) == []


def test_before_the_start_nothing_is_asked_of_the_network(real, tmp_path, monkeypatch):
    monkeypatch.setattr(surroundings, "hub_answers", lambda now: pytest.fail("asked"))
    (warning,) = tokenizer(real, hub(tmp_path), ask=False)
    assert not isinstance(warning, Invalid) and "downloads the tokenizer" in str(warning)
    assert list(tokenizer(real, None, ask=True)) == []


@pytest.mark.parametrize("endpoint", ["http://", "https://[::", "nonsense", "http://x:99999"])
def test_an_odd_endpoint_is_said_to_be_one(real, tmp_path, monkeypatch, endpoint):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    (error,) = tokenizer(real, hub(tmp_path), ask=True)
    assert isinstance(error, Invalid) and error.field == "musubi"
    assert "HF_ENDPOINT is not the address" in str(error)


@pytest.mark.parametrize(
    ("proxies", "answers"),
    [({"http": "http://p"}, True), ({"all": "http://p"}, True), ({"https": "http://p"}, False)],
)
def test_a_proxy_that_leads_to_the_hub_counts_as_an_answer(monkeypatch, proxies, answers):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(surroundings.request, "getproxies", lambda: proxies)  # as of the system
    monkeypatch.setattr(surroundings.request, "proxy_bypass", lambda host: False)
    assert surroundings.hub_answers(0) is answers


def test_a_proxy_that_the_hub_is_excluded_from_does_not_count(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://p")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert surroundings.hub_answers(0) is False
