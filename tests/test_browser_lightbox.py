"""A sample in full, in a real browser: focus, fingers, small screens, zoom, Back."""

from __future__ import annotations

import re

import pytest
from browsing import expect, needs_chromium, wait_in
from records import NOW, a_run, drawn, left_at
from support import plain

from musubitlx.home import Home
from musubitlx.projects import Project

pytestmark = needs_chromium

PHONE = {"width": 390, "height": 844}
SIDEWAYS = {"width": 844, "height": 390}
LONG = "watercolour-landscapes-of-the-north-sea-coast-second-attempt-with-better-captions"
OLD, NEW = "old sea", "new sea"


SQUARE = plain((255, 0, 255), (128, 128))  # of a colour that no part of the page has


@pytest.fixture
def folder(program):
    """A server with a folder of two runs of one LoRA, of a name that is too long for a phone."""
    server = program("--practice")
    project = Project(Home(server.home), "ball")
    project.make()
    a_run(project, "one", began=NOW - 90_000, prompts=[f"{OLD} --d 1"], output_name=LONG)
    a_run(project, "two", prompts=[f"{NEW} --d 1", "a harbour --d 1"], output_name=LONG)
    old = f"{LONG}_e000001_00_20251231120000_42_000.png"
    left_at(project.path / "sample" / old, NOW - 89_950, SQUARE)
    for epoch in range(3):
        for prompt in (0, 1):
            name = drawn(project, f"e{epoch:06d}", NOW - 960 + epoch, prompt, LONG)
            left_at(project.path / "sample" / name, NOW - 960 + epoch, SQUARE)
    for name, age in ((f"{LONG}-000001", 40), (LONG, 99)):
        left_at(project.path / f"{name}.safetensors", NOW - 1000 + age, name.encode())
    server.project = project
    return server


@pytest.fixture
def lightbox(folder, visit):
    """A function that opens the page, and there the sample of epoch 1; returns the page."""

    def start(**context):
        page = visit(f"{folder.url}/?project=ball", **context)
        link(page, "Epoch 1").click()
        expect(dialog(page)).to_be_visible()
        expect(dialog(page).get_by_text("128 × 128 px")).to_be_visible()
        return page

    return start


def on_phone(size: dict) -> dict:
    return {"viewport": size, "has_touch": True, "is_mobile": True}


def link(page, place: str, prompt: str = NEW):
    gallery = page.get_by_role("region", name="Samples")
    return gallery.get_by_role("link", name=re.compile(f"^{place}: {prompt} {place}"))


def dialog(page):
    return page.get_by_role("dialog")


def stage(page) -> dict:
    return page.locator(".lightbox-stage").bounding_box()


def compare(page) -> None:
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_role("slider", name="Wipe")).to_be_visible()


def choose_old_run(page) -> None:
    options = page.get_by_label("Compare with").locator(f"optgroup[label$='{OLD}'] option")
    page.get_by_label("Compare with").select_option(options.first.get_attribute("value"))


# -- focus -----------------------------------------------------------------------------------------


def test_c_ends_the_comparison_and_the_keys_go_on(lightbox):
    page = lightbox()
    page.keyboard.press("c")
    expect(page.get_by_role("slider", name="Wipe")).to_be_focused()
    page.keyboard.press("c")
    expect(page.get_by_role("slider", name="Wipe")).to_be_hidden()
    page.keyboard.press("ArrowUp")
    expect(dialog(page).get_by_role("heading", name="Epoch 2")).to_be_visible()
    page.keyboard.press("c")
    expect(page.get_by_role("slider", name="Wipe")).to_be_focused()


@pytest.mark.fine
def test_a_control_that_goes_leaves_the_focus_to_the_picture(lightbox):
    page = lightbox()
    dialog(page).get_by_role("button", name="Best one").focus()
    page.keyboard.press("ArrowDown")  # to the baseline, which has no checkpoint to mark
    expect(dialog(page).get_by_role("heading", name="Baseline")).to_be_visible()
    page.keyboard.press("ArrowUp")
    expect(dialog(page).get_by_role("heading", name="Epoch 1")).to_be_visible()


