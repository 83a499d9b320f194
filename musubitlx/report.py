"""A run as a zip for a bug report: enough to see what went wrong, nothing that is private.

No image and no caption, no token; names of images are numbers, paths begin at the home
folder, and neither user nor machine is named.
"""

from __future__ import annotations

import getpass
import importlib.metadata
import io
import itertools
import json
import os
import platform
import re
import shlex
import socket
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from musubitlx import __version__, caches, history, musubi, notes, resources
from musubitlx.errors import UserError
from musubitlx.home import PACKAGE_ROOT, Home, read_json
from musubitlx.jobs import Job
from musubitlx.logs import read_tail

LOG_BYTES = 2_000_000
METRICS_BYTES = 5_000_000
PACKAGES = ("flask", "werkzeug", "gevent", "waitress", "pillow", "numpy", "psutil", "pyyaml")
PACKAGES += ("nvidia-ml-py", "pillow-heif", "safetensors")
BEGINNING = 3  # characters by which a word that goes is noticed
SHORTEST_SECRET = 4  # characters; a shorter one would be found everywhere
COMMON = {"root", "user", "admin", "localhost"}  # names that name nobody

REMOVED = "[removed]"
SECRET_OPTION = re.compile(r"(?i)--?[\w-]*(token|api_?key|password|passwd|secret)[\w-]*")
SECRETS = (  # what is a secret by its looks, wherever it stands
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), REMOVED),
    (re.compile(r"(?i)([?&](?:token|key|api_key|password)=)[^&\s\"']+"), rf"\1{REMOVED}"),
    (re.compile(r"(?i)(https?://)[^/\s:@\"']+:[^/\s@\"']+@"), rf"\1{REMOVED}@"),
    (
        re.compile(
            r"(?i)(https?://(?:[\w.-]*discord[\w.-]*|hooks\.slack\.com|ntfy\.sh))/[^\s\"']+"
        ),
        rf"\1/{REMOVED}",
    ),
    (re.compile(r"(?i)(authorization:\s*\w+\s+)\S+"), rf"\1{REMOVED}"),
)
HOMES = re.compile(
    r"(?:/home|/Users)/[^/\s:\"'\\]+|[A-Za-z]:(?:\\{1,2}|/)Users(?:\\{1,2}|/)[^/\s:\"'\\]+"
)

CONTENTS = """This is a report of one training run of MusubiTLX {version}, made {made}.

run.json             what was run and how it ended: settings, commands, state
dataset_config.toml  what the trainer was told of the images
training.log         the log, its last {log_mb} MB if it is longer
metrics.jsonl        loss, speed and memory, step by step
versions.json        versions of programs and packages, graphics card, driver, system
caches.json          how many caches there are, and what they were made with

Not in it: images, captions, notes and access tokens. Images are called by numbers, folders
begin at [home] (MusubiTLX), [program] or ~ (the user's), and the names of user and machine
were removed. Trigger word, subject description and sample prompts are in it, as settings of
the run and as the trainer printed them. Look through it before you send it on.
"""


