"""The page's own files as they are sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from musubitlx.assets import Assets, without_comments

STATIC = Path(__file__).resolve().parent.parent / "static"
SOURCES = sorted([*STATIC.glob("js/*.js"), *STATIC.glob("css/*.css")])


def test_comments_of_whole_lines_are_left_out_and_lines_stay_where_they_are():
    text = (
        b"/** What it is.\n * And more. */\nconst a = 1; // kept\n  // gone\n/* b */ let b;\nf();\n"
    )
    sent = b"\n\nconst a = 1; // kept\n\n/* b */ let b;\nf();\n"
    assert without_comments(text) == sent


def test_what_only_looks_like_a_comment_stays():
    for text in (b'const url = "http://x";\n', b"a /\n/ b\n", b".x { width: 1px } /* y */\n"):
        assert without_comments(text) == text


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_text_of_several_lines_holds_what_looks_like_a_comment(path):
    """A template literal over lines could; then it would be cut."""
    text = path.read_bytes()
    assert without_comments(text).count(b"\n") == text.count(b"\n")
    inside = text.decode().split("`")[1::2]
    for literal in inside:
        assert "\n" not in literal or not any(
            line.strip().startswith(("//", "/*", "*")) for line in literal.splitlines()[1:]
        )


def test_the_tag_is_of_what_is_sent_and_changes_with_it(tmp_path):
    file = tmp_path / "a.js"
    file.write_text("// one\nf();\n")
    first = Assets(tmp_path).load("a.js")
    assert first.plain == b"\nf();\n"
    file.write_text("// one\ng();\n")
    assert Assets(tmp_path).load("a.js").tag != first.tag
