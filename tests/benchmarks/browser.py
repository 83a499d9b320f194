"""The page in a real browser: paint, layout shift, log lines, a burst, a thousand images."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ground import (
    Bench,
    Row,
    fill_log,
    floor_server,
    judge,
    median,
    percentile,
    skipped,
    spread,
    submit,
    until_ended,
)
from page import fill
from support import wait_until

CHROMIUM = os.environ.get("MUSUBITLX_CHROMIUM") or shutil.which("chromium")
PAINTS, TICKS, BURST = 5, 60, 20_000
NO_SHIFT = 0.005  # a score nobody sees

# Notes when a line was to be seen. The page writes in animation frames, so the first task after
# the change comes when that frame has been painted.
LINES_SEEN = r"""
window.seen = new Map();
const painted = new MessageChannel();
painted.port1.onmessage = ({ data }) => {
  const now = performance.timeOrigin + performance.now();
  for (const [number, printed] of data) {
    if (!seen.has(number)) seen.set(number, now - Number(printed) / 1e6);
  }
};
const look = (text) => [...text.matchAll(/tick (\d+) \d+ (\d+)/g)].map((m) => [m[1], m[2]]);
new MutationObserver((records) => {
  const found = records.flatMap((record) =>
    record.type === "characterData"
      ? look(record.target.data.slice(record.oldValue.length))
      : [...record.addedNodes].flatMap((node) => look(node.textContent)),
  );
  if (found.length) painted.port2.postMessage(found);
}).observe(document, {
  subtree: true, childList: true, characterData: true, characterDataOldValue: true,
});
"""

# Notes every task above 50 ms, every gap between two frames, and every layout shift.
FREEZES = """
window.tasks = [];
window.gaps = [];
window.shift = 0;
const on = (type, action) => {
  const observer = new PerformanceObserver((list) => list.getEntries().forEach(action));
  observer.observe({ type, buffered: true });
};
on("longtask", (entry) => tasks.push(entry.duration));
on("layout-shift", (entry) => (shift += entry.hadRecentInput ? 0 : entry.value));
let before = null;
const frame = (now) => {
  if (before !== null) gaps.push(now - before);
  before = now;
  requestAnimationFrame(frame);
};
requestAnimationFrame(frame);
"""

PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? -1"

# Notes when the first card and when the thousandth was there (ms since the navigation began).
CARDS_THERE = r"""
window.cards = {};
const count = () => {
  const there = document.querySelectorAll("[data-cards] > li:not(.card-skeleton)").length;
  if (there > 0) cards.first ??= performance.now();
  if (there >= 1000) cards.all ??= performance.now();
  if (there < 1000) requestAnimationFrame(count);
};
requestAnimationFrame(count);
"""

SCROLL = """
async () => {
  let box = document.querySelector("[data-cards]");
  const scrolls = (node) => node.scrollHeight > node.clientHeight + 50
    && /auto|scroll/.test(getComputedStyle(node).overflowY);
  while (box && !scrolls(box)) box = box.parentElement;
  box ??= document.scrollingElement;
  const frame = () => new Promise(requestAnimationFrame);
  const gaps = [];
  let before = await frame();
  for (let i = 0; i < 90; i += 1) {
    box.scrollTop += 400;
    const now = await frame();
    gaps.push(now - before);
    before = now;
  }
  return [gaps, box.scrollTop];
}
"""


LIT = "[...(CSS.highlights.get('found') ?? [])].map(String)"


def rows(bench: Bench) -> Iterator[Row]:
    """All of it in one browser, each measurement in a fresh profile."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        yield skipped("in the browser", "playwright is not installed")
        return
    if not CHROMIUM:
        yield skipped("in the browser", "no Chromium")
        return
    with sync_playwright() as driver, bench.program() as program:
        flags = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield first_paint(browser, program)
        yield line_seen(browser, program)
        yield burst(bench, browser, program)
        yield from long_log(browser, program)
        yield from thousand(browser, program)
        browser.close()


