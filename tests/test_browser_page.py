"""The page in a real browser, driven by role and label as a person uses it."""

from __future__ import annotations

import re

import pytest
from browsing import caption, drop, expect, needs_chromium, tab_to
from support import pictures, wait_until

pytestmark = needs_chromium

RUN_MS = 90_000
SLOW_TRAINER = {"STAND_IN_STEPS": "40", "STAND_IN_STEP_S": "0.15"}
LINES = [f"line {number}" for number in range(1, 41)]


def start(page) -> None:
    page.get_by_role("button", name="Start training").click()


def heading(page, words: str):
    return page.get_by_role("heading", name=words)


def log_lines(page) -> list[str]:
    """The numbered lines of the stand-in trainer that stand in the log."""
    return re.findall(r"^line \d+$", page.get_by_role("log").inner_text(), re.M)


def wait_for_line(page, number: int) -> None:
    expect(page.get_by_role("log")).to_contain_text(f"line {number}\n", timeout=RUN_MS)


@pytest.fixture
def slow_run(with_stand_in):
    """A server whose training takes six seconds and prints a line for each of 40 steps."""
    return with_stand_in(env=SLOW_TRAINER)


# -- the whole way ---------------------------------------------------------------------------------


# Read at one moment: the bar of a stage under way, the stage that printed lines, and no end yet.
UNDER_WAY = """() => {
    const { value } = document.querySelector("[data-run-bar]");
    const log = document.querySelector("[role=log]").textContent;
    const lines = log.includes("running training") && !log.includes("TRAINING COMPLETED!");
    return lines && value > 0 && value < 1;
}"""


def test_from_dropped_images_to_the_finished_lora(program, visit):
    live_server = program("--practice", env={"MUSUBITLX_PRACTICE_STEP_DELAY": "0.03"})
    page = visit(live_server.url)
    page.get_by_label("Output folder", exact=True).fill("red ball")
    drop(page, pictures(4))
    expect(caption(page, 4)).to_be_visible()
    caption(page, 1).fill("a red ball on a table")
    page.get_by_label("Trigger word", exact=True).fill("ohwx")
    page.get_by_label("Prompt (subject description)").fill("a ball")
    page.get_by_role("textbox", name="Resolution").fill("64x64")
    page.get_by_label("Epochs", exact=True).fill("3")
    page.get_by_label("Make sample images").check()
    page.get_by_label("Sample prompts").fill("{{trigger}} in the sky --w 64 --h 64")
    expect(page.get_by_text("ohwx, a red ball on a table")).to_be_visible()
    expect(page.get_by_text("120 steps", exact=True)).to_be_visible()
    start(page)

    expect(heading(page, "Training in progress... Please wait.")).to_be_visible(timeout=RUN_MS)
    expect(page.get_by_role("log")).to_contain_text("Stage 1 of 3", timeout=RUN_MS)
    page.wait_for_function(UNDER_WAY, timeout=RUN_MS)  # lines came while it ran

    expect(heading(page, "Training completed")).to_be_visible(timeout=RUN_MS)
    expect(page.get_by_role("log")).to_contain_text("TRAINING COMPLETED!")
    expect(page.get_by_role("img", name="Epoch 3: ohwx in the sky")).to_be_visible()
    loss = re.compile("Loss over steps: .* at step 120")
    expect(page.get_by_role("img", name=loss)).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download red ball.safetensors").click()
    folder = live_server.home / "output/red ball"
    assert download.value.path().read_bytes() == (folder / "red ball.safetensors").read_bytes()
    assert (folder / "ball 0.txt").read_text() == "a red ball on a table"
    assert page.title().startswith("Completed · red ball")


@pytest.mark.fine
def test_the_preview_is_what_runs(slow_run, visit):
    page = visit(f"{slow_run.url}/?project=ball")
    page.get_by_label("Trigger word", exact=True).fill("ohwx")
    page.get_by_text("Effective training command (preview)").click()
    shown = page.locator("[data-commands] pre").nth(2)
    expect(shown).to_contain_text("--network_dim 16")
    preview = shown.text_content()
    start(page)
    expect(page.get_by_role("log")).to_contain_text("$ " + preview, timeout=RUN_MS)


def test_the_keyboard_alone_leads_to_a_run(slow_run, visit):
    page = visit(f"{slow_run.url}/?project=ball")
    expect(caption(page, 3)).to_be_visible()

    tab_to(page, "Caption for image 1")
    page.keyboard.type("a ball")
    tab_to(page, "Trigger word")
    page.keyboard.type("ohwx")
    page.keyboard.press("Enter")  # must not start anything
    assert slow_run.get("/api/jobs") == []
    tab_to(page, "Start training")
    page.keyboard.press("Enter")
    expect(heading(page, "Training in progress")).to_be_visible(timeout=RUN_MS)
    tab_to(page, "Stop training")


