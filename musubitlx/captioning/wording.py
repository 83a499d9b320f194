"""What becomes of a model's text before it is a caption: pure functions."""

from __future__ import annotations

import re

from musubitlx.captions import MAX_CAPTION

OPENINGS = re.compile(
    r"""(?ix)
    (?:
        there \s+ (?: is | are | was | were ) \b
      | there \s* ['’] \s* (?: s | re ) \b
      | (?: this | these ) \s+ (?: is | are ) \b
      | (?: in \s+ (?: the | this ) \s+ PICTURE \s* ,? \s* )
        (?: there \s+ (?: is | are ) | we \s+ (?: can \s+ )? see | you \s+ (?: can \s+ )? see ) \b
      | (?: the | this ) \s+ PICTURE \s+
        (?: shows | depicts | features | displays | captures | presents | portrays | contains
          | is \s+ of ) \b
    )
    [\s,:]+
    """.replace("PICTURE", "(?: image | picture | photo | photograph )")
)
INVENTED = re.compile(r"(?i)(?:an?\s+)?ara+f+[a-z]*[\s,]+")  # BLIP's word for it knows not what
LIMIT = 8  # openings in one text
MARKS = "`*#, "  # round a text they are layout
QUOTED = re.compile(r'["“”]([^"“”]*)["“”]')  # as a whole; quotes within belong to the text
SENTENCE_END = re.compile(r"[.!?][\"”)]?(?=\s|(?<![0-9]\.)\Z)")  # "1." may be cut off from 1.5


def tidied(text: str) -> str:
    """A model's text as a caption: one line, without an empty opening like "There is".

    The letter it begins with is as large as before. Quotes go only as a pair round
    all of it. A text of nothing but an opening or marks becomes empty.
    """
    line = " ".join(text.split()).strip(MARKS)
    if quoted := QUOTED.fullmatch(line):
        line = quoted[1].strip(MARKS)
    line = re.sub(r"\s+([,.;:!?])(?=\s|$)", r"\1", line)
    whole = line
    for _ in range(LIMIT):
        shorter = _without_opening(line)
        if shorter == line:
            break
        line = shorter
    if not re.search(r"\w", line) or _without_opening(line + " ") == "":
        return ""
    return line[0].upper() + line[1:] if whole[0].isupper() else line


def _without_opening(line: str) -> str:
    for opening in (OPENINGS, INVENTED):
        if match := opening.match(line):
            line = line[match.end() :]
    return line


def whole_sentences(text: str) -> str:
    """A text that the length cut off, up to its last whole sentence; all of it if it has none."""
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    return text[: ends[-1]] if ends else text


def appended(before: str, text: str) -> str:
    """The caption `before` with `text` after it, as much of it as a caption has room for.

    `before` itself when there is no room for a word.
    """
    if not before:
        return _cut(text, MAX_CAPTION)
    gap = " " if before[-1] in ",;:.!?)…" else ", "
    more = _cut(text, MAX_CAPTION - len(before) - len(gap))
    return before + gap + more if more else before


def _cut(text: str, room: int) -> str:
    """At most `room` characters, ending with a word."""
    if len(text) <= room:
        return text
    return text[: max(0, room) + 1].rpartition(" ")[0].rstrip(" ,;:") if room > 0 else ""
