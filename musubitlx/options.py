"""The options of Musubi's scripts, as data: recorded, or read from the Musubi that is installed."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from musubitlx.home import read_json, write_json

RECORDED_VERSION = "0.3.4"
RECORDED = Path(__file__).parent / "data" / f"musubi-options-{RECORDED_VERSION}.json"

LATENTS = "qwen_image_cache_latents.py"
TEXT_ENCODER = "qwen_image_cache_text_encoder_outputs.py"
TRAIN = "qwen_image_train_network.py"
SCRIPTS = (LATENTS, TEXT_ENCODER, TRAIN)

log = logging.getLogger(__name__)


def steps_or_share(text: str) -> int | float:
    """Read `10`, `0.1` or `10%` as Musubi's warm-up options do; ValueError otherwise.

    A whole number from 1 on is steps, however it is written; anything else a share.
    """
    if text.endswith("%"):
        return float(text[:-1]) / 100
    number = float(text)
    return int(number) if number >= 1 and number.is_integer() else number


TYPES = {"str": str, "int": int, "float": float, "Path": str, "_int_or_float": steps_or_share}


# -- a table and its parsers -----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Table:
    """The options of the three scripts of one Musubi version.

    `source` is what to call it in a sentence; `installed` tells that it was read
    from the installation itself, and then `hub` says where that looks for files of
    Hugging Face ({cache, offline}; None: not known).
    """

    scripts: dict  # {script: {options, parser_defaults}}
    source: str
    installed: bool = False
    hub: dict | None = None
    _parsers: dict = field(default_factory=dict, repr=False)

    def parser(
        self,
        script: str,
        parser_class: type[argparse.ArgumentParser] = argparse.ArgumentParser,
    ) -> argparse.ArgumentParser:
        """The script's parser, built once for each class; KeyError for an unknown script."""
        key = (script, parser_class)
        if key not in self._parsers:
            self._parsers[key] = _built(self.scripts[script], script, parser_class)
        return self._parsers[key]

    def options(self, script: str) -> list[dict]:
        """The rows of a script's options, without --help."""
        return [row for row in self.scripts[script]["options"] if row["action"] != "help"]

    def names(self, script: str) -> list[str]:
        """Every way to write an option of the script, in the script's order, without --help."""
        return [name for row in self.options(script) for name in row["option_strings"]]

    def knows(self, script: str, option: str) -> bool:
        """Tell whether the script has an option of exactly this name."""
        return option in self.names(script)


@lru_cache(maxsize=4)
def load_table(path: Path = RECORDED) -> dict:
    """Return the recorded options: `{script: {options, parser_defaults}}`."""
    return json.loads(path.read_text(encoding="utf-8"))["scripts"]


@lru_cache(maxsize=1)
def recorded() -> Table:
    """The table that comes with MusubiTLX."""
    return Table(load_table(), f"Musubi Tuner {RECORDED_VERSION}, as recorded")


def build_parser(
    script: str, parser_class: type[argparse.ArgumentParser] = argparse.ArgumentParser
) -> argparse.ArgumentParser:
    """Return a parser that takes and refuses what the recorded `script` does.

    Abbreviations are on and a wrong option ends the program with exit code 2,
    as argparse does it; give a `parser_class` of your own to act otherwise.
    """
    return _built(load_table()[script], script, parser_class)


def _built(table: dict, script: str, parser_class) -> argparse.ArgumentParser:
    parser = parser_class(prog=script)
    for option in table["options"]:
        if option["action"] != "help":
            parser.add_argument(*option["option_strings"], **_arguments(option))
    parser.set_defaults(**table["parser_defaults"])
    return parser


def _arguments(option: dict) -> dict:
    """What `add_argument` needs besides the names."""
    given = {"dest": option["dest"], "action": option["action"], "default": option.get("default")}
    if option["action"] == "store_true":
        return {**given, "default": option.get("default", False)}
    given["type"] = TYPES.get(option.get("type"), str)
    for key in ("nargs", "choices", "required"):
        if key in option:
            given[key] = option[key]
    return given


# -- the table of what is installed ----------------------------------------------------------------


class Installed(Protocol):
    """What is asked of a trainer here."""

    practice: bool
    scripts: Path
    source: Path
    python: str
    version: str | None


PROGRAM = Path(__file__).with_name("read_options.py")
READER = "options reader"  # the name of the threads that read
MARKER = b"--- options of Musubi's scripts ---"
FORMAT = 1  # of the cache file; another number is read anew
KEY_S = 30.0  # so long the files are believed to be as they were


