"""The large loss chart: zoom, smoothing, further lines, several runs, downloads."""

from __future__ import annotations

import csv
import json
import re
import shutil

import pytest
from browsing import expect, needs_chromium
from lossruns import make_run

from musubitlx import births

pytestmark = needs_chromium

OPENER = "Open the large loss chart"


def opened(visit, server, job: str, **context):
    """The page of a run with its large chart, and the chart's dialog."""
    page = visit(f"{server.url}/?job={job}", **context)
    page.get_by_role("button", name=OPENER).click()
    dialog = page.get_by_role("dialog", name="Loss of")
    expect(dialog).to_contain_text("steps · loss")
    return page, dialog


def plot(dialog):
    return dialog.get_by_role("slider", name="Loss, a value at a time")


def value_at_cursor(dialog) -> str:
    return plot(dialog).get_attribute("aria-valuetext")


def drag(page, dialog, begin: float, end: float) -> None:
    """Drag with the mouse over a part of the chart; both in shares of its width."""
    box = plot(dialog).bounding_box()
    xs = [box["x"] + share * box["width"] for share in (begin, (begin + end) / 2, end)]
    y = box["y"] + box["height"] / 2
    page.mouse.move(xs[0], y)
    page.mouse.down()
    page.mouse.move(xs[1], y)
    page.mouse.move(xs[2], y)
    page.mouse.up()


def colours(dialog) -> int:
    """How many colours the chart is drawn in: 1 for an empty one."""
    return (
        plot(dialog)
        .locator("canvas")
        .evaluate(
            """(canvas) => {
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            return new Set(new Uint32Array(data.buffer)).size;
        }"""
        )
    )


# -- opening and reading ---------------------------------------------------------------------------


@pytest.mark.fine
def test_it_is_loaded_when_it_is_asked_for_and_gives_the_focus_back(live_server, visit):
    job = make_run(live_server.home, "alpha", 400)
    page = visit("about:blank")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{live_server.url}/?job={job}")
    opener = page.get_by_role("button", name=OPENER)
    expect(opener).to_be_visible()
    assert not [url for url in asked if "losschart" in url]
    opener.click()
    dialog = page.get_by_role("dialog", name="Loss of alpha")
    expect(dialog.get_by_text("400 steps · loss")).to_be_visible()
    assert [url for url in asked if "losschart.css" in url]
    assert colours(dialog) > 10
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(opener).to_be_focused()


def test_every_value_of_a_step_is_read_with_the_keys(live_server, visit):
    flags = ["--lr_scheduler", "linear"]
    job = make_run(live_server.home, "alpha", 100, flags=flags, odd={37: {"loss": 3.5}})
    page, dialog = opened(visit, live_server, job)
    expect(plot(dialog)).to_be_focused()
    page.keyboard.press("Home")
    expect(dialog.get_by_text("step 1 · epoch 1 · loss")).to_be_visible()
    page.keyboard.press("End")
    expect(plot(dialog)).to_have_attribute("aria-valuenow", "100")
    page.keyboard.press("Home")
    for _ in range(3):
        page.keyboard.press("PageUp")
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    told = "step 37 · epoch 2 · loss 3.5 · learning rate 6.4e−5 · 2.5 s/step · VRAM 20.4 GB · RAM"
    expect(dialog.get_by_text(told)).to_be_visible()
    assert told in value_at_cursor(dialog)


@pytest.mark.fine
def test_the_mouse_reads_values_too(live_server, visit):
    job = make_run(live_server.home, "alpha", 100)
    page, dialog = opened(visit, live_server, job)
    plot(dialog).hover()
    assert re.match(r"step (4|5|6)\d · epoch \d · loss", value_at_cursor(dialog))
    page.mouse.move(5, 5)
    expect(dialog.get_by_text("100 steps · loss")).to_be_visible()


# -- looking closer --------------------------------------------------------------------------------


def test_a_long_run_shows_its_peak_and_each_step_when_zoomed(live_server, visit):
    job = make_run(live_server.home, "long", 30_000, odd={12_345: {"loss": 9.5}})
    page, dialog = opened(visit, live_server, job)
    whole = dialog.get_by_role("button", name="Whole run")
    expect(whole).to_be_disabled()
    coarse = dialog.get_by_text("zoom in for every step")
    expect(coarse).to_be_visible()
    with page.expect_response(lambda answer: "from=" in answer.url) as answer:
        drag(page, dialog, 0.40, 0.46)
    steps = answer.value.json()["step"]
    assert steps == list(range(steps[0], steps[-1] + 1))
    assert steps[0] < 12_345 < steps[-1]
    expect(coarse).to_be_hidden()
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(200)  # the reading is written with the next frame
    first = int(plot(dialog).get_attribute("aria-valuenow"))
    page.keyboard.press("ArrowRight")
    expect(plot(dialog)).to_have_attribute("aria-valuenow", str(first + 1))
    whole.click()
    expect(whole).to_be_disabled()
    page.keyboard.press("Home")
    expect(dialog.get_by_text("step 1 · epoch 1")).to_be_visible()


