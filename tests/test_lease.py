"""A lease: one holder at a time, and none that is dead."""

from __future__ import annotations

import subprocess
import sys

from support import ROOT

from musubitlx.lease import Lease

HOLDER = """
import sys, time
from pathlib import Path
from musubitlx.lease import Lease
lease = Lease(Path(sys.argv[1]))
print(lease.take(), flush=True)
time.sleep(60)
"""


def holder(path) -> subprocess.Popen:
    command = [sys.executable, "-c", HOLDER, str(path)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_one_process_holds_it_and_the_dead_give_it_back(tmp_path):
    mine = Lease(tmp_path / "lock")
    other = holder(tmp_path / "lock")
    try:
        assert other.stdout.readline() == "True\n"
        assert not mine.take()
    finally:
        other.kill()
        other.wait()
    assert mine.take()
    late = holder(tmp_path / "lock")
    try:
        assert late.stdout.readline() == "False\n"
    finally:
        late.kill()
        late.wait()


def test_it_can_be_given_back_and_taken_again(tmp_path):
    one, two = Lease(tmp_path / "lock"), Lease(tmp_path / "lock")
    assert one.take()
    assert not two.take()
    one.give_back()
    one.give_back()
    assert two.take()
    assert not one.take()
    two.give_back()
    assert one.take()


def test_a_child_of_the_holder_does_not_hold_it(tmp_path):
    mine = Lease(tmp_path / "lock")
    assert mine.take()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        mine.give_back()
        assert Lease(tmp_path / "lock").take()
    finally:
        child.kill()
        child.wait()


def test_a_file_system_without_locks_stops_nobody(tmp_path, monkeypatch):
    import errno
    import fcntl

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert Lease(tmp_path / "lock").take()
