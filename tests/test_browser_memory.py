"""RAM and VRAM on the page, on a machine with several cards."""

from __future__ import annotations

import os
from pathlib import Path

from browsing import expect, needs_chromium

pytestmark = needs_chromium

NVML = str(Path(__file__).resolve().parent / "standins" / "nvml")


def test_each_card_is_shown_with_who_holds_its_memory(program, visit):
    env = {"PYTHONPATH": NVML, "STAND_IN_CARDS": "2", "STAND_IN_USED_GB": "23"}
    server = program("--practice", env={**env, "STAND_IN_PID": str(os.getpid())})
    page = visit(server.url)
    for index in range(2):
        meter = page.get_by_role("meter", name=f"VRAM {index}")
        expect(meter).to_have_attribute("aria-valuetext", "23.0 / 24.0 GB · 96 %")
        expect(meter).to_have_attribute("data-level", "danger")
    memory = page.get_by_role("region", name="RAM and VRAM")
    expect(memory).to_contain_text("NVIDIA GeForce RTX 4090 · 50 °C · 100 W")
    expect(memory.get_by_text(f"(process {os.getpid()}) 23.0 GB")).to_have_count(2)


def test_a_run_of_ours_is_called_so(program, visit):
    env = {"PYTHONPATH": NVML, "STAND_IN_USED_GB": "16", "MUSUBITLX_JOB": "mine"}
    page = visit(program("--practice", env=env).url)
    expect(page.get_by_text("Held by the run 16.0 GB", exact=True)).to_be_visible()


def test_without_a_card_it_says_why(live_server, visit):
    page = visit(live_server.url)
    meter = page.get_by_role("meter", name="VRAM")
    expect(meter).to_have_attribute("aria-valuetext", "unknown")
    expect(
        page.get_by_text("No NVIDIA driver was found: no VRAM figures.", exact=True)
    ).to_be_visible()
