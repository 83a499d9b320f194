"""The order of a queue: what is moved, taken out, put back, while others do the same."""

from __future__ import annotations

import random
import threading

import pytest
from support import bare_plan, wait_until

from musubitlx import jobs as records
from musubitlx import queues
from musubitlx.errors import Conflict, NotFound
from musubitlx.home import write_json
from musubitlx.jobs import QUEUED, STOPPED, SUCCEEDED, Jobs


@pytest.fixture
def queue(home, monkeypatch):
    """A queue in which nothing runs, and a function that puts jobs of these titles into it."""
    monkeypatch.setattr(Jobs, "wake_runner", lambda self, queue: None)
    jobs = Jobs(home)

    def fill(*titles: str) -> dict[str, str]:
        return {title: jobs.submit(bare_plan(home, ["x"], title=title)).id for title in titles}

    jobs.fill = fill
    return jobs


def titles(jobs: Jobs) -> str:
    return "".join(job.title for job in jobs.waiting("gpu0"))


@pytest.mark.parametrize(
    ("moved", "before", "then"),
    [
        ("d", "a", "dabc"),
        ("d", "b", "adbc"),
        ("a", None, "bcda"),
        ("b", "d", "acbd"),
        ("a", "a", "abcd"),
        ("a", "b", "abcd"),
        ("d", None, "abcd"),
    ],
)
def test_a_job_waits_where_it_was_put(queue, moved, before, then):
    ids = queue.fill(*"abcd")
    order = queues.move(queue, ids[moved], before and ids[before])
    assert "".join(job.title for job in order) == titles(queue) == then
    assert titles(Jobs(queue.home)) == then  # on the disk, for the runner


def test_what_comes_later_waits_behind_everything_that_was_moved(queue):
    ids = queue.fill(*"abc")
    queues.move(queue, ids["a"], None)
    queue.fill("d")
    assert titles(queue) == "bcad"


def test_places_never_run_out(queue):
    ids = queue.fill(*"abcde")
    wanted = list("abcde")
    dice = random.Random(1)
    for _ in range(150):
        moved, before = dice.sample("abcde", 2)
        wanted.remove(moved)
        wanted.insert(wanted.index(before), moved)
        queues.move(queue, ids[moved], ids[before])
        assert titles(queue) == "".join(wanted)
    for _ in range(120):  # always into the same gap, which halves each time
        last = titles(queue)[-1]
        queues.move(queue, ids[last], ids[titles(queue)[1]])
        assert len(titles(queue)) == 5
        assert titles(queue)[1] == last


def test_two_who_move_and_stop_at_once_lose_nothing(queue):
    ids = queue.fill(*"abcdefgh")

    def shuffle(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(25):
            queues.move(queue, ids[dice.choice("abcdefg")], ids[dice.choice("abcdefg")])

    threads = [threading.Thread(target=shuffle, args=(seed,)) for seed in range(4)]
    threads.append(threading.Thread(target=queue.stop, args=(ids["h"],)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(titles(queue)) == list("abcdefg")
    assert queue.get(ids["h"]).state == STOPPED


def test_a_move_and_a_stop_of_one_job_both_count(queue):
    ids = queue.fill(*"ab")
    job = queue.get(ids["b"])
    queues.move(queue, job.id, ids["a"])
    queue.ask(job, stop=1.0)  # by somebody who read it before the move
    assert set(queue.get(job.id).request) == {"position", "stop"}


def test_what_has_begun_or_was_taken_out_is_not_moved(queue):
    ids = queue.fill(*"abc")
    queue.stop(ids["a"])
    with pytest.raises(Conflict):
        queues.move(queue, ids["a"], ids["c"])
    with pytest.raises(NotFound):
        queues.move(queue, ids["b"], "nothing")
    with pytest.raises(NotFound):
        queues.move(queue, "../x", None)


def test_before_one_that_was_taken_out_meanwhile_is_still_that_place(queue):
    ids = queue.fill(*"abcd")
    queue.stop(ids["c"])
    queues.move(queue, ids["d"], ids["c"])
    assert titles(queue) == "abd"
    queues.move(queue, ids["d"], ids["b"])
    queue.stop(ids["b"])
    queues.move(queue, ids["a"], ids["b"])
    assert titles(queue) == "da"


def test_what_was_taken_out_comes_back_to_its_place(queue):
    ids = queue.fill(*"abc")
    queue.stop(ids["b"])
    assert titles(queue) == "ac"
    assert queues.put_back(queue, ids["b"]).state == QUEUED
    assert titles(queue) == "abc"
    assert queues.put_back(queue, ids["b"]).state == QUEUED  # a second browser asks, too


def test_what_had_begun_is_not_put_back(queue):
    ids = queue.fill(*"ab")
    write_json(queue.get(ids["a"]).folder / "status.json", {"state": "stopped", "ended": 1.0})
    write_json(queue.get(ids["b"]).folder / "claim", {"pid": 1})
    for name in "ab":
        with pytest.raises(Conflict):
            queues.put_back(queue, ids[name])


def test_a_job_deleted_meanwhile_is_a_sentence(queue):
    ids = queue.fill("a")
    job = queue.get(ids["a"])
    queue.stop(job.id)
    queue.forget(job.id)
    with pytest.raises(NotFound):
        queue.ask(job, position=1.0)
    assert not job.folder.exists()


def test_a_runner_at_work_and_people_who_move_lose_no_job(home):
    """The real runner takes one job after the other while the rest is shuffled."""
    import sys

    jobs = Jobs(home)
    command = [sys.executable, "-c", "pass"]
    ids = [jobs.submit(bare_plan(home, command, title=str(n))).id for n in range(8)]
    dice = random.Random(3)
    out = None

    def all_over() -> bool:
        return all(job.ended for job in jobs.all())

    while not all_over():
        waiting = [job.id for job in jobs.waiting("gpu0")]
        if len(waiting) > 1:
            try:
                queues.move(jobs, *dice.sample(waiting, 2))
            except Conflict:
                continue  # it began in this moment
            if out is None:
                out = jobs.stop(waiting[-1]).id
                try:
                    queues.put_back(jobs, out)
                except Conflict:
                    out = "began"
    wait_until(all_over)
    states = [jobs.get(one).state for one in ids]
    assert states.count(SUCCEEDED) >= 7
    assert {*states} <= {SUCCEEDED, STOPPED}
    begun = [job.status["started"] for job in jobs.all()]
    assert len(begun) == len(set(begun)) == 8
    assert records.QUEUED not in states