@contextmanager
def opened(browser, script: str):
    """A page of a fresh profile that runs `script` before anything of its own."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.add_init_script(script)
    try:
        yield page
    finally:
        context.close()


def first_paint(browser, program) -> Row:
    """First contentful paint, nothing in the browser's cache; and what shifts afterwards."""
    times, shifts = [], []
    for _ in range(PAINTS):
        with opened(browser, FREEZES) as page:
            page.goto(program.url + "/")
            page.wait_for_timeout(1000)
            times.append(page.evaluate(PAINTED))
            shifts.append(page.evaluate("shift"))
    floor = median(floor_paint(browser) for _ in range(3))
    return Row(
        f"browser: first paint, cold (median and best of {PAINTS}); layout shift",
        f"{median(times):.0f} ms, {min(times):.0f} ms; {max(shifts):.3f}",
        "100 ms; 0",
        f"bare text {floor:.0f} ms",
        judge(median(times) <= 100 and max(shifts) < NO_SHIFT, min(times) > 0),
        {"ms": times, "shift": shifts, "floor_ms": floor},
    )


def floor_paint(browser) -> float:
    """The same for 2000 letters from a bare server."""
    with floor_server("floor_sse.py", 1, "true") as port, opened(browser, "") as page:
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_timeout(300)
        return page.evaluate(PAINTED)


def line_seen(browser, program) -> Row:
    """A line printed by the trainer until it is painted."""
    job = submit(program, "ticker.py", 10, TICKS)
    with opened(browser, LINES_SEEN) as page:
        page.goto(f"{program.url}/?job={job.id}")
        until_ended(program, job.id)
        page.wait_for_timeout(500)
        found = page.evaluate("[...seen]")
    delays = [delay for number, delay in found if int(number) >= 5]  # the page had loaded
    right = sorted(int(number) for number, _ in found) == list(range(TICKS))
    return Row(
        "browser: line printed -> painted, 10/s (p50 / p95 / max)",
        spread(delays) if right else f"{len(found)} of {TICKS} lines",
        "33 ms (median)",
        "",
        judge(percentile(delays, 0.5) <= 33, right),
        {"ms": delays},
    )


def burst(bench: Bench, browser, program) -> Row:
    """20 000 lines at once: the longest task and the longest gap between two frames."""
    report = bench.fresh() / "report.json"
    with opened(browser, FREEZES) as page:
        page.goto(program.url + "/")
        page.wait_for_timeout(1500)
        page.evaluate("tasks.length = gaps.length = 0")
        job = submit(program, "burst.py", BURST, report)
        until_ended(program, job.id)
        page.wait_for_timeout(1500)
        tasks, gaps = page.evaluate("[tasks, gaps]")
        text = page.evaluate("document.querySelector('[data-log-lines]').textContent")
    right = text.count("burst ") == BURST and f"burst {BURST - 1:07d}" in text
    longest = max([0, *tasks])
    return Row(
        f"browser: {BURST} lines at once: longest task, longest gap between frames",
        f"{f'{longest:.0f}' if tasks else 'none over 50'} ms, {max(gaps):.0f} ms"
        if right
        else f"{text.count('burst ')} lines there",
        "50 ms",
        "",
        judge(longest <= 50, right),
        {"tasks_ms": tasks, "gap_ms": max(gaps)},
    )


