"""A long log on the page: only a part of it is there, and all of it can be reached."""

from __future__ import annotations

import re
import sys

import pytest
from browsing import expect, needs_chromium, wait_in
from support import bare_plan, wait_until

from musubitlx.home import Home
from musubitlx.jobs import Jobs

pytestmark = needs_chromium

LINES = 400_000
PRINT = """
import sys, time
lines, slow = int(sys.argv[1]), int(sys.argv[2])
text = "".join(f"line {n} of it, and {'w' * (n % 60)}\\n" for n in range(lines))
sys.stdout.write(text)
sys.stdout.write("L" + "x" * 5000 + "\\n")
for n in range(slow):
    print(f"slow {n}", flush=True)
    time.sleep(0.05)
"""
SHOWN = """() => {
    const pane = document.querySelector("[data-log-pane]");
    const {top, bottom} = pane.getBoundingClientRect();
    const blocks = [...document.querySelectorAll(".log-block")];
    return blocks.filter((block) => {
        const box = block.getBoundingClientRect();
        return box.bottom > top && box.top < bottom;
    }).map((block) => block.textContent).join("");
}"""
ALL = """() => document.querySelector("[data-log-lines]").textContent"""
LIT = """() => {
    const [range] = [...(CSS.highlights.get("found") ?? [])];
    if (!range) return null;
    const box = range.getBoundingClientRect();
    const pane = document.querySelector("[data-log-pane]").getBoundingClientRect();
    return [range.toString(), box.top >= pane.top && box.bottom <= pane.bottom];
}"""


def printed(server, lines: int, slow: int = 0) -> str:
    """A job that prints so many lines at once, then some more slowly; its id."""
    home = Home(server.home)
    plan = bare_plan(home, [sys.executable, "-c", PRINT, str(lines), str(slow)])
    return Jobs(home).submit(plan).id


@pytest.fixture
def long_log(live_server):
    live_server.job = printed(live_server, LINES)
    live_server.wait_for(live_server.job, seconds=60)
    return live_server


def open_log(visit, server):
    page = visit(f"{server.url}/?job={server.job}")
    expect(page.get_by_role("log")).to_contain_text("TRAINING COMPLETED!")
    return page


def numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"^line (\d+) of it", text, re.M)]


def go(page, key: str, arrived) -> None:
    """Press a key until the numbers of the lines in the page say that one has arrived."""
    for _ in range(300):
        page.keyboard.press(key)
        page.wait_for_timeout(60)
        if arrived(numbers(page.evaluate(ALL))):
            return
    raise AssertionError(f"{key} never led there")


def search(page):
    page.get_by_role("button", name="Search", exact=True).click()
    return page.get_by_role("searchbox", name="Search the log")


def lit(page, text: str) -> None:
    """What is lit up is this, and in view."""
    wait_in(page, lambda: page.evaluate(LIT) == [text, True], f"{text}: {page.evaluate(LIT)}")


def test_scrolling_up_brings_what_comes_before_without_gap_or_double(long_log, visit):
    page = open_log(visit, long_log)
    pane = page.get_by_role("log")
    first = numbers(page.evaluate(ALL))[0]
    assert 0 < first < LINES
    expect(page.get_by_text("of the log come before this")).to_be_attached()
    pane.focus()
    go(page, "Home", lambda there: there[0] < first - 20_000)
    there = numbers(page.evaluate(ALL))
    assert there == list(range(there[0], there[0] + len(there)))
    assert page.locator(".log-block").count() <= 500
    go(page, "End", lambda there: there[-1] == LINES - 1)
    expect(pane).to_contain_text("TRAINING COMPLETED!")
    there = numbers(page.evaluate(ALL))
    assert there == list(range(there[0], LINES))
    assert page.locator(".log-block").count() <= 500


@pytest.mark.fine
def test_what_is_read_stays_in_place_while_lines_are_put_before_it(long_log, visit):
    page = open_log(visit, long_log)
    page.get_by_role("log").hover()
    page.mouse.wheel(0, -60_000)
    page.wait_for_timeout(500)
    before = numbers(page.evaluate(SHOWN))
    page.mouse.wheel(0, -300)  # near the upper edge: more is fetched and put before it
    page.wait_for_timeout(1000)
    after = numbers(page.evaluate(SHOWN))
    assert abs(after[0] - before[0]) < 400


def test_any_line_of_a_long_log_is_found_lit_up_and_stepped_through(long_log, visit):
    page = open_log(visit, long_log)
    field = search(page)
    field.fill("LINE 1234 of it")
    expect(page.get_by_text("1 of 1 line", exact=True)).to_be_visible()
    lit(page, "line 1234 of it")
    assert page.get_by_role("button", name="Follow the log").is_visible()

    field.fill("line 39999")
    expect(page.get_by_text("of 11 lines")).to_be_visible()  # 39999, 399990 to 399999
    lit(page, "line 39999")
    seen = set()
    for _ in range(11):
        page.keyboard.press("Enter")
        lit(page, "line 39999")
        seen.add(page.get_by_role("status").filter(has_text="of 11 lines").inner_text())
    assert len(seen) == 11

    field.fill("no such thing")
    expect(page.get_by_text("Not found")).to_be_visible()
    page.keyboard.press("Escape")
    expect(field).to_be_hidden()
    expect(page.get_by_role("button", name="Search", exact=True)).to_be_focused()
    page.get_by_role("button", name="Follow the log").click()
    expect(page.get_by_role("log")).to_contain_text("TRAINING COMPLETED!")


@pytest.mark.fine
def test_lines_behind_a_very_long_one_are_found_where_they_are(long_log, visit):
    page = open_log(visit, long_log)
    search(page).fill("training completed")
    lit(page, "TRAINING COMPLETED")


@pytest.mark.fine
def test_far_up_in_a_log_that_grows_nothing_moves_and_the_end_is_whole(live_server, visit):
    live_server.job = printed(live_server, LINES, slow=120)
    wait_until(lambda: "slow 3" in live_server.log(live_server.job)[-400:], what="slow lines")
    page = visit(f"{live_server.url}/?job={live_server.job}")
    expect(page.get_by_role("log")).to_contain_text("slow 5")
    search(page).fill("line 777 of it")
    lit(page, "line 777 of it")
    page.wait_for_timeout(1000)
    lit(page, "line 777 of it")
    page.get_by_role("button", name="Follow the log").click()
    expect(page.get_by_role("log")).to_contain_text("TRAINING COMPLETED!", timeout=30_000)
    text = page.evaluate(ALL)
    slow = [int(n) for n in re.findall(r"^slow (\d+)$", text, re.M)]
    assert slow == list(range(120))
    there = numbers(text)
    assert there == list(range(there[0], LINES))


@pytest.mark.fine
def test_a_short_log_is_copied_whole(live_server, visit):
    live_server.job = printed(live_server, 12_000)
    live_server.wait_for(live_server.job, seconds=60)
    page = open_log(visit, live_server)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_text("Log copied.")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == live_server.log(live_server.job)