# -- images and captions ---------------------------------------------------------------------------


@pytest.mark.fine
def test_each_file_of_an_upload_is_answered_for(live_server, visit):
    page = visit(live_server.url)
    files = {**pictures(2), "ball 0.txt": b"came along", "notes.png": b"no image at all"}
    drop(page, files)
    expect(caption(page, 2)).to_be_visible()
    expect(caption(page, 1)).to_have_value("came along")
    expect(page.get_by_text("Not added: 1 file")).to_be_visible()
    expect(page.get_by_text(re.compile("notes.png – ."))).to_be_visible()
    expect(page.get_by_text("2 images added. 1 caption came along.")).to_be_visible()


@pytest.mark.fine
def test_a_caption_that_is_typed_is_there_after_a_reload(live_server, visit):
    live_server.upload("ball", pictures(2))
    page = visit(f"{live_server.url}/?project=ball")
    caption(page, 2).fill("a ball")
    page.reload()  # at once: what is not saved yet goes out with the page
    expect(caption(page, 2)).to_have_value("a ball")


@pytest.mark.fine
def test_a_caption_that_cannot_be_saved_says_so_and_is_tried_again(live_server, visit):
    live_server.upload("ball", pictures(1))
    page = visit(f"{live_server.url}/?project=ball")
    page.route("**/caption*", lambda route: route.abort())
    caption(page, 1).fill("a ball")
    expect(page.get_by_text("Trying again…")).to_be_visible()
    page.unroute("**/caption*")
    expect(page.get_by_text("Trying again…")).to_be_hidden()
    text = live_server.home / "output/ball/ball 0.txt"
    wait_until(lambda: text.exists() and text.read_text() == "a ball", what="the caption")


def test_text_from_outside_is_never_markup(with_stand_in, visit):
    server = with_stand_in(train="good", images=1)
    evil = "<img src=x onerror=document.title='broken'>"
    page = visit(f"{server.url}/?project=ball")
    caption(page, 1).fill(evil)
    page.get_by_label("Trigger word", exact=True).fill("<b>ohwx</b>")
    start(page)
    expect(page.get_by_role("log")).to_contain_text("TRAINING COMPLETED!", timeout=RUN_MS)
    expect(page.get_by_text(f"<b>ohwx</b>, {evil}")).to_be_visible()
    assert "broken" not in page.title()


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.fine
def test_a_wrong_value_is_told_at_its_field_and_nothing_starts(slow_run, visit):
    page = visit(f"{slow_run.url}/?project=ball")
    epochs = page.get_by_label("Epochs", exact=True)
    epochs.fill("many")
    epochs.blur()
    expect(epochs).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_text("Epochs: enter a whole number from 1 to 10000.").first).to_be_visible()
    start(page)
    expect(epochs).to_be_focused()
    assert slow_run.get("/api/jobs") == []
    epochs.fill("2")
    expect(epochs).not_to_have_attribute("aria-invalid", "true")


SLOW_BODY = """
const ask = window.fetch;
window.fetch = async (address, options) => {
    const answer = await ask(address, options);
    if (address !== "/api/check") return answer;
    const read = answer.json.bind(answer);
    answer.json = () => new Promise((done, failed) => {
        const off = () => failed(new DOMException("called off", "AbortError"));
        options.signal.addEventListener("abort", off);
        setTimeout(() => read().then(done, failed), 1500);
    });
    return answer;
};
"""


@pytest.mark.fine
def test_a_check_called_off_while_its_answer_comes_in_changes_nothing(slow_run, visit):
    page = visit("about:blank")
    page.add_init_script(SLOW_BODY)
    page.goto(f"{slow_run.url}/?project=ball")
    page.get_by_label("Trigger word", exact=True).fill("ohwx")
    expect(page.get_by_text("180 steps", exact=True)).to_be_visible()
    with page.expect_response("**/api/check"):
        page.get_by_label("Epochs", exact=True).fill("2")
    page.get_by_label("Epochs", exact=True).fill("3")  # calls the check off: `visit` hears errors
    page.wait_for_timeout(500)
    expect(page.get_by_text("180 steps", exact=True)).to_be_visible()
    expect(page.get_by_text("90 steps", exact=True)).to_be_visible()


