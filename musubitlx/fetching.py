"""Fetch model files from the Hugging Face hub; what was begun is taken up where it stopped.

    python -m musubitlx.fetching --home DIR [--captioner ID] [--model ID ...] [--list]

Exit code 0: all there. 1: not, and the last lines on stderr say why (`errors.printed`). 143 and
130: stopped by SIGTERM and SIGINT, within a second; what has arrived is kept.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from musubitlx import captioners, models, weights
from musubitlx.bars import BYTES, Bar
from musubitlx.captioners import Captioner
from musubitlx.downloads import (
    Terms,
    amount,
    check_room,
    download,
    forget_part,
    part_bytes,
    part_of,
    patiently,
)
from musubitlx.errors import Conflict, UserError, disk_error, printed
from musubitlx.home import Home
from musubitlx.hub import Hub, HubTrouble, RemoteFile

STOP_S = 0.7  # for the transfer to end by itself when it is stopped
STOP_SIGNALS = [
    number
    for name in ("SIGTERM", "SIGINT", "SIGBREAK")
    if (number := getattr(signal, name, None)) is not None
]


@dataclass(frozen=True)
class Item:
    """One file to get."""

    repo: str
    remote: RemoteFile
    target: Path

    @property
    def there(self) -> int:
        """How many bytes of it have arrived."""
        if self.has_length:
            return self.remote.bytes
        return min(part_bytes(self.target), self.remote.bytes)

    @property
    def has_length(self) -> bool:
        """Whether the file is there, as long as it should be."""
        return models.size_of(self.target) == self.remote.bytes

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do: no part lies beside it either."""
        return self.has_length and not part_of(self.target).is_file()


@dataclass(frozen=True)
class Errand:
    """What one thing still lacks: the files, and what is wrong when all have come."""

    label: str
    items: list[Item]
    problem: Callable[[], str | None]

    @property
    def bytes(self) -> int:
        """The length of its files, what has arrived included."""
        return sum(item.remote.bytes for item in self.items)

    @property
    def missing(self) -> int:
        """How many bytes have still to come."""
        return self.bytes - sum(item.there for item in self.items)

    def line(self, home: Home) -> str:
        """What is got, in words."""
        count = len(self.items)
        files = "1 file" if count == 1 else f"{count} files"
        first = self.items[0]
        place = first.target if count == 1 else first.target.parent
        with_part = self.missing < self.bytes
        there = f" ({amount(self.bytes - self.missing)} of it are there)" if with_part else ""
        return (
            f"{self.label} from {first.repo}: {files}, {amount(self.bytes)}{there}, "
            f"into {place.relative_to(home.root).as_posix()}"
        )


# -- what is missing -------------------------------------------------------------------------------


def errands(home: Home, hub: Hub, captioner: Captioner | None, ids: list[str]) -> Iterator[Errand]:
    """Yield what is missing of a caption model and of model files; UserError if nobody can say."""
    if captioner and weights.find(home, captioner) is None:
        yield _captioner_errand(home, hub, captioner)
    for id in _models(captioner, ids):
        row = models.model(id)
        chosen, trouble = models.read_choices(home)
        if trouble:
            raise UserError(trouble.text, hint=trouble.hint)
        state = models.find_one(home, row, chosen)
        if state.problem is not None:
            _check_replaceable(home, row, state, is_set=bool(chosen.get(id)))
            yield _model_errand(home, hub, row)


def _models(captioner: Captioner | None, ids: list[str]) -> list[str]:
    """The model files asked for, with the one that a caption model takes its weights from."""
    more = [weights.TEXT_ENCODER] if captioner and captioner.text_encoder else []
    return list(dict.fromkeys([*ids, *more]))


def drop_parts(home: Home, captioner: Captioner | None, ids: list[str]) -> None:
    """Remove what was begun of things that are whole by now: from elsewhere, or as other files."""
    targets: list[Path] = []
    if captioner and weights.find(home, captioner):
        folder = captioner.folder(home)
        targets += [folder / name for name in weights.begun(folder)]
    chosen, trouble = models.read_choices(home)
    for row in map(models.model, _models(captioner, ids)):
        if models.find_one(home, row, chosen, trouble).problem is None:
            targets.append(home.root / row.filename)
    for target in targets:
        forget_part(target)


