"""Settings kept as YAML."""

from __future__ import annotations

import os

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from inputs import VALID, patient

from musubitlx import configs
from musubitlx.errors import Invalid, ManyInvalid, NotFound, UserError
from musubitlx.home import Home
from musubitlx.settings import defaults

DEFAULTS = defaults()


@patient
@given(VALID)
def test_what_is_saved_is_loaded_unchanged(home, valid):
    configs.save(home, None, valid)
    assert configs.load(home, None) == (valid, [])


def test_a_saved_file_is_plain_yaml_with_every_setting(home):
    path = configs.save(home, "été", {"trigger_word": "画像", "learning_rate": 1e-4})
    assert path == home.configs / "été.yaml"
    text = path.read_text(encoding="utf-8")
    assert "trigger_word: 画像" in text
    assert yaml.safe_load(text) == {**DEFAULTS, "trigger_word": "画像", "learning_rate": 1e-4}


def test_wrong_settings_leave_the_file_as_it_was(home):
    path = configs.save(home, None, {"epochs": 3})
    before = path.read_bytes()
    with pytest.raises(ManyInvalid):
        configs.save(home, None, {"epochs": 0})
    assert path.read_bytes() == before
    assert list(home.configs.iterdir()) == [path]


def test_a_file_written_by_hand_is_read_as_meant(home):
    text = "\ufeffvram_profile: 16\nlearning_rate: 5e-5\nresolution: 768\nsamples_enabled: yes\n"
    text += "lora_dims: 64\r\ntrigger_word: 'no'\nepochs: 0\nold_key: 1\nseed: 2020-01-01\n2: 3\n"
    (home.configs / "mine.yaml").write_text(text, encoding="utf-8")
    loaded, problems = configs.load(home, "mine")
    wanted = {"vram_profile": "16", "resolution": "768x768", "samples_enabled": True}
    assert loaded == {**DEFAULTS, **wanted, "lora_dims": 64.0, "trigger_word": "no"}
    assert {problem.field for problem in problems} == {"epochs", "old_key", "seed", "2"}


EARLIER = """
trigger_word: ohwx
vram_profile: '24'
epochs: 3
batch_size: 1
learning_rate: 5e-05
optimizer_type: adamw8bit
prompt: a woman
resolution: 1024x1024
seed: 7
lora_rank: 32
lora_dims: 32
output_dir: output/my face
output_name: my_face
image_repeats: 8
advanced_flags: --fp8_base --fp8_scaled --blocks_to_swap 16 --gradient_checkpointing
samples_enabled: true
sample_prompt_text: |
  # portrait
  {{trigger}} smiling --w 512
sample_every_epochs: 1
sample_every_steps: 0
sample_at_first: true
"""


def test_a_file_of_the_earlier_tool_loads_whole(home):
    (home.configs / "earlier.yaml").write_text(EARLIER)
    loaded, problems = configs.load(home, "earlier")
    assert problems == []
    assert (loaded["output_dir"], loaded["optimizer_type"]) == ("my face", "AdamW8bit")
    assert (loaded["learning_rate"], loaded["image_repeats"]) == (5e-5, 8)
    assert loaded["sample_prompt_text"] == "# portrait\n{{trigger}} smiling --w 512"
    assert loaded["advanced_flags"].startswith("--fp8_base")


