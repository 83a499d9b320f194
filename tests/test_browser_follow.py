"""Which run the page shows, and what it says of those beside it."""

from __future__ import annotations

import pytest
from browsing import expect, needs_chromium
from past import record
from records import NOW, a_run, left_at
from support import SMALL

from musubitlx.home import Home, read_json, write_json
from musubitlx.projects import Project

pytestmark = needs_chromium

SLOW = {"STAND_IN_STEPS": "400", "STAND_IN_STEP_S": "0.1"}


def train(server, **more) -> str:
    return server.post("/api/projects/ball/train", {"settings": {**SMALL, **more}})["id"]


def header(page):
    return page.get_by_role("region", name="At a glance")


def card(page, title: str):
    return page.get_by_role("region", name=title)


def focused(page) -> str:
    """What has the focus, in words; "" when nothing has."""
    return page.evaluate(
        "document.activeElement === document.body ? '' : document.activeElement.textContent.trim()"
    )


def test_a_page_on_an_old_run_follows_the_one_that_is_started_there(with_stand_in, visit):
    server = with_stand_in(train="fails")
    old = train(server, vram_profile="24")
    server.wait_for(old)
    page = visit(f"{server.url}/?project=ball&job={old}")
    button = card(page, "Training failed").get_by_role("button", name="Start again with the 16 GB")
    button.focus()
    page.keyboard.press("Enter")
    expect(card(page, "Training failed")).to_contain_text("Start again with the 12 GB profile")
    expect(page.get_by_text("waiting:")).to_have_count(0)
    expect(page.get_by_role("button", name="Start training")).to_be_visible()
    assert "job=" not in page.url and focused(page)
    newest = server.get("/api/jobs")[0]["id"]
    assert newest != old and server.wait_for(newest)["state"] == "failed"


@pytest.mark.fine
def test_the_header_tells_what_runs_whatever_the_page_shows(with_stand_in, visit):
    server = with_stand_in(env=SLOW)
    old = record(Home(server.home), 1)
    running = train(server)
    for path in (f"/?project=ball&job={old}", "/runs"):
        page = visit(server.url + path)
        expect(header(page)).to_contain_text("Training")
        expect(header(page)).to_contain_text("/400")
        expect(header(page).locator("[data-status=ram]")).to_contain_text("%")
        first = header(page).locator("[data-status=step]").inner_text()
        expect(header(page).locator("[data-status=step]")).not_to_have_text(first)
        assert "/400 · ball – MusubiTLX" in page.title()
        header(page).get_by_role("link").click()
        expect(card(page, "Training in progress")).to_be_visible()
    server.post(f"/api/jobs/{running}/stop", {})


@pytest.mark.fine
def test_a_run_that_comes_and_goes_within_a_moment_is_no_ghost(with_stand_in, visit):
    server = with_stand_in(train="fails")
    old = record(Home(server.home), 1)
    page = visit(f"{server.url}/?project=ball&job={old}")
    expect(card(page, "Training completed")).to_be_visible()
    server.wait_for(train(server))
    page.wait_for_timeout(2000)
    expect(page.get_by_text("waiting:")).to_have_count(0)
    expect(page.get_by_role("button", name="Start training")).to_be_visible()
    expect(card(page, "Training completed")).to_be_visible()


@pytest.mark.fine
def test_a_run_that_was_deleted_is_told(with_stand_in, visit):
    server = with_stand_in()
    page = visit(f"{server.url}/?project=ball&job=20200101-000000-000-abcdef")
    expect(card(page, "This run was deleted")).to_contain_text("its files stay")
    job = train(server)
    server.wait_for(job)
    page = visit(f"{server.url}/?project=ball&job={job}")
    expect(card(page, "Training completed")).to_be_visible()
    server.call("DELETE", f"/api/jobs/{job}")
    expect(card(page, "This run was deleted")).to_be_visible()


