"""Notes on a run: free text in its record, saved as it is typed."""

from __future__ import annotations

import threading
from pathlib import Path

from musubitlx import captions
from musubitlx.errors import Conflict, Invalid, NotFound, disk_error
from musubitlx.home import is_storable, write_text

FILE = "notes.txt"
MAX_NOTES = 20_000  # characters

_writing = threading.Lock()  # nobody writes between another's look and write


class Edited(Conflict):
    """The notes are not any more what their writer started from; nothing was written."""

    def __init__(self, current: str):
        super().__init__(
            "These notes were changed elsewhere meanwhile.",
            field="text",
            hint="Keep yours or take the others.",
        )
        self.current = current

    def as_dict(self) -> dict:
        """The error, with the notes as they are now and their tag."""
        return {**super().as_dict(), "text": self.current, "tag": tag(self.current)}


tag = captions.tag  # by it a writer says what it started from


def read(record: Path) -> str:
    """The notes in the folder of a record; empty if there are none."""
    try:
        return (record / FILE).read_text(encoding="utf-8", errors="replace")[:MAX_NOTES]
    except OSError:
        return ""


def write(record: Path, text: object, *, base: str | None = None) -> str:
    """Save notes, empty ones by removing the file; returns what is stored.

    `base` is the tag of the notes their writer started from: if they are others by now,
    Edited is raised and nothing is written. NotFound when the record is gone.
    """
    if not isinstance(text, str) or len(text) > MAX_NOTES or not is_storable(text):
        raise Invalid(f"Notes are text of at most {MAX_NOTES} characters.", field="text")
    text = captions.plain(text)
    with _writing:
        current = read(record)
        if base is not None and current != text and tag(current) != base:
            raise Edited(current)
        try:
            if text:
                write_text(record / FILE, text)
            else:
                (record / FILE).unlink(missing_ok=True)
        except FileNotFoundError:
            raise NotFound("This run was deleted meanwhile.") from None
        except OSError as error:
            raise disk_error(error) from error
    return text
