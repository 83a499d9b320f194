"""What may stand in the files of a job record. All else counts as not there.

Records may be old, damaged or edited by hand. They are looked at here once, as they are
read, so that nobody who shows a run has to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from musubitlx import settings
from musubitlx.home import is_storable

Check = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str) and is_storable(value)


def _some_text(value: Any) -> bool:
    return _text(value) and bool(value)


def _number(value: Any) -> bool:
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return real and -settings.MOST < value < settings.MOST  # false for one that is none


def _whole(value: Any) -> bool:
    return _number(value) and isinstance(value, int)


def _switch(value: Any) -> bool:
    return isinstance(value, bool)


def _table(value: Any) -> bool:
    return isinstance(value, dict)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _text_table(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_text, [*value, *value.values()]))


def _shaped(given: Any, shape: dict[str, Check]) -> dict:
    """The entries of `given` that `shape` knows and finds right."""
    found = given if isinstance(given, dict) else {}
    return {name: found[name] for name, fits in shape.items() if fits(found.get(name))}


# -- job.json --------------------------------------------------------------------------------------

STAGE = {**dict.fromkeys(("name", "title", "cwd"), _text), "argv": _texts}  # what one must have
STAGE_MORE = {
    "env": _text_table,
    "outputs": _texts,
    "caches": lambda value: _table(value) and all(_table(value.get(n, {})) for n in CACHES),
}
CACHES = ("with", "files")  # tables in what a caching stage says of its files
RECORD = {
    **dict.fromkeys(("id", "kind", "queue", "title", "log"), _some_text),
    "created": _number,
    "stages": lambda value: isinstance(value, list),
}  # what a record must have
RECORD_MORE = {
    **dict.fromkeys(("project", "version"), _text),
    **dict.fromkeys(("settings", "load"), _table),
    **dict.fromkeys(("inputs", "results"), _texts),
    "files": _text_table,
    **dict.fromkeys(("practice", "trial"), _switch),
}
MISSING = {"project": None, "settings": {}, "load": None, "files": {}, "practice": False}
MISSING |= {"trial": False}
MISSING |= {"inputs": [], "results": []}


def job(given: Any) -> dict:
    """The record of a job with every entry in place; empty when it is none.

    What it must not lack are id, kind, queue, title, log, created and stages. Of the stages
    only those are left that can be one; `damaged` says that others are missing, since a job must
    never be run in part.
    """
    needed = _shaped(given, RECORD)
    if len(needed) < len(RECORD):
        return {}
    record = {**MISSING, **needed, **_shaped(given, RECORD_MORE)}
    record["settings"] = settings.stored(record["settings"])
    stages = [_shaped(stage, STAGE | STAGE_MORE) for stage in needed["stages"]]
    record["stages"] = [stage for stage in stages if STAGE.keys() <= stage.keys()]
    record["damaged"] = record["stages"] != needed["stages"]
    return record


# -- request.json ----------------------------------------------------------------------------------

REQUEST = {"stop": _number, "position": _number, "after_epoch": _switch}


def request(given: Any) -> dict:
    """What is asked of a job."""
    return _shaped(given, REQUEST)


# -- status.json -----------------------------------------------------------------------------------

STATUS = {
    **dict.fromkeys(("state", "bar", "reason", "hint"), _text),
    **dict.fromkeys(("started", "ended", "last_seen"), _number),
    **dict.fromkeys(("runner", "child", "progress"), _table),
    **dict.fromkeys(("exit_code", "last_epoch"), _whole),
    "stage": lambda value: len(_shaped(value, PLACE)) == len(PLACE),
    "diagnosis": lambda value: len(_shaped(value, DIAGNOSIS)) == len(DIAGNOSIS),
    "warning": lambda value: len(_shaped(value, WARNING)) == len(WARNING),
    "outputs": lambda value: isinstance(value, list),
}
PLACE = {"index": _whole, "count": _whole, "name": _text, "title": _text}
DIAGNOSIS = {"id": _text, "lines": _texts}
WARNING = {"id": _text, "text": _text, "hint": _text}
PROGRESS = {
    **dict.fromkeys(("step", "total", "epoch", "epochs", "nan_steps"), _whole),
    **dict.fromkeys(("loss", "seconds_per_step", "eta_s", "elapsed_s", "per_s"), _number),
    "unit": _text,
}


def status(given: Any) -> dict:
    """What became of a job."""
    found = _shaped(given, STATUS)
    if "progress" in found:
        found["progress"] = _shaped(found["progress"], PROGRESS)
    if "outputs" in found:
        found["outputs"] = [path for path in found["outputs"] if _text(path)]
    return found
