"""From settings and an output folder to the commands of a run."""

from __future__ import annotations

import errno
import json
import os
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import toml
from hypothesis import given
from hypothesis import strategies as st
from inputs import VALID, patient
from support import model_files, picture

from musubitlx import checks, commands, configs, estimate, flags, musubi, presets, prompts
from musubitlx import options as option_tables
from musubitlx.errors import ManyInvalid, Offer, UserError
from musubitlx.home import Home
from musubitlx.options import LATENTS, SCRIPTS, TEXT_ENCODER, TRAIN, build_parser
from musubitlx.projects import Project
from musubitlx.settings import as_typed, parse
from musubitlx.surroundings import Machine

JPEG = picture(1, (64, 48))
SIZES = {"a": (64, 48), "b": (48, 64), "é 画": (64, 64)}


@pytest.fixture(autouse=True)
def no_musubi(monkeypatch):
    """Nothing of this machine's own set-up."""
    for name in ("MUSUBI_DIR", "MUSUBI_PYTHON", "PYTHONPATH", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def practice(home) -> musubi.Trainer:
    return musubi.find(home, practice=True)


@pytest.fixture
def real(practice, monkeypatch) -> musubi.Trainer:
    """What find() gives where Musubi is, with all its packages."""
    monkeypatch.setattr(musubi, "missing_packages", lambda trainer: [])
    return replace(
        practice, practice=False, python="/opt/python", scripts=Path("/m/src/musubi_tuner")
    )


def place(home, trainer) -> checks.Place:
    return checks.Place(home, trainer, option_tables.recorded())


def check(home, trainer, settings):
    return checks.check(place(home, trainer), settings)


def plan_training(home, trainer, settings):
    return checks.plan_training(place(home, trainer), settings)


@pytest.fixture
def project(home) -> Project:
    """A folder of three images, one without a caption."""
    one = Project(home, "ball")
    one.make()
    for stem, size in SIZES.items():
        (one.path / f"{stem}.jpg").write_bytes(picture(1, size))
    one.set_caption("a.jpg", "a ball")
    one.set_caption("b.jpg", 'quote " and \\ back\nnew line, tab\t, é 画 😀 \u2028 # [x] = {{y}}')
    return one


def asked(**given_) -> dict:
    return parse({"output_dir": "ball", "output_name": "my ball", "trigger_word": "ohwx", **given_})


def options(stage) -> dict:
    """The arguments of a stage as its script understands them."""
    script = Path(stage.argv[1]).name
    return vars(build_parser(script).parse_args(stage.argv[2:]))


def files(home: Home) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in home.root.rglob("*") if p.is_file()}


def fields(found) -> list[str | None]:
    return [error.field for error in found.errors]


# -- the commands ----------------------------------------------------------------------------------


@patient
@given(VALID)
def test_every_command_is_one_its_script_takes(home, practice, project, valid):
    settings = {**valid, "output_dir": "ball", "advanced_flags": None}
    plan = check(home, practice, settings).plan
    assert [Path(stage.argv[1]).name for stage in plan.stages] == list(SCRIPTS)
    latents, text, train = map(options, plan.stages)
    for said in (latents, text, train):
        assert said["dataset_config"] == str(project.path / "dataset_config.toml")
        assert said["model_version"] == "original"
    assert train["output_dir"] == str(project.path)
    assert train["output_name"] == settings["output_name"]
    assert train["max_train_epochs"] == settings["epochs"]
    assert train["learning_rate"] == settings["learning_rate"]
    assert train["optimizer_type"] == settings["optimizer_type"]
    assert train["network_module"] == "networks.lora_qwen_image"
    assert train["network_dim"] == settings["lora_rank"]
    assert train["network_alpha"] == settings["lora_dims"]
    assert train["seed"] == settings["seed"]
    assert (train["timestep_sampling"], train["weighting_scheme"]) == ("qwen_shift", "none")
    assert (train["mixed_precision"], train["save_precision"]) == ("bf16", "bf16")
    assert train["save_every_n_epochs"] == 1
    assert backends(plan.stages[2]) == ["--sdpa"]
    on = settings["samples_enabled"]
    assert train["sample_prompts"] == (str(project.path / "sample_prompts.txt") if on else None)
    every = (settings["sample_every_epochs"] or None, settings["sample_every_steps"] or None)
    told = (train["sample_every_n_epochs"], train["sample_every_n_steps"])
    assert told == (every if on else (None, None))
    assert train["sample_at_first"] == (on and settings["sample_at_first"])
    assert_config(plan, settings)