def long_log(browser, program) -> Iterator[Row]:
    """A log of 100 MB: scrolling up through it, and a search for a line in its middle."""
    log = program.home / "output/bare/training_log_browser.log"
    fill_log(log)
    job = submit(program, "ticker.py", 10, 1, log=str(log))
    until_ended(program, job.id)
    with opened(browser, FREEZES) as page:
        page.goto(f"{program.url}/?job={job.id}")
        page.get_by_text("TRAINING COMPLETED!").wait_for()
        page.wait_for_timeout(1000)
        page.evaluate("tasks.length = gaps.length = 0")
        page.locator("[data-log-pane]").hover()
        for _ in range(150):
            page.mouse.wheel(0, -2500)
            page.wait_for_timeout(20)
        tasks, gaps = page.evaluate("[tasks, gaps]")
        blocks = page.locator(".log-block").count()
        page.get_by_role("button", name="Search", exact=True).click()
        began = time.monotonic()
        page.get_by_role("searchbox", name="Search the log").fill("old 00800000")
        wait_in(page, lambda: page.evaluate(LIT) == ["old 00800000"])
        found = time.monotonic() - began
    longest = f"{max(tasks):.0f} ms" if tasks else "none over 50 ms"
    yield Row(
        "browser: 100 MB log, scrolling up: longest task, gap between frames (p95), lines kept",
        f"{longest}, {percentile(gaps, 0.95):.0f} ms, {blocks * 100}",
        "50 ms, 50 ms",
        "",
        judge(max(tasks, default=0) <= 50 and percentile(gaps, 0.95) <= 50, blocks <= 500),
        {"tasks": tasks, "gaps": gaps},
    )
    yield Row(
        "browser: 100 MB log: a line in the middle found and lit up",
        f"{found * 1000:.0f} ms",
        "1 s",
        "",
        judge(found <= 1, True),
        {"s": found},
    )


def wait_in(page, condition, seconds: float = 20) -> None:
    """Wait for something in the page."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        page.wait_for_timeout(10)


def thousand(browser, program) -> Iterator[Row]:
    """A folder of 1000 images: opening it, then scrolling through it."""
    fill(program.home / "output" / "thousand", 1000)
    opens = [open_thousand(browser, program) for _ in range(3)]
    first = median(one["first"] for one in opens)
    everything, shift = median(one["all"] for one in opens), max(one["shift"] for one in opens)
    yield Row(
        "browser: 1000 images: first card, all cards; layout shift",
        f"{first:.0f} ms, {everything:.0f} ms; {shift:.3f}",
        "1 s; 0",
        "",
        judge(everything <= 1000 and shift < NO_SHIFT),
        {"opens": opens},
    )
    gaps = min((one["gaps"] for one in opens), key=lambda gaps: percentile(gaps, 0.95))
    least = floor_scroll(browser, program)
    yield Row(
        "browser: 1000 images: gaps between frames while scrolling (p50 / p95 / max, best of 3)",
        spread(gaps),
        "p95 34 ms",
        f"bare list {spread(least)}",
        judge(percentile(gaps, 0.95) <= 34, all(one["scrolled"] for one in opens)),
        {"ms": gaps, "floor_ms": least},
    )


def open_thousand(browser, program) -> dict:
    """Open the folder in a fresh profile and scroll down."""
    with opened(browser, FREEZES + CARDS_THERE) as page:
        page.goto(f"{program.url}/?project=thousand")
        wait_until(lambda: page.evaluate("cards.all"), what="1000 cards")
        page.wait_for_timeout(500)
        told = page.evaluate("({ ...cards, shift })")
        gaps, scrolled = page.evaluate(SCROLL)
    return {**told, "gaps": gaps, "scrolled": scrolled}


def floor_scroll(browser, program) -> list[float]:
    """Scroll a bare list of the same thumbnails with a text field each."""
    image = "/api/projects/thousand/images/image%20{}.jpg/thumb"
    items = (
        f'<li><img src="{image.format(n)}" loading=lazy width=160 height=160><textarea></textarea>'
        for n in range(1000)
    )
    with opened(browser, "") as page:
        page.goto(program.url + "/healthz")
        page.set_content(f"<!doctype html><ol data-cards>{''.join(items)}</ol>")
        page.wait_for_timeout(500)
        return page.evaluate(SCROLL)[0]
