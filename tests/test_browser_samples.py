"""Samples and LoRA files in a real browser: grids, full view, comparison, the best one."""

from __future__ import annotations

import io
import re
import time
import zipfile

import pytest
from browsing import expect, needs_chromium, wait_in
from records import NOW, a_run, drawn, left_at
from support import pictures, plain

from musubitlx.home import Home
from musubitlx.projects import Project

pytestmark = needs_chromium

RUN_MS = 90_000
PHONE = {"width": 390, "height": 844}
RED, BLUE = (220, 30, 30), (30, 60, 220)


@pytest.fixture
def folder(program):
    """A server with a folder of two runs: an older one of two epochs, and one of three."""
    server = program("--practice")
    project = Project(Home(server.home), "ball")
    project.make()
    a_run(project, "one", began=NOW - 5000, prompts=["a cat --d 1", "a dog --d 1"])
    a_run(project, "two", output_name="ship")
    for prompt in (0, 1):
        drawn(project, "e000001", NOW - 4950, prompt)
        for epoch in range(4):
            drawn(project, f"e{epoch:06d}", NOW - 960 + epoch, prompt, "ship")
    for name, age in (("ship-000001", 40), ("ship-000002", 60), ("ship", 99)):
        left_at(project.path / f"{name}.safetensors", NOW - 1000 + age, name.encode())
    server.project = project
    return server


@pytest.fixture
def page(folder, visit):
    one = visit(f"{folder.url}/?project=ball")
    expect(sample(one, "Epoch 3", "ohwx on a table")).to_be_visible()
    return one


def sample(page, place: str, prompt: str):
    return page.get_by_role("link", name=f"{place}: {prompt} {place}", exact=True)


def full_view(page, place: str):
    return page.get_by_role("dialog", name=place, exact=True)


def open_full(page, place: str = "Epoch 1", prompt: str = "ohwx on a table"):
    sample(page, place, prompt).click()
    expect(full_view(page, place)).to_be_visible()
    return page.get_by_role("dialog")


# -- grids -----------------------------------------------------------------------------------------


@pytest.mark.fine
def test_samples_of_an_older_run_keep_its_prompts(page):
    gallery = page.get_by_role("region", name="Samples")
    expect(gallery.get_by_role("img", name=re.compile("cat|dog"))).to_have_count(0)
    gallery.get_by_text(re.compile(r"^ball, run of .*\(2 samples\)")).click()
    for prompt in ("a cat", "a dog"):
        expect(sample(page, "Epoch 1", prompt)).to_be_visible()
    order = gallery.get_by_role("img").evaluate_all("nodes => nodes.map((node) => node.alt)")
    assert order[:4] == [
        *("Baseline: ohwx on a table", "Epoch 1: ohwx on a table"),
        *("Epoch 2: ohwx on a table", "Epoch 3: ohwx on a table"),
    ]


@pytest.mark.fine
def test_the_gallery_is_read_again_when_asked(folder, page):
    drawn(folder.project, "e000004", NOW - 950, 0, "ship")
    page.get_by_role("button", name="Refresh sample gallery").click()
    expect(sample(page, "Epoch 4", "ohwx on a table")).to_be_attached()


@pytest.mark.fine
def test_a_thumbnail_that_was_still_being_written_comes(folder, page):
    name = drawn(folder.project, "e000004", NOW - 950, 0, "ship")
    path = folder.project.path / "sample" / name
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    left_at(path, NOW - 950, whole[:100])
    page.get_by_role("button", name="Refresh sample gallery").click()
    image = page.get_by_role("img", name="Epoch 4: ohwx on a table", exact=True)
    expect(image).to_be_attached()
    page.wait_for_timeout(300)
    path.write_bytes(whole)
    has_come = "(node) => node.complete && node.naturalWidth > 0"
    wait_in(page, lambda: image.evaluate(has_come), "the thumbnail")


@pytest.mark.fine
def test_all_samples_of_a_run_come_as_a_zip(page):
    with page.expect_download() as download:
        page.get_by_role("link", name=re.compile("Download as zip of ship")).click()
    assert download.value.suggested_filename == "ball samples.zip"
    names = zipfile.ZipFile(download.value.path()).namelist()
    assert len(names) == 9
    assert "prompt-02_epoch-003_seed-42.png" in names


# -- standing in the gallery while it changes ------------------------------------------------------


def refreshed(page, place: str) -> None:
    """Have the gallery read again by a script, so that the focus stays; a sample has come."""
    page.evaluate("document.querySelector('[data-samples-refresh]').click()")
    expect(sample(page, place, "ohwx on a table")).to_be_attached()


