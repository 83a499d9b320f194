"""Recipes: each within what it states, for any number of images, and its numbers with a source."""

from __future__ import annotations

import math
import os
import random
import shutil

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from inputs import patient

from musubitlx import estimate, recipes, settings
from musubitlx.errors import Invalid
from musubitlx.home import PACKAGE_ROOT, Home

SHIPPED, PROBLEMS = recipes.all([recipes.SHIPPED])
BY_ID = {recipe.id: recipe for recipe in SHIPPED}
COUNTS = (5, 10, 25, 60, 150)
STRENGTHS = (3e-5, 4e-4)  # dims / rank x learning rate
IN_ALL = (0.07, 0.31)  # strength x steps: the sources have 0.075 to 0.3
CAMERA = [(4032, 3024), (3024, 4032), (1024, 1024), (1920, 1080), (1080, 1350), (832, 1216)]

each_recipe = pytest.mark.parametrize("recipe", SHIPPED, ids=lambda recipe: recipe.id)

GOOD = """
label: Mine
why: Because.
settings: {lora_rank: 8, lora_dims: 8, learning_rate: 1e-4, optimizer_type: adamw8bit}
steps: {10: 500, 100: 1500}
epochs: 5
"""


def sizes(images: int) -> list[tuple[int, int]]:
    return random.Random(images).choices(CAMERA, k=images)


def run(recipe: recipes.Recipe, images: int) -> tuple[dict, dict]:
    """Complete settings with a recipe, and what is counted for them."""
    complete = settings.parse({**settings.defaults(), **recipe.settings_for(images)})
    return complete, estimate.steps(complete, sizes(images))


def strength(complete: dict) -> float:
    return complete["lora_dims"] / complete["lora_rank"] * complete["learning_rate"]


def test_the_six_are_there_in_their_order():
    assert PROBLEMS == []
    assert tuple(BY_ID) == recipes.ORDER
    assert all(recipe.label and recipe.why.endswith(".") for recipe in SHIPPED)


@pytest.mark.parametrize("images", COUNTS)
@each_recipe
def test_steps_looks_and_strength_are_within_what_is_stated(recipe, images):
    complete, counted = run(recipe, images)
    for name, value in (("steps", counted["steps"]), ("looks", counted["looks_per_image"])):
        low, high = recipe.ranges[name]
        assert low <= value <= high
    assert STRENGTHS[0] <= strength(complete) <= STRENGTHS[1]
    assert IN_ALL[0] <= strength(complete) * counted["steps"] <= IN_ALL[1]
    assert 0.5 * recipe.epochs <= complete["epochs"] <= math.ceil(1.5 * recipe.epochs)
    told = recipe.as_dict(images)
    assert told["settings"] == recipe.settings_for(images)
    assert (told["steps"], told["looks"]) == (counted["steps"], counted["looks_per_image"])
    assert told["range"] == {name: list(ends) for name, ends in recipe.ranges.items()}


@each_recipe
def test_more_images_make_no_fewer_steps_and_no_more_looks(recipe):
    counted = [run(recipe, images)[1] for images in COUNTS]
    steps = [one["steps"] for one in counted]
    looks = [one["looks_per_image"] for one in counted]
    assert steps == sorted(steps)
    assert looks == sorted(looks, reverse=True)


@each_recipe
def test_what_belongs_to_card_and_folder_is_left_alone(recipe):
    learning = {"lora_rank", "lora_dims", "learning_rate", "batch_size"}
    wanted = learning | ({"resolution"} if recipe.id == "quick-look" else set())
    assert set(recipe.fixed) == wanted
    assert set(recipe.settings_for(20)) == wanted | {"epochs", "image_repeats"}


def test_a_quick_look_is_short_small_and_strong():
    complete, counted = run(BY_ID["quick-look"], 20)
    assert complete["resolution"] == "512x512"
    assert counted["steps"] <= 600
    assert strength(complete) == max(strength(run(one, 20)[0]) for one in SHIPPED)


def test_a_person_has_the_rank_the_sources_agree_on():
    assert 16 <= BY_ID["person"].fixed["lora_rank"] <= 32