FLAGS = st.lists(
    st.sampled_from(
        [
            "--gradient_checkpointing",
            "--fp8_base --fp8_scaled",
            "--blocks_to_swap 20",
            "--max_grad_norm 0.5",
            "--lr_scheduler cosine --lr_warmup_steps 10",
            "--optimizer_args weight_decay=0.01 betas=0.9,0.99",
            "--save_state --save_last_n_epochs_state 1",
            "--training_comment 'a \"b\" $(c) {d}'",
            "--network_dropout=0.1",
            "--timestep_sampling shift --discrete_flow_shift 2.2",
            "--max_data_loader_n_workers 0",
            "--gradient_accumulation_steps 2",
        ]
    ),
    unique=True,
).map(" ".join)


@patient
@given(VALID, FLAGS)
def test_from_the_form_over_yaml_to_the_command_nothing_is_lost(home, practice, project, valid, f):
    settings = {**valid, "output_dir": "ball", "advanced_flags": f, "samples_enabled": False}
    if settings["optimizer_type"] == "Adafactor":
        settings["optimizer_type"] = "AdamW"  # Adafactor takes neither of the arguments, as is told
    typed = parse({name: as_typed(value) for name, value in settings.items()})
    configs.save(home, "kept", typed)
    loaded, problems = configs.load(home, "kept")
    assert (loaded, problems) == (settings, [])
    found = check(home, practice, loaded)
    assert [error for error in found.errors if error.field == "advanced_flags"] == []
    train = options(found.plan.stages[2])
    for name, option in FROM_SETTINGS.items():
        assert train[option] == settings[name]
    assert train["max_train_epochs"] == settings["epochs"]
    words = shlex.split(f)
    assert words == found.plan.stages[2].argv[-len(words) :] or not words
    for word in words:
        assert found.plan.stages[2].argv.count(word) >= 1
    given_twice = [w for w in found.plan.stages[2].argv if w.startswith("--")]
    assert len(given_twice) == len({w.split("=")[0] for w in given_twice})
    assert_config(found.plan, settings)


FROM_SETTINGS = {
    "learning_rate": "learning_rate",
    "optimizer_type": "optimizer_type",
    "lora_rank": "network_dim",
    "lora_dims": "network_alpha",
    "seed": "seed",
    "output_name": "output_name",
}


def assert_config(plan, settings) -> None:
    folder = Path(plan.stages[2].cwd)
    width, height = map(int, settings["resolution"].split("x"))
    assert toml.loads(plan.files[str(folder / "dataset_config.toml")]) == {
        "general": {
            "resolution": [width, height],
            "batch_size": settings["batch_size"],
            "enable_bucket": True,
            "bucket_no_upscale": False,
        },
        "datasets": [
            {
                "image_jsonl_file": str(folder / "dataset.jsonl"),
                "cache_directory": str(folder),
                "num_repeats": settings["image_repeats"],
            }
        ],
    }


def backends(stage) -> list[str]:
    known = ("--sdpa", "--flash_attn", "--flash3", "--sage_attn", "--xformers")
    return [word for word in stage.argv if word in known]


@pytest.mark.parametrize("profile", presets.PROFILES, ids=lambda profile: profile.id)
def test_a_profile_s_flags_are_in_the_command(home, practice, project, profile):
    stages = check(home, practice, asked(vram_profile=profile.id)).plan.stages
    line = shlex.join(stages[2].argv)
    assert line.endswith(checks.profile_line(option_tables.recorded(), profile.id))
    assert options(stages[1])["fp8_vl"] == options(stages[2])["fp8_vl"] == profile.fp8_text_encoder
    assert line.count("--fp8_vl") <= 1


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ("", ["--sdpa"]),
        ("--sdpa", ["--sdpa"]),
        ("--xformers --split_attn", ["--xformers"]),
        ("--flash_attn", ["--flash_attn"]),
    ],
)
def test_there_is_always_one_attention_backend(home, practice, project, flags, wanted):
    found = check(home, practice, asked(advanced_flags=flags))
    assert found.errors == []
    assert backends(found.plan.stages[2]) == wanted


