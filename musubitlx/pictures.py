"""One picture file: what it is, whether it is whole, made fit for training, its thumbnail."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from mmap import ACCESS_READ, mmap
from pathlib import Path

from musubitlx.errors import UserError
from musubitlx.home import replacing

THUMB_PX = 320
FORMATS = (
    *("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF", "JPEG2000"),
    *("TGA", "PPM", "ICO"),
)
LARGE_PX = 40_000_000  # one picture of more pixels is in memory at a time
MOST_PX = 120_000_000  # that a picture may have which has to be written anew
WHOLE_BYTES = 1 << 22
OPAQUE = 250  # of 255: what is less lets something through
SMALLEST_PX = 16  # a bucket's step; below that nothing is to be seen
SUFFIXES = {"PNG": (".png",), "JPEG": (".jpg", ".jpeg"), "WEBP": (".webp",), "BMP": (".bmp",)}
READABLE = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
UPRIGHT = 1  # the EXIF orientation of a picture that is stored as it is seen
ORIENTATION = 0x0112

# What a picture may be called on its way in: what can't be trained on as it is gets converted.
NAMED = (
    *READABLE,
    *(".jpe", ".jfif", ".mpo", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif"),
    *(".jp2", ".tga", ".ppm", ".pgm"),
)
MAX_FILE_BYTES = 500_000_000  # nothing bigger is a picture
MAX_TEXT_BYTES = 40_000  # nothing bigger is a caption


class NotAPicture(UserError):
    """The file can't be used as a training image; the text says why."""

    http_status = 422


@dataclass(frozen=True)
class Facts:
    """Size in pixels as stored, and in bytes; `unfit` says what the trainer would get wrong."""

    width: int
    height: int
    bytes: int
    unfit: str | None = None


MOST_FACTS = 20_000  # some MB
_facts: dict[str, tuple[tuple, Facts | None]] = {}


def facts(path: Path) -> Facts | None:
    """Return the facts of a picture, None if Pillow can't tell them; read once per version."""
    info = path.stat()
    stamp = (info.st_size, info.st_mtime_ns, info.st_ino)
    known = _facts.get(str(path))
    if known is None or known[0] != stamp:
        if len(_facts) > MOST_FACTS:
            _facts.clear()
        known = _facts[str(path)] = (stamp, _read_facts(path, info.st_size))
    return known[1]


def _read_facts(path: Path, size: int) -> Facts | None:
    from PIL import Image

    try:
        with Image.open(path, formats=_formats()) as image:
            return Facts(image.width, image.height, size, _misread(image))
    except Exception:  # Pillow promises no kind: struct.error, KeyError and more were seen
        return None


@dataclass(frozen=True)
class Admitted:
    """A picture that can be trained on: the suffix it must be stored under, its size in px."""

    suffix: str
    width: int
    height: int


def admit(path: Path, fresh: Path) -> Admitted:
    """Look whether a file is a whole picture, and make it fit for Musubi where it is not.

    What Musubi reads rightly stays as it is: that it is all there is told from
    its structure, in a millisecond; its pixels are decoded by the inspector a
    moment later. What Musubi would read wrongly or not at all is decoded here
    and written to `fresh`: turned by EXIF (Musubi ignores it), transparent
    (Musubi drops the alpha channel without blending), or in another format;
    JPEG stays JPEG at quality 98, all else becomes PNG. Raises NotAPicture.
    """
    from PIL import Image

    try:
        with _opened(path) as image:
            _refuse_sizes(image)
            suffix = _suffix_as_is(image)
            if suffix:
                _refuse_cut(image, path)
                return Admitted(suffix, *image.size)
            with _alone(image):
                return _rewrite(image, fresh)
    except Image.UnidentifiedImageError:
        raise NotAPicture(_what_it_is(path)) from None
    except Image.DecompressionBombError:  # Pillow's limit: about 179 million
        raise NotAPicture("it has too many pixels") from None
    except Exception as error:  # Pillow promises no kind: struct.error, KeyError and more were seen
        if isinstance(error, UserError) or (isinstance(error, OSError) and error.errno):
            raise  # the disk, not the picture
        raise NotAPicture(f"it is damaged ({told(error)})") from error


