"""How a run ends, on the page: what went wrong, the lines that tell it, and the way out."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from browsing import expect, needs_chromium
from support import SMALL, STANDINS, bare_plan

from musubitlx import settings
from musubitlx.home import Home
from musubitlx.jobs import Jobs

pytestmark = needs_chromium

BESIDE = Path(__file__).parents[2] / "shared/musubi/logs"
LOGS = Path(os.environ.get("MUSUBI_LOGS") or BESIDE)


def fail(server, **more) -> dict:
    job = server.post("/api/projects/ball/train", {"settings": {**SMALL, **more}})
    return server.wait_for(job["id"])


def card(page):
    return page.get_by_role("region", name="Training failed")


def test_out_of_memory_is_told_and_one_press_starts_again_with_a_smaller_profile(
    with_stand_in, visit
):
    server = with_stand_in(train="fails")
    first = fail(server, vram_profile="24", learning_rate="3e-5")
    assert first["state"] == "failed"
    page = visit(f"{server.url}/?project=ball")
    expect(card(page)).to_contain_text("The GPU's memory (VRAM) was not enough.")
    lines = card(page).get_by_role("region", name="From the log")
    expect(lines).to_contain_text("steps: 33%|###| 2/6".replace("steps: ", "steps:  "))
    expect(lines).to_contain_text("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate")
    page.get_by_label("Learning rate", exact=True).fill("9e-5")
    card(page).get_by_role("button", name="Start again with the 16 GB profile").click()
    page.wait_for_function(
        "fetch('/api/jobs').then((answer) => answer.json()).then((jobs) => jobs.length === 2)"
    )
    newest = server.get("/api/jobs")[0]["id"]
    taken = server.get(f"/api/jobs/{newest}/settings")["settings"]
    assert (taken["vram_profile"], taken["learning_rate"]) == ("16", 3e-5)
    page.get_by_role("button", name="Back to mine").click()
    expect(page.get_by_label("Learning rate", exact=True)).to_have_value("9e-5")


def test_what_stands_in_the_way_of_the_new_run_is_told(with_stand_in, visit):
    server = with_stand_in(train="fails")
    fail(server, vram_profile="16")
    for image in server.get("/api/projects/ball")["images"]:
        server.call("DELETE", f"/api/projects/ball/images/{image['name']}")
    page = visit(f"{server.url}/?project=ball")
    card(page).get_by_role("button", name="Start again with the 12 GB profile").click()
    expect(page.get_by_text("There are no training images in this folder yet.")).to_be_visible()
    assert len(server.get("/api/jobs")) == 1


def test_filling_the_form_only_starts_nothing_and_can_be_done_with_the_keyboard(
    with_stand_in, visit
):
    server = with_stand_in(train="fails")
    fail(server, vram_profile="16", epochs=3)
    page = visit(f"{server.url}/?project=ball")
    card(page).get_by_role("button", name="Only fill the form").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("VRAM profile")).to_have_value("12")
    expect(page.get_by_label("VRAM profile")).to_be_focused()
    expect(page.get_by_label("Epochs", exact=True)).to_have_value("3")
    assert len(server.get("/api/jobs")) == 1


def test_a_loss_that_is_nan_is_warned_of_at_once_and_half_the_rate_is_one_press_away(
    with_stand_in, visit
):
    server = with_stand_in(train="nan")
    page = visit(f"{server.url}/?project=ball")
    job = server.post("/api/projects/ball/train", {"settings": {**SMALL, "learning_rate": "5e-5"}})
    warning = page.get_by_role("alert").filter(has_text="The loss is NaN since step 4")
    expect(warning).to_contain_text("half the learning rate")
    button = warning.get_by_role("button", name="Stop, and start again with half the learning")
    button.click()
    page.get_by_role("button", name="Keep training").click()
    assert server.get(f"/api/jobs/{job['id']}")["state"] == "running"
    button.click()
    page.get_by_role("button", name="Stop and start again").click()
    assert server.wait_for(job["id"])["state"] == "stopped"
    page.wait_for_function(
        "fetch('/api/jobs').then((answer) => answer.json()).then((jobs) => jobs.length === 2)"
    )
    newest = server.get("/api/jobs")[0]["id"]
    assert server.get(f"/api/jobs/{newest}/settings")["settings"]["learning_rate"] == 2.5e-5
    assert server.log(job["id"]).count("WARNING: The loss is NaN") == 1


# -- the real program's logs -----------------------------------------------------------------------

REAL = {
    "train_error_oom": ("not enough", "torch.OutOfMemoryError", "Start again with the 12 GB"),
    "latents_error_missing_vae": ("is not there", "FileNotFoundError", "Show the model file"),
    "train_error_unknown_flag": ("--no_such_flag", "unrecognized arguments", "--no_such_flag"),
}


def replay(server, name: str, exit_code: int) -> str:
    """A run that prints a log and ends as it did; its id."""
    home = Home(server.home)
    command = [sys.executable, str(STANDINS / "replay.py"), str(LOGS / f"{name}.log")]
    given = settings.parse(
        {
            "output_dir": "ball",
            "vram_profile": "16",
            "advanced_flags": "--fp8_base --blocks_to_swap 30 --gradient_checkpointing "
            "--no_such_flag",
        }
    )
    load = {"practice": False, "pixels": 1024 * 1024, "batch": 1, "rank": 16}
    load |= {"optimizer": "AdamW", "fp8": True, "blocks": 30, "checkpointing": True}
    plan = bare_plan(home, [*command, str(exit_code)], settings=given, load=load, project="ball")
    plan.stages[0].name = "latents" if name.startswith("latents") else "train"
    job = Jobs(home).submit(plan)
    return server.wait_for(job.id)["id"]


@pytest.mark.skipif(
    not LOGS.is_dir(), reason="no logs of the real Musubi Tuner: MUSUBI_LOGS names their folder"
)
@pytest.mark.parametrize(
    "look",
    [
        {"viewport": {"width": 1366, "height": 768}},
        {"viewport": {"width": 390, "height": 844}, "has_touch": True, "color_scheme": "dark"},
    ],
    ids=["wide", "phone"],
)
def test_real_failures_are_shown_with_cause_lines_and_way_out(with_stand_in, visit, look):
    server = with_stand_in()
    for name, (cause, line, label) in REAL.items():
        job = replay(server, name, 2 if "flag" in name else 1)
        page = visit(f"{server.url}/?job={job}", **look)
        expect(card(page)).to_contain_text(cause)
        expect(card(page).get_by_role("region", name="From the log")).to_contain_text(line)
        expect(card(page).get_by_role("button", name=label)).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= look["viewport"]["width"]
        if folder := os.environ.get("SHOTS"):
            card(page).scroll_into_view_if_needed()
            page.screenshot(path=f"{folder}/{name}-{look['viewport']['width']}.png")


def test_a_missing_model_leads_to_where_it_is_named(with_stand_in, visit):
    if not LOGS.is_dir():
        pytest.skip("no logs of the real Musubi Tuner")
    server = with_stand_in()
    job = replay(server, "latents_error_missing_vae", 1)
    page = visit(f"{server.url}/?job={job}")
    card(page).get_by_role("button", name="Show the model file").click()
    expect(page.locator('[data-model="vae"] summary')).to_be_focused()
