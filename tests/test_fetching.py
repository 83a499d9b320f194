"""The program that fetches model files: what it says, leaves and survives."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time

import pytest
from hubs import contents, fetched, fetching, fill, serve, serve_model
from standins.fakehub import GOOD_TOKEN
from support import ROOT, STANDINS, model_files, wait_until

from musubitlx import bars, models, weights
from musubitlx.captioners import BY_ID

BLIP, QWEN = BY_ID["blip-large"], BY_ID["qwen-vl"]
WEIGHTS = "model.safetensors"
MANY = 2_000_000  # weights: 4 MB
STOPS_S = 3  # it does in one, where other tests leave it room


def bars_of(printed: str, title: str = "download") -> list[dict]:
    """What the bars of that title say in a program's output."""
    found = (bars.LINE.match(text) for text in re.split("[\r\n]", printed))
    return [bars.read(bar[0]) for bar in found if bar and bar["title"] == title]


def lines_of(printed: str) -> list[str]:
    """What is printed besides bars."""
    lines = [bars.LINE.sub("", line).strip() for line in re.split("[\r\n]", printed)]
    return [line for line in lines if line]


def test_a_caption_model_is_fetched_with_what_it_needs_and_nothing_else(hub, home, tmp_path):
    there = serve(hub, BLIP)
    before = contents(tmp_path / "user")
    code, printed, said = fetched(home.root, "--captioner", "blip-large")
    assert (code, said) == (0, "")
    got = contents(home.root)
    folder = BLIP.folder(home).relative_to(home.root)
    unwanted = {"README.md", "tf_model.h5", "pytorch_model.bin"}
    wanted = {n: data for n, data in contents(there).items() if n not in unwanted}
    assert got == {f"{folder.as_posix()}/{name}": data for name, data in wanted.items()}
    assert contents(tmp_path / "user") == before
    assert weights.problem(BLIP.folder(home), BLIP) is None
    lines = lines_of(printed)
    assert lines[0].startswith(f"Fetching BLIP large from {BLIP.repo}: 7 files, 200.")
    assert lines[0].endswith("into models/captioning/blip-image-captioning-large")
    assert lines[-2].startswith("model.safetensors is there: 200.")
    assert lines[-2].endswith("checksum right.")
    assert lines[-1] == "All there."
    told = bars_of(printed)
    assert told[-1]["step"] == told[-1]["total"] > 0
    assert told[-1]["unit"] == bars.BYTES


def test_when_all_is_there_the_hub_is_not_asked(hub, home):
    fill(BLIP.folder(home))
    assert fetched(home.root, "--captioner", "blip-large") == (0, "All there.\n", "")
    assert hub.seen == []


def test_a_hugging_face_cache_is_used_where_it_lies(hub, home, tmp_path):
    cache = tmp_path / "user/.cache/huggingface/hub"
    name = "models--Salesforce--blip-image-captioning-large"
    fill(cache / name / "snapshots" / ("1" * 40))
    assert fetched(home.root, "--captioner", "blip-large") == (0, "All there.\n", "")
    assert hub.seen == []
    assert contents(home.root) == {}


