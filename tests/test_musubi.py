"""Finding Musubi Tuner, and checking a line of its options before anything is started."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inputs import patient
from support import ROOT, stand_in

from musubitlx import musubi, options, presets
from musubitlx.errors import Invalid
from musubitlx.home import Home
from musubitlx.musubi import check_flags
from musubitlx.options import TRAIN


@pytest.fixture(autouse=True)
def no_musubi(monkeypatch):
    """Nothing of this machine's own set-up."""
    monkeypatch.delenv("MUSUBI_DIR", raising=False)
    monkeypatch.delenv("MUSUBI_PYTHON", raising=False)


# -- where it is -----------------------------------------------------------------------------------


def test_without_musubi_it_is_the_practice_trainer_and_says_why(home):
    found = musubi.find(home)
    assert found.practice
    assert found.reason == "Musubi Tuner was not found"
    assert all((found.scripts / script).is_file() for script in options.SCRIPTS)
    assert found.as_dict()["found"] is False


@pytest.mark.parametrize("place", [".", "musubi-tuner", "../musubi-tuner"])
def test_musubi_is_found_in_below_and_beside_the_home_folder(home, place):
    folder = (home.root / place).resolve()
    stand_in(folder)
    found = musubi.find(home)
    assert not found.practice
    assert found.scripts == folder / "src" / "musubi_tuner"
    assert found.source == folder / "src"
    assert (found.version, found.python) == ("0.3.4", sys.executable)


def test_the_nearest_musubi_is_taken(home):
    stand_in(home.root.parent / "musubi-tuner")
    stand_in(home.root / "musubi-tuner")
    assert musubi.find(home).source.parent == home.root / "musubi-tuner"


def test_musubi_dir_decides_and_must_be_right(home, tmp_path, monkeypatch):
    stand_in(home.root / "musubi-tuner")
    told = stand_in(tmp_path / "told")
    monkeypatch.setenv("MUSUBI_DIR", told["MUSUBI_DIR"])
    monkeypatch.setenv("MUSUBI_PYTHON", "/opt/python")
    found = musubi.find(home)
    assert (found.source.parent, found.python) == (tmp_path / "told", "/opt/python")
    for wrong in (tmp_path / "nowhere", home.root):
        monkeypatch.setenv("MUSUBI_DIR", str(wrong))
        with pytest.raises(Invalid) as refused:
            musubi.find(home)
        assert str(wrong) in str(refused.value)
        assert "MUSUBI_DIR" in refused.value.hint


def test_practice_can_be_asked_for(home, tmp_path, monkeypatch):
    monkeypatch.setenv("MUSUBI_DIR", stand_in(tmp_path / "m")["MUSUBI_DIR"])
    found = musubi.find(home, practice=True)
    assert found.practice
    assert found.python == sys.executable


def test_the_environment_in_musubis_folder_is_taken(tmp_path, home, monkeypatch):
    folder = home.root / "musubi-tuner"
    script = folder / "src" / "musubi_tuner" / "qwen_image_train_network.py"
    python = folder / "venv" / "bin" / "python"
    for path in (script, python):
        path.parent.mkdir(parents=True)
        path.touch()
    assert musubi.find(home).python == str(python)
    assert musubi.missing_packages(musubi.find(home)) is None  # it can't be started
    monkeypatch.setenv("MUSUBI_PYTHON", sys.executable)
    (folder / "src" / "torch").mkdir()
    (folder / "src" / "torch" / "__init__.py").touch()
    missing = musubi.missing_packages(musubi.find(home))
    assert missing is not None and "torch" not in missing


@pytest.mark.parametrize("text", [None, "", "no version\n", b"\xff"])
def test_a_musubi_without_a_version_is_one_all_the_same(home, text):
    stand_in(home.root)
    path = home.root / "pyproject.toml"
    if text is None:
        path.unlink()
    else:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert musubi.find(home).version is None
    assert not musubi.find(home).practice


def test_a_folder_that_only_looks_like_musubi_is_passed_over(tmp_path):
    home = Home(tmp_path / "home").make()
    (home.root / "musubi-tuner").mkdir()
    (home.root / "musubi-tuner" / TRAIN).touch()
    assert musubi.find(home).practice


# -- the line of flags -----------------------------------------------------------------------------

TAKEN = frozenset({"--seed", "--dit", "--learning_rate"})


def refusal(line: str) -> Invalid:
    with pytest.raises(Invalid) as told:
        check_flags(line, taken=TAKEN)
    assert told.value.field == "advanced_flags"
    assert str(told.value).startswith("Advanced trainer flags: ")
    return told.value


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("  \n ", []),
        ("--fp8_base --blocks_to_swap 45", ["--fp8_base", "--blocks_to_swap", "45"]),
        ("--blocks_to_swap=45", ["--blocks_to_swap=45"]),
        ("--fp8_base\n--fp8_scaled", ["--fp8_base", "--fp8_scaled"]),
        ("--network_args a=b 'c=d e'", ["--network_args", "a=b", "c=d e"]),
        ("--training_comment 'it''s \"it\"'", ["--training_comment", 'its "it"']),
        ("--lr_warmup_steps -5", ["--lr_warmup_steps", "-5"]),
        ("--lr_warmup_steps 10%", ["--lr_warmup_steps", "10%"]),
        ("--max_grad_norm -1.5", ["--max_grad_norm", "-1.5"]),
        ("--metadata_title=-x", ["--metadata_title=-x"]),
        ("--metadata_title=--seed", ["--metadata_title=--seed"]),
        ("--metadata_title=", ["--metadata_title="]),
        ("--optimizer_args", ["--optimizer_args"]),
        (
            "--training_comment 'a; rm -rf / $(x) `y`'",
            ["--training_comment", "a; rm -rf / $(x) `y`"],
        ),
    ],
)
def test_a_good_line_is_split_as_a_shell_would(line, words):
    assert check_flags(line, taken=TAKEN) == words


