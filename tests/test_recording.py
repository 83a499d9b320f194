"""What is kept of a run on a disk that fills up and has room again."""

from __future__ import annotations

import errno

import pytest
from past import record

from musubitlx import runner
from musubitlx.bell import Ringer
from musubitlx.home import read_json, write_json
from musubitlx.jobs import INTERRUPTED, Jobs
from musubitlx.recording import LogFile


class Disk:
    """A file on a disk with so many bytes of room; what does not fit is written in part."""

    def __init__(self, file, room: int):
        self._file, self.room = file, room

    @property
    def closed(self) -> bool:
        return self._file.closed

    def write(self, data: bytes) -> int:
        part = data[: self.room]
        if data and not part:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= len(part)
        return self._file.write(part)

    def close(self) -> None:
        self._file.close()


@pytest.fixture
def log(home, tmp_path):
    """A log on a disk that has room for nothing yet."""
    made = LogFile(tmp_path / "x.log", Ringer(home))
    made._file = Disk(made._file, 0)
    return made


def test_what_a_full_disk_did_not_take_is_counted_and_said_on_a_line_of_its_own(log):
    log._file.room = 13
    log.line("0123456789")  # 11 bytes
    log.line("abcdefgh")  # 2 of 9 go in
    log.line("lost")  # 5
    log._file.room = 1000
    log.line("on we go")
    log.close()
    lines = log.path.read_text().splitlines()
    assert lines == ["0123456789", "ab", "[12 bytes of log are lost: disk full]", "on we go"]


@pytest.mark.parametrize("room", [0, 1, 7, 12, 30])
def test_the_end_stands_once_and_whole_however_much_of_it_went_in_at_first(log, room):
    words = ["", "TRAINING ABORTED. The disk is full.", "What to do: Make room."]
    log._file.room = 5 + room
    log.line("line")
    log.last_lines(words)
    log._file.room = 1000
    log.close()
    assert log.path.read_text().splitlines() == ["line", *words]


def test_the_end_of_a_broken_off_run_is_said_once_though_the_disk_is_full(home, monkeypatch):
    job_id = record(home, 1)
    path = home.jobs / job_id / "status.json"
    gone = {"pid": 2**22 + 7, "birth": 1.0}
    write_json(path, {**read_json(path), "state": "running", "runner": gone})
    records = Jobs(home)
    log = home.output / "ball/training_log_1.log"
    log.parent.mkdir()
    assert records.get(job_id).state == INTERRUPTED

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(runner, "write_json", full)
        for _ in range(3):
            runner.settle(records, "gpu0")
    assert not log.exists()
    runner.settle(records, "gpu0")
    runner.settle(records, "gpu0")
    assert log.read_text().count("TRAINING ABORTED") == 1