@pytest.mark.fine
def test_after_a_click_on_the_words_the_keys_go_on(lightbox):
    page = lightbox()
    dialog(page).get_by_text(NEW, exact=True).click()
    page.keyboard.press("ArrowUp")
    expect(dialog(page).get_by_role("heading", name="Epoch 2")).to_be_visible()


@pytest.mark.fine
@pytest.mark.parametrize("steps", [[], ["ArrowRight"]], ids=["the same", "another"])
def test_the_focus_comes_back_to_a_sample_that_was_drawn_anew(lightbox, steps):
    page = lightbox()
    star = dialog(page).get_by_role("button", name="Best one")
    star.click()
    expect(star).to_have_attribute("aria-pressed", "true")
    for key in steps:
        page.keyboard.press(key)
    page.keyboard.press("Escape")
    expect(dialog(page)).to_be_hidden()
    expect(link(page, "Epoch 1", "a harbour" if steps else NEW)).to_be_focused()


@pytest.mark.fine
def test_the_focus_comes_back_to_the_picture_of_a_file(folder, visit):
    page = visit(f"{folder.url}/?project=ball")
    picture = page.get_by_role("link", name="Samples of Epoch 1")
    picture.click()
    star = dialog(page).get_by_role("button", name="Best one")
    star.click()
    expect(star).to_have_attribute("aria-pressed", "true")
    files = page.get_by_role("region", name="LoRA files", include_hidden=True)
    expect(files.get_by_text("Best", exact=True)).to_be_attached()
    page.keyboard.press("Escape")
    expect(picture).to_be_focused()


@pytest.mark.fine
def test_after_a_swap_the_focus_comes_to_the_fold_of_the_run(lightbox):
    page = lightbox()
    compare(page)
    choose_old_run(page)
    page.get_by_role("button", name="Swap").click()
    page.keyboard.press("Escape")
    title = page.get_by_role("region", name="Samples").locator("summary")
    expect(title).to_be_focused()


RING = """() => {
    const ring = getComputedStyle(document.querySelector(".lightbox-stage"), "::after");
    const image = getComputedStyle(document.activeElement);
    return [image.outlineStyle, ring.outlineStyle, ring.width, ring.transform];
}"""


@pytest.mark.fine
def test_the_focus_ring_stays_as_large_as_the_stage(lightbox):
    page = lightbox()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("+")
    style, ring, width, transform = page.evaluate(RING)
    assert (style, ring, transform) == ("none", "solid", "none")
    assert float(width.removesuffix("px")) == pytest.approx(stage(page)["width"], abs=1)


# -- fingers ---------------------------------------------------------------------------------------


class Fingers:
    """Fingers on the stage; places in px from its middle."""

    def __init__(self, page):
        self.session = page.context.new_cdp_session(page)
        box = stage(page)
        self.x, self.y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def touch(self, kind: str, *places: tuple[float, float]) -> None:
        """All fingers that lie on the stage now."""
        points = [
            {"x": self.x + x, "y": self.y + y, "id": number} for number, (x, y) in enumerate(places)
        ]
        self.session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def zoom_of(page) -> float:
    return float(
        page.locator(".lightbox-stage").evaluate("s => s.style.getPropertyValue('--zoom')")
    )


@pytest.mark.fine
def test_a_pinch_leaves_the_wipe_where_it_was(lightbox):
    page = lightbox(**on_phone(PHONE))
    compare(page)
    slider = page.get_by_role("slider", name="Wipe")
    fingers = Fingers(page)
    fingers.touch("touchStart", (-120, 0))
    expect(slider).to_have_value("50")
    fingers.touch("touchMove", (-124, 0))  # fingers never come quite at once
    fingers.touch("touchStart", (-124, 0), (-60, 0))
    for step in range(1, 6):
        fingers.touch("touchMove", (-124 - 8 * step, 0), (-60 + 8 * step, 0))
    fingers.touch("touchEnd")
    assert zoom_of(page) > 1.5
    expect(slider).to_have_value("50")