@pytest.mark.fine
def test_start_without_images_says_what_is_missing(live_server, visit):
    page = visit(live_server.url)
    start(page)
    expect(page.get_by_text("This keeps it from starting")).to_be_visible()
    missing = page.get_by_role("button", name="There are no training images")
    expect(missing).to_be_visible()  # the folder is not there either: nobody has to make it
    expect(page.get_by_role("button", name="Select images")).to_be_focused()
    assert live_server.get("/api/jobs") == []


@pytest.mark.fine
def test_the_form_is_there_again_after_a_reload(live_server, visit):
    live_server.upload("ball", pictures(1))
    page = visit(f"{live_server.url}/?project=ball")
    page.get_by_label("Trigger word", exact=True).fill("ohwx")
    page.get_by_label("Learning rate").fill("1e-4")
    page.get_by_label("Make sample images").check()
    page.get_by_label("Sample prompts").fill("a ball")
    page.reload()
    expect(page.get_by_label("Trigger word", exact=True)).to_have_value("ohwx")
    expect(page.get_by_label("Learning rate")).to_have_value("1e-4")
    expect(page.get_by_label("Make sample images")).to_be_checked()
    expect(page.get_by_label("Sample prompts")).to_have_value("a ball")
    expect(page.get_by_text("Trained as: ohwx")).to_be_visible()


@pytest.mark.fine
def test_two_folders_keep_their_own_settings(live_server, visit):
    live_server.upload("cat", pictures(1))
    live_server.upload("dog", pictures(2))
    page = visit(f"{live_server.url}/?project=cat")
    trigger = page.get_by_label("Trigger word", exact=True)
    trigger.fill("kitty")
    page.get_by_label("Open a folder").select_option("dog")
    expect(caption(page, 2)).to_be_visible()
    trigger.fill("doggy")
    page.get_by_label("Open a folder").select_option("cat")
    expect(caption(page, 2)).to_have_count(0)
    expect(trigger).to_have_value("kitty")
    page.wait_for_url("**/?project=cat")


@pytest.mark.fine
def test_flags_follow_the_profile_until_they_are_edited(live_server, visit):
    page = visit(live_server.url)
    page.get_by_text("Show advanced trainer flags").click()
    flags = page.get_by_label("Advanced trainer flags")
    profile = page.get_by_label("VRAM profile")
    expect(flags).to_have_value(re.compile("--blocks_to_swap 45"))
    profile.select_option("16")
    expect(flags).to_have_value(re.compile("--blocks_to_swap 30"))
    flags.fill("--gradient_checkpointing")
    profile.select_option("24")
    expect(flags).to_have_value("--gradient_checkpointing")
    page.get_by_role("button", name="Back to the profile’s flags").click()
    expect(flags).to_have_value(re.compile("--blocks_to_swap 16"))


@pytest.mark.fine
def test_the_final_file_shows_as_one_types(live_server, visit):
    page = visit(live_server.url)
    page.get_by_label("Output folder", exact=True).fill("sks")
    expect(page.get_by_text("output/sks/sks.safetensors")).to_be_visible()
    page.get_by_label("LoRA filename").fill("sks_v2")
    expect(page.get_by_text("output/sks/sks_v2.safetensors")).to_be_visible()


@pytest.mark.fine
def test_yaml_is_saved_and_loaded(live_server, visit):
    page = visit(live_server.url)
    page.get_by_label("Seed", exact=True).fill("7")
    page.get_by_role("button", name="Save configuration as YAML").click()
    expect(page.get_by_text("last_config.yaml")).to_be_visible()
    page.get_by_label("Seed", exact=True).fill("8")
    page.get_by_role("button", name="Load last YAML config").click()
    expect(page.get_by_label("Seed", exact=True)).to_have_value("7")


# -- the run ---------------------------------------------------------------------------------------


def test_a_reload_in_mid_run_shows_each_line_once(slow_run, visit):
    page = visit(f"{slow_run.url}/?project=ball")
    page.get_by_label("Trigger word", exact=True).fill("ohwx")
    start(page)
    wait_for_line(page, 10)
    page.reload()
    expect(heading(page, "Training in progress")).to_be_visible()
    wait_for_line(page, 40)
    assert log_lines(page) == LINES


@pytest.mark.fine
def test_two_pages_see_the_same(slow_run, visit):
    first = visit(f"{slow_run.url}/?project=ball")
    second = visit(slow_run.url)
    first.get_by_label("Trigger word", exact=True).fill("ohwx")
    start(first)
    for page in (first, second):
        expect(heading(page, "Training completed")).to_be_visible(timeout=RUN_MS)
        wait_for_line(page, 40)
        assert log_lines(page) == LINES


