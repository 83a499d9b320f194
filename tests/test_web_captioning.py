"""Captions by a model, from the request to the files: the real program on tiny models."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress

import psutil
import pytest
from captioners_there import (
    install,
    look_alike,
    python_of,
    stand_in_python,
    tiny_models,  # noqa: F401
)
from standins.fakehub import FakeHub
from support import ROOT, SMALL, parse_events, picture, pictures, wait_until

from musubitlx import captioned, processes
from musubitlx.captioners import BY_ID
from musubitlx.home import Home, read_json
from musubitlx.projects import Project

CAPTIONS = "/api/projects/ball/captions"


@pytest.fixture
def begin(program):
    """A function that starts the program with a Python for captioning and a folder of images."""

    def start(python, images: int, **env: str):
        server = program("--practice", env={"MUSUBITLX_CAPTION_PYTHON": str(python), **env})
        server.post("/api/projects", {"name": "ball"})
        assert server.upload("ball", small(images)).status_code == 201
        return server

    return start


@pytest.fixture
def real(begin, tmp_path, tiny_models):  # noqa: F811
    """A function that starts the program with tiny models which are loaded and write."""

    def start(*models: str, images: int = 4, **env: str):
        install(tmp_path / "home", tiny_models, *models)
        return begin(python_of(), images, **env)

    return start


@pytest.fixture
def captioning(begin, tmp_path):
    """The same with a model that is none, and takes its time: `each_s` for an image."""

    def start(images: int = 4, each_s: float = 0.0, **env: str):
        look_alike(tmp_path / "home", "vit-gpt2")
        environment = {"STANDIN_CAPTION_S": str(each_s), "PYTHONPATH": str(ROOT), **env}
        return begin(stand_in_python(tmp_path), images, **environment)

    return start


def small(count: int) -> dict[str, bytes]:
    return {f"ball {number:02d}.jpg": picture(number, (96, 64)) for number in range(count)}


def captions_of(server) -> dict[str, str]:
    return {one["name"]: one["caption"] for one in server.get("/api/projects/ball")["images"]}


def rows_of(server, job: str) -> list[dict]:
    return server.get(f"/api/jobs/{job}/captions")["rows"]


def start(server, model: str = "vit-gpt2", **more) -> str:
    return server.post(CAPTIONS, {"model": model, "max_tokens": 32, **more})["id"]


def members_of(job: str) -> list[psutil.Process]:
    """The processes of a job, by the mark each has in its environment."""
    found = []
    for one in psutil.process_iter():
        with suppress(psutil.Error):
            if one.environ().get(processes.MARK) == job:
                found.append(one)
    return found


# -- the whole way ---------------------------------------------------------------------------------


def test_every_image_gets_a_caption_which_comes_by_itself_and_can_be_taken_back(real):
    server = real("vit-gpt2")
    job = start(server)
    told = server.wait_for(job)
    assert told["state"] == "succeeded", server.log(job)
    assert told["kind"] == "caption" and not told["trial"]
    assert (told["progress"]["step"], told["progress"]["total"]) == (4, 4)
    assert told["progress"]["unit"] == "image"
    written = captions_of(server)
    assert all(written.values())
    assert {row["name"]: row["after"] for row in rows_of(server, job)} == written
    log = server.log(job)
    assert "CAPTIONING COMPLETED!" in log and "Captioned 4 images" in log
    assert members_of(job) == []  # and with its process all its memory is gone

    last = server.get("/api/projects/ball")["last_edit"]
    assert last["count"] == 4 and last["run"] == job and "ViT-GPT2" in last["title"]
    server.post(f"{CAPTIONS}/undo", {"at": last["at"]})
    assert not any(captions_of(server).values())


def test_texts_reach_an_open_page_image_by_image(captioning):
    server = captioning(images=8, each_s=0.3)
    with server.session.get(
        server.url + "/api/events", params={"project": "ball"}, stream=True, timeout=60
    ) as answer:
        stream = parse_events(answer.iter_content(chunk_size=None))
        job = start(server)
        seen, pieces, ended = set(), 0, False
        for event in stream:
            if event.name == "captions":
                fresh = {row["name"] for row in event.data["captions"] if row["caption"]}
                pieces += bool(fresh - seen)
                seen |= fresh
            ended |= event.name == "job" and event.data["id"] == job and bool(event.data["ended"])
            if ended and len(seen) == 8:
                break
    assert pieces >= 3  # not all at the end


def test_only_what_was_asked_for_is_written(captioning):
    server = captioning()
    names = sorted(captions_of(server))
    server.put(f"/api/projects/ball/images/{names[0]}/caption", {"text": "mine"})
    job = start(server, which=names[:2], mode="append")
    assert server.wait_for(job)["state"] == "succeeded", server.log(job)
    first, second, *others = (captions_of(server)[name] for name in names)
    assert first.startswith("mine, ") and second and not any(others)


def test_a_trial_shows_a_text_and_keeps_nothing(captioning):
    server = captioning()
    name = min(captions_of(server))
    job = start(server, which=[name], trial=True)
    told = server.wait_for(job)
    assert told["state"] == "succeeded" and told["trial"], server.log(job)
    ((row),) = rows_of(server, job)
    assert row["name"] == name and row["text"]
    assert not any(captions_of(server).values())
    assert server.get("/api/projects/ball")["last_edit"] is None


def test_an_unreadable_image_costs_only_itself(captioning):
    server = captioning()
    broken = picture(9, (96, 64))
    (server.home / "output" / "ball" / "broken.jpg").write_bytes(broken[: len(broken) // 2])
    job = start(server)
    assert server.wait_for(job)["state"] == "succeeded"
    problems = {row["name"]: row["problem"] for row in rows_of(server, job) if "problem" in row}
    assert list(problems) == ["broken.jpg"] and "can't be read" in problems["broken.jpg"]
    assert sum(bool(text) for text in captions_of(server).values()) == 4


def test_a_model_that_cannot_be_loaded_says_why_in_a_sentence(captioning):
    server = captioning(STANDIN_CAPTION_ERROR="3 weights are missing in it: a, b, c.")
    told = server.wait_for(start(server))
    assert told["state"] == "failed" and told["reason"] == "3 weights are missing in it: a, b, c."
    assert told["hint"] == "Do something about it." and told["diagnosis"]["id"] == "told"


# -- breaking it -----------------------------------------------------------------------------------


def a_few_written(server, job: str) -> int:
    """Wait until some captions are there, and return how many."""
    return wait_until(
        lambda: sum("after" in row for row in rows_of(server, job)), what="captions", every=0.02
    )


def test_stopping_keeps_what_is_done(captioning):
    server = captioning(images=40, each_s=0.1)
    job = start(server)
    a_few_written(server, job)
    server.post(f"/api/jobs/{job}/stop")
    began = time.monotonic()
    assert server.wait_for(job)["state"] == "stopped"
    assert time.monotonic() - began < 6
    written = {name: text for name, text in captions_of(server).items() if text}
    assert written == {r["name"]: r["after"] for r in rows_of(server, job) if "after" in r}
    assert 0 < len(written) < 40 and members_of(job) == []


def test_undo_waits_until_nothing_is_written_any_more(captioning):
    server = captioning(images=40, each_s=0.1)
    job = start(server)
    a_few_written(server, job)
    refused = server.call("POST", f"{CAPTIONS}/undo", json={})
    assert refused.status_code == 409 and "still being written" in refused.json()["error"]
    step = {"kind": "prefix", "text": "ohwx,", "also_empty": True}
    assert server.call("POST", f"{CAPTIONS}/edit", json={"edit": step}).status_code == 409
    assert server.post(f"{CAPTIONS}/edit", {"edit": step, "preview": True})["changes"]
    server.post(f"/api/jobs/{job}/stop")
    server.wait_for(job)
    server.post(f"{CAPTIONS}/undo")
    assert not any(captions_of(server).values())


@pytest.mark.parametrize("victim", ["program", "runner", "server"])
def test_whoever_is_killed_no_caption_that_was_shown_is_lost(captioning, victim):
    server = captioning(images=40, each_s=0.1)
    job = start(server)
    a_few_written(server, job)
    status = read_json(server.home / "output/.jobs" / job / "status.json")
    shown = {name: text for name, text in captions_of(server).items() if text}
    if victim == "server":
        server.kill()
        server.start()
        server.post(f"/api/jobs/{job}/stop")  # the run went on: it is there to be stopped
        assert server.wait_for(job)["state"] == "stopped"
    else:
        pid = status["child" if victim == "program" else "runner"]["pid"]
        os.kill(pid, signal.SIGKILL)
        state = server.wait_for(job)["state"]
        assert state == ("failed" if victim == "program" else "interrupted")
    wait_until(lambda: members_of(job) == [], what="all processes of the run to be gone")
    after = captions_of(server)
    assert shown and shown.items() <= after.items()
    project = Project(Home(server.home), "ball")
    rows = {r["name"]: r["after"] for r in captioned.read(project, job) if "after" in r}
    assert {name: text for name, text in after.items() if text}.items() <= rows.items()


def test_a_training_finds_no_caption_model_in_memory(captioning):
    server = captioning()
    first = start(server)
    second = server.post("/api/projects/ball/train", {"settings": SMALL})["id"]
    server.wait_for(second, "running", "succeeded", "failed")
    assert server.get(f"/api/jobs/{first}")["state"] == "succeeded"
    assert members_of(first) == []
    assert server.wait_for(second)["state"] == "succeeded"


def test_the_check_of_a_training_warns_while_captions_are_to_come(captioning):
    server = captioning(each_s=1.0)
    start(server)
    found = server.post("/api/check", {"project": "ball", "settings": SMALL})
    assert any("writing captions" in one["error"] for one in found["warnings"])


def test_a_text_that_is_typed_meanwhile_stays(captioning):
    server = captioning(images=40, each_s=0.1)
    job = start(server)
    a_few_written(server, job)
    last = sorted(captions_of(server))[-1]
    server.put(f"/api/projects/ball/images/{last}/caption", {"text": "typed by hand"})
    server.wait_for(job, seconds=120)
    assert captions_of(server)[last] == "typed by hand"


# -- the first time --------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, tiny_models):  # noqa: F811
    """A hub with the tiny models under their real names."""
    for name in ("blip-large", "vit-gpt2"):
        folder = tmp_path / "hub" / BY_ID[name].repo
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(tiny_models / name, folder)
    server = FakeHub(tmp_path / "hub").start()
    yield server
    server.stop()


def test_what_is_missing_is_fetched_first(real, hub, tmp_path):
    server = real(HF_HOME=str(tmp_path / "cache"), HF_ENDPOINT=hub.url)
    found = server.post(f"{CAPTIONS}/check", {"model": "vit-gpt2"})
    assert [stage["name"] for stage in found["stages"]] == ["fetch", "caption"]
    assert found["download"] > 0 and found["errors"] == []
    job = start(server)
    told = server.wait_for(job)
    assert told["state"] == "succeeded", server.log(job)
    assert all(captions_of(server).values())
    again = server.post(f"{CAPTIONS}/check", {"model": "vit-gpt2", "which": "all"})
    assert again["download"] == 0
    again = server.post(
        f"{CAPTIONS}/check", {"model": "vit-gpt2", "which": "all", "mode": "append"}
    )
    assert [stage["name"] for stage in again["stages"]] == ["caption"]


def test_without_network_and_files_nothing_is_started(captioning, tmp_path):
    nowhere = "http://127.0.0.1:9"  # nobody listens there
    server = captioning(HF_HOME=str(tmp_path / "cache"), HF_ENDPOINT=nowhere)
    refused = server.call("POST", CAPTIONS, json={"model": "blip-large"})
    assert refused.status_code == 422 and "can't be reached" in refused.json()["error"]
    assert server.get("/api/jobs") == []


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": "vit-gpt2"}, "which"),  # no images
        ({"model": "gpt-9"}, "model"),
        ({"model": "vit-gpt2", "max_tokens": 31}, "max_tokens"),
        ({"model": "vit-gpt2", "max_tokens": 513}, "max_tokens"),
        ({"model": "blip-large", "detail": 6}, "detail"),
        ({"model": "vit-gpt2", "which": []}, "which"),
        ({"model": "vit-gpt2", "mode": "burn"}, "mode"),
        ({}, "model"),
        ([], None),
    ],
)
def test_a_bad_request_is_answered_with_a_sentence(live_server, body, field):
    live_server.post("/api/projects", {"name": "ball"})
    refused = live_server.call("POST", CAPTIONS, json=body)
    assert refused.status_code in (400, 422)
    told = refused.json()
    named = [error["field"] for error in told.get("errors", [told])]
    assert told["error"].endswith((".", "…}.")) and (field is None or field in named)
    assert live_server.get("/api/jobs") == []


def test_packages_that_are_missing_are_told_before_anything_starts(live_server):
    live_server.post("/api/projects", {"name": "ball"})
    live_server.upload("ball", pictures(1))
    found = live_server.post(f"{CAPTIONS}/check", {"model": "blip-large"})
    (error,) = found["errors"]
    assert error["field"] == "model" and "-m pip install" in error["hint"]
    assert "torch" in error["hint"] and found["stages"] == []


def test_the_models_are_told_with_what_can_be_chosen(live_server):
    told = live_server.get("/api/captioners")
    assert [(one["id"], one["max_tokens"]) for one in told["models"]] == [
        ("vit-gpt2", 128),
        ("blip-large", 160),
        ("qwen-vl", 256),
    ]
    assert told["tokens"] == [32, 512] and len(told["details"]) == 5 and told["instruction"]


def test_only_a_captioning_run_has_captions_to_tell(live_server):
    live_server.post("/api/projects", {"name": "ball"})
    live_server.upload("ball", pictures(2))
    job = live_server.post("/api/projects/ball/train", {"settings": SMALL})["id"]
    assert live_server.call("GET", f"/api/jobs/{job}/captions").status_code == 404
    assert live_server.call("GET", "/api/jobs/nowhere/captions").status_code == 404