def test_a_tap_sets_the_wipe_and_a_finger_draws_it(lightbox):
    page = lightbox(**on_phone(PHONE))
    compare(page)
    slider, fingers = page.get_by_role("slider", name="Wipe"), Fingers(page)
    fingers.touch("touchStart", (-97, 0))
    fingers.touch("touchEnd")
    expect(slider).to_have_value("25")
    fingers.touch("touchStart", (-97, 0))
    fingers.touch("touchMove", (97, 0))
    expect(slider).to_have_value("75")
    fingers.touch("touchEnd")


# -- small screens ---------------------------------------------------------------------------------


@pytest.mark.fine
def test_held_sideways_the_picture_has_the_height_of_the_phone(lightbox):
    page = lightbox(**on_phone(SIDEWAYS))
    assert stage(page)["height"] > 370
    compare(page)
    assert stage(page)["height"] > 370
    assert stage(page)["width"] > 390
    expect(dialog(page).locator(".viewer-keys")).to_be_hidden()
    swap = page.get_by_role("button", name="Swap").bounding_box()
    assert swap["x"] > stage(page)["x"] + stage(page)["width"]


BEYOND = """(width) => [...document.querySelectorAll(".lightbox *:not(option, optgroup)")]
    .filter((node) => node.checkVisibility())
    .filter((node) => {
        const { left, right } = node.getBoundingClientRect();
        return left < -0.5 || right > width + 0.5;
    })
    .map((node) => node.className || node.outerHTML)"""


@pytest.mark.fine
@pytest.mark.parametrize("size", [PHONE, SIDEWAYS, {"width": 320, "height": 640}], ids=str)
def test_nothing_stands_beyond_a_small_screen(lightbox, size):
    page = lightbox(**on_phone(size))
    assert page.evaluate(BEYOND, size["width"]) == []
    compare(page)
    choose_old_run(page)
    assert page.evaluate(BEYOND, size["width"]) == []
    page.get_by_role("button", name="Swap").click()
    assert page.evaluate(BEYOND, size["width"]) == []


TARGETS = """() => [...document.querySelectorAll(".lightbox :is(button, a, select, input, .check)")]
    .filter((node) => node.checkVisibility())
    .map((node) => [node.ariaLabel || node.textContent, node.getBoundingClientRect()])
    .filter(([, box]) => box.width < 44 || box.height < 44)
    .map(([name, box]) => `${name}: ${box.width} x ${box.height}`)"""


@pytest.mark.fine
@pytest.mark.parametrize("size", [PHONE, SIDEWAYS], ids=str)
def test_what_a_finger_is_to_hit_is_large_enough(lightbox, size):
    page = lightbox(**on_phone(size))
    assert page.evaluate(TARGETS) == []
    compare(page)
    assert page.evaluate(TARGETS) == []


# -- two runs --------------------------------------------------------------------------------------


@pytest.mark.fine
def test_samples_of_two_runs_are_told_apart(lightbox):
    page = lightbox(**on_phone(PHONE))
    compare(page)
    tags = page.locator(".lightbox-tag")
    expect(tags).to_have_text(["A: Epoch 1", "B: Baseline"])
    choose_old_run(page)
    one, other = tags.all_inner_texts()
    assert one.startswith(f"A: Epoch 1\n{LONG}\n")
    assert other.startswith(f"B: Epoch 1\n{LONG}\n")
    assert one[2:] != other[2:]  # begun at another time
    began = other.rsplit("\n", 1)[1]
    chosen = page.get_by_label("Compare with").locator("option:checked")
    expect(chosen).to_have_text(f"Epoch 1 · {began} · {LONG[:15]}…")
    whole = "node => node.scrollWidth <= node.clientWidth"
    for tag in tags.all():
        assert tag.locator("span").last.evaluate(whole)
    slider = page.get_by_role("slider", name="Wipe")
    expect(slider).to_have_attribute(
        "aria-valuetext", re.compile(f"{LONG}, run of .*{LONG}, run of")
    )


# -- zoom ------------------------------------------------------------------------------------------


