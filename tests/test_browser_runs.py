"""The page of runs in a real browser: queue, history, details, comparison, settings taken over."""

from __future__ import annotations

import io
import json
import re
import zipfile

import pytest
from browsing import expect, needs_chromium, tab_to, wait_in
from past import record
from support import SMALL, pictures

from musubitlx.home import Home

pytestmark = needs_chromium

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


@pytest.fixture
def queue(with_stand_in):
    """The program with a run that goes on for ever, and three that wait."""
    server = with_stand_in(train="silent")
    server.ids = {}
    for name in ("endless", "one", "two", "three"):
        settings = {"trigger_word": "ohwx", "output_name": name}
        server.ids[name] = server.post("/api/projects/ball/train", {"settings": settings})["id"]
    server.wait_for(server.ids["endless"], "running")
    return server


@pytest.fixture
def past(program, tmp_path):
    """A function that starts the program on a home folder with these past runs."""

    def start(*runs: dict):
        home = Home(tmp_path / "home").make()
        ids = [record(home, number, **run) for number, run in enumerate(runs)]
        server = program("--practice")
        server.ids = ids
        return server

    return start


def waiting(page):
    return page.get_by_role("list", name="Waiting, the next one first").get_by_role("listitem")


def order(page) -> list[str]:
    names = ("one", "two", "three")
    return [next(n for n in names if n in text) for text in waiting(page).all_text_contents()]


def expect_order(page, *names: str) -> None:
    expect(waiting(page)).to_have_count(len(names))
    for place, name in enumerate(names):
        expect(waiting(page).nth(place)).to_contain_text(name)


def past_rows(page):
    return page.get_by_role("table", name="Past runs").locator("tbody").get_by_role("row")


def expect_names(page, *names: str) -> None:
    expect(past_rows(page)).to_have_count(len(names))
    for place, name in enumerate(names):
        expect(past_rows(page).nth(place).get_by_role("rowheader")).to_contain_text(name)


def button(page, name: str):
    return page.get_by_role("button", name=re.compile(name))


# -- queue -----------------------------------------------------------------------------------


def test_what_waits_is_reordered_by_buttons_and_others_see_it(queue, visit):
    page, other = visit(f"{queue.url}/runs"), visit(f"{queue.url}/runs")
    expect(page.get_by_role("list", name="Running now")).to_contain_text("endless")
    expect_order(page, "one", "two", "three")
    button(page, "Move three in ball up").click()
    expect_order(page, "one", "three", "two")
    expect_order(other, "one", "three", "two")
    button(other, "Move one in ball down").click()
    expect_order(page, "three", "one", "two")
    page.reload()
    expect_order(page, "three", "one", "two")
    assert queue.get("/api/runs")["order"] == [queue.ids[n] for n in ("three", "one", "two")]


def test_the_keyboard_keeps_its_place_while_a_run_moves_up(queue, visit):
    page = visit(f"{queue.url}/runs")
    expect_order(page, "one", "two", "three")
    tab_to(page, "Move three in ball up")
    page.keyboard.press("Enter")
    expect_order(page, "one", "three", "two")
    page.keyboard.press("Enter")
    expect_order(page, "three", "one", "two")
    expect(page.get_by_text("three in ball is now 1 of 3.")).to_be_attached()
    assert "Move three" in page.evaluate("document.activeElement.getAttribute('aria-label')")


def test_what_waits_is_dragged(queue, visit):
    page = visit(f"{queue.url}/runs")
    expect_order(page, "one", "two", "three")
    drag(page, waiting(page).nth(2), waiting(page).nth(0))
    expect_order(page, "three", "one", "two")
    wait_in(
        page,
        lambda: queue.get("/api/runs")["order"][0] == queue.ids["three"],
        "the server to know",
    )
    drag(page, waiting(page).nth(0), waiting(page).nth(2), give_up=True)
    expect_order(page, "three", "one", "two")


