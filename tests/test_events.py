"""The event stream: every line once, whoever looks, wherever it was cut."""

from __future__ import annotations

import json
import random
import re
import shutil
import sys
import threading
import time

import pytest
from support import SMALL, bare_plan, log_text, parse_events, picture, wait_until

from musubitlx.jobs import Jobs

PRINTS = """
import sys, time
for n in range({lines}):
    print(f"line {{n}} " + "x" * {width}, flush={flush})
    {pause}
"""


def printing(home, lines=2000, width=20, pause_s=0.0):
    """A job whose trainer prints numbered lines; queued, not started."""
    pause = f"time.sleep({pause_s})" if pause_s else ""
    body = PRINTS.format(lines=lines, width=width, flush=bool(pause_s), pause=pause)
    jobs = Jobs(home)
    jobs.wake_runner = lambda queue: None  # the server will see to it
    return jobs.submit(bare_plan(home, [sys.executable, "-c", body]))


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"^line (\d+) ", text, re.M)]


@pytest.mark.parametrize("kind", ["gevent", "waitress", "flask"])
def test_ten_viewers_get_each_line_of_a_burst_once(program, home, kind):
    server = program("--server", kind)
    job = printing(home, lines=20_000)
    found = {}

    def view(number):
        found[number] = log_text(server.events_until_end(job.id))

    viewers = [threading.Thread(target=view, args=(number,)) for number in range(10)]
    for viewer in viewers:
        viewer.start()
    for viewer in viewers:
        viewer.join(timeout=60)
    for text in found.values():
        assert numbers(text) == list(range(20_000))
    assert len(found) == 10 and len(set(found.values())) == 1


def test_a_stream_cut_anywhere_goes_on_without_gap_or_repeat(program, home):
    server = program()
    job = printing(home, lines=400, pause_s=0.005)
    whole, last_id, cuts = "", None, 0
    rng = random.Random(7)
    while True:
        stop_after = rng.randrange(1, 40)
        with server.events(last_id, job=job.id) as stream:
            for event in stream:
                if event.name == "log":
                    whole, last_id = whole + event.data["text"], event.id
                    stop_after -= 1
                if stop_after == 0 or (event.name == "job" and event.data["ended"]):
                    break
        cuts += 1
        if event.name == "job" and event.data["ended"]:
            break
    assert cuts > 5
    assert whole == server.log(job.id) and numbers(whole) == list(range(400))


def test_an_event_id_is_the_byte_after_the_event(program, home):
    server = program()
    job = printing(home, lines=300)
    server.wait_for(job.id)
    log = server.log(job.id).encode()
    offset = 0
    for event in server.events_until_end(job.id):
        if event.name == "log":
            offset += len(event.data["text"].encode())
            assert event.id == f"{job.id}:{offset}"
    assert offset == len(log)


def test_reconnecting_over_a_restart_of_the_server_loses_nothing(program, home):
    server = program()
    job = printing(home, lines=600, pause_s=0.005)
    first, last_id = "", None
    with server.events(job=job.id) as stream:
        for event in stream:
            if event.name == "log":
                first, last_id = first + event.data["text"], event.id
            if len(numbers(first)) > 50:
                break
    server.kill()
    server.start()
    rest = log_text(server.events_until_end(job.id, last_id))
    assert first + rest == server.log(job.id)
    assert numbers(first + rest) == list(range(600))


def test_a_long_log_starts_with_its_tail_and_says_so(program, home):
    server = program()
    job = printing(home, lines=20_000, width=40)
    server.wait_for(job.id)
    events = server.events_until_end(job.id)
    told = next(event for event in events if event.name == "log")
    text = log_text(events)
    log = server.log(job.id)
    assert len(text.encode()) <= 262_144 and log.endswith(text)
    assert told.data["skipped"] == len(log.encode()) - len(text.encode())
    assert text.startswith("line ")
    resumed = server.events_until_end(job.id, f"{job.id}:0")  # one who asks gets all of it
    assert log_text(resumed) == log


def test_ids_that_make_no_sense_start_from_the_beginning(program, home):
    server = program()
    job = printing(home, lines=50)
    server.wait_for(job.id)
    log = server.log(job.id)
    for last_id in ("rubbish", "../x:5", f"{job.id}:999999999", "other:3", f"{job.id}:-1"):
        assert log_text(server.events_until_end(job.id, last_id)) == log
    query = server.call("GET", f"/api/events?job={job.id}&last_event_id={job.id}:0", stream=True)
    assert next(parse_events(query.iter_content(None))).name == "log"
    assert server.call("GET", "/api/events?job=nothing").status_code == 404


def test_a_line_wakes_the_stream_instead_of_waiting_for_its_next_look(program, home):
    server = program()
    body = (
        "import time\n"
        "for n in range(60):\n"
        "    print('at', time.monotonic(), flush=True)\n"
        "    time.sleep(0.03)\n"
    )
    jobs = Jobs(home)
    jobs.wake_runner = lambda queue: None
    delays = []
    with server.events() as stream:
        jobs.submit(bare_plan(home, [sys.executable, "-c", body]))
        for event in stream:
            if event.name == "log":
                for printed in re.findall(r"^at ([\d.]+)", event.data["text"], re.M):
                    delays.append(event.at - float(printed))
            if event.name == "job" and event.data["ended"]:
                break
    delays = sorted(delays)
    assert len(delays) == 60
    # The bar of the benchmark is 2 ms; this only tells waking up from polling every 250 ms.
    assert delays[30] < 0.05, f"median {delays[30] * 1000:.1f} ms"


