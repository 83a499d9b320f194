"""Before a caption model is started: what is found in the way, and the job that would run."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
from folders import put
from support import picture

from musubitlx import (
    autocaption,
    captionpython,
    interpreters,
    musubi,
    options,
    surroundings,
    weights,
)
from musubitlx.captioners import GB, Wish
from musubitlx.captioning import asked
from musubitlx.checks import Place
from musubitlx.errors import Invalid, ManyInvalid
from musubitlx.home import PACKAGE_ROOT
from musubitlx.projects import Project
from musubitlx.surroundings import Machine

ALL = {
    "python": "3.11.7",
    "torch": "2.9.1",
    "transformers": "4.57.6",
    "safetensors": "0.8.0",
    "PIL": "12.0",
    "accelerate": "1.6.0",
}
LIPS = "/env/bin/python"


@dataclass
class State:
    """What is known of the text encoder file."""

    path: str | None = "/models/qwen_2.5_vl_7b.safetensors"
    whole: bool = True
    problem: str | None = None
    hint: str | None = None
    label: str = "Text encoder (Qwen2.5-VL 7B)"
    filename: str = "qwen_2.5_vl_7b.safetensors"
    id: str = "text_encoder"


class World:
    """What the checks see: packages by interpreter, files, machine; a test changes one of them."""

    def __init__(self, home):
        self.home = home
        self.pythons: dict[str, dict | None] = {LIPS: dict(ALL), sys.executable: {"python": "3.11"}}
        self.folder: Path | None = home.models / "captioning" / "there"
        self.encoder = State()
        self.missing = 0
        self.hub = True
        self.memory = {
            "gpus": [self.card(24)],
            "gpu_reason": None,
            "ram": {"total": 64 * GB, "used": 8 * GB, "limit": "machine"},
            "disk": {"free": 500 * GB, "total": 1000 * GB},
        }
        self.busy = False

    @staticmethod
    def card(gb: float, used: float = 0.5, processes=()) -> dict:
        return {
            "index": 0,
            "name": "RTX Test",
            "total": gb * GB,
            "used": used * GB,
            "processes": list(processes),
        }

    def place(self) -> Place:
        trainer = replace(musubi.find(self.home, practice=True), python=LIPS)
        return Place(self.home, trainer, options.recorded(), Machine(self.memory, self.busy))


@pytest.fixture
def world(home, monkeypatch):
    found = World(home)
    monkeypatch.delenv("MUSUBITLX_CAPTION_PYTHON", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def packages(python, names, source=""):
        has = found.pythons.get(python)
        return has and {name: has[name] for name in ("python", *names) if name in has}

    monkeypatch.setattr(interpreters, "packages", packages)
    monkeypatch.setattr(weights, "find", lambda home, captioner: found.folder)
    monkeypatch.setattr(weights, "text_encoder", lambda home: found.encoder)
    monkeypatch.setattr(weights, "missing_bytes", lambda home, captioner: found.missing)
    monkeypatch.setattr(surroundings, "hub_answers", lambda now: found.hub)
    return found


@pytest.fixture
def folder(project):
    """Three images, the first with a caption."""
    for seed, name in enumerate(("a.jpg", "b.jpg", "c.jpg")):
        put(project, name, picture(seed, (64, 48)))
    project.set_caption("a.jpg", "by hand")
    return project


def look(world, folder, model="blip-large", *, starting=False, **more) -> autocaption.Found:
    wish = Wish.parse({"model": model, **more})
    return autocaption.check(world.place(), folder, wish, starting=starting)


def the_error(found: autocaption.Found) -> Invalid:
    (error,) = found.errors
    return error


# -- images ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("which", "mode", "images", "kept"),
    [
        ("all", "append", 3, 0),
        ("all", "keep", 2, 1),
        ("all", "replace", 3, 0),
        ("empty", "keep", 2, 1),
        ("empty", "replace", 2, 1),
        (["a.jpg", "b.jpg"], "keep", 1, 1),
        (["a.jpg", "b.jpg"], "replace", 2, 0),
        (["b.jpg", "gone.jpg"], "keep", 1, 1),
    ],
)
def test_it_is_said_how_many_get_a_caption(world, folder, which, mode, images, kept):
    found = look(world, folder, which=which, mode=mode)
    assert found.errors == [] and (found.images, found.kept) == (images, kept)


def test_a_folder_without_images_is_a_sentence(world, project):
    assert "no images in this folder" in str(the_error(look(world, project)))


def test_where_every_image_has_a_caption_there_is_nothing_to_do(world, folder):
    for name in ("b.jpg", "c.jpg"):
        folder.set_caption(name, "a dog")
    error = the_error(look(world, folder))
    assert "has a caption already" in str(error) and "all" in error.hint
    assert the_error(look(world, folder, which="all")).field == "mode"
    assert look(world, folder, which="all", mode="append").errors == []


def test_chosen_images_that_are_gone_are_a_sentence(world, folder):
    assert "not there any more" in str(the_error(look(world, folder, which=["x.jpg"])))


def test_a_trial_may_be_on_an_image_with_a_caption(world, folder):
    found = look(world, folder, which=["a.jpg"], trial=True)
    assert found.errors == [] and found.images == 1 and found.plan.trial


# -- packages --------------------------------------------------------------------------------------


def test_musubis_python_is_taken_where_it_has_everything(world, folder):
    assert look(world, folder).plan.stages[-1].argv[0] == LIPS


def test_our_own_python_is_taken_where_musubis_lacks_something(world, folder):
    world.pythons = {LIPS: {"python": "3.11"}, sys.executable: dict(ALL)}
    assert look(world, folder).plan.stages[-1].argv[0] == sys.executable


def test_one_that_is_named_for_captioning_goes_first(world, folder, monkeypatch):
    monkeypatch.setenv("MUSUBITLX_CAPTION_PYTHON", "/other/python")
    world.pythons["/other/python"] = dict(ALL)
    assert look(world, folder).plan.stages[-1].argv[0] == "/other/python"


def test_missing_packages_are_told_with_the_line_that_installs_them(world, folder):
    for name in ("torch", "accelerate"):
        del world.pythons[LIPS][name]
    found = look(world, folder, "qwen-vl")
    error = the_error(found)
    assert "torch, accelerate" in str(error)
    assert error.hint == (f"Install it with:  {LIPS} -m pip install 'torch>=2.6' 'accelerate>=1.6'")
    assert found.plan is None


def test_on_windows_the_line_leads_into_no_file():
    line = captionpython.windows_line(["C:/My Env/python.exe", "-m", "pip", "torch>=2.6"])
    assert line == '"C:/My Env/python.exe" -m pip "torch>=2.6"'


def test_the_line_is_for_the_python_that_lacks_least(world, folder):
    world.pythons = {LIPS: {"python": "3.11"}, sys.executable: {"python": "3.11", "torch": "2.9"}}
    python = shlex.quote(sys.executable)
    assert the_error(look(world, folder)).hint.startswith(f"Install it with:  {python} ")


@pytest.mark.parametrize(
    ("model", "version", "fits"),
    [
        ("blip-large", "4.44.2", True),
        ("blip-large", "4.9.0", False),
        ("qwen-vl", "4.48.3", False),
        ("qwen-vl", "4.49.0", True),
        ("qwen-vl", "5.23.0", True),
        ("vit-gpt2", "4.44.0", True),
    ],
)
def test_a_transformers_that_is_too_old_is_told(world, folder, model, version, fits):
    world.pythons[LIPS]["transformers"] = version
    found = look(world, folder, model)
    if fits:
        assert found.errors == []
    else:
        error = the_error(found)
        assert version in str(error) and "transformers==4.57.6" in error.hint


@pytest.mark.parametrize("version", ["4.52.4", "4.53.3"])
def test_versions_without_beams_are_warned_of(world, folder, version):
    world.pythons[LIPS]["transformers"] = version
    assert any("beams" in str(one) for one in look(world, folder, "vit-gpt2").warnings)
    assert not any("beams" in str(one) for one in look(world, folder, "blip-large").warnings)


def test_old_weights_that_torch_will_not_read_are_told_before(world, folder):
    world.pythons[LIPS]["torch"] = "2.5.1"
    for version in ("4.57.6", "4.44.2"):  # whatever that one would do
        world.pythons[LIPS]["transformers"] = version
        error = the_error(look(world, folder, "vit-gpt2"))
        assert "2.5.1 is installed" in str(error) and "torch>=2.6" in error.hint
    world.folder.mkdir(parents=True)
    (world.folder / "model.safetensors").touch()
    assert look(world, folder, "vit-gpt2").errors == []


def test_a_python_that_cannot_be_started_is_a_sentence(world, folder):
    world.pythons = {}
    error = the_error(look(world, folder))
    assert "can't be started" in str(error) and "MUSUBITLX_CAPTION_PYTHON" in error.hint


# -- files -----------------------------------------------------------------------------------------


def test_what_is_missing_is_downloaded_first(world, folder):
    world.folder, world.missing = None, 1_880_000_000
    found = look(world, folder, starting=True)
    assert [stage.name for stage in found.plan.stages] == ["fetch", "caption"]
    assert found.download == 1_880_000_000
    fetch, caption = (stage.argv for stage in found.plan.stages)
    assert fetch[1:3] == ["-m", "musubitlx.fetching"] and fetch[-2:] == [
        "--captioner",
        "blip-large",
    ]
    where = world.home.models / "captioning" / "blip-image-captioning-large"
    assert caption[caption.index("--weights") + 1] == str(where)


def test_without_network_and_files_it_is_said_before_the_start(world, folder):
    world.folder, world.hub = None, False
    assert look(world, folder).errors == []  # while typing no connection is tried
    error = the_error(look(world, folder, starting=True))
    assert "can't be reached" in str(error)
    assert "models/captioning/blip-image-captioning-large" in error.hint


def test_a_hub_that_is_forbidden_is_told_at_once(world, folder, monkeypatch):
    world.folder = None
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in str(the_error(look(world, folder)))


def test_a_disk_without_room_for_the_download_is_an_error(world, folder):
    world.folder, world.missing = None, int(1.9 * GB)
    world.memory["disk"]["free"] = 1.0 * GB
    assert "1.9 GB have to be downloaded" in str(the_error(look(world, folder)))


def test_a_broken_text_encoder_is_told_with_its_remedy(world, folder):
    path = str(world.home.root / "qwen_2.5_vl_7b.safetensors")
    world.encoder = State(path=path, problem="it is cut short.", hint="Download it again.")
    found = look(world, folder, "qwen-vl")
    error = the_error(found)
    assert "cut short" in str(error) and error.hint == "Download it again."
    assert found.plan is None


def test_a_text_encoder_of_comfyui_in_8_bits_does_not_keep_the_right_one_away(world, folder):
    world.encoder = State(path="/comfy/qwen_fp8.safetensors", problem="8 bits")
    plan = look(world, folder, "qwen-vl").plan
    assert [stage.name for stage in plan.stages] == ["fetch", "caption"]


def test_a_missing_text_encoder_is_downloaded_to_where_training_looks(world, folder):
    world.encoder = State(path=None, whole=False, problem="missing")
    plan = look(world, folder, "qwen-vl").plan
    assert plan.stages[0].name == "fetch"
    argv = plan.stages[1].argv
    expected = str(world.home.root / "qwen_2.5_vl_7b.safetensors")
    assert argv[argv.index("--text-encoder") + 1] == expected


# -- memory ----------------------------------------------------------------------------------------


def warned(found: autocaption.Found) -> str:
    return " ".join(str(one) for one in found.warnings)


def test_a_card_that_is_too_small_is_warned_of(world, folder):
    world.memory["gpus"] = [world.card(8)]
    told = warned(look(world, folder, "qwen-vl"))
    assert "about 10 GB of VRAM" in told and "8 GB" in told
    assert look(world, folder, "blip-large").warnings == []


def test_a_card_in_other_hands_is_warned_of_with_who_has_it(world, folder):
    comfy = {"pid": 77, "name": "ComfyUI", "used": 12 * GB}
    world.memory["gpus"] = [world.card(16, used=12, processes=[comfy])]
    told = warned(look(world, folder, "qwen-vl"))
    assert "4.0 GB are free" in told and "ComfyUI (process 77) holds the rest" in told


def test_a_run_under_way_means_waiting(world, folder):
    world.busy = True
    world.memory["gpus"] = [world.card(24, used=20)]
    assert "waits in the queue" in warned(look(world, folder, "qwen-vl"))
    world.memory |= {"gpus": [], "gpu_reason": "No NVIDIA driver."}
    assert "waits in the queue" in warned(look(world, folder, "vit-gpt2"))


def test_eight_bits_are_told_where_they_are_used(world, folder):
    assert "8 bits" in warned(look(world, folder, "qwen-vl"))


def test_without_a_card_it_is_said_how_long_it_takes(world, folder):
    world.memory |= {"gpus": [], "gpu_reason": "No NVIDIA driver."}
    assert "minutes an image" in warned(look(world, folder, "qwen-vl"))
    assert "some seconds" in warned(look(world, folder, "vit-gpt2"))
    assert look(world, folder, "qwen-vl").errors == []


# -- the job ---------------------------------------------------------------------------------------


def test_the_command_says_all_that_was_wished(world, folder):
    wish = {"max_tokens": 300, "instruction": "Say it with\n“quotes”.", "mode": "append"}
    plan = look(world, folder, "qwen-vl", which="all", **wish).plan
    argv = plan.stages[0].argv
    told = dict(pairwise(argv)) | dict(one.split("=", 1) for one in argv if "=" in one)
    assert told["--model"] == "qwen-vl" and told["--max-tokens"] == "300"
    assert told["--instruction"] == "Say it with\n“quotes”."
    assert (told["--which"], told["--mode"]) == ("all", "append")
    assert "--detail" not in argv and "--trial" not in argv
    assert (plan.kind, plan.queue, plan.project) == ("caption", "gpu0", "ball")
    assert plan.stages[0].env["HF_HUB_OFFLINE"] == "1"


def test_a_folder_and_an_instruction_may_begin_with_a_dash(world, home):
    folder = Project(home, "-p")
    folder.make()
    put(folder, "a.jpg", picture(1, (64, 48)))
    argv = look(world, folder, "qwen-vl", instruction="--trial").plan.stages[0].argv
    world.folder.mkdir(parents=True)
    given = asked.parse(argv[3:])
    assert given.project.name == "-p"
    assert given.wish.instruction == "--trial" and not given.wish.trial


def test_thousands_of_images_are_counted_in_no_time(world, folder):
    one = folder.images()[1]
    many = [replace(one, path=one.path.with_name(f"{n}.jpg")) for n in range(5000)]
    began = time.monotonic()
    found = autocaption.Found()
    folder.images = lambda: many
    autocaption._images(folder, Wish.parse({"model": "vit-gpt2"}), found)
    assert found.images == 5000 and time.monotonic() - began < 1


def test_the_stage_finds_what_the_check_found(world, folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/modules/torch")
    stage = look(world, folder).plan.stages[-1]
    assert stage.env["PYTHONPATH"].split(os.pathsep) == [str(PACKAGE_ROOT), "/modules/torch"]


def test_detail_is_for_blip_alone(world, folder):
    argv = look(world, folder, "blip-large", detail=5).plan.stages[0].argv
    assert argv[argv.index("--detail") + 1] == "5"
    assert not any(one.startswith("--instruction") for one in argv)


def test_chosen_names_travel_in_a_file(world, folder):
    plan = look(world, folder, which=["b.jpg", "c.jpg"]).plan
    ((path, text),) = plan.files.items()
    argv = plan.stages[0].argv
    assert argv[argv.index("--names") + 1] == path and "--which" not in argv
    assert json.loads(text) == ["b.jpg", "c.jpg"]
    assert Path(path).parent.parent == folder.hidden


def test_a_start_with_something_in_the_way_tells_all_of_it(world, project):
    del world.pythons[LIPS]["torch"]
    with pytest.raises(ManyInvalid) as caught:
        autocaption.plan(world.place(), project, Wish.parse({"model": "vit-gpt2"}))
    assert {error.field for error in caught.value.errors} == {"which", "model"}


def test_each_run_has_a_log_of_its_own_and_trials_do_not_litter(world, folder):
    wish = Wish.parse({"model": "vit-gpt2"})
    logs = {Path(autocaption.plan(world.place(), folder, wish).log) for _ in range(3)}
    assert len(logs) == 3 and {log.parent for log in logs} == {folder.path}
    trial = Wish.parse({"model": "vit-gpt2", "which": ["a.jpg"], "trial": True})
    log = Path(autocaption.plan(world.place(), folder, trial).log)
    assert log.is_file() and folder.hidden in log.parents


def test_a_check_writes_nothing(world, folder):
    before = sorted(folder.path.rglob("*"))
    look(world, folder, which=["b.jpg"], starting=True)
    assert sorted(folder.path.rglob("*")) == before