def test_the_flags_of_every_profile_are_good():
    for profile in presets.PROFILES:
        assert check_flags(profile.flags, taken=TAKEN) == profile.flags.split()
        assert "--max_grad_norm 1.0" in profile.flags


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--blocks_to_swa 4", "no option --blocks_to_swa"),
        ("--blocks 4", "no option --blocks"),
        ("--resolution 512", "no option --resolution"),
        ("--", "no option --"),
        ("--FP8_BASE", "no option --FP8_BASE"),
        ("--seed 3", "--seed is set by the form"),
        ("--seed=3", "--seed is set by the form"),
        ("--fp8_base --dit x", "--dit is set by the form"),
        ("--blocks_to_swap", "needs a value"),
        ("--blocks_to_swap four", "needs a whole number"),
        ("--blocks_to_swap 4.0", "needs a whole number"),
        ("--blocks_to_swap=", "needs a whole number"),
        ("--blocks_to_swap --fp8_base", "needs a value"),
        ("--lr_warmup_steps 1%%", "--lr_warmup_steps"),
        ("--lr_warmup_steps ''", "--lr_warmup_steps"),
        ("--log_with foo", "can't be"),
        ("--sdpa=1", "--sdpa"),
        ("--sdpa 1", "1 belongs to no option"),
        ("--metadata_title -x", "needs a value"),
        ("word", "word belongs to no option"),
        ("-5", "-5 belongs to no option"),
        ("-", "- belongs to no option"),
        ("--fp8_base 'open", "no closing quotation"),
        ('--fp8_base "open', "no closing quotation"),
        ("--fp8_base \\", "no escaped character"),
        ("-h", "-h belongs to no option"),
        ("--help", "no option --help"),
        ("--fp8_base && reboot", "&& belongs to no option"),
    ],
)
def test_a_bad_line_is_refused_with_the_reason(line, words, capsys):
    assert words in str(refusal(line))
    assert capsys.readouterr() == ("", "")


def test_the_nearest_option_is_named():
    assert refusal("--blocks_to_swa 4").hint == "Did you mean --blocks_to_swap?"
    assert refusal("--gradient_checkpoint").hint == "Did you mean --gradient_checkpointing?"
    assert refusal("--zzzzzzzzzzzz").hint is None


KNOWN = [name for one in options.load_table()[TRAIN]["options"] for name in one["option_strings"]]
WORDS = (
    st.sampled_from(KNOWN)
    | st.text(max_size=12)
    | st.sampled_from(
        [
            "1",
            "-1",
            "1.5",
            "nan",
            "1e999",
            "=",
            "--x=y",
            "''",
            '"a b"',
            "'",
            "\\",
            "--",
            "-",
            "\ud800",
            "10%",
        ]
    )
)
LINE = st.lists(WORDS, max_size=8).map(" ".join)
JOINED = st.builds("{}={}".format, st.sampled_from(KNOWN), st.text(max_size=8))


@patient
@given(LINE | JOINED | st.text(max_size=60))
def test_whatever_is_typed_is_taken_or_refused(line):
    try:
        words = check_flags(line, taken=TAKEN)
    except Invalid as told:
        assert told.field == "advanced_flags"
    else:
        assert not TAKEN & {word.split("=")[0] for word in words}
        options.build_parser(TRAIN).parse_args(words)


# -- the recorded options --------------------------------------------------------------------------


def test_the_parser_knows_every_option_and_default_of_the_table():
    for script in options.SCRIPTS:
        parser, table = options.build_parser(script), options.load_table()[script]
        known = {name for action in parser._actions for name in action.option_strings}
        assert known == {name for row in table["options"] for name in row["option_strings"]}
        for row in table["options"]:
            if (
                row["action"] not in ("help", "store_true")
                and row["dest"] not in table["parser_defaults"]
            ):
                assert parser.get_default(row["dest"]) == row.get("default")


@pytest.mark.parametrize(("text", "value"), [("10", 10), ("0.1", 0.1), ("10%", 0.1), ("1.0", 1.0)])
def test_warm_up_is_steps_or_a_share(text, value):
    read = options.steps_or_share(text)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize("arguments", [["--no_such"], ["--batch_size", "x"], []])
def test_a_script_s_parser_refuses_the_way_argparse_does(arguments):
    code = (
        "import sys; from musubitlx.options import LATENTS, build_parser; "
        "build_parser(LATENTS).parse_args(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "qwen_image_cache_latents.py: error:" in ended.stderr
