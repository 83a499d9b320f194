"""Where word of a run's end goes: the address of a webhook, kept in `configs/notify.yaml`.

Whoever knows that address can write to the person, so it is a secret: the file is for
its owner only, and no answer repeats more of it than the host.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from musubitlx import yamls
from musubitlx.errors import Invalid, NotFound, disk_error
from musubitlx.home import Home, read_json, write_secret

KINDS = {"ntfy": "ntfy", "discord": "Discord", "slack": "Slack", "json": "JSON"}
LONGEST_URL = 2000


@dataclass(frozen=True)
class Target:
    """Where messages go, and how they are written there."""

    kind: str
    url: str

    @property
    def where(self) -> str:
        """What of the address may be shown: its host."""
        return urlsplit(self.url).hostname or ""

    def __repr__(self) -> str:  # a traceback shows this
        return f"Target({self.kind!r}, {self.where!r})"


def path_of(home: Home) -> Path:
    """Where the address is kept."""
    return home.configs / "notify.yaml"


def read(home: Home) -> Target | None:
    """Where messages go, None when nobody asked for any; Invalid when the file can't be used."""
    path = path_of(home)
    try:
        held = yamls.read(path)
    except FileNotFoundError:
        return None
    except yamls.Unreadable as error:
        raise Invalid(f"configs/{path.name}: {error}.") from None
    if held is None:
        return None
    if not isinstance(held, dict):
        raise Invalid(f"configs/{path.name} holds no kind and url.")
    return checked(held.get("kind"), held.get("url"))


def checked(kind: object, url: object) -> Target:
    """The target a person means; Invalid, without the address, when it can't be one."""
    if not isinstance(kind, str) or kind not in KINDS:
        known = ", ".join(KINDS)
        raise Invalid(f"The kind of notification must be one of: {known}.", field="kind")
    url = url.strip() if isinstance(url, str) else ""
    if not url:
        raise Invalid("Enter the address messages go to.", field="url")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    plain = len(url) <= LONGEST_URL and re.fullmatch(r"[\x21-\x7e]+", url)
    if not usable or not plain:
        raise Invalid(
            "This is no address of a webhook.",
            field="url",
            hint="It begins with https:// (or http:// in your own network) and holds no spaces.",
        )
    if kind == "ntfy" and not parts.path.strip("/"):
        raise Invalid(
            "The topic is missing at the end of the ntfy address.",
            field="url",
            hint="It looks like https://ntfy.sh/ and then a name nobody guesses.",
        )
    return Target(kind, url)


def save(home: Home, kind: object, url: object) -> Target:
    """Keep where messages go. Without `url` the kept one stays if it is of that kind."""
    target = chosen(home, kind, url)
    import yaml

    text = yaml.safe_dump({"kind": target.kind, "url": target.url}, sort_keys=False)
    try:
        write_secret(
            path_of(home),
            "# Who is told when a run ends. Whoever knows the address can write to you.\n" + text,
        )
    except OSError as error:
        raise disk_error(error, path_of(home).name) from error
    result_path(home).unlink(missing_ok=True)
    return target


def chosen(home: Home, kind: object, url: object) -> Target:
    """The target of a form whose address may be left empty: the kept one is not shown there."""
    if not url and (kept := read(home)) and kind in (None, kept.kind):
        return kept
    return checked(kind, url)


def forget(home: Home) -> None:
    """Send nothing any more; NotFound when nothing was set."""
    try:
        path_of(home).unlink()
    except FileNotFoundError:
        raise NotFound("No notification is set.") from None
    except OSError as error:
        raise disk_error(error, path_of(home).name) from error
    result_path(home).unlink(missing_ok=True)


def describe(home: Home) -> dict:
    """What the page may know: the kind, the host, and how the last message fared."""
    target = problem = None
    try:
        target = read(home)
    except Invalid as error:
        problem = str(error)
    return {
        "kind": target.kind if target else None,
        "host": target.where if target else None,
        "problem": problem,
        "last": read_json(result_path(home)),
    }


def result_path(home: Home) -> Path:
    """Where it is noted how the last message fared."""
    return home.jobs / "notify.json"
