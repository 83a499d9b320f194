"""Step 1 of the page in a real browser: uploads, captions, the workbench, dataset health."""

from __future__ import annotations

import io
import re
import zipfile

import pytest
from browsing import caption, drop, expect, needs_chromium, tab_to, wait_in
from support import picture, pictures, wait_until

pytestmark = needs_chromium


@pytest.fixture
def ball(live_server):
    """The program in practice mode with a folder of four captioned images."""
    live_server.upload("ball", pictures(4))
    for number, text in enumerate(["a red ball", "a blue ball", "a cube", ""]):
        save(live_server, number, text)
    return live_server


def save(server, number: int, text: str) -> None:
    server.put(f"/api/projects/ball/images/ball {number}.jpg/caption", {"text": text})


def text_of(server, number: int) -> str:
    path = server.home / f"output/ball/ball {number}.txt"
    return path.read_text() if path.exists() else ""


def open_ball(server, visit):
    page = visit(f"{server.url}/?project=ball")
    expect(caption(page, 4)).to_be_visible()
    return page


# -- uploading -------------------------------------------------------------------------------------


@pytest.mark.fine
def test_an_archive_and_single_files_can_be_dropped_together(live_server, visit):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("set/inside.jpg", picture(7, (320, 240)))
        archive.writestr("set/inside.txt", "from the archive")
        archive.writestr("set/run.py", "import os")
    page = visit(live_server.url)
    drop(page, {"set.zip": packed.getvalue(), **pictures(2)})
    expect(caption(page, 3)).to_have_value("from the archive")
    expect(page.get_by_text("3 images added.")).to_be_visible()
    expect(page.get_by_text("Not added: 1 file")).to_be_visible()
    expect(page.get_by_text(re.compile("set/run.py – it is neither"))).to_be_visible()


@pytest.mark.fine
def test_a_connection_that_breaks_is_taken_up_again_by_itself(live_server, visit):
    page = visit(live_server.url)
    broken = []

    def breaks(route):
        broken.append(route)
        route.abort() if len(broken) == 1 else route.continue_()

    page.route("**/images", breaks)
    drop(page, pictures(2))
    expect(page.get_by_text("Trying again…")).to_be_visible()
    expect(page.get_by_text("2 images added.")).to_be_visible()
    assert len(broken) == 2


@pytest.mark.fine
def test_an_answer_that_got_lost_adds_nothing_twice(live_server, visit):
    page = visit(live_server.url)
    sent = []

    def lost(route):
        sent.append(route)
        if len(sent) == 1:
            route.fetch()
            route.abort()
        else:
            route.continue_()

    page.route("**/images", lost)
    drop(page, pictures(2))
    expect(page.get_by_text("2 images were there already.")).to_be_visible()
    expect(caption(page, 2)).to_be_visible()
    assert len(live_server.get("/api/projects")["projects"]) == 1
    assert live_server.get("/api/projects")["projects"][0]["images"] == 2


