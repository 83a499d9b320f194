"""Settings kept as YAML under configs/: the last ones, a draft for each folder, and named ones."""

from __future__ import annotations

import re
import stat
from contextlib import suppress
from pathlib import Path

from musubitlx import settings, yamls
from musubitlx.errors import Invalid, NotFound, disk_error
from musubitlx.home import Home, checked_name, name_problem, write_text

LAST = "last_config"
DRAFT = "draft-"
RESERVED = {"models", "imports", "notify"}  # files of configs/ that are not settings


def path_of(home: Home, name: str | None) -> Path:
    """Where the settings of that name lie; Invalid for a name that can't be used.

    `draft-<folder>` is the form as it stands for an output folder, kept apart
    from what people named.
    """
    if isinstance(name, str) and name.startswith(DRAFT):
        folder = checked_name(name[len(DRAFT) :], field="name", what="Draft")
        return home.configs / "drafts" / f"{folder}.yaml"
    name = checked_name(name or LAST, field="name", what="Configuration")
    if name.casefold() in RESERVED:
        raise Invalid("This name is taken. Choose another one.", field="name")
    return home.configs / f"{name}.yaml"


def new_name(name: object) -> str:
    """The name a person gives settings, as it is; Invalid where another file would be hit by it.

    `draft-…` and `last_config`, in whatever case, are the page's own, and so is no name at all.
    """
    name = checked_name(name, field="name", what="Configuration")
    if name.casefold() == LAST or name.casefold().startswith(DRAFT):
        raise Invalid(
            f"“{name}” can't be used: the page keeps its own settings under {LAST}, "
            f"and under names that begin with {DRAFT}.",
            field="name",
            hint="Choose another name.",
        )
    return name


def save(home: Home, name: str | None, given: object) -> Path:
    """Check the settings and write them whole; ManyInvalid writes nothing."""
    import yaml

    path = path_of(home, name)
    checked = settings.parse(given)
    text = yaml.safe_dump(checked, allow_unicode=True, sort_keys=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "# MusubiTLX training settings\n" + text)
    except OSError as error:
        raise disk_error(error, path) from error
    return path


def load(home: Home, name: str | None) -> tuple[settings.Settings, list[Invalid]]:
    """Read settings; what is unknown or wrong in the file is named, the rest counts.

    NotFound if there is no such file, Invalid if it is no YAML of names and values.
    """
    return settings.read(content(home, name))


def content(home: Home, name: str | None) -> dict:
    """What the file holds, unchecked and without defaults; raises like `load`."""
    path = path_of(home, name)
    try:
        given = yamls.read(path)
    except FileNotFoundError:
        raise NotFound(f"There is no saved configuration {path.name} yet.") from None
    except yamls.Unreadable as why:
        raise Invalid(f"{path.name} can't be loaded: {why}.") from why
    if not isinstance(given, dict):
        raise Invalid(f"{path.name} holds no settings: it must be lines of `name: value`.")
    return _without_path(given)


def _without_path(given: dict) -> dict:
    """The earlier tool could keep the output folder with its path: `output/my_lora`."""
    folder = given.get("output_dir")
    if isinstance(folder, str) and (found := re.fullmatch(r"(?:\./)?output/([^/]+)/?", folder)):
        return {**given, "output_dir": found[1]}
    return given


def names(home: Home) -> list[dict]:
    """The saved settings people gave a name, newest first: {name, modified}; the last ones and
    the drafts are not among them."""
    found = []
    for path in home.configs.glob("*.yaml"):
        name = path.stem.casefold()
        taken = name in RESERVED | {LAST} or name.startswith(DRAFT)
        if not taken and name_problem(path.stem) is None:
            with suppress(OSError):
                info = path.stat()
                if stat.S_ISREG(info.st_mode):
                    found.append({"name": path.stem, "modified": info.st_mtime})
    return sorted(found, key=lambda one: one["modified"], reverse=True)


def remove(home: Home, name: str | None) -> None:
    """Delete saved settings; NotFound if there are none of that name."""
    path = path_of(home, name)
    try:
        path.unlink()
    except FileNotFoundError:
        raise NotFound(f"There is no saved configuration {path.name} (any more).") from None
    except OSError as error:
        raise Invalid(f"{path} can't be deleted: {error.strerror}.", field="name") from error