def picture_in_view(page) -> float:
    """How many px of the width of the picture itself are on the stage."""
    return page.locator(".lightbox-image").first.evaluate(
        """(image) => {
            const box = image.getBoundingClientRect();
            const stage = image.closest(".lightbox-stage").getBoundingClientRect();
            const { naturalWidth: width, naturalHeight: height } = image;
            const middle = (box.left + box.right) / 2;
            const half = (width * Math.min(box.width / width, box.height / height)) / 2;
            return Math.min(middle + half, stage.right) - Math.max(middle - half, stage.left);
        }"""
    )


@pytest.mark.fine
def test_the_picture_stays_in_view_wherever_one_zooms_and_pans(lightbox):
    page = lightbox()
    page.keyboard.press("1")
    assert picture_in_view(page) == pytest.approx(128, abs=1)
    box = stage(page)
    beside = box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2
    page.mouse.move(*beside)
    for _ in range(12):
        page.mouse.wheel(0, -120)
        page.wait_for_timeout(30)
    size = page.locator(".lightbox-image").first.bounding_box()["height"]  # that of the picture
    assert size > box["height"]
    assert picture_in_view(page) == pytest.approx(min(size, box["width"]), abs=1)
    page.mouse.down()
    page.mouse.move(box["x"] + 5, beside[1], steps=4)
    page.mouse.up()
    assert picture_in_view(page) == pytest.approx(min(size, box["width"]), abs=1)


# -- Back ------------------------------------------------------------------------------------------


def length(page) -> int:
    return page.evaluate("history.length")


def test_back_closes_the_full_view_and_nothing_else(lightbox):
    page = lightbox()
    address = page.url
    page.go_back()
    expect(dialog(page)).to_be_hidden()
    expect(link(page, "Epoch 1")).to_be_focused()
    assert page.url == address
    link(page, "Epoch 2").click()
    expect(dialog(page)).to_be_visible()
    page.go_back()
    expect(dialog(page)).to_be_hidden()
    assert page.url == address


STATE = "({ href: location.href, state: history.state, y: Math.round(scrollY) })"


@pytest.mark.fine
def test_closed_otherwise_the_entry_is_taken_back_and_the_page_stays_put(folder, visit):
    page = visit(f"{folder.url}/?project=ball#here")
    link(page, "Epoch 1").scroll_into_view_if_needed()
    page.evaluate("history.replaceState({ mine: 7 }, '')")
    page.evaluate("window.untouched = true")
    before = page.evaluate(STATE)
    for way in ("Escape", "Enter"):
        link(page, "Epoch 1").click()
        expect(dialog(page)).to_be_visible()
        assert page.evaluate("history.state") == {"mine": 7, "dialogs": 1}
        page.evaluate("scrollBy(0, 40)")  # as coming back to a sample may
        dialog(page).get_by_role("button", name="Close").focus()
        page.keyboard.press(way)
        expect(dialog(page)).to_be_hidden()
        wait_in(page, lambda: depth(page) == 0, "the way back")
        page.wait_for_timeout(100)
        after = page.evaluate(STATE)
        assert after == {**before, "y": before["y"] + 40}
        assert page.evaluate("untouched && history.scrollRestoration") == "auto"
        page.evaluate("scrollBy(0, -40)")
    assert (
        length(page) == 3
    )  # about:blank, the page, and the entry that can only be gone forward to


BOXES = """async () => {
    const { closeOnBack } = await import("/static/js/back.js");
    window.box = (name) => {
        const dialog = document.createElement("dialog");
        dialog.setAttribute("aria-label", name);
        dialog.textContent = name;
        document.body.append(dialog);
        dialog.showModal();
        closeOnBack(dialog);
        return dialog;
    };
}"""


@pytest.fixture
def boxes(live_server, visit):
    """The page of runs with a function `box(name)` that opens a dialog which closes on Back."""
    page = visit(f"{live_server.url}/runs")
    page.evaluate(BOXES)
    return page


def open_ones(page) -> list[str]:
    # Once nothing moves any more: going back is done when the browser finds the time.
    page.wait_for_timeout(150)
    return page.evaluate(
        "[...document.querySelectorAll('dialog[open]')].map((one) => one.ariaLabel)"
    )