@pytest.mark.fine
def test_a_lora_that_was_deleted_is_not_offered(with_stand_in, visit):
    server = with_stand_in()
    server.wait_for(train(server))
    page = visit(f"{server.url}/?project=ball")
    done = card(page, "Training completed")
    expect(done).to_contain_text("The LoRA is ready.")
    page.get_by_role("button", name="Delete").first.click()
    page.locator("[data-confirm-yes]").click()
    expect(done).to_contain_text("The LoRA it made is not in the folder any more.")
    page.reload()
    expect(done).to_contain_text("The LoRA it made is not in the folder any more.")


@pytest.mark.fine
def test_a_run_that_was_stopped_tells_what_it_has_saved(live_server, visit):
    live_server.post("/api/projects", {"name": "ball"})
    project = Project(Home(live_server.home), "ball")
    a_run(project, "r1", state="stopped")
    left_at(project.path / "ball-000002.safetensors", NOW - 950)
    left_at(project.path / "other-000002.safetensors", NOW - 950)
    page = visit(f"{live_server.url}/?project=ball")
    stopped = card(page, "Training stopped")
    expect(stopped).to_contain_text("Saved until then:")
    expect(stopped.get_by_role("link")).to_have_text(["ball-000002.safetensors"])


@pytest.mark.fine
def test_the_question_whether_to_stop_goes_with_the_run(with_stand_in, visit):
    server = with_stand_in(env=SLOW)
    job = train(server)
    page = visit(f"{server.url}/?project=ball")
    page.get_by_role("button", name="Stop training").click()
    expect(page.get_by_role("dialog", name="Stop this training?")).to_be_visible()
    server.post(f"/api/jobs/{job}/stop", {})
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(card(page, "Training stopped")).to_be_visible()
    expect(page.get_by_text("ended already")).to_have_count(0)
    expect(page.get_by_role("heading", name="Training stopped")).to_be_focused()


@pytest.mark.fine
def test_stopping_is_said_and_the_keyboard_keeps_its_place(live_server, visit, stranger):
    live_server.post("/api/projects", {"name": "ball"})
    project = Project(Home(live_server.home), "ball")
    a_run(project, "r1", state="running", began=NOW, runner=stranger)
    page = visit(f"{live_server.url}/?project=ball")
    expect(card(page, "Training in progress")).to_be_visible()
    page.get_by_role("button", name="Stop training").press("Enter")
    page.get_by_role("button", name="Stop training").last.press("Enter")
    expect(page.locator("[data-announce]")).to_have_text("Stopping…")
    assert focused(page)
    path = live_server.home / "output/.jobs/r1/status.json"
    write_json(path, {**read_json(path), "state": "stopped", "ended": NOW + 5})
    expect(page.get_by_role("heading", name="Training stopped")).to_be_focused()


@pytest.mark.fine
def test_a_wish_to_stop_after_the_epoch_is_said(live_server, visit, stranger):
    live_server.post("/api/projects", {"name": "ball"})
    project = Project(Home(live_server.home), "ball")
    a_run(project, "r1", state="running", began=NOW, runner=stranger)
    page = visit(f"{live_server.url}/?project=ball")
    announced = page.locator("[data-announce]")
    path = live_server.home / "output/.jobs/r1"
    stage = {"index": 3, "count": 3, "name": "train", "title": "Training the LoRA"}
    write_json(path / "status.json", {**read_json(path / "status.json"), "stage": stage})
    expect(announced).to_contain_text("Training the LoRA")
    write_json(path / "request.json", {"after_epoch": True})
    expect(announced).to_contain_text("Stops after this epoch")


