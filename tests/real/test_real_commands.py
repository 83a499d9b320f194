"""Every command that is built is one the parsers of the real scripts take, and as it was meant.

Runs when the variables named in test_real_musubi.py name an installation.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from inputs import VALID
from support import picture
from test_commands import FLAGS, FROM_SETTINGS, asked, check
from test_real_musubi import GIVEN, pytestmark  # noqa: F401

from musubitlx import musubi
from musubitlx.projects import Project

PROGRAM = """
import argparse, json, runpy, sys

class Taken(BaseException):
    pass

def take(parser, *_a, **_m):
    raise Taken(parser)

real = argparse.ArgumentParser.parse_args
argparse.ArgumentParser.parse_args = take
answers = []
for script, lines in json.load(sys.stdin).items():
    sys.argv = [script]
    try:
        runpy.run_path(script, run_name="__main__")
    except Taken as taken:
        parser = taken.args[0]
    for line in lines:
        answers.append(json.dumps(vars(real(parser, line)), default=str))
print("=====")
print("\\n".join(answers))
"""


def test_built_commands_are_taken_by_the_real_parsers(home, project, monkeypatch):
    monkeypatch.setattr(musubi, "missing_packages", lambda trainer: [])
    (project.path / "a.jpg").write_bytes(picture(1, (64, 48)))
    trainer = musubi.find(home)
    assert not trainer.practice
    lines, settings = {}, []
    for valid in examples(40):
        plan = check(home, trainer, valid).plan
        settings.append(plan.settings)
        for stage in plan.stages:
            lines.setdefault(stage.argv[1], []).append(stage.argv[2:])
    ended = subprocess.run(
        [GIVEN["MUSUBI_PYTHON"], "-c", PROGRAM],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(trainer.source), "PATH": "/usr/bin:/bin"},
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    answers = [json.loads(row) for row in ended.stdout.split("=====")[1].strip().splitlines()]
    assert len(answers) == 3 * len(settings)
    for given, read in zip(settings, answers[2 * len(settings) :], strict=True):
        for name, option in FROM_SETTINGS.items():
            assert read[option] == given[name]
        assert Path(read["output_dir"]) == Project(home, "ball").path


def examples(count: int) -> list[dict]:
    """Generated settings with generated flags, the same each time."""
    import warnings

    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while len(found) < count:
            valid, line = VALID.example(), FLAGS.example()
            found.append(asked(**{**valid, "output_dir": "ball", "advanced_flags": line}))
    return found