def begin(folder, name):
    """Leave what a download that was broken off leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    for more in (".part", ".part.json", ".part.lock"):
        (folder / f"{name}{more}").write_text("{}")


def test_what_was_begun_goes_when_it_is_there_from_elsewhere(hub, home, tmp_path):
    cache = tmp_path / "user/.cache/huggingface/hub"
    fill(cache / "models--Salesforce--blip-image-captioning-large/snapshots" / ("1" * 40))
    begin(BLIP.folder(home), WEIGHTS)
    begin(BLIP.folder(home), "of-somebody-else.bin")
    row = models.model("vae")
    model_files(tmp_path / "made")
    there = home.root / "vae" / row.filename
    there.parent.mkdir()
    (tmp_path / "made" / row.filename).replace(there)
    home.configs.mkdir(exist_ok=True)
    (home.configs / "models.yaml").write_text(f"vae: {there}\n")
    begin(home.root, row.filename)
    wanted = ("--captioner", "blip-large", "--model", "vae")
    before = contents(home.root)
    assert fetched(home.root, *wanted, "--list") == (0, "All there.\n", "")
    assert contents(home.root) == before
    assert fetched(home.root, *wanted) == (0, "All there.\n", "")
    left = [name for name in contents(home.root) if ".part" in name]
    assert all("of-somebody-else" in name for name in left)
    assert len(left) == 3


def test_a_part_beside_a_whole_file_is_cleared_away(hub, home):
    serve(hub, BLIP)
    folder = fill(BLIP.folder(home))
    begin(folder, WEIGHTS)
    assert weights.find(home, BLIP) is None
    code, printed, said = fetched(home.root, "--captioner", "blip-large")
    assert (code, said) == (0, "")
    assert "checksum" not in printed
    assert weights.find(home, BLIP) == folder
    assert hub.sent("/_cdn/") == 0
    assert not [name for name in contents(folder) if ".part" in name]


def test_a_caption_model_brings_the_text_encoder_it_needs(hub, home):
    serve(hub, QWEN)
    code, printed, said = fetched(home.root, "--captioner", "qwen-vl")
    assert (code, said) == (0, "")
    state = weights.text_encoder(home)
    assert state.problem is None
    assert state.path == str(home.root / models.model("text_encoder").filename)
    assert weights.find(home, QWEN) == QWEN.folder(home)
    assert len([line for line in lines_of(printed) if line.startswith("Fetching ")]) == 2


@pytest.mark.parametrize("id", sorted(row.id for row in models.CATALOGUE))
def test_a_model_file_of_training_is_fetched_under_its_name(hub, home, id):
    path = serve_model(hub, id)
    hub.mood.lfs_min = 1
    code, printed, said = fetched(home.root, "--model", id)
    assert (code, said) == (0, "")
    assert contents(home.root) == {models.model(id).filename: path.read_bytes()}
    assert "1 file, " in lines_of(printed)[0]


def test_what_is_missing_is_listed_and_nothing_fetched(hub, home):
    serve(hub, BLIP)
    code, printed, _ = fetched(home.root, "--captioner", "blip-large", "--list")
    assert code == 0
    assert printed.startswith("Missing: BLIP large from ")
    assert "All there." not in printed
    assert contents(home.root) == {}


# -- it stops, and goes on -------------------------------------------------------------------------


@pytest.fixture
def slow(hub):
    """A hub that takes seconds for the weights."""
    serve(hub, BLIP, width=MANY)
    hub.mood.rate = 500_000
    return hub


def started(home):
    """The program, in the middle of the weights."""
    process = fetching(home.root, "--captioner", "blip-large")
    part = BLIP.folder(home) / f"{WEIGHTS}.part"
    wait_until(lambda: part.exists() and part.stat().st_size > 200_000, what="a start")
    return process, part


def resumed(hub, home, have: int) -> str:
    """Run it to its end; what was there must not be sent again. Returns what it printed."""
    hub.mood.rate = 0
    hub.seen.clear()
    code, printed, said = fetched(home.root, "--captioner", "blip-large")
    assert (code, said) == (0, "")
    whole = (hub.root / BLIP.repo / WEIGHTS).read_bytes()
    assert (BLIP.folder(home) / WEIGHTS).read_bytes() == whole
    assert hub.sent("/_cdn/") == len(whole) - have
    return printed


def test_a_kill_in_mid_file_costs_nothing_of_what_arrived(slow, home):
    process, part = started(home)
    process.kill()
    process.communicate()
    have = part.stat().st_size
    printed = resumed(slow, home, have)
    assert "of it are there" in lines_of(printed)[0]
    assert any(line.startswith("Checking the ") for line in lines_of(printed))
    steps = [bar["step"] for bar in bars_of(printed)]
    for step in (min(steps), bars_of(printed, "check")[-1]["step"]):
        assert abs(step - have) < 100_000  # bars show tenths of MB
    assert not [path for path in BLIP.folder(home).iterdir() if ".part" in path.name]


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT))
def test_a_stop_is_quick_and_keeps_what_arrived(slow, home, number):
    process, part = started(home)
    asked = time.monotonic()
    process.send_signal(number)
    printed, said = process.communicate(timeout=10)
    assert time.monotonic() - asked < STOPS_S
    assert process.returncode == 128 + number
    assert said == b""
    assert lines_of(printed.decode())[-1].startswith("Stopped. What has arrived is kept")
    resumed(slow, home, part.stat().st_size)


def test_a_stop_is_quick_where_nothing_comes(hub, home):
    serve(hub, BLIP, width=MANY)
    hub.mood.stall_at = 600_000
    process, part = started(home)
    wait_until(lambda: part.stat().st_size == 600_000, what="the stall")
    asked = time.monotonic()
    process.terminate()
    process.communicate(timeout=10)
    assert time.monotonic() - asked < STOPS_S
    assert process.returncode == 143
    assert part.stat().st_size == 600_000


def test_of_two_at_once_one_goes_on_and_the_other_says_why_not(slow, home):
    process, _ = started(home)
    code, _, said = fetched(home.root, "--captioner", "blip-large")
    assert code == 1
    assert f"ERROR: {WEIGHTS} is being downloaded already" in said
    slow.mood.rate = 0
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert weights.problem(BLIP.folder(home), BLIP) is None


# -- it says what is wrong -------------------------------------------------------------------------


def error(home, *arguments, **more) -> str:
    """What the program ends with: one line."""
    code, _, said = fetched(home.root, *arguments, **more)
    assert code == 1
    assert said.startswith("ERROR: ")
    assert said.count("\n") == 1
    return said


def test_every_refusal_is_one_line(hub, home):
    serve(hub, BLIP)
    hub.mood.gated = [BLIP.repo]
    assert "HF_TOKEN" in error(home, "--captioner", "blip-large")
    hub.mood.gated, hub.mood.status = [], 404
    assert BLIP.repo in error(home, "--captioner", "blip-large")
    assert "no model file called none" in error(home, "--model", "none")
    assert "no caption model called none" in error(home, "--captioner", "none")
    assert contents(home.root) == {}


def test_a_gated_model_comes_with_a_token_that_nobody_sees(hub, home, monkeypatch):
    serve(hub, BLIP)
    hub.mood.gated = [BLIP.repo]
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    code, printed, said = fetched(home.root, "--captioner", "blip-large")
    assert code == 0
    assert GOOD_TOKEN not in printed + said
    assert {seen.token for seen in hub.seen if seen.host.startswith("localhost")} == {False}
    assert all(GOOD_TOKEN.encode() not in data for data in contents(home.root).values())


def test_a_hub_in_trouble_is_asked_again_and_then_told(hub, home):
    serve(hub, BLIP)
    hub.mood.status, hub.mood.status_times = 503, 1
    code, printed, _ = fetched(home.root, "--captioner", "blip-large")
    assert code == 0
    assert "(status 503). Trying again in 1 s." in lines_of(printed)[0]


def test_a_model_file_that_is_far_too_small_is_refused_before_anything_is_written(hub, home):
    path = serve_model(hub, "vae")
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    hub.mood.lfs_min = 1000
    told = error(home, "--model", "vae")
    assert "has 43 bytes, but should have about 253.8 MB" in told
    assert hub.sent("/resolve/") == 0
    assert contents(home.root) == {}


def test_a_file_size_that_the_system_refuses_is_told_and_the_part_kept(hub, home):
    resource = pytest.importorskip("resource")
    serve(hub, BLIP, width=MANY)
    limit = 1_000_000

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    told = error(home, "--captioner", "blip-large", preexec_fn=small_files)
    assert "The disk is full: 1.0 MB of 4.0 MB of model.safetensors have arrived." in told
    assert (BLIP.folder(home) / f"{WEIGHTS}.part").stat().st_size == limit
    resumed(hub, home, limit)


def test_a_damaged_file_is_not_left(hub, home):
    serve(hub, BLIP)
    hub.mood.corrupt_at = 150_000
    assert "arrived damaged" in error(home, "--captioner", "blip-large")
    assert not (BLIP.folder(home) / WEIGHTS).exists()
    assert weights.find(home, BLIP) is None


def test_weights_that_are_damaged_on_the_disk_are_not_taken_for_missing(hub, home):
    serve(hub, BLIP)
    folder = fill(BLIP.folder(home))
    path = folder / WEIGHTS
    path.write_bytes(b"<" * path.stat().st_size)
    told = error(home, "--captioner", "blip-large")
    assert "a web page" in told
    assert str(folder) in told


def test_a_file_that_somebody_put_there_is_not_replaced(hub, home):
    serve_model(hub, "vae")
    other = hub.root.parent / "made" / models.model("dit").filename
    target = home.root / models.model("vae").filename
    target.write_bytes(other.read_bytes())
    assert "Move it" in error(home, "--model", "vae")
    assert target.read_bytes() == other.read_bytes()


def test_a_path_that_was_set_is_not_overruled(hub, home):
    serve_model(hub, "vae")
    home.configs.mkdir(exist_ok=True)
    (home.configs / "models.yaml").write_text("vae: /none/vae.safetensors\n")
    assert "/none/vae.safetensors is not there" in error(home, "--model", "vae")
    (home.configs / "models.yaml").write_text("vae: [\n")
    assert "models.yaml can't be used" in error(home, "--model", "vae")
    assert hub.seen == []


def test_names_that_lead_elsewhere_are_not_fetched(hub, home, tmp_path):
    serve(hub, BLIP)
    hub.mood.evil = ["../../../config.json", "/config.json", "a/config.json", "..\\vocab.txt"]
    assert fetched(home.root, "--captioner", "blip-large")[0] == 0
    names = {path.name for path in tmp_path.rglob("*config.json") if "hub" not in path.parts}
    assert names == {"config.json", "preprocessor_config.json", "tokenizer_config.json"}
    assert not [path for path in home.root.rglob("*") if "vocab.txt" in path.name]


def test_a_place_where_a_file_lies_is_told(hub, home):
    serve(hub, BLIP)
    home.models.write_text("a file")
    assert "can't be written" in error(home, "--captioner", "blip-large")


def test_without_a_wish_the_use_is_shown(hub, home):
    code, _, said = fetched(home.root)
    assert code == 2
    assert "--captioner" in said


def test_the_program_needs_little():
    code = "import musubitlx.fetching, sys; print(*sys.modules)"
    run = [sys.executable, "-c", code]
    told = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    heavy = {"psutil", "flask", "yaml", "requests", "numpy", "torch", "PIL", "huggingface_hub"}
    assert heavy & set(told.split()) == set()


def test_the_stand_in_hub_runs_as_a_program(hub, home, tmp_path, monkeypatch):
    serve(hub, BLIP)
    command = [sys.executable, str(STANDINS / "fakehub.py"), str(hub.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        port = process.stdout.readline().split()[1]
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
        assert fetched(home.root, "--captioner", "blip-large")[0] == 0
        process.kill()
    assert hub.seen == []
