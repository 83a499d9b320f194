"""Captioning by a model, from the page: the dialog, the run card, what is told at the end."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time

import pytest
from browsing import caption, expect, needs_chromium, tab_to, wait_in
from support import Program, pictures

from musubitlx import births, captioned, captioners, edits
from musubitlx.home import Home, write_json
from musubitlx.jobs import HOST
from musubitlx.projects import Project

pytestmark = needs_chromium

PIP = "pip install 'transformers>=4.49' accelerate"
TEXTS = ["a red ball", "", "", "a cube"]
NAMES = [f"ball {number}.jpg" for number in range(len(TEXTS))]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The program in practice mode with a folder of four images, two with a caption."""
    started = Program(tmp_path_factory.mktemp("captioner") / "home", "--practice").start()
    started.upload("ball", pictures(len(TEXTS)))
    yield started
    started.stop()


@pytest.fixture(scope="module")
def runner():
    """A process that passes for a runner."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    yield process.pid
    process.kill()
    process.wait(10)


@pytest.fixture(autouse=True)
def as_before(server):
    """Captions as they were, no job, and nothing of one."""
    for name, text in zip(NAMES, TEXTS, strict=True):
        server.put(f"/api/projects/ball/images/{name}/caption", {"text": text})
    yield
    shutil.rmtree(server.home / "output/ball/.musubitlx/captioned", ignore_errors=True)
    for job in server.get("/api/jobs"):
        write_json(server.home / "output/.jobs" / job["id"] / "status.json", {"state": "stopped"})
        server.call("DELETE", f"/api/jobs/{job['id']}")


class Desk:
    """What the server says of captioning, for a page; the jobs are records on its disk."""

    def __init__(self, server, page, runner: int):
        self.server, self.page, self.runner = server, page, runner
        self.checked, self.posted = [], []  # wishes
        self.more = {}  # what the check says besides
        self.project = Project(Home(server.home), "ball")
        page.route("**/captions/check", self.check)
        page.route("**/projects/ball/captions", self.post)

    def check(self, route):
        wish = route.request.post_data_json
        self.checked.append(wish)
        names = self.chosen(wish)
        there = [name for name in names if self.text(name)]
        kept = len(there) if wish["mode"] == "keep" else 0
        route.fulfill(
            json={
                **{"errors": [], "warnings": [], "images": len(names) - kept},
                **{"kept": len(NAMES) - len(names) + kept, "download": 0, "stages": []},
                **self.more,
            }
        )

    def chosen(self, wish: dict) -> list[str]:
        if isinstance(wish["which"], list):
            return wish["which"]
        return [name for name in NAMES if wish["which"] == "all" or not self.text(name)]

    def text(self, name: str) -> str:
        path = (self.server.home / "output/ball" / name).with_suffix(".txt")
        return path.read_text() if path.exists() else ""

    def post(self, route):
        self.posted.append(route.request.post_data_json)
        trial = self.posted[-1].get("trial", False)
        job = self.job(f"cap{len(self.posted)}", "queued", trial=trial)
        route.fulfill(status=202, json=self.server.get(f"/api/jobs/{job}"))

    def made(self, job: str, *rows: dict) -> None:
        """What a run has made, as it lies in the folder."""
        path = captioned.begin(self.project, job)
        for row in rows:
            captioned.append(path, row)

    def job(
        self, name: str, state: str, stage: str = "caption", *, reason="", trial=False, **progress
    ):
        """Write the record of a captioning job as it stands now; returns its id."""
        folder = self.server.home / "output/.jobs" / name
        stages = [("fetch", "Downloading BLIP large"), ("caption", "Captioning")]
        if not folder.exists():
            folder.mkdir()
            rows = [{"name": n, "title": t, "argv": ["python"], "cwd": "."} for n, t in stages]
            record = {
                **{"id": name, "kind": "caption", "queue": "gpu0", "project": "ball"},
                **{"title": "Captioning ball with BLIP large", "created": time.time()},
                **{"log": str(folder / "x.log"), "stages": rows, "trial": trial},
            }
            write_json(folder / "job.json", record)
        now = time.time()
        index = [one for one, _ in stages].index(stage)
        status = {
            **{"state": state, "started": now - 5, "last_seen": now, "progress": progress},
            "stage": {"index": index + 1, "count": 2, "name": stage, "title": stages[index][1]},
        }
        if state == "running":
            birth = births.birth(self.runner)
            status["runner"] = {"pid": self.runner, "birth": birth, "host": HOST}
        else:
            status |= {"ended": now, "exit_code": int(state == "failed")}
        if reason:
            status["reason"] = reason
        if state != "queued":
            write_json(folder / "status.json", status)
        return name


@pytest.fixture(scope="module")
def window(browser, server):
    """One browsing context for all tests: it knows the page's files after the first."""
    context = browser.new_context(viewport={"width": 1366, "height": 768})
    allowed = ["clipboard-read", "clipboard-write"]
    context.grant_permissions(allowed, origin=server.url)
    yield context
    context.close()


