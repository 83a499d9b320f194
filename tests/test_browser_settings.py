"""Step 2 of the page in a real browser: recipes, strength, profiles, estimates, configurations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from browsing import expect, needs_chromium, tab_to, wait_in
from support import SMALL, model_files, pictures, stand_in

pytestmark = needs_chromium

NVML = str(Path(__file__).resolve().parent / "standins" / "nvml")


@pytest.fixture
def ball(live_server):
    live_server.post("/api/projects", {"name": "ball"})
    assert live_server.upload("ball", pictures(5)).status_code == 201
    return live_server


@pytest.fixture
def on_a_card(program, tmp_path):
    """The program with a stand-in Musubi on a machine with a card of 24 GB, and three images."""
    model_files(tmp_path / "home")
    env = {**stand_in(tmp_path / "musubi"), "PYTHONPATH": NVML, "STAND_IN_VRAM_GB": "23.99"}
    server = program(env=env)
    server.post("/api/projects", {"name": "ball"})
    assert server.upload("ball", pictures(3)).status_code == 201
    return server


def open_ball(visit, server, **context):
    page = visit(server.url + "/?project=ball", **context)
    expect(page.get_by_label("Recipe", exact=True).locator("option")).to_have_count(7)
    return page


def value(page, label: str) -> str:
    return page.get_by_label(label, exact=True).input_value()


def takes(page):
    return page.locator("[data-takes]")


def recipe_of(page):
    return page.get_by_label("Recipe", exact=True)


def told(server, recipe: str, images: int = 5) -> dict:
    """The values of a recipe, with its name, as they come to stand in the form."""
    recipes = server.get(f"/api/recipes?images={images}")["recipes"]
    return {**next(r for r in recipes if r["id"] == recipe)["settings"], "recipe": recipe}


def keep_draft(server, folder: str = "ball", **settings) -> None:
    draft = {"output_dir": folder, "output_name": folder, **settings}
    server.put("/api/config", {"name": f"draft-{folder}", "settings": draft})


def wait_for_draft(page, server, folder: str = "ball", **wanted) -> None:
    def is_kept() -> bool:
        answer = server.call("GET", f"/api/config?name=draft-{folder}")
        return answer.ok and wanted.items() <= answer.json()["settings"].items()

    wait_in(page, is_kept, f"{wanted} in the draft of {folder}")


def own_recipe(server, name: str, **settings):
    """A recipe of the user's own; returns its file."""
    folder = server.home / "configs/recipes"
    folder.mkdir(exist_ok=True)
    text = {"label": name, "why": "Mine.", "settings": settings, "steps": {5: 500}, "epochs": 5}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(text))
    return folder / f"{name}.yaml"


# -- recipes ---------------------------------------------------------------------------------------


def test_a_recipe_fills_the_form_says_why_and_follows_the_number_of_images(ball, visit):
    page = open_ball(visit, ball)
    page.get_by_label("Recipe", exact=True).select_option("Person")
    expect(page.locator("[data-recipe-why]")).to_contain_text("For your 5 images: 1,000 steps")
    expect(page.get_by_text("1,000 steps", exact=True)).to_be_visible()
    assert (value(page, "Epochs"), value(page, "LoRA rank")) == ("10", "32")
    assert value(page, "Dims (alpha)") == "32" and value(page, "Learning rate") == "1e-4"

    ball.upload("ball", pictures(15))  # five of them are there already
    expect(page.locator("[data-recipe-why]")).to_contain_text("For your 15 images", timeout=20_000)
    told = next(r for r in ball.get("/api/recipes?images=15")["recipes"] if r["id"] == "person")
    expect(page.get_by_label("Image repeats")).to_have_value(str(told["settings"]["image_repeats"]))


@pytest.mark.fine
def test_a_changed_field_makes_the_settings_one_s_own_and_a_reload_keeps_all(ball, visit):
    page = open_ball(visit, ball)
    recipe = page.get_by_label("Recipe", exact=True)
    recipe.select_option("Style")
    expect(page.get_by_text("Saved", exact=True)).to_be_visible()
    page.reload()
    expect(recipe.locator("option")).to_have_count(7)
    expect(recipe).to_have_value("style")
    page.get_by_label("Epochs", exact=True).fill("3")
    expect(recipe).to_have_value("")
    expect(page.locator("[data-recipe-why]")).to_be_empty()
    assert value(page, "LoRA rank") == "32"