def _captioner_errand(home: Home, hub: Hub, captioner: Captioner) -> Errand:
    folder = captioner.folder(home)
    needed = weights.wanted(hub.files(captioner.repo), captioner)
    items = [Item(captioner.repo, one, folder / one.path) for one in needed]
    missing = [item for item in items if not item.is_done]
    if not missing:
        raise UserError(
            f"{captioner.label} can't be used: {weights.problem(folder, captioner)}",
            hint=f"Delete {folder} and start again.",
        )
    return Errand(captioner.label, missing, lambda: weights.problem(folder, captioner))


def _model_errand(home: Home, hub: Hub, row: models.Model) -> Errand:
    version = hub.look(row.repo, row.repo_path)
    if not version.sha256 and version.bytes < row.expected_bytes / 2:
        # Where the hub names the checksum of a large file, that says what it is; else its length.
        raise HubTrouble(
            f"{row.repo_path} of {row.repo} has {amount(version.bytes)}, but should have about "
            f"{amount(row.expected_bytes)}.",
            "Something else answers in place of the hub. If HF_ENDPOINT is set to a mirror, "
            "unset it or take another.",
        )
    remote = RemoteFile(row.repo_path, version.bytes, version.sha256)
    target = home.root / row.filename

    def problem() -> str | None:
        found = models.inspect(target, row.id)
        return found.text if found else None

    return Errand(row.label, [Item(row.repo, remote, target)], problem)


def _check_replaceable(home: Home, row: models.Model, state: models.ModelState, *, is_set: bool):
    """Raise UserError where a download would not help, or would replace what someone needs."""
    if is_set:
        raise UserError(state.problem, hint=state.hint)
    target = home.root / row.filename
    found = models.inspect(target, row.id) if target.exists() else None
    if found and found.whole:
        raise Conflict(
            f"{target} is there, but is another file: {found.text}",
            hint="Move it to another folder or give it another name, and start again.",
        )


# -- getting it ------------------------------------------------------------------------------------


def fetch(home: Home, hub: Hub, needed: list[Errand], stop: threading.Event) -> None:
    """Get everything, small files first, under one bar over all bytes."""
    for errand in needed:
        print(f"Fetching {errand.line(home)}")
    _check_disks(needed)
    items = sorted((item for one in needed for item in one.items), key=lambda i: i.remote.bytes)
    total = sum(item.remote.bytes for item in items)
    there = sum(item.there for item in items)
    bar = Bar("download", total, BYTES, done=there)
    bar.show(there, now=True)
    for item in items:
        beside = sum(other.there for other in items if other is not item)
        checked = not item.has_length and (item.remote.sha256 or item.remote.oid)
        _fetch_one(hub, item, bar, beside, stop)
        how = ", checksum right" if checked else ""
        bar.say(f"{item.target.name} is there: {amount(item.remote.bytes)}{how}.")
    bar.end()
    for errand in needed:
        if found := errand.problem():
            raise UserError(f"{errand.label} is there, but can't be used: {found}")


def _fetch_one(hub: Hub, item: Item, bar: Bar, beside: int, stop: threading.Event) -> None:
    """Get a file; the bar goes from the bytes of the others on."""
    checking: list[Bar] = []

    def check(done: int, whole: int) -> None:
        if not checking:
            bar.say(f"Checking the {amount(whole)} of {item.target.name} that are there.")
            checking.append(Bar("check", whole, BYTES))
        checking[0].show(done, now=done == whole)

    def wait(trouble: HubTrouble, seconds: float) -> None:
        bar.say(f"{trouble} Trying again in {seconds:g} s.")

    terms = Terms(
        on_progress=lambda done: bar.show(beside + done),
        on_check=check,
        on_wait=wait,
        stop=stop,
    )
    download(hub, item.repo, item.remote.path, item.target, listed=item.remote, terms=terms)