def test_advanced_flags_are_passed_as_they_stand_and_have_the_last_word(home, practice, project):
    line = "--mixed_precision fp16 --training_comment 'a \"b\" $c' --save_every_n_epochs=2 --fp8_vl"
    found = check(home, practice, asked(advanced_flags=line))
    assert found.errors == []
    train = options(found.plan.stages[2])
    assert train["mixed_precision"] == "fp16"
    assert train["training_comment"] == 'a "b" $c'
    assert train["save_every_n_epochs"] == 2
    assert found.plan.stages[2].argv.count("--fp8_vl") == 1
    assert not train["fp8_base"]


@pytest.mark.parametrize("name", sorted(flags.TAKEN))
def test_what_a_field_gives_cannot_be_said_a_second_time(home, practice, project, name):
    found = check(home, practice, asked(advanced_flags=f"{name} x"))
    assert fields(found) == ["advanced_flags"]
    assert "set by the form" in str(found.errors[0])
    assert name in {option for option in vars_of_train()}


def vars_of_train() -> set[str]:
    return {name for action in build_parser(TRAIN)._actions for name in action.option_strings}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--sage_attn", "--sage_attn can't be used"),
        ("--flash3", "--flash3 can't be used"),
        ("--show_timesteps image", "--show_timesteps can't be used"),
        ("--show_timesteps=console", "--show_timesteps can't be used"),
        ("--xformers --flash_attn", "can't be used together"),
        ("--sdpa --xformers", "can't be used together"),
        ("--no_such_flag", "no option --no_such_flag"),
        ("--help", "no option --help"),
    ],
)
def test_flags_musubi_would_refuse_are_refused_before(home, practice, project, flags, words):
    found = check(home, practice, asked(advanced_flags=flags))
    assert fields(found) == ["advanced_flags"]
    assert words in str(found.errors[0])


def test_what_is_previewed_is_what_runs(home, practice, project):
    settings = asked(samples_enabled=True, sample_prompt_text="{{trigger}}", epochs=2)
    before = files(home)
    shown = check(home, practice, settings)
    assert files(home) == before
    queued = plan_training(home, practice, settings)
    assert queued.stages == shown.plan.stages
    assert queued.files == shown.plan.files
    assert (queued.inputs, queued.results) == (shown.plan.inputs, shown.plan.results)
    told = shown.as_dict()
    assert [shlex.split(one["command"]) for one in told["stages"]] == [
        stage.argv for stage in queued.stages
    ]
    assert [one["name"] for one in told["stages"]] == ["latents", "text_encoder", "train"]
    assert (told["errors"], told["steps"]) == ([], told["estimate"]["steps"])


def test_each_run_has_a_log_of_its_own(home, practice, project):
    logs = [plan_training(home, practice, asked()).log for _ in range(3)]
    assert len(set(logs)) == 3
    for log in map(Path, logs):
        assert log.parent == project.path
        assert project.result(log.name) == log
        assert log.read_bytes() == b""


def test_the_files_each_stage_must_leave_are_named_as_musubi_names_them(home, practice, project):
    latents, text, train = check(home, practice, asked()).plan.stages
    names = {f"{s}_{w:04d}x{h:04d}_qi.safetensors" for s, (w, h) in SIZES.items()}
    assert {Path(path).name for path in latents.outputs} == names
    assert {Path(path).name for path in text.outputs} == {f"{s}_qi_te.safetensors" for s in SIZES}
    assert train.outputs == [str(project.path / "my ball.safetensors")]


def test_the_plan_says_what_the_run_needs(home, practice, project):
    plan = plan_training(home, practice, asked())
    assert (plan.kind, plan.queue, plan.project, plan.practice) == ("train", "gpu0", "ball", True)
    assert {Path(path).name for path in plan.inputs} == {f"{stem}.jpg" for stem in SIZES}
    assert plan.results == [str(project.path / "my ball.safetensors")]
    assert plan.settings == asked()
    assert set(plan.files) == {
        str(project.path / name) for name in ("dataset_config.toml", "dataset.jsonl")
    }


