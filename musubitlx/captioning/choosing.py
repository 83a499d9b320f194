"""Which images of a folder a run is about."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from musubitlx import captions
from musubitlx.captioners import Wish
from musubitlx.errors import UserError
from musubitlx.projects import Project

GONE = "it is not there any more"
CHANGED = "its caption was changed meanwhile, that text stays"
NOT_WHOLE = "its caption file can't be read as a caption, it stays as it is"


@dataclass
class Choice:
    """The images to caption, in their natural order; `kept` have a caption that stays.

    `tags` says which caption each of the images had: only that one may be replaced.
    `passed` are names with the reason why they can't be captioned.
    """

    images: list[Path] = field(default_factory=list)
    tags: dict[Path, str] = field(default_factory=dict)
    kept: int = 0
    passed: list[tuple[str, str]] = field(default_factory=list)


def choose(project: Project, wish: Wish) -> Choice:
    """Look which images are meant; UserError if the folder has none."""
    there = project.image_paths()
    if not there:
        raise UserError(f"There are no images in {project.name}.", hint="Upload some first.")
    choice, owners = Choice(), {}
    if wish.names is not None:
        known = {path.name for path in there}
        choice.passed = [(name, GONE) for name in wish.names if name not in known]
        there = [path for path in there if path.name in set(wish.names)]
    for path in there:
        file = path.with_suffix(".txt")
        text, stem = captions.read(file), path.stem.casefold()  # some disks know one case only
        if text and stays(wish):
            choice.kept += wish.which != "empty"  # there, nobody asked for it
        elif not (wish.trial or captions.is_whole(file)):
            choice.passed.append((path.name, NOT_WHOLE))
        elif owner := owners.get(stem):
            choice.passed.append((path.name, f"it shares its caption file with {owner}"))
        else:
            owners[stem] = path.name
            choice.images.append(path)
            choice.tags[path] = captions.tag(text)
    return choice


def stays(wish: Wish) -> bool:
    """Whether a caption that is there is left as it is."""
    return not wish.trial and (wish.which == "empty" or wish.mode == "keep")
