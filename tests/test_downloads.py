"""Downloading a file: whatever comes between, what arrived is kept, and only whole files count."""

from __future__ import annotations

import os
import shutil
import threading
from collections import namedtuple
from dataclasses import replace

import pytest
from hubs import contents, put

from musubitlx import downloads
from musubitlx.downloads import Damaged, Stopped, Terms, download
from musubitlx.errors import Conflict, DiskFull, NotFound
from musubitlx.home import RESERVE_BYTES
from musubitlx.hub import Hub, HubTrouble, RemoteFile
from musubitlx.lease import Lease

REPO = "owner/one"
SIZE = 300_000
ONCE = Terms(waits_s=())  # no second try
PATIENT = Terms(waits_s=(0,) * 4)
NAMES = {"large": "model.safetensors", "small": "vocab.json"}  # with a checksum, and without


@pytest.fixture(params=["large", "small"])
def name(request, hub):
    """A file that the CDN sends and whose checksum is known, and one that the hub itself sends."""
    hub.mood.lfs_min = 1 if request.param == "large" else 10 * SIZE
    return NAMES[request.param]


@pytest.fixture
def large(hub):
    """The large one only."""
    return NAMES["large"]


@pytest.fixture
def folder(tmp_path):
    """Where files are to come."""
    return tmp_path / "models"


def get(hub, name, folder, terms=PATIENT):
    """Download a file of the hub."""
    download(Hub(hub.url), REPO, name, folder / name, terms=terms)


def part(folder, name) -> int:
    """How much of it has arrived."""
    return (folder / f"{name}.part").stat().st_size


def broken_off(hub, name, folder, at=100_000) -> None:
    """Download that much of a file."""
    hub.mood.drop_at, hub.mood.drop_times = at, 1
    with pytest.raises(HubTrouble, match="broke off"):
        get(hub, name, folder, ONCE)
    assert part(folder, name) == at
    hub.seen.clear()


def test_a_file_arrives_byte_for_byte_and_leaves_nothing_else(hub, name, folder):
    data = put(hub, name, SIZE)
    told = []
    get(hub, name, folder, Terms(on_progress=told.append))
    assert contents(folder) == {name: data}
    assert told == sorted(told)
    assert told[-1] == SIZE


def test_an_empty_file_arrives(hub, folder):
    put(hub, "empty.txt", b"")
    get(hub, "empty.txt", folder)
    assert contents(folder) == {"empty.txt": b""}


def test_a_download_goes_on_where_it_broke_off(hub, name, folder):
    data = put(hub, name, SIZE)
    broken_off(hub, name, folder)
    checked = []
    get(hub, name, folder, Terms(on_check=lambda done, whole: checked.append((done, whole))))
    assert contents(folder) == {name: data}
    assert hub.sent() == SIZE - 100_000
    assert checked[-1] == (100_000, 100_000)


def test_a_dropped_line_is_taken_up_by_itself(hub, name, folder):
    data = put(hub, name, SIZE)
    hub.mood.drop_at = 100_000
    waits = []
    get(hub, name, folder, replace(PATIENT, on_wait=lambda why, s: waits.append(str(why))))
    assert contents(folder) == {name: data}
    assert hub.sent() == SIZE
    assert len(waits) == 1
    assert "broke off" in waits[0]


def test_patience_begins_anew_whenever_bytes_came(hub, large, folder):
    data = put(hub, large, SIZE)
    hub.mood.drop_at = 50_000

    def drop_later(_trouble, _seconds):
        hub.mood.drop_at, hub.mood.drop_times = hub.mood.drop_at + 50_000, 1

    get(hub, large, folder, Terms(waits_s=(0, 0), on_wait=drop_later))
    assert contents(folder) == {large: data}
    assert hub.sent() == SIZE


def test_a_line_that_drops_at_the_same_place_for_ever_is_given_up(hub, large, folder):
    put(hub, large, SIZE)
    hub.mood.ranges, hub.mood.drop_at, hub.mood.drop_times = False, 50_000, 1000
    with pytest.raises(HubTrouble, match="broke off"):
        get(hub, large, folder, Terms(waits_s=(0, 0)))
    assert len([one for one in hub.seen if one.sent]) == 3  # one brought bytes, two nothing new
    assert part(folder, large) == 50_000