def test_the_environment_leads_to_musubi_s_own_package(home, real, project, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/mine")
    for stage in check(home, replace(real, source=Path("/m/src")), asked()).plan.stages:
        assert stage.argv[0] == "/opt/python"
        assert stage.argv[1].startswith("/m/src/musubi_tuner/")
        assert stage.env["PYTHONPATH"].split(":") == ["/m/src", "/mine"]
        assert stage.env["CUDA_VISIBLE_DEVICES"] == "0"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert check(home, real, asked()).plan.stages[0].env["CUDA_VISIBLE_DEVICES"] == "1"


# -- the files of a run ----------------------------------------------------------------------------


def test_the_dataset_holds_the_exact_text_of_every_image(home, practice, project):
    before = files(home)
    plan = check(home, practice, asked(prompt="a red ball")).plan
    lines = plan.files[str(project.path / "dataset.jsonl")].split("\n")
    assert lines.pop() == ""
    rows = [json.loads(line) for line in lines]
    second = (project.path / "b.txt").read_text(encoding="utf-8")
    assert rows == [
        {"image_path": str(project.path / "a.jpg"), "caption": "ohwx, a ball"},
        {"image_path": str(project.path / "b.jpg"), "caption": f"ohwx, {second}"},
        {"image_path": str(project.path / "é 画.jpg"), "caption": "ohwx, a red ball"},
    ]
    assert files(home) == before


@patient
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=80), VALID)
def test_any_caption_comes_through_whole(home, practice, project, text, valid):
    caption = project.set_caption("a.jpg", text).caption
    settings = {**valid, "output_dir": "ball"}
    plan = check(home, practice, settings).plan
    written = plan.files[str(project.path / "dataset.jsonl")]
    rows = [json.loads(line) for line in written.encode().decode().split("\n")[:-1]]
    assert len(rows) == 3
    assert rows[0]["caption"].endswith(caption or settings["prompt"])


@pytest.mark.parametrize(
    "folder",
    [
        r"C:\Users\x41\new\table\output",
        r"C:\u0041\x",
        r"\\server\share\x y",
        "C:\\",
        '/home/o\'neil/a "b" # c = [d]',
        "/été/画像/😀/\u2028",
        "/a\tb",
    ],
)
def test_the_dataset_file_can_be_read_whatever_the_path(folder):
    path = Path(folder)
    text = commands.dataset_config(path, path / "x.jsonl", asked(resolution="768x512"))
    read = toml.loads(text.encode("utf-8").decode("utf-8"))
    assert read["datasets"][0]["cache_directory"] == str(path)
    assert read["datasets"][0]["image_jsonl_file"] == str(path / "x.jsonl")
    assert read["general"]["resolution"] == [768, 512]


def prompt_lines(text: str, **more) -> list[str]:
    settings = asked(sample_prompt_text=text, seed=7, **more)
    return prompts.read(text, trigger=settings["trigger_word"], seed=settings["seed"]).lines


REST = " --w 256 --h 256 --f 1 --s 20 --l 4.0 --fs 2.2 --d 7"


def test_a_sample_line_has_its_trigger_and_every_default():
    assert prompt_lines("{{trigger}} and {{trigger}}") == ["ohwx and ohwx" + REST]
    assert prompt_lines("plain") == ["plain" + REST]


def test_what_is_wrong_with_a_prompt_keeps_a_run_from_starting(home, practice, project):
    settings = asked(samples_enabled=True, sample_prompt_text="x --steps 5\ny --w 500")
    found = check(home, practice, settings)
    assert fields(found) == ["sample_prompt_text"]
    assert "sample_prompt_text" in [warning.field for warning in found.warnings]
    assert check(home, practice, {**settings, "samples_enabled": False}).errors == []


def test_the_prompt_file_is_written_with_the_run_only_when_samples_are_on(home, practice, project):
    on = asked(samples_enabled=True, sample_prompt_text="{{trigger}}\n# no\nb", seed=7)
    path = str(project.path / "sample_prompts.txt")
    assert check(home, practice, on).plan.files[path] == f"ohwx{REST}\nb{REST}\n"
    assert path not in check(home, practice, {**on, "samples_enabled": False}).plan.files


