"""Archives: what is usable comes out once, all else has a reason, nothing else is written."""

from __future__ import annotations

import bz2
import errno
import io
import os
import stat
import struct
import tempfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from inputs import patient
from support import picture

from musubitlx import archives
from musubitlx.archives import MAX_MEMBERS, RESERVE_BYTES, Unpacked
from musubitlx.errors import DiskFull, Invalid, UserError

JPEG = picture(1, (64, 48))
PLENTY = 10**12  # bytes free
ENTRY, LOCAL = b"PK\x01\x02", b"PK\x03\x04"
DAMAGED = "it is damaged or cut off"


class Desk:
    """A folder with an archive and one for what comes out of it."""

    def __init__(self, folder: Path):
        self.archive, self.out = folder / "sent.part", folder / "in" / "out"
        self.out.mkdir(parents=True)
        self.asked = 0

    def fresh(self) -> Path:
        self.asked += 1
        return self.out / f"{self.asked:05}.part"

    def unpack(self, data: bytes, free: int = PLENTY) -> Unpacked:
        self.archive.write_bytes(data)
        return archives.unpack(self.archive, self.fresh, free=free)

    def left(self) -> set[Path]:
        """Every file there is, the archive aside."""
        found = (path for path in self.archive.parent.rglob("*") if path.is_file())
        return {path for path in found if path != self.archive}


