"""One picture file: what it is, whether it is whole, made fit for training, its thumbnail."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from musubitlx.errors import UserError
from musubitlx.home import replacing

THUMB_PX = 320
WHOLE_BYTES = 1 << 22
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
    """Size in pixels as stored, and in bytes."""

    width: int
    height: int
    bytes: int


_facts: dict[str, tuple[tuple, Facts | None]] = {}


def facts(path: Path) -> Facts | None:
    """Return the facts of a picture, None if Pillow can't tell them; read once per version."""
    info = path.stat()
    stamp = (info.st_size, info.st_mtime_ns, info.st_ino)
    known = _facts.get(str(path))
    if known is None or known[0] != stamp:
        known = _facts[str(path)] = (stamp, _read_facts(path, info.st_size))
    return known[1]


def _read_facts(path: Path, size: int) -> Facts | None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return Facts(image.width, image.height, size)
    except Exception:  # Pillow promises no kind: struct.error, KeyError and more were seen
        return None


def admit(path: Path, thumb: Path) -> str:
    """Verify an uploaded picture by decoding it, make it fit for Musubi, write its thumbnail.

    Returns the suffix it must be stored under. The file is rewritten only if it
    must be: rotated by EXIF (Musubi ignores it), transparent (Musubi drops the
    alpha channel without blending), or in a format Musubi can't read; then
    JPEG stays JPEG at quality 98, all else becomes PNG. Raises NotAPicture.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            suffix = _suffix_as_is(image)
            if suffix:
                image.draft("RGB", (THUMB_PX, THUMB_PX))  # decodes all, scales in passing
                image.decodermaxblock = WHOLE_BYTES  # in one go: half the time of Pillow's 64 KiB
                image.load()
            else:
                upright = ImageOps.exif_transpose(image)
                is_jpeg = image.format in ("JPEG", "MPO")
                image_format, suffix = ("JPEG", ".jpg") if is_jpeg else ("PNG", ".png")
                image = _flattened(upright)
                with replacing(path) as file:
                    image.save(file, image_format, quality=98, subsampling=0, compress_level=3)
            _save_thumb(image, thumb)
            return suffix
    except UnidentifiedImageError:
        raise NotAPicture("it is not an image, or of a kind that can't be read") from None
    except Image.DecompressionBombError:  # Pillow's limit: about 179 million
        raise NotAPicture("it has too many pixels") from None
    except Exception as error:  # Pillow promises no kind: struct.error, KeyError and more were seen
        if isinstance(error, OSError) and error.errno:
            raise  # the disk, not the picture
        told = " ".join(str(error).split())[:80] or type(error).__name__
        raise NotAPicture(f"it is damaged ({told})") from error


def _suffix_as_is(image) -> str | None:
    """The suffix of a picture that Musubi reads rightly as it is, else None."""
    if image.format not in SUFFIXES or getattr(image, "n_frames", 1) > 1:
        return None
    if image.getexif().get(ORIENTATION, UPRIGHT) not in (0, UPRIGHT):
        return None
    if "A" in image.getbands() or "transparency" in image.info or image.mode not in PLAIN_MODES:
        return None
    return SUFFIXES[image.format][0]


PLAIN_MODES = ("RGB", "L", "P", "1", "CMYK", "YCbCr")


def _flattened(image):
    """RGB; what is transparent becomes white."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits: convert() would cut off, not scale
        image = image.convert("I").point(lambda value: value / 257).convert("L")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def make_thumb(path: Path, thumb: Path) -> Path:
    """Return the thumbnail of a picture, made anew if the picture is newer; NotAPicture."""
    from PIL import Image, ImageOps

    try:
        if thumb.stat().st_mtime_ns >= path.stat().st_mtime_ns:
            return thumb
    except FileNotFoundError:
        pass
    try:
        with Image.open(path) as image:
            image.draft("RGB", (THUMB_PX, THUMB_PX))
            _save_thumb(_flattened(ImageOps.exif_transpose(image)), thumb)
    except Exception as error:  # as in admit()
        if isinstance(error, OSError) and error.errno:
            raise
        raise NotAPicture("The picture can't be read.") from error
    return thumb


def _save_thumb(image, thumb: Path) -> None:
    """Write a JPEG of at most `THUMB_PX` on its longer side."""
    small = image if image.mode == "RGB" else image.convert("RGB")
    small.thumbnail((THUMB_PX, THUMB_PX))
    thumb.parent.mkdir(parents=True, exist_ok=True)
    with replacing(thumb, durable=False) as file:
        small.save(file, "JPEG", quality=82)