def drag(page, what, to, *, give_up: bool = False) -> None:
    grip, target = what.get_by_title("Drag to reorder").bounding_box(), to.bounding_box()
    page.mouse.move(grip["x"] + 5, grip["y"] + grip["height"] / 2)
    page.mouse.down()
    down = target["y"] > grip["y"]
    page.mouse.move(grip["x"] + 5, target["y"] + (target["height"] - 3 if down else 3), steps=6)
    if give_up:
        page.keyboard.press("Escape")
    page.mouse.up()


def test_what_is_taken_out_can_be_put_back(queue, visit):
    page = visit(f"{queue.url}/runs")
    button(page, "Take out of the queue: two").click()
    expect_order(page, "one", "three")
    expect(past_rows(page)).to_contain_text("two")
    page.get_by_role("button", name="Undo").click()
    expect_order(page, "one", "two", "three")
    assert queue.get(f"/api/jobs/{queue.ids['two']}")["state"] == "queued"


def test_a_run_is_stopped_and_the_next_one_begins_by_itself(queue, visit):
    page = visit(f"{queue.url}/runs", **PHONE)
    button(page, "Move two in ball up").click()
    expect_order(page, "two", "one", "three")
    button(page, "Stop endless").click()
    page.get_by_role("button", name="Stop training").click()
    running = page.get_by_role("list", name="Running now")
    expect(running).to_contain_text("two", timeout=30_000)
    expect_order(page, "one", "three")
    expect(page.locator("[data-runs] tr")).to_contain_text("endless")


def test_without_a_stream_the_page_asks_again(queue, visit):
    page = visit("about:blank")
    page.route("**/api/runs/events", lambda route: route.fulfill(status=503, body=""))
    page.goto(f"{queue.url}/runs")
    expect_order(page, "one", "two", "three")
    queue.post(f"/api/jobs/{queue.ids['three']}/move", {"before": queue.ids["one"]})
    expect_order(page, "three", "one", "two")
    expect(page.get_by_text("Asking again every few seconds")).to_be_visible()


def test_the_page_train_shows_the_queue_in_its_order_too(queue, visit):
    page = visit(f"{queue.url}/?project=ball")
    rows = page.locator("[data-queue] li")
    expect(rows).to_have_count(3)
    queue.post(f"/api/jobs/{queue.ids['three']}/move", {"before": queue.ids["one"]})
    expect(rows.first).to_contain_text("three")
    rows.first.get_by_role("button").click()
    expect(rows).to_have_count(2)
    page.get_by_role("button", name="Undo").click()
    expect(rows.first).to_contain_text("three")


# -- history -----------------------------------------------------------------------------------


def test_the_history_is_searched_filtered_and_sorted(past, visit):
    server = past(
        {"output_name": "blue", "loss": 0.3, "note": "Eyes too sharp", "lora_rank": 8},
        {"output_name": "red", "loss": 0.1, "project": "cup"},
        {"output_name": "green", "state": "failed", "reason": "Out of memory.", "loss": 0.2},
    )
    page = visit(f"{server.url}/runs")
    expect(past_rows(page)).to_have_count(3)
    expect_names(page, "green", "red", "blue")
    search = page.get_by_role("searchbox", name="Search runs")
    for typed, found in (("sharp EYES", "blue"), ("memory", "green"), ("rank 8,", "blue")):
        search.fill(typed)
        expect(past_rows(page)).to_have_count(1)
        expect_names(page, found)
    search.fill("nothing of the kind")
    expect(page.get_by_text("No run fits.")).to_be_visible()
    button(page, "Show all").click()
    expect(past_rows(page)).to_have_count(3)
    button(page, "^Last loss").click()
    expect_names(page, "red", "green", "blue")
    heading = page.get_by_role("columnheader", name="Last loss")
    expect(heading).to_have_attribute("aria-sort", "ascending")
    button(page, "^Last loss").click()
    expect_names(page, "blue", "green", "red")
    page.get_by_label("Folder").select_option("ball")
    expect_names(page, "blue", "green")
    page.get_by_label("State", exact=True).select_option("failed")
    expect_names(page, "green")
    page.reload()
    expect(past_rows(page)).to_have_count(1)
    expect_names(page, "green")


