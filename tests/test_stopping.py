"""Stopping a run once the epoch at hand has been saved."""

from __future__ import annotations

import pytest
from browsing import expect, needs_chromium, wait_in
from support import SMALL, pictures, wait_until

from musubitlx.jobs import epochs_between_saves

MANY = {
    **SMALL,
    "epochs": 30,
    "samples_enabled": True,
    "sample_prompt_text": "a ball --w 64 --h 64 --s 2",
    "sample_every_epochs": 1,
    "output_name": "ball",
}


@pytest.fixture
def ball(program):
    return practice(program, 0.02)


def practice(program, step_s: float):
    """A server with three images, whose practice steps take so long."""
    server = program("--practice", env={"MUSUBITLX_PRACTICE_STEP_DELAY": str(step_s)})
    server.post("/api/projects", {"name": "ball"})
    assert server.upload("ball", pictures(3)).status_code == 201
    return server


def begin(server, epoch: int = 2, **more) -> str:
    job = server.post("/api/projects/ball/train", {"settings": {**MANY, **more}})["id"]
    wait_until(
        lambda: (server.get(f"/api/jobs/{job}")["progress"]["epoch"] or 0) >= epoch,
        what=f"epoch {epoch}",
    )
    return job


def ask(server, job: str, wanted: bool = True) -> dict:
    return server.post(f"/api/jobs/{job}/stop", {"after_epoch": wanted})


def checkpoints(server) -> list[str]:
    return sorted(path.name for path in (server.home / "output/ball").glob("ball-0*.safetensors"))


def test_it_ends_when_checkpoint_and_samples_of_the_epoch_are_there(ball):
    job = begin(ball)
    told = ask(ball, job)
    assert told["after_epoch"] is True and told["state"] == "running"
    last = wait_until(lambda: ball.get(f"/api/jobs/{job}")["last_epoch"], what="the last epoch")
    ended = ball.wait_for(job)
    assert last in (2, 3)
    assert (ended["state"], ended["reason"]) == (
        "stopped",
        f"Stopped after epoch {last}, as asked.",
    )
    assert (
        checkpoints(ball)[-1] == f"ball-{last:06d}.safetensors" and len(checkpoints(ball)) == last
    )
    assert [output["name"] for output in ended["outputs"]] == [f"ball-{last:06d}.safetensors"]
    samples = ball.get("/api/projects/ball/samples")["samples"]
    assert max(sample["epoch"] for sample in samples) == last
    assert f"TRAINING STOPPED. Stopped after epoch {last}" in ball.log(job)


def test_it_can_be_taken_back(ball):
    job = begin(ball, epochs=6)
    ask(ball, job)
    told = ask(ball, job, False)
    assert told["after_epoch"] is False
    ended = ball.wait_for(job)
    assert ended["state"] == "succeeded" and ended["last_epoch"] is None


def test_where_only_some_epochs_are_saved_it_goes_on_to_the_next_of_them(ball):
    flags = "--gradient_checkpointing --save_every_n_epochs 4"
    job = begin(ball, advanced_flags=flags)
    ask(ball, job)
    assert ball.wait_for(job)["reason"] == "Stopped after epoch 4, as asked."
    assert checkpoints(ball) == ["ball-000004.safetensors"]


def test_in_the_last_epoch_it_simply_ends(ball):
    job = begin(ball, epoch=3, epochs=3)
    ask(ball, job)
    assert ball.wait_for(job)["state"] == "succeeded"


def test_asked_before_the_training_it_is_the_first_epoch(with_stand_in):
    server = with_stand_in(env={"STAND_IN_CACHE_S": "0.5"})
    job = server.post("/api/projects/ball/train", {"settings": SMALL})["id"]
    server.wait_for(job, "running")
    assert ask(server, job)["after_epoch"] is True
    last = wait_until(lambda: server.get(f"/api/jobs/{job}")["last_epoch"], what="the last epoch")
    assert last == 1


def test_the_wish_outlives_the_server(ball, program):
    job = begin(ball)
    ball.kill()
    again = program("--practice")
    ask(again, job)
    assert again.wait_for(job)["reason"].startswith("Stopped after epoch")


def test_what_does_not_train_cannot_stop_after_an_epoch(ball):
    first = begin(ball)
    waits = ball.post("/api/projects/ball/train", {"settings": MANY})["id"]
    url = "/api/jobs/{}/stop"
    refused = ball.call("POST", url.format(waits), json={"after_epoch": True})
    assert refused.status_code == 409 and "running" in refused.json()["error"]
    for job in (waits, first):
        ball.post(url.format(job))
        ball.wait_for(job)
    assert ball.call("POST", url.format(first), json={"after_epoch": True}).status_code == 409


@pytest.mark.parametrize(
    ("argv", "every"),
    [
        ([], None),
        (["--save_every_n_epochs", "3"], 3),
        (["--save_every_n_epochs=2", "x"], 2),
        (["--save_every_n_epochs"], None),
        (["--save_every_n_epochs", "0"], None),
        (["--save_every_n_steps", "3"], None),
    ],
)
def test_how_often_a_training_saves_is_read_from_its_command(argv, every):
    assert epochs_between_saves(argv) == every


@needs_chromium
def test_on_the_page_it_is_the_milder_choice_and_can_be_taken_back(program, visit):
    ball = practice(program, 0.4)
    job = begin(ball, epoch=1, image_repeats=12)
    page = visit(f"{ball.url}/?project=ball")
    stop = page.get_by_role("button", name="Stop training")
    stop.click()
    dialog = page.get_by_role("dialog", name="Stop this training?")
    dialog.get_by_role("button", name="Stop after this epoch").click()
    note = page.locator("[data-last-epoch]")
    expect(note).to_be_visible()
    page.get_by_role("button", name="Train on to the end").click()
    expect(note).to_be_hidden()
    expect(stop).to_be_focused()
    assert ball.get(f"/api/jobs/{job}")["after_epoch"] is False
    stop.click()
    dialog.get_by_role("button", name="Keep training").click()
    stop.click()
    dialog.get_by_role("button", name="Stop after this epoch").click()
    expect(page.get_by_role("heading", name="Training stopped")).to_be_visible(timeout=60_000)
    expect(page.get_by_text("as asked.").first).to_be_visible()
    wait_in(page, lambda: ball.get(f"/api/jobs/{job}")["state"] == "stopped", "the end")
