"""RAM with container limits, VRAM with drivers of all moods, disk, and the poller."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from musubitlx import resources
from musubitlx.processes import MARK
from musubitlx.resources import Nvidia, Poller

GB = 10**9
MACHINE = SimpleNamespace(total=64 * GB, available=48 * GB)


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: MACHINE)


# -- RAM ------------------------------------------------------------------------------------------


class Groups:
    """A stand-in for /sys/fs/cgroup and /proc/self/cgroup."""

    def __init__(self, folder: Path):
        self.root, self.own = folder / "cgroup", folder / "own"
        self.root.mkdir()

    def put(self, group: str, **files) -> None:
        folder = self.root / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name.replace("__", ".")).write_text(f"{content}\n")

    def ram(self) -> dict:
        return resources.ram(self.root, self.own)

    def fullest(self) -> dict:
        return resources.fullest_ram(self.root, self.own)


@pytest.fixture
def groups(tmp_path):
    return Groups(tmp_path)


def test_without_groups_it_is_the_machine(groups):
    expected = {"used": 16 * GB, "total": 64 * GB, "percent": 25.0, "limit": "machine"}
    assert groups.ram() == expected


def test_a_container_of_version_2_counts_without_what_can_be_given_back(groups):
    groups.own.write_text("0::/\n")
    stat = f"anon {3 * GB}\ninactive_file {2 * GB}\nactive_file {GB}\nslab_reclaimable 0"
    groups.put("", memory__max=8 * GB, memory__current=6 * GB, memory__stat=stat)
    expected = {"used": 3 * GB, "total": 8 * GB, "percent": 37.5, "limit": "container"}
    assert groups.ram() == expected


def test_a_container_of_version_1_counts_the_same(groups):
    groups.own.write_text("11:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\n")
    groups.put(
        "memory/docker/abc",
        memory__limit_in_bytes=16 * GB,
        memory__usage_in_bytes=10 * GB,
        memory__stat=f"cache 1\ntotal_inactive_file {4 * GB}\ntotal_active_file {2 * GB}",
    )
    expected = {"used": 4 * GB, "total": 16 * GB, "percent": 25.0, "limit": "container"}
    assert groups.ram() == expected


def test_the_lowest_limit_on_the_way_up_counts(groups):
    groups.own.write_text("0::/user/run\n")
    groups.put("user", memory__max=4 * GB, memory__current=2 * GB, memory__stat="anon 1")
    groups.put("user/run", memory__max=8 * GB, memory__current=GB, memory__stat="anon 1")
    assert (groups.ram()["total"], groups.ram()["used"]) == (4 * GB, 2 * GB)


def test_where_the_kernel_kills_first_is_what_is_nearest_to_its_limit(groups):
    groups.own.write_text("0::/user/run\n")
    groups.put("user", memory__max=32 * GB, memory__current=31 * GB, memory__stat="anon 1")
    groups.put("user/run", memory__max=8 * GB, memory__current=GB, memory__stat="anon 1")
    assert groups.fullest()["total"] == 32 * GB and groups.fullest()["limit"] == "container"
    groups.put("user", memory__max=32 * GB, memory__current=GB, memory__stat="anon 1")
    assert groups.fullest() == {
        "used": 16 * GB,
        "total": 64 * GB,
        "percent": 25.0,
        "limit": "machine",
    }


@pytest.mark.parametrize("path", ["/docker/abc", "/../../other", ""])
def test_a_path_of_the_host_that_is_not_there_means_the_root(groups, path):
    groups.own.write_text(f"0::{path}\n")
    groups.put("", memory__max=8 * GB, memory__current=GB, memory__stat="anon 1")
    assert groups.ram()["total"] == 8 * GB


@pytest.mark.parametrize(
    "files",
    [
        {"memory__max": "max", "memory__current": GB, "memory__stat": "anon 1"},
        {"memory__max": 128 * GB, "memory__current": GB, "memory__stat": "anon 1"},
        {"memory__max": 8 * GB},
        {"memory__max": "", "memory__current": "x", "memory__stat": "odd"},
        {"memory__max": 8 * GB, "memory__current": GB, "memory__stat": "three odd words"},
    ],
)
def test_no_lower_limit_or_no_readable_one_is_the_machines(groups, files):
    groups.own.write_text("0::/\nnonsense\n")
    groups.put("", **files)
    assert groups.ram()["limit"] == "machine"


def test_no_limit_in_version_1_is_a_number_beyond_all_memory(groups):
    groups.own.write_text("4:memory:/\n")
    groups.put(
        "memory",
        memory__limit_in_bytes=9223372036854771712,
        memory__usage_in_bytes=GB,
        memory__stat="total_inactive_file 1",
    )
    assert groups.ram()["limit"] == "machine"


def test_the_real_machine_gives_figures(monkeypatch):
    monkeypatch.undo()
    found = resources.ram()
    assert 0 < found["used"] < found["total"] and 0 < found["percent"] < 100


# -- VRAM -----------------------------------------------------------------------------------------


class FakeNvml:
    """The package pynvml as far as it is used; `mood` names the call that fails, and how."""

    class NVMLError(Exception):
        pass

    nvmlMemory_v2 = 2

    def __init__(self, cards=1, **mood):
        self.cards, self.mood, self.inits = cards, mood, 0

    def fail(self, call: str, index: int | None = None) -> None:
        what = self.mood.get(call)
        if what and (index is None or index == self.mood.get("card", index)):
            raise type(f"NVMLError_{what}", (self.NVMLError,), {})(what)

    def nvmlInit(self):
        self.inits += 1
        self.fail("init")

    def nvmlShutdown(self):
        self.fail("shutdown")

    def nvmlDeviceGetCount(self):
        self.fail("count")
        return self.cards

    def nvmlDeviceGetHandleByIndex(self, index):
        self.fail("handle", index)
        return index

    def nvmlDeviceGetMemoryInfo(self, handle, version=None):
        self.fail("memory_v2" if version else "memory", handle)
        return SimpleNamespace(used=(3 if version else 4) * GB, total=12 * GB)

    def nvmlDeviceGetName(self, handle):
        self.fail("name")
        return b"Card" if self.mood.get("old") else "Card"

    def nvmlDeviceGetTemperature(self, handle, sensor):
        self.fail("temperature")
        return 55

    def nvmlDeviceGetPowerUsage(self, handle):
        self.fail("power")
        return 123_456

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        self.fail("processes")
        return [
            SimpleNamespace(pid=2**22 + 1, usedGpuMemory=None),  # as on Windows
            SimpleNamespace(pid=os.getpid(), usedGpuMemory=GB),
        ]


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def nvml(monkeypatch):
    def install(**mood) -> FakeNvml:
        fake = FakeNvml(**mood)
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        return fake

    return install


CARD = {"name": "Card", "used": 3 * GB, "total": 12 * GB, "percent": 25.0}


def test_the_cards_with_all_figures(nvml):
    fake, nvidia = nvml(cards=2), Nvidia()
    cards, reason = nvidia.gpus()
    holders = [card.pop("processes") for card in cards]
    assert cards == [{"index": i, **CARD, "temperature": 55, "power": 123} for i in range(2)]
    assert [one["pid"] for one in holders[0]] == [os.getpid(), 2**22 + 1]
    assert [one["used"] for one in holders[0]] == [GB, None]
    assert holders[0][0]["name"] == psutil.Process().name() and holders[0][1]["name"] == "a program"
    assert [one["job"] for one in holders[0]] == [None, None]
    assert reason is None
    nvidia.gpus()
    assert fake.inits == 1


def test_a_process_of_a_run_is_told_with_its_run(nvml, monkeypatch):
    nvml()
    monkeypatch.setattr(psutil.Process, "environ", lambda self: {MARK: "20260101-x"})
    [card], _ = Nvidia().gpus()
    assert card["processes"][0]["job"] == "20260101-x"
    monkeypatch.setattr(psutil.Process, "environ", refuse)
    [card], _ = Nvidia().gpus()
    assert card["processes"][0]["job"] is None
    assert card["processes"][0]["name"] == psutil.Process().name()


def refuse(process):
    raise psutil.AccessDenied(process.pid)


def test_what_a_card_does_not_tell_is_none(nvml):
    nvml(temperature="NotSupported", power="NotSupported", name="Unknown", processes="NotSupported")
    [card], reason = Nvidia().gpus()
    assert (card["temperature"], card["power"], card["name"]) == (None, None, "GPU 0")
    assert reason is None


def test_old_drivers_and_packages_give_the_older_figures(nvml):
    nvml(memory_v2="FunctionNotFound", old=True)
    [card], _ = Nvidia().gpus()
    assert (card["used"], card["name"]) == (4 * GB, "Card")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("LibraryNotFound", "No NVIDIA driver"),
        ("DriverNotLoaded", "not running"),
        ("LibRmVersionMismatch", "Restart the machine"),
        ("NoPermission", "may not ask"),
        ("SomethingNew", "SomethingNew"),
    ],
)
def test_no_driver_is_a_sentence_and_asked_again_after_30_seconds(nvml, error, words):
    fake, clock = nvml(init=error), Clock()
    nvidia = Nvidia(clock)
    for _ in range(5):
        cards, reason = nvidia.gpus()
        assert cards == [] and words in reason and reason.endswith(".")
    assert fake.inits == 1
    fake.mood.clear()
    clock.now += 31
    assert nvidia.gpus()[0][0]["index"] == 0


def test_without_the_package_there_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert Nvidia().gpus() == ([], "The package nvidia-ml-py is not installed: no VRAM figures.")


def test_one_card_that_is_lost_does_not_hide_the_other(nvml):
    nvml(cards=2, handle="GpuIsLost", card=0)
    cards, reason = Nvidia().gpus()
    assert [card["index"] for card in cards] == [1]
    assert reason == "1 of 2 GPUs do not answer."


@pytest.mark.parametrize("mood", [{"count": "Unknown"}, {"handle": "Uninitialized"}])
def test_a_driver_that_goes_away_is_started_anew_later(nvml, mood):
    fake, clock = nvml(shutdown="Uninitialized"), Clock()
    nvidia = Nvidia(clock)
    assert nvidia.gpus()[0]
    fake.mood |= mood
    cards, reason = nvidia.gpus()
    assert cards == [] and reason
    fake.mood.clear()
    assert nvidia.gpus()[0] == []
    clock.now += 31
    assert nvidia.gpus()[0] and fake.inits == 2


# -- disk -----------------------------------------------------------------------------------------


def test_the_disk_of_a_folder_that_is_not_made_yet(tmp_path):
    found = resources.disk(tmp_path / "a/b/c")
    assert 0 < found["free"] < found["total"] == resources.disk(tmp_path)["total"]


def test_a_disk_that_does_not_answer_has_no_figures(tmp_path, monkeypatch):
    def broken(place):
        raise OSError("gone")

    monkeypatch.setattr(resources.shutil, "disk_usage", broken)
    assert resources.disk(tmp_path) == {"free": None, "total": None}


# -- the poller -----------------------------------------------------------------------------------


class Driver:
    """Counts how often it is asked; hangs while `open` is not set."""

    def __init__(self):
        self.asked, self.open = 0, threading.Event()
        self.open.set()

    def __call__(self):
        self.open.wait(20)
        self.asked += 1
        return [{"index": 0, **CARD}], None


def wait_until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.005)


@pytest.fixture
def driver():
    driver = Driver()
    yield driver
    driver.open.set()


def test_the_first_snapshot_is_whole(tmp_path, driver):
    found = Poller(tmp_path, read_gpus=driver).snapshot()
    assert list(found) == ["ram", "gpus", "gpu_reason", "disk"]
    assert found["ram"]["total"] == 64 * GB and found["disk"]["total"]
    assert found["gpus"] == [{"index": 0, **CARD}] and found["gpu_reason"] is None


def test_it_samples_while_somebody_asks_and_rests_otherwise(tmp_path, driver):
    poller = Poller(tmp_path, interval_s=0.02, idle_after_s=0.2, read_gpus=driver)
    poller.snapshot()
    wait_until(lambda: driver.asked >= 3)
    wait_until(lambda: not poller._running)
    asked = driver.asked
    time.sleep(0.1)
    assert driver.asked == asked
    poller.snapshot()
    assert driver.asked > asked  # fresh after the rest, not of before


def test_many_callers_share_one_thread(tmp_path, driver):
    poller = Poller(tmp_path, interval_s=10, read_gpus=driver)
    callers = [threading.Thread(target=poller.snapshot) for _ in range(10)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert driver.asked == 1


def test_a_hanging_driver_holds_a_caller_once_and_a_second_at_most(tmp_path, driver):
    driver.open.clear()
    poller = Poller(tmp_path, interval_s=0.02, read_gpus=driver)
    started = time.monotonic()
    found = poller.snapshot()
    assert 0.9 < time.monotonic() - started < 2
    assert found["gpus"] == [] and "does not answer" in found["gpu_reason"]
    assert found["ram"]["total"] and found["disk"]["total"]
    started = time.monotonic()
    for _ in range(20):
        poller.snapshot()
    assert time.monotonic() - started < 0.5
    driver.open.set()
    wait_until(lambda: poller.snapshot()["gpus"])


def test_a_driver_that_hangs_later_is_told_and_old_figures_are_not_shown(
    tmp_path, driver, monkeypatch
):
    monkeypatch.setattr(resources, "STUCK_S", 0.1)
    poller = Poller(tmp_path, interval_s=0.02, read_gpus=driver)
    assert poller.snapshot()["gpus"]
    driver.open.clear()
    wait_until(lambda: poller.snapshot()["gpus"] == [])
    assert "does not answer" in poller.snapshot()["gpu_reason"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_a_sample_does_not_end_sampling_for_ever(tmp_path):
    answers = iter([ValueError("bug")])

    def read():
        for error in answers:
            raise error
        return [], "none"

    poller = Poller(tmp_path, interval_s=0.01, read_gpus=read)
    poller.snapshot()
    wait_until(lambda: poller.snapshot()["gpu_reason"] == "none")
