"""The trash of an output folder: what was removed waits there, so that it can be brought back."""

from __future__ import annotations

import re
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path

from musubitlx.errors import NotFound, UserError, disk_error
from musubitlx.home import Home
from musubitlx.projects import READABLE, Image, Project

KEEP_S = 600.0  # the page offers the undo for 10 s; a slow phone or a second page may come later


def throw_away(project: Project, names: list[str]) -> tuple[list[str], str]:
    """Move images with their captions into the trash; what can be made again is deleted.

    Returns the names removed and the key that brings them back. NotFound if
    one of them is not there; then none is removed.
    """
    images = [project.image(name) for name in dict.fromkeys(names)]
    key = uuid.uuid4().hex
    folder = _folder(project, key)
    try:
        folder.mkdir(parents=True)
        for image in images:
            _move(image.path, folder / image.name)
        left = project.stems()  # an image of the same stem keeps the caption
        for image in images:
            if image.path.stem not in left:
                _move(image.path.with_suffix(".txt"), folder / f"{image.path.stem}.txt")
        project.forget(images)
    except OSError as error:
        with suppress(OSError, UserError):
            restore(project, key)
        raise disk_error(error) from error
    return [image.name for image in images], key


def restore(project: Project, key: str) -> list[Image]:
    """Bring back what was removed under `key`; NotFound when it is gone for good.

    A name that was taken meanwhile gets a number. Of two who ask at once one
    gets it.
    """
    folder = _folder(project, key)
    if not re.fullmatch("[0-9a-f]{32}", key) or not folder.is_dir():
        raise NotFound("What was removed is gone for good by now.")
    restored = []
    try:
        with project.naming:
            for path in sorted(folder.iterdir()):
                if path.suffix.lower() in READABLE:
                    stored = project.place(path, path.stem, path.suffix)
                    caption = stored.with_suffix(".txt")
                    if not caption.exists():  # one that was written meanwhile stays
                        _move(path.with_suffix(".txt"), caption)
                    restored.append(project.image(stored.name))
    except FileNotFoundError:
        pass  # another one brings the rest back
    except OSError as error:
        raise disk_error(error) from error
    if not restored:
        raise NotFound("It is back already, or gone for good.")
    shutil.rmtree(folder, ignore_errors=True)
    return restored


def throw_away_file(project: Project, path: Path) -> str:
    """Move a LoRA file of the folder into the trash; returns the key that brings it back."""
    key = uuid.uuid4().hex
    folder = _folder(project, key)
    try:
        folder.mkdir(parents=True)
        path.replace(folder / path.name)
    except FileNotFoundError:
        folder.rmdir()
        raise NotFound("It is not there any more.") from None
    except OSError as error:
        raise disk_error(error) from error
    return key


def restore_file(project: Project, key: str) -> Path:
    """Bring a LoRA file back; NotFound when it is gone for good.

    Where another one has its name by now, it comes back beside it, as `<name>-restored`.
    """
    folder = _folder(project, key)
    found = folder.glob("*.safetensors") if re.fullmatch("[0-9a-f]{32}", key) else ()
    path = next(iter(found), None)
    if path is None:
        raise NotFound("What was removed is gone for good by now.")
    target, number = project.path / path.name, 1
    try:
        with project.naming:
            while target.exists():
                suffix = "-restored" if number == 1 else f"-restored-{number}"
                target, number = project.path / f"{path.stem}{suffix}.safetensors", number + 1
            path.replace(target)
    except FileNotFoundError:
        raise NotFound("It is back already.") from None
    except OSError as error:
        raise disk_error(error) from error
    shutil.rmtree(folder, ignore_errors=True)
    return target


def empty(home: Home, older_than_s: float = KEEP_S) -> None:
    """Delete for good what was removed longer ago, in every output folder."""
    for folder in home.output.glob("*/.musubitlx/trash/*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > older_than_s:
                shutil.rmtree(folder, ignore_errors=True)


def _folder(project: Project, key: str) -> Path:
    return project.hidden / "trash" / key


def _move(source: Path, target: Path) -> None:
    with suppress(FileNotFoundError):
        source.replace(target)