def test_named_configurations_are_listed_and_deleted(home):
    for name in ("one", "two words", "last_config", "draft-x"):
        configs.save(home, name, {})
    (home.configs / "models.yaml").write_text("dit: /x\n")
    (home.configs / "imports.yaml").write_text("roots: []\n")
    (home.configs / "draft-by hand.yaml").write_text("epochs: 3\n")
    (home.configs / "recipes").mkdir()
    assert {one["name"] for one in configs.names(home)} == {"one", "two words"}
    configs.remove(home, "one")
    assert [one["name"] for one in configs.names(home)] == ["two words"]
    with pytest.raises(NotFound):
        configs.remove(home, "one")
    for name in ("models", "imports", "../x"):
        with pytest.raises(Invalid):
            configs.remove(home, name)
    assert (home.configs / "models.yaml").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"just text",
        b"- a\n- b",
        b"a: [",
        b"\xff\xfe\x00",
        b"? [a]\n: b",
        b"a: b: c",
        b"a: &a [*a, *a]\nb: *c",
        b"{" * 5000,
        b"seed: &a [*a]",
        b"\x00",
        b"epochs: 3\n#" + b"x" * 200_000,
        b"epochs: 3\n---\nepochs: 4\n",
    ],
)
def test_what_is_no_settings_file_is_told_in_a_sentence(home, data):
    (home.configs / "broken.yaml").write_bytes(data)
    with pytest.raises(Invalid) as told:
        configs.load(home, "broken")
    assert "broken.yaml" in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "line",
    [
        'seed: !!int ""',
        'learning_rate: !!float ""',
        'samples_enabled: !!bool "x"',
        'lora_dims: !!timestamp "x"',
        'epochs: !!python/object/apply:os.system ["id"]',
        "resolution: 0x" + "f" * 6000,
        "vram_profile: 0x" + "f" * 6000,
        "seed: " + "9" * 5000,
        "batch_size: " + ":".join(["59"] * 30_000),
        "? 0x" + "f" * 6000 + "\n: 1",
        "epochs: 1_0",
        "optimizer_type:",
    ],
)
def test_a_value_that_makes_no_sense_is_named_and_the_rest_counts(home, line):
    (home.configs / "odd.yaml").write_text(f"{line}\ntrigger_word: yes\nlora_rank: 8\n")
    loaded, problems = configs.load(home, "odd")
    assert loaded == {**DEFAULTS, "trigger_word": "yes", "lora_rank": 8}
    assert [problem.field for problem in problems] == [line.removeprefix("? ").split(":")[0][:80]]


@pytest.mark.parametrize("text", ["", "null", "~", "Null"])
def test_no_flags_of_ones_own_are_those_of_the_profile(home, text):
    (home.configs / "own.yaml").write_text(f"advanced_flags: {text}")
    assert configs.load(home, "own")[0]["advanced_flags"] is None


@pytest.mark.parametrize("text", ["''", '"null"', "'~'"])
def test_flags_in_quotes_are_taken_as_they_are(home, text):
    (home.configs / "own.yaml").write_text(f"advanced_flags: {text}")
    assert configs.load(home, "own")[0]["advanced_flags"] == text[1:-1]


def test_what_is_no_file_is_told_at_once_and_not_offered(home):
    (home.configs / "folder.yaml").mkdir()
    os.mkfifo(home.configs / "pipe.yaml")
    (home.configs / "endless.yaml").symlink_to("/dev/zero")
    (home.configs / "loop.yaml").symlink_to("loop.yaml")
    for name in ("folder", "pipe", "endless", "loop"):
        with pytest.raises(Invalid, match="loaded: it"):
            configs.load(home, name)
    assert configs.names(home) == []
    with pytest.raises(UserError, match="written: Is a"):
        configs.save(home, "folder", {})
    with pytest.raises(Invalid, match="deleted: Is a"):
        configs.remove(home, "folder")


@patient
@given(st.text(alphabet=":-[]{}&*!|>'\"%@#,? \nab1.~", max_size=60))
def test_whatever_a_file_holds_is_read_or_told(home, text):
    (home.configs / "fuzz.yaml").write_text(text, encoding="utf-8")
    try:
        loaded, _ = configs.load(home, "fuzz")
    except Invalid:
        return
    assert set(loaded) == set(DEFAULTS)


def test_a_name_given_by_a_person_hits_no_file_of_the_page_s_own():
    assert configs.new_name("draft of a face") == "draft of a face"
    for name in ("last_config", "LAST_CONFIG", "draft-ball", "Draft-ball", "", None):
        with pytest.raises(Invalid) as told:
            configs.new_name(name)
        assert told.value.field == "name"


def test_what_is_not_there_is_not_found(home):
    with pytest.raises(NotFound):
        configs.load(home, None)


@pytest.mark.parametrize("name", ["../x", "a/b", "C:x", "CON", ".x", "models", "MODELS", 5, "x\n"])
def test_a_name_that_leads_elsewhere_is_refused(home, name):
    (home.configs / "models.yaml").write_text("dit: /x\n")
    for act in (lambda: configs.load(home, name), lambda: configs.save(home, name, {})):
        with pytest.raises(Invalid) as told:
            act()
        assert told.value.field == "name"
    assert (home.configs / "models.yaml").read_text() == "dit: /x\n"
    assert not (home.root / "x.yaml").exists()


def test_configurations_of_one_home_are_not_another_s(tmp_path):
    one, other = Home(tmp_path / "a").make(), Home(tmp_path / "b").make()
    configs.save(one, "x", {"epochs": 3})
    with pytest.raises(NotFound):
        configs.load(other, "x")