def test_waits_grow(hub, large, folder, monkeypatch):
    put(hub, large, SIZE)
    hub.mood.status = 503
    waits = []
    terms = Terms(stop=threading.Event(), on_wait=lambda _why, seconds: waits.append(seconds))
    monkeypatch.setattr(terms.stop, "wait", lambda _seconds: False)
    with pytest.raises(HubTrouble, match="503"):
        get(hub, large, folder, terms)
    assert waits == sorted(waits)
    assert waits[0] <= 1
    assert 300 < sum(waits) < 900


def test_a_line_without_a_byte_counts_as_dropped(hub, name, folder):
    data = put(hub, name, SIZE)
    hub.mood.stall_at = 100_000
    waits = []
    terms = replace(PATIENT, stall_s=0.2, on_wait=lambda why, _: waits.append(str(why)))
    get(hub, name, folder, terms)
    assert contents(folder) == {name: data}
    assert hub.sent() == SIZE
    assert "has not answered for 0.2 s" in waits[0]


def test_a_hub_that_recovers_is_asked_again(hub, name, folder):
    data = put(hub, name, SIZE)
    hub.mood.status, hub.mood.status_times = 503, 3
    get(hub, name, folder)
    assert contents(folder) == {name: data}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "20"}, 20),
        ({"RateLimit": '"api";r=0;t=55'}, 55),
        ({"Retry-After": "9000"}, 300),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, 3),
        ({}, 3),
    ],
    ids=("Retry-After", "RateLimit", "too long", "a date", "nothing"),
)
@pytest.mark.parametrize("status", (429, 503))
def test_the_hub_says_how_long_to_wait(hub, large, folder, monkeypatch, status, headers, seconds):
    data = put(hub, large, SIZE)
    hub.mood.status, hub.mood.status_times, hub.mood.headers = status, 1, headers
    told, waited = [], []
    terms = Terms(waits_s=(3,), on_wait=lambda _why, s: told.append(s))
    monkeypatch.setattr(terms.stop, "wait", lambda s: waited.append(s))
    get(hub, large, folder, terms)
    assert told == waited == [seconds]
    assert contents(folder) == {large: data}


def test_whatever_is_asked_patiently_has_the_patience_of_downloads(hub, monkeypatch):
    hub.mood.status = 503
    waited = []
    terms = Terms()
    monkeypatch.setattr(terms.stop, "wait", lambda s: waited.append(s))
    with pytest.raises(HubTrouble):
        downloads.patiently(lambda: Hub(hub.url).files(REPO), terms)
    assert tuple(waited) == downloads.WAITS_S


@pytest.mark.parametrize("status", (401, 403, 404))
def test_what_no_wait_mends_is_said_at_once(hub, large, folder, status):
    put(hub, large, SIZE)
    hub.mood.status = status
    with pytest.raises(HubTrouble):
        get(hub, large, folder)
    assert len(hub.seen) == 1


def test_links_that_have_run_out_are_asked_for_again(hub, large, folder):
    data = put(hub, large, SIZE)
    hub.mood.cdn_refusals = 2
    get(hub, large, folder)
    assert contents(folder) == {large: data}


def test_a_mirror_that_tells_no_checksums_will_do(hub, large, folder):
    data = put(hub, large, SIZE)
    hub.mood.linked, hub.mood.drop_at = False, 100_000
    get(hub, large, folder)
    assert contents(folder) == {large: data}
    assert hub.sent() == SIZE


# -- what is not what it should be -----------------------------------------------------------------


def test_a_wrong_byte_never_gets_the_name_of_the_file(hub, large, folder):
    data = put(hub, large, SIZE)
    hub.mood.corrupt_at = 200_000
    with pytest.raises(Damaged, match="checksum"):
        get(hub, large, folder)
    assert not any(path.suffix != ".lock" for path in folder.iterdir())
    hub.mood.corrupt_at = None
    get(hub, large, folder)
    assert contents(folder) == {large: data}


def test_a_part_that_was_changed_on_the_disk_is_found_out(hub, large, folder):
    put(hub, large, SIZE)
    broken_off(hub, large, folder)
    with (folder / f"{large}.part").open("r+b") as file:
        file.write(b"odd")
    with pytest.raises(Damaged):
        get(hub, large, folder)
    assert not (folder / large).exists()


