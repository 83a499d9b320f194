"""Samples: each with the prompt it was drawn from, whatever was trained since; and all as a zip."""

from __future__ import annotations

import io
import tracemalloc
import zipfile

import pytest
from records import NOW, SAMPLE, a_run, drawn, left_at

from musubitlx import samples
from musubitlx.errors import NotFound

NAMES = {
    "ball_e000000_00_20260101120000_42_000.png": ("ball", 0, None, 0, 42),
    "ball_e000001_01_20260101120001_000.png": ("ball", 1, None, 1, None),
    "ball_000003_00_20260101120002_7_000.png": ("ball", None, 3, 0, 7),
    "my_e000009_lora_1234567_05_20260101120003_4294967295_000.png": (
        *("my_e000009_lora", None, 1234567),
        *(5, 4294967295),
    ),
    "e000002_00_20260101120004_42_000.png": (None, 2, None, 0, 42),
}


def test_a_name_tells_epoch_step_prompt_and_seed(project):
    for age, name in enumerate(NAMES):
        left_at(project.path / "sample" / name, 1000 + age, SAMPLE)
    for name in ("other.png", "ball_e1_00_20260101120000_000.png", "ball.jpg"):
        (project.path / "sample" / name).write_bytes(SAMPLE)
    keys = ("lora", "epoch", "step", "prompt_number", "seed")
    told = {one["name"]: tuple(one[key] for key in keys) for one in samples.listed(project, [])}
    assert told == NAMES
    assert list(told) == list(NAMES)  # the oldest first
    assert project.sample_thumb(next(iter(NAMES))).is_file()


def test_each_run_keeps_its_own_prompts(project):
    old = a_run(project, "one", began=NOW - 5000, prompts=["a cat --d 1", "a dog"])
    new = a_run(project, "two", began=NOW - 1000, prompts=["a ship --d 1"])
    before = [drawn(project, "e000001", NOW - 4950, prompt) for prompt in (0, 1)]
    after = drawn(project, "e000002", NOW - 950)
    found = {one["name"]: one for one in samples.listed(project, [new, old])}
    told = [(found[name]["run"], found[name]["prompt"]) for name in (*before, after)]
    assert told == [("one", "a cat"), ("one", "a dog"), ("two", "a ship")]
    assert found[after]["options"] == "--d 1"
    assert found[before[1]]["options"] is None


def test_the_prompt_of_a_forgotten_run_is_known_only_if_the_file_is_older(project):
    left_at(project.path / "sample_prompts.txt", NOW - 500, b"ohwx at sea --w 64\n")
    before, after = drawn(project, "e000001", NOW - 600), drawn(project, "e000002", NOW - 400)
    found = {one["name"]: one["prompt"] for one in samples.listed(project, [])}
    assert found == {before: None, after: "ohwx at sea"}
    left_at(project.path / "sample_prompts.txt", NOW - 500, b"\xff")
    assert {one["prompt"] for one in samples.listed(project, [])} == {None}


@pytest.mark.parametrize(
    ("state", "age", "own"),
    [
        ("succeeded", 50, True),
        ("succeeded", 103, True),  # clocks differ a little
        ("succeeded", 130, False),
        ("interrupted", 110, True),  # nobody saw its end
        ("running", 900, True),
        ("running", -5, False),
    ],
)
def test_a_sample_belongs_to_the_run_that_was_on(project, state, age, own):
    job = a_run(project, "one", state=state)
    drawn(project, "e000001", NOW - 1000 + age)
    (found,) = samples.listed(project, [job])
    assert found["run"] == ("one" if own else None)


def test_of_two_runs_the_later_one_drew_what_came_after_its_start(project):
    jobs = [
        a_run(project, "one", began=NOW - 1000, took=100),
        a_run(project, "two", began=NOW - 899),
    ]
    drawn(project, "e000003", NOW - 898)
    assert samples.listed(project, jobs)[0]["run"] == "two"
    drawn(project, "e000003", NOW - 901)
    assert samples.listed(project, jobs)[0]["run"] == "one"
    drawn(project, "e000003", NOW - 901, name="other")
    assert {one["lora"]: one["run"] for one in samples.listed(project, jobs)}["other"] is None


def test_a_sample_names_the_checkpoint_saved_with_it(project):
    job = a_run(project, "one")
    for name, age in (("ball-000001", 40), ("ball-step00000015", 55), ("ball", 99)):
        left_at(project.path / f"{name}.safetensors", NOW - 1000 + age)
    places = ("e000000", "e000001", "e000002", "000015", "e000003")
    names = [drawn(project, place, NOW - 940) for place in places]
    found = {one["name"]: one["checkpoint"] for one in samples.listed(project, [job])}
    expected = [None, "ball-000001", None, "ball-step00000015", "ball"]
    assert [found[name] for name in names] == [name and f"{name}.safetensors" for name in expected]
    left_at(project.path / "ball-000001.safetensors", NOW)  # another run's by now
    found = {one["name"]: one["checkpoint"] for one in samples.listed(project, [job])}
    assert found[names[1]] is None


# -- the zip ---------------------------------------------------------------------------------------


def unzipped(pieces) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(io.BytesIO(b"".join(pieces)))
    assert archive.testzip() is None
    return archive


def test_the_zip_has_readable_names_and_says_the_prompts(project):
    job = a_run(project, "one")
    for place, prompt in (("e000000", 0), ("e000001", 0), ("e000001", 1), ("000015", 1)):
        drawn(project, place, NOW - 950, prompt)
    found = samples.chosen(samples.listed(project, [job]), "one")
    archive = unzipped(samples.zipped(project, found))
    assert sorted(archive.namelist()) == [
        "prompt-01_baseline_seed-42.png",
        "prompt-01_epoch-001_seed-42.png",
        "prompt-02_epoch-001_seed-42.png",
        "prompt-02_step-000015_seed-42.png",
        "prompts.txt",
    ]
    assert archive.read("prompt-01_baseline_seed-42.png") == SAMPLE
    told = archive.read("prompts.txt").decode()
    assert told == "prompt-01: ohwx on a table\nprompt-02: ohwx at night\n"


def test_samples_of_several_runs_lie_in_folders_and_none_hides_another(project):
    job = a_run(project, "one")
    drawn(project, "e000001", NOW - 950)
    drawn(project, "e000001", NOW - 5, name="other")
    drawn(project, "e000001", NOW - 5, name="third")
    found = samples.chosen(samples.listed(project, [job]), None)
    names = unzipped(samples.zipped(project, found)).namelist()
    assert set(names) - {"prompts.txt"} == {
        "one/prompt-01_epoch-001_seed-42.png",
        "earlier runs/prompt-01_epoch-001_seed-42.png",
        "earlier runs/prompt-01_epoch-001_seed-42_2.png",
    }


def test_a_sample_that_went_away_meanwhile_is_left_out(project):
    name = drawn(project, "e000001", NOW)
    pieces = samples.zipped(project, samples.listed(project, []))
    (project.path / "sample" / name).unlink()
    with pytest.raises(NotFound):
        samples.chosen([], None)
    assert unzipped(pieces).namelist() == ["prompts.txt"]


def test_the_zip_is_never_whole_in_memory(project):
    name = drawn(project, "e000001", NOW)
    path = project.path / "sample" / name
    with path.open("ab") as file:
        file.truncate(40_000_000)
    found = samples.listed(project, [])
    tracemalloc.start()
    size = sum(len(piece) for piece in samples.zipped(project, found))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 40_000_000
    assert peak < 4_000_000
