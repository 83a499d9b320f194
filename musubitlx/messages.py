"""What is said of a run's end, and how each service wants it written."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path

from musubitlx.home import is_storable

LONGEST_TEXT = 1500  # characters; Discord takes 4096 and ntfy 4096 bytes

TITLES = {
    "succeeded": "{work} completed",
    "failed": "{work} failed",
    "stopped": "{work} stopped",
    "interrupted": "{work} was interrupted",
}
WORK = {"train": "Training", "caption": "Captioning", "download": "Download"}
COLOURS = {"succeeded": 0x2E9E5B, "failed": 0xC0392B, "interrupted": 0xC98A1B}  # Discord's bar
TAGS = {"succeeded": "white_check_mark", "failed": "x", "interrupted": "warning"}  # ntfy's signs


@dataclass(frozen=True)
class Message:
    """What is said: a title, a text, and the same as data for programs."""

    title: str
    text: str
    state: str
    data: dict


def of_job(job: dict) -> Message:
    """The message for a job that has ended, as `Job.as_dict` tells it."""
    work = WORK.get(job["kind"], "Run")
    title = TITLES[job["state"]].format(work=work)
    name = job["project"] or job["title"]
    outputs = [Path(path).name for path in job["outputs"]]
    lines = [job["reason"], job["hint"], _figures(job), ", ".join(outputs[:5])]
    if job["practice"]:
        lines.append("Practice run: its LoRA is not for Qwen-Image.")
    data = {
        "event": "run_ended",
        **{key: job[key] for key in ("id", "kind", "project", "title", "state", "reason", "hint")},
        **{key: job[key] for key in ("practice", "exit_code", "created", "started", "ended")},
        "outputs": outputs,
    }
    text = "\n".join(storable(line) for line in lines if line)
    return Message(storable(f"{title}: {name}"), shortened(text), job["state"], data)


def _figures(job: dict) -> str:
    """How long it took, how far it came, the loss: what of it is known."""
    progress, found = job["progress"], []
    if job["started"] and job["ended"]:
        found.append(duration(job["ended"] - job["started"]))
    if progress.get("total"):
        found.append(f"step {progress.get('step') or 0} of {progress['total']}")
    if isinstance(progress.get("loss"), float):
        found.append(f"loss {progress['loss']:.3g}")
    return ", ".join(found)


def duration(seconds: float) -> str:
    """A time as people say it: 42 s, 7 min, 2 h 05 min."""
    if seconds < 60:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def trial() -> Message:
    """What “Send a test” sends."""
    text = "This is how you will hear that a run has ended."
    return Message("MusubiTLX: a test", text, "test", {"event": "test", "text": text})


def shortened(text: str) -> str:
    """A text of a length that every service takes."""
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


def storable(text: str) -> str:
    """A text without halves of characters, which no service could be sent."""
    return text if is_storable(text) else text.encode("utf-8", "replace").decode()


# -- how it is written ----------------------------------------------------------------------------


def body_of(kind: str, message: Message) -> tuple[bytes, dict[str, str]]:
    """The body of the request and its headers, as the service wants them."""
    if kind == "ntfy":
        tags = TAGS.get(message.state, "")
        headers = {"Title": _header(message.title), **({"Tags": tags} if tags else {})}
        headers["Content-Type"] = "text/plain; charset=utf-8"
        return (message.text or message.title).encode(), headers
    said = {
        "discord": _discord,
        "slack": _slack,
        "json": lambda one: {**one.data, "message_title": one.title, "message_text": one.text},
    }[kind](message)
    return json.dumps(said).encode(), {"Content-Type": "application/json"}


def _discord(message: Message) -> dict:
    embed = {"title": message.title[:256], "description": _plain_markdown(message.text)}
    if message.state in COLOURS:
        embed["color"] = COLOURS[message.state]
    return {"embeds": [embed], "allowed_mentions": {"parse": []}}  # a file name calls nobody


def _plain_markdown(text: str) -> str:
    """A text that shows as it is: names of files have underscores and stars."""
    return re.sub(r"([\\*_~`|>\[\]])", r"\\\1", text)


def _slack(message: Message) -> dict:
    text = f"{message.title}\n{message.text}"
    for sign, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, name)
    return {"text": text, "mrkdwn": False}


def _header(text: str) -> str:
    """A text as one line of a header; ntfy reads what is not ASCII in the way mail writes it."""
    line = " ".join(text.split())
    if line.isascii():
        return line
    return f"=?UTF-8?B?{base64.b64encode(line.encode()).decode()}?="