# -- what stands in the way ------------------------------------------------------------------------


def test_without_images_nothing_starts(home, practice):
    for name in ("ball", "not there"):
        with pytest.raises(ManyInvalid) as told:
            plan_training(home, practice, asked(output_dir=name))
        assert [error.field for error in told.value.errors] == ["images"]
    assert files(home) == {}


def test_missing_model_files_are_told_one_by_one(home, real, project):
    found = check(home, real, asked())
    assert fields(found) == ["models.dit", "models.text_encoder", "models.vae"]
    assert all(error.hint for error in found.errors)
    assert found.plan is not None
    assert found.estimate["steps"] > 0
    model_files(home.root)
    assert check(home, real, asked()).errors == []
    (home.root / "diffusion_pytorch_model.safetensors").write_bytes(b"x")
    assert fields(check(home, real, asked())) == ["models.vae"]


def test_the_practice_trainer_needs_no_model_files(home, practice, project):
    found = check(home, practice, asked())
    assert found.errors == []
    train = options(found.plan.stages[2])
    assert train["dit"].endswith(".safetensors")
    assert train["vae"] == options(found.plan.stages[0])["vae"]


def test_model_files_are_named_where_they_lie(home, real, project):
    model_files(home.root)
    stages = check(home, real, asked()).plan.stages
    assert options(stages[2])["dit"] == str(home.root / "qwen_image_bf16.safetensors")
    assert options(stages[1])["text_encoder"] == str(home.root / "qwen_2.5_vl_7b.safetensors")
    assert options(stages[0])["vae"] == str(home.root / "diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"sample_prompt_text": ""}, "sample_prompt_text"),
        ({"sample_prompt_text": " \n# only a comment\n"}, "sample_prompt_text"),
        ({"sample_prompt_text": "x", "sample_every_epochs": 0}, "sample_every_epochs"),
    ],
)
def test_samples_that_would_never_come_are_an_error(home, practice, project, more, field):
    settings = asked(samples_enabled=True, **more)
    assert fields(check(home, practice, settings)) == [field]
    assert check(home, practice, {**settings, "samples_enabled": False}).errors == []


def test_baseline_samples_alone_are_enough(home, practice, project):
    more = {"sample_prompt_text": "x", "sample_every_epochs": 0, "sample_at_first": True}
    assert check(home, practice, asked(samples_enabled=True, **more)).errors == []


def test_two_images_of_one_name_are_an_error(home, practice, project):
    (project.path / "A.png").write_bytes(picture(1, (64, 64), "PNG"))
    found = check(home, practice, asked())
    assert fields(found) == ["images"]
    assert "a.jpg, A.png" in str(found.errors[0])


def test_an_image_that_cannot_be_read_is_an_error(home, practice, project):
    (project.path / "a.jpg").write_bytes(b"<html>")
    found = check(home, practice, asked())
    assert fields(found) == ["images"]
    assert "a.jpg" in str(found.errors[0])


@pytest.mark.parametrize("name", ["a[1]", "what?", "x*"])
def test_a_place_where_musubi_finds_no_caches_is_an_error(tmp_path, practice, name):
    home = Home(tmp_path / name).make()
    project = Project(home, "ball")
    project.make()
    (project.path / "a.jpg").write_bytes(JPEG)
    found = check(home, practice, asked())
    assert fields(found) == ["output_dir"]
    assert str(home.output) in str(found.errors[0])


def test_all_errors_are_told_at_once_and_nothing_is_written(home, real, project):
    (project.path / "a.jpg").write_bytes(b"")
    settings = asked(samples_enabled=True, advanced_flags="--nonsense")
    before = files(home)
    with pytest.raises(ManyInvalid) as told:
        plan_training(home, real, settings)
    models = ["models.dit", "models.text_encoder", "models.vae"]
    wanted = ["images", *models, "advanced_flags", "sample_prompt_text"]
    assert [error.field for error in told.value.errors] == wanted
    assert files(home) == before


