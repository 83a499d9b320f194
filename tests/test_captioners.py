"""What can be asked of a caption model, and what it answers to nonsense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inputs import patient

from musubitlx import captioners
from musubitlx.captioners import BY_ID, CAPTIONERS, DETAILS, INSTRUCTION, Wish
from musubitlx.errors import Invalid


def refused(**given) -> Invalid:
    with pytest.raises(Invalid) as caught:
        Wish.parse({"model": "blip-large", **given})
    return caught.value


@pytest.mark.parametrize(
    ("model", "tokens"), [("blip-large", 160), ("qwen-vl", 256), ("vit-gpt2", 128)]
)
def test_each_model_has_its_own_caption_length(model, tokens):
    wish = Wish.parse({"model": model})
    assert (wish.max_tokens, wish.which, wish.mode) == (tokens, "empty", "keep")
    assert wish.instruction == INSTRUCTION and wish.detail == 3


def test_detail_goes_from_few_beams_to_many():
    assert [(DETAILS[n].beams, DETAILS[n].length_penalty) for n in (1, 3, 5)] == [
        (6, 1.1),
        (10, 1.5),
        (20, 2.5),
    ]
    for lower, higher in zip(range(1, 5), range(2, 6), strict=True):
        assert DETAILS[lower].beams < DETAILS[higher].beams
        assert DETAILS[lower].length_penalty < DETAILS[higher].length_penalty


@pytest.mark.parametrize("tokens", [0, 31, 513, -1, "64", 64.5, True, [], 10**30])
def test_a_length_out_of_range_is_a_sentence(tokens):
    error = refused(max_tokens=tokens)
    assert error.field == "max_tokens" and "from 32 to 512 tokens" in str(error)


@pytest.mark.parametrize("tokens", [32, 512])
def test_both_ends_of_the_length_are_allowed(tokens):
    assert Wish.parse({"model": "vit-gpt2", "max_tokens": tokens}).max_tokens == tokens


@pytest.mark.parametrize("detail", [0, 6, "3", 2.5])
def test_a_detail_level_out_of_range_is_a_sentence(detail):
    error = refused(detail=detail)
    assert error.field == "detail" and "from 1 to 5" in str(error)


@pytest.mark.parametrize("model", [None, 3, "", "blip", ["blip-large"], {"id": 1}, "x" * 900])
def test_an_unknown_model_is_a_sentence_that_names_those_there_are(model):
    error = refused(model=model)
    assert error.field == "model" and all(one in error.hint for one in BY_ID)


@pytest.mark.parametrize("which", [None, 3, "some", [1], [["a"]], {"a": 1}])
def test_which_images_must_be_said_rightly(which):
    assert refused(which=which).field == "which"


def test_no_image_at_all_is_a_sentence():
    assert str(refused(which=[])) == "No image is chosen."


def test_a_name_given_twice_counts_once():
    assert Wish.parse({"model": "vit-gpt2", "which": ["a", "b", "a"]}).names == ["a", "b"]


@pytest.mark.parametrize("mode", ["", "Keep", 1, None, ["keep"]])
def test_what_becomes_of_old_captions_must_be_known(mode):
    assert refused(mode=mode).field == "mode"


@pytest.mark.parametrize("which", ["all", "empty", ["a", "b"]])
def test_a_trial_is_on_one_image(which):
    assert "one image" in str(refused(which=which, trial=True))
    assert Wish.parse({"model": "vit-gpt2", "which": ["a"], "trial": True}).trial


@pytest.mark.parametrize("text", [3, "\ud800", "x" * 2001])
def test_an_instruction_that_cannot_be_one_is_refused(text):
    assert refused(instruction=text).field == "instruction"


@pytest.mark.parametrize("text", ["", "  \n", None])
def test_an_empty_instruction_is_the_default(text):
    assert Wish.parse({"model": "qwen-vl", "instruction": text}).instruction == INSTRUCTION


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
FIELDS = ["detail", "instruction", "max_tokens", "mode", "model", "trial", "which"]


@patient
@given(st.one_of(anything, st.dictionaries(st.sampled_from(FIELDS), anything)))
def test_whatever_is_posted_is_a_wish_or_a_sentence(given):
    try:
        wish = Wish.parse(given)
    except Invalid as error:
        assert str(error) and error.field in FIELDS
    else:
        assert wish.captioner in CAPTIONERS


def test_each_model_tells_what_the_page_needs():
    for one in CAPTIONERS:
        told = one.as_dict()
        assert told["label"] and told["note"].endswith(".") and told["short"]
        assert captioners.TOKENS_LOW <= told["max_tokens"] <= captioners.TOKENS_HIGH
