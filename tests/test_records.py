"""Records that are old, damaged or edited by hand: nothing that shows a run falls over them."""

from __future__ import annotations

import copy
import json
import time

import pytest
from past import record as past_record

from musubitlx import jobs, records
from musubitlx.home import Home, read_json, write_json
from musubitlx.jobs import Jobs

RUBBISH = (None, [], {}, "", "x\ud800", 7, -1, 1e999, 10**400, float("nan"), "/", [1], {"a": [1]})
MORE = {
    "caches": {"with": {"trainer": "musubi 0.3.4"}, "files": {"a_qi.safetensors": {"of": "x"}}}
}  # what a stage has besides


def places(value: object, way: tuple = ()) -> list[tuple]:
    """The way to every value in a JSON object, the object itself aside."""
    inside = value.items() if isinstance(value, dict) else ()
    inside = enumerate(value[:1]) if isinstance(value, list) else inside
    found = [way] if way else []
    return found + [place for name, one in inside for place in places(one, (*way, name))]


def put(value: dict, way: tuple, odd: object) -> dict:
    value = copy.deepcopy(value)
    inner = value
    for name in way[:-1]:
        inner = inner[name]
    inner[way[-1]] = odd
    return value


def spoilt(home) -> list[str]:
    """One record for each place and each kind of rubbish in it; returns the ids."""
    first = past_record(home, 1, flags=["--lr_scheduler", "cosine"], captions={"a.jpg": "a ball"})
    whole = {name: read_json(home.jobs / first / name) for name in ("job.json", "status.json")}
    whole["job.json"]["stages"][0] |= MORE
    whole["status.json"] |= {"diagnosis": {"id": "oom", "lines": ["x"], "fix": None}, "bar": "x"}
    whole["status.json"]["warning"] = {"id": "nan", "text": "x", "hint": "x", "fix": None}
    made = []
    for file, value in whole.items():
        for way in places(value):
            for odd in RUBBISH:
                name = f"odd-{len(made):05d}"
                folder = home.jobs / name
                folder.mkdir()
                both = {**whole, file: put(value, way, odd)}
                if way != ("id",):
                    both["job.json"] = {**both["job.json"], "id": name}
                for one, content in both.items():
                    (folder / one).write_text(json.dumps(content))
                (folder / "metrics.jsonl").write_text('{"step": 1, "epoch": 1, "loss": 0.5}\n')
                made.append(name)
    return made


def strictly(text: str) -> object:
    """JSON as browsers read it."""

    def never(word: str):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=never)


def test_no_rubbish_in_a_record_breaks_a_page(live_server):
    """Every value of a record in turn is replaced by every kind of rubbish."""
    home = Home(live_server.home)
    home.project("ball").mkdir(parents=True)
    made = spoilt(home)
    assert len(made) > 500
    for path in ("/api/runs", "/api/jobs", "/api/state", "/api/projects/ball/outputs"):
        answer = live_server.call("GET", path)
        assert answer.status_code == 200, (path, live_server.said)
        strictly(answer.text)
    assert live_server.call("GET", "/api/projects/ball/samples").status_code == 200
    shown = [job["id"] for job in live_server.get("/api/jobs") if job["id"] in made]
    assert len(shown) > len(made) / 2
    other = shown[-1]
    for job in shown[:: max(1, len(shown) // 150)]:
        for path in (
            *(f"/api/jobs/{job}", f"/api/jobs/{job}/details", f"/api/jobs/{job}/metrics"),
            *(f"/api/jobs/{job}/log?offset=0&limit=1000", f"/api/jobs/{job}/log/search?q=x"),
            *(f"/api/jobs/{job}/metrics?format=csv", f"/api/runs/compare?a={job}&b={other}"),
        ):
            answer = live_server.call("GET", path)
            assert answer.status_code < 500, (path, job, answer.text)


def test_no_rubbish_in_a_record_breaks_a_report(home):
    from musubitlx import musubi, report

    memory = {"gpus": [], "gpu_reason": None, "ram": {}, "disk": {}}
    trainer = musubi.find(home, practice=True)
    spoilt(home)
    for job in Jobs(home).all()[::30]:
        assert report.build(job, home, trainer, memory)[:2] == b"PK"


def test_a_job_of_which_a_part_is_damaged_is_not_run_in_part(home):
    job_id = past_record(home, 1)
    path = home.jobs / job_id / "job.json"
    whole = read_json(path)
    assert not Jobs(home).get(job_id).damaged
    for odd in ({"argv": 3}, {**whole["stages"][0], "env": ["A"]}, "x"):
        write_json(path, {**whole, "stages": [*whole["stages"], odd]})
        assert Jobs(home).get(job_id).damaged


@pytest.mark.parametrize("name", sorted(records.RECORD))
def test_what_lacks_what_a_record_must_have_is_none(home, name):
    job_id = past_record(home, 1)
    path = home.jobs / job_id / "job.json"
    write_json(path, {key: value for key, value in read_json(path).items() if key != name})
    assert Jobs(home).all() == []


def test_what_a_broken_off_removal_left_is_swept(home, monkeypatch):
    job_id = past_record(home, 1)
    (home.jobs / job_id).rename(home.jobs / f"{jobs.GONE}{job_id}")
    found = Jobs(home)
    monkeypatch.setattr(found, "wake_runner", lambda queue: None)
    assert found.all() == []
    found.reconcile()
    assert list(home.jobs.iterdir()) == []


def test_an_empty_file_asks_for_a_stop_where_the_disk_is_full(home):
    folder = home.jobs / past_record(home, 1)
    write_json(folder / "request.json", {"position": 5, "after_epoch": True})
    assert jobs.request_of(folder) == {"position": 5, "after_epoch": True}
    (folder / "stop").touch()
    assert jobs.request_of(folder)["stop"] == pytest.approx(time.time(), abs=60)
    assert Jobs(home).get(folder.name).stop_asked