@pytest.fixture
def desk(server, window, runner):
    """A function that opens the page of the folder, with a stand-in for what captions."""
    mistakes, pages = [], []

    def open_page() -> Desk:
        page = window.new_page()
        pages.append(page)
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: mistakes.append(str(error)))
        at = Desk(server, page, runner)
        page.goto(f"{server.url}/?project=ball")
        expect(caption(page, len(TEXTS))).to_be_visible()
        return at

    yield open_page
    for page in pages:
        page.evaluate("localStorage.clear()")
        page.close()
    assert not mistakes, mistakes


def open_dialog(page):
    page.get_by_role("button", name="Auto-caption images").click()
    dialog = page.get_by_role("dialog", name="Auto-caption images")
    expect(dialog).to_be_visible()
    return dialog


def go(dialog, text: str):
    button = dialog.get_by_role("button", name=text, exact=True)
    expect(button).to_be_enabled()
    return button


# -- how -------------------------------------------------------------------------------------------


@pytest.mark.fine
def test_each_model_has_its_length_until_somebody_chooses_one(desk):
    page = desk().page
    dialog = open_dialog(page)
    tokens = dialog.get_by_label("Caption length", exact=True)
    slider = dialog.get_by_label("Caption length, as a slider")
    for model, length in [("ViT-GPT2", "128"), ("BLIP large", "160"), ("Qwen2.5-VL 7B", "256")]:
        dialog.get_by_role("radio", name=model).check()
        expect(tokens).to_have_value(length)
        expect(slider).to_have_value(length)
    expect(dialog.get_by_label("Detail level")).to_be_hidden()
    slider.focus()
    page.keyboard.press("Home")
    expect(tokens).to_have_value("32")
    page.keyboard.press("End")
    expect(tokens).to_have_value("512")
    dialog.get_by_role("radio", name="BLIP large").check()
    expect(tokens).to_have_value("512")
    dialog.get_by_role("button", name="Default (160)").click()
    expect(tokens).to_have_value("160")
    detail = dialog.get_by_label("Detail level")
    expect(dialog.get_by_text("3: detailed")).to_be_visible()
    detail.focus()
    page.keyboard.press("End")
    expect(dialog.get_by_text("5: extremely detailed")).to_be_visible()
    expect(dialog.get_by_label("Instruction")).to_be_hidden()


@pytest.mark.fine
def test_a_length_that_cannot_be_is_told_and_nothing_starts(desk):
    at = desk()
    dialog = open_dialog(at.page)
    tokens = dialog.get_by_label("Caption length", exact=True)
    for typed in ("31", "513", "12.5", ""):
        tokens.fill(typed)
        expect(dialog.locator(".cap-foot").get_by_text("from 32 to 512 tokens")).to_be_visible()
        expect(tokens).to_have_attribute("aria-invalid", "true")
        expect(dialog.get_by_role("button", name="Caption images")).to_be_disabled()
    tokens.fill("99")
    go(dialog, "Caption 2 images").click()
    wait_in(at.page, lambda: at.posted, "the wish")
    assert at.posted[0]["max_tokens"] == 99


@pytest.mark.fine
def test_the_instruction_is_kept_and_can_be_put_back(desk):
    page = desk().page
    dialog = open_dialog(page)
    dialog.get_by_role("radio", name="Qwen").check()
    field = dialog.get_by_label("Instruction", exact=True)
    expect(field).to_have_value(captioners.INSTRUCTION)
    field.fill("Only the colours.")
    kept = "localStorage['musubitlx:captioner'] ?? ''"
    wait_in(page, lambda: "Only the colours" in page.evaluate(kept), "the text to be kept")
    page.reload()
    dialog = open_dialog(page)
    expect(dialog.get_by_role("radio", name="Qwen")).to_be_checked()
    expect(field).to_have_value("Only the colours.")
    dialog.get_by_role("button", name="Default instruction").click()
    expect(field).to_have_value(captioners.INSTRUCTION)