def depth(page) -> int:
    return page.evaluate("history.state?.dialogs ?? 0")


@pytest.mark.fine
def test_dialogs_over_one_another_close_one_by_one(boxes):
    boxes.evaluate("box('run'), box('chart'), 0")
    assert (open_ones(boxes), depth(boxes)) == (["run", "chart"], 2)
    boxes.go_back()
    assert (open_ones(boxes), depth(boxes)) == (["run"], 1)
    boxes.evaluate("box('chart'), 0")
    boxes.keyboard.press("Escape")
    assert (open_ones(boxes), depth(boxes)) == (["run"], 1)
    boxes.go_back()
    assert (open_ones(boxes), depth(boxes)) == ([], 0)
    assert boxes.url.endswith("/runs")


@pytest.mark.fine
def test_both_closed_at_once_take_both_entries_back(boxes):
    boxes.evaluate("window.two = [box('run'), box('chart')], 0")
    boxes.evaluate("two.forEach((one) => one.close())")
    assert (open_ones(boxes), depth(boxes)) == ([], 0)


@pytest.mark.fine
def test_a_dialog_that_follows_another_stands_on_its_entry(boxes):
    boxes.evaluate("(box('one').close(), box('two')), 0")
    assert (open_ones(boxes), depth(boxes), length(boxes)) == (["two"], 1, 3)
    boxes.evaluate("""() => {
        document.querySelector("dialog[open]").addEventListener("close", () => box("three"));
        document.querySelector("dialog[open]").close();
    }""")
    assert (open_ones(boxes), depth(boxes), length(boxes)) == (["three"], 1, 3)
    boxes.evaluate("""async () => {
        document.querySelector("dialog[open]").close();
        await new Promise((done) => setTimeout(done));
        box("four"); // while the way back is not done yet
    }""")
    assert (open_ones(boxes), depth(boxes)) == (["four"], 1)
    boxes.go_back()
    assert (open_ones(boxes), depth(boxes)) == ([], 0)


NAMED = """() => {
    const dialog = box("run");
    const name = (hash) => history.replaceState(history.state, "", location.pathname + hash);
    dialog.addEventListener("close", () => name(""));
    name("#run=7");
}"""


@pytest.mark.fine
@pytest.mark.parametrize("way", ["back", "Escape"])
@pytest.mark.parametrize("start", ["", "#run=7"], ids=["opened", "named"])
def test_an_address_that_names_the_dialog_goes_with_it(boxes, way, start):
    boxes.evaluate("(hash) => history.replaceState(null, '', location.pathname + hash)", start)
    boxes.evaluate(NAMED)
    assert boxes.url.endswith("/runs#run=7")
    if way == "back":
        boxes.go_back()
    else:
        boxes.keyboard.press(way)
    assert (open_ones(boxes), depth(boxes)) == ([], 0)
    assert boxes.evaluate("location.href").endswith("/runs")


@pytest.mark.fine
def test_after_a_reload_two_dialogs_leave_one_empty_step_at_most(boxes):
    boxes.evaluate("box('run'), box('chart'), 0")
    boxes.reload()
    boxes.evaluate(BOXES)
    boxes.go_back()  # does nothing that one sees
    assert (open_ones(boxes), depth(boxes)) == ([], 0)
    boxes.go_back()
    assert boxes.url == "about:blank"


@pytest.mark.fine
def test_a_dialog_that_opens_again_after_a_reload_closes_on_back(boxes):
    boxes.evaluate("box('run'), box('chart'), 0")
    boxes.reload()
    boxes.evaluate(BOXES)
    boxes.evaluate("box('run'), 0")
    assert (open_ones(boxes), depth(boxes)) == (["run"], 1)
    boxes.go_back()
    assert (open_ones(boxes), depth(boxes)) == ([], 0)


@pytest.mark.fine
def test_forward_to_a_closed_dialog_leads_nowhere(boxes):
    boxes.evaluate("box('run'), 0")
    boxes.go_back()
    assert (open_ones(boxes), depth(boxes)) == ([], 0)
    boxes.evaluate("history.forward()")
    assert (open_ones(boxes), depth(boxes)) == ([], 0)
