"""A bug report: what is in it, and above all what is not."""

from __future__ import annotations

import getpass
import io
import json
import time
import zipfile
from pathlib import Path

import pytest
from past import record
from support import SMALL, pictures

from musubitlx import musubi, report
from musubitlx.home import PACKAGE_ROOT, write_json
from musubitlx.jobs import Jobs

MEMORY = {"ram": {"total": 1}, "gpus": [], "gpu_reason": "none", "disk": {"free": 1}}


def unpacked(packed: bytes) -> dict[str, str]:
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def made(home, job: str, secrets=()) -> dict[str, str]:
    trainer = musubi.find(home, practice=True)
    return unpacked(report.build(Jobs(home).get(job), home, trainer, MEMORY, secrets))


def log_of(home, job: str, text: str) -> None:
    log = Path(Jobs(home).get(job).log)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(text, encoding="utf-8")


def test_the_report_of_a_real_run_holds_what_helps_and_nothing_private(program):
    server = program("--practice", "--token", "open-sesame-17")
    images = {f"Anna at home {n}.jpg": data for n, data in enumerate(pictures(2).values())}
    images["Anna at home 0.txt"] = b"Anna Weber in her kitchen"
    server.upload("ball", images)
    given = {**SMALL, "samples_enabled": True, "sample_prompt_text": "{{trigger}} on the moon"}
    job = server.post("/api/projects/ball/train", {"settings": given})["id"]
    server.wait_for(job)
    server.put(f"/api/jobs/{job}/notes", {"text": "for my eyes only"})
    answer = server.call("GET", f"/api/jobs/{job}/report")
    assert answer.headers["Content-Type"] == "application/zip"
    assert answer.headers["Content-Disposition"].startswith("attachment;")
    files = unpacked(answer.content)
    names = ["README.txt", "run.json", "dataset_config.toml", "training.log", "metrics.jsonl"]
    assert list(files) == [*names, "versions.json", "caches.json"]
    everything = "\n".join(files.values())
    for secret in ("Anna", "kitchen", "eyes only", "open-sesame-17", str(server.home)):
        assert secret not in everything, secret
    assert str(PACKAGE_ROOT) + "/" not in everything
    for data in images.values():
        assert data not in answer.content and data[:200] not in answer.content
    run, versions = json.loads(files["run.json"]), json.loads(files["versions.json"])
    assert (run["settings"]["lora_rank"], run["images"]) == (16, 2)
    assert run["status"]["state"] == "succeeded"
    assert "[home]/output/ball" in files["dataset_config.toml"]
    assert "TRAINING COMPLETED!" in files["training.log"]
    assert len(files["metrics.jsonl"].splitlines()) == run["status"]["progress"]["total"]
    assert versions["packages"]["flask"] and versions["MusubiTLX"] and versions["system"]
    found = {
        (row["kind"], row["finished"]): row["count"] for row in json.loads(files["caches.json"])
    }
    assert found == {("latents", True): 2, ("texts", True): 2}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("see /home/anna/x.safetensors", "see ~/x.safetensors"),
        ("in C:\\Users\\Anna\\x", "in ~\\x"),
        ('"C:\\\\Users\\\\Anna\\\\x"', '"~\\\\x"'),
        ("/Users/anna/x", "~/x"),
        ("login hf_abcdefgh12345678 ok", "login [removed] ok"),
        ("http://10.0.0.1:5000/?token=abc123&x=1", "http://10.0.0.1:5000/?token=[removed]&x=1"),
        ("https://me:pw@host/x", "https://[removed]@host/x"),
        ("https://discord.com/api/webhooks/1/abc", "https://discord.com/[removed]"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer [removed]"),
        ("loss 0.1, max_train_steps 10", "loss 0.1, max_train_steps 10"),
    ],
)
def test_what_looks_private_is_taken_out_of_the_log(home, text, left):
    job = record(home, 1)
    log_of(home, job, text)
    assert made(home, job)["training.log"] == left


def test_secrets_given_to_the_trainer_are_taken_out_everywhere(home):
    flags = ["--wandb_api_key", "k-123456", "--huggingface_token=t-777777", "--fp8_base"]
    job = record(home, 1, flags=flags, advanced_flags="--wandb_api_key k-123456 --fp8_base")
    log_of(home, job, "$ python train.py --wandb_api_key k-123456\nusing t-777777\n")
    everything = "\n".join(made(home, job).values())
    assert "k-123456" not in everything and "t-777777" not in everything
    assert "--fp8_base" in everything and "--wandb_api_key" in everything


def test_captions_and_names_of_images_are_taken_out_of_the_log(home):
    names = ["Anna 1.jpg", "Anna 12.jpg"]
    captions = {"Anna 1.jpg": "ohwx, Anna smiling", "Anna 12.jpg": "size"}
    job = record(home, 1, images=names, captions=captions)
    text = "Anna 12.jpg has another size.\nprompt: ohwx, Anna smiling\nAnna 1.txt\n"
    log_of(home, job, text)
    assert made(home, job)["training.log"] == (
        "image-002.jpg has another size.\nprompt: [caption]\nimage-001.txt\n"
    )


def test_users_and_machines_are_not_named(home, monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "annaweber")
    monkeypatch.setattr("socket.gethostname", lambda: "annas-box")
    job = record(home, 1)
    log_of(home, job, "annaweber@annas-box: no max_annaweber here\n")
    assert made(home, job)["training.log"] == "[name]@[name]: no max_annaweber here\n"


def test_a_token_that_stands_in_the_log_is_not_passed_on(home):
    job = record(home, 1, prompt="said s3cret-token once")
    log_of(home, job, "s3cret-token")
    assert "s3cret-token" not in "".join(made(home, job, ["s3cret-token"]).values())


def test_of_a_long_log_the_end_is_in_it(home):
    job = record(home, 1)
    log_of(home, job, "x" * 99 + "\n" + ("y" * 99 + "\n") * 60_000)
    log = made(home, job)["training.log"]
    assert len(log) == report.LOG_BYTES and "x" not in log


def test_an_odd_record_has_a_report_too(home):
    job = record(home, 1)
    path = home.jobs / job / "job.json"
    odd = {"project": "../x", "settings": None, "files": 3, "stages": [{"caches": {"files": []}}]}
    write_json(path, {**json.loads(path.read_text()), **odd})
    assert json.loads(made(home, job)["caches.json"]) == []


def test_thousands_of_names_and_a_long_log_take_no_time(home):
    names = [f"{n:08x}{n * 7919 % 10**6:06d}.jpg" for n in range(2000)]
    job = record(home, 1, images=names)
    log = Path(Jobs(home).get(job).log)
    log.parent.mkdir(exist_ok=True)
    log.write_text("".join(f"caching {name} to {name[:-4]}.txt\n" for name in names * 25))
    began = time.process_time()
    told = made(home, job)["training.log"]
    assert time.process_time() - began < 4.0
    assert names[7] not in told and "image-008.jpg to image-008.txt" in told


def test_of_words_that_begin_alike_the_longest_goes():
    exchange = report.Exchange({"a ball": "1", "a ball.jpg": "2", "ab": "3", "ball.txt": "4"})
    assert exchange("a ball.jpg, a ball, aa ball.txt ab") == "2, 1, a1.txt ab"