def scroll_group(page, run: str):
    return page.get_by_role("group", name=re.compile(f"^Sample images: {run}"))


def older(box, run: str = "ball"):
    """The summary of an older run."""
    return box.locator("summary").filter(has_text=re.compile(f"^{run}, run of"))


def gallery(page):
    return page.get_by_role("region", name="Samples")


@pytest.mark.fine
@pytest.mark.parametrize(
    "place", ["scroll group", "zip", "older run", "sample", "zip of an older run"]
)
def test_a_sample_that_comes_leaves_the_focus_where_it_is(folder, page, place):
    if place == "zip of an older run":
        older(gallery(page)).click()
    one = {
        "scroll group": scroll_group(page, "ship"),
        "zip": page.get_by_role("link", name=re.compile("zip of ship")),
        "older run": older(gallery(page)),
        "sample": sample(page, "Epoch 3", "ohwx at night"),
        "zip of an older run": page.get_by_role("link", name=re.compile("zip of ball")),
    }[place]
    one.focus()
    drawn(folder.project, "e000004", NOW - 950, 0, "ship")
    refreshed(page, "Epoch 4")
    expect(one).to_be_focused()


@pytest.mark.fine
def test_a_sample_whose_mark_changes_keeps_the_focus(folder, page):
    sample(page, "Epoch 2", "ohwx on a table").focus()
    for best in (True, False):
        path = "/api/projects/ball/outputs/ship-000002.safetensors/best"
        folder.post(path, {"best": best})
        page.evaluate("document.querySelector('[data-samples-refresh]').click()")
        expect(gallery(page).get_by_text("Best", exact=True)).to_have_count(2 if best else 0)
        expect(page.locator(":focus")).to_have_attribute("href", re.compile("ship_e000002_00"))


@pytest.mark.fine
def test_a_grid_in_use_does_not_fold_shut_when_the_next_run_begins(folder, page):
    one = sample(page, "Epoch 2", "ohwx at night")
    one.focus()
    a_run(folder.project, "three", output_name="boat", began=NOW - 500)
    drawn(folder.project, "e000001", NOW - 480, 0, "boat")
    refreshed(page, "Epoch 1")
    expect(scroll_group(page, "boat")).to_be_visible()
    expect(one).to_be_visible()
    expect(one).to_be_focused()


@pytest.mark.fine
def test_a_sample_that_goes_hands_the_focus_to_its_neighbour(folder, page):
    sample(page, "Epoch 1", "ohwx on a table").focus()
    (folder.project.path / "sample/ship_e000001_00_20260101120000_42_000.png").unlink()
    page.evaluate("document.querySelector('[data-samples-refresh]').click()")
    expect(sample(page, "Epoch 2", "ohwx on a table")).to_be_focused()


@pytest.mark.fine
def test_the_full_view_gives_the_focus_back_though_the_mark_changed(page):
    dialog = open_full(page, "Epoch 2")
    dialog.get_by_role("button", name="Best one").click()
    expect(row(page, "ship-000002").get_by_text("Best", exact=True)).to_be_attached()
    page.keyboard.press("Escape")
    expect(page.locator(":focus")).to_have_attribute("href", re.compile("ship_e000002_00"))


# -- the room there is -----------------------------------------------------------------------------

COLUMNS = """() => {
    const box = document.querySelector(".samples-scroll");
    const { left, right } = box.getBoundingClientRect();
    const [base, ...others] = [...box.querySelectorAll(".sample, .sample-gap")]
        .map((node) => node.querySelector("img")?.getBoundingClientRect())
        .filter(Boolean);
    return {
        over: box.scrollWidth - box.clientWidth,
        more: ["before", "after"].filter((side) => box.hasAttribute(`data-${side}`)),
        room: right - Math.max(base.right, ...others.map((one) => one.right)),
        cut: others.filter((one) => one.left < base.right - 2 && one.right > base.right + 2
            || one.left < right - 2 && one.right > right + 2).length,
        prompts: [...box.querySelectorAll(".samples-prompt")]
            .map((node) => Math.round(node.getBoundingClientRect().left - left)),
    };
}"""
LONG = "ohwx standing on a wooden table in the light of the evening, " * 3


@pytest.mark.fine
def test_a_baseline_and_three_epochs_are_all_in_view(page):
    told = page.evaluate(COLUMNS)
    assert told["over"] == 0
    assert told["more"] == []
    assert told["cut"] == 0


