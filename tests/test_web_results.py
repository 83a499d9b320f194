"""Samples and LoRA files over HTTP."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile

import pytest
from records import NOW, SAMPLE, a_run, drawn, left_at
from support import tree

from musubitlx.home import Home
from musubitlx.projects import Project

API = "/api/projects/b%C3%A4ll%20%231"


@pytest.fixture
def folder(live_server):
    """A folder whose name needs encoding, with a run, a checkpoint and samples."""
    project = Project(Home(live_server.home), "bäll #1")
    project.make()
    a_run(project, "one")
    for name, age in (("ball-000001", 40), ("ball", 99)):
        left_at(project.path / f"{name}.safetensors", NOW - 1000 + age)
    for epoch in (0, 1, 3):
        drawn(project, f"e{epoch:06d}", NOW - 950)
    return project


def test_addresses_lead_where_they_say(live_server, folder):
    told = live_server.get(f"{API}/samples")
    assert (told["loras"], [run["id"] for run in told["runs"]]) == (2, ["one"])
    for sample in told["samples"]:
        assert live_server.call("GET", sample["url"]).content == SAMPLE
        thumb = live_server.call("GET", sample["thumb"])
        assert thumb.headers["Content-Type"] == "image/jpeg"
        assert "immutable" in thumb.headers["Cache-Control"]
    files = live_server.get(f"{API}/outputs")["files"]
    assert [file["name"] for file in files] == ["ball.safetensors", "ball-000001.safetensors"]
    assert live_server.call("GET", files[0]["url"]).content == b"weights"


def test_the_zip_is_a_download(live_server, folder):
    answer = live_server.call("GET", f"{API}/samples.zip?run=one")
    assert answer.headers["Content-Type"] == "application/zip"
    assert "attachment" in answer.headers["Content-Disposition"]
    assert "Content-Length" not in answer.headers  # made while it is sent
    assert len(zipfile.ZipFile(io.BytesIO(answer.content)).namelist()) == 4
    for run in ("two", "", "../one"):
        missing = live_server.call("GET", f"{API}/samples.zip", params={"run": run})
        assert missing.status_code == 404
        assert missing.json()["error"]


def test_looking_changes_nothing(live_server, folder):
    before = tree(live_server.home)
    for path in ("samples", "outputs", "samples.zip", "files/ball.safetensors"):
        assert live_server.call("GET", f"{API}/{path}").status_code == 200
    assert tree(live_server.home) == before


def test_marking_deleting_and_its_undo(live_server, folder):
    address = f"{API}/outputs/ball-000001.safetensors"
    assert live_server.post(f"{address}/best") == {"best": "ball-000001.safetensors"}
    assert live_server.call("POST", f"{address}/best", json={"best": "yes"}).status_code == 422
    undo = live_server.call("DELETE", address).json()["undo"]
    assert live_server.call("DELETE", address).status_code == 404
    assert not (folder.path / "ball-000001.safetensors").exists()
    back = live_server.post(f"{API}/outputs/restore/{undo}")
    assert back == {"restored": "ball-000001.safetensors"}
    assert live_server.get(f"{API}/outputs")["files"][1]["best"]
    assert live_server.call("POST", f"{API}/outputs/restore/{undo}", json={}).status_code == 404


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_no_other_site_can_delete_or_mark(live_server, folder, method):
    path = f"{API}/outputs/ball.safetensors" + ("/best" if method == "POST" else "")
    foreign = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert live_server.call(method, path, json={}, headers=foreign).status_code == 403
    assert (folder.path / "ball.safetensors").exists()


def test_what_a_run_under_way_writes_can_not_be_deleted(live_server, folder):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as runner:
        a_run(folder, "two", began=NOW - 500, state="running", runner=runner.pid)
        left_at(folder.path / "ball-000002.safetensors", NOW - 400)
        answer = live_server.call("DELETE", f"{API}/outputs/ball-000002.safetensors")
        runner.kill()
    assert answer.status_code == 409
    assert answer.json()["hint"]
