"""Step 2 of the page in a real browser: recipes, strength, profiles, estimates, configurations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browsing import expect, needs_chromium, tab_to
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


def test_recipes_by_the_keyboard_alone(ball, visit):
    page = open_ball(visit, ball)
    tab_to(page, "About Recipe")
    tab_to(page, "Recipe", most=1)
    page.keyboard.press("p")
    expect(page.get_by_label("Recipe", exact=True)).to_have_value("person")
    expect(page.get_by_label("LoRA rank")).to_have_value("32")


# -- rate and strength -----------------------------------------------------------------------------


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


def test_a_profile_somebody_chose_is_not_replaced_by_the_card_s(on_a_card, visit):
    page = open_ball(visit, on_a_card)
    page.get_by_label("VRAM profile").select_option("12")
    expect(page.get_by_text("Saved", exact=True)).to_be_visible()
    page.reload()
    expect(page.get_by_label("Recipe", exact=True).locator("option")).to_have_count(7)
    expect(page.get_by_label("VRAM profile")).to_have_value("12")


# -- what it takes ---------------------------------------------------------------------------------


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