class OptionTables:
    """The table that fits a trainer; reading one in the background where it must be read.

    `folder` keeps what was read, so that a restart needs no second reading. A
    reading that takes longer than `timeout_s` seconds has failed; a failure is
    remembered until Musubi's files change. May be used from several threads.
    """

    def __init__(self, folder: Path, *, timeout_s: float = 120.0, key_s: float = KEY_S):
        self._folder, self._timeout_s, self._key_s = folder, timeout_s, key_s
        self._lock = threading.Lock()
        self._keys: dict[tuple, tuple[float, str]] = {}
        self._tables: dict[str, Table] = {}
        self._failed: dict[str, str] = {}
        self._reading: set[str] = set()

    def get(self, trainer: Installed) -> Table:
        """The installed options once they are known, the recorded ones until then. Never waits."""
        if trainer.practice or not is_musubi(trainer.scripts):
            return recorded()
        with self._lock:
            key = self._key(trainer)
            if key not in self._tables and key not in self._failed and key not in self._reading:
                self._begin(trainer, key)
            return self._tables.get(key) or recorded()

    def problem(self, trainer: Installed) -> str | None:
        """Why the installed options could not be read; None when they were or still may be."""
        with self._lock:
            return None if trainer.practice else self._failed.get(self._key(trainer))

    def _key(self, trainer: Installed) -> str:
        """A digest that changes with the version and with any of Musubi's files."""
        place, now = (trainer.scripts, trainer.python, trainer.version), time.monotonic()
        looked, key = self._keys.get(place, (0.0, ""))
        if not key or now - looked >= self._key_s:
            key = _digest(trainer)
            self._keys[place] = (now, key)
        return key

    def _begin(self, trainer: Installed, key: str) -> None:
        """Take the table from its file, or start reading it."""
        kept = read_json(self._file(key)) or {}
        if kept.get("format") == FORMAT and kept.get("key") == key and _usable(kept.get("scripts")):
            self._tables[key] = _installed(kept, trainer)
            return
        self._reading.add(key)
        reader = threading.Thread(target=self._read, args=(trainer, key), name=READER, daemon=True)
        reader.start()

    def _read(self, trainer: Installed, key: str) -> None:
        table, reason = None, "it could not be read"
        try:
            table = _installed(read_installed(trainer, self._timeout_s), trainer)
        except (OSError, ValueError) as error:
            reason = str(error)
        finally:
            with self._lock:
                self._reading.discard(key)
                if table:
                    self._tables[key] = table
                else:
                    self._failed[key] = reason
        if table is None:
            log.warning("The options of the installed Musubi Tuner are unknown: %s", reason)
            return
        with suppress(OSError):  # it is read again after a restart, no more
            self._keep(key, table)

    def _keep(self, key: str, table: Table) -> None:
        value = {"format": FORMAT, "key": key, "scripts": table.scripts, "hub": table.hub}
        write_json(self._file(key), value)
        for old in self._folder.glob("options-*.json"):
            if old != self._file(key):
                old.unlink(missing_ok=True)

    def _file(self, key: str) -> Path:
        return self._folder / f"options-{key}.json"


@lru_cache(maxsize=8)
def is_musubi(scripts: Path) -> bool:
    """Whether the scripts are Musubi's: reading the options of others would run them.

    Told from the import of its package, which all of its scripts have.
    """
    try:
        return all(b"musubi_tuner" in (scripts / name).read_bytes() for name in SCRIPTS)
    except OSError:
        return False


def _digest(trainer: Installed) -> str:
    """Over version, interpreter, where Hugging Face is told to look, and every Python file."""
    hub = [os.environ.get(name) for name in HUB_VARIABLES]
    digest = hashlib.sha256(os.fsencode(f"{trainer.version}\0{trainer.python}\0{hub}\0"))
    for path in sorted(trainer.scripts.rglob("*.py")):
        with suppress(OSError):
            info = path.stat()
            name = path.relative_to(trainer.scripts)
            digest.update(os.fsencode(f"{name}\0{info.st_size}\0{info.st_mtime_ns}\0"))
    return digest.hexdigest()[:16]


HUB_VARIABLES = ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "XDG_CACHE_HOME")


def _installed(answer: dict, trainer: Installed) -> Table:
    called = " ".join(filter(None, ["Musubi Tuner", trainer.version]))
    hub = answer.get("hub")
    told = isinstance(hub, dict) and isinstance(hub.get("cache"), str) and "offline" in hub
    source = f"{called}, as installed"
    return Table(answer["scripts"], source, installed=True, hub=hub if told else None)


BASIC = {  # options without which a table is not one of Musubi's
    LATENTS: {"--dataset_config", "--vae"},
    TEXT_ENCODER: {"--dataset_config", "--text_encoder"},
    TRAIN: {"--dataset_config", "--dit", "--network_module", "--optimizer_type"},
}


def _usable(scripts: object) -> bool:
    """Tell whether a parser can be built for each script."""
    try:
        table = Table(scripts, "")
        return all(
            table.parser(name) and basic <= {*table.names(name)} for name, basic in BASIC.items()
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, argparse.ArgumentError):
        return False


def read_installed(trainer: Installed, timeout_s: float = 120.0) -> dict:
    """Ask Musubi's scripts for their options, in Musubi's interpreter: {scripts, hub}.

    Takes some 5 to 10 s.

    Raises ValueError with the reason when they can't be had, OSError when the
    interpreter can't be started.
    """
    path = os.pathsep.join(filter(None, [str(trainer.source), os.environ.get("PYTHONPATH")]))
    more = {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "PYTHONIOENCODING": "utf-8"}
    # Files, not pipes: what a child of the child holds open would be waited for.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            ended = subprocess.run(
                [trainer.python, str(PROGRAM), str(trainer.scripts), *SCRIPTS],
                env={**os.environ, **more},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired:
            raise ValueError(f"no answer within {timeout_s:g} seconds") from None
        out.seek(0)
        err.seek(0)
        return _answer(out.read(), err.read(), ended.returncode)


def _answer(out: bytes, err: bytes, code: int) -> dict:
    """The table behind the last marker; ValueError with the last line of what went wrong."""
    _, marker, text = out.rpartition(MARKER)
    if code or not marker:
        lines = err.decode("utf-8", "replace").strip().splitlines()
        raise ValueError(lines[-1][:500] if lines else f"it ended with exit code {code}")
    try:
        answer = json.loads(text)
        scripts = answer["scripts"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("the answer is no table of options") from None
    if not _usable(scripts):
        raise ValueError("the answer holds no options of the three scripts")
    return answer


def of_words(words: list[str]) -> dict[str, str]:
    """Options and values of a command line; of an option given twice the later one counts."""
    found: dict[str, str] = {}
    name = None
    for word in map(str, words):
        if word.startswith("--"):
            name, _, value = word.partition("=")
            found[name] = value
        elif name:
            found[name] = f"{found[name]} {word}".strip()
    return found