def test_several_runs_are_deleted_and_their_files_stay(past, visit):
    server = past(*[{"output_name": f"run {n}"} for n in range(4)])
    kept = server.home / "output/ball/run 1.safetensors"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"x")
    page = visit(f"{server.url}/runs")
    for name in ("run 1", "run 2"):
        page.get_by_role("checkbox", name=f"Select {name}").check()
    expect(page.get_by_text("2 runs selected")).to_be_visible()
    button(page, "Delete selected").click()
    expect(page.get_by_role("dialog")).to_contain_text("images and captions stay in their folders")
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(past_rows(page)).to_have_count(2)
    expect_names(page, "run 3", "run 0")
    assert len(server.get("/api/runs")["runs"]) == 2 and kept.is_file()


def test_two_runs_are_compared(past, visit):
    server = past(
        {"output_name": "a", "lora_rank": 8, "flags": ["--fp8_base"], "loss": 0.25},
        {"output_name": "b", "lora_rank": 32, "images": ["a.jpg", "b.jpg", "c.jpg"]},
    )
    page = visit(f"{server.url}/runs")
    expect(button(page, "Compare two")).to_be_disabled()
    page.get_by_label("Select all").check()
    button(page, "Compare two").click()
    table = page.get_by_role("dialog", name="What differs").get_by_role("table")
    for line in ("LoRA rank 8 32", "--fp8_base on –", "Number 2 3", "Final loss 0.25 0.1"):
        expect(table.get_by_role("row", name=line)).to_be_visible()
    expect(table).not_to_contain_text("Learning rate")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_thousand_runs_stay_fluent(past, visit):
    server = past(*[{"output_name": f"run {n}", "loss": n / 1000} for n in range(1000)])
    page = visit(f"{server.url}/runs")
    expect(page.get_by_text("1,000 past runs.")).to_be_visible()
    assert past_rows(page).count() <= 300
    took = page.evaluate(
        """async () => {
            const begun = performance.now();
            const select = document.querySelector("#run-sort");
            select.value = "loss";
            select.dispatchEvent(new Event("input", { bubbles: true }));
            document.body.getBoundingClientRect();
            return performance.now() - begun;
        }"""
    )
    expect(past_rows(page).first).to_contain_text("run 0")
    assert took < 1500  # ms, where much else goes on; some 100 on an idle machine
    page.get_by_role("searchbox", name="Search runs").fill("run 77")
    expect(past_rows(page)).to_have_count(19)
    page.get_by_role("searchbox", name="Search runs").fill("")
    expect(page.get_by_text("1,000 runs")).to_be_visible()
    button(page, "Show more").scroll_into_view_if_needed()
    wait_in(page, lambda: past_rows(page).count() >= 200, "more rows")


# -- one run -----------------------------------------------------------------------------------


def test_details_show_everything_and_notes_are_kept(live_server, visit):
    live_server.upload("ball", pictures(2))
    job = live_server.post("/api/projects/ball/train", {"settings": SMALL})["id"]
    live_server.wait_for(job)
    page = visit(f"{live_server.url}/runs")
    button(page, "^Details").click()
    dialog = page.get_by_role("dialog", name="ball")
    expect(dialog.get_by_role("row", name="Resolution 256x256")).to_be_visible()
    expect(dialog.get_by_role("region", name="Last lines")).to_contain_text("TRAINING COMPLETED!")
    expect(dialog.get_by_role("link", name="ball.safetensors")).to_be_visible()
    dialog.get_by_text("What really ran").click()
    expect(dialog.get_by_role("region", name="Training the LoRA")).to_contain_text(
        "--network_dim 16"
    )
    notes = dialog.get_by_label("Notes")
    notes.fill("Epoch 2 is the best.")
    expect(dialog.get_by_text("Saved", exact=True)).to_be_visible()
    page.reload()
    expect(notes).to_have_value("Epoch 2 is the best.")  # the address names the run
    notes.fill("typed and closed at once")
    page.keyboard.press("Escape")
    expect(past_rows(page)).to_contain_text("typed and closed at once")


