"""The HTTP contract: good requests work, bad ones get a 4xx with a sentence and start nothing."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
from past import record
from records import drawn
from support import ROOT, SMALL, picture, pictures, tree

from musubitlx.home import Home
from musubitlx.jobs import Jobs
from musubitlx.projects import Project


@pytest.fixture
def ball(live_server):
    """The program in practice mode with a folder of two images."""
    live_server.post("/api/projects", {"name": "ball"})
    live_server.upload("ball", pictures(2))
    return live_server


def test_uploads_and_captions_are_files_at_once(ball):
    folder = ball.home / "output/ball"
    saved = ball.put(
        "/api/projects/ball/images/ball 0.jpg/caption?trigger_word=ohwx", {"text": "a ball"}
    )
    assert (folder / "ball 0.txt").read_text() == "a ball"
    assert saved["final_text"] == "ohwx, a ball"
    shown = ball.get("/api/projects/ball?trigger_word=ohwx&prompt=a red ball")["images"]
    assert [image["name"] for image in shown] == ["ball 0.jpg", "ball 1.jpg"]
    assert [image["final_text"] for image in shown] == ["ohwx, a ball", "ohwx, a red ball"]
    assert (shown[0]["width"], shown[0]["height"]) == (512, 512)
    original = ball.call("GET", shown[0]["url"])
    assert original.content == pictures(1)["ball 0.jpg"]
    thumb = ball.call("GET", shown[0]["thumb"])
    assert thumb.headers["Content-Type"] == "image/jpeg" and len(thumb.content) < 40_000
    removed = ball.call("DELETE", "/api/projects/ball/images/ball 0.jpg").json()
    assert removed["removed"] == "ball 0.jpg" and removed["undo"]
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == ["ball 1.jpg"]


def test_one_bad_file_never_spoils_the_others(live_server):
    answer = live_server.upload(
        "new", {"good.png": picture(kind="PNG"), "bad.png": b"<html>", "good.txt": b"caf\xc3\xa9"}
    )
    body = answer.json()
    assert answer.status_code == 201
    assert [image["name"] for image in body["added"]] == ["good.png"]
    assert body["added"][0]["caption"] == "café" and body["captions"] == ["good.png"]
    assert [row["name"] for row in body["rejected"]] == ["bad.png"] and body["rejected"][0][
        "reason"
    ]
    none = live_server.upload("new", {"bad.png": b"", "worse.svg": b"<svg/>"})
    assert none.status_code == 422 and len(none.json()["rejected"]) == 2
    assert not list((live_server.home / "output/new/.musubitlx/incoming").iterdir())


def test_names_that_would_collide_or_escape_are_made_safe(live_server):
    data = picture()
    parts = [("files", (name, data)) for name in ("画像.png", "画像.png", "../../x.png", "CON.png")]
    body = live_server.call("POST", "/api/projects/new/images", files=parts).json()
    names = [image["name"] for image in body["added"]]
    assert names == ["画像.jpg", "画像-2.jpg", "x.jpg", "_CON.jpg"]
    assert not (live_server.home / "x.png").exists() and not (live_server.home / "x.jpg").exists()


def test_each_file_keeps_its_own_name_whatever_else_is_in_the_form(live_server):
    red, blue = picture(1, (64, 48), "PNG"), picture(2, (80, 48), "PNG")
    parts = [("other", ("red.png", red)), ("files", ("blue.png", blue))]
    body = live_server.call("POST", "/api/projects/new/images", files=parts).json()
    assert [(image["name"], image["width"]) for image in body["added"]] == [("blue.png", 80)]
    folder = live_server.home / "output/new"
    assert [path.name for path in folder.iterdir() if path.is_file()] == ["blue.png"]
    assert not list((folder / ".musubitlx/incoming").iterdir())


def test_files_sent_anywhere_else_are_refused(live_server):
    before = tree(live_server.home)
    for path in ("/login", "/api/projects", "/api/check"):
        answer = live_server.call("POST", path, files=[("token", ("a.png", picture()))])
        assert answer.status_code in (400, 422), path
    assert tree(live_server.home) == before
    assert "Traceback" not in live_server.said.read_text()


def test_a_body_without_end_is_refused_whatever_it_calls_itself(live_server):
    long = b'{"name": "' + b"x" * 3_000_000 + b'"}'
    for kind in ("application/json", "text/plain"):
        headers = {"Content-Type": kind}
        answer = live_server.call("POST", "/api/projects", data=long, headers=headers)
        assert answer.status_code == 413 and answer.json()["error"]

    def chunks():
        for _ in range(40):
            yield b"x" * 100_000

    assert live_server.call("POST", "/api/projects", data=chunks()).status_code == 413


def test_what_people_do_wrong_is_no_traceback_in_the_servers_log(ball):
    (ball.home / "output/empty").mkdir()
    ball.call("POST", "/api/projects/empty/train", json={"settings": SMALL})
    ball.call("GET", "/api/projects/ball/images/none.png/thumb")
    ball.upload("ball", {"bad.png": b"<html>"})
    assert "Traceback" not in ball.said.read_text()


BAD_SETTINGS = [
    ({"epochs": 0}, "epochs"),
    ({"epochs": "many"}, "epochs"),
    ({"epochs": 1.5}, "epochs"),
    ({"epochs": True}, "epochs"),
    ({"epochs": None}, "epochs"),
    ({"learning_rate": "NaN"}, "learning_rate"),
    ({"learning_rate": -1}, "learning_rate"),
    ({"resolution": "1000x1000"}, "resolution"),
    ({"resolution": "axb"}, "resolution"),
    ({"optimizer_type": "Magic"}, "optimizer_type"),
    ({"vram_profile": 13}, "vram_profile"),
    ({"output_name": "../evil"}, "output_name"),
    ({"output_name": ""}, "output_name"),
    ({"output_name": "my_qi"}, "output_name"),
    ({"advanced_flags": "--no_such_flag 1"}, "advanced_flags"),
    ({"advanced_flags": "--lr_warmup_steps"}, "advanced_flags"),
    ({"advanced_flags": "--seed 3"}, "advanced_flags"),
    ({"advanced_flags": "'open"}, "advanced_flags"),
    ({"advanced_flags": ["--fp8_base"]}, "advanced_flags"),
    ({"samples_enabled": True}, "sample_prompt_text"),
    ({"samples_enabled": "maybe"}, "samples_enabled"),
    ({"seed": -1}, "seed"),
    ({"lora_rank": 10**9}, "lora_rank"),
    ({"no_such_setting": 1}, "no_such_setting"),
]


@pytest.mark.parametrize(("bad", "field"), BAD_SETTINGS)
def test_a_wrong_setting_is_named_and_nothing_is_started_or_written(ball, bad, field):
    before = tree(ball.home)
    settings = {**SMALL, **bad}
    answer = ball.call("POST", "/api/projects/ball/train", json={"settings": settings})
    body = answer.json()
    assert answer.status_code == 422 and body["field"] == field
    assert body["error"].endswith(".") and "Traceback" not in answer.text
    checked = ball.post("/api/check", {"project": "ball", "settings": settings})
    assert field in [error["field"] for error in checked["errors"]]
    assert tree(ball.home) == before and ball.get("/api/jobs") == []


def test_every_wrong_field_is_named_at_once(ball):
    (ball.home / "output/empty").mkdir()
    settings = {**SMALL, "epochs": 0, "learning_rate": "x", "advanced_flags": "--frob"}
    answer = ball.call("POST", "/api/projects/empty/train", json={"settings": settings})
    wrong = {"epochs", "learning_rate", "advanced_flags", "images"}
    assert {row["field"] for row in answer.json()["errors"]} == wrong


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/projects/nothing", None, 404),
        ("GET", "/api/projects/..%2f..%2fetc", None, 404),
        ("GET", "/api/projects/%2e%2e", None, 422),
        ("POST", "/api/projects/nothing/train", {"settings": SMALL}, 404),
        ("POST", "/api/projects/empty/train", {"settings": SMALL}, 422),
        ("POST", "/api/projects/ball/train", {"settings": [1]}, 422),
        ("POST", "/api/projects/ball/train", {}, 422),
        ("POST", "/api/projects/ball/train", b"{broken", 400),
        ("POST", "/api/projects/ball/train", b"[1]", 400),
        ("POST", "/api/projects/ball/train", b"", 400),
        ("POST", "/api/projects/ball/train", b"[" * 100_000, 400),
        ("POST", "/api/check", b"nonsense", 400),
        ("POST", "/api/projects", {"name": "a/b"}, 422),
        ("POST", "/api/projects", {"name": ".jobs"}, 422),
        ("POST", "/api/projects", {"name": 7}, 422),
        ("POST", "/api/projects", {"name": "CON"}, 422),
        ("POST", "/api/projects", {"name": "x" * 300}, 422),
        ("POST", "/api/projects/ball/images", None, 422),
        ("GET", "/api/projects/ball/images/nothing.png", None, 404),
        ("GET", "/api/projects/ball/images/..%2f..%2fjob.json", None, 404),
        ("PUT", "/api/projects/ball/images/nothing.png/caption", {"text": "x"}, 404),
        ("PUT", "/api/projects/ball/images/ball 0.jpg/caption", {"text": 7}, 422),
        ("PUT", "/api/projects/ball/images/ball 0.jpg/caption", {"text": "x" * 20_000}, 422),
        ("PUT", "/api/projects/ball/images/ball 0.jpg/caption", {}, 422),
        ("DELETE", "/api/projects/ball/images/dataset.jsonl", None, 404),
        ("GET", "/api/projects/ball/files/ball 0.jpg", None, 404),
        ("GET", "/api/projects/ball/files/x.safetensors", None, 404),
        ("GET", "/api/jobs/nothing", None, 404),
        ("GET", "/api/jobs/..", None, 404),
        ("GET", "/api/jobs/nothing/log", None, 404),
        ("POST", "/api/jobs/nothing/stop", {}, 404),
        ("DELETE", "/api/jobs/nothing", None, 404),
        ("GET", "/api/config", None, 404),
        ("GET", "/api/config?name=../x", None, 422),
        ("PUT", "/api/config", {"settings": {"epochs": 0}}, 422),
        ("PUT", "/api/config", {"settings": SMALL, "name": "models"}, 422),
        ("PUT", "/api/models/dit", {"path": "/no/such/file"}, 422),
        ("PUT", "/api/models/none", {"path": "/x"}, 404),
        ("GET", "/api/nothing", None, 404),
        ("POST", "/api/state", {}, 405),
        ("GET", "/static/../webgui.py", None, 404),
        ("GET", "/static/%2e%2e/webgui.py", None, 404),
    ],
)
def test_bad_requests_get_a_sentence(ball, method, path, body, status):
    (ball.home / "output/empty").mkdir()
    before = tree(ball.home)
    more = {"data": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
    answer = ball.call(method, path, **more)
    assert answer.status_code == status, answer.text
    if path.startswith("/api/"):
        shape = answer.json()
        assert {"error", "field", "hint"} <= set(shape) and len(shape["error"]) > 10
    assert "Traceback" not in answer.text
    assert tree(ball.home) == before and ball.get("/api/jobs") == []


def test_a_missing_model_file_is_told_before_anything_starts(with_stand_in):
    server = with_stand_in()
    (server.home / "qwen_image_bf16.safetensors").unlink()
    answer = server.call("POST", "/api/projects/ball/train", json={"settings": SMALL})
    assert answer.status_code == 422 and answer.json()["field"] == "models.dit"
    assert answer.json()["hint"]
    whole = server.home / "qwen_2.5_vl_7b.safetensors"
    whole.write_bytes(whole.read_bytes()[:-100])
    models = {row["id"]: row for row in server.get("/api/models")["models"]}
    assert not models["text_encoder"]["whole"] and models["text_encoder"]["problem"]
    assert models["vae"]["whole"]


def test_an_interpreter_without_musubis_packages_is_told_before_the_start(with_stand_in, tmp_path):
    server = with_stand_in()
    assert server.post("/api/check", {"project": "ball", "settings": SMALL})["errors"] == []
    server.stop()
    (tmp_path / "musubi/src/torch/__init__.py").unlink()
    (tmp_path / "musubi/src/torch").rmdir()
    server.start()
    answer = server.call("POST", "/api/projects/ball/train", json={"settings": SMALL})
    assert answer.status_code == 422 and answer.json()["field"] == "musubi"
    assert "lacks torch" in answer.json()["error"] and "MUSUBI_PYTHON" in answer.json()["hint"]


def test_settings_survive_as_yaml(live_server):
    live_server.put("/api/config", {"settings": {**SMALL, "learning_rate": "1e-4"}})
    text = (live_server.home / "configs/last_config.yaml").read_text()
    assert re.search(r"^trigger_word: ohwx$", text, re.M)
    loaded = live_server.get("/api/config")
    assert loaded["settings"]["learning_rate"] == 1e-4 and loaded["problems"] == []
    (live_server.home / "configs/old.yaml").write_text("epochs: 3\nbatch_size: lots\nfrob: 1\n")
    old = live_server.get("/api/config?name=old")
    assert old["settings"]["epochs"] == 3 and old["settings"]["batch_size"] == 1
    assert {problem["field"] for problem in old["problems"]} == {"batch_size", "frob"}
    (live_server.home / "configs/bad.yaml").write_text("a: [")
    assert live_server.call("GET", "/api/config?name=bad").status_code == 422


def test_a_get_changes_nothing(ball):
    ball.get("/api/state")
    before = tree(ball.home)
    for path in (
        "/",
        "/runs",
        "/api/state",
        "/api/projects",
        "/api/projects/ball",
        "/api/jobs",
        "/api/models",
        "/api/resources",
        "/healthz",
        "/api/projects/ball/samples",
    ):
        assert ball.call("GET", path).status_code == 200, path
    assert tree(ball.home) == before


def test_pages_are_small_tagged_and_come_from_here_alone(ball):
    page = ball.call("GET", "/", headers={"Accept-Encoding": "gzip"})
    assert page.headers["Content-Encoding"] == "gzip"
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy
    links = set(re.findall(r'(?:src|href)="([^"#][^"]*)"', page.text))
    assert links and all(link.startswith("/") for link in links)
    styles = [link for link in links if ".css" in link]
    for link in styles:
        first = ball.call("GET", link, headers={"Accept-Encoding": "gzip"})
        assert first.status_code == 200 and first.headers["Content-Encoding"] == "gzip"
        again = ball.call("GET", link, headers={"If-None-Match": first.headers["ETag"]})
        assert again.status_code == 304
    assert not re.search(r"<script(?![^>]*\bsrc=)", page.text) and not re.search(
        r"\son\w+=", page.text
    )


def test_other_hosts_and_other_sites_are_kept_out(ball):
    assert ball.call("GET", "/api/state", headers={"Host": "evil.example"}).status_code == 403
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = ball.call("POST", "/api/projects", json={"name": "evil"}, headers=headers)
        assert answer.status_code == 403 and answer.json()["error"]
    assert not (ball.home / "output/evil").exists()
    behind = {"X-Forwarded-For": "10.0.0.9"}
    assert ball.call("GET", "/api/state", headers=behind).status_code == 401
    page = ball.call("GET", "/", headers=behind)
    assert page.status_code == 401 and "token" in page.text.lower()


def test_the_token_lets_others_in_by_link_cookie_header_and_form(program):
    server = program("--token", "right-token")
    far = {"X-Forwarded-For": "10.0.0.9"}
    assert server.call("GET", "/api/state?token=wrong", headers=far).status_code == 401
    link = server.call("GET", "/?token=right-token&project=a", headers=far, allow_redirects=False)
    assert link.status_code == 302 and link.headers["Location"] == "/?project=a"
    cookie = link.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert server.call("GET", "/api/state", headers=far).status_code == 200  # by the cookie
    server.session.cookies.clear()
    bearer = {**far, "Authorization": "Bearer right-token"}
    assert server.call("GET", "/api/state", headers=bearer).status_code == 200
    form = {"token": "right-token", "next": "//evil.example/"}
    entered = server.call("POST", "/login", data=form, headers=far, allow_redirects=False)
    assert entered.status_code == 302 and entered.headers["Location"] == "/"
    server.session.cookies.clear()
    wrong = server.call("POST", "/login", data={"token": "wrong"}, headers=far)
    assert wrong.status_code == 401 and "wrong" in wrong.text
    assert "token" not in json.loads((server.home / "output/.jobs/server.json").read_text())["url"]


def test_a_second_server_on_the_same_home_says_so_and_ends(live_server):
    import subprocess
    import sys

    command = [sys.executable, str(ROOT / "webgui.py"), "--home", str(live_server.home)]
    second = subprocess.run([*command, "--port", "0"], capture_output=True, text=True, timeout=20)
    assert second.returncode == 1
    assert "running already" in second.stdout + second.stderr
    assert live_server.call("GET", "/healthz").status_code == 200


def test_a_taken_port_is_a_sentence(live_server, tmp_path):
    import subprocess
    import sys

    port = str(live_server.record["port"])
    for kind in ("gevent", "waitress", "flask"):
        command = [sys.executable, str(ROOT / "webgui.py"), "--home", str(tmp_path / kind)]
        command += ["--server", kind, "--host", "127.0.0.1", "--port", port]
        second = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert second.returncode == 1 and "can't listen" in second.stderr, kind
        assert "running already" in second.stderr
        assert "Traceback" not in second.stderr


@pytest.mark.parametrize("kind", ["gevent", "waitress", "flask"])
def test_the_first_lines_say_which_server_and_where(program, kind):
    server = program("--server", kind)
    said = server.said.read_text()
    assert said.startswith("Starting MusubiTLX with ")
    assert f"http://127.0.0.1:{server.record['port']}/" in said
    assert server.get("/api/state")["server"] == kind


def test_a_disk_without_room_refuses_before_writing(ball):
    huge = {"Content-Length": str(10**15), "Content-Type": "multipart/form-data; boundary=x"}
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", ball.record["port"], timeout=10)
    connection.putrequest("POST", "/api/projects/ball/images")
    for name, value in huge.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    body = json.loads(answer.read())
    assert answer.status == 507 and "disk" in body["error"] and body["hint"]


def test_a_log_comes_in_pieces_and_can_be_searched(ball):
    job = ball.post("/api/projects/ball/train", {"settings": SMALL})["id"]
    ball.wait_for(job)
    whole = ball.log(job).encode()
    tail = ball.call("GET", f"/api/jobs/{job}/log?before=99999999&limit=300")
    start, end = (int(tail.headers[name]) for name in ("X-Log-Start", "X-Log-Offset"))
    assert whole[start:end] == tail.content and end == len(whole) and end - start <= 300
    piece = ball.call("GET", f"/api/jobs/{job}/log?offset={start}&limit=150")
    assert whole[start:].startswith(piece.content) and 0 < len(piece.content) <= 150
    found = ball.get(f"/api/jobs/{job}/log/search?q=training%20completed")
    assert found["count"] == 1
    assert whole[found["offsets"][0] :].startswith(b"TRAINING COMPLETED!")
    assert ball.call("GET", f"/api/jobs/{job}/log/search?q=").status_code == 422
    assert ball.call("GET", "/api/jobs/nope/log/search?q=a").status_code == 404


def test_downloads_of_names_in_any_writing_arrive(live_server):
    live_server.post("/api/projects", {"name": "日本"})
    assert live_server.upload("日本", pictures(3)).status_code == 201
    settings = {**SMALL, "output_name": "日本", "samples_enabled": True, "sample_at_first": True}
    settings |= {"sample_prompt_text": "a ball --w 64 --h 64 --s 2", "sample_every_epochs": 1}
    job = live_server.post("/api/projects/日本/train", {"settings": settings})["id"]
    assert live_server.wait_for(job)["state"] == "succeeded"
    run = live_server.get("/api/projects/日本/samples")["samples"][0]["run"]
    for path in (
        f"/api/projects/日本/samples.zip?run={run}",
        f"/api/jobs/{job}/metrics?format=csv",
    ):
        answer = live_server.call("GET", path)
        assert answer.status_code == 200, answer.text[:300]
        assert "filename*=UTF-8''%E6%97%A5" in answer.headers["Content-Disposition"]


def test_a_run_deleted_from_two_browsers_at_once_is_gone_for_both(ball):
    from concurrent.futures import ThreadPoolExecutor

    job = ball.post("/api/projects/ball/train", {"settings": SMALL})["id"]
    ball.wait_for(job)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ball.call("DELETE", f"/api/jobs/{job}"), range(4)))
    assert sorted(answer.status_code for answer in answers)[0] == 200
    assert {answer.status_code for answer in answers} <= {200, 404}
    assert not [path for path in (ball.home / "output/.jobs").iterdir() if job in path.name]


def test_recipes_for_any_number_of_images_take_no_time(ball):
    began = time.monotonic()
    found = ball.get("/api/recipes?images=999999999999999")["recipes"]
    assert found and time.monotonic() - began < 1.0


def test_what_lies_behind_the_end_of_a_log_is_empty(ball):
    job = past_log(ball, "one\ntwo\n")
    for query in ("offset=999999999999999", "limit=100&offset=999999999999999", "offset=8&limit=9"):
        answer = ball.call("GET", f"/api/jobs/{job}/log?{query}")
        assert (answer.status_code, answer.text) == (200, ""), query
        assert answer.headers["X-Log-Offset"] == "8"


def past_log(program, text: str) -> str:
    """A past run with this log."""
    home = Home(program.home)
    job = record(home, 1)
    path = Path(Jobs(home).get(job).log)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return job


@pytest.mark.parametrize("kind", ["gevent", "waitress", "flask"])
def test_a_look_at_the_head_of_a_download_spoils_no_connection(program, kind):
    server = program("--practice", "--server", kind)
    job = past_log(server, "one\ntwo\n")
    drawn(Project(Home(server.home), "ball"), "e000001", 1_700_000_000)
    with closing(HTTPConnection("127.0.0.1", server.record["port"], timeout=10)) as one:
        for path in (
            *(f"/api/jobs/{job}/log", f"/api/jobs/{job}/log?limit=5&offset=0"),
            *("/api/projects/ball/samples.zip", f"/api/jobs/{job}/log?download=1", "/runs"),
        ):
            for method, at in (("HEAD", path), ("GET", f"/api/jobs/{job}")):
                one.request(method, at)
                answer = one.getresponse()
                body = answer.read()
                assert answer.status == 200, path
            assert json.loads(body)["id"] == job, path


@pytest.mark.parametrize("odd", ["false", 1, [], {}])
def test_a_wish_about_an_epoch_is_true_or_false(ball, odd):
    job = past_log(ball, "")
    answer = ball.call("POST", f"/api/jobs/{job}/stop", json={"after_epoch": odd})
    assert answer.status_code == 422 and answer.json()["field"] == "after_epoch"


def test_a_wish_that_comes_in_pieces_is_no_stop(ball):
    job = ball.post("/api/projects/ball/train", {"settings": SMALL})["id"]
    body = (part for part in (b'{"after_', b'epoch": false}'))
    answer = ball.call("POST", f"/api/jobs/{job}/stop", data=body)
    assert answer.status_code in (202, 409)
    assert not Jobs(Home(ball.home)).get(job).stop_asked


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such things on Windows")
def test_what_is_called_like_a_lora_and_is_none_is_not_listed(ball, tmp_path):
    folder = ball.home / "output/ball"
    (folder / "loop.safetensors").symlink_to("loop.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"weights")
    (folder / "out.safetensors").symlink_to(tmp_path / "x.safetensors")
    (folder / "folder.safetensors").mkdir()
    os.mkfifo(folder / "pipe.safetensors")
    (folder / "real.safetensors").write_bytes(b"weights")
    shown = ball.get("/api/projects/ball/outputs")["files"]
    assert [file["name"] for file in shown] == ["real.safetensors"]
    assert ball.get("/api/projects/ball/samples")["loras"] == 1
    assert ball.call("GET", "/api/projects/ball/files/loop.safetensors").status_code == 404


def test_slow_readers_of_a_log_leave_threads_for_the_pages(program):
    server = program("--practice", "--server", "waitress")
    job = past_log(server, ("x" * 99 + "\n") * 300_000)
    readers = []
    for _ in range(40):
        reader = socket.create_connection(("127.0.0.1", server.record["port"]))
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.sendall(f"GET /api/jobs/{job}/log HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        readers.append(reader)
    time.sleep(1.0)
    began = time.monotonic()
    assert server.get(f"/api/jobs/{job}")["id"] == job
    assert time.monotonic() - began < 3.0
    for reader in readers:
        reader.close()
