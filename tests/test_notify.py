"""Word of a run's end, sent to a server of our own."""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support import SMALL, bare_plan, end_runner, pictures, wait_until

from musubitlx import messages, notify, targets
from musubitlx.errors import Invalid, NotFound
from musubitlx.jobs import Jobs

SECRET = "hush-hush-42"
ENDED = {
    "id": "1",
    "kind": "train",
    "project": "ball",
    "title": "ball",
    "state": "failed",
    "reason": "The graphics card ran out of memory.",
    "hint": "Choose a smaller profile.",
    "practice": False,
    "exit_code": 1,
    "created": 0,
    "started": 100.0,
    "ended": 100.0 + 3900,
    "outputs": [],
    "progress": {"step": 30, "total": 80, "loss": 0.12345},
}


class Service:
    """A web service that notes what it is sent, and answers with these statuses in turn."""

    def __init__(self, *statuses: int, delay_s: float = 0.0):
        self.got: list[dict] = []
        self.statuses = list(statuses)
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                service.got.append(
                    {"path": self.path, "headers": dict(self.headers), "body": body.decode()}
                )
                time.sleep(delay_s)
                status = service.statuses.pop(0) if service.statuses else 200
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST  # what a redirect that is followed would ask with

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/{SECRET}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def service(monkeypatch):
    """A function that starts a web service."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(notify, "RETRY_S", 0.05)
    started = []

    def start(*statuses: int, **more) -> Service:
        started.append(Service(*statuses, **more))
        return started[-1]

    yield start
    for one in started:
        one.close()


def sent(service, kind: str, message=None) -> dict:
    notify.send(targets.checked(kind, service.url), message or messages.of_job(ENDED))
    return service.got[-1]


# -- what is said and how ------------------------------------------------------------------------


def test_ntfy_gets_a_title_and_a_text(service):
    got = sent(service(), "ntfy")
    assert got["path"] == f"/{SECRET}"
    assert got["headers"]["Title"] == "Training failed: ball"
    assert got["headers"]["Tags"] == "x"
    assert got["body"].splitlines() == [
        "The graphics card ran out of memory.",
        "Choose a smaller profile.",
        "1 h 05 min, step 30 of 80, loss 0.123",
    ]


def test_a_title_that_is_not_ascii_reaches_ntfy_as_mail_writes_it(service):
    import email.header

    got = sent(service(), "ntfy", messages.of_job({**ENDED, "project": "Bälle 球\nX: y"}))
    ((data, charset),) = email.header.decode_header(got["headers"]["Title"])
    assert data.decode(charset) == "Training failed: Bälle 球 X: y"
    assert "X" not in got["headers"]


def test_discord_gets_an_embed_that_calls_nobody_and_shows_names_as_they_are(service):
    got = sent(service(204), "discord", messages.of_job({**ENDED, "reason": "@everyone a_b_c"}))
    said = json.loads(got["body"])
    assert said["allowed_mentions"] == {"parse": []}
    assert said["embeds"][0]["title"] == "Training failed: ball"
    assert said["embeds"][0]["description"].startswith(r"@everyone a\_b\_c")
    assert got["headers"]["User-Agent"].startswith("MusubiTLX/")  # urllib's own is turned away


def test_slack_gets_a_text_without_commands(service):
    said = json.loads(
        sent(service(), "slack", messages.of_job({**ENDED, "reason": "<!channel> & co"}))["body"]
    )
    assert "&lt;!channel&gt; &amp; co" in said["text"] and said["text"].startswith("Training f")


def test_programs_get_plain_json_with_names_of_files_and_no_paths(service):
    job = {**ENDED, "state": "succeeded", "reason": None, "outputs": ["/secret/ball.safetensors"]}
    got = sent(service(), "json", messages.of_job(job))
    said = json.loads(got["body"])
    assert said["event"] == "run_ended" and said["state"] == "succeeded" and said["id"] == "1"
    assert said["outputs"] == ["ball.safetensors"] and "/secret" not in got["body"]
    assert said["message_title"] == "Training completed: ball"


def test_name_and_password_of_an_address_go_as_a_header(service):
    server = service()
    url = server.url.replace("http://", "http://me:p%40ss@")
    notify.send(targets.checked("json", url), messages.trial())
    assert server.got[0]["headers"]["Authorization"] == "Basic bWU6cEBzcw=="


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (59, "59 s"), (90, "2 min"), (3599, "1 h 00 min")]
)
def test_times_are_said_as_people_say_them(seconds, said):
    assert messages.duration(seconds) == said


def test_a_text_is_shortened_to_what_every_service_takes():
    message = messages.of_job({**ENDED, "reason": "x" * 9000, "project": "half \ud83d"})
    assert len(message.text) == messages.LONGEST_TEXT and message.title.encode()


# -- when it can't be delivered --------------------------------------------------------------------


def test_trouble_at_the_other_end_is_tried_once_more(service):
    server = service(503, 200)
    sent(server, "json")
    assert len(server.got) == 2


def test_a_refusal_is_not_tried_again_and_told_without_the_address(service):
    server = service(404, 200)
    with pytest.raises(notify.Undelivered, match=r"refused the message \(status 404\)") as told:
        sent(server, "json")
    assert len(server.got) == 1 and SECRET not in f"{told.value!r} {told.value.hint}"


def test_it_is_not_led_elsewhere(service):
    server = service(302)
    with pytest.raises(notify.Undelivered) as told:
        sent(server, "json")
    assert "another address" in told.value.hint and len(server.got) == 1


def test_nobody_listening_is_told_without_the_address(service):
    server = service()
    server.close()
    with pytest.raises(notify.Undelivered, match=r"127\.0\.0\.1 could not be reached") as told:
        sent(server, "json")
    assert SECRET not in f"{told.value!r} {told.value.hint}"


def test_what_stands_in_the_way_is_told_apart(service):
    server = service()
    cases = {
        server.url.replace("http:", "https:"): "does not speak https as it should",
        f"http://nobody.invalid/{SECRET}": "is a name this machine can't find",
    }
    for url, problem in cases.items():
        with pytest.raises(notify.Undelivered) as told:
            notify.send(targets.checked("json", url), messages.trial())
        assert problem in str(told.value) and SECRET not in f"{told.value!r}"


def test_one_who_breaks_off_is_told(service):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=break_off, args=(listening,), daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/{SECRET}"
        with pytest.raises(notify.Undelivered, match="broke the connection off"):
            notify.send(targets.checked("json", url), messages.trial())


def break_off(listening: socket.socket) -> None:
    """Take each connection, read a little, close it without an answer."""
    with suppress(OSError):
        while True:
            connection, _ = listening.accept()
            connection.recv(10)
            connection.close()


def test_a_record_deleted_meanwhile_tells_of_nothing(home, service):
    targets.save(home, "json", service().url)
    assert notify.tell(home, {**ENDED, "state": "queued"}) is None


def test_one_who_does_not_answer_is_not_waited_for(service, monkeypatch):
    monkeypatch.setattr(notify, "TIMEOUT_S", 0.2)
    server, began = service(delay_s=3.0), time.monotonic()
    with pytest.raises(notify.Undelivered, match="did not answer within"):
        sent(server, "json")
    assert len(server.got) == 2 and time.monotonic() - began < 2.0


@pytest.mark.parametrize("begins", [b"HTTP/1.1 200 OK\r\nX: ", b""])
def test_one_who_answers_without_end_is_not_waited_for(monkeypatch, service, begins):
    """Each byte that comes would begin the time limit of a socket anew."""
    monkeypatch.setattr(notify, "TIMEOUT_S", 0.5)
    over = threading.Event()

    def drip(server):
        connection, _ = server.accept()
        with connection, suppress(OSError):
            connection.sendall(begins)
            while not over.wait(0.1):
                connection.sendall(b"a")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=drip, args=(server,), daemon=True).start()
        target, began = (
            targets.Target("json", f"http://127.0.0.1:{server.getsockname()[1]}/x"),
            now(),
        )
        with pytest.raises(notify.Undelivered, match="did not answer within"):
            notify.try_out(target)
        assert now() - began < 2.0
        over.set()


now = time.monotonic


# -- what is kept ----------------------------------------------------------------------------------


def test_nothing_set_sends_nothing(home):
    assert targets.read(home) is None and notify.tell(home, ENDED) is None
    assert targets.describe(home) == {"kind": None, "host": None, "problem": None, "last": None}


@pytest.mark.skipif(os.name == "nt", reason="access rights as on Linux")
def test_the_address_is_kept_for_the_owner_only_and_shown_to_nobody(home):
    targets.save(home, "slack", f"https://hooks.example/{SECRET}")
    path = home.configs / "notify.yaml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SECRET in path.read_text()
    target = targets.read(home)
    assert SECRET not in f"{target!r} {target} {targets.describe(home)}"
    assert targets.describe(home)["host"] == "hooks.example"


def test_an_address_of_one_service_is_not_taken_for_one_of_another(home):
    kept = targets.save(home, "slack", f"https://hooks.example/{SECRET}")
    assert targets.save(home, "slack", "") == kept
    with pytest.raises(Invalid, match="Enter the address"):
        targets.save(home, "json", "")
    assert targets.read(home) == kept


def test_what_is_forgotten_is_gone(home):
    targets.save(home, "slack", f"https://hooks.example/{SECRET}")
    targets.forget(home)
    assert targets.read(home) is None
    with pytest.raises(NotFound):
        targets.forget(home)


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("mail", "https://a.example/x"),
        (["ntfy"], "https://a.example/x"),
        ({}, "https://a.example/x"),
        ("json", ""),
        ("json", None),
        ("json", 7),
        ("json", "ftp://a.example/x"),
        ("json", "file:///etc/passwd"),
        ("json", "https://"),
        ("json", "https://a.example:99999/x"),
        ("json", "https://a.example/x y"),
        ("json", "https://a.example/x\nHost: b"),
        ("json", "https://[::1/x"),
        ("json", "https://a.example/" + "x" * 3000),
        ("ntfy", "https://ntfy.sh/"),
    ],
)
def test_what_is_no_webhook_is_refused(home, kind, url):
    with pytest.raises(Invalid):
        targets.save(home, kind, url)
    assert not (home.configs / "notify.yaml").exists()


@pytest.mark.parametrize(
    "text", ["[", "- a", "kind: [ntfy]", "kind: json", "kind: json\nurl: [1]", "\xff\xfe"]
)
def test_a_file_written_by_hand_can_end_no_run(home, text):
    (home.configs / "notify.yaml").write_bytes(text.encode("latin-1"))
    assert notify.tell(home, ENDED) is None
    assert targets.describe(home)["problem"]


# -- with real runs --------------------------------------------------------------------------------


@pytest.fixture
def ball(program, service):
    """A server in practice mode with three images, which tells a service of each end."""
    server = program("--practice", env={"NO_PROXY": "*", "no_proxy": "*"})
    server.post("/api/projects", {"name": "ball"})
    assert server.upload("ball", pictures(3)).status_code == 201
    server.service = service()
    server.put("/api/notify", {"kind": "json", "url": server.service.url})
    return server


def told(server, count: int) -> list[dict]:
    wait_until(lambda: len(server.service.got) >= count, what=f"{count} messages")
    return [json.loads(one["body"]) for one in server.service.got]


def test_each_of_the_runs_in_the_queue_tells_of_its_end_once(ball):
    train = {"settings": SMALL}
    ids = [ball.post("/api/projects/ball/train", train)["id"] for _ in range(2)]
    ball.wait_for(ids[0], "running")
    ball.post(f"/api/jobs/{ids[0]}/stop")
    for job in ids:
        ball.wait_for(job)
    said = told(ball, 2)
    time.sleep(0.5)
    assert len(ball.service.got) == 2
    assert {one["id"]: one["state"] for one in said} == {ids[0]: "stopped", ids[1]: "succeeded"}
    assert next(one for one in said if one["id"] == ids[1])["outputs"] == ["ball.safetensors"]
    last = wait_until(lambda: ball.get("/api/notify")["last"], what="how it fared")
    assert last["ok"] and last["text"] == "Sent to 127.0.0.1."
    for job in ids:
        assert SECRET not in ball.log(job) + json.dumps(ball.get(f"/api/jobs/{job}"))
    kept = [p for p in ball.home.rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()]
    assert [path.name for path in kept] == ["notify.yaml"]
    assert SECRET not in ball.said.read_text()


def test_a_run_whose_runner_was_killed_is_told_when_that_is_written_down(ball):
    job = ball.post("/api/projects/ball/train", {"settings": {**SMALL, "epochs": 500}})["id"]
    running = ball.wait_for(job, "running")
    status = json.loads((ball.home / f"output/.jobs/{job}/status.json").read_text())
    end_runner({"runner": status["runner"]})
    (said,) = told(ball, 1)
    assert running["state"] == "running" and said["state"] == "interrupted"


def test_a_service_that_hangs_delays_neither_the_run_nor_the_next(ball, service):
    ball.service = service(delay_s=4.0)
    ball.put("/api/notify", {"kind": "json", "url": ball.service.url})
    began = time.monotonic()
    plan = {"settings": {**SMALL, "epochs": 1, "image_repeats": 1}}
    ids = [ball.post("/api/projects/ball/train", plan)["id"] for _ in range(2)]
    first, second = [ball.wait_for(job) for job in ids]
    assert first["state"] == second["state"] == "succeeded"
    assert second["started"] - first["ended"] < 1.0, time.monotonic() - began


def test_a_message_is_on_its_way_to_the_end_though_the_runner_ends(home, service):
    server = service(delay_s=1.0)
    targets.save(home, "json", server.url)
    jobs = Jobs(home)
    os.environ["NO_PROXY"] = "*"
    job = jobs.submit(bare_plan(home, [sys.executable, "-c", "raise SystemExit(3)"]))
    wait_until(lambda: targets.describe(home)["last"], what="the message")
    assert targets.describe(home)["last"]["job"] == job.id
    assert json.loads(server.got[0]["body"])["exit_code"] == 3


def test_a_test_goes_to_the_address_in_the_form_or_to_the_kept_one(ball, service):
    other = service()
    ball.post("/api/notify/test", {"kind": "slack", "url": other.url})
    assert "a test" in other.got[0]["body"] and not ball.service.got
    assert ball.call("POST", "/api/notify/test", json={"kind": "ntfy"}).status_code == 422
    assert ball.post("/api/notify/test", {"kind": "json"})["sent"] == "127.0.0.1"
    assert json.loads(ball.service.got[0]["body"])["event"] == "test"
    assert SECRET not in json.dumps(ball.get("/api/notify"))


def test_the_address_is_no_configuration_that_could_be_loaded(ball):
    names = [one["name"] for one in ball.get("/api/configs")["configs"]]
    assert "notify" not in names
    for method in ("GET", "DELETE"):
        answer = ball.call(method, "/api/config?name=notify")
        assert answer.status_code == 422 and SECRET not in answer.text
    given = {"new_name": "Notify", "settings": SMALL}
    assert ball.call("PUT", "/api/config", json=given).status_code == 422
    assert ball.get("/api/notify")["kind"] == "json"


def test_a_test_that_fails_says_why(ball, service):
    refuses = service(403)
    answer = ball.call("POST", "/api/notify/test", json={"kind": "json", "url": refuses.url})
    assert answer.status_code == 502 and "refused the message (status 403)" in answer.text
    assert SECRET not in answer.text
    assert ball.call("PUT", "/api/notify", json={"kind": "x", "url": "y"}).status_code == 422
    assert ball.call("DELETE", "/api/notify").status_code == 200
    nothing = ball.call("POST", "/api/notify/test", json={"kind": "json", "url": ""})
    assert nothing.status_code == 422 and nothing.json()["field"] == "url"


def test_one_test_at_a_time_so_that_others_are_served(ball, service):
    slow = service(delay_s=2.0)
    given = {"kind": "json", "url": slow.url}
    with ThreadPoolExecutor(6) as pool:
        tries = [pool.submit(ball.call, "POST", "/api/notify/test", json=given) for _ in range(6)]
        wait_until(lambda: sum(one.done() for one in tries) == 5)
        began = now()
        ball.get("/api/runs")
        assert now() - began < 1.0
        codes = sorted(one.result().status_code for one in tries)
    assert codes == [200, 409, 409, 409, 409, 409]