@pytest.mark.fine
def test_recipes_by_the_keyboard_alone(ball, visit):
    page = open_ball(visit, ball)
    tab_to(page, "About Recipe")
    tab_to(page, "Recipe", most=1)
    page.keyboard.press("p")
    expect(page.get_by_label("Recipe", exact=True)).to_have_value("person")
    expect(page.get_by_label("LoRA rank")).to_have_value("32")


@pytest.mark.fine
def test_a_draft_or_a_file_that_only_names_a_recipe_is_shown_as_one_s_own_settings(ball, visit):
    keep_draft(ball, **{**told(ball, "person"), "epochs": 3})
    file = {**told(ball, "style"), "output_dir": "ball", "lora_rank": 7}
    (ball.home / "configs/last_config.yaml").write_text(yaml.safe_dump(file))
    page = open_ball(visit, ball)
    wait_for_draft(page, ball, recipe="", epochs=3)  # what is kept says what is shown
    expect(recipe_of(page)).to_have_value("")
    expect(page.locator("[data-recipe-why]")).to_be_empty()

    recipe_of(page).select_option("Person")
    expect(page.locator("[data-recipe-why]")).to_contain_text("1,000 steps")
    page.get_by_role("button", name="Load last YAML config").click()
    expect(page.get_by_label("LoRA rank")).to_have_value("7")
    expect(recipe_of(page)).to_have_value("")
    expect(page.locator("[data-recipe-why]")).to_be_empty()
    wait_for_draft(page, ball, recipe="", lora_rank=7)


@pytest.mark.fine
def test_a_recipe_that_is_not_there_is_neither_offered_nor_kept(ball, visit):
    keep_draft(ball, epochs=3, recipe="of last year")
    mine = own_recipe(ball, "mine", lora_rank=24)
    page = visit(ball.url + "/?project=ball")
    expect(recipe_of(page).locator("option")).to_have_count(8)
    expect(recipe_of(page)).to_have_value("")
    wait_for_draft(page, ball, recipe="", epochs=3)

    recipe_of(page).select_option("mine")
    wait_for_draft(page, ball, recipe="mine", lora_rank=24, batch_size=1)
    mine.unlink()
    ball.upload("ball", pictures(7))
    expect(recipe_of(page).locator("option")).to_have_count(7, timeout=20_000)
    expect(recipe_of(page)).to_have_value("")
    expect(page.locator("[data-recipe-why]")).to_be_empty()
    wait_for_draft(page, ball, recipe="", lora_rank=24)


@pytest.mark.fine
def test_each_folder_shows_its_own_recipe_for_its_own_number_of_images(ball, visit):
    ball.post("/api/projects", {"name": "few"})
    ball.upload("few", pictures(2))
    keep_draft(ball, **told(ball, "person"))
    keep_draft(ball, "few", **told(ball, "style", images=2))
    (ball.home / "configs/few style.yaml").write_text(
        yaml.safe_dump({**told(ball, "style", images=2), "output_dir": "few"})
    )
    page = open_ball(visit, ball)
    expect(recipe_of(page)).to_have_value("person")
    page.get_by_label("Open a folder").select_option("few")
    expect(page.locator("[data-recipe-why]")).to_contain_text("For your 2 images")
    expect(recipe_of(page)).to_have_value("style")
    page.get_by_label("Open a folder").select_option("ball")
    expect(page.locator("[data-recipe-why]")).to_contain_text("For your 5 images: 1,000 steps")
    expect(recipe_of(page)).to_have_value("person")

    page.get_by_role("button", name="Saved configurations…").click()
    page.get_by_role("button", name="Load few style").click()
    expect(page.locator("[data-recipe-why]")).to_contain_text("For your 2 images")
    expect(recipe_of(page)).to_have_value("style")
    wait_for_draft(page, ball, "few", recipe="style")
    wait_for_draft(page, ball, "ball", recipe="person")


