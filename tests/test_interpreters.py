"""What a Python has, asked without importing it."""

from __future__ import annotations

import sys

import pytest

from musubitlx import interpreters


@pytest.fixture(autouse=True)
def _anew():
    interpreters.forget()


def test_versions_are_told_by_the_name_that_is_imported():
    found = interpreters.packages(sys.executable, ("PIL", "flask", "json", "no_such_package"))
    assert found["python"].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}.")
    assert found["PIL"][0].isdigit() and found["flask"][0].isdigit()
    assert found["json"] == "" and "no_such_package" not in found


def test_nothing_of_it_is_imported(tmp_path):
    package = tmp_path / "explosive"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit(3)")
    found = interpreters.packages(sys.executable, ("explosive",), str(tmp_path))
    assert found["explosive"] == ""


@pytest.mark.parametrize("python", ["/no/such/python", "/bin/false", "/"])
def test_one_that_cannot_be_started_has_no_answer(python):
    assert interpreters.packages(python, ("flask",)) is None


def test_an_answer_is_remembered_until_it_is_to_be_forgotten(tmp_path):
    ask = lambda: interpreters.packages(sys.executable, ("fresh",), str(tmp_path))  # noqa: E731
    assert "fresh" not in ask()
    (tmp_path / "fresh.py").touch()
    assert "fresh" not in ask()
    interpreters.forget()
    assert "fresh" in ask()
