"""The inspector, `python -m musubitlx.inspector HOME FOLDER`: looks at every image of a folder.

A program of its own, so that decoding pictures neither holds up the web server
nor stays in its memory. From one decoding come the thumbnail, the perceptual
hash, the sharpness, and whether the file is whole.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

from musubitlx import looks, pictures
from musubitlx.bell import Ringer
from musubitlx.home import Home, digest_of, stamp_of
from musubitlx.lease import Lease
from musubitlx.looks import Look
from musubitlx.projects import Project

SIDE_PX = 1024  # what is looked at has at most this on its longer side
WRITE_S = 0.5
QUIET_S = 4.0
CORES = max(1, min(os.cpu_count() or 1, 8))
FIELDS = 4  # of the colour signature, in each direction
TILES = 6  # of the sharpness, along the longer side
GRAIN_PX, AGAIN_PX = 1.0, 3  # radius of the smoothing, and of the second blurring
EDGE_PIXELS = 60  # of a tile, the strongest ones
WEAK, STRONG = 5.0, 20.0  # steps between neighbours (0 to 255): never, and always an edge
GRAIN_TIMES = 6.0  # between those: so many times the usual step of its tile


def main(argv: list[str]) -> int:
    """Look at the folder's images until each has been; 0 also when another inspector does it."""
    project = Project(Home(argv[0]), argv[1])
    with suppress(OSError, AttributeError):
        os.nice(19)
    try:
        project.hidden.mkdir(exist_ok=True)
        lease = Lease(project.hidden / "inspector.lock")
        if lease.take():
            wait_for_quiet(project)
            while inspect(project):
                pass
    except FileNotFoundError:
        pass  # the folder was removed meanwhile
    return 0


def wait_for_quiet(project: Project) -> None:
    """Give an upload that is under way the processor, for a few seconds at most."""
    until = time.monotonic() + QUIET_S
    while time.monotonic() < until and any((project.hidden / "incoming").glob("*")):
        time.sleep(0.2)


def inspect(project: Project) -> bool:
    """Look at what has not been looked at; False if there was nothing."""
    ringer, known, written = Ringer(project.home), looks.fresh(project), 0.0
    found = False
    # From the end: the thumbnails of the first ones are being asked for and made anyway.
    for name, look in looked_at(project, looks.missing(project)[::-1]):
        known[name], found = look, True
        if time.monotonic() - written > WRITE_S:
            looks.write(project, known)
            ringer.ring()
            written = time.monotonic()
    if found:
        looks.write(project, known)
        ringer.ring()
    return found


def looked_at(project: Project, paths: list[Path]) -> Iterator[tuple[str, Look]]:
    """Look at images on every core, a few ahead; yields name and look as they are done."""
    waiting, running = iter(paths), set[Future]()
    with ThreadPoolExecutor(CORES) as pool:
        while True:
            for path in waiting:
                running.add(pool.submit(look_at, path, project.thumb_path(path.name)))
                if len(running) > CORES:
                    break
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for one in done:
                if result := one.result():
                    yield result


def look_at(path: Path, thumb: Path) -> tuple[str, Look] | None:
    """Look at one image; None if it is not there any more, or changes meanwhile."""
    stamp = stamp_of(path)
    if stamp is None:
        return None
    try:
        look = _measured(path, thumb, stamp)
    except FileNotFoundError:
        return None
    except MemoryError:
        return None  # it is not the picture's fault
    except OSError as error:
        why = error.strerror if error.errno else f"it is damaged ({pictures.told(error)})"
        look = Look(stamp, problem=why)
    except Exception as error:  # Pillow promises no kind
        look = Look(stamp, problem=f"it is damaged ({pictures.told(error)})")
    return (path.name, look) if stamp_of(path) == stamp else None


def _measured(path: Path, thumb: Path, stamp: tuple) -> Look:
    digest = digest_of(path)
    image, see_through = pictures.decoded(path, SIDE_PX)
    with suppress(OSError):  # the page asks for it again
        pictures.save_thumb(image, thumb)
    return Look(
        stamp,
        unfit=pictures.TRANSPARENT if see_through else None,
        phash=_phash(image),
        colours=_colours(image),
        blur=blur(image),
        digest=digest,
    )


def _phash(image) -> int:
    import imagehash

    return int(str(imagehash.phash(image)), 16)


def _colours(image) -> tuple[int, ...]:
    from PIL import Image

    small = image.resize((FIELDS, FIELDS), Image.Resampling.BOX).tobytes()
    mean = max(1.0, sum(small) / len(small))
    return tuple(round(128 * value / mean) for value in small)


# -- sharpness -------------------------------------------------------------------------------------


def blur(image) -> float | None:
    """How blurred a picture is at the size it is trained at: 0 (sharp) to 1.

    After the blur effect of Crete, Dolmiere, Ladret and Nicolas (2007): how much
    of the steps between neighbours is left when the picture is blurred once more.
    A sharp edge loses most of its step, a soft one next to nothing. It is taken
    at the strongest edges of tiles, after a little smoothing against grain, and
    the sharpest tile counts: a portrait before a soft background is sharp. None
    for a picture without edges. `health.BLURRY` has the figures.
    """
    import numpy as np
    from PIL import ImageFilter

    smooth = image.convert("L").filter(ImageFilter.GaussianBlur(GRAIN_PX))
    grey = np.asarray(smooth, dtype=np.float32)
    again = np.asarray(smooth.filter(ImageFilter.BoxBlur(AGAIN_PX)), dtype=np.float32)
    side = max(64, -(-max(grey.shape) // TILES))
    found = []
    for axis in (0, 1):
        steps, left = (np.abs(np.diff(one, axis=axis)) for one in (grey, again))
        for top in range(0, steps.shape[0], side):
            for at in range(0, steps.shape[1], side):
                tile = slice(top, top + side), slice(at, at + side)
                found.append(_left_of_edges(steps[tile], left[tile]))
    known = [value for value in found if value is not None]
    return round(min(known), 3) if known else None


def _left_of_edges(steps, left) -> float | None:
    """The share of a tile's strongest steps that another blurring leaves; None without edges.

    An edge stands out from the tile's usual steps, which are its grain; or it is
    strong by any measure.
    """
    import numpy as np

    if steps.size < EDGE_PIXELS * 8:
        return None
    places = (steps.size // 2, steps.size - EDGE_PIXELS)
    usual, strongest = np.partition(steps, places, axis=None)[list(places)]
    if strongest < min(STRONG, max(WEAK, GRAIN_TIMES * usual)):
        return None
    edges = steps >= strongest
    return min(1.0, float(left[edges].sum() / steps[edges].sum()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
