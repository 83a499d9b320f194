"""Errors that programs of ours print, and the runner reads again."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from inputs import patient

from musubitlx.errors import HINT, UserError, printed, read_printed

texts = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1)


@patient
@given(texts, st.none() | texts)
def test_what_is_printed_is_read_again(text, hint):
    text, hint = " ".join(text.split()), hint and " ".join(hint.split())
    assume(text and HINT.strip() not in text)
    log = f"a line\n{printed(UserError(text, hint=hint))}\nCaptioning:  10%|#\n"
    told = read_printed(log)
    assert (str(told), told.hint) == (text, hint or None)


def test_the_last_error_counts():
    log = "\n".join(printed(UserError(text)) for text in ("first.", "second."))
    assert str(read_printed(log)) == "second."


@pytest.mark.parametrize("log", ["", "no ERROR: here", "Error: none of ours", "ERRORS: 3"])
def test_a_log_without_one_has_none(log):
    assert read_printed(log) is None


def test_an_error_is_one_line():
    assert printed(UserError("a\nb", hint="c\r\nd")) == "ERROR: a b What to do: c d"
