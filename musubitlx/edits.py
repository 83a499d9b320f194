"""A bulk step over many captions: find and replace, text put before or behind, and its undo.

A captioning run is such a step, too: one that comes caption by caption.
"""

from __future__ import annotations

import hashlib
import math
import re
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from musubitlx import captioned, captions
from musubitlx.errors import Conflict, Invalid, NotFound, disk_error
from musubitlx.home import is_storable, read_json, write_json
from musubitlx.projects import Image, Project

KINDS = ("replace", "prefix", "suffix")
RECORD = "last_edit.json"
# Where a text that was put in before may end or begin: `cat` is not in front of `category`.
END_OF_WORD, START_OF_WORD = r"(?:(?<!\w)|(?!\w))", r"(?:(?<!\w)|(?!\w))"
MAX_TEXT = 2000  # characters of what is looked for or put in


_stepping = threading.Lock()  # one step, or its undo, at a time


@dataclass(frozen=True)
class Edit:
    """One bulk step. `find` counts for `replace` only, `also_empty` for the other two."""

    kind: str
    text: str
    find: str = ""
    match_case: bool = False
    whole_words: bool = False
    also_empty: bool = False

    @classmethod
    def parse(cls, given: object) -> Edit:
        """Read a posted step; Invalid names the field that is wrong."""
        if not isinstance(given, dict) or given.get("kind") not in KINDS:
            raise Invalid(f"The kind of step is one of {', '.join(KINDS)}.", field="kind")
        edit = cls(
            kind=given["kind"],
            text=_line(given.get("text", ""), "text"),
            find=_line(given.get("find", ""), "find"),
            match_case=given.get("match_case") is True,
            whole_words=given.get("whole_words") is True,
            also_empty=given.get("also_empty") is True,
        )
        if edit.kind == "replace" and not edit.find:
            raise Invalid("Type what to look for.", field="find")
        if edit.kind != "replace" and not edit.text.strip():
            raise Invalid("Type the text to add.", field="text")
        return edit

    def apply(self, caption: str) -> tuple[str, list[tuple[int, int]]]:
        """The caption after the step, and where in the old one it takes hold (character spans)."""
        if self.kind == "replace":
            return self._replaced(caption)
        if not caption and not self.also_empty:
            return caption, []
        if self.kind == "prefix":
            return self._prefixed(caption), []
        return self._suffixed(caption), []

    def _replaced(self, caption: str) -> tuple[str, list[tuple[int, int]]]:
        pattern = re.escape(self.find)
        if self.whole_words:
            pattern = rf"(?<!\w){pattern}(?!\w)"
        found = re.compile(pattern, 0 if self.match_case else re.IGNORECASE)
        spans = [match.span() for match in found.finditer(caption)]
        after = found.sub(lambda _: self.text, caption)
        return (_tidied(after) if spans and not self.text.strip() else after), spans

    def _prefixed(self, caption: str) -> str:
        if re.match(re.escape(self.text.strip()) + END_OF_WORD, caption):
            return caption
        gap = "" if not caption or self.text[-1].isspace() else " "
        return f"{self.text}{gap}{caption}"

    def _suffixed(self, caption: str) -> str:
        if re.search(START_OF_WORD + re.escape(self.text.strip()) + r"\Z", caption):
            return caption
        close = not caption or self.text[0].isspace() or self.text[0] in ",.;:!?"
        return f"{caption}{'' if close else ' '}{self.text}"

    @property
    def title(self) -> str:
        """The step in words, for the button that undoes it."""
        if self.kind == "replace":
            into = f"“{self.text}”" if self.text else "nothing"
            return f"“{self.find}” replaced by {into}"
        return f"“{self.text.strip()}” put {'in front' if self.kind == 'prefix' else 'behind'}"


@dataclass(frozen=True)
class Change:
    """What a step does to one caption."""

    name: str
    before: str
    after: str
    spans: list[tuple[int, int]] = field(default_factory=list)

    def as_dict(self) -> dict:
        """As the preview shows it; spans are [from, to] in the old text, in characters."""
        return {
            "name": self.name,
            "before": self.before,
            "after": self.after,
            "spans": [list(span) for span in self.spans],
        }


def changes(images: Iterable[Image], edit: Edit) -> list[Change]:
    """The captions a step would change; Invalid if one would get too long."""
    found = []
    for image in images:
        after, spans = edit.apply(image.caption)
        after = captions.checked(after)
        if after != image.caption:
            found.append(Change(image.name, image.caption, after, spans))
    return found