@each_recipe
def test_every_number_says_where_it_comes_from(recipe):
    text = (recipes.SHIPPED / f"{recipe.id}.yaml").read_text(encoding="utf-8")
    given_ = yaml.safe_load(text)
    sources = given_["sources"]
    for part in ("settings", "steps", "range"):
        assert set(sources[part]) == set(given_[part])
        assert all(str(source).strip() for source in sources[part].values())
    assert sources["epochs"]
    assert set(sources) == {"settings", "steps", "range", "epochs"}
    assert "strength x steps" in text
    stated = recipes.Recipe(**{**vars(recipe), "ranges": {}})
    assert recipes._count_ranges(stated) == recipe.ranges


@patient
@given(st.sampled_from(SHIPPED), st.integers(-3, 1000))
def test_any_number_of_images_gives_a_run(recipe, images):
    told = recipe.as_dict(images)
    for name, value in told["settings"].items():
        assert settings.BY_NAME[name].parse(value) == value
    count = images if images > 0 else 10
    assert told["steps"] == told["looks"] * count
    wanted = recipe.wanted(images)
    assert abs(told["steps"] - wanted) <= max(0.15 * wanted, 0.6 * count)  # a look is whole
    assert 1 <= told["settings"]["epochs"] <= math.ceil(1.5 * recipe.epochs)
    assert wanted <= recipe.wanted(count + 1)


@each_recipe
def test_no_images_yet_count_as_ten(recipe):
    assert recipe.as_dict(0) == recipe.as_dict(10)


# -- the user's own --------------------------------------------------------------------------------


def own(tmp_path, text: str | bytes, name: str = "mine.yaml"):
    folder = tmp_path / "recipes"
    folder.mkdir(exist_ok=True)
    data = text if isinstance(text, bytes) else text.encode("utf-8")
    (folder / name).write_bytes(data)
    return folder


def test_a_recipe_of_one_s_own_is_offered_after_the_shipped_ones(tmp_path):
    found, problems = recipes.all([recipes.SHIPPED, own(tmp_path, GOOD)])
    assert problems == []
    assert [recipe.id for recipe in found] == [*recipes.ORDER, "mine"]
    told = found[-1].as_dict(10)
    assert told["settings"] == {
        "lora_rank": 8,
        "lora_dims": 8.0,
        "learning_rate": 1e-4,
        "optimizer_type": "AdamW8bit",
        "batch_size": 1,  # what epochs and repeats are right for
        "epochs": 5,
        "image_repeats": 10,
    }
    assert (told["steps"], told["looks"]) == (500, 50)
    assert told["range"] == {"steps": [500, 1500], "looks": [10, 100]}


def test_a_file_of_the_same_name_takes_the_place_of_the_shipped_one(tmp_path):
    found, problems = recipes.all([recipes.SHIPPED, own(tmp_path, GOOD, "person.yaml")])
    assert (found[0].label, len(found), problems) == ("Mine", 6, [])
    found, problems = recipes.all([recipes.SHIPPED, own(tmp_path, "{", "person.yaml")])
    assert (found[0].label, len(found), len(problems)) == ("Person", 6, 1)


def test_a_copy_of_a_shipped_recipe_can_be_used(tmp_path):
    folder = own(tmp_path, GOOD)
    shutil.copy(recipes.SHIPPED / "style.yaml", folder / "my style.yaml")
    assert {recipe.id for recipe in recipes.all([folder])[0]} == {"mine", "my style"}


def test_batches_are_counted_in(tmp_path):
    text = GOOD.replace("lora_rank: 8", "lora_rank: 8, batch_size: 2")
    told = recipes.all([own(tmp_path, text)])[0][0].as_dict(10)
    assert (told["steps"], told["looks"]) == (500, 100)


