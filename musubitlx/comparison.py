"""The difference of two runs: settings, flags as they were parsed, images, captions, versions."""

from __future__ import annotations

from collections.abc import Iterator

from musubitlx import history, options
from musubitlx.jobs import Job

NAMES = 5  # of images that are listed; more are counted
MADE_OF_SETTINGS = {  # options that say again what a setting says, or where files of a run lie
    *("--output_dir", "--output_name", "--dataset_config", "--max_train_epochs"),
    *("--learning_rate", "--optimizer_type", "--network_dim", "--network_alpha", "--seed"),
    *("--sample_prompts", "--sample_every_n_epochs", "--sample_every_n_steps", "--sample_at_first"),
}
Pair = tuple[Job, Job]


def compare(first: Job, second: Job) -> dict:
    """{rows, captions}: what differs as {group, label, values}, and how many captions do.

    Of two values, None is not known and "" not set. Of the captions some are among the rows.
    """
    pair = (first, second)
    texts = [history.captions_of(job) for job in pair]
    other = [name for name, text in texts[0].items() if texts[1].get(name, text) != text]
    captions = [("Captions", name, [one[name] for one in texts]) for name in other[:NAMES]]
    found = [*_settings(pair), *_flags(pair), *_images(pair), *captions, *_versions(pair)]
    rows = [
        {"group": group, "label": label, "values": list(values)}
        for group, label, values in found
        if values[0] != values[1]
    ]
    return {"rows": rows, "captions": len(other)}


def _settings(pair: Pair) -> Iterator[tuple]:
    tables = [{one["name"]: one for one in history.setting_rows(job)} for job in pair]
    for name in dict.fromkeys([*tables[0], *tables[1]]):
        if name != "advanced_flags":  # they are told as the trainer got them
            found = [table.get(name) for table in tables]
            label = next(one["label"] for one in found if one)
            yield "Settings", label, [one and one["value"] for one in found]


def options_of(words: list[str]) -> dict[str, str]:
    """The options of a command by name; one without a value is `on`."""
    given = options.of_words(words[2:])  # after interpreter and script
    return {name: value or "on" for name, value in given.items()}


def _flags(pair: Pair) -> Iterator[tuple]:
    stages = [{s["name"]: s for s in job.stages} for job in pair]
    for stage in dict.fromkeys([*stages[0], *stages[1]]):
        found = [options_of(of[stage]["argv"] if stage in of else []) for of in stages]
        title = next(of[stage]["title"] for of in stages if stage in of)
        for name in dict.fromkeys([*found[0], *found[1]]):
            if name not in MADE_OF_SETTINGS and name != "--batch_size":
                yield f"Flags: {title}", name, [one.get(name, "") for one in found]


def _images(pair: Pair) -> Iterator[tuple]:
    names = [history.images_of(job) for job in pair]
    yield "Images", "Number", [str(len(one)) for one in names]
    sets = [set(one) for one in names]
    only = [[n for n in names[0] if n not in sets[1]], [n for n in names[1] if n not in sets[0]]]
    yield "Images", "Only in this run", [_listed(one) for one in only]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
    return ", ".join(names[:NAMES]) + more


def _versions(pair: Pair) -> Iterator[tuple]:
    found = [history.versions_of(job) for job in pair]
    for name in dict.fromkeys([*found[0], *found[1]]):
        yield "Versions", name, [one.get(name) for one in found]