def test_zoom_by_wheel_keys_and_double_click(live_server, visit):
    job = make_run(live_server.home, "alpha", 2000)
    page, dialog = opened(visit, live_server, job)
    whole = dialog.get_by_role("button", name="Whole run")
    plot(dialog).hover()
    page.mouse.wheel(0, -200)
    expect(whole).to_be_enabled()
    plot(dialog).dblclick()
    expect(whole).to_be_disabled()
    page.keyboard.press("+")
    expect(whole).to_be_enabled()
    page.keyboard.press("0")
    expect(whole).to_be_disabled()
    dialog.get_by_role("button", name="Zoom in").click()
    expect(whole).to_be_enabled()
    dialog.get_by_role("button", name="Zoom out").click()
    expect(whole).to_be_disabled()


@pytest.mark.fine
def test_two_fingers_zoom_on_a_phone_and_nothing_is_wider_than_it(live_server, visit):
    job = make_run(live_server.home, "alpha", 2000)
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    page, dialog = opened(visit, live_server, job, **phone)
    box = plot(dialog).bounding_box()
    y = box["y"] + box["height"] / 2
    touch = page.context.new_cdp_session(page)

    def send(kind, *xs):
        points = [{"x": x, "y": y, "id": i} for i, x in enumerate(xs)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    send("touchStart", 200, 240)
    for spread in range(10, 60, 10):
        send("touchMove", 200 - spread, 240 + spread)
    send("touchEnd")
    expect(dialog.get_by_role("button", name="Whole run")).to_be_enabled()
    assert re.match(r"step [\d,]+ · epoch", value_at_cursor(dialog))
    wide = """(dialog) => [...dialog.querySelectorAll("*")]
        .filter((node) => !node.closest(".curve-scroll table"))
        .filter((node) => node.getBoundingClientRect().right > innerWidth)
        .map((node) => node.outerHTML.slice(0, 200))"""
    assert dialog.evaluate(wide) == []
    assert dialog.evaluate("(node) => node.scrollWidth <= node.clientWidth")


# -- lines -----------------------------------------------------------------------------------------


@pytest.mark.fine
def test_smoothing_says_what_it_does_and_is_remembered(live_server, visit):
    job = make_run(live_server.home, "alpha", 400)
    page, dialog = opened(visit, live_server, job)
    smoothing = dialog.get_by_role("slider", name="Smoothing")
    expect(smoothing).to_have_attribute(
        "aria-valuetext", "average over 2 % of the run, about 8 steps each way"
    )
    smoothing.focus()
    page.keyboard.press("Home")
    expect(dialog.get_by_text("off: the values as they are")).to_be_visible()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    dialog.get_by_label("Log scale").check()
    page.reload()
    page.get_by_role("button", name=OPENER).click()
    expect(dialog.get_by_text("average over 5 % of the run")).to_be_visible()
    expect(dialog.get_by_label("Log scale")).to_be_checked()


@pytest.mark.fine
def test_a_line_that_is_not_known_is_said_and_not_drawn(live_server, visit):
    flags = ["--optimizer_type", "Adafactor"]
    none = {step: {"vram": None} for step in range(1, 101)}
    job = make_run(live_server.home, "alpha", 100, flags=flags, odd=none)
    _, dialog = opened(visit, live_server, job)
    dialog.get_by_label("Learning rate").check()
    expect(dialog.get_by_text("the optimizer Adafactor finds the learning rate")).to_be_visible()
    dialog.get_by_label("VRAM").check()
    expect(dialog.get_by_text("this run has no figures of a card")).to_be_visible()


@pytest.mark.fine
def test_further_lines_have_scales_of_their_own(live_server, visit):
    job = make_run(live_server.home, "alpha", 100, flags=["--lr_scheduler", "cosine"])
    page, dialog = opened(visit, live_server, job)
    before = plot(dialog).locator("canvas").screenshot()
    dialog.get_by_label("Learning rate").check()
    dialog.get_by_label("VRAM").check()
    page.wait_for_timeout(100)
    assert plot(dialog).locator("canvas").screenshot() != before
    page.reload()
    page.get_by_role("button", name=OPENER).click()
    expect(dialog.get_by_label("VRAM")).to_be_checked()


# -- several runs ----------------------------------------------------------------------------------


@pytest.mark.fine
def test_runs_are_laid_over_one_another_those_of_the_folder_first(live_server, visit):
    home = live_server.home
    job = make_run(home, "alpha", 400, seed=1)
    make_run(home, "far", 300, seed=2, project="other")
    make_run(home, "beta", 300, seed=3, odd={300: {"loss": 0.0625}, 200: {"loss": 0.75}})
    page, dialog = opened(visit, live_server, job)
    dialog.get_by_text("Compare with other runs").click()
    legends = dialog.locator("legend")
    expect(legends).to_have_text(["Folder ball", "Other folders"])
    dialog.get_by_role("checkbox", name="beta").check()
    row = dialog.get_by_role("row", name="beta")
    expect(row).to_contain_text("0.0625")
    plot(dialog).focus()
    page.keyboard.press("Home")
    for _ in range(19):
        page.keyboard.press("PageUp")
    for _ in range(9):
        page.keyboard.press("ArrowRight")
    expect(dialog.get_by_text("step 200 · epoch 2")).to_be_visible()
    expect(row.get_by_role("cell").nth(0)).to_have_text("0.75")
    page.keyboard.press("End")  # 400 steps, the other run has 300
    expect(row.get_by_role("cell").nth(0)).to_have_text("–")
    dialog.get_by_label("Along the bottom").select_option("by epoch")
    expect(row.get_by_role("cell").nth(0)).to_have_text("0.0625")  # both end with epoch 4
    dialog.get_by_label("Along the bottom").select_option("by time")
    expect(row.get_by_role("cell").nth(0)).to_have_text("–")
    row.get_by_role("button", name="Take beta").click()
    expect(row).to_have_count(0)
    expect(dialog.get_by_role("checkbox", name="beta")).not_to_be_checked()


@pytest.mark.fine
def test_more_runs_than_can_be_told_apart_are_not_taken(live_server, visit):
    jobs = [make_run(live_server.home, f"run{n}", 50, seed=n) for n in range(10)]
    _, dialog = opened(visit, live_server, jobs[0])
    dialog.get_by_text("Compare with other runs").click()
    for n in range(1, 6):
        dialog.get_by_role("checkbox", name=f"run{n}").check()
    expect(dialog.get_by_role("checkbox", name="run7")).to_be_disabled()
    expect(dialog.get_by_role("row")).to_have_count(7)
    dialog.get_by_label("Filter the runs").fill("run8")
    expect(dialog.get_by_role("checkbox")).to_have_count(3 + 1)


# -- under way, to keep ----------------------------------------------------------------------------


def under_way(pid: int) -> dict:
    """What the status of a run says whose runner is this process."""
    told = {"pid": pid, "birth": births.birth(pid)}
    return {"state": "running", "ended": None, "runner": told}


@pytest.mark.fine
def test_a_run_under_way_goes_on_in_the_chart(live_server, visit, stranger):
    job = make_run(live_server.home, "alpha", 50, **under_way(stranger))
    _, dialog = opened(visit, live_server, job)
    row = {"step": 51, "epoch": 4, "loss": 0.015625, "time": 1_790_000_200}
    with (live_server.home / f"output/.jobs/{job}/metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    expect(dialog.get_by_text("51 steps · loss")).to_be_visible()
    expect(dialog.get_by_text("0.0156 now")).to_be_visible()


@pytest.mark.fine
def test_a_run_that_was_deleted_stays_drawn_and_holds_up_no_other(live_server, visit, stranger):
    live = under_way(stranger)
    job = make_run(live_server.home, "alpha", 50, **live)
    other = make_run(live_server.home, "beta", 60, seed=1, **live)
    page, dialog = opened(visit, live_server, job)
    dialog.get_by_text("Compare with other runs").click()
    dialog.get_by_role("checkbox", name="beta").check()
    expect(dialog.get_by_role("row")).to_have_count(3)
    shutil.rmtree(live_server.home / f"output/.jobs/{other}")
    expect(dialog.get_by_role("row", name="beta")).to_contain_text("(deleted)")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    with (live_server.home / f"output/.jobs/{job}/metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 51, "epoch": 4, "loss": 0.015625}) + "\n")
    expect(dialog.get_by_text("51 steps · loss")).to_be_visible()
    assert asked and not [url for url in asked if other in url]


@pytest.mark.fine
def test_a_run_under_way_is_shown_with_the_steps_to_come(live_server, visit, stranger):
    far = {"step": 50, "total": 200, "epoch": 1, "epochs": 4, "loss": 0.1}
    live = {**under_way(stranger), "progress": far}
    job = make_run(live_server.home, "alpha", 50, **live)
    page, dialog = opened(visit, live_server, job)
    box = plot(dialog).bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 50)
    assert 30 < int(plot(dialog).get_attribute("aria-valuenow")) < 50
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 50)
    assert plot(dialog).get_attribute("aria-valuenow") == "50"
    drag(page, dialog, 0.08, 0.16)  # steps 5 to 20 or so: a zoom is not widened to the total
    expect(dialog.get_by_role("button", name="Whole run")).to_be_enabled()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 50)
    expect(plot(dialog)).to_have_attribute("aria-valuenow", re.compile(r"^[12]\d$"))


