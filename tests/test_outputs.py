"""LoRA files: what is said of each, the mark of the best one, deleting and its undo."""

from __future__ import annotations

import json

import pytest
from records import NOW, a_run, drawn, left_at

from musubitlx import outputs, trash
from musubitlx.errors import Conflict, NotFound


def lora(project, name: str, age: float, data: bytes = b"weights"):
    return left_at(project.path / f"{name}.safetensors", NOW - 1000 + age, data)


def listed(project, *jobs) -> dict[str, dict]:
    return {file["name"]: file for file in outputs.listed(project, list(jobs))["files"]}


# -- what is said ----------------------------------------------------------------------------------


def test_a_checkpoint_tells_epoch_step_loss_and_samples(project):
    job = a_run(project, "one", losses={step: float(step) for step in range(1, 31)})
    for name, age in (("ball-000001", 40), ("ball-step00000015", 55), ("ball", 99)):
        lora(project, name, age)
    sample = drawn(project, "e000001", NOW - 959)
    found = listed(project, job)
    keys = ("epoch", "step", "loss", "loss_steps", "last", "run")
    told = {name: tuple(file[key] for key in keys) for name, file in found.items()}
    assert told == {  # the mean of ten steps each
        "ball.safetensors": (3, 30, 25.5, 10, True, "one"),
        "ball-step00000015.safetensors": (None, 15, 10.5, 10, False, "one"),
        "ball-000001.safetensors": (1, 10, 5.5, 10, False, "one"),
    }
    assert next(iter(told)) == "ball.safetensors"
    assert found["ball-000001.safetensors"]["samples"] == [sample]
    assert found["ball-000001.safetensors"]["bytes"] == 7


def test_the_loss_of_a_few_steps_says_how_many(project):
    job = a_run(project, "one", losses={1: 4.0, 2: 2.0})
    lora(project, "ball", 99)
    (file,) = listed(project, job).values()
    assert (file["loss"], file["loss_steps"], file["step"]) == (3.0, 2, 2)


def test_what_is_not_known_is_not_made_up(project):
    job = a_run(project, "one", losses={1: float("nan")})
    lora(project, "ball-step00000025", 50)  # a step of which no figure was kept
    lora(project, "strange", 50)
    lora(project, "ball", 99)
    lora(project, "ball-000002", 5000)  # copied here later
    lora(project, "a_qi_te", 50)  # a cache
    found = listed(project, job)
    assert set(found) == {
        f"{n}.safetensors" for n in ("ball-step00000025", "strange", "ball-000002", "ball")
    }
    assert found["ball-step00000025.safetensors"]["loss"] is None
    assert found["ball.safetensors"]["loss"] is None
    assert found["ball-000002.safetensors"]["run"] is found["strange.safetensors"]["run"] is None
    json.dumps(found, allow_nan=False)


def test_a_lora_called_like_a_checkpoint_is_the_final_one_of_its_run(project):
    job = a_run(project, "one", output_name="ball-000001")
    lora(project, "ball-000001", 99)
    (file,) = listed(project, job).values()
    assert file["last"] and file["run"] == "one" and file["epoch"] == 3


def test_runs_come_newest_first_and_each_with_its_own_files(project):
    old = a_run(project, "one", began=NOW - 5000, output_name="cat")
    new = a_run(project, "two")
    left_at(project.path / "cat.safetensors", NOW - 4950)
    lora(project, "ball-000001", 40)
    lora(project, "ball-000002", 60)
    lora(project, "ball", 99)
    told = outputs.listed(project, [old, new])
    assert [(file["name"].split(".")[0], file["run"]) for file in told["files"]] == [
        ("ball", "two"),
        ("ball-000002", "two"),
        ("ball-000001", "two"),
        ("cat", "one"),
    ]
    assert [run["id"] for run in told["runs"]] == ["two", "one"]


# -- the best one ----------------------------------------------------------------------------------


def best(project) -> list[str]:
    return [name for name, file in listed(project).items() if file["best"]]