# -- which -----------------------------------------------------------------------------------------


@pytest.mark.fine
def test_it_says_what_will_happen_to_the_captions_that_are_there(desk):
    dialog = open_dialog(desk().page)
    sum_ = dialog.locator(".cap-sum")
    expect(sum_).to_have_text("2 images get a caption, 2 captions stay as they are.")
    expect(dialog.get_by_role("radio", name="Replace them")).to_be_hidden()
    dialog.get_by_role("radio", name="All (4)").check()
    expect(sum_).to_have_text("2 images get a caption, 2 captions stay as they are.")
    dialog.get_by_role("radio", name="Replace them").check()
    expect(sum_).to_have_text("4 images get a caption, 2 of them in place of the one there.")
    dialog.get_by_role("radio", name="Put the new text behind them").check()
    expect(sum_).to_have_text("4 images get a caption, 2 of them behind the one there.")
    go(dialog, "Caption 4 images")


@pytest.mark.fine
def test_those_the_workbench_shows_can_be_meant(desk):
    at = desk()
    at.page.get_by_label("Search captions and file names").fill("cube")
    expect(at.page.get_by_text("1 of 4 images shown")).to_be_visible()
    dialog = open_dialog(at.page)
    dialog.get_by_role("radio", name="Those shown (1)").check()
    dialog.get_by_role("radio", name="Replace them").check()
    go(dialog, "Caption 1 image").click()
    wait_in(at.page, lambda: at.posted, "the wish")
    assert at.posted[0]["which"] == ["ball 3.jpg"]
    assert at.posted[0]["mode"] == "replace"


@pytest.mark.fine
def test_images_are_ticked_by_click_shift_and_keys_and_stay_ticked(desk):
    at = desk()
    dialog = open_dialog(at.page)
    dialog.get_by_role("radio", name=re.compile("Chosen")).check()
    told = dialog.get_by_text("Tick the images that are to get a caption.")
    expect(told).to_be_visible()
    grid = dialog.get_by_role("group", name="Images that get a caption")
    grid.get_by_role("checkbox", name="ball 1.jpg").click()
    grid.get_by_role("checkbox", name="ball 3.jpg").click(modifiers=["Shift"])
    expect(dialog.get_by_text("3 of 4 images")).to_be_visible()
    at.page.keyboard.press("ArrowLeft")
    at.page.keyboard.press("Space")
    expect(dialog.get_by_text("2 of 4 images")).to_be_visible()
    dialog.get_by_role("button", name="All", exact=True).click()
    expect(dialog.get_by_text("4 of 4 images")).to_be_visible()
    dialog.get_by_role("button", name="None", exact=True).click()
    expect(told).to_be_visible()
    grid.get_by_role("checkbox", name="ball 2.jpg").check()
    dialog.get_by_role("button", name="Cancel").click()
    dialog = open_dialog(at.page)
    expect(grid.get_by_role("checkbox", name="ball 2.jpg")).to_be_checked()
    go(dialog, "Caption 1 image").click()
    wait_in(at.page, lambda: at.posted, "the wish")
    assert at.posted[0]["which"] == ["ball 2.jpg"]


# -- the check -------------------------------------------------------------------------------------


def test_what_is_missing_comes_with_the_command_that_mends_it(desk, server):
    at = desk()
    hint = f"Install it with:  {PIP}"
    at.more = {"errors": [{"error": "transformers is too old.", "field": "model", "hint": hint}]}
    at.more |= {"warnings": [{"error": "VRAM: 6 GB free, 10 needed.", "field": None, "hint": None}]}
    dialog = open_dialog(at.page)
    expect(dialog.get_by_text("transformers is too old.")).to_be_visible()
    expect(dialog.get_by_text("VRAM: 6 GB free")).to_be_visible()
    expect(dialog.get_by_role("button", name="Caption images")).to_be_disabled()
    expect(dialog.locator("code")).to_have_text(PIP)
    dialog.get_by_role("button", name="Copy the command").click()
    assert at.page.evaluate("navigator.clipboard.readText()") == PIP
    at.more = {"download": 1_880_000_000}
    dialog.get_by_role("radio", name="BLIP").check()
    expect(dialog.get_by_text("Downloads 1.9 GB on first use.")).to_be_visible()
    go(dialog, "Caption 2 images")


