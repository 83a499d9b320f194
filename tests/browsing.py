"""Driving the page in a real Chromium, by role and label as a person uses it."""

from __future__ import annotations

import os
import shutil

import pytest

try:
    from playwright import sync_api
    from playwright.sync_api import expect
except ImportError:
    sync_api = expect = None

CHROMIUM = os.environ.get("MUSUBITLX_CHROMIUM") or shutil.which("chromium")
needs_chromium = pytest.mark.skipif(
    not CHROMIUM or sync_api is None,
    reason="NO CHROMIUM: name one in MUSUBITLX_CHROMIUM" if sync_api else "NO PLAYWRIGHT",
)

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def browser():
    """One Chromium for all tests of a file."""
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def visit(browser):
    """A function that opens an address in a browser of its own; no script may fail in it."""
    contexts, mistakes = [], []

    def open_page(url: str, **context):
        context.setdefault("viewport", {"width": 1366, "height": 768})
        contexts.append(browser.new_context(**context))
        page = contexts[-1].new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: mistakes.append(str(error)))
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not mistakes, mistakes  # named here: pytest explains the asserts of tests only


def drop(page, files: dict[str, bytes], on: str = "[data-drop]") -> None:
    """Let go of files over the page, as from a file manager."""
    transfer = page.evaluate_handle(
        """(files) => {
            const transfer = new DataTransfer();
            for (const [name, bytes] of files) {
                transfer.items.add(new File([new Uint8Array(bytes)], name));
            }
            return transfer;
        }""",
        [[name, list(data)] for name, data in files.items()],
    )
    for kind in ("dragenter", "dragover", "drop"):
        page.dispatch_event(on, kind, {"dataTransfer": transfer})


def caption(page, number: int):
    """The caption field of an image, from 1."""
    return page.get_by_label(f"Caption for image {number}", exact=True)


NAME_OF_FOCUSED = """(() => {
    const node = document.activeElement;
    return node.labels?.[0]?.textContent ?? node.getAttribute("aria-label") ?? node.textContent;
})()"""


def tab_to(page, name: str, *, most: int = 120, key: str = "Tab") -> None:
    """Press Tab until what has the focus is called `name`, in part."""
    for _ in range(most):
        page.keyboard.press(key)
        if name in page.evaluate(NAME_OF_FOCUSED):
            return
    raise AssertionError(f"{key} never came to {name}")


def wait_in(page, condition, what: str, seconds: float = 15) -> None:
    """Wait for something outside the page while its routes go on being answered."""
    for _ in range(int(seconds / 0.05)):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"waited {seconds} s in vain for {what}")