@pytest.mark.fine
def test_one_value_is_said_once(live_server, visit):
    job = make_run(live_server.home, "alpha", 1, epochs=1)
    page = visit(f"{live_server.url}/?job={job}")
    text = page.locator("[data-loss-text]")
    expect(text).to_have_text(re.compile(r"^0\.\d+ at step 1$"))
    page.get_by_role("button", name=OPENER).click()
    dialog = page.get_by_role("dialog", name="Loss of")
    expect(dialog).to_contain_text(re.compile(r"1 step · loss 0\.\d+"))
    expect(dialog).to_contain_text("about 1 step each way")


@pytest.mark.fine
def test_taking_a_run_out_leaves_the_keyboard_in_the_chart(live_server, visit):
    job = make_run(live_server.home, "alpha", 50)
    for seed in (1, 2, 3):
        make_run(live_server.home, f"run{seed}", 50, seed=seed)
    page, dialog = opened(visit, live_server, job)
    dialog.get_by_text("Compare with other runs").click()
    for name in ("run1", "run2", "run3"):
        dialog.get_by_role("checkbox", name=name).check()
        expect(dialog.get_by_role("button", name=f"Take {name}")).to_be_visible()
    dialog.get_by_role("button", name="Take run2").press("Enter")
    expect(dialog.get_by_role("button", name="Take run3")).to_be_focused()
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("button", name="Take run1")).to_be_focused()
    page.keyboard.press("Enter")
    expect(plot(dialog)).to_be_focused()


