"""Uploaded pictures: read, made fit for training, or refused with the reason."""

from __future__ import annotations

import io
import os
import random
import struct
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image
from support import picture

from musubitlx import pictures
from musubitlx.pictures import NotAPicture, admit, facts, make_thumb

RED, BLUE = (220, 30, 30), (30, 30, 220)


def halves(size=(40, 20), mode="RGB") -> Image.Image:
    """A picture whose left half is red and whose right half is blue."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image.convert(mode)


def saved(image: Image.Image, kind: str, **more) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def take(tmp_path: Path, data: bytes) -> tuple[Image.Image, str, bytes]:
    """What is stored of an upload: the picture, its suffix, the file."""
    path, fresh = tmp_path / "x.part", tmp_path / "x.fit"
    path.write_bytes(data)
    admitted = admit(path, fresh)
    assert path.read_bytes() == data
    if fresh.exists():
        fresh.replace(path)
    assert [one.name for one in tmp_path.iterdir()] == ["x.part"]
    assert facts(path).unfit is None
    with Image.open(path) as stored:
        stored.load()
        assert stored.size == (admitted.width, admitted.height)
        return stored.copy(), admitted.suffix, path.read_bytes()


def near(colour, wanted, far=40) -> bool:
    return all(abs(a - b) < far for a, b in zip(colour, wanted, strict=True))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png(side: int) -> bytes:
    """A PNG of a few hundred bytes that says it is side x side pixels."""
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(b"\0" * 100)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("kind", "mode", "suffix"),
    [
        ("JPEG", "RGB", ".jpg"),
        ("JPEG", "L", ".jpg"),
        ("JPEG", "CMYK", ".jpg"),
        ("PNG", "RGB", ".png"),
        ("PNG", "L", ".png"),
        ("PNG", "P", ".png"),
        ("PNG", "1", ".png"),
        ("WEBP", "RGB", ".webp"),
        ("BMP", "RGB", ".bmp"),
    ],
)
def test_what_musubi_reads_rightly_is_stored_byte_for_byte(tmp_path, kind, mode, suffix):
    data = saved(halves(mode=mode), kind)
    _, stored_suffix, stored = take(tmp_path, data)
    assert (stored_suffix, stored) == (suffix, data)


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize(("kind", "suffix"), [("JPEG", ".jpg"), ("PNG", ".png"), ("WEBP", ".webp")])
def test_a_rotation_in_exif_is_applied(tmp_path, kind, suffix, orientation):
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = orientation
    data = saved(halves(), kind, exif=exif)
    image, stored_suffix, stored = take(tmp_path, data)
    assert stored != data
    assert image.size == ((20, 40) if orientation >= 5 else (40, 20))
    assert image.getexif().get(pictures.ORIENTATION, 1) == 1
    red = {2: "right", 3: "right", 4: "left", 5: "top", 6: "top", 7: "bottom", 8: "bottom"}
    width, height = image.size
    corner = {"left": (3, height // 2), "right": (width - 4, height // 2)}
    corner |= {"top": (width // 2, 3), "bottom": (width // 2, height - 4)}
    assert near(image.convert("RGB").getpixel(corner[red[orientation]]), RED)
    assert stored_suffix == (".jpg" if kind == "JPEG" else ".png")


def test_an_exif_that_says_upright_is_left_alone(tmp_path):
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = 1
    data = saved(halves(), "JPEG", exif=exif)
    assert take(tmp_path, data)[2] == data


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_what_is_transparent_becomes_white(tmp_path, kind):
    image = halves(mode="RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 20, 20))
    stored, suffix, _ = take(tmp_path, saved(image, kind))
    assert (stored.mode, suffix) == ("RGB", ".png")
    assert near(stored.getpixel((5, 10)), (255, 255, 255))
    assert near(stored.getpixel((35, 10)), BLUE)


def test_half_transparent_colours_are_blended(tmp_path):
    image = Image.new("RGBA", (20, 20), (0, 0, 0, 128))
    stored, _, _ = take(tmp_path, saved(image, "PNG"))
    assert near(stored.getpixel((5, 5)), (127, 127, 127), 3)


@pytest.mark.parametrize("mode", ["LA", "PA", "P"])
def test_transparency_of_other_kinds_is_found(tmp_path, mode):
    if mode == "P":
        image = Image.new("P", (20, 20), 0)
        image.putpalette([0, 0, 0, 9, 9, 9])
        data = saved(image, "PNG", transparency=0)
    elif mode == "PA":
        data = saved(Image.new("RGBA", (20, 20), (0, 0, 0, 0)).convert("PA"), "TIFF")
    else:
        data = saved(Image.new("LA", (20, 20), (0, 0)), "PNG")
    stored, _, _ = take(tmp_path, data)
    assert near(stored.getpixel((5, 5)), (255, 255, 255))


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PPM", "TGA", "ICO", "JPEG2000", "AVIF"])
def test_what_musubi_cannot_read_becomes_png(tmp_path, kind):
    try:
        data = saved(halves((64, 64)), kind)
    except (OSError, KeyError):
        pytest.skip(f"this Pillow writes no {kind}")
    stored, suffix, _ = take(tmp_path, data)
    assert (stored.format, stored.mode, suffix) == (None, "RGB", ".png")
    assert near(stored.getpixel((10, 32)), RED)
    assert near(stored.getpixel((54, 32)), BLUE)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path, kind):
    first, second = Image.new("RGB", (30, 30), RED), Image.new("RGB", (30, 30), BLUE)
    data = saved(first, kind, save_all=True, append_images=[second])
    stored, suffix, _ = take(tmp_path, data)
    assert (getattr(stored, "n_frames", 1), suffix) == (1, ".png")
    assert near(stored.getpixel((5, 5)), RED)


def test_a_phone_photo_with_a_second_view_behind_it_is_taken_as_it_is(tmp_path):
    data = saved(halves(), "MPO", save_all=True, append_images=[halves()])
    stored, suffix, file = take(tmp_path, data)
    assert (suffix, file) == (".jpg", data)
    assert near(stored.getpixel((5, 10)), RED)


def test_a_phone_photo_in_heic_is_taken_where_the_plug_in_is(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    file = io.BytesIO()
    heif.from_pillow(halves((64, 64))).save(file, quality=95)
    stored, suffix, _ = take(tmp_path, file.getvalue())
    assert (stored.mode, suffix) == ("RGB", ".png")
    assert near(stored.getpixel((10, 32)), RED)
    assert near(stored.getpixel((54, 32)), BLUE)


def test_without_the_plug_in_heic_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(Image, "EXTENSION", {})
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    path = tmp_path / "x.part"
    path.write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 200)
    with pytest.raises(NotAPicture, match="pip install pillow-heif"):
        admit(path, tmp_path / "x.fit")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_a_file_that_ends_too_early_is_refused_wherever_it_was_cut(tmp_path, kind):
    whole = picture(3, (160, 120), kind)
    path = tmp_path / "x.part"
    for share in (0.02, 0.1, 0.3, 0.5, 0.8, 0.95, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(NotAPicture):
            admit(path, tmp_path / "x.fit")
    path.write_bytes(whole)
    assert admit(path, tmp_path / "x.fit")


def test_the_end_of_a_thumbnail_inside_is_not_taken_for_the_end(tmp_path):
    exif = Image.Exif()
    exif[0x9286] = b"\xff\xd9" * 20  # an end mark in a comment, as small previews inside have it
    whole = saved(halves((400, 300)), "JPEG", exif=exif)
    assert whole.count(b"\xff\xd9") > 10
    path = tmp_path / "x.part"
    path.write_bytes(whole[:-200])
    with pytest.raises(NotAPicture, match="end of the file"):
        admit(path, tmp_path / "x.fit")


def test_what_was_put_behind_a_jpeg_does_no_harm(tmp_path):
    data = picture(1, (64, 64)) + b"a short film" * 100
    assert take(tmp_path, data)[2] == data


def test_what_is_looked_at_is_not_decoded(tmp_path, monkeypatch):
    def decoded(*_):
        raise AssertionError("decoded")

    path = tmp_path / "x.part"
    for kind in ("JPEG", "PNG", "WEBP"):
        path.write_bytes(picture(1, (64, 64), kind))
        with monkeypatch.context() as patch:
            patch.setattr(Image.Image, "load", decoded)
            patch.setattr("PIL.ImageFile.ImageFile.load", decoded)
            assert admit(path, tmp_path / "x.fit").width == 64
            assert facts(path).width == 64


@pytest.mark.parametrize("size", [(15, 200), (200, 15), (1, 1)])
def test_what_is_smaller_than_a_bucket_s_step_is_refused(tmp_path, size):
    path = tmp_path / "x.part"
    path.write_bytes(saved(Image.new("RGB", size), "PNG"))
    with pytest.raises(NotAPicture, match="too small"):
        admit(path, tmp_path / "x.fit")


EXIF_TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
UNFIT = {
    "turned": saved(halves(), "JPEG", exif=EXIF_TURNED),
    "transparent": saved(halves(mode="P"), "PNG", transparency=0),
    "frames": saved(halves(), "WEBP", save_all=True, append_images=[halves((40, 20)).rotate(180)]),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_the_trainer_would_get_wrong_is_a_fact_of_the_picture(tmp_path, name):
    path = tmp_path / "x.png"
    path.write_bytes(UNFIT[name])
    word = {"turned": "lying on its side", "transparent": "transparent", "frames": "frames"}[name]
    assert word in facts(path).unfit
    path.write_bytes(saved(halves(mode="RGBA"), "PNG"))  # whether it is opaque only the pixels say
    assert facts(path).unfit is None


@pytest.mark.parametrize(
    ("kind", "mode", "order"), [("PNG", "I;16", "<"), ("TIFF", "I;16", "<"), ("TIFF", "I;16B", ">")]
)
def test_16_bits_are_scaled_and_not_cut_off(tmp_path, kind, mode, order):
    raw = struct.pack(order + "400H", *([0, 32768] * 100 + [65535, 1000] * 100))
    image = Image.frombytes(mode, (20, 20), raw)
    stored, suffix, _ = take(tmp_path, saved(image, kind))
    assert (stored.mode, suffix) == ("RGB", ".png")
    assert near(stored.getpixel((0, 0)), (0, 0, 0), 3)
    assert near(stored.getpixel((1, 0)), (128, 128, 128), 3)
    assert near(stored.getpixel((0, 19)), (255, 255, 255), 3)


BAD = {
    "nothing": b"",
    "text": b"hello",
    "svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script/></svg>',
    "html": b"<!doctype html><html><script>alert(1)</script></html>",
    "png cut": picture(1, (64, 64), "PNG")[:-900],
    "png head": picture(1, (64, 64), "PNG")[:20],
    "jpeg cut": picture(1, (64, 64))[:900],
    "jpeg half": picture(1, (640, 640))[:-9000],
    "jpeg head": b"\xff\xd8\xff\xe0",
    "webp cut": picture(1, (64, 64), "WEBP")[:-100],
    "gif cut": saved(halves(), "GIF")[:30],
    "bomb": huge_png(40_000),
    "big": huge_png(14_000),
    "zip": b"PK\x03\x04" + b"\0" * 100,
    "nulls": b"\0" * 5000,
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_no_whole_picture_is_refused_in_words(tmp_path, name):
    path = tmp_path / "x.part"
    path.write_bytes(BAD[name])
    with pytest.raises(NotAPicture) as told:
        admit(path, tmp_path / "x.fit")
    assert len(str(told.value)) > 10
    assert "\n" not in str(told.value)
    assert path.read_bytes() == BAD[name]
    assert [*tmp_path.iterdir()] == [path]
    with pytest.raises(NotAPicture):
        make_thumb(path, tmp_path / "t.jpg")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_for_its_size(tmp_path):
    path = tmp_path / "x.part"
    for side in (40_000, 14_000):
        path.write_bytes(huge_png(side))
        with pytest.raises(NotAPicture, match="pixels"):
            admit(path, tmp_path / "t.jpg")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_file_damaged_anywhere_is_taken_or_told(tmp_path, kind):
    rng, good = random.Random(kind), saved(halves((48, 32)), kind)
    for _ in range(150):
        data = bytearray(good)
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(min(len(data), 400))] = rng.randrange(256)
        path = tmp_path / "x.part"
        path.write_bytes(data)
        facts(path)
        try:
            admit(path, tmp_path / "x.fit")
        except NotAPicture:
            continue
        assert facts(path).width > 0


def test_a_disk_that_cannot_be_written_is_not_the_picture_s_fault(tmp_path):
    path = tmp_path / "x.part"
    path.write_bytes(saved(halves(), "GIF"))
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        admit(path, tmp_path / "file" / "t.jpg")
    with pytest.raises(OSError):
        make_thumb(path, tmp_path / "file" / "t.jpg")


def test_facts_are_of_the_picture_as_it_is_now(tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(picture(1, (64, 48)))
    first = facts(path)
    assert (first.width, first.height, first.bytes) == (64, 48, path.stat().st_size)
    path.write_bytes(picture(1, (32, 16)))
    assert (facts(path).width, facts(path).height) == (32, 16)
    path.write_bytes(b"no more")
    assert facts(path) is None
    path.unlink()
    with pytest.raises(FileNotFoundError):
        facts(path)


def test_a_thumbnail_is_small_upright_and_made_once(tmp_path):
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = 6
    path, thumb = tmp_path / "x.jpg", tmp_path / "t" / "x.jpg"
    path.write_bytes(saved(halves((1200, 600)), "JPEG", exif=exif))
    with Image.open(make_thumb(path, thumb)) as small:
        assert small.size == (160, 320)
    written = thumb.stat()
    assert make_thumb(path, thumb).stat().st_ino == written.st_ino
    later = written.st_mtime_ns + 1_000_000_000
    path.write_bytes(picture(2, (100, 50)))
    os.utime(path, ns=(later, later))
    with Image.open(make_thumb(path, thumb)) as small:
        assert small.size == (100, 50)


def test_an_exif_that_makes_no_sense_is_no_reason_to_refuse(tmp_path):
    for kind in ("JPEG", "PNG", "WEBP"):
        data = saved(halves(), kind, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\xff")
        assert take(tmp_path, data)[2] == data, kind


def test_a_long_narrow_picture_is_decoded_like_any_other(tmp_path):
    path = tmp_path / "x.jpg"
    for size in ((20_000, 16), (16, 9000)):
        path.write_bytes(saved(Image.new("RGB", size, RED), "JPEG"))
        assert admit(path, tmp_path / "x.fit").width == size[0]
        assert pictures.decoded(path, 1024)[0].width > 0
        assert make_thumb(path, tmp_path / f"{size[0]}.jpg").is_file()


def test_what_starts_other_programs_is_not_even_opened(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n")
    with pytest.raises(NotAPicture, match="not an image"):
        admit(path, tmp_path / "x.fit")
    assert facts(path) is None


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_too_large_to_be_converted_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(saved(Image.new("1", (12_000, 12_000)), "TIFF", compression="group4"))
    with pytest.raises(NotAPicture, match="120 million"):
        admit(path, tmp_path / "x.fit")