# -- trying ----------------------------------------------------------------------------------------


@pytest.mark.fine
def test_what_was_in_the_way_is_looked_at_again_when_somebody_comes_back(desk):
    at = desk()
    at.more = {"errors": [{"error": "torch is missing.", "field": "model"}], "images": 0}
    dialog = open_dialog(at.page)
    expect(dialog.get_by_text("torch is missing.")).to_be_visible()
    at.more = {}
    at.page.evaluate("window.dispatchEvent(new Event('focus'))")
    expect(dialog.get_by_role("button", name="Caption 2 images")).to_be_enabled()
    expect(dialog.get_by_text("torch is missing.")).to_have_count(0)


@pytest.mark.fine
def test_a_server_that_was_away_is_asked_again_by_itself(desk):
    at = desk()
    at.page.route("**/captions/check", lambda route: route.abort())
    dialog = open_dialog(at.page)
    go = dialog.get_by_role("button", name="Caption images")
    expect(go).to_be_disabled()
    at.page.unroute("**/captions/check")
    at.page.route("**/captions/check", at.check)
    expect(dialog.get_by_role("button", name="Caption 2 images")).to_be_enabled(timeout=15_000)


def test_a_trial_goes_on_without_the_dialog_and_its_text_can_be_used(desk, server):
    at = desk()
    dialog = open_dialog(at.page)
    expect(dialog.get_by_label("Try on")).to_have_value("ball 1.jpg")
    dialog.get_by_role("button", name="Try it").click()
    expect(dialog.get_by_text("Waiting in the queue")).to_be_visible()
    assert at.posted[0]["which"] == ["ball 1.jpg"] and at.posted[0]["trial"] is True
    at.job("cap1", "running", "fetch", unit="B", step=812_000_000, total=1_880_000_000)
    expect(dialog.get_by_text("Downloading the model: 812 MB / 1.9 GB")).to_be_visible()
    at.job("cap1", "running")
    expect(dialog.get_by_text("Loading the model…")).to_be_visible()
    at.page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    at.made("cap1", {"name": "ball 1.jpg", "text": "a ball on a lawn"})
    at.job("cap1", "succeeded", unit="image", step=1, total=1)
    expect(at.page.get_by_role("heading", name="Captioning completed")).to_be_visible()
    dialog = open_dialog(at.page)
    expect(dialog.get_by_text("a ball on a lawn")).to_be_visible()
    expect(dialog.get_by_role("button", name="Try again")).to_be_enabled()
    assert at.text("ball 1.jpg") == ""
    dialog.get_by_role("button", name="Use this text").click()
    expect(dialog.get_by_text("It is the caption now.")).to_be_visible()
    assert at.text("ball 1.jpg") == "a ball on a lawn"
    expect(at.page.locator("[data-captioned]")).to_have_count(0)


@pytest.mark.fine
def test_a_trial_can_be_stopped_and_says_why_it_failed(desk, server):
    at = desk()
    dialog = open_dialog(at.page)
    dialog.get_by_role("button", name="Try it").click()
    at.job("cap1", "running", unit="image", step=0, total=1)
    expect(dialog.get_by_text("Captioning…")).to_be_visible()
    expect(dialog.get_by_role("button", name="Stop the trial")).to_be_focused()
    dialog.get_by_role("button", name="Stop the trial").click()
    expect(dialog.get_by_text("Stopping…")).to_be_visible()
    at.job("cap1", "stopped")
    expect(dialog.get_by_text("Stopped.")).to_be_visible()
    dialog.get_by_role("button", name="Try again").click()
    at.job("cap2", "failed", reason="The graphics card is full.")
    expect(dialog.get_by_text("The graphics card is full.")).to_be_visible()


# -- the run ---------------------------------------------------------------------------------------