def test_the_checksum_of_a_listing_counts_where_the_answer_has_none(hub, folder):
    hub.mood.lfs_min = 10 * SIZE
    put(hub, "model.bin", SIZE)
    listed = RemoteFile("model.bin", SIZE, "0" * 64)
    target = folder / "model.bin"
    with pytest.raises(Damaged):
        download(Hub(hub.url), REPO, "model.bin", target, listed=listed, terms=PATIENT)
    assert not target.exists()


def test_a_file_that_comes_too_short_is_not_taken(hub, large, folder):
    put(hub, large, SIZE)
    hub.mood.short_by = 10
    with pytest.raises(HubTrouble, match="299990 bytes, it should have 300000"):
        get(hub, large, folder, ONCE)
    assert not (folder / large).exists()


def test_a_server_that_knows_no_ranges_sends_it_all_again(hub, name, folder):
    data = put(hub, name, SIZE)
    broken_off(hub, name, folder)
    hub.mood.ranges = False
    get(hub, name, folder)
    assert contents(folder) == {name: data}
    assert hub.sent() == SIZE


def test_a_page_in_place_of_the_file_costs_nothing_of_the_part(hub, large, folder):
    data = put(hub, large, SIZE)
    broken_off(hub, large, folder)
    hub.mood.ranges, hub.mood.short_by = False, SIZE - 500
    with pytest.raises(HubTrouble, match="came with 500 bytes"):
        get(hub, large, folder, ONCE)
    assert part(folder, large) == 100_000
    hub.mood.ranges, hub.mood.short_by = True, 0
    hub.seen.clear()
    get(hub, large, folder)
    assert contents(folder) == {large: data}
    assert hub.sent() == SIZE - 100_000


@pytest.mark.parametrize(
    ("mood", "told"),
    [
        ({"coding": "gzip"}, "came packed"),
        ({"tell_length": False, "ranges": False}, "came without its length"),
    ],
    ids=("packed", "no length"),
)
def test_an_answer_that_can_not_be_the_file_costs_nothing_of_the_part(
    hub, name, folder, mood, told
):
    put(hub, name, SIZE)
    broken_off(hub, name, folder)
    for what, value in mood.items():
        setattr(hub.mood, what, value)
    with pytest.raises(HubTrouble, match=told):
        get(hub, name, folder, ONCE)
    assert part(folder, name) == 100_000


def listed(hub, name) -> RemoteFile:
    """What the listing says of a file."""
    return next(one for one in Hub(hub.url).files(REPO) if one.path == name)


def get_listed(hub, name, folder, file, terms=PATIENT):
    """Download a file of which a listing says that."""
    download(Hub(hub.url), REPO, name, folder / name, listed=file, terms=terms)


def test_a_file_without_a_checksum_is_held_against_the_one_that_git_has(hub, folder):
    name, hub.mood.lfs_min = NAMES["small"], 10 * SIZE
    data = put(hub, name, SIZE)
    file = listed(hub, name)
    hub.mood.corrupt_at = 200_000
    with pytest.raises(Damaged, match="checksum"):
        get_listed(hub, name, folder, file)
    assert contents(folder).keys() <= {f"{name}.part.lock"}
    hub.mood.corrupt_at, hub.mood.drop_at = None, 100_000
    get_listed(hub, name, folder, file)
    assert contents(folder) == {name: data}


def test_the_checksum_of_a_listing_counts_more_than_that_of_the_answer(hub, large, folder):
    put(hub, large, SIZE)
    with pytest.raises(Damaged):
        get_listed(hub, large, folder, RemoteFile(large, SIZE, "0" * 64))


def test_an_answer_of_another_length_than_listed_writes_nothing(hub, name, folder):
    data = put(hub, name, SIZE)
    file = listed(hub, name)
    put(hub, name, 500)
    with pytest.raises(HubTrouble, match="has 500 bytes, but 300000 in the list") as caught:
        get_listed(hub, name, folder, file)
    assert not caught.value.passing
    assert contents(folder).keys() == {f"{name}.part.lock"}
    put(hub, name, data)
    get_listed(hub, name, folder, file)
    assert contents(folder) == {name: data}


