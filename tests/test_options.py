"""The options of Musubi's scripts: recorded, read in the background, kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from support import ROOT, wait_until

from musubitlx import options, read_options
from musubitlx.options import SCRIPTS, TRAIN, OptionTables


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


@pytest.mark.parametrize(("text", "value"), [("10", 10), ("0.1", 0.1), ("10%", 0.1), ("1.0", 1)])
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


def test_a_table_builds_each_parser_once_and_knows_its_names():
    table = options.recorded()
    assert table.parser(TRAIN) is table.parser(TRAIN)
    assert table.knows(TRAIN, "--fp8_base")
    assert not table.knows(TRAIN, "--fp8")
    assert "--help" not in table.names(TRAIN)
    assert (table.source, table.installed) == ("Musubi Tuner 0.3.4, as recorded", False)


def test_program_and_module_agree():
    assert read_options.MARKER.encode() == options.MARKER


# -- read from an installation ---------------------------------------------------------------------

SCRIPT = """
import argparse, pathlib, sys, musubi_tuner
print("loading ... {{}}")
sys.stderr.write("a warning")

def number(text):
    return int(text)

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset_config", type=pathlib.Path, required=True)
    for basic in {basic}:
        parser.add_argument(basic)
    parser.add_argument("--{name}", type=number, default=0, choices=[0, 1])
    parser.add_argument("--many", nargs="*")
    parser.add_argument("--way", action=argparse.BooleanOptionalAction)
    parser.add_argument("--on", action="store_true")
    parser.add_argument("--of", type=str, default=pathlib.Path("x"))
    parser.set_defaults(on=False)
    args = parser.parse_args()
    raise SystemExit("went on")

if __name__ == "__main__":
    main()
"""


def script(name: str, option: str) -> str:
    """The text of a tiny script with what each of Musubi's has."""
    basic = sorted(options.BASIC[name] - {"--dataset_config"})
    return SCRIPT.format(name=option, basic=basic)


@dataclass(frozen=True)
class Stand:
    """A trainer as the tables see it."""

    scripts: Path
    source: Path
    python: str = sys.executable
    version: str | None = "9.9"
    practice: bool = False


@pytest.fixture
def stand(tmp_path):
    """A folder that passes for Musubi, with three tiny scripts."""
    source = tmp_path / "musubi" / "src"
    scripts = source / "musubi_tuner"
    scripts.mkdir(parents=True)
    (scripts / "__init__.py").touch()
    for name in SCRIPTS:
        (scripts / name).write_text(script(name, "first"))
    return Stand(scripts, source)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "kept").mkdir()
    return tmp_path / "kept"


def read(tables: OptionTables, trainer: Stand) -> options.Table:
    """The installed table, when the background has read it and has gone."""
    wait_until(lambda: tables.get(trainer).installed, seconds=20, what="the table")
    wait_until(idle, seconds=20, what="the reader to end")
    return tables.get(trainer)


def idle() -> bool:
    return not any(thread.name == options.READER for thread in threading.enumerate())


def test_the_practice_trainer_has_the_recorded_table(folder, stand):
    tables = OptionTables(folder)
    assert tables.get(replace(stand, practice=True)) is options.recorded()
    assert tables.problem(replace(stand, practice=True)) is None
    assert list(folder.iterdir()) == []


def test_the_installed_table_is_read_in_the_background(folder, stand):
    tables = OptionTables(folder)
    assert tables.get(stand) is options.recorded()
    table = read(tables, stand)
    assert (table.source, table.installed) == ("Musubi Tuner 9.9, as installed", True)
    assert table.scripts[TRAIN]["parser_defaults"] == {"on": False}
    rows = {row["option_strings"][0]: row for row in table.options(TRAIN)}
    assert rows["--dataset_config"] == {
        "option_strings": ["--dataset_config"],
        "dest": "dataset_config",
        "type": "Path",
        "required": True,
        "action": "store",
    }
    assert rows["--first"]["default"] == 0
    assert rows["--first"]["choices"] == [0, 1]
    assert rows["--many"]["nargs"] == "*"
    assert rows["--way"]["action"] == rows["--on"]["action"] == "store_true"
    assert rows["--of"]["default"] == "x"
    assert table.knows(TRAIN, "--no-way")
    assert table.parser(TRAIN).parse_args(["--dataset_config", "a", "--no-way"])


def test_a_restart_needs_no_second_reading(folder, stand):
    read(OptionTables(folder), stand)
    assert OptionTables(folder).get(stand).knows(TRAIN, "--first")
    assert idle()


def test_a_changed_musubi_is_read_anew_and_old_files_go(folder, stand):
    tables = OptionTables(folder, key_s=0)
    read(tables, stand)
    (old,) = folder.iterdir()
    (folder / "jobs.json").touch()
    (stand.scripts / TRAIN).write_text(script(TRAIN, "second_one"))
    assert not tables.get(stand).installed
    assert read(tables, stand).knows(TRAIN, "--second_one")
    assert not old.exists()
    assert len(list(folder.iterdir())) == 2
    assert read(tables, replace(stand, version=None)).source == "Musubi Tuner, as installed"