def test_start_saves_what_is_typed_and_leads_to_the_run_card(desk):
    at = desk()
    page = at.page
    dialog = open_dialog(page)
    dialog.get_by_role("radio", name="BLIP").check()
    go(dialog, "Caption 2 images").click()
    expect(dialog).to_be_hidden()
    assert at.posted == [
        {"model": "blip-large", "max_tokens": 160, "detail": 3, "which": "empty", "mode": "keep"}
    ]
    expect(page.locator("#run-title")).to_be_focused()
    expect(page.get_by_role("heading", name="Waiting in the queue")).to_be_visible()
    at.job("cap1", "running", "fetch", unit="B", step=812_000_000, total=1_880_000_000, per_s=45e6)
    expect(page.get_by_role("heading", name="Downloading the caption model")).to_be_visible()
    card = page.locator("[data-run-card]")
    expect(card).to_contain_text(re.compile(r"Downloaded\s*812 MB / 1.9 GB"))
    expect(card).to_contain_text("45 MB/s")
    expect(page).to_have_title(re.compile("43 % · 812 MB/1.9 GB · ball"))
    at.job("cap1", "running", unit="image", step=1, total=2, seconds_per_step=1.5, eta_s=2)
    expect(page.get_by_role("heading", name="Captioning in progress")).to_be_visible()
    expect(card).to_contain_text(re.compile(r"Images\s*1 / 2"))
    expect(card).to_contain_text("1.5 s/image")
    expect(card.get_by_text("Epoch", exact=True)).to_be_hidden()
    expect(card.get_by_text("Loss", exact=True)).to_be_hidden()
    expect(page.get_by_label("At a glance")).to_contain_text("Captioning")
    expect(page).to_have_title(re.compile("50 % · 1/2 images · ball"))
    page.get_by_role("button", name="Stop captioning").click()
    expect(page.get_by_text("Captions written so far stay")).to_be_visible()
    page.get_by_role("button", name="Keep captioning").click()


def test_texts_come_while_a_card_is_edited_and_disturb_nobody(desk, server):
    at = desk()
    page = at.page
    at.job("run", "running", unit="image", step=0, total=2)
    mine = caption(page, 3)
    page.route("**/caption?*", lambda route: route.abort() if blocked else route.continue_())
    blocked = True
    mine.fill("what I type myself")
    mine.evaluate("(area) => area.setSelectionRange(4, 4)")
    place = page.evaluate("document.querySelector('[data-cards]').scrollTop")
    for number in (1, 2):
        text = f"written by the model, {number}"
        server.put(f"/api/projects/ball/images/{NAMES[number]}/caption", {"text": text})
    expect(caption(page, 2)).to_have_value("written by the model, 1")
    expect(page.get_by_text("Changed elsewhere meanwhile")).to_be_visible()
    expect(mine).to_have_value("what I type myself")
    expect(mine).to_be_focused()
    assert mine.evaluate("(area) => area.selectionStart") == 4
    assert page.evaluate("document.querySelector('[data-cards]').scrollTop") == place
    page.get_by_role("button", name="Take the other one").click()
    expect(mine).to_have_value("written by the model, 2")


def test_at_the_end_it_says_what_was_written_and_skipped_and_how_to_go_back(desk, server):
    at = desk()
    page = at.page
    at.job("run", "running", unit="image", step=1, total=2)
    expect(page.get_by_role("heading", name="Captioning in progress")).to_be_visible()
    edits.begin_run(at.project, "Captions by BLIP large", "run")
    at.made(
        "run",
        {"name": "ball 1.jpg", "before": "", "after": "a new text"},
        {"name": "ball 2.jpg", "problem": "It cannot be read."},
    )
    server.put("/api/projects/ball/images/ball 1.jpg/caption", {"text": "a new text"})
    at.job("run", "succeeded", unit="image", step=2, total=2)
    notice = page.locator("[data-captioned]")
    expect(notice).to_contain_text("1 caption written, 1 image skipped.")
    expect(notice).to_contain_text("ball 2.jpg: It cannot be read.")
    card = page.locator("[data-run-card]")
    expect(card).to_contain_text("Captioning completed")
    expect(card).to_contain_text("1 caption written, 1 image skipped.")
    expect(card).not_to_contain_text("LoRA")
    again = page.locator("[data-undo]")
    expect(again).to_be_visible()
    notice.get_by_role("button", name="Show them").click()
    expect(page.get_by_text("1 of 4 images shown")).to_be_visible()
    notice.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("1 caption as before.")).to_be_visible()
    assert at.text("ball 1.jpg") == ""
    expect(notice).to_have_count(0)