WRONG = [
    ("", "it must be lines of `name: value`"),
    ("- a\n- b", "it must be lines of `name: value`"),
    ("label: [", "it is no YAML"),
    ("a: &a [*a]", "it is no YAML"),
    ("&a a: *b", "it is no YAML"),
    (b"\xff\xfe\x00", "no text in UTF-8"),
    ("[" * 5000, "be understood"),
    ("x" * 200_000, "it is larger than 100000 bytes"),
    ("? [a]\n: b", "it is no YAML"),
    (GOOD.replace("label: Mine", ""), "label must be a text of up to 60 characters"),
    (GOOD.replace("Because.", "x" * 500), "why must be a text of up to 400 characters"),
    (GOOD.replace("lora_rank: 8", "lora_rank: eight"), "LoRA rank: enter a whole number"),
    (GOOD.replace("lora_rank: 8", "lora_rank: [8]"), "LoRA rank: enter a whole number"),
    (GOOD.replace("1e-4", "'1,5'"), "Learning rate: enter a number"),
    (GOOD.replace("lora_rank", "rank"), "there is no setting called rank"),
    (GOOD.replace("lora_rank", "epochs"), "epochs can't be fixed"),
    (GOOD.replace("lora_rank", "output_dir"), "output_dir belongs to the folder"),
    (GOOD.replace("epochs: 5", "epochs: 0"), "epochs must be a whole number from 1 to 1000"),
    (GOOD.replace("epochs: 5", "epochs: 5\nrepeats: 3"), "repeats is no part of a recipe"),
    (GOOD.replace("10: 500", "ten: 500"), "steps: ten must be a whole number"),
    (GOOD.replace("500", "5e2"), "steps for 10 images must be a whole number"),
    (GOOD.replace("500", "٥"), "steps for 10 images must be a whole number"),
    (GOOD.replace("{10: 500, 100: 1500}", "1000"), "steps must be lines of `name: value`"),
    (GOOD + "range: {steps: [5, 1], looks: [1, 2]}", "must begin with the smaller number"),
    (GOOD + "range: {steps: 5}", "range: steps must be two numbers"),
]


@pytest.mark.parametrize(("text", "words"), WRONG)
def test_a_file_that_is_wrong_is_named_and_breaks_nothing(tmp_path, text, words):
    found, problems = recipes.all([recipes.SHIPPED, own(tmp_path, text)])
    assert len(found) == 6
    (problem,) = problems
    assert isinstance(problem, Invalid)
    assert "mine.yaml" in str(problem)
    assert words in str(problem)
    assert len(str(problem)) < 600
    assert problem.hint


def test_all_that_is_wrong_in_a_file_is_told_at_once(tmp_path):
    text = (
        GOOD.replace("lora_rank: 8", "lora_rank: x").replace("500", "y").replace("label", "lable")
    )
    (problem,) = recipes.all([own(tmp_path, text)])[1]
    for words in ("LoRA rank", "steps for 10 images", "lable", "label must be"):
        assert words in str(problem)


def test_what_is_no_file_or_no_recipe_breaks_nothing(tmp_path):
    folder = own(tmp_path, GOOD)
    (folder / "folder.yaml").mkdir()
    (folder / "nowhere.yaml").symlink_to(folder / "gone")
    os.mkfifo(folder / "pipe.yaml")
    (folder / ".hidden.yaml").write_text("{")
    (folder / "notes.txt").write_text("{")
    found, problems = recipes.all([folder, folder, tmp_path / "not there", folder / "mine.yaml"])
    assert [recipe.id for recipe in found] == ["mine"]
    told = " ".join(map(str, problems))
    assert [name in told for name in ("folder.yaml", "nowhere.yaml", "pipe.yaml")] == [True] * 3
    assert len(problems) == 3


@patient
@given(
    st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))
)
def test_no_file_breaks_the_page(tmp_path, data):
    found, problems = recipes.all([own(tmp_path, data)])
    assert (found, len(problems)) == ([], 1)


def test_the_folders_are_the_shipped_one_and_the_home_s(tmp_path):
    assert recipes.folders(Home(tmp_path)) == [recipes.SHIPPED, tmp_path / "configs/recipes"]
    assert len(recipes.all(recipes.folders(Home(PACKAGE_ROOT)))[0]) >= 6