def test_warnings_tell_of_missing_texts_and_of_a_lora_that_will_be_replaced(
    home, practice, project
):
    (project.path / "my ball.safetensors").touch()
    found = check(home, practice, asked())
    assert [warning.field for warning in found.warnings] == ["captions", "output_name", "images"]
    assert "1 of 3 images have no caption" in str(found.warnings[0])
    found = check(home, practice, asked(trigger_word="", output_name="new"))
    assert "1 of 3 images have no text at all" in str(found.warnings[0])
    project.set_caption("é 画.jpg", "a ball")
    assert check(home, practice, asked(output_name="new", epochs=60)).warnings == []


def test_few_images_and_few_steps_are_warned_of_with_what_to_do(home, practice, project):
    def advice(**given):
        warnings = check(home, practice, asked(image_repeats=10, **given)).warnings
        return [warning for warning in warnings if warning.field == "images"]

    told = advice(epochs=9)[0]
    assert str(told).startswith("Only 3 images and 270 steps")
    assert "10 instead of 9" in told.points[1]
    assert len(told.as_dict()["points"]) == 4
    assert advice(epochs=10) == []


def test_a_warm_up_longer_than_the_training_is_an_error(home, practice, project):
    line = "--lr_scheduler rex --lr_warmup_steps"
    (error,) = check(home, practice, asked(epochs=2, advanced_flags=f"{line} 1000")).errors
    assert error.field == "advanced_flags" and "longer than the training's" in str(error)
    assert check(home, practice, asked(epochs=2, advanced_flags=f"{line} 1")).errors == []


def test_the_estimate_is_of_the_images_that_are_there(home, practice, project):
    settings = asked(resolution="256x256", epochs=2, image_repeats=5, batch_size=2)
    found = check(home, practice, settings)
    assert found.estimate.items() >= estimate.steps(settings, SIZES.values()).items()
    assert found.estimate["steps"] == 2 * 3 * 3


@pytest.mark.parametrize(
    ("number", "text"), [(128.0, "128"), (0.5, "0.5"), (5e-5, "5e-05"), (1e-4, "0.0001")]
)
def test_numbers_are_passed_without_loss(number, text):
    assert commands.plain(number) == text
    assert float(commands.plain(number)) == number


def test_scripts_are_named_in_the_order_they_run():
    assert SCRIPTS == (LATENTS, TEXT_ENCODER, TRAIN)


# -- what stands in the way of the place -----------------------------------------------------------


def test_a_folder_nothing_can_be_written_to_is_told_before_the_start(
    home, practice, project, monkeypatch
):
    monkeypatch.setattr(os, "access", lambda path, mode: path != project.path)
    found = check(home, practice, asked())
    (error,) = [one for one in found.errors if one.field == "output_dir"]
    assert "can't be written" in str(error) and str(project.path) in str(error)


def test_a_log_that_cannot_be_made_is_a_sentence(home, practice, project, monkeypatch):
    def refuse(path, *_a, **_m):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    plan = check(home, practice, asked()).plan
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match="Read-only file system"):
        checks.take_log(plan, partial(commands.log_path, project.path, "my_lora"))


@pytest.mark.parametrize("own", [True, False])
def test_the_way_out_of_too_little_vram_keeps_flags_that_are_not_about_memory(
    home, real, project, own
):
    model_files(home.root)
    card = {"index": 0, "name": "RTX 4090", "used": 0, "total": 24 * 2**30}
    ram = {"total": 2**36, "used": 0, "limit": "machine"}
    memory = {"ram": ram, "gpus": [card], "disk": {"free": 10**12, "total": 10**12}}
    here = replace(place(home, real), machine=Machine(memory))
    line = "--gradient_checkpointing --lr_scheduler cosine --max_grad_norm 0.5" if own else None
    settings = asked(vram_profile="24+", advanced_flags=line)
    (offer,) = [w for w in checks.check(here, settings).warnings if isinstance(w, Offer)]
    assert offer.settings["vram_profile"] == "24"
    after = checks.check(here, {**settings, **offer.settings})
    assert not after.errors
    assert not [w for w in after.warnings if isinstance(w, Offer)]
    train = " ".join(after.plan.stages[2].argv)
    assert "--blocks_to_swap 16" in train
    assert ("--lr_scheduler cosine --max_grad_norm 0.5" in train) is own
    assert ("--max_grad_norm 1.0" in train) is not own