@pytest.mark.fine
def test_the_notice_goes_with_its_folder(desk, server):
    at = desk()
    at.job("run", "running", unit="image", step=1, total=2)
    expect(at.page.get_by_role("heading", name="Captioning in progress")).to_be_visible()
    at.made("run", {"name": "ball 1.jpg", "problem": "It cannot be read."})
    at.job("run", "succeeded", unit="image", step=2, total=2)
    expect(at.page.locator("[data-captioned]")).to_have_count(1)
    server.post("/api/projects", {"name": "other"})
    at.page.get_by_label("Output folder", exact=True).fill("other")
    at.page.get_by_label("Output folder", exact=True).press("Tab")
    expect(at.page.locator("[data-captioned]")).to_have_count(0)


@pytest.mark.fine
def test_the_page_of_runs_offers_no_training_for_a_captioning(desk, server):
    at = desk()
    page = at.page
    at.job("past", "succeeded", unit="image", step=40, total=40)
    at.job("now", "running", unit="image", step=12, total=40, eta_s=9)
    page.goto(f"{server.url}/runs")
    expect(page.get_by_text("12 / 40 images")).to_be_visible()
    expect(page.get_by_role("cell", name="40 / 40 images")).to_be_visible()
    page.get_by_role("button", name=re.compile("^Stop Captioning")).click()
    expect(page.get_by_role("button", name="Stop captioning", exact=True)).to_be_visible()
    page.get_by_role("button", name="Keep captioning").click()
    page.locator("[data-run='past']").get_by_role("button", name="Details Captioning").click()
    details = page.get_by_role("dialog", name="Captioning ball")
    expect(details.get_by_text("40 / 40 images")).to_be_visible()
    expect(details.get_by_text("Use these settings")).to_have_count(0)
    expect(details.get_by_text("Start again")).to_have_count(0)


# -- hands and devices -----------------------------------------------------------------------------


def test_the_keyboard_alone_leads_through_the_dialog(desk):
    at = desk()
    page = at.page
    page.get_by_label("Search captions and file names").focus()
    tab_to(page, "Auto-caption images")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Auto-caption images")
    expect(dialog.get_by_role("radio", name="ViT-GPT2")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(dialog.get_by_role("radio", name="BLIP")).to_be_checked()
    tab_to(page, "Without a caption")
    page.keyboard.press("ArrowUp")
    expect(dialog.get_by_role("radio", name="Chosen")).to_be_checked()
    tab_to(page, "ball 0.jpg")
    page.keyboard.press("End")
    page.keyboard.press("Space")
    expect(dialog.get_by_role("radio", name="Chosen (1)")).to_be_checked()
    tab_to(page, "Keep them")
    page.keyboard.press("ArrowDown")
    go(dialog, "Caption 1 image")
    tab_to(page, "Caption 1 image")
    page.keyboard.press("Enter")
    wait_in(page, lambda: at.posted, "the wish")
    assert (at.posted[0]["which"], at.posted[0]["mode"]) == (["ball 3.jpg"], "replace")
    expect(page.locator("#run-title")).to_be_focused()


@pytest.mark.fine
def test_escape_and_back_close_it_and_the_page_stays(desk):
    page = desk().page
    dialog = open_dialog(page)
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name="Auto-caption images")).to_be_focused()
    dialog = open_dialog(page)
    page.go_back()
    expect(dialog).to_be_hidden()
    expect(caption(page, 4)).to_be_visible()


NAMELESS = """() => [...document.querySelectorAll(
    ".captioner :is(button, input, select, textarea, summary, progress)")]
    .filter((node) => node.checkVisibility() && !(node.ariaLabel || node.textContent.trim()
        || node.labels?.length || node.getAttribute("aria-labelledby")))
    .map((node) => node.outerHTML)"""


@pytest.mark.fine
def test_a_phone_has_room_for_it(desk):
    page = desk().page
    page.set_viewport_size({"width": 390, "height": 844})
    dialog = open_dialog(page)
    for model in ("BLIP large", "Qwen"):
        dialog.get_by_role("radio", name=model).check()
        assert page.evaluate(NAMELESS) == []
    dialog.get_by_role("radio", name="Chosen").check()
    assert dialog.locator(".cap-body").evaluate("(box) => box.scrollWidth - box.clientWidth") <= 0
    expect(dialog.get_by_role("button", name="Caption images")).to_be_in_viewport()
