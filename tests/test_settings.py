"""The training settings: what is taken, what is refused, what is left out."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inputs import VALID, VALUES, patient

from musubitlx import presets
from musubitlx.errors import Invalid, ManyInvalid
from musubitlx.settings import BY_NAME, ROWS, as_typed, defaults, form_rows, parse, read

DEFAULTS = {
    "output_dir": "my_lora",
    "output_name": "my_lora",
    "trigger_word": "",
    "prompt": "",
    "vram_profile": "12",
    "resolution": "1024x1024",
    "epochs": 6,
    "image_repeats": 10,
    "batch_size": 1,
    "learning_rate": 5e-5,
    "optimizer_type": "AdamW",
    "seed": 42,
    "lora_rank": 16,
    "lora_dims": 128,
    "samples_enabled": False,
    "sample_prompt_text": "",
    "sample_every_epochs": 1,
    "sample_every_steps": 0,
    "sample_at_first": False,
    "advanced_flags": None,
    "recipe": "",
}


def test_the_defaults_are_those_people_know():
    assert defaults() == DEFAULTS
    assert parse({}) == DEFAULTS
    assert {row.name for row in ROWS} == set(VALUES)


def test_a_default_is_valid_itself():
    for row in ROWS:
        assert row.parse(row.default) == row.default


WRONG = {
    "text": [None, 3, 1.5, True, [], {}, b"x", "\x00", "half \ud800 a character", "x" * 100_001],
    "whole": [
        None,
        True,
        1.0,
        math.nan,
        math.inf,
        "",
        "x",
        "1.5",
        "1e3",
        "--1",
        [],
        10**400,
        "9" * 99,
    ],
    "real": [None, True, "", ".", "x", "nan", "inf", "1e999", [], {}, 10**400, -(10**400), "1,5"],
    "choice": [None, True, "", "x", 7, 12.0, [], {}],
    "flag": [None, 1, 0, 2.0, "x", "yes please", [], {}],
}
WRONG["area"] = WRONG["text"]
WRONG["real"] += [math.nan, math.inf, -math.inf, -1, "-1", 0, "0"]
WRONG_HERE = {
    "epochs": [0, -1, 10_001, "0"],
    "image_repeats": [0, 10_001],
    "batch_size": [0, 65],
    "learning_rate": [1.5, "2"],
    "seed": [-1, 4_294_967_296],
    "lora_rank": [0, 1025],
    "lora_dims": [4096.5, 5000],
    "sample_every_epochs": [-1, 10_001],
    "sample_every_steps": [-1, 1_000_001],
    "resolution": ["1024x", "x", "1000x1000", "48x48", "1024x8192", "1024x1024x3", "-64x64", True],
    "output_dir": ["", " ", "..", "a/b", "a\\b", "C:x", "CON", ".hidden", "a" * 121, "a[1]", "x."],
    "output_name": ["", "../x", "nul.x", "x_qi", "x_qi_te", "x_qie_te", "x_qil", "-x", "--sdpa"],
    "advanced_flags": ["x" * 20_001],
    "trigger_word": ["x" * 201],
}
ONE_WRONG = [
    (row.name, value)
    for row in ROWS
    for value in [*WRONG[row.kind if row.kind in WRONG else "text"], *WRONG_HERE.get(row.name, ())]
    if not (value is None and row.name == "advanced_flags")
    and not (row.name == "resolution" and value == 3)
    and not (row.name == "samples_enabled" and value == "")
    and not (row.kind == "flag" and value == "")
]


@pytest.mark.parametrize(("name", "value"), ONE_WRONG, ids=lambda value: repr(value)[:30])
def test_a_wrong_value_is_refused_with_its_field(name, value):
    with pytest.raises(ManyInvalid) as told:
        parse({name: value})
    assert [error.field for error in told.value.errors] == [name]
    assert BY_NAME[name].label in str(told.value)


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("epochs", " 12 ", 12),
        ("learning_rate", "5e-5", 5e-5),
        ("learning_rate", "0.00005", 5e-5),
        ("learning_rate", "1E-4", 1e-4),
        ("learning_rate", ".5", 0.5),
        ("learning_rate", 1, 1.0),
        ("lora_dims", "128", 128.0),
        ("resolution", 1024, "1024x1024"),
        ("resolution", " 768 X 1024 ", "768x1024"),
        ("resolution", "512×768", "512x768"),
        ("vram_profile", 16, "16"),
        ("vram_profile", "24+", "24+"),
        ("optimizer_type", "adamw8bit", "AdamW8bit"),
        ("samples_enabled", "on", True),
        ("samples_enabled", "", False),
        ("trigger_word", "  two \n words\t", "two words"),
        ("sample_prompt_text", " a\r\nb \n", "a\nb"),
        ("advanced_flags", None, None),
        ("advanced_flags", "", ""),
        ("output_dir", "faces_qi", "faces_qi"),
        ("output_name", "画像 été", "画像 été"),
    ],
)
def test_what_a_form_or_a_file_gives_is_understood(name, typed, value):
    assert parse({name: typed})[name] == value


def test_every_wrong_field_is_told_at_once():
    given = {"epochs": "x", "seed": -1, "batch_size": 4, "colour": "red", 5: 1, "resolution": None}
    with pytest.raises(ManyInvalid) as told:
        parse(given)
    fields = ["epochs", "seed", "colour", "5", "resolution"]
    assert [error.field for error in told.value.errors] == fields
    assert [error["field"] for error in told.value.as_dict()["errors"]] == fields
    kept, problems = read(given)
    assert kept == {**DEFAULTS, "batch_size": 4}
    assert [problem.field for problem in problems] == fields


@pytest.mark.parametrize("given", [None, [], "epochs", 3, [("epochs", 3)]])
def test_what_is_no_object_is_refused(given):
    with pytest.raises(Invalid):
        parse(given)


ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
ANYTHING |= st.lists(ANYTHING, max_size=2) | st.just({})


@patient
@given(st.dictionaries(st.sampled_from(sorted(VALUES)), ANYTHING))
def test_whatever_is_given_is_taken_or_told(given_):
    kept, problems = read(given_)
    told = {problem.field for problem in problems}
    assert told <= set(given_)
    for name in VALUES:
        assert kept[name] == BY_NAME[name].parse(kept[name])
        if name in told or name not in given_:
            assert kept[name] == DEFAULTS[name]


@patient
@given(VALID)
def test_settings_as_typed_into_a_form_are_the_same_settings(valid):
    assert parse(valid) == valid
    typed = {name: as_typed(value) for name, value in valid.items()}
    typed["advanced_flags"] = valid["advanced_flags"]
    assert parse(typed) == valid


def test_numbers_are_shown_as_people_write_them():
    shown = {5e-5: "5e-5", 1e-4: "0.0001", 128.0: "128", 0.5: "0.5", 1e-10: "1e-10"}
    assert {value: as_typed(value) for value in shown} == shown
    assert (as_typed(None), as_typed(True), as_typed(6)) == ("", True, "6")


def test_the_form_has_a_control_for_every_setting():
    rows = {row["name"]: row for row in form_rows()}
    assert list(rows) == [row.name for row in ROWS]
    assert rows["epochs"]["low"] == 1
    assert rows["learning_rate"]["default"] == "5e-5"
    assert ("24+", presets.BY_ID["24+"].label) in rows["vram_profile"]["choices"]
    assert all(row["label"] and row["help"] for row in rows.values())