@pytest.mark.fine
@pytest.mark.parametrize("epochs", [4, 12])
@pytest.mark.parametrize("size", [{"width": 1366, "height": 768}, PHONE])
def test_columns_stand_whole_at_both_ends_and_say_that_there_are_more(program, visit, size, epochs):
    server = program("--practice")
    project = Project(Home(server.home), "ball")
    project.make()
    a_run(project, "one", prompts=[f"{LONG}--d 42", "a cat --d 42", f"{LONG}--d 42"])
    for prompt in range(3):
        for epoch in range(epochs + 1):
            drawn(project, f"e{epoch:06d}", NOW - 960 + epoch, prompt)
    page = visit(f"{server.url}/?project=ball", viewport=size)
    expect(page.get_by_role("img", name=f"Epoch {epochs}: a cat")).to_be_visible()
    scroller = page.locator(".samples-scroll")
    for share, more in ((1, ["before"]), (0.5, None), (0, ["after"])):
        scroller.evaluate(f"(box) => box.scrollTo({{ left: {share} * box.scrollWidth }})")
        if more:
            wait_in(page, lambda: page.evaluate(COLUMNS)["more"] == more, f"{more} alone")  # noqa: B023
        page.wait_for_timeout(100)
        told = page.evaluate(COLUMNS)
        assert told["cut"] == 0
        assert told["room"] < 3
        assert told["prompts"] == [0, 0, 0]


# -- full view -------------------------------------------------------------------------------------


def test_arrow_keys_lead_along_epochs_and_prompts(page):
    dialog = open_full(page)
    expect(dialog.get_by_text("ohwx on a table", exact=True)).to_be_visible()
    expect(dialog.get_by_text("64 × 48 px")).to_be_visible()
    expect(dialog.get_by_text("seed 42")).to_be_visible()
    expect(dialog.get_by_role("link", name="Download ship-000001.safetensors")).to_be_visible()
    page.keyboard.press("ArrowUp")
    expect(dialog.get_by_role("status")).to_have_text("Epoch 2, ohwx on a table")
    page.keyboard.press("ArrowRight")
    expect(full_view(page, "Epoch 2")).to_be_visible()
    expect(dialog.get_by_text("ohwx at night", exact=True)).to_be_visible()
    page.keyboard.press("ArrowRight")  # there is no third prompt
    expect(dialog.get_by_role("button", name="Next prompt")).to_be_disabled()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")  # nor a fourth epoch
    expect(dialog.get_by_role("link", name="Download ship.safetensors")).to_be_visible()
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    expect(full_view(page, "Baseline")).to_be_visible()
    expect(dialog.get_by_text("without a LoRA")).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(sample(page, "Baseline", "ohwx at night")).to_be_focused()


@pytest.mark.fine
def test_buttons_lead_on_too_and_the_keys_go_on_working_at_the_end(page):
    dialog = open_full(page, "Epoch 2")
    dialog.get_by_role("button", name="Later: Epoch 3").click()
    expect(full_view(page, "Epoch 3")).to_be_visible()
    page.keyboard.press("ArrowDown")
    expect(full_view(page, "Epoch 2")).to_be_visible()
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()


@pytest.mark.fine
def test_with_a_modifier_the_image_opens_in_a_tab(page):
    with page.context.expect_page() as opened:
        sample(page, "Epoch 1", "ohwx on a table").click(modifiers=["Control"])
    assert "/files/ship_e000001_00" in opened.value.url
    expect(page.get_by_role("dialog")).to_be_hidden()
    dialog = open_full(page)
    address = dialog.get_by_role("link", name="Open in a new tab").get_attribute("href")
    assert "/files/ship_e000001_00" in address


def shown_width(page) -> float:
    image = page.get_by_role("dialog").get_by_role("img").first
    wait_in(page, lambda: image.evaluate("(node) => node.naturalWidth > 0"), "the image")
    return image.evaluate(
        """(image) => {
            const { width, height } = image.getBoundingClientRect();
            return Math.min(width, height * image.naturalWidth / image.naturalHeight);
        }"""
    )


@pytest.mark.fine
def test_full_size_is_a_pixel_for_a_pixel(page):
    dialog = open_full(page)
    fits = shown_width(page)
    assert fits > 200
    dialog.get_by_role("button", name="100 %").click()
    assert shown_width(page) == pytest.approx(64, abs=0.5)
    page.keyboard.press("0")
    assert shown_width(page) == pytest.approx(fits, abs=0.5)
    page.keyboard.press("+")
    assert shown_width(page) == pytest.approx(1.25 * fits, rel=0.01)
    page.keyboard.press("ArrowUp")  # the next one at the same place
    assert shown_width(page) == pytest.approx(1.25 * fits, rel=0.01)