def tag(found: list[Change]) -> str:
    """A fingerprint of a preview: by it the step is only done as it was shown."""
    digest = hashlib.blake2b(digest_size=8)
    for change in found:
        digest.update(repr((change.name, change.before, change.after)).encode("utf-8"))
    return digest.hexdigest()


def apply(
    project: Project, edit: Edit, found: list[Change], seen: str | None
) -> tuple[list[str], list[str]]:
    """Do a step, and keep on the disk how to undo it.

    Returns (names changed, names left as somebody else edits them just now).
    `seen` is the tag of the preview it was agreed to: Conflict if the captions
    are others by now. The record is written first, so that a step that breaks
    off in the middle can be undone like any other.
    """
    if seen is not None and tag(found) != seen:
        raise Conflict(
            "The captions have changed since the preview.", hint="Look at it again, then apply."
        )
    if not found:
        return [], []
    rows = [{"name": one.name, "before": one.before, "after": one.after} for one in found]
    record = {"title": edit.title, "at": time.time(), "changes": rows}
    with _stepping:
        before = _record(project)
        _keep(project, record)
        written, left = _write(project, [(one.name, one.before, one.after) for one in found])
        if not written:
            _keep(project, before)  # nothing was done: the step before can still be undone
    return written, left


def begin_run(project: Project, title: str, run: str) -> None:
    """Note that what a captioning run writes from now on is the step that can be undone.

    Its rows stand in `captioned`, by the id of its job.
    """
    _keep(project, {"title": title, "at": time.time(), "run": run})


def _keep(project: Project, record: dict | None) -> None:
    path = project.hidden / RECORD
    try:
        project.hidden.mkdir(parents=True, exist_ok=True)
        write_json(path, record) if record else path.unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(error) from error


def _write(project: Project, rows: list[tuple[str, str, str]]) -> tuple[list[str], list[str]]:
    """Write captions over what they were: (names written, names that are something else by now)."""
    written, left = [], []
    for name, before, after in rows:
        try:
            project.set_caption(name, after, base=captions.tag(before))
            written.append(name)
        except (Conflict, NotFound):
            left.append(name)
    return written, left


def last(project: Project) -> dict | None:
    """The step that can be undone, or None: {title, at (s since the epoch), count, run}.

    `run` is the id of the job that made it, None for a step people made themselves.
    """
    record = _record(project)
    if record is None:
        return None
    told = {"title": record["title"], "at": record["at"], "count": len(record["changes"])}
    return {**told, "run": record.get("run")}


def undo(project: Project, at: object = None) -> tuple[list[str], list[str]]:
    """Take the last step back. Returns (names restored, names left as they were edited since).

    `at` is the time of the step that is meant: Conflict if another one came
    after it. NotFound when there is nothing to undo.
    """
    with _stepping:
        record = _record(project)
        if record is None:
            raise NotFound("There is no step to undo.")
        if at is not None and at != record["at"]:
            raise Conflict("Another step came after this one.", hint="Undo that one first.")
        # The last one first, should two of them be about the same file.
        rows = [(row["name"], row["after"], row["before"]) for row in record["changes"][::-1]]
        restored, left = _write(project, rows)
        _keep(project, None)
    return restored[::-1], left[::-1]


def _record(project: Project) -> dict | None:
    record = read_json(project.hidden / RECORD) or {}
    if "run" in record:
        written = captioned.read(project, record["run"])
        record["changes"] = [row for row in written if row.keys() >= set(KEYS)]
    rows = record.get("changes")
    if not isinstance(rows, list) or not isinstance(record.get("title"), str):
        return None
    sound = all(
        isinstance(row, dict) and all(isinstance(row.get(key), str) for key in KEYS) for row in rows
    )
    at = record.get("at")
    if not rows or not sound or not isinstance(at, int | float) or not math.isfinite(at):
        return None
    return {**record, "title": record["title"][:MAX_TEXT]}


KEYS = ("name", "before", "after")


def _line(given: object, name: str) -> str:
    """A piece of text of a step, its spaces kept: they count."""
    if not isinstance(given, str) or len(given) > MAX_TEXT or not is_storable(given):
        raise Invalid(f"Enter text of at most {MAX_TEXT} characters.", field=name)
    return given.replace("\r\n", "\n").replace("\x00", "")


def _tidied(text: str) -> str:
    """A text after something was cut out: without doubled commas or spaces, wherever they are."""
    text = re.sub(r"[ \t]{2,}", " ", text)
    text = re.sub(r"[ \t]+([,.;:!?])", r"\1", text)
    text = re.sub(r",(\s*,)+", ",", text)
    return text.strip(" \t\r\n,")
