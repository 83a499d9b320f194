"""Rows and details of runs, the stream of the page of runs, and what differs between two."""

from __future__ import annotations

import json
import shutil
import time

import pytest
from past import record
from support import SMALL, parse_events, pictures

from musubitlx import board, comparison, history
from musubitlx.bell import Bell
from musubitlx.home import write_json
from musubitlx.jobs import Jobs


def test_a_row_says_what_the_list_shows(home):
    record(home, 1, lora_rank=8, note="Best so far", loss=0.07, recipe="person")
    row = history.History(Jobs(home)).look()["runs"][0]
    assert (row["name"], row["project"], row["state"]) == ("ball 1", "ball", "succeeded")
    assert (row["progress"]["step"], row["progress"]["loss"], row["images"]) == (100, 0.07, 2)
    assert (row["settings"]["lora_rank"], row["settings"]["recipe"]) == (8, "person")
    assert row["note"] == "Best so far"
    assert "prompt" not in row["settings"] and "stages" not in row


def test_steps_of_caching_are_not_told_as_those_of_training(home):
    job = record(home, 1, state="failed")
    path = home.jobs / job / "status.json"
    stage = {"index": 1, "count": 3, "name": "latents", "title": "Caching latents"}
    write_json(path, {**json.loads(path.read_text()), "stage": stage})
    row = history.row(Jobs(home).get(job))
    assert not row["training"] and row["progress"]["step"] == 40


@pytest.mark.parametrize(
    "odd", [{"settings": 7}, {"stages": ["x", {"argv": 3}]}, {"inputs": "a"}, {"files": [1]}]
)
def test_an_odd_record_is_told_as_far_as_it_goes(home, odd):
    job = record(home, 1)
    path = home.jobs / job / "job.json"
    write_json(path, {**json.loads(path.read_text()), **odd})
    found = Jobs(home).get(job)
    assert history.row(found)["id"] == job
    assert json.dumps(history.details(found))
    assert comparison.compare(found, found)["rows"] == []


def test_details_hold_settings_as_typed_and_what_really_ran(home):
    job = record(home, 1, learning_rate=1e-4, samples_enabled=True, flags=["--fp8_base"])
    told = history.details(Jobs(home).get(job))
    rows = {row["name"]: row for row in told["rows"]}
    assert rows["learning_rate"]["value"] == "1e-4" and not rows["learning_rate"]["default"]
    assert rows["samples_enabled"]["value"] == "on"
    assert rows["epochs"] == {"name": "epochs", "label": "Epochs", "value": "6", "default": True}
    assert told["commands"][0]["command"] == "python train.py --seed 42 --fp8_base"
    assert told["versions"] == {"MusubiTLX": "0.5.0", "Musubi Tuner": "practice trainer"}
    assert not told["log_there"] and told["last_lines"] == []


# -- what differs ----------------------------------------------------------------------------------


def difference(home, first: dict, second: dict) -> dict:
    """What differs between two runs of these settings, by group and label."""
    shutil.rmtree(home.jobs)
    pair = [
        Jobs(home).get(record(home.make(), number, output_name="x", **given))
        for number, given in enumerate((first, second))
    ]
    rows = comparison.compare(*pair)["rows"]
    return {(row["group"], row["label"]): row["values"] for row in rows}


def test_only_what_differs_is_told(home):
    assert difference(home, {}, {}) == {}
    found = difference(home, {"lora_rank": 8}, {"lora_rank": 16})
    assert found == {("Settings", "LoRA rank"): ["8", "16"]}


def test_flags_are_compared_as_they_were_parsed(home):
    first = {"flags": ["--blocks_to_swap", "20", "--fp8_base", "--optimizer_args", "a=1", "b=-2"]}
    second = {"flags": ["--optimizer_args", "a=1", "b=-2", "--blocks_to_swap=10"]}
    assert difference(home, first, second) == {
        ("Flags: Training the LoRA", "--blocks_to_swap"): ["20", "10"],
        ("Flags: Training the LoRA", "--fp8_base"): ["on", ""],
    }