@pytest.fixture
def slow_line(visit):
    """A function that makes a page's way to the server as slow as asked (bytes a second)."""

    def slow(page, up: int) -> None:
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        session.send(
            "Network.emulateNetworkConditions",
            {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": up},
        )

    return slow


@pytest.mark.fine
def test_each_file_shows_its_progress_and_can_be_called_off(live_server, visit, slow_line):
    page = visit(live_server.url)
    slow_line(page, 150_000)
    files = {f"photo {n}.png": picture(n, (400, 300), "PNG") for n in range(24)}
    drop(page, files)
    rows = page.get_by_role("list", name="Files on their way").get_by_role("listitem")
    expect(rows.filter(has_text=re.compile(r"[1-9]\d? %")).first).to_be_visible()
    last = rows.filter(has_text="photo 23.png")
    expect(last).to_contain_text("waiting")
    last.get_by_role("button", name="Cancel").click()
    expect(last).to_have_count(0)
    page.get_by_role("button", name="Cancel upload").click()
    expect(
        page.get_by_text(re.compile(r"Upload cancelled: \d+ files not finished"))
    ).to_be_visible()
    stored = live_server.get("/api/projects")["projects"][0]["images"]
    assert stored < 23
    incoming = live_server.home / "output/my_lora/.musubitlx/incoming"
    wait_until(lambda: not any(incoming.glob("*")), what="no half file to be left")


@pytest.mark.fine
def test_a_disk_without_room_is_told_before_a_byte_is_sent(live_server, visit):
    page = visit(live_server.url)
    sent = []
    page.route("**/images", lambda route: sent.append(route))
    page.route("**/api/resources", lambda route: route.fulfill(json={"disk": {"free": 1000}}))
    drop(page, pictures(1))
    expect(page.get_by_text(re.compile("the server's disk has room for 0 B"))).to_be_visible()
    assert sent == []


@pytest.mark.fine
def test_images_are_imported_from_a_folder_of_the_server(ball, visit):
    source = ball.home / "import/holiday"
    source.mkdir(parents=True)
    (source / "beach.jpg").write_bytes(picture(9, (640, 480)))
    (source / "beach.txt").write_text("on the beach")
    page = open_ball(ball, visit)
    page.get_by_role("button", name="Import from the server").click()
    page.get_by_role("button", name="holiday").click()
    page.get_by_role("button", name="Import 1 image into ball").click()
    expect(page.get_by_text("1 image imported. 1 caption came along.")).to_be_visible()
    expect(caption(page, 5)).to_be_visible()
    expect(caption(page, 5)).to_have_value("on the beach")


# -- cards -----------------------------------------------------------------------------------------


@pytest.mark.fine
def test_a_removed_image_can_be_brought_back_for_ten_seconds(ball, visit):
    page = open_ball(ball, visit)
    page.get_by_role("button", name="Remove image 2").click()
    expect(caption(page, 4)).to_have_count(0)
    assert not (ball.home / "output/ball/ball 1.jpg").exists()
    undo = page.get_by_role("button", name="Undo: bring ball 1.jpg back")
    expect(undo).to_be_focused()
    undo.click()
    expect(caption(page, 2)).to_have_value("a blue ball")
    expect(caption(page, 4)).to_be_visible()
    assert text_of(ball, 1) == "a blue ball"
    page.get_by_role("button", name="Remove image 1").click()
    expect(page.get_by_text("ball 0.jpg removed.")).to_be_visible()
    expect(page.get_by_text("ball 0.jpg removed.")).to_have_count(0, timeout=12_000)
    expect(page.get_by_role("button", name="Remove image 1, ball 1.jpg")).to_be_visible()


@pytest.mark.fine
def test_the_larger_view_leads_through_the_images_and_takes_captions(ball, visit):
    page = open_ball(ball, visit)
    page.get_by_role("button", name="Show image 2 larger").click()
    view = page.get_by_role("dialog", name="ball 1.jpg")
    expect(view.get_by_text("2 of 4")).to_be_visible()
    expect(view.get_by_label("Caption")).to_have_value("a blue ball")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    view = page.get_by_role("dialog", name="ball 3.jpg")
    expect(view.get_by_text("4 of 4")).to_be_visible()
    page.keyboard.press("ArrowRight")  # there is no fifth
    view.get_by_label("Caption").fill("typed large")
    page.keyboard.press("ArrowLeft")  # moves the cursor, not the image
    page.keyboard.press("PageUp")
    expect(page.get_by_role("dialog", name="ball 2.jpg")).to_be_visible()
    page.keyboard.press("Escape")
    expect(caption(page, 4)).to_have_value("typed large")
    wait_until(lambda: text_of(ball, 3) == "typed large", what="the caption")
    expect(page.get_by_role("button", name="Show image 3 larger")).to_be_focused()


@pytest.mark.fine
def test_what_the_bucket_cuts_off_is_shown_on_the_card(live_server, visit):
    live_server.upload(
        "wide", {"wide.jpg": picture(1, (1500, 400)), "square.jpg": picture(2, (512, 512))}
    )
    page = visit(f"{live_server.url}/?project=wide")
    page.get_by_role("textbox", name="Resolution").fill("512x512")
    expect(page.get_by_text(re.compile("wide.jpg.*bucket 960 × 272.*% cut off"))).to_be_visible()
    crops = page.locator(".card .crop")
    expect(crops.nth(0)).to_be_hidden()  # the square one
    expect(crops.nth(1)).to_be_visible()
    frame = page.locator(".card-frame").nth(1).bounding_box()
    crop = crops.nth(1).bounding_box()
    assert crop["width"] < frame["width"] - 2 and abs(crop["height"] - frame["height"]) < 1
    page.get_by_role("textbox", name="Resolution").fill("768x768")
    expect(page.get_by_text(re.compile("square.jpg.*bucket 768 × 768"))).to_be_visible()


# -- captions --------------------------------------------------------------------------------------


def test_a_caption_changed_elsewhere_shows_by_itself(ball, visit):
    page = open_ball(ball, visit)
    expect(page.get_by_text("Connected", exact=True)).to_be_visible()
    save(ball, 2, "from another page")
    expect(caption(page, 3)).to_have_value("from another page")
    ball.upload("ball", {"zz.jpg": picture(9, (64, 64))})
    expect(caption(page, 5)).to_be_visible()


def test_two_pages_that_write_one_caption_are_told_and_nothing_is_lost(ball, visit):
    first, second = open_ball(ball, visit), open_ball(ball, visit)
    held = []
    second.route("**/caption*", lambda route: held.append(route))
    second.route("**/api/events*", lambda route: route.abort())
    second.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    caption(second, 1).fill("by the second")
    wait_in(second, lambda: held, "the second to save")
    caption(first, 1).fill("by the first")
    wait_until(lambda: text_of(ball, 0) == "by the first", what="the first to save")
    held.pop().continue_()
    second.unroute("**/caption*")
    told = second.locator("[data-conflict]")
    expect(told).to_contain_text("by the first")
    assert text_of(ball, 0) == "by the first"
    expect(caption(second, 1)).to_have_value("by the second")
    second.get_by_role("button", name="Keep my text").click()
    wait_until(lambda: text_of(ball, 0) == "by the second", what="the second to win")
    expect(told).to_have_count(0)
    expect(caption(first, 1)).to_have_value("by the second")


@pytest.mark.fine
def test_the_other_text_can_be_taken(ball, visit):
    page = open_ball(ball, visit)
    page.route("**/caption*", lambda route: route.abort())
    caption(page, 1).fill("mine")
    expect(page.get_by_text("Trying again…")).to_be_visible()
    save(ball, 0, "theirs")
    page.unroute("**/caption*")
    expect(page.locator("[data-conflict]")).to_be_visible()
    page.get_by_role("button", name="Take the other one").click()
    expect(caption(page, 1)).to_have_value("theirs")
    page.reload()
    expect(caption(page, 1)).to_have_value("theirs")
    assert text_of(ball, 0) == "theirs"


@pytest.mark.fine
def test_a_caption_typed_while_the_server_is_away_is_there_after_a_reload(ball, visit):
    page = open_ball(ball, visit)
    page.route("**/caption*", lambda route: route.abort())
    caption(page, 4).fill("typed into the void")
    expect(page.get_by_text("Trying again…")).to_be_visible()
    page.on("dialog", lambda dialog: dialog.accept())  # "leave the page?"
    page.reload()
    expect(caption(page, 4)).to_have_value("typed into the void")
    page.unroute("**/caption*")
    wait_until(lambda: text_of(ball, 3) == "typed into the void", what="it to be saved after all")


@pytest.mark.fine
@pytest.mark.parametrize("told", [True, False], ids=["with its stream", "without"])
def test_an_answer_lost_on_the_way_is_no_conflict_with_oneself(ball, visit, told):
    page = open_ball(ball, visit)
    sent = []

    def lost(route):
        sent.append(route)
        if len(sent) == 1:
            route.fetch()
            route.abort()
        else:
            route.continue_()

    if not told:
        page.route("**/api/events*", lambda route: route.abort())
        page.reload()
    page.route("**/caption*", lost)
    caption(page, 1).fill("first")
    wait_in(page, lambda: text_of(ball, 0) == "first", "the first text")
    caption(page, 1).fill("first and more")
    wait_in(page, lambda: text_of(ball, 0) == "first and more", "the whole text")
    expect(page.locator("[data-conflict]")).to_have_count(0)
    expect(caption(page, 1)).to_have_value("first and more")


@pytest.mark.fine
def test_a_run_does_not_start_while_a_caption_is_not_saved(ball, visit):
    page = open_ball(ball, visit)
    page.route("**/caption*", lambda route: route.abort())
    caption(page, 2).fill("never arrives")
    page.get_by_role("button", name="Start training").click()
    expect(page.get_by_text("Captions that are not saved: ball 1.jpg.").first).to_be_visible()
    assert ball.get("/api/jobs") == []


@pytest.mark.fine
def test_an_undo_is_of_the_folder_it_was_offered_for(ball, visit):
    ball.upload("other", pictures(2))
    page = open_ball(ball, visit)
    page.get_by_role("button", name="Edit many…").click()
    page.get_by_label("Find", exact=True).fill("ball")
    page.get_by_label("Replace with").fill("globe")
    page.get_by_role("button", name="Change 2 captions").click()
    expect(page.get_by_text("2 captions changed.")).to_be_visible()
    page.get_by_label("Open a folder").select_option("other")
    expect(caption(page, 3)).to_have_count(0)
    page.get_by_role("button", name="Undo", exact=True).click()
    wait_in(page, lambda: text_of(ball, 0) == "a red ball", "the step to be taken back")


# -- workbench -------------------------------------------------------------------------------------


def shown(page) -> list[str]:
    return page.locator(".card:not([hidden]) .card-label").all_text_contents()


@pytest.mark.fine
def test_the_filter_shows_what_fits(ball, visit):
    page = open_ball(ball, visit)
    choice = page.get_by_label("Which images to show")
    choice.select_option("Without a caption")
    expect(page.get_by_text("1 of 4 images shown")).to_be_visible()
    assert shown(page) == ["Caption for image 4"]
    choice.select_option("Caption shorter than…")
    page.get_by_label("words", exact=True).fill("3")
    expect(page.get_by_text("2 of 4 images shown")).to_be_visible()
    assert shown(page) == ["Caption for image 3", "Caption for image 4"]
    page.get_by_label("Trigger word", exact=True).fill("red")
    choice.select_option("Without the trigger word")
    expect(page.get_by_text("3 of 4 images shown")).to_be_visible()
    choice.select_option("All images")
    page.get_by_label("Search captions and file names").fill("BALL 2")
    expect(page.get_by_text("1 of 4 images shown")).to_be_visible()
    page.get_by_role("button", name="Show all").click()
    expect(caption(page, 1)).to_be_visible()
    assert len(shown(page)) == 4


def test_find_and_replace_shows_its_hits_and_can_be_undone(ball, visit):
    page = open_ball(ball, visit)
    page.get_by_role("button", name="Edit many…").click()
    page.get_by_label("Find", exact=True).fill("ball")
    page.get_by_label("Replace with").fill("globe")
    expect(page.get_by_text("2 captions would change among all images.")).to_be_visible()
    hits = page.get_by_role("list", name="Preview").get_by_role("listitem")
    expect(hits).to_have_count(2)
    expect(hits.first.locator("del")).to_have_text("ball")
    expect(hits.first).to_contain_text("a red globe")
    assert text_of(ball, 0) == "a red ball"
    page.get_by_role("button", name="Change 2 captions").click()
    expect(caption(page, 1)).to_have_value("a red globe")
    assert [text_of(ball, n) for n in range(3)] == ["a red globe", "a blue globe", "a cube"]
    expect(page.get_by_role("button", name="Nothing to change")).to_be_disabled()
    page.reload()  # the undo is the server's to remember
    page.get_by_role("button", name="Undo last step").click()
    expect(caption(page, 1)).to_have_value("a red ball")
    assert [text_of(ball, n) for n in range(3)] == ["a red ball", "a blue ball", "a cube"]
    expect(page.get_by_role("button", name="Undo last step")).to_be_hidden()


@pytest.mark.fine
def test_text_is_put_in_front_of_the_filtered_ones_only(ball, visit):
    page = open_ball(ball, visit)
    page.get_by_label("Search captions and file names").fill("blue")
    expect(page.get_by_text("1 of 4 images shown")).to_be_visible()
    page.get_by_role("button", name="Edit many…").click()
    page.get_by_label("Put text in front").check()
    page.get_by_label("Text to add").fill("photo of")
    page.get_by_role("button", name="Change 1 caption").click()
    wait_until(lambda: text_of(ball, 1) == "photo of a blue ball", what="the caption")
    assert [text_of(ball, n) for n in (0, 2, 3)] == ["a red ball", "a cube", ""]


@pytest.mark.fine
def test_what_is_being_typed_counts_for_a_bulk_step(ball, visit):
    page = open_ball(ball, visit)
    page.get_by_role("button", name="Edit many…").click()
    caption(page, 4).fill("a late ball")
    page.get_by_label("Find", exact=True).fill("ball")
    page.get_by_label("Replace with").fill("globe")
    page.get_by_role("button", name="Change 3 captions").click()
    expect(caption(page, 4)).to_have_value("a late globe")
    assert text_of(ball, 3) == "a late globe"


# -- dataset health --------------------------------------------------------------------------------


@pytest.mark.fine
def test_dataset_health_names_copies_and_removes_them_with_undo(ball, visit):
    ball.upload("ball", {"copy of it.jpg": pictures(1)["ball 0.jpg"]})
    page = open_ball(ball, visit)
    summary = page.get_by_text("Dataset health")
    expect(page.get_by_text(re.compile(r"things? to look at$"))).to_be_visible()
    summary.click()
    finding = page.get_by_role("listitem").filter(
        has=page.get_by_role("button", name="Keep one of each")
    )
    expect(finding).to_contain_text("copy of it.jpg")
    expect(page.get_by_text("The same picture as copy of it.jpg.")).to_be_visible()
    finding.get_by_role("button", name="Show them").click()
    expect(page.get_by_text("2 of 5 images shown")).to_be_visible()
    finding.get_by_role("button", name="Keep one of each").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.get_by_text("1 image removed.")).to_be_visible()
    assert not (ball.home / "output/ball/copy of it.jpg").exists()  # the captioned one stays
    assert (ball.home / "output/ball/ball 0.jpg").exists()
    page.get_by_role("button", name="Undo", exact=True).click()
    wait_until(lambda: (ball.home / "output/ball/copy of it.jpg").exists(), what="the undo")