# -- comparison ------------------------------------------------------------------------------------


@pytest.fixture
def colours(folder, visit):
    """The page on a red sample of epoch 1, with a blue one as baseline, in full view."""

    def start(**context):
        for place, colour in (("e000000", BLUE), ("e000001", RED)):
            path = folder.project.path / "sample" / f"ship_{place}_00_20260101120000_42_000.png"
            left_at(path, path.stat().st_mtime, plain(colour))
        page = visit(f"{folder.url}/?project=ball", **context)
        open_full(page)
        return page

    return start


def colours_at(page, *shares: float) -> list[str]:
    """What is seen of the picture at these shares of its width."""
    from PIL import Image

    page.wait_for_timeout(100)
    box = page.locator(".lightbox-stage").bounding_box()
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    middle = box["x"] + box["width"] / 2
    reach = min(box["width"], box["height"] * 4 / 3)
    found = []
    for share in shares:
        x, y = middle + (share - 0.5) * reach, box["y"] + box["height"] * 0.4
        red, _, blue = shot.getpixel((int(x), int(y)))
        found.append("red" if red > 150 > blue else "blue" if blue > 150 > red else "?")
    return found


@pytest.mark.fine
def test_the_keyboard_alone_compares_two_samples(colours):
    page = colours()
    page.keyboard.press("c")
    slider = page.get_by_role("slider", name="Wipe")
    expect(slider).to_be_focused()
    expect(page.get_by_label("Compare with")).to_have_value(re.compile("ship_e000000_00"))
    assert colours_at(page, 0.2, 0.8) == ["red", "blue"]
    page.keyboard.press("End")
    assert colours_at(page, 0.2, 0.8) == ["red", "red"]
    page.keyboard.press("Home")
    assert colours_at(page, 0.2, 0.8) == ["blue", "blue"]
    assert "100 % Baseline" in slider.get_attribute("aria-valuetext")
    page.keyboard.press("c")
    expect(slider).to_be_hidden()
    assert colours_at(page, 0.2, 0.8) == ["red", "red"]


def test_the_mouse_draws_the_wipe_and_any_sample_can_be_chosen(colours):
    page = colours()
    page.get_by_role("button", name="Compare", exact=True).click()
    box = page.locator(".lightbox-stage").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + box["width"] * 0.45, y, steps=4)
    page.mouse.up()
    assert colours_at(page, 0.2, 0.8) == ["red", "red"]
    page.get_by_role("button", name="Swap").click()
    expect(full_view(page, "Baseline")).to_be_visible()
    assert colours_at(page, 0.2, 0.8) == ["blue", "blue"]
    labels = (
        page.get_by_label("Compare with")
        .locator("optgroup")
        .evaluate_all("groups => groups.map((group) => group.label)")
    )
    assert len(labels) == 4
    assert labels[3].endswith("2. a dog")
    dog = "ball_e000001_01_20260101120000_42_000.png"
    page.get_by_label("Compare with").select_option(dog)
    expect(page.get_by_role("dialog").get_by_role("img", name="Epoch 1, a dog")).to_be_visible()


@pytest.mark.fine
def test_side_by_side_both_are_whole(colours):
    page = colours()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_label("Side by side").check()
    expect(page.get_by_role("slider", name="Wipe")).to_be_hidden()
    a, b = page.get_by_role("dialog").get_by_role("img").all()
    assert a.bounding_box()["x"] < b.bounding_box()["x"]
    assert colours_at(page, 0.4, 0.6) == ["red", "blue"]
    page.set_viewport_size(PHONE)
    expect(page.get_by_label("Side by side")).to_be_hidden()
    expect(page.get_by_role("slider", name="Wipe")).to_be_visible()


@pytest.mark.fine
def test_the_comparison_goes_along_to_another_prompt(colours):
    page = colours()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_role("button", name="Next prompt").click()
    expect(
        page.get_by_role("dialog").get_by_role("img", name="Epoch 1, ohwx at night")
    ).to_be_visible()
    expect(page.get_by_label("Compare with")).to_have_value(re.compile("ship_e000000_01"))


# -- by touch --------------------------------------------------------------------------------------