def told(error: Exception) -> str:
    """What Pillow said of a picture it can't read, in one short line."""
    return " ".join(str(error).split())[:80] or type(error).__name__


def _opened(path: Path):
    """The picture behind a path, its head read; phone photos (HEIC) where the plug-in is there."""
    from PIL import Image

    with path.open("rb") as file:
        head = file.read(16)
    if head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS:
        with suppress(ImportError):
            import pillow_heif

            pillow_heif.register_heif_opener()
            return Image.open(path)
    return Image.open(path, formats=_formats())


@cache
def _formats() -> list[str]:
    """What is opened at all: some of Pillow's other kinds start programs, or are no pictures."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _refuse_sizes(image) -> None:
    if min(image.size) < SMALLEST_PX:
        size = f"{image.width}x{image.height}"
        raise NotAPicture(f"it has {size} pixels only, that is too small to train on")


def _rewrite(image, fresh: Path) -> Admitted:
    from PIL import ImageOps

    if image.width * image.height > MOST_PX:
        raise NotAPicture(
            f"it has more than {MOST_PX // 1_000_000} million pixels, too many to convert it"
        )
    is_jpeg = _kind(image) == "JPEG"
    image_format, suffix = ("JPEG", ".jpg") if is_jpeg else ("PNG", ".png")
    how = {"quality": 98, "subsampling": 0} if is_jpeg else {"compress_level": 3}
    if image.mode in ("RGB", "RGBA") and (profile := image.info.get("icc_profile")):
        how["icc_profile"] = profile
    plain = _flattened(ImageOps.exif_transpose(image))
    with replacing(fresh, durable=False) as file:
        plain.save(file, image_format, **how)
    return Admitted(suffix, *plain.size)


# -- whole or cut off ------------------------------------------------------------------------------


def _refuse_cut(image, path: Path) -> None:
    """Raise NotAPicture for a file that ends too early; its pixels are not decoded.

    Source of the marks: the formats' own specifications. A JPEG ends with the
    marker EOI, each chunk of a PNG has a checksum, a WebP says its length first.
    """
    if _kind(image) == "JPEG":
        whole = _jpeg_ends(path)
    elif image.format == "PNG":
        whole = image.verify() is None  # raises on the first chunk that is not right
    elif image.format == "WEBP":
        whole = _webp_ends(path)
    else:
        whole = image.load() is not None
    if not whole:
        raise NotAPicture("it is damaged (the end of the file is missing)")


def _jpeg_ends(path: Path) -> bool:
    """Whether the pixel data of a JPEG are followed by its end marker."""
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        begin = _jpeg_pixels(data)
        return begin is not None and data.rfind(b"\xff\xd9", begin) >= 0


def _jpeg_pixels(data) -> int | None:
    """Where the first scan of a JPEG begins (bytes); None if no scan follows its segments."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker == START_OF_SCAN:
            return at
        bare = marker == 0x01 or 0xD0 <= marker <= 0xD8
        at += 2 if bare else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _webp_ends(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(8)
        return int.from_bytes(head[4:8], "little") + 8 <= file.seek(0, 2)


def _what_it_is(path: Path) -> str:
    """Say of a file that is no picture what it seems to be instead, and what helps."""
    with path.open("rb") as file:
        head = file.read(1024)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "it is empty (0 bytes)"
    if head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS:
        return "HEIC photos can't be read here: pip install pillow-heif, or save it as JPEG"
    if head[4:8] == b"ftyp" or head[:4] == b"\x1aE\xdf\xa3":
        return "it is a video, not an image"
    if text.startswith((b"<!doctype html", b"<html")):
        return "it is a web page, not an image"
    if b"<svg" in text:
        return "it is an SVG drawing: export it as PNG first"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer: fetch the file itself first"
    return "it is not an image, or of a kind that can't be read"


HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
START_OF_SCAN = 0xDA


# -- what Musubi would misread ---------------------------------------------------------------------


def _suffix_as_is(image) -> str | None:
    """The suffix of a picture that Musubi reads rightly as it is, else None."""
    kind = _kind(image)
    if kind not in SUFFIXES or "A" in image.getbands() or _misread(image):
        return None
    return SUFFIXES[kind][0]


def _kind(image) -> str:
    """The format; a phone's JPEG with a depth map or a second view behind it is still a JPEG."""
    return "JPEG" if image.format == "MPO" else image.format


def _misread(image) -> str | None:
    """What Musubi would get wrong about a picture it can read, as a sentence without a dot.

    Told from the head alone. An alpha channel that is opaque everywhere does no
    harm; whether it is shows only in the pixels.
    """
    if image.format in ("PNG", "WEBP") and getattr(image, "n_frames", 1) > 1:
        return "It has several frames, and only the first would be trained on"
    if _orientation(image) not in (0, UPRIGHT):
        return "It is stored turned, and the trainer would see it lying on its side"
    if "transparency" in image.info:
        return TRANSPARENT
    if image.mode not in (*PLAIN_MODES, "RGBA", "LA", "PA"):
        return f"Its kind of pixels ({image.mode}) would be trained on wrongly"
    return None


def _orientation(image) -> int:
    """The EXIF orientation, 1 to 8; upright where the EXIF makes no sense.

    Of a PNG, getexif() would decode all of it to look.
    """
    from PIL import Image

    try:
        if image.format != "PNG":
            return image.getexif().get(ORIENTATION, UPRIGHT)
        exif = Image.Exif()
        exif.load(image.info.get("exif", b""))
        return exif.get(ORIENTATION, UPRIGHT)
    except Exception:  # struct.error, SyntaxError, KeyError and more were seen
        return UPRIGHT


@contextmanager
def _alone(image) -> Iterator[None]:
    """Wait until no other large picture is in memory, if this is one."""
    if image.width * image.height <= LARGE_PX:
        yield
        return
    with _large:
        yield


_large = threading.Lock()


TRANSPARENT = "It is transparent, and what is behind would be trained on as it happens to be"
PLAIN_MODES = ("RGB", "L", "P", "1", "CMYK", "YCbCr")


def _flattened(image):
    """RGB; what is transparent becomes white."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits: convert() would cut off, not scale
        image = image.convert("I").point(lambda value: value / 257).convert("L")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image.convert("RGB")


def decoded(path: Path, side: int):
    """Decode a picture to its end: (RGB with at most `side` px on its longer side, see-through).

    Raises whatever Pillow does for a file that is damaged. A JPEG is scaled while
    it is read, as far as its format allows.
    """
    from PIL import Image, ImageOps

    with _opened(path) as image, _alone(image):
        shrink = side / max(image.size)
        image.draft("RGB", tuple(max(1, int(length * shrink)) for length in image.size))
        image.decodermaxblock = WHOLE_BYTES  # in one go: half the time of Pillow's 64 KiB
        image.load()
        through = "A" in image.getbands() and image.getchannel("A").getextrema()[0] < OPAQUE
        small = image if image.mode in ("RGB", "RGBA", "L") else _flattened(image)
        small.thumbnail((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
        return _flattened(ImageOps.exif_transpose(small)), through


def make_thumb(path: Path, thumb: Path) -> Path:
    """Return the thumbnail of a picture, made anew if the picture is newer; NotAPicture."""
    try:
        if thumb.stat().st_mtime_ns >= path.stat().st_mtime_ns:
            return thumb
    except FileNotFoundError:
        pass
    try:
        save_thumb(decoded(path, THUMB_PX)[0], thumb)
    except Exception as error:  # as in admit()
        if isinstance(error, OSError) and error.errno:
            raise
        raise NotAPicture("The picture can't be read.") from error
    return thumb


def save_thumb(image, thumb: Path) -> None:
    """Write a JPEG of at most `THUMB_PX` on its longer side."""
    small = image.copy() if image.mode == "RGB" else image.convert("RGB")
    small.thumbnail((THUMB_PX, THUMB_PX), reducing_gap=2.0)
    thumb.parent.mkdir(parents=True, exist_ok=True)
    with replacing(thumb, durable=False) as file:
        small.save(file, "JPEG", quality=82)