def test_a_pointer_never_gets_the_name_of_the_file(hub, name, folder):
    put(hub, name, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(Damaged, match="pointer of Git LFS"):
        get(hub, name, folder)
    assert contents(folder).keys() <= {f"{name}.part.lock"}


def test_the_part_of_another_mirror_is_used_where_the_checksum_is_the_same(hub, large, folder):
    data = put(hub, large, SIZE)
    file = listed(hub, large)
    hub.mood.linked = hub.mood.redirect = False
    hub.mood.etag, hub.mood.drop_at = "one", 100_000
    with pytest.raises(HubTrouble, match="broke off"):
        get_listed(hub, large, folder, file, ONCE)
    hub.seen.clear()
    hub.mood.etag = "other"
    get_listed(hub, large, folder, file)
    assert contents(folder) == {large: data}
    assert hub.sent() == SIZE - 100_000


def test_the_part_of_a_file_with_another_checksum_is_not_used(hub, large, folder):
    put(hub, large, SIZE)
    hub.mood.linked = hub.mood.redirect = False
    hub.mood.etag, hub.mood.drop_at = "same", 100_000
    with pytest.raises(HubTrouble, match="broke off"):
        get_listed(hub, large, folder, listed(hub, large), ONCE)
    data = put(hub, large, b"new" * 100_000)
    get_listed(hub, large, folder, listed(hub, large))
    assert contents(folder) == {large: data}


def test_of_a_file_that_changed_nothing_old_is_kept(hub, name, folder):
    put(hub, name, SIZE)
    broken_off(hub, name, folder)
    data = put(hub, name, b"new" * 100_000)
    get(hub, name, folder)
    assert contents(folder) == {name: data}
    assert hub.sent() == SIZE


def test_a_file_may_change_between_two_tries(hub, name, folder):
    put(hub, name, SIZE)
    hub.mood.drop_at = 100_000
    data = []
    terms = replace(PATIENT, on_wait=lambda *_: data.append(put(hub, name, b"new" * 110_000)))
    get(hub, name, folder, terms)
    assert contents(folder) == {name: data[0]}


def test_a_file_that_changes_while_it_is_asked_for_is_never_a_mixture(hub, folder, monkeypatch):
    put(hub, "vocab.json", SIZE)
    hub.mood.lfs_min = 10 * SIZE
    broken_off(hub, "vocab.json", folder)
    before = Hub(hub.url).look(REPO, "vocab.json")
    data = put(hub, "vocab.json", b"new" * 100_000)
    monkeypatch.setattr(Hub, "look", lambda *_args, **_more: before)
    get(hub, "vocab.json", folder)
    assert contents(folder) == {"vocab.json": data}


@pytest.mark.parametrize("noted", sorted(("", "[]", '{"etag": "other", "size": 300000}')))
def test_a_part_of_nobody_knows_what_is_not_used(hub, name, folder, noted):
    data = put(hub, name, SIZE)
    folder.mkdir()
    (folder / f"{name}.part").write_bytes(b"x" * 1000)
    (folder / f"{name}.part.json").write_text(noted)
    get(hub, name, folder)
    assert contents(folder) == {name: data}
    assert hub.sent() == SIZE


def test_a_part_that_is_too_long_is_not_used(hub, name, folder):
    data = put(hub, name, SIZE)
    broken_off(hub, name, folder)
    with (folder / f"{name}.part").open("ab") as file:
        file.write(b"x" * SIZE)
    get(hub, name, folder)
    assert contents(folder) == {name: data}


def test_a_part_that_is_whole_only_gets_its_name(hub, large, folder):
    data = put(hub, large, SIZE)
    broken_off(hub, large, folder)
    (folder / f"{large}.part").write_bytes(data)
    get(hub, large, folder)
    assert contents(folder) == {large: data}
    assert hub.sent() == 0


def test_a_file_that_is_there_is_not_got_again(hub, name, folder):
    data = put(hub, name, SIZE)
    get(hub, name, folder)
    hub.seen.clear()
    get(hub, name, folder)
    assert contents(folder) == {name: data}
    assert hub.sent() == 0


def test_a_file_of_another_length_is_replaced_when_the_new_one_is_whole(hub, name, folder):
    data = put(hub, name, SIZE)
    folder.mkdir()
    (folder / name).write_bytes(b"old")
    broken_off(hub, name, folder)
    assert (folder / name).read_bytes() == b"old"
    get(hub, name, folder)
    assert contents(folder) == {name: data}


# -- stopping, disks, others -----------------------------------------------------------------------


def test_a_stop_keeps_what_has_arrived(hub, name, folder):
    data = put(hub, name, SIZE)
    stop = threading.Event()
    terms = Terms(stop=stop, on_progress=lambda done: done and stop.set())
    with pytest.raises(Stopped):
        get(hub, name, folder, terms)
    have = part(folder, name)
    assert 0 < have < SIZE
    hub.seen.clear()
    get(hub, name, folder)
    assert contents(folder) == {name: data}
    assert hub.sent() == SIZE - have


def test_a_stop_ends_a_wait(hub, large, folder):
    hub.mood.status = 503
    stop = threading.Event()
    terms = Terms(waits_s=(1000,), stop=stop, on_wait=lambda *_: stop.set())
    with pytest.raises(Stopped):
        get(hub, large, folder, terms)


def test_what_does_not_fit_is_not_begun(hub, large, folder, monkeypatch):
    put(hub, large, SIZE)
    usage = namedtuple("usage", "total used free")
    free = RESERVE_BYTES + SIZE - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(0, 0, free))
    with pytest.raises(DiskFull, match=r"300\.0 kB are still to come, 200\.3 MB are free"):
        get(hub, large, folder)
    assert hub.sent() == 0


