"""From the end of a failed log to what went wrong and what to try.

What is known stands in `known_errors.py`; here a log is read and compared with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from musubitlx.known_errors import ERRORS, SIGNALS, SILENT, STAGES, UNKNOWN_REMEDY, Row

MAX_EVIDENCE = 300  # characters
MAX_ERROR = 4000  # characters of an exception's text: Musubi prints pages of key names
MAX_LINES = 50  # of it
TOLD_LINES = 12  # that are shown of a log
TOLD_CHARACTERS = 240  # of each


@dataclass(frozen=True)
class Diagnosis:
    """What is known about a failure."""

    code: str  # a fixed name, for the page and the tests
    cause: str  # what happened, one sentence
    remedy: str  # what to do about it
    evidence: str  # the line it was told from, cut to MAX_EVIDENCE; may be ""
    names: dict[str, str] = field(default_factory=dict)  # what the error names: `name`, `what`…
    lines: list[str] = field(default_factory=list)  # of the log: the error and what led to it


def diagnose(tail: str, *, exit_code: int | None, stage: str) -> Diagnosis | None:
    """Say what went wrong in a stage, by the end of its log (some 16 KiB) and its exit code.

    `exit_code` is negative for a signal and None when unknown. An error nobody has
    described has the code "unknown"; None when the log shows no error at all and the
    exit code says nothing either.
    """
    log = lines_of(tail)
    place = find_error(log)
    error = place.text if place else ""
    line = error.partition("\n")[0][:MAX_EVIDENCE]
    lines = telling_lines(log, place)
    for row in ERRORS:
        if (match := re.search(row.error, error)) and re.search(row.context, tail):
            return described(row, match, line, lines)
    if signal := SIGNALS.get(exit_code):
        return Diagnosis(*signal, line, lines=lines)
    for row in SILENT:
        if not error and (match := re.search(row.error, tail)):
            return described(row, match, match[0].strip()[:MAX_EVIDENCE], lines)
    if not line:
        return None
    title = STAGES.get(stage, "The program")
    return Diagnosis("unknown", f"{title} ended with: {line}", UNKNOWN_REMEDY, line, lines=lines)


def described(row: Row, match: re.Match, evidence: str, lines: list[str]) -> Diagnosis:
    """Fill a row with the names found (Python doubles the backslashes of a Windows path)."""
    found = {name: value or "" for name, value in match.groupdict().items()}
    found = {name: value[:MAX_EVIDENCE].replace(r"\\", "\\") for name, value in found.items()}
    cause, remedy = row.cause.format(**found), row.remedy.format(**found)
    return Diagnosis(row.code, cause, remedy, evidence, found, lines)


# -- reading a log --------------------------------------------------------------------------------

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
TRACEBACK = "Traceback (most recent call last):"
EXCEPTION = re.compile(r"([A-Za-z_][\w.]*)(: .*)?", re.DOTALL)
IGNORED = "Exception ignored in"
NO_MORE = re.compile(  # what follows an exception's text: a bar, a log record, another exception
    r"\d{1,12}%\||it/s\b|s/it\b|^(?:DEBUG|INFO|WARNING|ERROR|CRITICAL):|"
    r"Traceback \(most|^Exception ignored"
)
OPEN_BAR = re.compile(r"\d{1,12}%\||\d{1,12}it \[")
USAGE_ERROR = re.compile(r"(?m)^\S+: error: .*$")
NO_FILE_ERROR = re.compile(r"can't open file .*")
BARE_ERROR = re.compile(r"(?m)^(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception): .*$")
ERROR_RECORD = re.compile(r"\b(?:ERROR|CRITICAL):[\w.]+:.*")
LAUNCHERS = ("subprocess.CalledProcessError", "torch.distributed.elastic")


@dataclass(frozen=True)
class Place:
    """An error and the lines of the log it takes: `first` its traceback's, `at` its own first."""

    text: str
    first: int
    at: int


def lines_of(tail: str) -> list[str]:
    """The lines of a log, each state of a bar as one, without colours."""
    return re.split(r"\r\n|\r|\n", ESCAPES.sub("", tail))


def last_error(tail: str) -> str | None:
    """Return the exception (its text may have several lines) or usage error that ended a log."""
    place = find_error(lines_of(tail))
    return place.text if place else None