@pytest.mark.fine
def test_what_is_typed_before_the_recipes_are_there_costs_no_recipe_and_saves_no_false_one(
    ball, visit
):
    keep_draft(ball, **told(ball, "person"))
    page = visit("about:blank")
    late = []
    page.route("**/api/recipes*", lambda route: late.append(route))
    page.goto(ball.url + "/?project=ball")
    wait_in(page, lambda: late, "the page to ask for recipes")
    expect(recipe_of(page)).to_have_value("")
    page.get_by_label("Trigger word", exact=True).fill("ohwx")
    wait_for_draft(page, ball, trigger_word="ohwx", recipe="")  # nobody has looked yet
    late.pop().continue_()
    expect(recipe_of(page)).to_have_value("person")
    wait_for_draft(page, ball, trigger_word="ohwx", recipe="person")

    ball.upload("ball", pictures(15))
    wait_in(page, lambda: late, "the page to ask for recipes", seconds=20)
    page.get_by_label("Epochs", exact=True).fill("4")
    late.pop().continue_()
    wait_for_draft(page, ball, epochs=4, recipe="")
    page.wait_for_timeout(500)  # the recipes that came leave the field as it was typed
    assert (value(page, "Epochs"), value(page, "Recipe")) == ("4", "")


@pytest.mark.fine
def test_recipes_that_come_late_leave_the_draft_of_the_next_folder_alone(ball, visit):
    for folder, images in (("few", 2), ("many", 7)):
        ball.post("/api/projects", {"name": folder})
        ball.upload(folder, pictures(images))
    keep_draft(ball, **told(ball, "person"))
    keep_draft(ball, "many", epochs=33, lora_rank=9)
    page = open_ball(visit, ball)
    expect(recipe_of(page)).to_have_value("person")
    recipes, drafts = [], []
    page.route("**/api/recipes?images=2", lambda route: recipes.append(route))
    page.route("**/api/config?name=draft-many", lambda route: drafts.append(route))
    page.get_by_label("Open a folder").select_option("few")
    wait_in(page, lambda: recipes, "the page to ask for recipes")
    page.get_by_label("Open a folder").select_option("many")
    wait_in(page, lambda: drafts, "the page to ask for the draft")
    with page.expect_response("**/api/recipes?images=2"):
        recipes.pop().continue_()
    page.wait_for_timeout(300)
    drafts.pop().continue_()
    expect(page.get_by_label("Epochs", exact=True)).to_have_value("33")
    expect(page.get_by_label("LoRA rank")).to_have_value("9")
    expect(recipe_of(page)).to_have_value("")


# -- rate and strength -----------------------------------------------------------------------------


@pytest.mark.fine
def test_the_learning_rate_shows_in_both_notations_and_with_its_strength(ball, visit):
    page = open_ball(visit, ball)
    rate = page.get_by_label("Learning rate", exact=True)
    other, strength = page.locator("[data-other-rate]"), page.locator("[data-strength]")
    rate.fill("5e-5")
    expect(other).to_have_text("5e-5 = 0.00005")
    expect(strength).to_contain_text("128 / 16 × 5e-5 = 4e-4, strong")
    page.get_by_label("Dims (alpha)").fill("16")
    expect(strength).to_contain_text("= 5e-5, in the usual range")
    rate.fill("0.0001")
    expect(other).to_have_text("0.0001 = 1e-4")
    rate.fill("0.01")
    expect(strength).to_have_attribute("data-tone", "warn")
    rate.fill("what")
    expect(other).to_be_empty()
    expect(strength).to_be_empty()


# -- the card --------------------------------------------------------------------------------------


@pytest.mark.fine
def test_the_card_chooses_the_profile_and_too_large_a_one_is_put_right_by_a_button(
    on_a_card, visit
):
    page = open_ball(visit, on_a_card)
    profile = page.get_by_label("VRAM profile")
    expect(profile).to_have_value("24")
    expect(page.locator("[data-vram-note]")).to_contain_text("RTX 4090 has 24 GB")
    profile.select_option("24+")
    warning = page.get_by_text(re.compile("needs about 4[23] GB of VRAM"))
    expect(warning).to_be_visible()  # it opens by itself
    page.get_by_role("button", name="Use 24 GB – balanced").click()
    expect(profile).to_have_value("24")
    expect(warning).to_be_hidden()
    page.get_by_text("Show advanced trainer flags").click()
    expect(page.get_by_label("Advanced trainer flags")).to_have_value(
        re.compile("blocks_to_swap 16.*block_swap_h2d_only")
    )


FOCUSED = "document.activeElement.textContent.trim()"


