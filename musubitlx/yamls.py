"""YAML files that people write by hand, read with care."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

MAX_BYTES = 200_000


class Unreadable(Exception):
    """Why a file can't be used, as the end of a sentence: `it is larger than 200000 bytes`."""


def read(path: Path, most_bytes: int = MAX_BYTES) -> object:
    """What a file holds: mappings, lists and texts, and None for `null` or nothing.

    A value is text whatever it looks like, and whoever asks knows what it should be:
    YAML itself takes `no` for False and `5e-5` for a word, and values it promises to
    be a date or a number for reasons to fail. FileNotFoundError, Unreadable.
    """
    import yaml

    try:
        if path.exists() and not path.is_file():  # reading a pipe would wait for ever
            raise Unreadable("it is no file")
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
        if len(data) > most_bytes:
            raise Unreadable(f"it is larger than {most_bytes} bytes")
        return yaml.load(data.decode("utf-8-sig"), Loader=_loader())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unreadable(f"it can't be read, {error.strerror}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise Unreadable(f"it is no YAML{where}") from error
    except UnicodeDecodeError as error:
        raise Unreadable("it is no text in UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise Unreadable("it can't be understood") from error


@lru_cache(maxsize=1)
def _loader() -> type:
    """A loader that makes no value of what it reads but text and None."""
    import yaml

    class Loader(yaml.BaseLoader):
        pass

    null = "tag:yaml.org,2002:null"
    Loader.add_implicit_resolver(null, re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
    Loader.add_constructor(null, lambda loader, node: None)
    return Loader