class Touch:
    """Fingers on the page."""

    def __init__(self, page):
        self.page = page
        self.session = page.context.new_cdp_session(page)
        box = page.locator(".lightbox-stage").bounding_box()
        self.x, self.y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def draw(self, *fingers: tuple[tuple[float, float], tuple[float, float]]) -> None:
        """Move fingers, each from one place to another (px from the middle of the stage)."""
        for step in range(6):
            points = [
                {
                    "x": self.x + x + (to_x - x) * step / 5,
                    "y": self.y + y + (to_y - y) * step / 5,
                    "id": number,
                }
                for number, ((x, y), (to_x, to_y)) in enumerate(fingers)
            ]
            kind = "touchMove" if step else "touchStart"
            self.session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        self.session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


@pytest.mark.fine
def test_swipes_and_pinch_on_a_phone(colours):
    page = colours(viewport=PHONE, has_touch=True)
    touch = Touch(page)
    touch.draw(((0, 100), (0, -100)))
    expect(full_view(page, "Epoch 2")).to_be_visible()
    touch.draw(((100, 0), (-100, 0)))
    expect(page.get_by_role("dialog").get_by_text("ohwx at night", exact=True)).to_be_visible()
    touch.draw(((-100, 0), (100, 0)))
    touch.draw(((0, -100), (0, 100)))
    expect(full_view(page, "Epoch 1")).to_be_visible()
    fits = shown_width(page)
    touch.draw(((-20, 0), (-100, 0)), ((20, 0), (100, 0)))
    assert shown_width(page) > 3 * fits
    touch.draw(((0, 100), (0, -100)))  # now it moves the picture
    expect(full_view(page, "Epoch 1")).to_be_visible()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.keyboard.press("Escape")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.fine
def test_a_finger_draws_the_wipe(colours):
    page = colours(viewport=PHONE, has_touch=True)
    page.get_by_role("button", name="Compare", exact=True).click()
    assert colours_at(page, 0.2, 0.8) == ["red", "blue"]
    Touch(page).draw(((0, 0), (-185, 0)))
    assert colours_at(page, 0.2, 0.8) == ["blue", "blue"]


# -- LoRA files ------------------------------------------------------------------------------------


def files(page):
    return page.get_by_role("region", name="LoRA files")


def row(page, name: str):
    own = page.get_by_text(f"{name}.safetensors", exact=True)
    return files(page).get_by_role("listitem").filter(has=own)


@pytest.mark.fine
def test_a_checkpoint_says_what_it_is(page):
    expect(row(page, "ship")).to_contain_text("Finished LoRA, epoch 3")
    expect(row(page, "ship-000002")).to_contain_text("Epoch 2")
    expect(row(page, "ship-000002")).to_contain_text("loss 0.0669 · step 20 · 11 B")
    with page.expect_download() as download:
        row(page, "ship-000002").get_by_role("link", name="Download").click()
    assert download.value.path().read_bytes() == b"ship-000002"
    row(page, "ship-000001").get_by_role("link", name="Samples of Epoch 1").click()
    expect(full_view(page, "Epoch 1")).to_be_visible()
    page.keyboard.press("Escape")
    expect(row(page, "ship-000001").get_by_role("link", name="Samples of Epoch 1")).to_be_focused()


@pytest.mark.fine
def test_the_best_one_stays_marked(page):
    star = row(page, "ship-000002").get_by_role("button", name="Best one")
    star.click()
    expect(star).to_have_attribute("aria-pressed", "true")
    expect(star).to_be_focused()
    page.reload()
    expect(row(page, "ship-000002").get_by_text("Best", exact=True)).to_be_visible()
    row(page, "ship").get_by_role("button", name="Best one").click()
    expect(files(page).get_by_text("Best", exact=True)).to_have_count(1)
    expect(row(page, "ship").get_by_text("Best", exact=True)).to_be_visible()


@pytest.mark.fine
def test_the_best_one_can_be_marked_while_looking(folder, page):
    dialog = open_full(page, "Epoch 2")
    star = dialog.get_by_role("button", name="Best one")
    expect(star).to_have_attribute("aria-pressed", "false")
    star.click()
    expect(star).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("ArrowUp")
    expect(star).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("Escape")
    expect(row(page, "ship-000002").get_by_text("Best", exact=True)).to_be_visible()
    expect(
        page.get_by_role("region", name="Samples").get_by_text("Best", exact=True)
    ).to_have_count(2)


def test_a_checkpoint_can_be_deleted_and_brought_back(folder, page):
    path = folder.project.path / "ship-000001.safetensors"
    row(page, "ship-000001").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert path.exists()
    row(page, "ship-000001").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(row(page, "ship-000001")).to_have_count(0)
    assert not path.exists()
    page.get_by_role("button", name="Undo").click()
    expect(row(page, "ship-000001")).to_be_visible()
    assert path.read_bytes() == b"ship-000001"
    expect(row(page, "ship-000001").get_by_role("link", name="Samples of Epoch 1")).to_be_visible()