@pytest.mark.fine
def test_the_keyboard_stays_on_a_note_and_goes_on_from_a_fix_that_is_done(on_a_card, visit):
    page = open_ball(visit, on_a_card)
    page.get_by_label("VRAM profile").select_option("24+")
    fix = page.get_by_role("button", name="Use 24 GB – balanced")
    expect(fix).to_be_visible()
    fix.focus()
    page.evaluate("document.activeElement.dataset.same = 'yes'")
    for images in (4, 5):
        on_a_card.upload("ball", pictures(images))
        steps = page.get_by_text(f"{60 * images} steps", exact=True)
        expect(steps).to_be_visible(timeout=20_000)  # the list was drawn again
        assert page.evaluate("document.activeElement.dataset.same") == "yes"

    page.keyboard.press("Enter")
    expect(page.get_by_role("status").get_by_text("Done: Use 24 GB – balanced.")).to_be_visible()
    expect(fix).to_be_hidden()
    assert page.evaluate(FOCUSED).startswith(("Before it can", "Good to know", "Start training"))


@pytest.mark.fine
def test_the_last_note_that_goes_hands_the_keyboard_to_start(ball, visit):
    page = open_ball(visit, ball)
    problems = page.locator("[data-problems]")
    page.get_by_label("Trigger word", exact=True).fill("ohwx")
    page.get_by_label("Epochs", exact=True).fill("many")
    note = page.get_by_role("button", name="Epochs: enter a whole number")
    expect(note).to_be_visible()
    note.focus()
    page.evaluate("document.querySelector('#epochs').value = '3'")
    page.evaluate("document.dispatchEvent(new CustomEvent('settings:changed'))")
    expect(note).to_be_hidden()
    left = problems.is_visible()
    assert page.evaluate(FOCUSED).startswith("Good to know" if left else "Start training")


@pytest.mark.fine
def test_a_profile_somebody_chose_is_not_replaced_by_the_card_s(on_a_card, visit):
    page = open_ball(visit, on_a_card)
    page.get_by_label("VRAM profile").select_option("12")
    expect(page.get_by_text("Saved", exact=True)).to_be_visible()
    page.reload()
    expect(page.get_by_label("Recipe", exact=True).locator("option")).to_have_count(7)
    expect(page.get_by_label("VRAM profile")).to_have_value("12")


# -- what it takes ---------------------------------------------------------------------------------


@pytest.mark.fine
def test_the_page_says_what_a_run_takes_and_learns(ball, visit):
    ball.put("/api/config", {"name": "draft-ball", "settings": {**SMALL, "output_dir": "ball"}})
    page = open_ball(visit, ball)
    takes(page).locator("summary").click()
    expect(takes(page)).to_contain_text("a guess")
    expect(takes(page)).to_contain_text("5 of 5 caches to make: 5 are new")
    page.get_by_role("button", name="Start training").click()
    expect(page.get_by_role("heading", name="Training completed")).to_be_visible(timeout=60_000)
    page.get_by_label("Seed", exact=True).fill("7")
    expect(takes(page)).to_contain_text("measured in an earlier run here")
    expect(takes(page)).to_contain_text("nothing to do, all 5 caches are up to date")
    page.get_by_text("Effective training command (preview)").click()
    expect(page.get_by_text("Skipped: nothing to do").first).to_be_visible()
    assert page.locator("[data-commands] > li").count() == 3


# -- configurations --------------------------------------------------------------------------------


@pytest.mark.fine
def test_configurations_are_saved_under_names_loaded_and_deleted(ball, visit):
    page = open_ball(visit, ball)
    page.get_by_label("Epochs", exact=True).fill("9")
    page.get_by_role("button", name="Saved configurations…").click()
    dialog = page.get_by_role("dialog", name="Saved configurations")
    expect(dialog.get_by_text("None yet.")).to_be_visible()
    dialog.get_by_label("Save the form as").fill("long run")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("button", name="Load long run")).to_be_visible()
    dialog.get_by_label("Save the form as").fill("a/b")
    dialog.get_by_role("button", name="Save", exact=True).click()
    expect(dialog.get_by_role("status")).to_contain_text("name can't be used")
    page.keyboard.press("Escape")

    page.get_by_label("Epochs", exact=True).fill("2")
    page.get_by_role("button", name="Saved configurations…").click()
    dialog.get_by_role("button", name="Load long run").click()
    expect(page.get_by_label("Epochs", exact=True)).to_have_value("9")
    assert ball.get("/api/jobs") == []

    page.get_by_role("button", name="Saved configurations…").click()
    dialog.get_by_role("button", name="Delete long run").click()
    page.get_by_role("dialog", name="Delete “long run”?").get_by_role(
        "button", name="Delete"
    ).click()
    expect(dialog.get_by_text("None yet.")).to_be_visible()