@pytest.mark.fine
def test_without_a_stream_the_page_asks_again_and_again(slow_run, visit):
    page = visit("about:blank")
    page.route("**/api/events*", lambda route: route.fulfill(status=503, json={"error": "full"}))
    page.goto(f"{slow_run.url}/?project=ball")
    page.get_by_label("Trigger word", exact=True).fill("ohwx")
    start(page)
    expect(page.get_by_text("Live, once a second")).to_be_visible()
    wait_for_line(page, 10)
    page.unroute("**/api/events*")
    page.get_by_role("button", name="Resume log stream").click()
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    wait_for_line(page, 40)
    assert log_lines(page) == LINES
    expect(heading(page, "Training completed")).to_be_visible()


def test_a_server_that_dies_and_comes_back_costs_no_line(slow_run, program, visit):
    page = visit(f"{slow_run.url}/?project=ball")
    page.get_by_label("Trigger word", exact=True).fill("ohwx")
    start(page)
    wait_for_line(page, 5)
    slow_run.kill()
    expect(page.get_by_text("Server not reached; trying again")).to_be_visible()
    program("--port", str(slow_run.record["port"]), env=slow_run.env)
    wait_for_line(page, 40)
    expect(heading(page, "Training completed")).to_be_visible(timeout=RUN_MS)
    assert log_lines(page) == LINES


@pytest.mark.fine
def test_a_hidden_page_lets_go_of_the_stream_and_takes_it_up_again(slow_run, visit):
    page = visit(f"{slow_run.url}/?project=ball")
    page.get_by_label("Trigger word", exact=True).fill("ohwx")
    start(page)
    wait_for_line(page, 5)
    for hidden, state in ((True, "Paused while hidden"), (False, "Live")):
        page.evaluate(
            """(value) => {
                Object.defineProperty(document, "hidden", { value, configurable: true });
                document.dispatchEvent(new Event("visibilitychange"));
            }""",
            hidden,
        )
        expect(page.get_by_text(state, exact=True)).to_be_visible()
        page.wait_for_timeout(1000)  # lines are printed meanwhile
    wait_for_line(page, 40)
    assert log_lines(page) == LINES


@pytest.mark.fine
def test_scrolling_up_holds_the_log_until_one_follows_again(with_stand_in, visit):
    server = with_stand_in(env={"STAND_IN_STEPS": "200", "STAND_IN_STEP_S": "0.05"})
    page = visit(f"{server.url}/?project=ball")
    page.get_by_label("Trigger word", exact=True).fill("ohwx")
    start(page)
    wait_for_line(page, 30)
    pane = page.get_by_role("log")
    pane.hover()
    page.mouse.wheel(0, -3000)
    follow = page.get_by_role("button", name="Follow the log")
    expect(follow).to_be_visible()
    held = pane.evaluate("pane => pane.scrollTop")
    wait_for_line(page, 60)
    assert pane.evaluate("pane => pane.scrollTop") == held
    follow.click()
    expect(follow).to_be_hidden()
    left = "pane => pane.scrollHeight - pane.clientHeight - pane.scrollTop"
    wait_until(lambda: pane.evaluate(left) < 30, what="the end of the log")


def test_stop_asks_and_then_stops(with_stand_in, visit):
    server = with_stand_in(env={"STAND_IN_STEPS": "500", "STAND_IN_STEP_S": "0.1"})
    page = visit(f"{server.url}/?project=ball")
    page.get_by_label("Trigger word", exact=True).fill("ohwx")
    start(page)
    wait_for_line(page, 2)
    page.get_by_role("button", name="Stop training").click()
    page.get_by_role("button", name="Keep training").click()
    expect(heading(page, "Training in progress")).to_be_visible()
    page.get_by_role("button", name="Stop training").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop training").click()
    expect(heading(page, "Training stopped")).to_be_visible(timeout=RUN_MS)


@pytest.mark.fine
def test_a_second_run_waits_and_can_be_taken_out(with_stand_in, visit):
    server = with_stand_in(env={"STAND_IN_STEPS": "500", "STAND_IN_STEP_S": "0.1"})
    page = visit(f"{server.url}/?project=ball")
    page.get_by_label("Trigger word", exact=True).fill("ohwx")
    start(page)
    wait_for_line(page, 2)
    page.get_by_role("button", name="Add to queue").click()
    waiting = page.get_by_role("list", name="Waiting runs")
    expect(waiting.get_by_role("listitem")).to_have_count(1)
    waiting.get_by_role("button").click()
    expect(waiting).to_be_hidden()
    page.get_by_role("link", name="Runs").click()
    expect(page.get_by_role("row")).to_have_count(2)  # with the head
    running = page.get_by_role("list", name="Running now").get_by_role("listitem")
    expect(running).to_have_count(1)