@pytest.mark.fine
def test_on_a_phone_the_legend_fits_and_the_opener_stands_in_its_corner(live_server, visit):
    job = make_run(live_server.home, "a name that is rather long for a phone", 500)
    make_run(live_server.home, "another name that is long", 50, seed=1)
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    page = visit(f"{live_server.url}/?job={job}", **phone)
    opener, title = (
        page.get_by_role("button", name=OPENER),
        page.get_by_role("heading", name="Loss"),
    )
    expect(opener).to_be_visible()
    edges, text = opener.bounding_box(), title.bounding_box()
    assert (
        edges["x"] > 300
        and abs(edges["y"] + edges["height"] / 2 - text["y"] - text["height"] / 2) < 8
    )
    assert edges["width"] >= 44 and edges["height"] >= 44
    page.get_by_role("button", name=OPENER).click()
    dialog = page.get_by_role("dialog", name="Loss of")
    dialog.get_by_text("Compare with other runs").click()
    dialog.get_by_role("checkbox", name="another name").check()
    expect(dialog.get_by_role("button", name="Take another")).to_be_visible()
    right = dialog.evaluate(
        "(node) => Math.max(...[...node.querySelectorAll('.curve-legend *')]"
        ".map((one) => one.getBoundingClientRect().right))"
        " - node.querySelector('.curve-scroll').getBoundingClientRect().right"
    )
    assert right <= 0.5
    out = dialog.get_by_role("button", name="Take another").bounding_box()
    assert out["width"] >= 44 and out["height"] >= 44


@pytest.mark.fine
def test_back_closes_the_chart(live_server, visit):
    job = make_run(live_server.home, "alpha", 50)
    page, dialog = opened(visit, live_server, job)
    page.go_back()
    expect(dialog).to_be_hidden()
    assert f"job={job}" in page.url