@pytest.mark.fine
@pytest.mark.parametrize("twice", [False, True])
def test_taking_out_of_the_queue_leaves_the_keyboard_at_the_next_one(with_stand_in, visit, twice):
    server = with_stand_in(env=SLOW)
    running = train(server)
    for name in ("one", "two"):
        train(server, output_name=name)
    page = visit(f"{server.url}/?project=ball")
    first = page.get_by_role("button", name="Take out of the queue: Training one")
    if twice:
        first.dblclick()
    else:
        first.press("Enter")
    expect(first).to_have_count(0)
    if not twice:
        assert "Training two" in focused(page)
    expect(page.get_by_text("Taken out of the queue.")).to_have_count(1)
    expect(page.get_by_text("ended already")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(first).to_be_visible()
    server.post(f"/api/jobs/{running}/stop", {})


@pytest.mark.fine
def test_live_is_only_what_goes_on(with_stand_in, visit):
    server = with_stand_in(env={"STAND_IN_STEPS": "20", "STAND_IN_STEP_S": "0.1"})
    page = visit(f"{server.url}/?project=ball")
    state = page.locator("[data-stream-state]")
    expect(state).to_have_text("Connected")
    job = train(server)
    expect(state).to_have_text("Live")
    server.wait_for(job)
    expect(state).to_have_text("Connected")


@pytest.mark.fine
@pytest.mark.parametrize("width", [390, 360])
def test_nothing_of_the_header_is_cut_on_a_phone(live_server, visit, width, stranger):
    live_server.post("/api/projects", {"name": "ball"})
    a_run(
        Project(Home(live_server.home), "ball"), "r1", state="running", began=NOW, runner=stranger
    )
    path = live_server.home / "output/.jobs/r1/status.json"
    far = {"step": 1234, "total": 12000, "epoch": 3, "epochs": 10, "eta_s": 45_000}
    write_json(path, {**read_json(path), "progress": far})
    page = visit(f"{live_server.url}/?project=ball", viewport={"width": width, "height": 844})
    expect(header(page)).to_contain_text("12 h 30 min")
    edges = page.evaluate(
        "[...document.querySelectorAll('.status dd, .status dt')]"
        ".map((node) => node.getBoundingClientRect().right)"
    )
    assert max(edges) <= width


HIDE = """(value) => {
    Object.defineProperty(document, "hidden", { value, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


@pytest.mark.fine
def test_what_ended_while_the_page_was_hidden_leaves_no_ghost(with_stand_in, visit):
    server = with_stand_in(env=SLOW)
    old = record(Home(server.home), 1)
    running = train(server)
    waits = train(server, output_name="later")
    page = visit(f"{server.url}/?project=ball&job={old}")
    expect(header(page)).to_contain_text("/400")
    expect(page.get_by_text("waiting: Training later")).to_be_visible()
    page.evaluate(HIDE, True)
    for job in (waits, running):
        server.post(f"/api/jobs/{job}/stop", {})
        server.wait_for(job)
    page.evaluate(HIDE, False)
    expect(page.get_by_text("waiting:")).to_have_count(0)
    expect(header(page).locator("[data-status=step]")).to_be_hidden()
    expect(page.get_by_role("button", name="Start training")).to_be_visible()


@pytest.mark.fine
def test_a_checkpoint_that_was_deleted_is_not_offered_as_saved(live_server, visit):
    live_server.post("/api/projects", {"name": "ball"})
    project = Project(Home(live_server.home), "ball")
    a_run(project, "r1", state="stopped")
    for epoch in (1, 2):
        left_at(project.path / f"ball-00000{epoch}.safetensors", NOW - 980 + 20 * epoch)
    page = visit(f"{live_server.url}/?project=ball")
    saved = card(page, "Training stopped").get_by_role("link")
    expect(saved).to_have_count(2)
    page.get_by_role("button", name="Delete ball-000001.safetensors").click()
    page.locator("[data-confirm-yes]").click()
    expect(saved).to_have_text(["ball-000002.safetensors"])
    page.get_by_role("button", name="Undo").click()
    expect(saved).to_have_count(2)


def test_back_answers_a_question_with_no(with_stand_in, visit):
    server = with_stand_in(env=SLOW)
    job = train(server)
    page = visit(f"{server.url}/?project=ball")
    page.get_by_role("button", name="Stop training").click()
    question = page.get_by_role("dialog", name="Stop this training?")
    expect(question).to_be_visible()
    page.go_back()
    expect(question).to_be_hidden()
    expect(card(page, "Training in progress")).to_be_visible()
    assert server.get(f"/api/jobs/{job}")["state"] == "running"
    server.post(f"/api/jobs/{job}/stop", {})
