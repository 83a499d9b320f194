"""Finding Musubi Tuner, and checking a line of its options before anything is started."""

from __future__ import annotations

import sys

import pytest
from support import stand_in

from musubitlx import musubi, options
from musubitlx.errors import Invalid
from musubitlx.home import Home
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
