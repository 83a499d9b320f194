"""How a run ends, on the page: what went wrong, the lines that tell it, and the way out."""

from __future__ import annotations

import os

import pytest
from browsing import expect, needs_chromium
from replays import has_logs, replay_plan
from support import SMALL

from musubitlx.home import Home
from musubitlx.jobs import Jobs

pytestmark = needs_chromium


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
    expect(lines).to_contain_text("33%|###| 2/6")
    expect(lines).to_contain_text("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate")
    page.get_by_label("Learning rate", exact=True).fill("9e-5")
    card(page).get_by_role("button", name="Start again with the 16 GB profile").click()
    page.wait_for_function(
        "fetch('/api/jobs').then((answer) => answer.json()).then((jobs) => jobs.length === 2)"
    )
    newest = server.get("/api/jobs")[0]["id"]
    taken = server.get(f"/api/jobs/{newest}/details")["settings"]
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
    assert server.get(f"/api/jobs/{newest}/details")["settings"]["learning_rate"] == 2.5e-5
    assert server.log(job["id"]).count("WARNING: The loss is NaN") == 1


# -- the real program's logs -----------------------------------------------------------------------

REAL = {  # log: the stage and step that are shown, cause, line, button
    "train_error_oom": (
        *("Training – failed", "2 / 6", "The GPU's memory (VRAM) was not enough."),
        *("torch.OutOfMemoryError", "Start again with the 12 GB profile"),
    ),
    "latents_error_missing_vae": (
        *("Latents – failed", "–", "The file models/none.safetensors is not there."),
        *("FileNotFoundError", "Show the model file"),
    ),
    "train_error_unknown_flag": (
        *("Training – failed", "–", "Musubi Tuner does not know: --no_such_flag"),
        *("unrecognized arguments", "Start again without --no_such_flag"),
    ),
}


def replay(server, name: str) -> str:
    """A run that printed a log and ended as it did; its id."""
    home = Home(server.home)
    own = "--fp8_base --fp8_scaled --blocks_to_swap 30 --gradient_checkpointing --no_such_flag"
    more = {"output_dir": "ball", "vram_profile": "16", "advanced_flags": own}
    plan = replay_plan(home, name, blocks=30, **more)
    plan.project, plan.title = "ball", "Training ball"
    return server.wait_for(Jobs(home).submit(plan).id)["id"]


@has_logs
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
    for name, (stage, step, cause, line, label) in REAL.items():
        job = replay(server, name)
        page = visit(f"{server.url}/?job={job}", **look)
        expect(card(page)).to_contain_text(cause)
        expect(card(page).get_by_role("listitem").filter(has_text=stage)).to_be_visible()
        expect(card(page).locator('[data-fact="step"]')).to_have_text(step)
        expect(card(page).get_by_role("region", name="From the log")).to_contain_text(line)
        expect(card(page).get_by_role("button", name=label)).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= look["viewport"]["width"]
        if folder := os.environ.get("SHOTS"):
            card(page).scroll_into_view_if_needed()
            page.screenshot(path=f"{folder}/{name}-{look['viewport']['width']}.png")


@has_logs
def test_a_missing_model_leads_to_where_it_is_named(with_stand_in, visit):
    server = with_stand_in()
    job = replay(server, "latents_error_missing_vae")
    page = visit(f"{server.url}/?job={job}")
    card(page).get_by_role("button", name="Show the model file").click()
    expect(page.locator('[data-model="vae"] summary')).to_be_focused()


def test_a_run_that_ended_well_in_spite_of_nan_keeps_its_warning(with_stand_in, visit):
    server = with_stand_in(train="nan", env={"STAND_IN_STEPS": "8"})
    job = server.post("/api/projects/ball/train", {"settings": SMALL})
    assert server.wait_for(job["id"])["state"] == "succeeded"
    page = visit(f"{server.url}/?project=ball")
    warning = page.get_by_role("alert").filter(has_text="The loss is NaN since step 4")
    expect(warning.get_by_role("button", name="Start again with half the learning")).to_be_visible()
    if folder := os.environ.get("SHOTS"):
        page.screenshot(path=f"{folder}/nan.png")
    page.get_by_role("button", name="Start again with half the learning rate").focus()
    page.keyboard.press("Enter")
    page.wait_for_function(
        "fetch('/api/jobs').then((answer) => answer.json()).then((jobs) => jobs.length === 2)"
    )