def test_what_a_setting_says_is_not_said_again_by_its_flag(home):
    assert difference(home, {"seed": 1}, {"seed": 2}) == {("Settings", "Seed"): ["1", "2"]}


def test_images_and_captions_are_compared(home):
    first = {"images": ["a.jpg", "b.jpg"], "captions": {"a.jpg": "a ball"}}
    second = {"images": ["a.jpg", "c.jpg", "d.jpg"], "captions": {"a.jpg": "a red ball"}}
    assert difference(home, first, second) == {
        ("Images", "Number"): ["2", "3"],
        ("Images", "Only in this run"): ["b.jpg", "c.jpg, d.jpg"],
        ("Captions", "a.jpg"): ["a ball", "a red ball"],
    }


# -- live ------------------------------------------------------------


def test_the_stream_tells_all_first_and_then_only_what_is_new(home):
    jobs = Jobs(home)
    old, other = record(home, 1), record(home, 2)
    stream = board.stream(history.History(jobs), Bell(), lambda: False, time.sleep, dict)
    heard = []
    events = (e for e in parse_events(stream) if heard.append(e.name) or e.name == "runs")
    first = next(events).data
    assert first["first"] and [row["id"] for row in first["runs"]] == [other, old]
    newest = record(home, 3)
    told = next(events).data
    assert (told["first"], [row["id"] for row in told["runs"]]) == (False, [newest])
    jobs.forget(old)
    (home.jobs / other / "notes.txt").write_text("hm")
    told = next(events).data
    assert told["removed"] == [old] and [row["note"] for row in told["runs"]] == ["hm"]
    assert heard.count("resources") >= 1


def test_a_thousand_runs_are_looked_at_quickly_again(home):
    for number in range(1000):
        record(home, number)
    all_of_them = history.History(Jobs(home))
    first = all_of_them.look()["runs"]
    begun = time.process_time()
    again = all_of_them.look()["runs"]
    assert time.process_time() - begun < 0.5
    assert all(a is b for a, b in zip(first, again, strict=True))


# -- over HTTP ------------------------------------------------------------


def test_runs_over_http(live_server):
    live_server.upload("ball", pictures(2))
    job = live_server.post("/api/projects/ball/train", {"settings": SMALL})["id"]
    assert live_server.wait_for(job)["state"] == "succeeded"
    row = live_server.get("/api/runs")["runs"][0]
    assert (row["id"], row["name"], row["images"]) == (job, "ball", 2)
    told = live_server.get(f"/api/jobs/{job}/details")
    assert [stage["title"] for stage in told["commands"]][-1] == "Training the LoRA"
    assert "TRAINING COMPLETED!" in told["last_lines"]
    assert told["versions"]["MusubiTLX"] and "[[datasets]]" in told["dataset_config"]
    saved = live_server.put(f"/api/jobs/{job}/notes", {"text": "good", "base": told["notes_tag"]})
    answer = live_server.call(
        "PUT", f"/api/jobs/{job}/notes", json={"text": "x", "base": told["notes_tag"]}
    )
    assert answer.status_code == 409 and answer.json()["tag"] == saved["tag"]
    assert live_server.get(f"/api/runs/compare?a={job}&b={job}") == {"rows": [], "captions": 0}
    for path in ("/api/runs/compare?a=x&b=y", "/api/jobs/x/details", "/api/jobs/x/report"):
        assert live_server.call("GET", path).status_code == 404
    wrong = (("move", {}, 422), ("move", {"before": None}, 409), ("put-back", {}, 409))
    for path, body, status in wrong:
        assert live_server.call("POST", f"/api/jobs/{job}/{path}", json=body).status_code == status
    deleted = live_server.post("/api/runs/delete", {"names": [job, "gone"]})
    assert deleted["removed"] == [job] and deleted["kept"][0]["id"] == "gone"
    assert live_server.get("/api/runs") == {"runs": [], "order": []}
    assert (live_server.home / "output/ball/ball.safetensors").is_file()
