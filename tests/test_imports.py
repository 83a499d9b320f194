"""Folders on the server: what is offered lies in a root, and what is copied is what was checked."""

from __future__ import annotations

import errno
import os
import socket
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from inputs import patient

from musubitlx import imports
from musubitlx.errors import Invalid, NotFound
from musubitlx.home import Home
from musubitlx.imports import NO_FILE, NO_FOLDER, Imports

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture
def place(home) -> Path:
    """The home folder's own import folder."""
    folder = home.root / "import"
    folder.mkdir()
    return folder


@pytest.fixture
def outside(tmp_path) -> Path:
    """A folder nobody opened for imports, with something worth stealing."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.jpg").write_bytes(b"secret")
    (folder / "secret.txt").write_bytes(b"secret")
    return folder


@pytest.fixture(params=["by steps", "by path"])
def ways(request, monkeypatch):
    """Both ways to reach a file: the usual one, and that of Windows."""
    monkeypatch.setattr(imports, "WALKS", request.param == "by steps" and imports.WALKS)


class Fresh:
    """Paths for what is copied."""

    def __init__(self, folder: Path):
        folder.mkdir()
        self.folder, self.asked = folder, 0

    def __call__(self) -> Path:
        self.asked += 1
        return self.folder / f"{self.asked}.part"

    def left(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted(self.folder.iterdir())]


@pytest.fixture
def fresh(tmp_path) -> Fresh:
    return Fresh(tmp_path / "fresh")


def fill(folder: Path, *names: str, data: bytes = b"data") -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def configure(home: Home, text: str | bytes) -> Imports:
    data = text if isinstance(text, bytes) else text.encode()
    (home.configs / "imports.yaml").write_bytes(data)
    return Imports(home)


def names(rows: list[dict]) -> list[str]:
    return [row["name"] for row in rows]


def refuses(one: Imports, path: object) -> None:
    """Looking and copying are both refused, in the one sentence."""
    for ask in (lambda: one.browse(path), lambda: one.copy(path, ["secret.jpg"], None)):
        with pytest.raises(NotFound) as told:
            ask()
        assert str(told.value) == NO_FOLDER


# -- roots -----------------------------------------------------------------------------------------


def test_the_home_s_import_folder_is_a_root_there_or_not(home):
    root = {"path": str(home.root / "import"), "name": "import", "exists": False, "problem": None}
    assert Imports(home).roots() == [root]
    assert Imports(home).browse(None)["folders"] == []
    refuses(Imports(home), root["path"])
    (home.root / "import").mkdir()
    assert Imports(home).roots() == [{**root, "exists": True}]
    assert names(Imports(home).browse(None)["folders"]) == ["import"]


def test_roots_come_from_the_file_and_the_start_of_the_server(home, tmp_path, monkeypatch):
    folders = [fill(tmp_path / name, "x.jpg") for name in ("data", "me/photos", "told", "here")]
    fill(home.root / "relative", "x.jpg")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.chdir(tmp_path)
    configure(home, f"roots: [{folders[0]}, ~/photos, relative]")
    one = Imports(home, [folders[2], "here"])
    assert names(one.roots()) == ["import", "data", "photos", "relative", "told", "here"]
    assert [root["problem"] for root in one.roots()] == [None] * 6
    for root in one.roots()[1:]:
        assert one.browse(root["path"])["images"] == 1
        assert one.browse(root["path"])["parent"] is None


def test_a_root_named_twice_is_one(home, tmp_path):
    fill(tmp_path / "data", "x.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    configure(home, f"roots: [{tmp_path}/data, {tmp_path}/x/../data/, {tmp_path}/link, import]")
    assert names(Imports(home, [tmp_path / "data"]).roots()) == ["import", "data"]


def test_a_root_that_is_a_link_is_as_good_as_what_it_leads_to(home, outside, fresh, ways):
    (home.root / "import").symlink_to(outside)
    one = Imports(home)
    assert one.roots()[0]["path"] == str(outside)
    for path in (str(home.root / "import"), str(outside)):
        assert names(one.browse(path)["files"]) == ["secret.jpg", "secret.txt"]
        assert one.browse(path)["path"] == str(outside)
        assert one.copy(path, ["secret.jpg"], fresh)[1] == []
    refuses(one, str(outside.parent))


@pytest.mark.parametrize(
    ("root", "told"),
    [
        ("/", "whole disk"),
        ("/tmp/..", "whole disk"),
        ("configs", "own records"),
        ("configs/drafts", "own records"),
        ("output/.jobs", "own records"),
        ("import/../output/.jobs/1", "own records"),
        ("missing", "not there"),
        ("~nobody-by-that-name/x", "not there"),
        ("x" * 300, "not there"),
        ("file.txt", "a file"),
        ("to-the-disk", "whole disk"),
        ("to-records", "own records"),
    ],
)
def test_a_root_that_can_t_be_one_is_told_in_words(home, root, told):
    fill(home.root, "file.txt")
    (home.root / "to-the-disk").symlink_to("/")
    (home.root / "to-records").symlink_to(home.jobs)
    one = configure(home, f"roots: ['{root}']")
    assert told in one.roots()[1]["problem"]
    refuses(one, one.roots()[1]["path"])
    refuses(one, "/etc")


def test_an_import_folder_that_leads_to_the_whole_disk_opens_nothing(home):
    (home.root / "import").symlink_to("/")
    assert "whole disk" in Imports(home).roots()[0]["problem"]
    refuses(Imports(home), "/etc")
    refuses(Imports(home), str(home.root / "import"))


@pytest.mark.parametrize("entry", ["~", "[a]", "{a: b}", "''", "' '", r'"a\0b"'])
def test_an_entry_that_is_no_path_is_told_and_the_others_count(home, tmp_path, entry):
    fill(tmp_path / "data", "x.jpg")
    one = configure(home, f"roots: [{entry}, {tmp_path}/data]")
    told, good = one.roots()[1:]
    assert "no path" in told["problem"]
    assert (good["name"], good["problem"]) == ("data", None)


NONSENSE = ["roots: [", "roots: /data", "- /data", "hello", "root: [/data]", "5", "\t- x"]
NONSENSE += [b"\xff\xfe\xff", "a: &a [*a]", "[" * 2000, "roots: {a: b}"]
NONSENSE += ["roots: !!python/object/apply:os.getcwd {}"]


@pytest.mark.parametrize("text", NONSENSE, ids=range(len(NONSENSE)))
def test_a_file_that_makes_no_sense_is_a_problem_in_words_and_no_crash(home, place, text):
    own, trouble = configure(home, text).roots()
    assert own["problem"] is None
    assert trouble["name"] == "imports.yaml"
    assert "imports.yaml" in trouble["problem"]
    assert "roots: [" in trouble["problem"]
    assert Imports(home).browse(str(place))["files"] == []


@pytest.mark.parametrize("text", ["", "roots:", "# nothing yet\n", "roots: []", "\ufeffroots: []"])
def test_a_file_that_names_nothing_is_no_problem(home, text):
    assert len(configure(home, text).roots()) == 1


def test_a_configuration_that_is_a_folder_is_a_problem_in_words(home):
    (home.configs / "imports.yaml").mkdir()
    assert "no file" in Imports(home).roots()[1]["problem"]


def test_a_changed_file_counts_at_once(home, tmp_path):
    fill(tmp_path / "data", "x.jpg")
    one = Imports(home)
    refuses(one, str(tmp_path / "data"))
    configure(home, f"roots: [{tmp_path}/data]")
    assert one.browse(str(tmp_path / "data"))["images"] == 1


# -- looking ---------------------------------------------------------------------------------------


def test_a_folder_shows_images_captions_and_archives_as_people_count(home, place, ways):
    fill(place, "10.jpg", "2.JPG", "a.heic", "2.txt", "alone.txt", "set.zip", "b.py", ".h.jpg")
    fill(place, "sub 10/x.jpg", "sub 2/x.jpg", "sub 2/y.PNG", "sub 2/y.txt", ".hid/x.jpg")
    shown = Imports(home).browse(str(place))
    assert shown == {
        "path": str(place),
        "parent": None,
        "folders": [
            {"name": "sub 2", "path": str(place / "sub 2"), "images": 2, "more": False},
            {"name": "sub 10", "path": str(place / "sub 10"), "images": 1, "more": False},
        ],
        "files": [
            {"name": "2.JPG", "bytes": 4, "kind": "image"},
            {"name": "2.txt", "bytes": 4, "kind": "caption"},
            {"name": "10.jpg", "bytes": 4, "kind": "image"},
            {"name": "a.heic", "bytes": 4, "kind": "image"},
            {"name": "alone.txt", "bytes": 4, "kind": "caption"},
            {"name": "set.zip", "bytes": 4, "kind": "archive"},
        ],
        "images": 3,
        "captions": 1,
        "bytes": 24,
        "cut": False,
    }
    assert Imports(home).browse(str(place / "sub 2"))["parent"] == str(place)


def test_without_a_path_the_roots_are_the_folders(home, place, tmp_path):
    fill(place, "x.jpg")
    shown = configure(home, f"roots: [/, {tmp_path}/missing]").browse(None)
    assert (shown["path"], shown["parent"], shown["files"]) == (None, None, [])
    told = [{"name": "import", "path": str(place), "images": 1, "more": False}]
    assert shown["folders"] == told


def test_a_root_within_a_root_leads_up_again(home, tmp_path):
    fill(tmp_path / "data", "in/x.jpg")
    one = configure(home, f"roots: [{tmp_path}/data, {tmp_path}/data/in]")
    assert one.browse(f"{tmp_path}/data/in")["parent"] == str(tmp_path / "data")


OUT = ["/", "/etc", "{}/..", "{}/../outside", "{}/sub/../../outside", "{}/missing/../../outside"]
OUT += ["{}/missing", "{}/file.jpg", "{}/file.jpg/..x", "{}2", "import", ".", "", "~", "{}/.hid"]
OUT += ["{}\0", "\0", "{}/\ud800", "{}/\udcff", "{}/" + "x" * 300, "{}/" + "x/" * 3000, "CON"]
OUT += ["C:\\", "\\\\host\\share", "file:///etc", "//etc", "{}/sub/.hid/x", "{}/loop", "{}/null"]


@pytest.mark.parametrize("path", [*OUT, None, 5, b"/etc", ["/etc"]], ids=range(len(OUT) + 4))
def test_what_is_missing_and_what_is_forbidden_sound_alike(home, place, outside, path, ways):
    fill(place, "file.jpg", ".hid/x.jpg", "sub/.hid/x/y.jpg")
    fill(home.root / "import2", "x.jpg")
    (place / "loop").symlink_to("loop")
    (place / "null").symlink_to("/dev/null")
    if path is None:
        with pytest.raises(NotFound):
            Imports(home).copy(None, ["x.jpg"], None)
        return
    refuses(Imports(home), path.format(place) if isinstance(path, str) else path)


def test_records_and_settings_stay_closed_below_a_root_too(home):
    fill(home.root, "configs/x.txt", "output/.jobs/token.txt", "output/ball/a.jpg")
    one = configure(home, f"roots: ['{home.root}']")
    assert names(one.browse(str(home.root))["folders"]) == ["output"]
    assert names(one.browse(str(home.output))["folders"]) == ["ball"]
    refuses(one, str(home.configs))
    refuses(one, str(home.jobs))
    (home.output / "ball" / "t.txt").symlink_to(home.jobs / "token.txt")
    assert names(one.browse(str(home.output / "ball"))["files"]) == ["a.jpg"]


def test_links_out_are_not_there_and_links_inside_are(home, place, outside, ways):
    fill(place, "sub/in.jpg", ".store/x")
    (place / "out").symlink_to(outside)
    (place / "out.jpg").symlink_to(outside / "secret.jpg")
    (place / "gone.jpg").symlink_to(place / "missing")
    (place / "hidden").symlink_to(place / ".store")
    (place / "to.jpg").symlink_to("sub/in.jpg")
    (place / "kept.jpg").symlink_to(".store/x")
    (place / "to").symlink_to(place / "sub")
    shown = Imports(home).browse(str(place))
    assert names(shown["folders"]) == ["sub", "to"]
    assert [folder["images"] for folder in shown["folders"]] == [1, 1]
    assert names(shown["files"]) == ["kept.jpg", "to.jpg"]
    assert Imports(home).browse(str(place / "to"))["path"] == str(place / "sub")
    refuses(Imports(home), str(place / "out"))
    refuses(Imports(home), str(place / "hidden"))


def test_what_is_no_ordinary_file_is_not_offered(home, place):
    os.mkfifo(place / "pipe.jpg")
    (place / "folder.jpg").mkdir()
    shown = Imports(home).browse(str(place))
    assert shown["files"] == []
    assert names(shown["folders"]) == ["folder.jpg"]


def test_names_that_can_t_be_said_are_left_out(home, place):
    fill(place, "ünï 画像 😀.jpg", "tab\there.jpg", "back\\slash.jpg", "x" * 251 + ".jpg")
    Path(os.fsdecode(os.fsencode(place) + b"/caf\xe9.jpg")).write_bytes(b"x")
    assert names(Imports(home).browse(str(place))["files"]) == [
        "x" * 251 + ".jpg",
        "ünï 画像 😀.jpg",
    ]


def test_five_thousand_files_are_shown_in_a_moment(home, place):
    for number in range(5000):
        (place / f"{number}.jpg").touch()
    began = time.perf_counter()
    shown = Imports(home).browse(str(place))
    assert time.perf_counter() - began < 0.3
    assert shown["images"] == 5000
    assert shown["files"][4999]["name"] == "4999.jpg"
    above = Imports(home).browse(None)["folders"][0]
    assert (above["images"], above["more"]) == (imports.MAX_COUNTED, True)


def test_a_folder_that_is_too_long_is_cut_and_that_is_said(home, place, monkeypatch):
    monkeypatch.setattr(imports, "MAX_LISTED", 5)
    fill(place, *(f"{n}.jpg" for n in range(5)))
    assert not Imports(home).browse(str(place))["cut"]
    fill(place, "one more.jpg")
    shown = Imports(home).browse(str(place))
    assert (shown["cut"], shown["images"]) == (True, 5)


def test_counting_below_ends_somewhere_and_says_so(home, place, monkeypatch):
    monkeypatch.setattr(imports, "MAX_COUNTED_IN_ALL", 4)
    fill(place, *(f"{folder}/{n}.jpg" for folder in "abc" for n in range(3)))
    told = [(one["images"], one["more"]) for one in Imports(home).browse(str(place))["folders"]]
    assert told == [(3, False), (1, True), (0, True)]


@pytest.mark.skipif(AS_ROOT, reason="root may read everything")
def test_a_folder_without_permission_is_told_and_its_neighbours_are_shown(home, place, fresh):
    locked = fill(place, "locked/x.jpg", "open/x.jpg") / "locked"
    locked.chmod(0)
    try:
        one = Imports(home)
        assert [folder["images"] for folder in one.browse(str(place))["folders"]] == [0, 1]
        with pytest.raises(Invalid, match="can't be read"):
            one.browse(str(locked))
        copied, rejected = one.copy(str(locked), ["x.jpg"], fresh)
        assert copied == []
        assert "can't be read" in rejected[0]["reason"]
        assert "can't be read" in configure(home, f"roots: ['{locked}']").roots()[1]["problem"]
    finally:
        locked.chmod(0o755)


@pytest.mark.skipif(AS_ROOT, reason="root may read everything")
def test_a_file_without_permission_gets_a_reason(home, place, fresh):
    fill(place, "a.jpg", "b.jpg")
    (place / "a.jpg").chmod(0)
    copied, rejected = Imports(home).copy(str(place), ["a.jpg", "b.jpg"], fresh)
    assert [name for _, name in copied] == ["b.jpg"]
    assert "can't be read" in rejected[0]["reason"]


# -- copying ---------------------------------------------------------------------------------------


def test_copies_are_byte_for_byte_and_files_of_their_own(home, place, fresh, ways):
    data = {"a.jpg": os.urandom(3_000_001), "ü.txt": b"text", "set.zip": b"zip", "0.png": b""}
    for name, content in data.items():
        (place / name).write_bytes(content)
    copied, rejected = Imports(home).copy(str(place), list(data), fresh)
    assert {name: path.read_bytes() for path, name in copied} == data
    assert rejected == []
    for path, name in copied:
        assert not path.samefile(place / name)
        assert path.stat().st_nlink == (place / name).stat().st_nlink == 1


@pytest.mark.parametrize("error", [errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EPERM, None])
def test_where_the_kernel_does_not_copy_it_is_done_by_hand(home, place, fresh, monkeypatch, error):
    def refusing(source, target, count):
        if error is None:
            return 0  # some file systems say that there is nothing
        if os.lseek(source, 0, os.SEEK_CUR):
            raise OSError(error, os.strerror(error))
        return os.write(target, os.read(source, 1000))  # and some fail on the way

    data = os.urandom(2_500_000)
    fill(place, "a.jpg", data=data)
    monkeypatch.setattr(os, "copy_file_range", refusing, raising=False)
    assert Imports(home).copy(str(place), ["a.jpg"], fresh)[1] == []
    assert fresh.left() == [data]
    monkeypatch.delattr(os, "copy_file_range")
    assert Imports(home).copy(str(place), ["a.jpg"], fresh)[1] == []
    assert fresh.left() == [data, data]


BAD = ["../outside/secret.jpg", "/etc/passwd", "..", ".", "", ".hid.jpg", "sub/in.jpg", "a\0.jpg"]
BAD += [
    "\ud800.jpg",
    "x" * 300 + ".jpg",
    "a\\b.jpg",
    "missing.jpg",
    "a\n.jpg",
    "out.jpg",
    "gone.jpg",
]
BAD += ["through.jpg", "loop.jpg", "CON.jpg", "\udcff.jpg", "x/../a.jpg", "a.jpg/", "null.jpg"]


@pytest.mark.parametrize("name", BAD, ids=range(len(BAD)))
def test_a_name_that_leads_elsewhere_is_refused_and_the_others_go_on(
    home, place, outside, fresh, name, ways
):
    fill(place, "a.jpg", "sub/in.jpg", ".hid.jpg")
    (place / "out.jpg").symlink_to(outside / "secret.jpg")
    (place / "gone.jpg").symlink_to(outside / "missing.jpg")
    (place / "door").symlink_to(outside)
    (place / "through.jpg").symlink_to("door/secret.jpg")
    (place / "loop.jpg").symlink_to("loop.jpg")
    (place / "null.jpg").symlink_to("/dev/null")
    copied, rejected = Imports(home).copy(str(place), [name, "a.jpg"], fresh)
    assert [(path.read_bytes(), one) for path, one in copied] == [(b"data", "a.jpg")]
    assert rejected == [{"name": name, "reason": NO_FILE}]
    assert fresh.asked == 1


def test_links_inside_are_followed_from_root_to_root_too(home, place, tmp_path, fresh, ways):
    fill(tmp_path / "data", "there.jpg", data=b"there")
    fill(place, ".store/x", data=b"kept")
    (place / "to.jpg").symlink_to(tmp_path / "data" / "there.jpg")
    (place / "kept.jpg").symlink_to(".store/x")
    one = configure(home, f"roots: [{tmp_path}/data]")
    assert one.copy(str(place), ["to.jpg", "kept.jpg"], fresh)[1] == []
    assert fresh.left() == [b"there", b"kept"]
    assert Imports(home).copy(str(place), ["kept.jpg"], fresh)[1] == []


def test_what_is_not_offered_is_not_copied(home, place, fresh):
    fill(place, "run.py", "lora.safetensors", "none", "a.jpg.exe")
    asked = ["run.py", "lora.safetensors", "none", "a.jpg.exe"]
    copied, rejected = Imports(home).copy(str(place), asked, fresh)
    assert (copied, names(rejected)) == ([], asked)
    assert {row["reason"] for row in rejected} == {
        "it is neither an image nor a caption nor a .zip"
    }


def test_pipes_sockets_and_folders_are_refused_unopened(home, place, fresh, monkeypatch, ways):
    os.mkfifo(place / "pipe.jpg")
    (place / "folder.jpg").mkdir()
    monkeypatch.chdir(place)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("socket.jpg")
    monkeypatch.setattr(imports._Folder, "open", lambda *_: pytest.fail("it was opened"))
    asked = ["pipe.jpg", "folder.jpg", "socket.jpg"]
    copied, rejected = Imports(home).copy(str(place), asked, fresh)
    assert copied == []
    assert {row["reason"] for row in rejected} == {"it is no ordinary file"}


def test_what_is_too_big_gets_a_reason_and_archives_do_not(home, place, fresh, monkeypatch):
    fill(place, "a.txt", data=b"x" * 40_001)
    fill(place, "b.txt", data=b"x" * 40_000)
    for name in ("big.jpg", "big.zip"):
        with (place / name).open("wb") as file:
            file.truncate(500_000_001)
    monkeypatch.setattr(imports, "_pour", lambda *_: None)
    asked = ["a.txt", "b.txt", "big.jpg", "big.zip"]
    copied, rejected = Imports(home).copy(str(place), asked, fresh)
    assert [name for _, name in copied] == ["b.txt", "big.zip"]
    reasons = {row["name"]: row["reason"] for row in rejected}
    assert reasons == {
        "a.txt": "it is too long for a caption",
        "big.jpg": "it is bigger than 500 MB",
    }


def test_a_name_asked_for_twice_is_copied_once(home, place, fresh):
    fill(place, "a.jpg")
    assert len(Imports(home).copy(str(place), ["a.jpg", "a.jpg"], fresh)[0]) == 1


@pytest.mark.parametrize("asked", [None, "a.jpg", {"a.jpg": 1}, [5], [None], ["a.jpg"] * 20_001])
def test_names_of_the_wrong_kind_are_refused(home, place, fresh, asked):
    with pytest.raises(Invalid) as told:
        Imports(home).copy(str(place), asked, fresh)
    assert told.value.field == "names"


# -- what changes while we look --------------------------------------------------------------------


def swap(path: Path, target: Path) -> None:
    """Put a link in the place of a file or folder."""
    path.rename(path.with_name("was-" + path.name))
    path.symlink_to(target)


@pytest.mark.parametrize("what", ["file", "folder", "root"])
def test_a_link_that_slips_in_after_the_check_leads_nowhere(
    home, place, outside, fresh, monkeypatch, ways, what
):
    fill(place, "sub/secret.jpg")
    swapped = {"file": place / "sub/secret.jpg", "folder": place / "sub", "root": place}[what]
    target = {"file": outside / "secret.jpg", "folder": outside, "root": outside.parent}[what]
    fill(outside.parent / "sub", "secret.jpg", data=b"secret")
    check = imports._open_file

    def late(path):
        swap(swapped, target)
        return check(path)

    monkeypatch.setattr(imports, "_open_file", late)
    copied, rejected = Imports(home).copy(str(place / "sub"), ["secret.jpg"], fresh)
    assert copied == []
    assert rejected[0]["reason"] in (NO_FILE, "it is no ordinary file")
    assert fresh.left() == []


@pytest.mark.skipif(not imports.WALKS, reason="folders can't be opened here")
def test_a_folder_exchanged_for_a_link_is_not_listed(home, place, outside, monkeypatch):
    fill(place, "sub/x.jpg")
    opened = imports._opened

    def late(path):
        swap(place / "sub", outside)
        return opened(path)

    monkeypatch.setattr(imports, "_opened", late)
    with pytest.raises(NotFound, match=NO_FOLDER):
        Imports(home).browse(str(place / "sub"))


def test_a_pipe_that_slips_in_neither_blocks_nor_is_read(home, place, fresh, monkeypatch, ways):
    fill(place, "a.jpg")
    look = imports._Folder.stat

    def late(self, name):
        info = look(self, name)
        (place / "a.jpg").unlink()
        os.mkfifo(place / "a.jpg")
        return info

    monkeypatch.setattr(imports._Folder, "stat", late)
    rejected = Imports(home).copy(str(place), ["a.jpg"], fresh)[1]
    assert rejected[0]["reason"] == "it is no ordinary file"


def test_a_folder_exchanged_in_the_last_moment_gives_nothing_away(
    home, place, outside, fresh, monkeypatch, ways
):
    fill(place, "sub/secret.jpg")
    look = imports._Folder.stat

    def late(self, name):
        info = look(self, name)
        swap(place / "sub", outside)
        return info

    monkeypatch.setattr(imports._Folder, "stat", late)
    copied, rejected = Imports(home).copy(str(place / "sub"), ["secret.jpg"], fresh)
    assert fresh.left() == ([b"data"] if imports.WALKS else [])  # it stands in what was checked
    assert len(copied) + len(rejected) == 1


@pytest.mark.parametrize("change", [b"longer than it was", b"cut"])
def test_a_file_that_is_still_being_written_is_told(home, place, fresh, monkeypatch, change):
    fill(place, "a.jpg", data=b"as it was")
    pour = imports._pour

    def meanwhile(source, target, size):
        (place / "a.jpg").write_bytes(change)
        pour(source, target, size)

    monkeypatch.setattr(imports, "_pour", meanwhile)
    copied, rejected = Imports(home).copy(str(place), ["a.jpg"], fresh)
    assert copied == []
    assert "try again when it is whole" in rejected[0]["reason"]
    assert fresh.left() == []


# -- when copying fails ----------------------------------------------------------------------------


def test_a_disk_that_gets_full_leaves_nothing_of_the_call(home, place, fresh, monkeypatch):
    fill(place, "a.jpg", "b.jpg", "c.jpg")
    (fresh.folder / "other").write_bytes(b"not of this call")

    def full(target, data):
        if fresh.asked == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(target, data)

    write = os.write
    monkeypatch.setattr(os, "write", full)
    monkeypatch.setattr(imports, "_poured_by_kernel", lambda *_: 0)
    with pytest.raises(OSError) as told:
        Imports(home).copy(str(place), ["a.jpg", "b.jpg", "c.jpg"], fresh)
    assert told.value.errno == errno.ENOSPC
    assert fresh.left() == [b"not of this call"]


def test_a_disk_without_a_reserve_counts_as_full(home, place, fresh, monkeypatch):
    fill(place, "a.jpg")
    usage = type("Usage", (), {"free": imports.RESERVE_BYTES + 3})
    monkeypatch.setattr(imports.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError) as told:
        Imports(home).copy(str(place), ["a.jpg"], fresh)
    assert told.value.errno == errno.ENOSPC
    assert fresh.left() == []


def test_a_source_that_fails_is_its_own_fault_only(home, place, fresh, monkeypatch):
    fill(place, "a.jpg", "b.jpg")

    def failing(source, count):
        if fresh.asked == 1:
            raise OSError(errno.EIO, "Input/output error")
        return read(source, count)

    read = os.read
    monkeypatch.setattr(os, "read", failing)
    monkeypatch.setattr(imports, "_poured_by_kernel", lambda *_: 0)
    copied, rejected = Imports(home).copy(str(place), ["a.jpg", "b.jpg"], fresh)
    assert [name for _, name in copied] == ["b.jpg"]
    assert rejected == [{"name": "a.jpg", "reason": "it can't be read: Input/output error"}]
    assert fresh.left() == [b"data"]


def test_a_path_that_is_taken_is_neither_overwritten_nor_removed(home, place, fresh):
    fill(place, "a.jpg")
    (fresh.folder / "1.part").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        Imports(home).copy(str(place), ["a.jpg"], fresh)
    assert fresh.left() == [b"mine"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files can't be counted here")
def test_no_descriptor_is_left_open(home, place, outside, fresh):
    fill(place, "a.jpg", "sub/x.jpg")
    (place / "out.jpg").symlink_to(outside / "secret.jpg")
    one = Imports(home)

    def all_of_it():
        one.browse(str(place))
        one.copy(str(place), ["a.jpg", "out.jpg", "missing.jpg", "sub"], fresh)
        with pytest.raises(NotFound):
            one.browse(str(place / "a.jpg"))

    all_of_it()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        all_of_it()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


PIECES = st.sampled_from(
    [*"/.~\\\0x", "..", "sub", "import", "outside", "door", "secret.jpg", "//"]
)


@hypothesis_settings(patient, max_examples=300)
@given(way=st.lists(PIECES, max_size=8).map("".join) | st.text(max_size=20))
def test_whatever_is_asked_for_nothing_outside_comes_out(tmp_path_factory, way):
    home = shared_home(tmp_path_factory)
    one, place = Imports(home), home.root / "import"
    for path in (way, f"{place}/{way}", f"{place}{way}"):
        try:
            shown = one.browse(path)
        except NotFound as error:
            assert str(error) == NO_FOLDER
        else:
            assert Path(shown["path"]).is_relative_to(place)
            assert "secret.jpg" not in names(shown["files"])
    copied, rejected = one.copy(str(place), [way, f"{way}.jpg"], lambda: home.root / "copy")
    for path, _ in copied:
        assert path.read_bytes() == b"data"
        path.unlink()
    assert len(copied) + len(rejected) in (1, 2)


def shared_home(factory) -> Home:
    """One home folder for all examples, with a way out to find."""
    if not hasattr(factory, "shared"):
        base = factory.mktemp("shared")
        fill(base, "outside/secret.jpg", data=b"secret")
        fill(base, "home/import/sub/x.jpg", "home/import/x.jpg")
        (base / "home/import/door").symlink_to(base / "outside")
        factory.shared = Home(base / "home").make()
    return factory.shared
