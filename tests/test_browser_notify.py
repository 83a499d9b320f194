"""Who is told when a run ends: the dialog, and the browser's own notifications."""

from __future__ import annotations

import json

import pytest
from browsing import expect, needs_chromium, tab_to, wait_in
from support import SMALL, pictures
from test_notify import SECRET, service  # noqa: F401

pytestmark = needs_chromium

# A browser whose user answers as told, and that notes what is shown; `hide()` puts the page away.
BROWSER = """
window.shown = [];
window.Notification = class extends EventTarget {
    static permission = localStorage.getItem("answer") ? "granted" : "default";
    static async requestPermission() {
        window.asked = (window.asked ?? 0) + 1;
        if (!window.refuses) localStorage.setItem("answer", "yes");
        return (Notification.permission = window.refuses ? "denied" : "granted");
    }
    constructor(title, options) { super(); window.shown.push([title, options.body]); }
    close() {}
};
let hidden = false;
Object.defineProperty(document, "hidden", { get: () => hidden });
window.hide = (now) => { hidden = now; document.dispatchEvent(new Event("visibilitychange")); };
"""
OPENER = "Tell me when a run ends"
HERE = "Show a notification while no page of MusubiTLX is in view"


@pytest.fixture
def ball(program):
    server = program("--practice", env={"NO_PROXY": "*", "no_proxy": "*"})
    server.post("/api/projects", {"name": "ball"})
    assert server.upload("ball", pictures(3)).status_code == 201
    return server


def opened(page):
    page.get_by_role("button", name=OPENER).click()
    dialog = page.get_by_role("dialog", name="When a run ends")
    expect(dialog).to_be_visible()
    return dialog


def test_an_address_is_set_tried_and_taken_back(ball, visit, service):  # noqa: F811
    web = service()
    page = visit(f"{ball.url}/?project=ball")
    dialog = opened(page)
    expect(dialog.get_by_text("only you can read")).to_be_visible()
    dialog.get_by_label("Service").select_option("slack")
    dialog.get_by_label("Address (webhook)").fill(web.url)
    dialog.get_by_role("button", name="Send a test").click()
    expect(dialog.get_by_text("Sent to 127.0.0.1. Did it arrive?")).to_be_visible()
    assert "MusubiTLX: a test" in json.loads(web.got[0]["body"])["text"]
    assert ball.get("/api/notify")["kind"] is None  # a test keeps nothing
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_text("A message goes to 127.0.0.1")).to_be_visible()
    dialog.get_by_role("button", name="Close").click()

    page.reload()
    dialog = opened(page)
    expect(dialog.get_by_label("Service")).to_have_value("slack")
    expect(dialog.get_by_label("Address (webhook)")).to_have_value("")
    expect(dialog.get_by_text("An address at 127.0.0.1 is set")).to_be_visible()
    assert SECRET not in page.content()
    ball.wait_for(ball.post("/api/projects/ball/train", {"settings": SMALL})["id"])
    wait_in(page, lambda: len(web.got) == 2, "word of the run")
    wait_in(page, lambda: ball.get("/api/notify")["last"], "how it fared")
    dialog.get_by_role("button", name="Close").click()
    expect(opened(page).get_by_text("Sent to 127.0.0.1.")).to_be_visible()
    dialog.get_by_role("button", name="Send nothing any more").click()
    expect(dialog.get_by_text("Nothing is sent any more.")).to_be_visible()
    expect(dialog.get_by_role("button", name="Send nothing any more")).to_be_hidden()
    assert not (ball.home / "configs/notify.yaml").exists()


@pytest.mark.fine
def test_another_service_wants_an_address_of_its_own(ball, visit, service):  # noqa: F811
    ball.put("/api/notify", {"kind": "ntfy", "url": service().url})
    page = visit(f"{ball.url}/?project=ball")
    page.get_by_role("button", name="Tell me when a run ends").click()
    dialog = page.get_by_role("dialog", name="When a run ends")
    expect(dialog).to_contain_text("leave this empty to keep it")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_contain_text("Saved.")
    dialog.get_by_label("Service").select_option("discord")
    expect(dialog).not_to_contain_text("Saved.")
    expect(dialog).not_to_contain_text("to keep it")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_contain_text("Enter the address messages go to.")
    assert ball.get("/api/notify")["kind"] == "ntfy"


@pytest.mark.fine
def test_what_is_wrong_is_said_at_the_field(ball, visit):
    page = visit(f"{ball.url}/?project=ball")
    tab_to(page, OPENER)
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="When a run ends")
    field = dialog.get_by_label("Address (webhook)")
    field.fill("not an address")
    page.keyboard.press("Enter")
    expect(dialog.get_by_text("This is no address of a webhook.")).to_be_visible()
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "true")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name=OPENER)).to_be_focused()


def with_wish(visit, server):
    """A page whose user has said yes to notifications."""
    page = visit("about:blank")
    page.add_init_script(BROWSER)
    page.goto(f"{server.url}/?project=ball")
    opened(page).get_by_label(HERE).check()
    expect(page.get_by_text("as long as the page is open in a tab")).to_be_visible()
    page.get_by_role("button", name="Close", exact=True).click()
    return page


def another(page, server):
    second = page.context.new_page()
    second.add_init_script(BROWSER)
    second.goto(f"{server.url}/?project=ball")
    expect(second.get_by_role("button", name=OPENER)).to_be_visible()
    second.wait_for_timeout(500)
    return second


def run(server) -> str:
    return server.post("/api/projects/ball/train", {"settings": SMALL})["id"]


def shown(page) -> list:
    return page.evaluate("window.shown")


@pytest.mark.fine
def test_permission_is_asked_by_a_click_only(ball, visit):
    page = visit("about:blank")
    page.add_init_script(BROWSER)
    page.goto(f"{ball.url}/?project=ball")
    dialog = opened(page)
    assert page.evaluate("window.asked ?? 0") == 0
    page.evaluate("window.refuses = true")
    dialog.get_by_label(HERE).click()
    expect(dialog.get_by_text("The browser blocks notifications of this page")).to_be_visible()
    expect(dialog.get_by_label(HERE)).not_to_be_checked()
    assert page.evaluate("window.asked") == 1


def test_hidden_pages_tell_once_of_each_run_of_the_queue(ball, visit):
    page = with_wish(visit, ball)
    second = another(page, ball)
    for one in (page, second):
        one.evaluate("hide(true)")
    first, later = run(ball), run(ball)
    page.wait_for_timeout(200)
    for job in (first, later):
        ball.wait_for(job)
    wait_in(page, lambda: len(shown(page) + shown(second)) == 2, "two notifications", 25)
    page.wait_for_timeout(6000)
    told = shown(page) + shown(second)
    assert told == [["Completed: ball", "ball.safetensors"]] * 2


@pytest.mark.fine
def test_nothing_is_shown_where_somebody_looks(ball, visit):
    page = with_wish(visit, ball)
    second = another(page, ball)  # in view
    page.evaluate("hide(true)")
    ball.wait_for(run(ball))
    page.wait_for_timeout(6000)
    assert shown(page) == shown(second) == []
    second.evaluate("hide(true)")  # and now nobody looks
    page.wait_for_timeout(300)
    ball.wait_for(run(ball))
    wait_in(page, lambda: len(shown(page) + shown(second)) == 1, "a notification", 15)
