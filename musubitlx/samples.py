"""The sample images of an output folder: of which run, prompt and checkpoint; all as a zip."""

from __future__ import annotations

import re
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from musubitlx.errors import NotFound
from musubitlx.jobs import Job
from musubitlx.origins import Origins, Run
from musubitlx.projects import SAMPLE, Project

BLOCK_BYTES = 262_144


def listed(project: Project, jobs: Iterable[Job]) -> list[dict]:
    """The samples, oldest first, each with run, prompt, epoch or step, seed and checkpoint.

    The prompt is that of the run which drew it. Of a run that is not on record any
    more it is taken from the folder's prompt file, if that is older than the
    sample; else it is not known (None).
    """
    origins = Origins(project, jobs)
    written, lines = _prompt_file(project)
    there = {one.path.name: one.run and one.run.id for one in origins.loras()}
    found = []
    for path in (project.path / "sample").glob("*.png"):
        if match := SAMPLE.fullmatch(path.name):
            with suppress(FileNotFoundError, NotFound):
                modified = path.stat().st_mtime
                run = origins.of(match["name"], modified)
                prompts = run.prompts() if run else lines if written <= modified else []
                found.append(_facts(path.name, match, modified, run, prompts, there))
    return sorted(found, key=lambda sample: (sample["modified"], sample["name"]))


def runs(project: Project, jobs: Iterable[Job]) -> list[dict]:
    """The runs of the folder, the newest first, as the page names them."""
    return [run.as_dict() for run in Origins(project, jobs).runs]


def _facts(name, match: re.Match, modified: float, run: Run | None, prompts, there) -> dict:
    number = int(match["prompt"])
    line = prompts[number] if number < len(prompts) else None
    text, _, options = (line or "").partition(" --")
    epoch = int(match["epoch"]) if match["epoch"] else None
    step = int(match["step"]) if match["step"] else None
    return {
        "name": name,
        "lora": match["name"],
        "run": run.id if run else None,
        "prompt": text if line is not None else None,
        "options": f"--{options}" if options else None,
        "prompt_number": number,
        "epoch": epoch,
        "step": step,
        "seed": int(match["seed"]) if match["seed"] else None,
        "modified": modified,
        "checkpoint": _checkpoint(match["name"], epoch, step, run, there),
    }


def _checkpoint(lora, epoch, step, run: Run | None, there: dict) -> str | None:
    """The LoRA file saved where a sample was drawn, if it is there and of the same run."""
    if epoch == 0 or step == 0 or not lora:
        return None
    last = run is not None and epoch is not None and epoch == run.epochs
    names = [f"{lora}-{epoch:06d}" if epoch is not None else f"{lora}-step{step:08d}"]
    names += [lora] if last else []
    own = run.id if run else None
    fits = (f"{name}.safetensors" for name in names)
    return next((name for name in fits if there.get(name, "") == own), None)


def _prompt_file(project: Project) -> tuple[float, list[str]]:
    """When the folder's prompt file was written, and its lines."""
    path = project.path / "sample_prompts.txt"
    try:
        text, written = path.read_text(encoding="utf-8"), path.stat().st_mtime
    except (OSError, UnicodeDecodeError):
        return 0.0, []
    return written, [line for line in text.split("\n") if line.strip()]


# -- all of them in one file -----------------------------------------------------------------------


def chosen(samples: list[dict], run: str | None) -> list[dict]:
    """The samples of a run, or all; NotFound when there are none."""
    found = [sample for sample in samples if run is None or sample["run"] == run]
    if not found:
        raise NotFound("There are no samples of this run.")
    return found


def zipped(project: Project, samples: list[dict]) -> Iterator[bytes]:
    """A zip of samples, a piece at a time: nothing of it is kept in memory or on the disk.

    PNGs are stored as they are. One that is gone by now is left out.
    """
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("prompts.txt", prompt_list(samples))
        for name, sample in names(samples).items():
            with suppress(FileNotFoundError, NotFound):
                yield from _member(archive, sink, name, project.result(sample["name"]))
    yield sink.taken()


def _member(archive, sink: _Sink, name: str, path: Path) -> Iterator[bytes]:
    info = zipfile.ZipInfo(name, time.localtime(max(path.stat().st_mtime, 315_619_200))[:6])
    info.external_attr = 0o644 << 16
    with path.open("rb") as source, archive.open(info, "w") as target:
        while data := source.read(BLOCK_BYTES):
            target.write(data)
            yield sink.taken()


class _Sink:
    """What a zip is written to: it can't be wound back, and is emptied piece by piece."""

    def __init__(self):
        self._pieces: list[bytes] = []

    def write(self, data) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def taken(self) -> bytes:
        """What was written since the last call."""
        data, self._pieces = b"".join(self._pieces), []
        return data


def names(samples: list[dict]) -> dict[str, dict]:
    """The samples by readable names: `prompt-01_epoch-003_seed-42.png`.

    Those of several runs lie in a folder for each.
    """
    several = len({sample["run"] for sample in samples}) > 1
    found: dict[str, dict] = {}
    for sample in samples:
        folder = f"{sample['run'] or 'earlier runs'}/" if several else ""
        parts = [f"prompt-{sample['prompt_number'] + 1:02d}", place(sample)]
        parts += [f"seed-{sample['seed']}"] if sample["seed"] is not None else []
        stem, number = folder + "_".join(parts), 1
        while (name := f"{stem}{'' if number == 1 else f'_{number}'}.png") in found:
            number += 1
        found[name] = sample
    return found


def place(sample: dict) -> str:
    """Where a sample stands in the course of training, as part of a file name."""
    if sample["epoch"] == 0 or sample["step"] == 0:
        return "baseline"
    if sample["step"] is not None:
        return f"step-{sample['step']:06d}"
    return f"epoch-{sample['epoch']:03d}"


def prompt_list(samples: list[dict]) -> str:
    """The prompts of samples by number, for the zip."""
    lines = {}
    for sample in samples:
        key = (sample["run"] or "earlier runs", sample["prompt_number"])
        lines[key] = f"prompt-{key[1] + 1:02d}: {sample['prompt'] or '(not known)'}"
    several = len({run for run, _ in lines}) > 1
    parts, before = [], None
    for (run, _), line in sorted(lines.items()):
        if several and run != before:
            parts.append(f"[{run}]")
            before = run
        parts.append(line)
    return "".join(f"{part}\n" for part in parts)