def answer(page, name: str) -> None:
    page.get_by_role("dialog").get_by_role("button", name=name).click()


@pytest.mark.fine
def test_the_focus_goes_to_the_next_file_and_back_with_the_one_that_comes_back(page):
    row(page, "ship-000002").get_by_role("button", name="Delete").focus()
    page.keyboard.press("Enter")
    answer(page, "Delete")
    expect(row(page, "ship-000002")).to_have_count(0)
    expect(row(page, "ship-000001").get_by_role("button", name="Delete")).to_be_focused()
    page.get_by_role("button", name="Undo").focus()
    page.keyboard.press("Enter")
    expect(row(page, "ship-000002").get_by_role("button", name="Delete")).to_be_focused()


@pytest.mark.fine
def test_a_question_gives_the_focus_back_though_the_list_was_drawn_anew(folder, page):
    row(page, "ship-000002").get_by_role("button", name="Delete").click()
    left_at(folder.project.path / "ship-000003.safetensors", NOW - 910, b"three")
    page.evaluate("document.querySelector('[data-samples-refresh]').click()")
    expect(page.get_by_text("ship-000003.safetensors", exact=True)).to_be_attached()
    answer(page, "Cancel")
    expect(row(page, "ship-000002").get_by_role("button", name="Delete")).to_be_focused()


@pytest.mark.fine
def test_after_the_last_file_the_focus_is_not_lost(folder, page):
    for name in ("ship-000001", "ship-000002"):
        (folder.project.path / f"{name}.safetensors").unlink()
    page.get_by_role("button", name="Refresh sample gallery").click()
    expect(row(page, "ship-000001")).to_have_count(0)
    row(page, "ship").get_by_role("button", name="Delete").click()
    answer(page, "Delete")
    expect(files(page)).to_have_count(0)
    expect(page.get_by_role("heading", name="Samples", exact=True)).to_be_focused()
    page.get_by_role("button", name="Undo").click()
    expect(row(page, "ship").get_by_role("button", name="Delete")).to_be_focused()


@pytest.mark.fine
@pytest.mark.parametrize("part", ["Download", "Best one", "Samples of"])
def test_another_file_and_another_best_one_leave_the_focus_where_it_is(folder, page, part):
    role = "button" if part == "Best one" else "link"
    one = row(page, "ship-000002").get_by_role(role, name=part)
    one.focus()
    folder.post("/api/projects/ball/outputs/ship-000001.safetensors/best", {"best": True})
    left_at(folder.project.path / "ship-000003.safetensors", NOW - 910, b"three")
    page.evaluate("document.querySelector('[data-samples-refresh]').click()")
    expect(row(page, "ship-000003")).to_be_visible()
    expect(row(page, "ship-000001").get_by_text("Best", exact=True)).to_be_visible()
    expect(one).to_be_focused()


@pytest.mark.fine
def test_the_summary_of_older_files_keeps_the_focus(folder, page):
    left_at(folder.project.path / "ball.safetensors", NOW - 4930, b"old")
    page.get_by_role("button", name="Refresh sample gallery").click()
    older(files(page)).focus()
    left_at(folder.project.path / "ship-000003.safetensors", NOW - 910, b"three")
    page.evaluate("document.querySelector('[data-samples-refresh]').click()")
    expect(row(page, "ship-000003")).to_be_visible()
    expect(older(files(page))).to_be_focused()
    expect(row(page, "ball")).to_be_hidden()


@pytest.mark.fine
def test_files_in_use_do_not_fold_shut_when_the_next_run_has_one(folder, page):
    star = row(page, "ship-000002").get_by_role("button", name="Best one")
    star.focus()
    a_run(folder.project, "three", output_name="boat", began=NOW - 500)
    left_at(folder.project.path / "boat-000001.safetensors", NOW - 480, b"boat")
    page.evaluate("document.querySelector('[data-samples-refresh]').click()")
    expect(row(page, "boat-000001")).to_be_visible()
    expect(star).to_be_visible()
    expect(star).to_be_focused()


@pytest.mark.fine
def test_the_rest_of_many_files_begins_with_the_focus(folder, page):
    for step in range(10, 26):
        left_at(folder.project.path / f"ship-step{step:08d}.safetensors", NOW - 910, b"x")
    page.get_by_role("button", name="Refresh sample gallery").click()
    files(page).get_by_role("button", name=re.compile("Show all 19")).click()
    expect(files(page).get_by_role("listitem")).to_have_count(19)
    seventh = files(page).get_by_role("listitem").nth(6)
    expect(seventh.get_by_role("link", name="Download")).to_be_focused()


