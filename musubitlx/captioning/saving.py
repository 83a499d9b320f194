"""What becomes of a result: a row of the run, then the caption itself."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from musubitlx import captioned, captions, edits
from musubitlx.captioning.choosing import CHANGED, GONE, NOT_WHOLE
from musubitlx.captioning.wording import appended, tidied
from musubitlx.errors import DiskFull, UserError, disk_error
from musubitlx.projects import Project

RUN = "MUSUBITLX_JOB"  # in the environment: the id of the job this is


class Skipped(Exception):
    """An image gets no caption; the text says why, in a few words."""


class Book:
    """The rows of one run, and the captions it writes.

    `title` is what the step is called where it can be undone; `mode` what becomes of a
    caption that is there. OSErrors become UserErrors: without its rows a run must not go on.
    """

    def __init__(self, project: Project, title: str, mode: str, *, trial: bool = False):
        self._project, self._title, self._mode = project, title, mode
        self._run = os.environ.get(RUN) or uuid.uuid4().hex
        self._noted = False
        try:
            self._rows = captioned.begin(project, self._run, trial=trial)
        except OSError as error:
            raise disk_error(error, project.hidden) from error

    def save(self, image: Path, before: str, text: str) -> str:
        """Write the caption that a model's raw text makes; returns the new words.

        `before` is the caption that was there when the run began. Skipped if there is
        nothing to write, or the person wrote meanwhile.
        """
        words = tidied(text)
        if not words:
            raise Skipped("the model found no words for it")
        after = appended(before if self._mode == "append" else "", words)
        if after == before and self._mode == "append":
            raise Skipped("its caption is as long as one may be")
        if not image.is_file():
            raise Skipped(GONE)
        file = image.with_suffix(".txt")
        if captions.read(file) != before:  # before a row is made of it; looked at again below
            raise Skipped(CHANGED)
        if not captions.is_whole(file):
            raise Skipped(NOT_WHOLE)
        self._note_once()
        self._append({"name": image.name, "before": before, "after": after})
        try:
            captions.write(file, after, base=captions.tag(before))
        except captions.Edited:
            raise Skipped(CHANGED) from None
        except DiskFull:
            raise
        except UserError as error:
            raise Skipped(f"its caption can't be saved: {error}") from error
        return words

    def show(self, image: Path, text: str) -> str:
        """Note the text of a trial, and return it."""
        words = tidied(text)
        if not words:
            raise Skipped("the model found no words for it")
        self._append({"name": image.name, "text": words})
        return words

    def skip(self, name: str, why: str) -> None:
        """Note that an image gets no caption."""
        self._append({"name": name, "problem": why})

    def _note_once(self) -> None:
        if not self._noted:
            self._noted = True
            edits.begin_run(self._project, self._title, self._run)

    def _append(self, row: dict) -> None:
        try:
            captioned.append(self._rows, row)
        except OSError as error:
            raise disk_error(error, self._rows) from error