def build(job: Job, home: Home, trainer: musubi.Trainer, memory: dict, secrets: Iterable[str] = ()):
    """Return the bytes of the zip.

    `memory` is what `resources.Poller.snapshot` gives, `secrets` are texts that must not be in it.
    """
    scrub = Scrub(job, home, secrets)
    made = time.strftime("%Y-%m-%d %H:%M:%S %z")
    files = {
        "README.txt": CONTENTS.format(version=__version__, made=made, log_mb=LOG_BYTES // 10**6),
        "run.json": _json(scrub.value(_run(job))),
        "dataset_config.toml": scrub.text(history.file_of(job, "dataset_config.toml")),
        "training.log": scrub.text(read_tail(Path(job.log), LOG_BYTES)),
        "metrics.jsonl": read_tail(job.folder / "metrics.jsonl", METRICS_BYTES),
        "versions.json": _json(scrub.value(_versions(job, trainer, memory))),
        "caches.json": _json(scrub.value(_caches(job, home))),
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text.encode("utf-8", "replace"))
    return packed.getvalue()


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


# -- what is in it ---------------------------------------------------------------------------------


def _run(job: Job) -> dict:
    """The record without what names images or holds captions."""
    record = {name: job.record.get(name) for name in ("id", "kind", "queue", "project", "title")}
    record |= {name: job.record.get(name) for name in ("created", "version", "practice", "load")}
    return {
        **record,
        "settings": job.settings,
        "images": len(history.images_of(job)),
        "stages": [_stage(stage) for stage in job.stages],
        "request": job.request,
        "status": {**job.status, "runner": None, "child": None},
        "state": job.state,
        "notes": bool(notes.read(job.folder)),
    }


def _stage(stage: dict) -> dict:
    made_of = stage.get("caches") if isinstance(stage.get("caches"), dict) else {}
    files = made_of.get("files")
    return {
        **{name: stage.get(name) for name in ("name", "title", "cwd", "env")},
        "argv": stage["argv"],
        "caches": {
            "wanted": len(files) if isinstance(files, dict) else 0,
            **{name: made_of.get(name) for name in ("kind", "with", "model")},
        },
    }


def _versions(job: Job, trainer: musubi.Trainer, memory: dict) -> dict:
    """Versions now, and those of the run where its record has them."""
    cards = memory.get("gpus") or []
    return {
        "run": history.versions_of(job),
        "MusubiTLX": __version__,
        "Python": sys.version,
        "packages": dict(_packages()),
        "Musubi Tuner": {
            "found": not trainer.practice,
            "version": trainer.version,
            "reason": trainer.reason,
            "interpreter": musubi.versions(trainer),
        },
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "ram": memory.get("ram"),
        "disk": memory.get("disk"),
        "gpus": [{name: card.get(name) for name in ("name", "total", "used")} for card in cards],
        "gpu_reason": memory.get("gpu_reason"),
        "driver": resources.driver_version() if cards else None,
    }


def _packages():
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            yield name, importlib.metadata.version(name)


def _caches(job: Job, home: Home) -> list[dict]:
    """What the folder's index notes now: how many caches of a kind were made with the same."""
    index: dict = {}
    with suppress(UserError):  # a folder on record that can't be one
        index = read_json(home.project(job.project) / caches.INDEX) or {}
    rows = index.get("caches")
    found = Counter()
    for name, entry in rows.items() if isinstance(rows, dict) else ():
        if isinstance(entry, dict):
            kind = "texts" if name.endswith(caches.KINDS["texts"].ending) else "latents"
            made_with = json.dumps(entry.get("with"), sort_keys=True)
            found[kind, made_with, entry.get("file") != caches.MAKING] += 1
    return [
        {"kind": kind, "with": json.loads(made_with), "finished": finished, "count": count}
        for (kind, made_with, finished), count in sorted(found.items())
    ]


# -- what is taken out -----------------------------------------------------------------------------


class Scrub:
    """Takes secrets, captions, names of images and of people, and absolute homes out of texts."""

    def __init__(self, job: Job, home: Home, secrets: Iterable[str] = ()):
        hidden = {text for text in (*secrets, *_secrets_of(job)) if len(text) >= SHORTEST_SECRET}
        captions = set(history.captions_of(job).values())  # a bare word could be any in the log
        pairs = [(text, "[caption]") for text in captions if len(text.split()) > 1]
        pairs += _image_names(job)
        # Secrets first: a name that overlaps the beginning of one must not leave the rest of it.
        self._exchanges = Exchange(dict.fromkeys(hidden, REMOVED)), Exchange(dict(pairs))
        self._folders = list(_folders(home))
        self._words = [re.compile(rf"(?i)(?<!\w){re.escape(name)}(?!\w)") for name in _own_names()]

    def text(self, text: str) -> str:
        """The text without all that."""
        for exchange in self._exchanges:
            text = exchange(text)
        for old, new in self._folders:
            text = text.replace(old, new)
        text = HOMES.sub("~", text)
        for pattern, new in SECRETS:
            text = pattern.sub(new, text)
        for pattern in self._words:
            text = pattern.sub("[name]", text)
        return text

    def value(self, value: object) -> object:
        """The same for every text in lists and objects, names of entries included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(name)): self.value(one) for name, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(one) for one in value]
        return value


class Exchange:
    """Puts other words in place of thousands of words, in one pass over a text.

    Where several begin at a place the longest counts; words of less than three
    characters are left alone.
    """

    def __init__(self, words: dict[str, str]):
        self._words = {old: new for old, new in words.items() if len(old) >= BEGINNING}
        self._lengths: dict[str, set[int]] = {}  # of the words that begin so
        for old in self._words:
            self._lengths.setdefault(old[:BEGINNING], set()).add(len(old))

    def __call__(self, text: str) -> str:
        found, kept, at = [], 0, 0
        while at < len(text):
            lengths = self._lengths.get(text[at : at + BEGINNING])
            old = lengths and self._word_at(text, at, lengths)
            if not old:
                at += 1
                continue
            found += [text[kept:at], self._words[old]]
            kept = at = at + len(old)
        return "".join([*found, text[kept:]])

    def _word_at(self, text: str, at: int, lengths: set[int]) -> str | None:
        words = (text[at : at + length] for length in sorted(lengths, reverse=True))
        return next((word for word in words if word in self._words), None)


def _secrets_of(job: Job) -> Iterable[str]:
    """What follows an option for a secret, in the commands and in the flags as they were typed."""
    lines = [stage["argv"] for stage in job.stages]
    with suppress(ValueError):
        lines.append(shlex.split(job.settings.get("advanced_flags") or ""))
    for words in lines:
        for option, word in itertools.zip_longest(words, words[1:], fillvalue=""):
            name, given, value = option.partition("=")
            if SECRET_OPTION.fullmatch(name):
                yield value if given else "" if word.startswith("--") else word


def _image_names(job: Job) -> Iterable[tuple[str, str]]:
    """Names of images, of their captions and caches, each with what it is called instead."""
    numbers = {name: f"image-{n:03d}" for n, name in enumerate(history.images_of(job), 1)}
    by_stem = {Path(name).stem: number for name, number in numbers.items()}
    for name, number in numbers.items():
        yield name, number + Path(name).suffix
        yield f"{Path(name).stem}.txt", f"{number}.txt"
    for stage in job.stages:
        made_of = stage.get("caches")
        files = made_of.get("files") if isinstance(made_of, dict) else None
        for name in files if isinstance(files, dict) else ():
            stem = re.sub(r"(_\d{4,}x\d{4,})?_qi(_te)?\.safetensors$", "", name)
            if stem in by_stem:
                yield name, by_stem[stem] + name[len(stem) :]


def _folders(home: Home) -> Iterable[tuple[str, str]]:
    """Folders as they may stand in a text, the deepest first; in JSON backslashes are doubled."""
    known = {str(home.root): "[home]", str(PACKAGE_ROOT): "[program]", str(Path.home()): "~"}
    for folder, name in sorted(known.items(), key=lambda pair: len(pair[0]), reverse=True):
        if len(folder) > len("/x"):  # never / itself
            for shape in (folder, folder.replace("\\", "\\\\"), folder.replace("\\", "/")):
                yield shape, name


def _own_names() -> set[str]:
    """The names of user and machine, as far as they name somebody."""
    names = {Path.home().name, socket.gethostname(), platform.node()}
    with suppress(Exception):  # no such user in the system's list
        names.add(getpass.getuser())
    return {name for name in names if len(name) >= 3 and name.lower() not in COMMON}