def test_one_file_of_a_folder_is_the_best_and_the_mark_lies_beside_it(project):
    for name in ("a", "b"):
        lora(project, name, 0, name.encode())
    assert best(project) == []
    outputs.mark_best(project, "a.safetensors")
    outputs.mark_best(project, "b.safetensors")
    assert best(project) == ["b.safetensors"]
    assert json.loads((project.path / "best.json").read_text())["name"] == "b.safetensors"
    outputs.mark_best(project, "a.safetensors", best=False)  # which it is not
    assert best(project) == ["b.safetensors"]
    outputs.mark_best(project, "b.safetensors", best=False)
    assert best(project) == []
    assert not (project.path / "best.json").exists()


def test_another_file_of_the_same_name_is_not_the_best(project):
    lora(project, "a", 0, b"x" * 3_000_000)
    outputs.mark_best(project, "a.safetensors")
    lora(project, "a", 5, b"x" * 3_000_000)  # copied: the time says nothing
    assert best(project) == ["a.safetensors"]
    lora(project, "a", 0, b"x" * 2_999_999 + b"y")
    assert best(project) == []
    (project.path / "best.json").write_bytes(b"[")
    assert best(project) == []


# -- deleting --------------------------------------------------------------------------------------


def test_a_deleted_checkpoint_can_be_brought_back_with_its_mark(project):
    job = a_run(project, "one")
    path = lora(project, "ball-000001", 40)
    outputs.mark_best(project, path.name)
    key = outputs.remove(project, path.name, [job])
    assert listed(project, job) == {}
    assert outputs.restore(project, key) == path.name
    file = listed(project, job)[path.name]
    assert file["best"] and file["run"] == "one"
    with pytest.raises(NotFound):
        outputs.restore(project, key)


def test_it_comes_back_beside_one_that_took_its_name(project):
    keys = []
    for data in (b"first", b"second"):
        lora(project, "ball", 0, data)
        keys.append(outputs.remove(project, "ball.safetensors", []))
    lora(project, "ball", 0, b"third")
    names = [outputs.restore(project, key) for key in keys]
    assert names == ["ball-restored.safetensors", "ball-restored-2.safetensors"]
    read = [(project.path / name).read_bytes() for name in ("ball.safetensors", *names)]
    assert read == [b"third", b"first", b"second"]


def test_what_the_run_under_way_writes_stays(project):
    running = a_run(project, "one", state="running")
    lora(project, "ball-000001", 40)
    older = left_at(project.path / "cat.safetensors", NOW - 5000)
    assert listed(project, running)["ball-000001.safetensors"]["busy"]
    with pytest.raises(Conflict):
        outputs.remove(project, "ball-000001.safetensors", [running])
    assert outputs.remove(project, older.name, [running])


@pytest.mark.parametrize("flag", ["--network_weights", "--base_weights="])
def test_what_a_run_begins_with_stays(project, flag):
    path = left_at(project.path / "cat.safetensors", NOW - 5000)
    words = [flag + str(path)] if flag.endswith("=") else [flag, str(path)]
    running = a_run(project, "one", state="running", argv=words)
    with pytest.raises(Conflict):
        outputs.remove(project, path.name, [running])


@pytest.mark.parametrize(
    "name", ["a_qi_te.safetensors", "a.jpg", "LORA_README.md", "../x.safetensors", "", "out"]
)
def test_nothing_but_a_lora_can_be_deleted_or_marked(project, name):
    for there in ("a_qi_te.safetensors", "a.jpg", "LORA_README.md"):
        (project.path / there).touch()
    before = sorted(path.name for path in project.path.iterdir())
    with pytest.raises(NotFound):
        outputs.remove(project, name, [])
    with pytest.raises(NotFound):
        outputs.mark_best(project, name)
    assert sorted(path.name for path in project.path.iterdir()) == before


@pytest.mark.parametrize("key", ["", "..", "0" * 32, "*"])
def test_a_key_that_is_none_brings_nothing_back(project, key):
    lora(project, "ball", 0)
    outputs.remove(project, "ball.safetensors", [])
    with pytest.raises(NotFound):
        outputs.restore(project, key)


def test_images_and_loras_do_not_come_back_for_one_another(project):
    lora(project, "ball", 0)
    key = outputs.remove(project, "ball.safetensors", [])
    with pytest.raises(NotFound):
        trash.restore(project, key)
    assert outputs.restore(project, key) == "ball.safetensors"