@pytest.mark.fine
def test_a_server_that_is_away_is_told_and_waited_for(live_server, visit):
    job = make_run(live_server.home, "alpha", 50)
    page = visit(f"{live_server.url}/?job={job}")
    opener = page.get_by_role("button", name=OPENER)
    expect(opener).to_be_visible()
    page.route("**/metrics?*", lambda route: route.abort())
    opener.click()
    dialog = page.get_by_role("dialog", name="Loss of")
    expect(dialog.get_by_role("status").first).to_contain_text("The server does not answer.")
    page.unroute("**/metrics?*")
    expect(dialog.get_by_text("50 steps · loss")).to_be_visible()
    expect(dialog.get_by_role("status").first).to_be_empty()


def test_the_chart_is_kept_as_a_picture_and_as_a_table(live_server, visit, tmp_path):
    job = make_run(live_server.home, "alpha", 5000)
    page, dialog = opened(visit, live_server, job)
    with page.expect_download() as download:
        dialog.get_by_role("button", name="PNG").click()
    assert download.value.suggested_filename.endswith(".png")
    download.value.save_as(tmp_path / "chart.png")
    Image = pytest.importorskip("PIL.Image")
    with Image.open(tmp_path / "chart.png") as image:
        assert image.size == (1600, 900)
        assert len(image.convert("RGB").getcolors(1 << 24)) > 10
    with page.expect_download() as download:
        dialog.get_by_role("link", name="CSV").click()
    assert download.value.suggested_filename == f"alpha_{job}_loss.csv"
    download.value.save_as(tmp_path / "chart.csv")
    with (tmp_path / "chart.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, 5001))
    assert {row["lr"] for row in rows} == {"0.0001"}


# -- the rooms of the chart on their own -----------------------------------------------------------


def of_module(page, name: str, expression: str):
    code = f"import('/static/js/{name}.js').then((it) => {expression})"
    return page.evaluate(code)


def test_scales_mark_round_values_and_tell_them_apart(live_server, visit):
    page = visit(live_server.url)
    marks = "it.scaleOf(0.01, 1, 0, 100, true).marks(4)"
    assert of_module(page, "scales", marks) == pytest.approx([0.01, 0.03, 0.1, 0.3, 1])
    for values, names in (
        ([0.0912, 0.09125, 0.0913], ["0.0912", "0.09125", "0.0913"]),
        ([0, 0.00005, 0.0001], ["0", "5e−5", "1e−4"]),
        ([0, 500, 1000], ["0", "500", "1000"]),
        ([], []),
    ):
        assert of_module(page, "scales", f"it.labelsOf({values})") == names
    middle = "it.scaleOf(0.01, 1, 0, 100, true).at(0.1)"
    assert of_module(page, "scales", middle) == pytest.approx(50)
    assert of_module(page, "scales", "it.scaleOf(0.01, 1, 0, 100, true).value(50)") == (
        pytest.approx(0.1)
    )


@pytest.mark.fine
def test_smoothing_keeps_a_level_and_shifts_nothing(live_server, visit):
    page = visit(live_server.url)
    level = of_module(page, "series", "it.averaged([1, 2, 5, 9], [3, 3, null, 3], 4)")
    assert level == pytest.approx([3, 3, 3, 3])
    peak = of_module(
        page,
        "series",
        "it.averaged([...Array(101).keys()], [...Array(101).keys()].map((i) => +(i === 50)), 5)",
    )
    assert max(peak) == peak[50]
    assert peak[40] == pytest.approx(peak[60])
    assert of_module(page, "series", "it.averaged([1, 2], [null, null], 4)") == [None, None]


@pytest.mark.fine
def test_the_nearest_value_is_found_at_the_ends_too(live_server, visit):
    page = visit(live_server.url)
    near = "[-5, 2, 3, 6, 7, 99].map((n) => it.nearestTo([1, 4, 9], n))"
    assert of_module(page, "series", near) == [0, 0, 1, 1, 2, 2]
    assert of_module(page, "series", "it.nearestTo([], 3)") == -1


@pytest.mark.fine
def test_at_least_two_steps_are_named_whatever_the_length(live_server, visit):
    page = visit(live_server.url)
    counts = page.evaluate(
        """async () => {
            const { wholeTicks } = await import("/static/js/chart.js");
            const found = [];
            for (let last = 2; last < 12000; last += 1) found.push(wholeTicks(1, last, 3).length);
            return [Math.min(...found), Math.max(...found)];
        }"""
    )
    assert counts[0] >= 2 and counts[1] <= 8
