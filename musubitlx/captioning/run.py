"""A run: images go through the model in batches, each result is saved at once."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path

from musubitlx import captions, pictures
from musubitlx.bars import IMAGES, Bar
from musubitlx.captioners import Wish
from musubitlx.captioning import batches, choosing, devices
from musubitlx.captioning.captioner import LoadedCaptioner
from musubitlx.captioning.choosing import Choice
from musubitlx.captioning.generation import Watch
from musubitlx.captioning.saving import Book, Skipped
from musubitlx.captioning.stopping import Stop

ENOUGH = 3  # images that fail alike before any went well: it is not the images


@dataclass
class Item:
    """One image on its way: its picture, and the caption it had when the run began."""

    path: Path
    picture: object
    before: str


class Run:
    """Captions the images of a choice, `at_once` at a time; counts what became of them."""

    def __init__(self, model: LoadedCaptioner, wish: Wish, book: Book, stop: Stop, at_once: int):
        self._model, self._wish, self._book, self._stop = model, wish, book, stop
        self._at_once = at_once
        self.done = self.kept = self.skipped = 0

    def work(self, choice: Choice) -> None:
        """Caption them all, in their order. Stopped if that was asked for meanwhile."""
        self.kept, self._tags = choice.kept, choice.tags
        self._bar = Bar("Captioning", len(choice.images) or 1, IMAGES)
        self._watch = Watch(self._stop, self._show, self._bar.say, self._model.usual_tokens)
        self._over = self._in_batch = 0
        self._went_well, self._failures = False, []
        for name, why in choice.passed:
            self._skip(name, why)
        self._bar.show(0, now=True)
        waiting, ready = list(choice.images), []
        try:
            while waiting or ready:
                self._stop.check()
                while waiting and len(ready) < self._at_once:
                    ready += self._read(waiting.pop(0))
                batch, ready = ready[: self._at_once], ready[self._at_once :]
                ready = self._caption(batch) + ready
        finally:
            self._bar.end()

    def _show(self, share: float) -> None:
        self._bar.show(self._over + share * self._in_batch)

    def _read(self, path: Path) -> list[Item]:
        """The image, ready for the model; nothing if that can't be, which is then said."""
        before = captions.read(path.with_suffix(".txt"))
        if before and choosing.stays(self._wish):  # somebody wrote one since the run began
            self.kept += 1
            self._count()
            return []
        if captions.tag(before) != self._tags[path] and not self._wish.trial:
            return self._pass(path.name, choosing.CHANGED)
        try:
            picture = pictures.decoded(path, self._model.side)[0]
        except FileNotFoundError:
            return self._pass(path.name, choosing.GONE)
        except Exception as error:  # Pillow promises no kind
            if isinstance(error, MemoryError):
                return self._pass(path.name, "there is not enough memory to read it")
            return self._pass(path.name, f"can't be read ({pictures.told(error)})")
        return [Item(path, picture, before)]

    def _caption(self, batch: list[Item]) -> list[Item]:
        """Put a batch through the model and save; returns what has to be tried again."""
        if not batch:
            return []
        self._in_batch = len(batch)
        texts = self._attempt(batch)
        if texts is None:
            devices.release(self._model.model.device.type)
            return self._smaller(batch)
        if isinstance(texts, Exception):
            return self._one_by_one(batch) if len(batch) > 1 else self._fail(batch[0], texts)
        self._went_well = True
        for item, text in zip(batch, texts, strict=True):
            self._save(item, text)
        return []

    def _attempt(self, batch: list[Item]) -> list[str] | Exception | None:
        """The raw texts, or what went wrong; None where memory ran out.

        Then nothing is left that holds any of it.
        """
        try:
            return self._model.write([item.picture for item in batch], self._watch)
        except Exception as error:
            traceback.clear_frames(error.__traceback__)
            return None if devices.is_out_of_memory(error) else error

    def _one_by_one(self, batch: list[Item]) -> list[Item]:
        """One image may have spoiled it for the others: each is tried alone."""
        again = []
        for item in batch:
            self._stop.check()
            again += self._caption([item])
        return again

    def _fail(self, item: Item, error: Exception) -> list[Item]:
        """Skip an image the model can't take; raises the error if it takes none at all."""
        self._failures.append(type(error))
        first = self._failures[:ENOUGH]
        if not self._went_well and len(first) == ENOUGH == first.count(type(error)):
            raise error
        said = " ".join(str(error).split())[:200]
        return self._pass(
            item.path.name, f"the model can't take it ({type(error).__name__}: {said})"
        )

    def _smaller(self, batch: list[Item]) -> list[Item]:
        if len(batch) == 1:
            return self._pass(batch[0].path.name, "there is not enough memory for it")
        self._at_once = batches.halved(len(batch))
        self._bar.say(
            f"Not enough memory for {len(batch)} images at once: going on with {self._at_once}."
        )
        return batch

    def _save(self, item: Item, text: str) -> None:
        try:
            save = self._book.show if self._wish.trial else self._book.save
            words = save(item.path, *([] if self._wish.trial else [item.before]), text)
        except Skipped as why:
            self._pass(item.path.name, str(why))
            return
        self.done += 1
        self._bar.say(f"{item.path.name}: {words}")
        self._count()

    def _pass(self, name: str, why: str) -> list[Item]:
        self._skip(name, why)
        self._count()
        return []

    def _skip(self, name: str, why: str) -> None:
        self.skipped += 1
        self._book.skip(name, why)
        self._bar.say(f"{name}: {why}")

    def _count(self) -> None:
        self._over += 1
        self._in_batch = max(0, self._in_batch - 1)
        self._bar.show(self._over, now=True)