@pytest.mark.fine
def test_a_picture_put_there_by_hand_is_mended_from_the_page(ball, visit):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    lying = ball.home / "output/ball/lying.jpg"
    Image.open(io.BytesIO(picture(5, (400, 300)))).save(lying, exif=exif)
    page = open_ball(ball, visit)
    expect(page.get_by_text("lying on its side").first).to_be_visible()
    page.locator("[data-health] > summary").click()
    page.locator("[data-health]").get_by_role("button", name="Mend it").click()
    expect(page.get_by_text(re.compile("1 image mended"))).to_be_visible()
    expect(page.get_by_text(re.compile("lying.jpg · 300 × 400 px"))).to_be_visible()
    assert (ball.home / "output/ball/originals/lying.jpg").exists()


@pytest.mark.fine
def test_few_images_come_with_advice_until_there_are_more_steps(ball, visit):
    page = open_ball(ball, visit)
    notice = page.locator("[data-few]")
    expect(notice).to_contain_text("Only 4 images and 240 steps")
    expect(notice.get_by_role("listitem")).to_have_count(4)
    page.get_by_label("Epochs", exact=True).fill("8")
    expect(notice).to_be_hidden()


# -- keyboard --------------------------------------------------------------------------------------


def test_step_1_works_with_the_keyboard_alone(ball, visit):
    page = open_ball(ball, visit)
    tab_to(page, "Search captions")
    page.keyboard.type("ball 0")
    expect(page.get_by_text("1 of 4 images shown")).to_be_visible()
    tab_to(page, "Show all")
    page.keyboard.press("Enter")
    tab_to(page, "Edit many…")
    page.keyboard.press("Enter")
    page.keyboard.type("ball")  # the panel opens with the cursor in its first field
    page.keyboard.press("Tab")
    page.keyboard.type("globe")
    expect(page.get_by_role("button", name="Change 2 captions")).to_be_enabled()
    page.keyboard.press("Enter")
    expect(caption(page, 1)).to_have_value("a red globe")
    page.keyboard.press("Escape")
    expect(page.get_by_label("Find", exact=True)).to_be_hidden()
    tab_to(page, "Show image 1 larger")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="ball 0.jpg")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("dialog", name="ball 1.jpg")).to_be_visible()
    page.keyboard.press("Escape")
    tab_to(page, "Caption for image 2")
    page.keyboard.press("Control+a")
    page.keyboard.type("by keyboard")
    tab_to(page, "Remove image 2", key="Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Undo: bring ball 1.jpg back")).to_be_focused()
    page.keyboard.press("Enter")
    expect(caption(page, 2)).to_have_value("by keyboard")
    assert text_of(ball, 1) == "by keyboard"