def find_error(lines: list[str]) -> Place | None:
    """Find the error that ended a log.

    The last one counts, unless it is only the launcher's, which tells that its child
    failed. "Traceback" may be glued to a progress bar, and a bar may follow the error.
    """
    places = [place for start in traceback_starts(lines) if (place := exception_at(lines, start))]
    own = [place for place in places if not place.text.startswith(LAUNCHERS)]
    if places:
        return (own or places)[-1]
    text = "\n".join(lines)
    for pattern in (USAGE_ERROR, NO_FILE_ERROR, BARE_ERROR, ERROR_RECORD):
        if found := list(pattern.finditer(text)):
            last = found[-1]
            at = text.count("\n", 0, last.start())
            return Place(last[0][:MAX_ERROR].strip(), at, at)
    return None


def traceback_starts(lines: list[str]) -> list[int]:
    """Return the line numbers below each "Traceback", but for those Python says it ignored."""
    return [
        number + 1
        for number, line in enumerate(lines)
        if TRACEBACK in line and not (number and IGNORED in lines[number - 1])
    ]


def exception_at(lines: list[str], start: int) -> Place | None:
    """Return the exception below a traceback's frames, None if the tail was cut before it.

    Frames are indented, and the open bar may stand between them; the first other line at the
    left margin is the exception, and lines follow it until an empty one, a bar, a log record
    or another traceback.
    """
    number = start
    while number < len(lines) and not at_margin(lines[number]):
        number += 1
    if number == len(lines) or not EXCEPTION.fullmatch(lines[number]):
        return None
    text = [lines[number]]
    for line in lines[number + 1 : number + MAX_LINES]:
        if not line.strip() or NO_MORE.search(line):
            break
        text.append(line)
    return Place("\n".join(text)[:MAX_ERROR].strip(), start - 1, number)


def at_margin(line: str) -> bool:
    """Whether a line says something at the left margin that is no bar."""
    return bool(line.strip()) and not line[0].isspace() and not OPEN_BAR.search(line)


# -- what is shown of it --------------------------------------------------------------------------

FRAME = re.compile(r'\s+File "')
UNDERLINE = re.compile(r"\s*[~^]+\s*")
LIBRARY = re.compile(r"site-packages|[/\\]lib[/\\]python3|<frozen ")
USAGE = re.compile(r"usage: |\s+\[-|\s+-")
# Lines of the runner, and what Musubi always says though nothing is wrong.
IDLE = re.compile(r"===|\$ |MusubiTLX |Started \d|Trying to import sage|Failed to import sage")
BAR = re.compile(r"(.*?)\d{1,12}(?:%\||it \[)")  # its title
SAID_BEFORE, FRAMES, OF_THE_ERROR = 2, 3, 4  # at most; a frame has two lines


def telling_lines(lines: list[str], place: Place | None) -> list[str]:
    """The lines of a log that tell of a failure: the error, whence it came, what was said before.

    Without an error: what was said last.
    """
    if place is None:
        return [_cut(line) for line in _said(lines, TOLD_LINES // 2)]
    before, glued = lines[: place.first], ""
    if place.at != place.first:
        glued = lines[place.first].partition(TRACEBACK)[0].strip()
    within = lines[place.first + 1 : place.at]
    bars = [line for line in within if OPEN_BAR.search(line) and not line[0].isspace()]
    said = _said([*before, glued, *bars], SAID_BEFORE)
    frames = _frames(within)
    error = [line for line in place.text.split("\n") if line.strip()][:OF_THE_ERROR]
    return [_cut(line) for line in [*said, *frames, *error]][-TOLD_LINES:]


def last_lines(tail: str) -> list[str]:
    """What a log said last, for an end that was not the program's own."""
    return telling_lines(lines_of(tail), None)


def _said(lines: list[str], most: int) -> list[str]:
    """The last lines that say something; of a bar only its last state."""
    found: list[str] = []
    last_bar = None
    for line in reversed(lines):
        if len(found) == most:
            break
        if not line.strip() or USAGE.match(line) or IDLE.match(line):
            continue
        bar = match[1].strip() if (match := BAR.match(line)) else None
        if bar is None or bar != last_bar:
            found.insert(0, line.strip())
        last_bar = bar
    return found


def _frames(lines: list[str]) -> list[str]:
    """Of a traceback's frames the last, and the last ones before it that are no library's."""
    frames: list[list[str]] = []
    for line in lines:
        if FRAME.match(line):
            frames.append([line])
        elif frames and len(frames[-1]) < 2 and line.strip() and not UNDERLINE.fullmatch(line):
            frames[-1].append(line)
    own = [frame for frame in frames[:-1] if not LIBRARY.search(frame[0])]
    chosen = [*own[1 - FRAMES :], *frames[-1:]]
    return [line for frame in chosen for line in frame]


def _cut(line: str) -> str:
    line = line.rstrip()
    return line if len(line) <= TOLD_CHARACTERS else line[: TOLD_CHARACTERS - 1] + "…"