def test_waitress_keeps_room_for_pages_and_refuses_streams_kindly(program, home):
    server = program("--server", "waitress")
    job = printing(home, lines=10)
    server.wait_for(job.id)
    open_streams = [server.call("GET", "/api/events", stream=True) for _ in range(20)]
    assert all(answer.status_code == 200 for answer in open_streams)
    refused = server.call("GET", "/api/events")
    assert refused.status_code == 503 and refused.json()["error"]
    assert int(refused.headers["Retry-After"]) > 0
    began = time.monotonic()
    assert server.call("GET", "/api/state").status_code == 200
    assert time.monotonic() - began < 1
    polled = server.call("GET", f"/api/jobs/{job.id}/log?offset=0")
    assert numbers(polled.text) == list(range(10))
    assert polled.headers["X-Log-Offset"] == str(len(polled.content))
    rest = server.call("GET", f"/api/jobs/{job.id}/log?offset={polled.headers['X-Log-Offset']}")
    assert rest.status_code == 200 and rest.content == b""
    for answer in open_streams:
        answer.close()
    wait_until(
        lambda: server.call("GET", "/api/events", stream=True).status_code == 200,
        seconds=3,
        what="a place to be free again",
    )


@pytest.mark.parametrize("kind", ["gevent", "waitress"])
def test_a_viewer_that_reads_nothing_holds_up_nobody(program, home, kind):
    import socket

    server = program("--server", kind)
    job = printing(home, lines=60_000, width=60)
    port = server.record["port"]
    with socket.create_connection(("127.0.0.1", port)) as lazy:
        lazy.sendall(f"GET /api/events?job={job.id} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        text = log_text(server.events_until_end(job.id, f"{job.id}:0"))
        assert numbers(text) == list(range(60_000))
        assert server.call("GET", "/healthz", timeout=2).status_code == 200


def test_the_stream_tells_state_memory_bar_and_samples(with_stand_in):
    server = with_stand_in(env={"STAND_IN_STEPS": "60", "STAND_IN_STEP_S": "0.02"})
    job = server.post("/api/projects/ball/train", {"settings": SMALL})["id"]
    sample = server.home / "output/ball/sample/ball_e000000_00_20260101120000_42_000.png"
    seen = {}
    with server.events(job=job) as stream:
        for event in stream:
            seen.setdefault(event.name, []).append(event.data)
            if event.name == "bar" and not sample.exists():
                sample.parent.mkdir(exist_ok=True)
                sample.write_bytes(picture(kind="PNG"))
            if event.name == "job" and event.data["ended"] and "samples" in seen:
                break
    assert any("steps:" in bar["text"] for bar in seen["bar"]) and seen["bar"][-1]["text"] == ""
    states = [told["state"] for told in seen["job"]]
    assert states[-1] == "succeeded" and "running" in states
    assert seen["resources"][0]["ram"]["total"] > 0
    assert seen["samples"][0]["samples"][0]["epoch"] == 0
    times = [told["progress"]["step"] for told in seen["job"]]
    assert len(times) < 60 * 0.02 / 0.2 + 12  # at most five a second
    assert json.dumps(seen)


def test_a_stream_tells_of_others_as_they_come_change_and_go(with_stand_in):
    """Also of those that are over within a moment, and of a record that goes with its run."""
    server = with_stand_in(train="fails")
    first = server.post("/api/projects/ball/train", {"settings": SMALL})["id"]
    server.wait_for(first)
    told: dict[str, list] = {}
    second = None
    with server.events(job=first) as stream:
        for event in stream:
            if event.name in ("job", "gone"):
                key = event.data["id"] if event.name == "job" else event.data["job"]
                told.setdefault(key, []).append(event.data.get("state", "gone"))
            if second is None and first in told:
                second = server.post("/api/projects/ball/train", {"settings": SMALL})["id"]
            if second and told.get(second, [""])[-1] == "failed":
                server.call("DELETE", f"/api/jobs/{second}")
            if second and told.get(second, [""])[-1] == "gone":
                break
    assert told[first] == ["failed"] and told[second][-2:] == ["failed", "gone"]


def test_a_stream_whose_run_vanishes_turns_to_the_next(program, home):
    server = program()
    first = printing(home, lines=4000, pause_s=0.005)
    seen, second = [], None
    with server.events() as stream:
        for event in stream:
            if event.name == "log":
                seen.append(event.data["job"])
            if second is None and seen:
                shutil.rmtree(home.jobs / first.id, ignore_errors=True)
                second = printing(home, lines=20)
            if second and second.id in seen:
                break
    assert seen[0] == first.id and seen[-1] == second.id