def _check_disks(needed: list[Errand]) -> None:
    """Refuse to begin what would not fit, disk by disk."""
    wanted: dict[int, tuple[Path, int]] = {}
    for errand in needed:
        folder = errand.items[0].target.parent
        folder.mkdir(parents=True, exist_ok=True)
        disk = folder.stat().st_dev
        _, count = wanted.get(disk, (folder, 0))
        wanted[disk] = (folder, count + errand.missing)
    for folder, count in wanted.values():
        check_room(folder, count)


def work(asked: argparse.Namespace, stop: threading.Event) -> None:
    """Do what the command line asks."""
    home = Home(asked.home).make()
    captioner = captioners.named(asked.captioner) if asked.captioner else None
    for id in asked.model:
        models.model(id)
    hub = Hub.of_environment()

    def wait(trouble: HubTrouble, seconds: float) -> None:
        print(f"{trouble} Trying again in {seconds:g} s.")

    terms = Terms(on_wait=wait, stop=stop)
    needed = patiently(lambda: list(errands(home, hub, captioner, asked.model)), terms)
    if asked.list:
        for errand in needed:
            print(f"Missing: {errand.line(home)}")
    else:
        if needed:
            fetch(home, hub, needed, stop)
        drop_parts(home, captioner, asked.model)
    if not (asked.list and needed):
        print("All there.")


# -- the program -----------------------------------------------------------------------------------


class _Signalled(BaseException):
    """A signal came that asks to stop."""


def _on_signal(number: int, _frame: object) -> None:
    raise _Signalled(number)


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, do it, return the exit code.

    The work is done in a thread: nothing that it waits for, a name server or a disk, keeps the
    program from ending when it is asked to. What has arrived is safe at any moment.
    """
    parser = argparse.ArgumentParser(prog="musubitlx.fetching", description=__doc__)
    parser.add_argument("--home", required=True, help="the home folder")
    parser.add_argument("--captioner", help="a caption model: its id")
    parser.add_argument("--model", action="append", default=[], help="a model file of training")
    parser.add_argument("--list", action="store_true", help="only say what is missing")
    asked = parser.parse_args(argv)
    if not (asked.captioner or asked.model):
        parser.error("say what to fetch: --captioner ID, --model ID or both")
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="replace", line_buffering=True)
    return _watched(asked)


@dataclass
class _Work:
    """The work under way: how it is asked to stop, whether it has ended, and with which error."""

    stop: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None

    def do(self, asked: argparse.Namespace) -> None:
        """Do it, and note how it ended."""
        try:
            work(asked, self.stop)
        except OSError as error:  # of the disk: those of the network are UserErrors by now
            self.error = disk_error(error, error.filename)
        except Exception as error:
            self.error = error
        finally:
            self.ended.set()


def _watched(asked: argparse.Namespace) -> int:
    """Do the work in a thread; a signal ends it, and the program a moment later in any case."""
    doing = _Work()
    try:
        for number in STOP_SIGNALS:
            signal.signal(number, _on_signal)
        threading.Thread(target=doing.do, args=(asked,), daemon=True).start()
        # Not `join`: Python 3.11 takes a thread for ended whose join a signal broke off. And by
        # the half second: on Windows a signal waits for the end of a wait.
        while not doing.ended.wait(0.5):
            continue
    except _Signalled as signalled:
        _end_by_signal(doing, signalled.args[0])
    if isinstance(doing.error, UserError):
        print(printed(doing.error), file=sys.stderr)
        return 1
    if doing.error is not None:
        raise doing.error
    return 0


def _end_by_signal(doing: _Work, number: int) -> NoReturn:
    for one in STOP_SIGNALS:
        signal.signal(one, signal.SIG_IGN)
    doing.stop.set()
    doing.ended.wait(STOP_S)
    print("\nStopped. What has arrived is kept: the next start goes on from there.", flush=True)
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
