"""Runs, with the real server, the real runner and scripts that play the trainer."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time

import psutil
import pytest
from support import SMALL, bare_plan, log_text, wait_until

from musubitlx import births
from musubitlx.home import write_json
from musubitlx.jobs import Jobs

SLOW = {"STAND_IN_STEPS": "400", "STAND_IN_STEP_S": "0.05"}


def start_run(server, **more) -> str:
    return server.post("/api/projects/ball/train", {"settings": {**SMALL, **more}})["id"]


def training(server, job: str) -> dict:
    """Wait until the third stage prints its lines."""
    wait_until(lambda: "line 3" in server.log(job), what="the training to print")
    return server.get(f"/api/jobs/{job}")


def jobs_without_runner(home) -> Jobs:
    """Records whose runner the server has to start: as if it had died before doing so."""
    jobs = Jobs(home)
    jobs.wake_runner = lambda queue: None
    return jobs


def echo(home):
    return bare_plan(home, [sys.executable, "-c", "print('hello')"])


def status_of(server, job: str) -> dict:
    return json.loads((server.home / f"output/.jobs/{job}/status.json").read_text())


def lines_of(log: str) -> list[int]:
    return [int(number) for number in re.findall(r"^line (\d+)$", log, re.M)]


def test_a_run_ends_with_the_lora_and_the_words_people_know(with_stand_in):
    server = with_stand_in()
    job = server.wait_for(start_run(server))
    lora = server.home / "output/ball/ball.safetensors"
    assert job["state"] == "succeeded" and job["exit_code"] == 0
    assert [output["path"] for output in job["outputs"]] == [str(lora)]
    assert job["progress"]["step"] == job["progress"]["total"] == 10
    log = server.log(job["id"])
    assert "TRAINING COMPLETED!" in log and str(lora) in log and job["log"] in log
    assert lines_of(log) == list(range(1, 11))
    assert "\r" not in log and "\x1b" not in log
    metrics = server.get(f"/api/jobs/{job['id']}/metrics")
    assert metrics["step"] == list(range(1, 11))
    assert metrics["loss"] == [round(1 / step, 3) for step in range(1, 11)]


def test_the_preview_is_what_ran(with_stand_in):
    server = with_stand_in()
    body = {"project": "ball", "settings": SMALL}
    preview = [stage["command"] for stage in server.post("/api/check", body)["stages"]]
    job = server.wait_for(start_run(server))
    ran = re.findall(r"^\$ (.+)$", server.log(job["id"]), re.M)
    assert ran == preview and len(ran) == 3


# -- what can go wrong in a stage ------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["latents", "text_encoder", "train"])
def test_a_stage_that_fails_says_why_and_nothing_follows(with_stand_in, stage):
    server = with_stand_in(**{stage: "fails"})
    job = start_run(server)
    events = server.events_until_end(job)
    ended = events[-1].data
    assert ended["state"] == "failed" and ended["exit_code"] == 1
    assert ended["stage"]["name"] == stage
    assert "memory" in ended["reason"].lower() and ended["hint"]
    told = server.get(f"/api/jobs/{job}")["diagnosis"]
    assert told["id"] == "gpu_out_of_memory" and told["lines"][-1].startswith("torch.OutOfMemory")
    assert set(server.get("/api/jobs")[0]["diagnosis"]) == {"id", "fix"}  # lists stay short
    settings = server.get(f"/api/jobs/{job}/details")["settings"]
    assert settings["epochs"] == SMALL["epochs"] and settings["output_dir"] == "ball"
    log = server.log(job)
    assert "TRAINING ABORTED WITH ERROR (exit code 1)" in log and ended["log"] in log
    assert log_text(events) == log  # the viewer was told all of it before the end
    number = ["latents", "text_encoder", "train"].index(stage) + 1
    assert f"Stage {number} of 3" in log and f"Stage {number + 1} of 3" not in log


@pytest.mark.parametrize("stage", ["latents", "text_encoder", "train"])
def test_exit_code_0_without_the_files_is_a_failure(with_stand_in, stage):
    server = with_stand_in(**{stage: "nothing"})
    job = server.wait_for(start_run(server))
    assert job["state"] == "failed" and "did not write" in job["reason"]
    assert "TRAINING COMPLETED!" not in server.log(job["id"])
    assert "TRAINING ABORTED WITH ERROR (exit code 0)" in server.log(job["id"])


def test_files_of_an_earlier_run_do_not_count_as_this_ones(with_stand_in, tmp_path):
    server = with_stand_in()
    assert server.wait_for(start_run(server))["state"] == "succeeded"
    package = tmp_path / "musubi/src/musubi_tuner"
    nothing = (package / "qwen_image_train_network.py").with_name("qwen_image_train_network.py")
    nothing.write_text("print('found 0 images')\n")
    job = server.wait_for(start_run(server))
    assert job["outputs"] == []  # the file there is another run's
    assert job["state"] == "failed" and "did not write 1 of 1 files" in job["reason"]


def test_a_lora_cut_short_is_a_failure(with_stand_in):
    job = (server := with_stand_in(train="half")).wait_for(start_run(server))
    assert job["state"] == "failed" and "ball.safetensors" in job["reason"]


def test_odd_output_is_kept_whole_and_told_to_viewers(with_stand_in):
    server = with_stand_in(train="odd")
    job = start_run(server)
    events = server.events_until_end(job)
    log = server.log(job)
    assert events[-1].data["state"] == "failed" and events[-1].data["exit_code"] == 3
    assert "caf\ufffd and \ufffd\ufffd here\n" in log and "画像 ✓\n" in log
    assert "x" * 5_000_000 + " END OF LONG LINE\n" in log
    assert "last words without a line end\n" in log
    assert "TRAINING ABORTED WITH ERROR (exit code 3)" in log
    assert log.endswith(log_text(events)[-2_000_000:])


def test_a_silent_stage_shows_as_running_and_stops_at_once(with_stand_in):
    server = with_stand_in(latents="silent")
    job = start_run(server)
    server.wait_for(job, "running")
    time.sleep(1.0)
    assert server.get(f"/api/jobs/{job}")["state"] == "running"
    asked = time.monotonic()
    server.post(f"/api/jobs/{job}/stop")
    ended = server.wait_for(job)
    assert ended["state"] == "stopped" and time.monotonic() - asked < 1.5
    assert "TRAINING STOPPED" in server.log(job)


def test_ram_above_the_limit_aborts_even_a_silent_stage(with_stand_in):
    server = with_stand_in(latents="silent", env={"MUSUBITLX_RAM_LIMIT_PERCENT": "0.1"})
    job = server.wait_for(start_run(server))
    assert job["state"] == "failed" and "memory" in job["reason"] and job["hint"]
    assert "TRAINING ABORTED" in server.log(job["id"])


def test_an_image_removed_by_hand_after_queueing_is_named(with_stand_in):
    server = with_stand_in(env=SLOW)
    first, second = start_run(server), start_run(server)
    refused = server.call("DELETE", "/api/projects/ball/images/ball 1.jpg")
    assert refused.status_code == 409
    (server.home / "output/ball/ball 1.jpg").unlink()
    server.post(f"/api/jobs/{first}/stop")
    job = server.wait_for(second)
    assert job["state"] == "failed" and "ball 1.jpg" in job["reason"]


# -- stop and queue -------------------------------------------------------------------------------


def test_stop_ends_the_whole_tree_whatever_its_members_do(with_stand_in):
    server = with_stand_in(train="stubborn")
    job = start_run(server)
    members = wait_until(
        lambda: len(found := re.findall(r"MEMBER (\d+)", server.log(job))) == 3 and found,
        what="three processes",
    )
    assert all(psutil.pid_exists(int(pid)) for pid in members)
    asked = time.monotonic()
    told = server.post(f"/api/jobs/{job}/stop")
    assert told["stopping"] is True
    assert server.get(f"/api/jobs/{job}")["state"] == "running"  # not before they are gone
    assert server.wait_for(job)["state"] == "stopped"
    assert time.monotonic() - asked < 12
    assert not [pid for pid in members if births.birth(int(pid))]


def test_two_starts_at_once_run_one_after_the_other(with_stand_in):
    server = with_stand_in(env={"STAND_IN_STEPS": "20"})
    first, second = start_run(server), start_run(server, output_name="second")
    server.wait_for(first, "running")
    assert server.get(f"/api/jobs/{second}")["state"] == "queued"
    first_job, second_job = server.wait_for(first), server.wait_for(second)
    assert first_job["state"] == second_job["state"] == "succeeded"
    assert second_job["started"] >= first_job["ended"]
    assert (server.home / "output/ball/second.safetensors").exists()


def test_a_stream_without_a_job_goes_on_with_the_next_run(with_stand_in):
    server = with_stand_in()
    first, second = start_run(server), start_run(server, output_name="second")
    logs: dict[str, str] = {first: "", second: ""}
    with server.events() as stream:
        for event in stream:
            if event.name == "log":
                logs[event.data["job"]] += event.data["text"]
            if event.name == "job" and event.data["id"] == second and event.data["ended"]:
                break
    assert logs == {first: server.log(first), second: server.log(second)}


def test_a_queued_run_is_taken_out_at_once(with_stand_in):
    server = with_stand_in(env=SLOW)
    first, second = start_run(server), start_run(server, output_name="second")
    server.wait_for(first, "running")
    assert server.call("DELETE", f"/api/jobs/{first}").status_code == 409
    stopped = server.post(f"/api/jobs/{second}/stop")
    assert stopped["state"] == "stopped" and stopped["ended"] and stopped["reason"]
    server.post(f"/api/jobs/{first}/stop")
    assert server.wait_for(first)["state"] == "stopped"
    time.sleep(1.0)
    assert server.get(f"/api/jobs/{second}")["state"] == "stopped"
    assert not (server.home / "output/ball/second.safetensors").exists()
    assert server.call("POST", f"/api/jobs/{second}/stop").status_code == 409
    assert server.call("DELETE", f"/api/jobs/{second}").status_code == 200
    assert [job["id"] for job in server.get("/api/jobs")] == [first]


# -- what dies ------------------------------------------------------------------------------------


def test_a_server_killed_in_mid_run_finds_it_whole_again(with_stand_in):
    server = with_stand_in(env=SLOW)
    job = start_run(server)
    training(server, job)
    server.kill()
    before = lines_of((server.home / "output/ball").glob("*.log").__next__().read_text())[-1]
    time.sleep(1.0)
    started = time.monotonic()
    server.start()
    assert server.get(f"/api/jobs/{job}")["state"] == "running"
    assert time.monotonic() - started < 3  # the process start included
    server.wait_for(job, "running")
    wait_until(lambda: lines_of(server.log(job))[-1] > before + 10, what="the run to go on")
    with server.events() as stream:
        assert any(event.name == "log" and event.data["job"] == job for event in stream)
    server.post(f"/api/jobs/{job}/stop")
    assert server.wait_for(job)["state"] == "stopped"
    numbers = lines_of(server.log(job))
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_killed_runner_leaves_interrupted_and_no_trainer(with_stand_in):
    server = with_stand_in(env=SLOW)
    job = start_run(server)
    training(server, job)
    status = status_of(server, job)
    os.kill(status["runner"]["pid"], signal.SIGKILL)
    ended = server.wait_for(job, seconds=2)
    assert ended["state"] == "interrupted" and ended["reason"]
    wait_until(lambda: births.birth(status["child"]["pid"]) is None, what="the trainer's end")
    wait_until(lambda: status_of(server, job)["state"] == "interrupted", what="the record")
    assert "TRAINING ABORTED" in server.log(job)
    assert server.wait_for(start_run(server), "running", seconds=10)  # the queue goes on


def test_a_killed_runner_leaves_none_of_a_stubborn_family(with_stand_in):
    server = with_stand_in(train="stubborn")
    job = start_run(server)
    members = wait_until(
        lambda: len(found := re.findall(r"MEMBER (\d+)", server.log(job))) == 3 and found,
        what="three processes",
    )
    os.kill(status_of(server, job)["runner"]["pid"], signal.SIGKILL)
    server.wait_for(job, "interrupted", seconds=2)
    refused = server.call("DELETE", f"/api/jobs/{job}")
    assert refused.status_code == 409 or not any(births.birth(int(pid)) for pid in members)
    wait_until(lambda: not any(births.birth(int(pid)) for pid in members), what="their end")
    wait_until(lambda: server.call("DELETE", f"/api/jobs/{job}").status_code == 200, what="it")


ODD_RECORDS = {
    "job.json": [b"", b"[]", b"{", b"[" * 100_000, b'{"id": "odd-1"}', b'{"created": "x"}'],
    "status.json": [
        b"{",
        b"[" * 100_000,
        b'{"state": ["x"]}',
        b'{"state": "running", "runner": "x"}',
        b'{"state": "running", "runner": {"host": "other"}, "last_seen": "x"}',
        b'{"state": "failed", "progress": [1], "outputs": ["a\\u0000b", 3], "child": "x"}',
    ],
    "request.json": [b"[" * 100_000, b'{"position": "x", "stop": "y"}'],
    "claim": [b"", b"[]", b'{"time": "x", "host": "other"}'],
}


def test_odd_records_harm_no_other_job(program, home):
    server = program()
    template = jobs_without_runner(home).submit(echo(home)).record
    for number, (name, content) in enumerate(
        (name, content) for name, contents in ODD_RECORDS.items() for content in contents
    ):
        folder = home.jobs / f"odd-{number}"
        folder.mkdir()
        record = {**template, "id": folder.name, "queue": "net"}
        (folder / "job.json").write_text(json.dumps(record))
        (folder / name).write_bytes(content.replace(b"odd-1", folder.name.encode()))
    assert isinstance(server.get("/api/jobs"), list) and server.get("/api/state")
    job = jobs_without_runner(home).submit(echo(home))
    assert server.wait_for(job.id, seconds=10)["state"] == "succeeded"
    assert "Traceback" not in server.said.read_text()


def test_an_empty_claim_does_not_block_the_queue(program, home):
    first, second = (jobs_without_runner(home).submit(echo(home)) for _ in range(2))
    (first.folder / "claim").touch()
    server = program()
    assert server.wait_for(second.id, seconds=10)["state"] == "succeeded"
    assert server.get(f"/api/jobs/{first.id}")["state"] == "interrupted"


def test_a_job_is_claimed_once_on_a_file_system_without_links_too(home, monkeypatch):
    from musubitlx import runner

    first, second = (jobs_without_runner(home).submit(echo(home)) for _ in range(2))
    assert runner.claim(first) and not runner.claim(first)

    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    assert runner.claim(second) and not runner.claim(second) and not runner.claim(first)
    assert not list(second.folder.glob(".*"))


def test_a_stop_that_no_disk_space_is_left_for_is_heard(with_stand_in):
    server = with_stand_in(env=SLOW)
    job = start_run(server)
    training(server, job)
    (server.home / f"output/.jobs/{job}/stop").touch()  # what the server leaves on a full disk
    assert server.wait_for(job)["state"] == "stopped"


def test_a_server_whose_terminal_is_gone_still_ends(home):
    import subprocess

    from support import ROOT, clean_environment

    command = [sys.executable, str(ROOT / "webgui.py"), "--home", str(home.root), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, env=clean_environment())
    wait_until(lambda: home.server_record.exists(), what="the server")
    server.stdout.close()
    server.terminate()
    server.wait(timeout=5)
    assert not home.server_record.exists()


def test_scraps_of_a_killed_upload_are_gone_after_the_next_start(live_server):
    scraps = live_server.home / "output/ball/.musubitlx/incoming"
    scraps.mkdir(parents=True)
    live_server.kill()
    (scraps / "x.part").write_bytes(b"half")
    live_server.start()
    assert not list(scraps.iterdir())


def test_a_pid_that_now_belongs_to_another_is_not_a_running_job(with_stand_in):
    server = with_stand_in()
    job = server.wait_for(start_run(server))["id"]
    record = status_of(server, job)
    record |= {"state": "running", "ended": None, "reason": None, "child": None}
    record["runner"] = {**record["runner"], "pid": os.getpid(), "birth": "of another process"}
    write_json(server.home / f"output/.jobs/{job}/status.json", record)
    assert server.get(f"/api/jobs/{job}")["state"] == "interrupted"
    wait_until(lambda: status_of(server, job)["state"] == "interrupted", what="the record")
    assert births.birth(os.getpid())  # and it was left alone


def test_jobs_queued_while_no_server_ran_are_worked_off_at_its_start(program, home):
    job = jobs_without_runner(home).submit(echo(home))
    server = program()
    assert server.wait_for(job.id)["state"] == "succeeded"
    assert "hello" in server.log(job.id)


def test_a_record_deleted_in_mid_run_stops_it_and_the_queue_goes_on(with_stand_in):
    import shutil

    server = with_stand_in(env=SLOW)
    job = start_run(server)
    training(server, job)
    child = status_of(server, job)["child"]["pid"]
    folder = server.home / f"output/.jobs/{job}"
    while folder.exists():  # the runner writes into it meanwhile
        shutil.rmtree(folder, ignore_errors=True)
    wait_until(lambda: births.birth(child) is None, what="the trainer's end")
    assert server.wait_for(start_run(server), "running", seconds=10)


def test_a_runner_told_to_end_stops_its_run_and_says_so(with_stand_in):
    server = with_stand_in(env=SLOW)
    job = start_run(server)
    training(server, job)
    status = status_of(server, job)
    os.kill(status["runner"]["pid"], signal.SIGTERM)
    assert server.wait_for(job)["state"] == "interrupted"
    wait_until(lambda: births.birth(status["child"]["pid"]) is None, what="the trainer's end")


def test_a_program_that_is_not_there_is_a_sentence(program, home):
    server = program()
    job = Jobs(home).submit(bare_plan(home, ["/no/such/python", "x.py"]))
    ended = server.wait_for(job.id)
    assert ended["state"] == "failed" and "could not be started" in ended["reason"]


def test_secrets_of_the_server_do_not_reach_the_trainer(program, home):
    server = program(env={"MUSUBITLX_TOKEN": "s3cret-token"})
    show = "import os; print(sorted(k for k, v in os.environ.items() if 's3cret' in v))"
    job = jobs_without_runner(home).submit(bare_plan(home, [sys.executable, "-c", show]))
    server.wait_for(job.id)
    assert "[]" in server.log(job.id)
