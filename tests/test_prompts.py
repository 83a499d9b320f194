"""Sample prompts: what is typed is what is drawn, or it is said why not."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from inputs import patient

from musubitlx import prompts
from musubitlx.practice import prompts as practice
from musubitlx.prompts import Prompt, compose

REST = " --w 256 --h 256 --f 1 --s 20 --l 4.0 --fs 2.2 --d 7"


def read(text: str, trigger: str = "ohwx", seed: int = 7) -> prompts.Prompts:
    return prompts.read(text, trigger=trigger, seed=seed)


def drawn(line: str) -> Prompt:
    """The prompt that the trainer reads in a line of its prompt file."""
    row = practice.make_prompt(0, line.strip())
    assert row.guidance_scale == 1.0
    return Prompt(
        text=row.prompt,
        seed=row.seed,
        width=row.width,
        height=row.height,
        steps=row.sample_steps,
        guidance=row.cfg_scale,
        negative=row.negative_prompt,
        flow_shift=row.discrete_flow_shift,
        frames=row.frame_count,
    )


def assert_drawn_as_meant(found: prompts.Prompts) -> None:
    written = "".join(line + "\n" for line in found.lines)
    kept = [line.strip() for line in written.split("\n") if line.strip() and line[0] != "#"]
    assert kept == found.lines
    assert all(len(line.splitlines()) == 1 for line in found.lines)
    assert [drawn(line) for line in found.lines] == found.prompts


def only(found: list) -> str:
    """The one sentence of a list, with its remedy."""
    assert [error.field for error in found] == ["sample_prompt_text"]
    assert found[0].hint
    return f"{found[0]} {found[0].hint}"


# -- what is written -------------------------------------------------------------------------------


def test_a_line_says_every_default():
    found = read("a ball")
    assert found.lines == ["a ball" + REST]
    assert found.prompts == [Prompt("a ball", seed=7)]
    assert found.errors == found.warnings == []


def test_what_a_line_says_itself_is_kept():
    found = read("x --L 1.5 --n blurry,  bad --W 512 --h=768 --s = 4 --d 1 --fs 3 --f 1")
    assert found.prompts == [Prompt("x", 1, 512, 768, 4, 1.5, "blurry, bad", 3.0)]
    assert found.lines == [
        "x --n blurry, bad --w 512 --h 768 --f 1 --s 4 --l 1.5 --fs 3.0 --d 1",
    ]
    assert found.errors == found.warnings == []


def test_comments_and_blank_lines_are_dropped_and_all_line_ends_count():
    text = "# no\r\n\r\n \t# no --x\ra\u2028b\u2029c\x85d\n\u00a0\n"
    assert [prompt.text for prompt in read(text).prompts] == ["a", "b", "c", "d"]


def test_blanks_and_control_characters_are_put_right():
    found = read("\ufeff a\u00a0\tb\x00\x07c\x0b\x0c\u3000d \u200b--w\u00a0512\ud800")
    assert found.prompts == [Prompt("a b c d", 7, width=512)]
    assert read("👩‍🚀 in é 画").prompts[0].text == "👩‍🚀 in é 画"


def test_the_trigger_word_is_filled_in():
    assert read("{{trigger}} and {{ Trigger }}", r"a\1 b").prompts[0].text == r"a\1 b and a\1 b"
    found = read("a woman without it")
    assert found.errors == found.warnings == []


def test_a_number_is_written_in_digits():
    found = read("x --l 0.000001 --fs 100 --s 0007")
    assert found.lines[0].endswith(" --s 7 --l 0.000001 --fs 100.0 --d 7")
    assert_drawn_as_meant(found)


BEGINNINGS = "n i ei cn ci of w h f d s g fs l N G FS ſ İ"


@pytest.mark.parametrize("value", ["5", "2.5", "1.2.3", "words", "٣", "9" * 30, ".", "n 5"])
@pytest.mark.parametrize("letter", BEGINNINGS.split())
def test_a_text_that_looks_like_an_option_sets_nothing(letter, value):
    found = read(f"{letter} {value}")
    assert found.prompts == [Prompt(f"{letter} {value}", seed=7)]
    assert_drawn_as_meant(found)


# -- what is found ---------------------------------------------------------------------------------

WRONG = [
    ("x --steps 30", "there is no option --steps. Write --s 30."),
    ("x --seed 3", "Write --d 3."),
    ("x --width 64", "Write --w 64."),
    ("x --height", "Write --h 512."),
    ("x --negative ugly, bad", "Write --n ugly, bad."),
    ("x --negative-prompt ugly", "Write --n ugly."),
    ("x --no", "Write --n and what not to draw."),
    ("x --cfg 4", "Write --l 4."),
    ("x --scale=4", "Write --l 4."),
    ("x --guidance 4", "Write --l 4."),
    ("x --flow_shift 3", "Write --fs 3."),
    ("x --widht 64", "there is no option --widht. Write --w 64."),
    ("x --ar 16:9", "Write --w 512 --h 512."),
    ("x --ar16", "there is no option --ar16."),
    ("x --qqq 3", "there is no option --qqq. Take it out. --w, --h, --s, --l, --fs, --d, --n"),
    ("x --ſ 3", "there is no option --ſ."),
    ("x --w", "--w has no value. Write --w 512, or take it out."),
    ("x --d=", "--d has no value."),
    ("x --n", "--n has no words after it."),
    ("x --w wide", "wide is none. Write it like --w 512."),
    ("x --w 512.5", "a whole number; 512.5 is none."),
    ("x --w 512px", "512px is none."),
    ("x --w ٥١٢", "is none."),
    ("x --d 1234567890123", "is none."),
    ("x --l 1e-1", "a number; 1e-1 is none."),
    ("x --l 1.2.3", "1.2.3 is none."),
    ("x --l .", ". is none."),
    ("x --l 4,5", "--l 4,5 has a comma. Write a dot: --l 4.5."),
    ("x --s 1,000", "1,000 is none."),
    ("x --w 32", "--w 32 is out of range, the width in pixels is from 64 to 4096."),
    ("x --h 4112", "from 64 to 4096."),
    ("x --s 0", "from 1 to 1000."),
    ("x --s 1001", "from 1 to 1000."),
    ("x --d -1", "from 0 to 4294967295. Take --d out for the seed of the training."),
    ("x --d 4294967296", "from 0 to 4294967295."),
    ("x --l 100.5", "from 0 to 100."),
    ("x --l -0", "out of range"),
    ("x --fs 0", "from 0.01 to 100."),
    ("x --w 512 --W 256", "--w is given twice. Take one of them out."),
    ("x --n a --n b", "--n is given twice."),
    ("x --i a.png", "--i gives a start image, which training Qwen-Image does not use."),
    ("x --ei a.png", "an end image"),
    ("x --cn a.mp4", "a control video"),
    ("x --ci a.png", "a control image"),
    ("x --of a", "one-frame settings"),
    ("x --f 25", "--f above 1 would be a video."),
    ("x --f 0", "--f above 1 would be a video."),
    ("--w 512", "there is no prompt text in front of the options."),
    ("a -- b", "-- stands there with no option after it. Write a single dash"),
    ("a --", "-- stands there with no option after it."),
    ("a -- w 512", "-- stands there with no option after it."),
    ("x --w512", "--w512 lacks a blank. Write --w 512."),
    ("x --fs2.2", "Write --fs 2.2."),
    ("x --steps20", "--steps20 lacks a blank. Write --s 20."),
    ("x ---w 5", "there is no option ---w. Write --w 5."),
    ("x --s 20 on a table", "more words follow --s 20: on a table."),
    ("x" * 4001, "it has 4001 characters, 4000 are allowed."),
]


@pytest.mark.parametrize(("line", "words"), WRONG)
def test_a_line_that_is_wrong_is_not_drawn(line, words):
    found = read(f"\n# a comment\n{line}\nfine")
    told = only(found.errors)
    assert told.startswith("Line 3: ")
    assert words in told
    assert [prompt.text for prompt in found.prompts] == ["fine"]


ODD = [
    ("x {{name}}", "{{name}} stands for nothing and is drawn as it stands."),
    ("x [trigger]", "[trigger] is not filled in. Write {{trigger}}"),
    ("x {trigger word}", "is not filled in."),
    ("x {{trigger}", "is not filled in."),
    ("x --w 500", "--w 500 becomes 496. Sizes are multiples of 16: 496 or 512."),
    ("x --h 71", "--h 71 becomes 64."),
    ("x --g 7", "--g does nothing for Qwen-Image. The guidance is --l"),
    ("x —w 512", "“—w 512” is taken as words to draw"),
    ("x -s 20", "“-s 20” is taken"),
    ("x –n blurry", "“–n blurry” is taken"),
    ("x --n blurry –d 5", "“–d 5” is taken"),
    ("x --n blurry --l 1", "the negative prompt does nothing with --l 1.0."),
]


@pytest.mark.parametrize(("line", "words"), ODD)
def test_a_line_that_is_odd_is_drawn_and_said(line, words):
    found = read(f"fine\n{line}")
    told = only(found.warnings)
    assert told.startswith("Line 2: ")
    assert words in told
    assert (len(found.prompts), found.errors) == (2, [])
    assert_drawn_as_meant(found)


def test_a_trigger_that_is_missing_or_unfit_is_said():
    assert "there is no trigger word" in only(read("{{trigger}} x", "").warnings)
    assert "nothing is left of it to draw" in only(read("{{trigger}}", "").errors)
    assert "holds --" in only(read("{{trigger}}", "sks --w 512").errors)
    assert "begins with #" in only(read("{{trigger}} x", "#sks").errors)
    assert read("a {{trigger}}", "#sks").lines == ["a #sks" + REST]
    assert read("x", "sks --w 512").errors == []


def test_the_same_picture_twice_is_said():
    found = read("x\n\nx --d 7\nx --d 8")
    assert only(found.warnings).startswith("Line 3: this draws the same picture as line 1.")
    assert len(found.lines) == 3


def test_too_many_prompts_are_said_once():
    found = read("\n".join(f"x{number}" for number in range(150)))
    assert only(found.errors).startswith("Line 101: there are more than 100 prompts.")
    assert len(found.lines) == 100
    assert len(read("\n".join(["x --q"] * 150)).errors) == 101


def test_everything_is_told_at_once():
    found = read("x --w 5 --steps 3 --l 4,5\n{{a}} --h 71\n--q")
    assert [str(error)[:7] for error in found.errors] == ["Line 1:"] * 3 + ["Line 3:"] * 2
    assert [str(error)[:7] for error in found.warnings] == ["Line 2:"] * 2


BROKEN_NAMES = (
    "steps seed width height negative cfg scale v ar q style x sampler ww W= neg s5 h1. steps20"
)
BROKEN_VALUES = [
    "",
    " --",
    " x",
    " -3",
    " 5;",
    " 1e9",
    " 99999999999",
    " 0x10",
    " 4,5",
    " 5 5",
    " ½",
]
LETTERS = ("w", "h", "s", "d", "l", "fs", "f")
BROKEN = [f"x --{name}{value}" for name in BROKEN_NAMES.split() for value in BROKEN_VALUES]
BROKEN += [f"x --{letter}{value}" for letter in LETTERS for value in BROKEN_VALUES]


@pytest.mark.parametrize("line", BROKEN)
def test_nothing_broken_goes_by_in_silence(line):
    found = read(line)
    assert found.errors or found.warnings
    assert all(error.hint and error.field for error in found.errors + found.warnings)
    assert_drawn_as_meant(found)


# -- what nobody thought of ------------------------------------------------------------------------

SCRAPS = (
    *(" ", "\n", "\r", "--", "--w", "--n", "--g", " --fs", " --d 5", "-", "—", "512", "a", "#"),
    *("n ", "w 5", "{{trigger}}", "{{", "}}", "=", "\ud800", "\u2028", "."),
)
TYPED = st.text() | st.lists(st.sampled_from(SCRAPS), max_size=14).map("".join)


@patient
@given(TYPED, st.text(max_size=20) | st.sampled_from(SCRAPS), st.integers(0, 2**32 - 1))
@example("{{trigger}}w 5", "a -", 1)
@example("x --l -0.0", "", 1)
def test_whatever_is_typed_is_drawn_as_told(text, trigger, seed):
    found = prompts.read(text, trigger=trigger, seed=seed)
    assert_drawn_as_meant(found)
    for error in found.errors + found.warnings:
        assert re.match(r"Line \d+: ", str(error))
        assert error.hint
        assert error.field == "sample_prompt_text"


WORDS = (
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40)
    | st.sampled_from(["n a", "w 5", "g 2", "i x", "d ٣", "l 1.2.3", "of a", "-", "a -"])
).map(prompts.clean)
PLAIN = WORDS.filter(lambda text: text and text[0] != "#" and " --" not in f" {text}")
PROMPTS = st.builds(
    Prompt,
    text=PLAIN.filter(lambda text: "{" not in text),
    seed=st.integers(0, 2**32 - 1),
    width=st.integers(4, 256).map(lambda n: n * 16),
    height=st.integers(4, 256).map(lambda n: n * 16),
    steps=st.integers(1, 1000),
    guidance=st.integers(0, 10**8).map(lambda n: n / 10**6),
    negative=st.just(" ") | PLAIN.filter(lambda text: "{" not in text and text[0] != "="),
    flow_shift=st.integers(10**4, 10**8).map(lambda n: n / 10**6),
)


@patient
@given(PROMPTS)
def test_a_written_prompt_is_read_as_it_was(prompt):
    line = compose(prompt)
    assert drawn(line) == prompt
    typed = line.replace(" --n   --", " --").replace(" --g 1.0", "")
    found = prompts.read(typed, trigger="", seed=1)
    assert (found.errors, found.prompts, found.lines) == ([], [prompt], [line])