@pytest.fixture
def desk(tmp_path) -> Desk:
    return Desk(tmp_path / "desk")


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes], method=zipfile.ZIP_DEFLATED) -> bytes:
    """An archive of (name, data)."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as bundle:
        for name, data in members:
            bundle.writestr(name, data, compress_type=method)
    return target.getvalue()


def patched(data: bytes, mark: bytes, offset: int, layout: str, value: int, nth: int = 0) -> bytes:
    """An archive with one field of its nth header of a kind replaced."""
    at = -1
    for _ in range(nth + 1):
        at = data.index(mark, at + 1)
    changed = bytearray(data)
    struct.pack_into(layout, changed, at + offset, value)
    return bytes(changed)


def declaring(data: bytes, size: int, nth: int = 0) -> bytes:
    """An archive whose list says another unpacked size."""
    return patched(data, ENTRY, 24, "<I", size, nth)


def reasons(result: Unpacked) -> dict[str, str]:
    return {row["name"]: row["reason"] for row in result.rejected}


# -- what comes out --------------------------------------------------------------------------------


def test_images_and_captions_come_out_byte_for_byte_with_their_names(desk):
    members = [("a.jpg", JPEG), ("deep/er/b.PNG", b"png"), ("a.txt", "ein Füchs".encode())]
    result = desk.unpack(zipped(*members))
    assert [(name, path.read_bytes()) for path, name in result.files] == members
    assert result.rejected == []
    assert desk.left() == {path for path, _ in result.files}


def test_the_same_file_name_in_two_folders_comes_out_twice(desk):
    with pytest.warns(UserWarning, match="Duplicate"):
        data = zipped(("a/x.jpg", b"1"), ("b/x.jpg", b"2"), ("x.jpg", b"3"), ("x.jpg", b"4"))
    result = desk.unpack(data)
    assert [path.read_bytes() for path, _ in result.files] == [b"1", b"2", b"3", b"4"]
    assert [name for _, name in result.files] == ["a/x.jpg", "b/x.jpg", "x.jpg", "x.jpg"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_big_and_empty_members_come_out_whole(desk, method):
    big = os.urandom(archives.BLOCK * 2 + 7)
    exact = os.urandom(archives.BLOCK)
    result = desk.unpack(zipped(("b.jpg", big), ("e.jpg", exact), ("0.jpg", b""), method=method))
    assert [path.read_bytes() for path, _ in result.files] == [big, exact, b""]


def test_what_systems_leave_in_archives_is_passed_over_without_a_word(desk):
    noise = ["folder/", "__MACOSX/._a.jpg", "x/__MACOSX/a.jpg", ".DS_Store", "x/.DS_Store"]
    noise += ["Thumbs.db", "x/THUMBS.DB", "desktop.ini", "._a.jpg", ".hidden/a.jpg", ".a.jpg"]
    noise += ["@eaDir/a.jpg/SYNO.jpg", "win\\folder\\", "win\\.git\\a.jpg"]
    result = desk.unpack(zipped(*((name, b"x" * bool(name[-1] not in "/\\")) for name in noise)))
    assert result == Unpacked([], [])
    assert desk.asked == 0


def test_a_folder_marked_as_one_by_its_kind_only_is_passed_over(desk):
    folder = zipfile.ZipInfo("folder.jpg")
    folder.external_attr = (stat.S_IFDIR | 0o755) << 16
    assert desk.unpack(zipped((folder, b""))) == Unpacked([], [])


@pytest.mark.parametrize("name", ["IMG_1", "x/photo", "photo.", "..", "a.heic", "a.TIFF", "a.gif"])
def test_what_may_be_an_image_by_its_name_is_handed_on_for_a_look(desk, name):
    assert [one for _, one in desk.unpack(zipped((name, b"?"))).files] == [name]


@pytest.mark.parametrize(
    "name", ["run.py", "x/lora.safetensors", "a.jpg.exe", "a.svg", "notes.md", "a.tar.gz"]
)
def test_what_is_no_image_by_its_name_gets_a_reason_and_is_not_written(desk, name):
    result = desk.unpack(zipped(("a.jpg", JPEG), (name, b"data")))
    assert reasons(result) == {name: "it is neither an image nor a caption"}
    assert desk.asked == len(result.files) == 1


def test_an_archive_inside_the_archive_is_named_as_one(desk):
    result = desk.unpack(zipped(("in.ZIP", zipped(("a.jpg", JPEG)))))
    assert "an archive inside" in reasons(result)["in.ZIP"]
    assert desk.asked == 0


def test_links_and_pipes_are_refused(desk):
    kinds = {"l.jpg": stat.S_IFLNK, "f.jpg": stat.S_IFIFO, "d.jpg": stat.S_IFCHR}
    members = [(zipfile.ZipInfo(name), b"/etc/passwd") for name in kinds]
    for member, _ in members:
        member.external_attr = (kinds[member.filename] | 0o777) << 16
    result = desk.unpack(zipped(*members))
    assert set(reasons(result)) == set(kinds)
    assert desk.asked == 0


def test_an_empty_archive_and_one_with_a_comment_are_no_error(desk):
    assert desk.unpack(zipped()) == Unpacked([], [])
    with zipfile.ZipFile(target := io.BytesIO(zipped(("a.jpg", JPEG))), "a") as bundle:
        bundle.comment = b"holiday" * 1000
    assert len(desk.unpack(target.getvalue()).files) == 1


def test_an_archive_made_while_streaming_is_read(desk):
    class Pipe(io.RawIOBase):
        def __init__(self):
            self.data = b""

        def writable(self):
            return True

        def write(self, data):
            self.data += bytes(data)
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("a.jpg", JPEG)
    assert desk.unpack(pipe.data).files[0][0].read_bytes() == JPEG


def test_an_archive_behind_other_data_is_read(desk):
    assert len(desk.unpack(b"#!/bin/sh\n" * 9 + zipped(("a.jpg", JPEG))).files) == 1


# -- names that mean harm --------------------------------------------------------------------------

EVIL = ["../../up.jpg", "/etc/absolute.jpg", "C:\\x.jpg", "..\\..\\up.jpg", "a/../../../up.jpg"]
EVIL += ["//host/share/x.jpg", "con.jpg", "a\nb.jpg", "x" * 60_000 + ".jpg", "‮gpj.jpg", "画像.jpg"]


@pytest.mark.parametrize("name", EVIL, ids=range(len(EVIL)))
def test_a_name_decides_nothing_about_where_bytes_go(desk, name):
    result = desk.unpack(zipped((name, JPEG)))
    assert [one for _, one in result.files] == [name]
    assert desk.left() == {desk.out / "00001.part"}


def test_an_absolute_name_neither_writes_nor_overwrites_there(desk):
    mine = desk.archive.parent / "mine.jpg"
    mine.write_bytes(b"mine")
    names = [str(mine), str(mine.with_name("new.jpg")), "../../mine.jpg", "../../../desk/mine.jpg"]
    result = desk.unpack(zipped(*((name, JPEG) for name in names)))
    assert [name for _, name in result.files] == names
    assert mine.read_bytes() == b"mine"
    assert desk.left() == {mine, *(path for path, _ in result.files)}


@hypothesis_settings(patient, max_examples=60)
@given(names=st.lists(st.text(max_size=30), max_size=8))
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_whatever_the_names_only_fresh_paths_are_written(names):
    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(Path(folder) / "desk")
        try:
            data = zipped(*((name, JPEG) for name in names))
        except (UnicodeEncodeError, IndexError):  # a name no archive can hold
            return
        result = desk.unpack(data)
        assert desk.left() == {path for path, _ in result.files}
        assert all(path.parent == desk.out for path in desk.left())
        assert len(result.files) + len(result.rejected) <= len(names)


def test_names_of_old_archives_come_out_as_some_text(desk):
    data = zipped(("xx.jpg", JPEG)).replace(b"xx.jpg", b"\x83\x80.jpg")  # Shift-JIS, unmarked
    ((path, name),) = desk.unpack(data).files
    name.encode("utf-8")
    assert name.endswith(".jpg")
    assert path.read_bytes() == JPEG


# -- what is wrong with single members -------------------------------------------------------------


def test_a_password_is_told_and_the_others_go_on(desk):
    data = zipped(("a.jpg", JPEG), ("b.jpg", JPEG))
    for flag in (0x1, 0x41):
        locked = patched(patched(data, ENTRY, 8, "<H", flag), LOCAL, 6, "<H", flag)
        result = desk.unpack(locked)
        assert reasons(result) == {"a.jpg": "it is protected by a password"}
        assert [name for _, name in result.files] == ["b.jpg"]


@pytest.mark.parametrize("method", [6, 9, 12, 14, 93, 99, 0xFFFF])
def test_another_kind_of_compression_is_told_and_the_others_go_on(desk, method):
    data = patched(zipped(("a.jpg", JPEG), ("b.jpg", JPEG)), ENTRY, 10, "<H", method)
    result = desk.unpack(data)
    assert "compression" in reasons(result)["a.jpg"]
    assert [name for _, name in result.files] == ["b.jpg"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_is_told_and_the_others_go_on(desk, method):
    noise = os.urandom(9000)
    data = zipped(("a.jpg", noise), ("b.jpg", JPEG), method=method)
    middle = data.index(LOCAL) + 4000
    broken = data[:middle] + bytes(b ^ 0xFF for b in data[middle : middle + 9]) + data[middle + 9 :]
    result = desk.unpack(broken)
    assert reasons(result) == {"a.jpg": DAMAGED}
    assert [(name, path.read_bytes()) for path, name in result.files] == [("b.jpg", JPEG)]
    assert desk.left() == {result.files[0][0]}


@pytest.mark.parametrize(
    ("mark", "offset", "layout", "value"),
    [
        (ENTRY, 16, "<I", 12345),  # checksum
        (ENTRY, 20, "<I", 40),  # packed size: cut
        (ENTRY, 20, "<I", 0),
        (ENTRY, 42, "<I", 7),  # place of the member: none
        (ENTRY, 42, "<I", 0x7FFFFFFF),  # far behind the end
        (ENTRY, 8, "<H", 0x20),  # patched data
        (LOCAL, 0, "<I", 0),
        (LOCAL, 26, "<H", 0xFFFF),  # length of its name
        (LOCAL, 30, "<B", 0xFF),  # another name than in the list
    ],
)
def test_wrong_headers_of_a_member_spoil_that_member_only(desk, mark, offset, layout, value):
    data = zipped(("a.jpg", JPEG), ("b.jpg", b"second"))
    result = desk.unpack(patched(data, mark, offset, layout, value))
    assert reasons(result) == {"a.jpg": DAMAGED}
    assert [path.read_bytes() for path, _ in result.files] == [b"second"]
    assert desk.left() == {result.files[0][0]}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("less", [1, 1000, archives.BLOCK, 3 * archives.BLOCK])
def test_more_than_declared_is_refused_even_if_the_checksum_fits(desk, method, less):
    whole = bytes(4 * archives.BLOCK)
    data = zipped(("a.jpg", whole), ("b.jpg", JPEG), method=method)
    lying = declaring(data, len(whole) - less)
    for checksum in (None, zlib.crc32(whole[:-less])):
        told = lying if checksum is None else patched(lying, ENTRY, 16, "<I", checksum)
        result = desk.unpack(told)
        assert reasons(result)["a.jpg"] in (DAMAGED, "it holds more than the archive says")
        assert [name for _, name in result.files] == ["b.jpg"]
        assert desk.left() == {result.files[0][0]}
        result.files[0][0].unlink()


def test_less_than_declared_is_refused(desk):
    result = desk.unpack(declaring(zipped(("a.jpg", JPEG)), len(JPEG) + 1))
    assert reasons(result) == {"a.jpg": DAMAGED}
    assert desk.left() == set()


def test_what_is_too_big_for_what_it_says_is_refused_unwritten(desk):
    data = zipped(("a.jpg", JPEG), ("a.txt", b"x" * 40_001), ("b.txt", b"x" * 40_000))
    result = desk.unpack(declaring(data, 500_000_001))
    assert reasons(result) == {
        "a.jpg": "it is bigger than 500 MB",
        "a.txt": "it is too long for a caption",
    }
    assert [name for _, name in result.files] == ["b.txt"]
    assert desk.asked == 1


# -- what is wrong with the whole ------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [b"", b"x", JPEG, b"Rar!\x1a\x07\x01\x00", b"7z\xbc\xaf'\x1c" * 99]
)
def test_what_is_no_zip_is_told_as_that(desk, data):
    with pytest.raises(Invalid, match=r"not a \.zip archive"):
        desk.unpack(data)
    assert desk.asked == 0


def test_an_archive_cut_off_anywhere_is_told_as_that(desk):
    data = zipped(("a.jpg", b"a" * 300), ("b.jpg", b"b" * 300))
    for end in range(2, len(data)):
        with pytest.raises(Invalid, match="damaged or cut off"):
            desk.unpack(data[:end])
    assert desk.left() == set()


def test_a_missing_archive_is_an_os_error(desk):
    with pytest.raises(FileNotFoundError):
        archives.unpack(desk.archive, desk.fresh, free=PLENTY)


def test_what_does_not_fit_on_the_disk_is_refused_before_a_byte_is_written(desk):
    data = zipped(("a.jpg", JPEG), ("b.jpg", JPEG))
    needed = 2 * len(JPEG) + RESERVE_BYTES
    with pytest.raises(DiskFull, match=r"201 MB are needed, 200 MB are free") as told:
        desk.unpack(data, needed - 1)
    assert told.value.http_status == 507
    assert desk.asked == 0
    assert len(desk.unpack(data, needed).files) == 2


def test_what_is_refused_anyway_needs_no_room(desk):
    data = zipped(("big.safetensors", JPEG), ("locked.jpg", JPEG))
    data = patched(declaring(data, 0xFFFFFFF0), ENTRY, 8, "<H", 1, nth=1)
    assert len(desk.unpack(data, 0).rejected) == 2


def test_a_bomb_is_stopped_by_what_it_declares_or_by_what_it_does(desk):
    bomb = zipped(*((f"{n}.jpg", bytes(3_000_000)) for n in range(9)))
    assert len(bomb) < 40_000
    with pytest.raises(DiskFull):
        desk.unpack(bomb, RESERVE_BYTES + 20_000_000)
    for nth in range(9):
        bomb = declaring(bomb, 10, nth)
    result = desk.unpack(bomb, RESERVE_BYTES + 1000)
    assert len(result.rejected) == 9
    assert desk.left() == set()


def test_memory_stays_flat_whatever_is_in_the_archive(desk):
    packed = bz2.compress(bytes(300_000_000))
    honest = zipped(("a.jpg", bytes(30_000_000)), method=zipfile.ZIP_DEFLATED)
    sly = patched(zipped(("b.jpg", packed), method=zipfile.ZIP_STORED), ENTRY, 10, "<H", 12)
    for data in (honest, sly):
        desk.archive.write_bytes(data)
        del data
        tracemalloc.start()
        archives.unpack(desk.archive, desk.fresh, free=PLENTY)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 12 * archives.BLOCK


def test_too_many_members_are_refused_and_just_enough_are_not(desk, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 50)
    enough = [(f"{n}.jpg", b"") for n in range(50)] + [(f"__MACOSX/{n}", b"") for n in range(50)]
    assert len(desk.unpack(zipped(*enough)).files) == 50
    before = desk.left()
    with pytest.raises(Invalid, match="more than 50 files"):
        desk.unpack(zipped(*enough, ("one.more", b"")))
    assert desk.left() == before


def test_a_list_too_long_to_be_read_is_not_read(desk):
    assert MAX_MEMBERS == 20_000
    entry = zipped(("a.jpg", b""))
    start, end = entry.index(ENTRY), entry.index(b"PK\x05\x06")
    many = 200_000
    data = entry[:start] + entry[start:end] * many
    data += patched(entry[end:], b"PK\x05\x06", 12, "<I", (end - start) * many)
    tracemalloc.start()
    with pytest.raises(Invalid, match="more than 20000 files"):
        desk.unpack(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * archives.MAX_DIRECTORY_BYTES


# -- when writing fails ----------------------------------------------------------------------------


def test_a_disk_that_gets_full_leaves_nothing_of_the_call(desk, monkeypatch):
    blocks, seen = archives._blocks, []

    def filling(bundle, member):
        yield from blocks(bundle, member)
        seen.append(member.filename)
        if len(seen) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archives, "_blocks", filling)
    other = desk.out / "other.part"
    other.write_bytes(b"not of this call")
    with pytest.raises(OSError) as told:
        desk.unpack(zipped(*((f"{n}.jpg", JPEG) for n in range(5))))
    assert told.value.errno == errno.ENOSPC
    assert desk.left() == {other}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_write_that_fails_is_an_os_error_and_not_the_member_s_fault(desk, monkeypatch):
    def full(self, mode):
        assert mode == "xb"
        return open("/dev/full", "wb")  # noqa: PTH123

    desk.archive.write_bytes(zipped(("a.jpg", JPEG)))
    monkeypatch.setattr(type(desk.archive), "open", full)
    with pytest.raises(OSError) as told:
        archives.unpack(desk.archive, desk.fresh, free=PLENTY)
    assert told.value.errno == errno.ENOSPC


def test_a_path_that_is_taken_is_neither_overwritten_nor_removed(desk):
    paths = iter([desk.out / "1", desk.out / "taken"])
    (desk.out / "taken").write_bytes(b"mine")
    desk.archive.write_bytes(zipped(("a.jpg", JPEG), ("b.jpg", JPEG)))
    with pytest.raises(FileExistsError):
        archives.unpack(desk.archive, lambda: next(paths), free=PLENTY)
    assert desk.left() == {desk.out / "taken"}
    assert (desk.out / "taken").read_bytes() == b"mine"


def test_an_interruption_leaves_nothing(desk):
    def stopped():
        if desk.asked == 2:
            raise KeyboardInterrupt
        return desk.fresh()

    desk.archive.write_bytes(zipped(*((f"{n}.jpg", JPEG) for n in range(5))))
    with pytest.raises(KeyboardInterrupt):
        archives.unpack(desk.archive, stopped, free=PLENTY)
    assert desk.left() == set()


SAMPLE = zipped(("a.jpg", bytes(range(256))), ("b/c.txt", b"text" * 20), ("run.py", b"1"))


@hypothesis_settings(patient, max_examples=300)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(SAMPLE) - 1), st.binary(min_size=1, max_size=8)), max_size=6
    ),
    cut=st.integers(0, len(SAMPLE)) | st.none(),
)
def test_whatever_bytes_are_sent_nothing_else_is_raised_or_left(changes, cut):
    data = bytearray(SAMPLE)
    for at, new in changes:
        data[at : at + len(new)] = new
    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(Path(folder) / "desk")
        try:
            files = desk.unpack(bytes(data[:cut])).files
        except UserError:
            files = []
        assert desk.left() == {path for path, _ in files}