def test_files_are_looked_at_now_and_then_only(folder, stand):
    tables = OptionTables(folder, key_s=1000)
    read(tables, stand)
    (stand.scripts / TRAIN).write_text(script(TRAIN, "second"))
    assert tables.get(stand).knows(TRAIN, "--first")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise ImportError('no torch here')", "no torch here"),
        ("print('nothing')", "ended without reading a command line"),
        ("import sys; sys.exit(3)", "exit code 3"),
        ("import os; os._exit(0)", "exit code 0"),
        ("import time; time.sleep(60)", "no answer within 1 seconds"),
        ("this is no Python", "SyntaxError"),
    ],
)
def test_a_failed_reading_is_remembered_with_its_reason(folder, stand, text, reason):
    for name in SCRIPTS:
        (stand.scripts / name).write_text(text + "  # musubi_tuner")
    tables = OptionTables(folder, timeout_s=1 if "sleep" in text else 20)
    assert tables.get(stand) is options.recorded()
    wait_until(lambda: tables.problem(stand), seconds=20, what="the failure")
    assert reason in tables.problem(stand)
    wait_until(idle, seconds=20, what="the reader to end")
    assert tables.get(stand) is options.recorded()
    assert idle()
    assert list(folder.iterdir()) == []


def test_scripts_that_are_not_musubi_s_are_not_run_for_their_options(folder, stand):
    mark = folder / "ran"
    (stand.scripts / TRAIN).write_text(f"open({str(mark)!r}, 'w')")
    options.is_musubi.cache_clear()
    tables = OptionTables(folder)
    assert tables.get(stand) is options.recorded()
    assert idle() and not mark.exists()


def test_a_parser_that_lacks_the_basic_options_is_not_musubi_s(folder, stand):
    (stand.scripts / TRAIN).write_text(SCRIPT.format(name="first", basic=[]))
    tables = OptionTables(folder)
    tables.get(stand)
    wait_until(lambda: tables.problem(stand), seconds=20, what="the failure")
    assert tables.get(stand) is options.recorded()


def test_where_hugging_face_files_lie_is_told_by_the_interpreter_that_will_look(folder, stand):
    hub = stand.source / "huggingface_hub"
    hub.mkdir()
    (hub / "__init__.py").touch()
    (hub / "constants.py").write_text("HF_HUB_CACHE = '/there'\nHF_HUB_OFFLINE = True\n")
    assert read(OptionTables(folder), stand).hub == {"cache": "/there", "offline": True}
    assert OptionTables(folder).get(stand).hub == {"cache": "/there", "offline": True}


def test_an_interpreter_that_is_not_there_is_a_failed_reading(folder, stand):
    tables, trainer = OptionTables(folder), replace(stand, python=str(folder / "python"))
    tables.get(trainer)
    wait_until(lambda: tables.problem(trainer), seconds=20, what="the failure")


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: b"",
        lambda kept: b"{",
        lambda kept: b"\xff\xfe",
        lambda kept: b"[" * 100_000,
        lambda kept: json.dumps({**kept, "format": 0}).encode(),
        lambda kept: json.dumps({**kept, "key": "other"}).encode(),
        lambda kept: json.dumps({**kept, "scripts": {}}).encode(),
        lambda kept: json.dumps({**kept, "scripts": {name: [] for name in SCRIPTS}}).encode(),
        lambda kept: json.dumps(
            {**kept, "scripts": {n: {"options": [3], "parser_defaults": {}} for n in SCRIPTS}}
        ).encode(),
    ],
)
def test_a_damaged_or_foreign_file_is_read_anew(folder, stand, damage):
    read(OptionTables(folder), stand)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(json.loads(whole)))
    again = OptionTables(folder)
    assert again.get(stand) is options.recorded()
    read(again, stand)
    assert path.read_bytes() == whole


def test_a_folder_that_can_t_be_written_costs_only_a_second_reading(tmp_path, stand):
    assert read(OptionTables(tmp_path / "nowhere"), stand).installed


def test_many_ask_at_once_and_one_reads(folder, stand):
    counter = stand.source.parent / "count"
    text = f"open({str(counter)!r}, 'a').write('x')\n" + script(TRAIN, "first")
    (stand.scripts / TRAIN).write_text(text)
    tables = OptionTables(folder, key_s=0)
    threads = [threading.Thread(target=tables.get, args=(stand,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    read(tables, stand)
    assert counter.read_text() == "x"


def test_the_program_s_own_folder_hides_no_module(stand):
    for name in SCRIPTS:
        text = "import logs; assert logs.mine\n" + script(name, "first")
        (stand.scripts / name).write_text(text)
    (stand.scripts / "logs.py").write_text("mine = True")
    assert options.read_installed(stand, 20)["scripts"][TRAIN]["options"]


def test_the_program_needs_the_standard_library_only(stand):
    command = [sys.executable, "-S", str(options.PROGRAM), str(stand.scripts), *SCRIPTS]
    env = {**os.environ, "PYTHONPATH": str(stand.source)}
    ended = subprocess.run(command, env=env, capture_output=True, text=True)
    told = json.loads(ended.stdout.splitlines()[-1])
    assert told["scripts"][TRAIN] and told["hub"] is None
    assert options.MARKER.decode() in ended.stdout