@pytest.mark.fine
def test_a_file_of_the_earlier_tool_fills_the_form_and_names_what_it_could_not_use(ball, visit):
    (ball.home / "configs/last_config.yaml").write_text(
        "output_dir: ball\nepochs: 4\nlearning_rate: 3e-5\nlora_dims: lots\nvram_mode: x\n"
        "image_repeats: 3\ntrigger_word: ohwx\n"
    )
    page = open_ball(visit, ball)
    page.get_by_role("button", name="Load last YAML config").click()
    expect(page.get_by_label("Epochs", exact=True)).to_have_value("4")
    expect(page.get_by_label("Learning rate", exact=True)).to_have_value("3e-5")
    told = page.get_by_text("is loaded, except for")
    expect(told).to_contain_text("vram_mode")
    expect(told).to_contain_text("Dims (alpha)")
    assert ball.get("/api/jobs") == []


@pytest.mark.fine
def test_a_file_that_names_no_folder_fills_the_form_of_the_open_one(ball, visit):
    (ball.home / "configs/bare.yaml").write_text("epochs: 4\n")
    (ball.home / "configs/wrong.yaml").write_text("epochs: 5\noutput_dir: a/b\n")
    page = open_ball(visit, ball)
    page.get_by_label("LoRA filename").fill("ball_v2")
    for name, epochs in (("bare", "4"), ("wrong", "5")):
        page.get_by_role("button", name="Saved configurations…").click()
        page.get_by_role("button", name=f"Load {name}").click()
        expect(page.get_by_label("Epochs", exact=True)).to_have_value(epochs)
        expect(page.get_by_text(f"“{name}” is loaded")).to_be_visible()
        assert value(page, "Output folder") == "ball"
        assert value(page, "LoRA filename") == "ball_v2"
        assert page.url.endswith("?project=ball")
    wait_for_draft(page, ball, output_dir="ball", output_name="ball_v2", epochs=5)


@pytest.mark.fine
def test_the_page_s_own_names_are_refused_for_a_configuration(ball, visit):
    page = open_ball(visit, ball)
    page.get_by_label("Epochs", exact=True).fill("9")
    wait_for_draft(page, ball, epochs=9)
    before = {path: path.read_bytes() for path in (ball.home / "configs").rglob("*.yaml")}
    page.get_by_role("button", name="Saved configurations…").click()
    dialog = page.get_by_role("dialog", name="Saved configurations")
    for name in ("draft-ball", "Draft-other", "last_config", "Last_Config", "  "):
        dialog.get_by_label("Save the form as").fill(name)
        with page.expect_response("**/api/config*") as answer:
            page.keyboard.press("Enter")
        assert answer.value.status == 422, name
        expect(dialog.get_by_role("status")).to_contain_text("can't be used")
    assert before == {path: path.read_bytes() for path in (ball.home / "configs").rglob("*.yaml")}


# -- flags and prompts -----------------------------------------------------------------------------


def test_wrong_flags_and_prompts_are_told_at_their_fields_as_one_types(ball, visit):
    page = open_ball(visit, ball)
    page.get_by_text("Show advanced trainer flags").click()
    flags = page.get_by_label("Advanced trainer flags")
    flags.fill("--fp8_bse --blocks_to_swap many")
    flags.blur()
    error = page.locator("#advanced_flags-error")
    expect(error).to_contain_text("--fp8_base")
    page.get_by_label("Make sample images").check()
    prompts = page.get_by_label("Sample prompts")
    prompts.fill("a cat --steps 20")
    prompts.blur()
    expect(page.locator("#sample_prompt_text-error")).to_contain_text("Line 1")
    flags.fill("--fp8_base --fp8_scaled")
    prompts.fill("a cat --s 20")
    expect(error).to_be_hidden()
    expect(page.locator("#sample_prompt_text-error")).to_be_hidden()


@pytest.mark.fine
def test_a_start_that_takes_long_says_what_it_waits_for(ball, visit):
    page = visit(f"{ball.url}/?project=ball")
    start = page.locator("[data-start-button]")
    expect(start).to_have_text("Start training")
    held = []
    page.route("**/train", lambda route: held.append(route))
    start.click()
    expect(start).to_have_text("Looking at the images…")
    held[0].fulfill(status=422, json={"error": "No.", "field": None, "hint": None})
    expect(start).to_have_text("Start training")
