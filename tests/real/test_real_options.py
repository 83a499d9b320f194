"""The options read from an installation are the recorded ones, and its refusals are foreseen.

Runs when the variables named in test_real_musubi.py name an installation of version 0.3.4.
"""

from __future__ import annotations

from test_real_musubi import pytestmark  # noqa: F401

from musubitlx import musubi, options


def test_the_installed_options_are_those_that_were_recorded(home):
    trainer = musubi.find(home)
    assert trainer.version == options.RECORDED_VERSION
    answer = options.read_installed(trainer)
    assert answer["scripts"] == options.load_table()
    assert answer["hub"]["cache"]