@pytest.mark.fine
def test_other_modules_hear_what_became_of_a_file(page):
    page.evaluate(
        """() => {
            window.heard = [];
            document.addEventListener("outputs:changed", ({ detail }) => heard.push(detail));
        }"""
    )
    row(page, "ship").get_by_role("button", name="Best one").click()
    expect(row(page, "ship").get_by_text("Best", exact=True)).to_be_visible()
    row(page, "ship").get_by_role("button", name="Delete").click()
    answer(page, "Delete")
    expect(row(page, "ship")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(row(page, "ship")).to_be_visible()
    name = "ship.safetensors"
    assert page.evaluate("heard") == [
        {"project": "ball", "best": name},
        {"project": "ball", "gone": name},
        {"project": "ball", "back": name},
    ]


@pytest.mark.fine
def test_a_thumb_hits_what_can_be_done_with_a_file(folder, visit):
    page = visit(f"{folder.url}/?project=ball", viewport=PHONE, has_touch=True, is_mobile=True)
    acts = row(page, "ship").locator(".output-acts > *")
    expect(acts).to_have_count(3)
    boxes = [one.bounding_box() for one in acts.all()]
    assert all(box["width"] >= 44 and box["height"] >= 44 for box in boxes)
    row(page, "ship").get_by_role("button", name="Delete").tap()
    answer(page, "Delete")
    message = page.locator(".toast")
    for button in message.get_by_role("button").all():
        assert button.bounding_box()["height"] >= 44
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


# -- messages in the corner ------------------------------------------------------------------------


@pytest.fixture
def message(folder, visit):
    """A page on which a file was just deleted, whose clock the test moves; and the message."""
    page = visit(f"{folder.url}/?project=ball")
    expect(row(page, "ship-000001")).to_be_visible()
    page.clock.install()
    row(page, "ship-000001").get_by_role("button", name="Delete").click()
    answer(page, "Delete")
    told = page.locator(".toast").filter(has_text="deleted")
    expect(told).to_be_visible()
    page.clock.run_for(100)
    expect(row(page, "ship-000001")).to_have_count(0)
    page.mouse.move(5, 300)
    return page, told


@pytest.mark.fine
def test_a_message_with_an_undo_stays_for_twelve_seconds(message):
    page, told = message
    page.clock.run_for(11_500)
    expect(told).to_be_visible()
    page.clock.run_for(1_000)
    expect(told).to_have_count(0)


@pytest.mark.fine
@pytest.mark.parametrize("by", ["focus", "pointer"])
def test_no_message_goes_while_somebody_is_in_it(message, by):
    page, told = message
    button = told.get_by_role("button", name="Undo")
    button.focus() if by == "focus" else button.hover()
    page.clock.run_for(60_000)
    expect(button).to_be_visible()
    if by == "focus":
        page.get_by_role("button", name="Refresh sample gallery").focus()
    else:
        page.mouse.move(5, 300)
    page.clock.run_for(11_000)
    expect(button).to_be_visible()
    page.clock.run_for(2_000)
    expect(button).to_have_count(0)


@pytest.mark.fine
def test_closing_a_message_leads_back_to_where_one_was(message):
    page, told = message
    star = row(page, "ship-000002").get_by_role("button", name="Best one")
    star.focus()
    told.get_by_role("button", name="Close the message").focus()
    page.keyboard.press("Enter")
    expect(told).to_have_count(0)
    expect(star).to_be_focused()


@pytest.mark.fine
def test_a_message_stands_in_one_line_with_its_buttons(message):
    _, told = message
    middles = told.locator("> svg, > button").evaluate_all(
        """(nodes) => nodes.map((node) => {
            const { top, height } = node.getBoundingClientRect();
            return top + height / 2;
        })"""
    )
    text = told.locator("p").evaluate(
        """(node) => {
            const range = document.createRange();
            range.selectNodeContents(node);
            const { top, height } = range.getClientRects()[0];
            return top + height / 2;
        }"""
    )
    assert all(abs(middle - text) < 1 for middle in middles)


@pytest.mark.fine
def test_the_same_complaint_stands_once(page):
    page.route(
        "**/api/projects/ball/samples",
        lambda route: route.fulfill(status=500, json={"error": "No such luck."}),
    )
    refresh = page.get_by_role("button", name="Refresh sample gallery")
    for _ in range(3):
        with page.expect_response("**/samples"):
            refresh.click()
    page.wait_for_timeout(200)
    expect(page.locator(".toast-danger")).to_have_count(1)


NAMELESS = """() => [...document.querySelectorAll("button, input, select, a[href], summary")]
    .filter((node) => node.checkVisibility() && !node.ariaHidden && !(node.ariaLabel
        || node.textContent.trim() || node.labels?.length || node.querySelector("img[alt]")))
    .map((node) => node.outerHTML)"""


@pytest.mark.fine
@pytest.mark.parametrize("size", [PHONE, {"width": 1366, "height": 768}])
def test_nothing_stands_over_and_every_control_has_a_name(folder, visit, size):
    page = visit(f"{folder.url}/?project=ball", viewport=size)
    expect(row(page, "ship")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    open_full(page)
    page.keyboard.press("c")
    assert page.evaluate(NAMELESS) == []
    foot = page.get_by_role("dialog").get_by_role("link", name="Open in a new tab")
    box = foot.bounding_box()
    assert box["y"] + box["height"] <= size["height"]
    over = "document.querySelector('.lightbox').scrollWidth"
    assert page.evaluate(over) <= size["width"]


# -- a real run ------------------------------------------------------------------------------------


def test_samples_come_while_it_runs_and_the_card_after_it(program, visit):
    server = program("--practice", env={"MUSUBITLX_PRACTICE_STEP_DELAY": "0.2"})
    server.upload("ball", pictures(4))
    page = visit(f"{server.url}/?project=ball")
    settings = {
        "trigger_word": "ohwx",
        "epochs": 3,
        "image_repeats": 2,
        "resolution": "64x64",
        "output_name": "ball",
        "samples_enabled": True,
        "sample_at_first": True,
        "sample_prompt_text": "{{trigger}} in the sky --w 64 --h 64",
    }
    server.post("/api/projects/ball/train", {"settings": settings})
    expect(sample(page, "Baseline", "ohwx in the sky")).to_be_visible(timeout=RUN_MS)
    expect(sample(page, "Epoch 1", "ohwx in the sky")).to_be_visible(timeout=RUN_MS)
    expect(row(page, "ball-000001")).to_contain_text("In use by a run")
    expect(row(page, "ball-000001").get_by_role("button", name="Delete")).to_be_disabled()
    expect(page.get_by_role("heading", name="Training in progress")).to_be_visible()
    open_full(page, "Epoch 1", "ohwx in the sky")
    expect(page.get_by_role("button", name="Later: Epoch 2")).to_be_enabled(timeout=RUN_MS)
    page.keyboard.press("Escape")
    expect(page.get_by_role("heading", name="Training completed")).to_be_visible(timeout=RUN_MS)
    expect(row(page, "ball")).to_contain_text("Finished LoRA, epoch 3")
    expect(row(page, "ball-000001").get_by_role("button", name="Delete")).to_be_enabled()
    page.get_by_role("button", name="Model card").click()
    card = page.get_by_role("dialog", name="LORA_README.md")
    expect(card).to_contain_text('instance_prompt: "ohwx"')
    expect(card).to_contain_text("| Images | 4 |")
    expect(card).to_contain_text("| Steps | 24 |")
    with page.expect_download() as download:
        card.get_by_role("link", name="Download").click()
    text = download.value.path().read_text()
    assert text == (server.home / "output/ball/LORA_README.md").read_text()
    picture = re.search(r"!\[.*?\]\((sample/.*?)\)", text)[1]
    assert (server.home / "output/ball" / picture).is_file()
    expect(page.get_by_role("log")).to_contain_text("Model card: ")


@pytest.mark.fine
def test_without_the_stream_the_gallery_is_read_every_half_minute(with_stand_in, visit):
    server = with_stand_in(env={"STAND_IN_STEPS": "600", "STAND_IN_STEP_S": "0.15"})
    page = visit("about:blank")
    page.route("**/api/events?**", lambda route: route.abort())
    page.clock.install()
    page.goto(f"{server.url}/?project=ball")
    job = server.post("/api/projects/ball/train", {"settings": {"output_name": "ball"}})["id"]
    server.wait_for(job, "running")
    expect(page.get_by_role("heading", name="Training in progress")).to_be_visible()
    page.wait_for_timeout(500)
    drawn(Project(Home(server.home), "ball"), "e000001", time.time())
    late = page.get_by_role("img", name=re.compile("^Epoch 1"))
    page.clock.run_for(10_000)
    page.wait_for_timeout(500)
    expect(late).to_have_count(0)
    page.clock.run_for(25_000)
    expect(late).to_be_attached()
