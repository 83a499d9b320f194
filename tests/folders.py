"""Output folders for tests: files put into them the way uploads come, and what is in them."""

from __future__ import annotations

from pathlib import Path

from support import picture

from musubitlx import projects, uploads
from musubitlx.projects import Project
from musubitlx.uploads import Taken, Upload

JPEG = picture(1, (64, 48))
PNG = picture(2, (48, 64), "PNG")


def put(project: Project, name: str, data: bytes = JPEG) -> projects.Image | dict:
    """One upload, as the server takes it in."""
    received = uploads.incoming(project)
    received.write_bytes(data)
    return uploads.admit(project, received, name)


def put_all(project: Project, *files: tuple[str, bytes]) -> Taken:
    """Several uploads of one request."""
    received = []
    for name, data in files:
        path = uploads.incoming(project)
        path.write_bytes(data)
        received.append(Upload(path, name))
    return uploads.admit_all(project, received)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but what can be made again."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".musubitlx" not in path.parts
    }


def scraps(project: Project) -> list[Path]:
    """What uploads left half received."""
    return [*(project.hidden / "incoming").iterdir()]