def test_only_what_is_missing_must_fit(hub, large, folder, monkeypatch):
    data = put(hub, large, SIZE)
    broken_off(hub, large, folder)
    usage = namedtuple("usage", "total used free")
    free = RESERVE_BYTES + SIZE - 100_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(0, 0, free))
    get(hub, large, folder)
    assert contents(folder) == {large: data}


def test_a_disk_that_fills_up_is_told_and_keeps_the_part(hub, large, folder, monkeypatch):
    data = put(hub, large, SIZE)
    written = os.write

    def write(handle, block):
        if os.fstat(handle).st_size + len(block) > 150_000:
            raise OSError(28, "No space left on device")
        return written(handle, block)

    monkeypatch.setattr(downloads.os, "write", write)
    with pytest.raises(DiskFull, match=r"The disk is full: .* of 300\.0 kB of model"):
        get(hub, large, folder)
    monkeypatch.undo()
    have = part(folder, large)
    assert have > 0
    hub.seen.clear()
    get(hub, large, folder)
    assert contents(folder) == {large: data}
    assert hub.sent() == SIZE - have


def test_two_never_write_the_same_file(hub, large, folder):
    put(hub, large, SIZE)
    folder.mkdir()
    other = Lease(folder / f"{large}.part.lock")
    assert other.take()
    with pytest.raises(Conflict, match="is being downloaded already"):
        get(hub, large, folder)
    assert hub.seen == []
    other.give_back()
    get(hub, large, folder)
    assert (folder / large).exists()


@pytest.mark.parametrize("name", sorted(("..", ".hidden", "a\nb", "x" * 300)))
def test_a_name_that_no_file_may_have_is_refused(hub, folder, name):
    with pytest.raises(NotFound):
        get(hub, name, folder)
    assert hub.seen == []
    assert not folder.exists()


def test_a_link_that_leads_elsewhere_is_not_followed(hub, large, folder, tmp_path):
    put(hub, large, SIZE)
    folder.mkdir()
    (tmp_path / "elsewhere").write_bytes(b"theirs")
    (folder / large).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotFound):
        get(hub, large, folder)
    assert (tmp_path / "elsewhere").read_bytes() == b"theirs"


@pytest.mark.parametrize("place", ("../elsewhere", "beside"))
def test_a_link_to_what_is_not_there_is_named_and_left(hub, large, folder, place):
    put(hub, large, SIZE)
    folder.mkdir()
    (folder / large).symlink_to(folder / place)
    with pytest.raises(Conflict, match=rf"{large} is a link to .*, which is not there\."):
        get(hub, large, folder)
    assert [path.name for path in folder.iterdir()] == [large]
    assert hub.seen == []
