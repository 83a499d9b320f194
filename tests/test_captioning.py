"""The parts of the captioning program that need no torch: wording, batch sizes, imports."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import ROOT, clean_environment

from musubitlx import processes
from musubitlx.captioners import CAPTIONERS
from musubitlx.captioning import batches, blip, saving, wording
from musubitlx.captions import MAX_CAPTION

TIDIED = {
    " a  dog \n on grass ": "a dog on grass",
    '"A dog."': "A dog.",
    '"Stop" is written on a sign.': '"Stop" is written on a sign.',
    '"Stop" stands on one, on the other "Go"': '"Stop" stands on one, on the other "Go"',
    '* "A dog," ': "A dog",
    "“There is a dog.”": "A dog.",
    'A shop sign that reads "OPEN."': 'A shop sign that reads "OPEN."',
    '""': "",
    "": "",
    "A dog there is": "A dog there is",
    "In this image, there is a dog.": "A dog.",
    "In this picture we can see two dogs.": "Two dogs.",
    "The image depicts a dog.": "A dog.",
    "The image is small.": "The image is small.",
    "The photograph features: a dog": "A dog",
    "There are": "",
    "There are two dogs.": "Two dogs.",
    "There is, there are, this is a dog": "A dog",
    "There was a dog": "A dog",
    "There's a dog": "A dog",
    "Therese is a dog": "Therese is a dog",
    "These are dogs": "Dogs",
    "This image shows a dog .": "A dog.",
    "This is a photo of a dog": "A photo of a dog",
    "This island is green": "This island is green",
    "Thisbe and Pyramus": "Thisbe and Pyramus",
    "a picture that shows a dog": "a picture that shows a dog",
    "an araffe dog": "dog",
    "arafed man in a suit": "man in a suit",
    "arafes in a field": "in a field",
    "arab horse": "arab horse",
    "there ' s a dog": "a dog",
    "there are": "",
    "there is a man": "a man",
    "there is araffed woman": "woman",
    "there is no one here": "no one here",
    "there's": "",
    "there’s a dog": "a dog",
    "this is a dog": "a dog",
    "...": "",
}


@pytest.mark.parametrize("text", sorted(TIDIED))
def test_openings_that_say_nothing_are_dropped(text):
    assert wording.tidied(text) == TIDIED[text]


@given(st.text(max_size=60))
def test_any_text_becomes_one_line_without_an_opening(text):
    tidy = wording.tidied(text)
    assert tidy == " ".join(tidy.split())
    assert not tidy.lower().startswith(("there is ", "there are ", "this is "))


APPENDED = {
    ("", "a dog"): "a dog",
    ("A cat.", "A dog."): "A cat. A dog.",
    ("a cat", "a dog"): "a cat, a dog",
    ("a cat,", "a dog"): "a cat, a dog",
    ("x" * MAX_CAPTION, "a dog"): "x" * MAX_CAPTION,
}


@pytest.mark.parametrize("before, text", sorted(APPENDED))
def test_a_text_is_put_behind_the_one_that_is_there(before, text):
    assert wording.appended(before, text) == APPENDED[before, text]


@given(st.integers(0, MAX_CAPTION), st.integers(0, 40))
def test_a_caption_never_outgrows_its_limit(there, words):
    whole = wording.appended("x" * there, "word " * words + "end")
    assert len(whole) <= MAX_CAPTION
    assert whole.startswith("x" * there)


CUT = {
    "A dog runs. It looks": "A dog runs.",
    "A dog runs": "A dog runs",
    "A dog of 1.5 m": "A dog of 1.5 m",
    "A red car. A blue car.": "A red car. A blue car.",
    'A red car. It says "go."': 'A red car. It says "go."',
    "A red car. It is as long as 1.": "A red car.",
    "One. Two! Three": "One. Two!",
    'It says "go." And': 'It says "go."',
}


@pytest.mark.parametrize("text", sorted(CUT))
def test_a_text_cut_by_its_length_ends_with_a_sentence(text):
    assert wording.whole_sentences(text) == CUT[text]


JOINED = {
    "a man ' s hat": "a man's hat",
    "a t - shirt": "a t-shirt",
    "dogs and cats": "dogs and cats",
    "it isn ' t": "it isn't",
}


@pytest.mark.parametrize("text", sorted(JOINED))
def test_words_are_joined_again(text):
    assert blip.joined(text) == JOINED[text]


def test_every_model_has_a_batch_size():
    assert set(batches.NEEDS) == {one.id for one in CAPTIONERS}


@pytest.mark.parametrize("model", sorted(batches.NEEDS))
def test_a_batch_is_one_image_at_least_and_grows_with_the_memory(model):
    sizes = [batches.size(model, "cuda", 10, free, (4, 57)) for free in (0, 3e9, 6e9, 80e9)]
    assert sizes[0] == 1
    assert sizes == sorted(sizes)
    assert sizes[-1] == batches.NEEDS[model].at_most
    assert batches.size(model, "cpu", 10, None, (4, 57)) == batches.NEEDS[model].on_cpu


def test_more_beams_are_fewer_images():
    few, many = (batches.size("blip-large", "cuda", beams, 4e9, (4, 57)) for beams in (6, 20))
    assert 1 < many < few


def test_qwen_takes_two_at_most_where_each_image_of_a_batch_looks_at_all():
    for version, most in (((4, 49), 2), ((4, 52), 2), ((4, 53), 8), ((5, 0), 8)):
        assert batches.size("qwen-vl", "cuda", 1, 80e9, version) == most
        assert batches.size("qwen-vl", "cuda", 1, 2e9, version) == 1
        assert batches.size("blip-large", "cuda", 1, 80e9, version) == 16


def test_halving_ends_at_one():
    assert [batches.halved(n) for n in (2, 3, 16)] == [1, 1, 8]


def test_the_run_is_told_under_the_name_jobs_have():
    assert saving.RUN == processes.MARK


def test_it_starts_with_the_standard_library_and_pillow_alone():
    """It runs in Musubi's interpreter, which lacks what the web server needs."""
    code = "import sys, musubitlx.captioning.__main__; print(*sorted(sys.modules))"
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    tops = {name.split(".")[0] for name in told.stdout.split()}
    here = set(
        subprocess.run(
            [sys.executable, "-c", "import sys; print(*sys.modules)"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
    )
    known = set(sys.stdlib_module_names) | {name.split(".")[0] for name in here}
    assert tops - known <= {"musubitlx", "PIL"}