def test_a_failure_says_why_and_what_to_do(with_stand_in, visit):
    server = with_stand_in(train="fails")
    page = visit(f"{server.url}/?project=ball")
    page.get_by_label("Trigger word", exact=True).fill("ohwx")
    start(page)
    expect(heading(page, "Training failed")).to_be_visible(timeout=RUN_MS)
    card = page.get_by_role("region", name="Training failed")
    expect(card).to_contain_text("memory (VRAM)")
    expect(card).to_contain_text("Choose a smaller VRAM profile")
    page.reload()
    expect(card).to_contain_text("Choose a smaller VRAM profile")


@pytest.mark.fine
def test_the_page_of_runs_lists_opens_and_deletes(with_stand_in, visit):
    server = with_stand_in()
    job = server.post("/api/projects/ball/train", {"settings": {"trigger_word": "ohwx"}})
    server.wait_for(job["id"])
    page = visit(f"{server.url}/runs")
    row = page.get_by_role("row").nth(1)
    expect(row).to_contain_text("Completed")
    expect(row).to_contain_text("10 / 10")
    row.get_by_role("link", name=re.compile("^Open")).click()
    expect(heading(page, "Training completed")).to_be_visible()
    page.go_back()
    page.get_by_role("button", name=re.compile("^Delete my_lora")).click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_text("No run yet.")).to_be_visible()


# -- the page itself -------------------------------------------------------------------------------


@pytest.mark.fine
def test_the_theme_can_be_switched_and_stays(live_server, visit):
    page = visit(live_server.url, color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_label("Theme").select_option("dark")
    dark = page.evaluate(ground)
    assert dark != light
    page.reload(wait_until="commit")
    wait_until(lambda: page.evaluate("document.body && 1"), what="a body")
    assert page.evaluate(ground) == dark  # from the first moment on
    page.wait_for_load_state()
    page.get_by_label("Theme").select_option("")
    assert page.evaluate(ground) == light


WATCH_SHIFTS = """
window.shift = 0;
new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""


def test_the_page_is_light_calm_and_asks_nobody_else(live_server, visit):
    live_server.upload("ball", pictures(8))
    page = visit("about:blank")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.add_init_script(WATCH_SHIFTS)
    page.goto(f"{live_server.url}/?project=ball")
    expect(caption(page, 8)).to_be_visible()
    expect(page.get_by_text("480 steps")).to_be_visible()
    assert [url for url in asked if not url.startswith(live_server.url + "/")] == []
    kinds = ["navigation", "resource"]
    weight = page.evaluate(
        """(kinds) => kinds.flatMap((kind) => performance.getEntriesByType(kind))
            .filter((entry) => !entry.name.includes("/api/"))
            .reduce((sum, entry) => sum + entry.transferSize, 0)""",
        kinds,
    )
    assert 10_000 < weight < 100_000
    assert page.evaluate("window.shift") < 0.01


@pytest.mark.parametrize("path", ["/", "/?project=ball", "/runs", "/nothing-here"])
def test_a_phone_needs_no_sideways_scrolling(with_stand_in, visit, path):
    server = with_stand_in()
    job = server.post("/api/projects/ball/train", {"settings": {"trigger_word": "x"}})
    server.wait_for(job["id"])
    page = visit(server.url + path, viewport={"width": 390, "height": 844}, has_touch=True)
    expect(page.get_by_role("main")).to_be_visible()
    page.wait_for_load_state("load")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


NAMELESS = """() => {
    const controls = "button, input, select, textarea, a[href], summary, [role=meter], progress";
    const named = (node) => node.ariaLabel || node.textContent.trim() || node.labels?.length
        || node.querySelector("img[alt]");
    return [...document.querySelectorAll(controls)]
        .filter((node) => node.checkVisibility() && !node.ariaHidden && !named(node))
        .map((node) => node.outerHTML);
}"""


@pytest.mark.fine
def test_every_control_has_a_name(live_server, visit):
    live_server.upload("ball", pictures(2))
    page = visit(f"{live_server.url}/?project=ball")
    expect(caption(page, 2)).to_be_visible()
    assert page.evaluate(NAMELESS) == []