def test_notes_written_elsewhere_meanwhile_are_shown_not_overwritten(past, visit):
    server = past({"output_name": "a"})
    page = visit(f"{server.url}/runs#run={server.ids[0]}")
    notes = page.get_by_role("dialog").get_by_label("Notes")
    expect(notes).to_be_visible()
    server.put(f"/api/jobs/{server.ids[0]}/notes", {"text": "theirs"})
    notes.fill("mine")
    expect(page.get_by_text("These notes were changed elsewhere meanwhile.")).to_be_visible()
    assert server.get(f"/api/jobs/{server.ids[0]}/details")["notes"] == "theirs"
    button(page, "Keep mine").click()
    expect(page.get_by_text("Saved", exact=True)).to_be_visible()
    assert server.get(f"/api/jobs/{server.ids[0]}/details")["notes"] == "mine"


def test_the_report_says_what_is_in_it_and_comes_as_a_zip(past, visit):
    server = past({"output_name": "a", "state": "failed", "reason": "Out of memory."})
    page = visit(f"{server.url}/runs#run={server.ids[0]}")
    page.get_by_text("Report a problem with this run").click()
    expect(page.get_by_text("Not inside: images, captions")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the report").click()
    assert download.value.suggested_filename == f"musubitlx-run-{server.ids[0]}.zip"
    with zipfile.ZipFile(io.BytesIO(download.value.path().read_bytes())) as archive:
        assert json.loads(archive.read("run.json"))["status"]["reason"] == "Out of memory."


def test_text_from_outside_is_never_markup_here(past, visit):
    evil = "<img src=x onerror=document.title='hit'>"
    server = past({"state": "failed", "reason": evil, "note": evil, "trigger_word": evil})
    page = visit(f"{server.url}/runs#run={server.ids[0]}")
    expect(page.get_by_role("dialog")).to_contain_text(evil)
    assert "hit" not in page.title()
    assert page.locator("main img, dialog img").count() == 0


def test_a_run_that_failed_is_started_again(past, visit):
    server = past({**SMALL, "output_name": "again", "state": "failed", "reason": "Out of memory."})
    server.upload("ball", pictures(2))
    page = visit(f"{server.url}/runs#run={server.ids[0]}")
    button(page, "^Start again").click()
    page.get_by_role("dialog", name="Start this run again?").get_by_role(
        "button", name="Start again"
    ).click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    newest = server.get("/api/runs")["runs"][0]
    assert newest["id"] != server.ids[0] and newest["name"] == "again"
    assert server.wait_for(newest["id"])["state"] == "succeeded"
    expect(past_rows(page)).to_have_count(2)


def test_what_keeps_it_from_starting_again_is_said(past, visit):
    server = past({**SMALL, "state": "failed", "reason": "Out of memory."})
    server.post("/api/projects", {"name": "ball"})  # without an image
    page = visit(f"{server.url}/runs#run={server.ids[0]}")
    button(page, "^Start again").click()
    page.get_by_role("dialog", name="Start this run again?").get_by_role(
        "button", name="Start again"
    ).click()
    expect(
        page.get_by_role("dialog").get_by_role("status").filter(has_text="image")
    ).to_be_visible()
    assert len(server.get("/api/runs")["runs"]) == 1


# -- settings taken over -----------------------------------------------------------------------


def test_settings_of_a_run_fill_the_form_and_there_is_a_way_back(past, visit):
    server = past({"output_name": "best", "lora_rank": 4, "learning_rate": 1e-4, "epochs": 3})
    server.upload("ball", pictures(2))
    page = visit(f"{server.url}/?project=ball")
    rank = page.get_by_label("LoRA rank", exact=True)
    rank.fill("64")
    expect(page.get_by_text("Saved", exact=True)).to_be_visible()
    page.goto(f"{server.url}/runs#run={server.ids[0]}")
    page.get_by_role("link", name="Use these settings").click()
    notice = page.get_by_role("group", name="Settings of a past run")
    expect(notice).to_contain_text("“best”")
    expect(rank).to_have_value("4")
    expect(page.get_by_label("Learning rate", exact=True)).to_have_value("1e-4")
    expect(page.get_by_label("LoRA filename")).to_have_value("best")
    assert "use=" not in page.url
    assert server.get("/api/jobs")[0]["id"] == server.ids[0]  # nothing was started
    expect(page.get_by_text("Saved", exact=True)).to_be_visible()
    page.reload()  # the way back is still there
    expect(rank).to_have_value("4")
    notice.get_by_role("button", name="Back to mine").click()
    expect(rank).to_have_value("64")
    expect(notice).to_have_count(0)
    expect(page.get_by_text("Saved", exact=True)).to_be_visible()
    page.reload()
    expect(rank).to_have_value("64")
    expect(page.get_by_label("Caption for image 2")).to_be_visible()
    expect(notice).to_have_count(0)


def test_settings_that_are_kept_need_no_way_back(past, visit):
    server = past({"output_name": "best", "lora_rank": 4, "advanced_flags": "--blocks_to_swap 7"})
    server.upload("ball", pictures(2))
    page = visit(f"{server.url}/?project=ball&use={server.ids[0]}")
    button(page, "Keep these").click()
    expect(page.get_by_text("The form keeps the settings of the run.")).to_be_visible()
    expect(page.get_by_label("LoRA rank", exact=True)).to_have_value("4")
    flags = page.locator("#advanced_flags")
    expect(flags).to_have_value("--blocks_to_swap 7")
    page.reload()
    expect(flags).to_have_value("--blocks_to_swap 7")
    expect(page.get_by_role("group", name="Settings of a past run")).to_have_count(0)


# -- on a phone --------------------------------------------------------------------------------


def test_a_phone_shows_cards_and_full_dialogs_without_sideways_scrolling(queue, visit):
    record(Home(queue.home), 1, note="x" * 200, output_name="n" * 60)
    record(Home(queue.home), 2, state="failed", reason="y" * 200)
    page = visit(f"{queue.url}/runs", **PHONE)
    expect(page.locator("[data-runs] tr")).to_have_count(2)
    expect_order(page, "one", "two", "three")
    sideways = "document.documentElement.scrollWidth"
    assert page.evaluate(sideways) <= 390
    page.get_by_label("Select all").check()
    button(page, "Compare two").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    assert page.evaluate("document.querySelector('.sheet-body').scrollWidth") <= 390
    dialog.get_by_role("button", name="Close").click()
    page.locator("[data-runs] tr").first.get_by_role("button", name=re.compile("^Details")).click()
    expect(dialog.get_by_label("Notes")).to_be_visible()
    assert page.evaluate("document.querySelector('.sheet-body').scrollWidth") <= 390


CONTROLS = "button, input, select, textarea, a[href], summary"
NAMELESS = """(controls) => [...document.querySelectorAll(controls)]
    .filter((node) => node.checkVisibility() && !node.ariaLabel && !node.textContent.trim()
        && !node.labels?.length).map((node) => node.outerHTML)"""


def test_every_control_of_the_page_has_a_name(queue, visit):
    job = record(Home(queue.home), 1)
    page = visit(f"{queue.url}/runs#run={job}")
    expect(page.get_by_role("dialog").get_by_label("Notes")).to_be_visible()
    assert page.evaluate(NAMELESS, CONTROLS) == []
