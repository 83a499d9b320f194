"""First-time set-up, start, stop and status. Standard library only: it runs before anything else
is there, on any Python from 3.10.

    python -m musubitlx.bootstrap [--fg | --stop | --status | --setup] [options] [-- for webgui.py]

Exit status: 0 done; 1 a person has to do something, said in a sentence; 2 a wrong flag; 3 none runs
(`--status`). Set-up is a list of steps, each of which knows whether it is done: a start does what
is missing, and one that was cut short is mended by the next.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from musubitlx import births
from musubitlx.errors import UserError
from musubitlx.home import Home, read_json

ROOT = Path(__file__).resolve().parent.parent  # the folder that holds webgui.py
WINDOWS = os.name == "nt"
STOP_S = 10  # so long a server may take to stop when asked, then it is killed
POLL_S = 0.05
DATE = "%Y-%m-%d %H:%M"
NOT_RUNNING = 3  # the exit status init scripts use for it

# -- what can be chosen ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Option:
    """One thing a person can choose: by flag, by environment variable, or not at all."""

    flag: str
    variable: str
    help: str
    metavar: str | None = None  # None: a switch
    default: str | None = None
    servers: bool = False  # webgui.py has it too, and reads the variable itself

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Add the flag; the variable gives its default, unless that is webgui.py's to read."""
        text = f"{self.help} [{self.variable}]"
        if self.metavar is None:
            parser.add_argument(self.flag, action="store_true", help=text)
            return
        default = self.default if self.servers else os.environ.get(self.variable) or self.default
        parser.add_argument(self.flag, metavar=self.metavar, default=default, help=text)

    def as_given(self, chosen: argparse.Namespace) -> list[str]:
        """The flag as webgui.py wants it, if it was given."""
        value = getattr(chosen, self.flag.lstrip("-").replace("-", "_"))
        return [] if not value else [self.flag] if self.metavar is None else [self.flag, value]


OPTIONS = [
    Option("--home", "MUSUBITLX_HOME", "where output/ and configs/ lie (this folder)", "DIR"),
    Option("--host", "MUSUBITLX_HOST", "address to listen on (0.0.0.0)", "H", servers=True),
    Option("--port", "MUSUBITLX_PORT", "port to listen on (5000)", "P", servers=True),
    Option("--server", "MUSUBITLX_SERVER", "gevent, waitress or flask (auto)", "S", servers=True),
    Option("--token", "MUSUBITLX_TOKEN", "the access token to use", "T", servers=True),
    Option("--no-token", "MUSUBITLX_NO_TOKEN", "let everyone in", servers=True),
    Option("--allow-host", "MUSUBITLX_ALLOW_HOST", "a name of this machine", "NAME", servers=True),
    Option("--practice", "MUSUBITLX_PRACTICE", "use the practice trainer", servers=True),
    Option("--open", "MUSUBITLX_OPEN", "open the page in a browser", servers=True),
    Option("--venv", "MUSUBITLX_VENV", "virtual environment to use or make (venv/)", "DIR"),
    Option("--wait", "MUSUBITLX_WAIT", "seconds the server may take to answer (30)", "S", "30"),
    Option("--yes", "MUSUBITLX_YES", "take every default, ask nothing"),
]


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return what was chosen; what stands after `--` goes to webgui.py as it is."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(
        prog="start_gui",
        description="Sets MusubiTLX up where needed and starts it in the background.",
        epilog="What follows -- goes to webgui.py. In brackets: the environment variable.",
        allow_abbrev=False,
    )
    actions = parser.add_mutually_exclusive_group()
    for name, function, text in ACTIONS:
        actions.add_argument(
            name, dest="action", action="store_const", const=function, help=text, default=start
        )
    for option in OPTIONS:
        option.add_to(parser)
    chosen = parser.parse_args(arguments[:end])
    chosen.more = arguments[end + 1 :]
    return chosen


@dataclass(frozen=True)
class Setup:
    """What one call works on."""

    home: Home
    venv: Path
    named: bool  # the environment was named by a person: what is in it is theirs
    wait: float  # seconds
    server_arguments: list[str]

    @classmethod
    def of(cls, chosen: argparse.Namespace) -> Setup:
        """Relative paths count from where the person stands, which the scripts tell."""
        here = Path(os.environ.get("MUSUBITLX_FROM") or Path.cwd())
        home = Home(here / Path(chosen.home).expanduser() if chosen.home else ROOT)
        venv = here / Path(chosen.venv).expanduser() if chosen.venv else ROOT / "venv"
        given = [word for option in OPTIONS if option.servers for word in option.as_given(chosen)]
        arguments = ["--home", str(home.root), *given, *chosen.more]
        return cls(home, venv, bool(chosen.venv), seconds(chosen.wait), arguments)

    @property
    def python(self) -> Path:
        """The interpreter of the environment, made or not."""
        return self.venv / ("Scripts/python.exe" if WINDOWS else "bin/python")

    @property
    def log(self) -> Path:
        """What the server prints when it runs in the background."""
        return self.home.root / "webgui.log"


def seconds(typed: str) -> float:
    """Read a number of seconds; UserError if it is none."""
    if re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?", typed):
        return float(typed)
    raise UserError(f"--wait takes a number of seconds, not {typed!r}.")


# -- set-up: the steps ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One part of the set-up: skipped when done, and safe to do again after a failure."""

    title: str
    done: Callable[[Setup], bool]
    do: Callable[[Setup], None]


def set_up(setup: Setup) -> None:
    """Do the steps that are still to be done; UserError at the first that fails."""
    for step in STEPS:
        if not step.done(setup):
            print(f"{step.title} ...")
            step.do(setup)


def environment_made(setup: Setup) -> bool:
    """True if the environment has a Python that starts; UserError if that one is too old."""
    show = "import sys; print(*sys.version_info[:2])"
    try:
        answer = subprocess.run([setup.python, "-c", show], stdin=subprocess.DEVNULL, **CAPTURED)
    except OSError:
        return False
    if answer.returncode:
        return False
    if tuple(map(int, answer.stdout.split())) < (3, 10):
        version = ".".join(answer.stdout.split())
        raise UserError(
            f"The virtual environment {setup.venv} has Python {version}; 3.10 or newer is needed.",
            hint="Move it away, or name another with --venv, then start again.",
        )
    return True


def make_environment(setup: Setup) -> None:
    """Make the virtual environment, in place of a half-made or broken one."""
    if not replaceable(setup):
        raise UserError(
            f"{setup.venv} is there, but is not a virtual environment that works.",
            hint="Move it away, or name another with --venv, then start again.",
        )
    need_ensurepip()
    command = [sys.executable, "-m", "venv", "--clear", setup.venv]
    answer = subprocess.run(command, stdin=subprocess.DEVNULL, **CAPTURED)
    if answer.returncode:
        said = answer.stdout.splitlines()
        raise failed(f"The virtual environment {setup.venv} could not be made.", said)


def replaceable(setup: Setup) -> bool:
    """True if what lies at the environment's place may be lost: nothing, or a failed environment.

    One that works, or that a person named, may hold packages of theirs: it must have none but pip.
    """
    folder = setup.venv
    if folder.is_dir() and not any(path.is_file() for path in folder.rglob("*")):
        return True  # the empty folders of a start that was cut short
    if not (folder / "pyvenv.cfg").exists():
        return not folder.exists()
    packages = [*folder.glob("lib/*/site-packages/*"), *folder.glob("Lib/site-packages/*")]
    empty = all(path.name.startswith("pip") for path in packages)
    return empty or not (setup.named or environment_made(setup))


def need_ensurepip() -> None:
    """UserError unless this Python can put pip into an environment; Debian keeps that apart."""
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        raise UserError(
            f"This Python ({sys.executable}) can't make virtual environments: it lacks ensurepip.",
            hint=f"On Debian and Ubuntu: sudo apt install python3-venv (or {package}). "
            "Or name another Python in MUSUBITLX_PYTHON. Then start again.",
        ) from None


def packages_installed(setup: Setup) -> bool:
    """True if this requirements.txt has been installed to the end."""
    with suppress(OSError):
        return stamp(setup).read_text() == fingerprint()
    return False


def stamp(setup: Setup) -> Path:
    """The file that says which requirements.txt the environment was filled from."""
    return setup.venv / ".musubitlx-requirements"


def fingerprint() -> str:
    """SHA-256 of requirements.txt, in hex."""
    return hashlib.sha256((ROOT / "requirements.txt").read_bytes()).hexdigest()


def install_packages(setup: Setup) -> None:
    """Let pip install requirements.txt, showing what it fetches; UserError with its last words."""
    need_pip(setup)
    command = [setup.python, "-m", "pip", "install", "--progress-bar", "off"]
    code, said = follow([*command, "-r", ROOT / "requirements.txt"], show_package)
    if code:
        raise failed("The packages in requirements.txt could not be installed.", said)
    stamp(setup).write_text(fingerprint())


def need_pip(setup: Setup) -> None:
    """See to it that the environment has the whole of pip."""
    if has_pip(setup):
        return
    command = [setup.python, "-m", "ensurepip", "--upgrade", "--default-pip"]
    subprocess.run(command, stdin=subprocess.DEVNULL, **CAPTURED)
    if not has_pip(setup):
        make_environment(setup)


def has_pip(setup: Setup) -> bool:
    """True if pip is there to its last file: RECORD, which lists the others."""
    check = "import importlib.metadata as m, sys; sys.exit(not m.files('pip'))"
    command = [setup.python, "-c", check]
    return not subprocess.run(command, stdin=subprocess.DEVNULL, **CAPTURED).returncode


def show_package(line: str) -> None:
    """Print pip's line about a package it fetches, shortened; swallow the rest."""
    if match := re.match(r"Collecting ([\w.-]+)|Processing (?:.*/)?([\w.]+)-[^/]*\.whl", line):
        print(f"  {match[1] or match[2]}")
    elif line.startswith("Installing collected packages"):
        print("  installing")


STEPS = [
    Step("Making the virtual environment", environment_made, make_environment),
    Step("Installing the packages the GUI needs", packages_installed, install_packages),
]

# -- running other programs -----------------------------------------------------------------------

CAPTURED = {
    "stdout": subprocess.PIPE,
    "stderr": subprocess.STDOUT,
    "encoding": "utf-8",
    "errors": "replace",
}

# What the last lines of a failed program tell, and what then helps.
REMEDIES = [
    ("No space left on device", "The disk is full: make room"),
    (
        "NewConnectionError|Failed to establish|Max retries|name resolution|timed out|ProxyError",
        "No package index could be reached: go online, or behind a proxy set HTTPS_PROXY",
    ),
    ("Permission denied", "These files belong to someone else: see who owns the folder"),
    ("No matching distribution", "This Python may be too new: name another in MUSUBITLX_PYTHON"),
]


def follow(command: list, show: Callable[[str], None]) -> tuple[int, list[str]]:
    """Run a program, handing each line to `show` as it comes; return exit status and all lines."""
    settings = {"PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_USER": "0"}
    environment = {**os.environ, **settings}
    said = []
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, **CAPTURED
    ) as process:
        for line in process.stdout:
            said.append(line.rstrip())
            show(line)
    return process.returncode, said


def failed(what: str, said: list[str]) -> UserError:
    """Make the error for a program that failed: its last useful lines, and what may help."""
    errors = [line for line in said if line.startswith("ERROR")] or said
    lines = "".join(f"\n  {line[:300]}" for line in errors[-4:])
    text = "\n".join(said)
    remedy = next((help for sign, help in REMEDIES if re.search(sign, text)), None)
    again = "start again: what is done already is not done twice."
    return UserError(what + lines, hint=f"{remedy}, then {again}" if remedy else f"Then {again}")


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold off a second set-up or start from this folder; it waits and then finds all done.

    The lock is on this very file and goes with the process, so that none can be left over.
    Where there are no such locks (Windows, some network drives) there is none.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with Path(__file__).open("rb") as file:
        with suppress(OSError):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("Another start is under way, waiting for it ...")
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


# -- the server -----------------------------------------------------------------------------------


def running(home: Home) -> dict | None:
    """Return the record of the server that runs for this home folder, or None."""
    record = read_json(home.server_record) or {}
    return record if births.alive(record.get("pid"), record.get("birth")) else None


def answers(record: dict) -> bool:
    """True if the server answers, be it to ask who is there. Proxies are not asked."""
    try:
        address = urlsplit(str(record.get("url")))
        connection = http.client.HTTPConnection(address.hostname or "?", address.port, timeout=2)
        with closing(connection):
            connection.request("GET", "/healthz")
            return connection.getresponse().status < 500
    except (OSError, ValueError, http.client.HTTPException):
        return False


def describe(record: dict) -> str:
    """Say where a server is to be found, which process it is, and since when."""
    started = record.get("started")
    moment = time.localtime(started if isinstance(started, (int, float)) else 0)
    return f"{record.get('url')} (process {record['pid']}, since {time.strftime(DATE, moment)})"


def runs_under_way(home: Home) -> list[str]:
    """Return the titles of the jobs that run at this moment."""
    titles = []
    for file in sorted(home.jobs.glob("*/status.json")):
        status = read_json(file) or {}
        runner = status.get("runner")
        if status.get("state") != "running" or not isinstance(runner, dict):
            continue
        if births.alive(runner.get("pid"), runner.get("birth")):
            job = read_json(file.with_name("job.json")) or {}
            titles.append(job.get("title") or file.parent.name)
    return titles


def tell_of_runs(home: Home) -> None:
    """Say which jobs are under way: they need no server."""
    for title in runs_under_way(home):
        print(f"Under way, with or without the server: {title}")


# -- what can be asked for ------------------------------------------------------------------------


def start(setup: Setup) -> int:
    """Start the server in the background and print where it is; it outlives this session."""
    with one_at_a_time():
        if record := running(setup.home):
            return tell_it_runs(setup, record)
        set_up(setup)
        offset = setup.log.stat().st_size if setup.log.exists() else 0
        process = launch(setup)
        try:
            answering = wait_for_answer(setup, process)
        except BaseException:  # Ctrl-C: nothing is left behind
            end(process)
            raise
        if not answering:
            raise no_answer(setup, process, offset)
    print(*printed(setup.log, offset)[:20], sep="\n")
    print(f"It runs in the background (process {process.pid}) and writes to {setup.log}.")
    print("To stop it: ./stop_gui.sh" if not WINDOWS else "To stop it: stop_gui.bat")
    return 0


def tell_it_runs(setup: Setup, record: dict) -> int:
    """Say that there is a server already, and where."""
    print(f"MusubiTLX is running already: {describe(record)}")
    if setup.log.exists():
        print(f"Its first lines, links for other machines included, are in {setup.log}.")
    return 0


def launch(setup: Setup) -> subprocess.Popen:
    """Start webgui.py detached: a session of its own, nothing to read from, output to the log."""
    setup.home.root.mkdir(parents=True, exist_ok=True)
    mine = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    with os.fdopen(os.open(setup.log, mine, 0o600), "ab") as log:
        with suppress(OSError):  # the log holds the link with the access token
            setup.log.chmod(0o600)
        return subprocess.Popen(
            [setup.python, ROOT / "webgui.py", *setup.server_arguments],
            cwd=ROOT,
            env=server_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            **DETACHED,
        )


DETACHED = (
    {"creationflags": 0x08000000 | 0x00000200}  # CREATE_NO_WINDOW, CREATE_NEW_PROCESS_GROUP
    if WINDOWS
    else {"start_new_session": True}
)


def server_environment() -> dict:
    """Our environment, with output that comes at once and in UTF-8."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
    environment.pop("MUSUBITLX_FROM", None)
    return environment


def wait_for_answer(setup: Setup, process: subprocess.Popen) -> bool:
    """Wait until the new server answers; False if it ended or the time is over."""
    deadline = time.monotonic() + setup.wait
    while process.poll() is None and time.monotonic() < deadline:
        record = running(setup.home)
        # On Windows an environment's python.exe is a launcher: the server is its child.
        if record and (record["pid"] == process.pid or WINDOWS) and answers(record):
            return True
        time.sleep(POLL_S)
    return False


def no_answer(setup: Setup, process: subprocess.Popen, offset: int) -> UserError:
    """Make the error for a server that ended or never answered; the latter is ended."""
    code = process.poll()
    if code is None:
        end(process)
        what = f"The server did not answer within {setup.wait:g} seconds and was ended."
    else:
        what = f"The server ended at once (exit code {code})."
    lines = printed(setup.log, offset)[-15:]
    said = "".join(f"\n  {line}" for line in lines) if lines else " It printed nothing."
    return UserError(what + said, hint=f"All it printed is in {setup.log}.")


def printed(log: Path, offset: int) -> list[str]:
    """Return the lines of the log from that byte on, without our own look at /healthz."""
    with log.open("rb") as file:
        file.seek(offset)
        lines = file.read().decode("utf-8", "replace").splitlines()
    return [line for line in lines if "GET /healthz" not in line]


def end(process: subprocess.Popen) -> None:
    """End a process we started: asked first, killed after 5 seconds."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def foreground(setup: Setup) -> int:
    """Become the server, so that Ctrl-C and signals reach it directly."""
    with one_at_a_time():
        if record := running(setup.home):
            return tell_it_runs(setup, record)
        set_up(setup)
    command = [str(setup.python), str(ROOT / "webgui.py"), *setup.server_arguments]
    os.chdir(ROOT)
    if not WINDOWS:
        os.execve(command[0], command, server_environment())
    with subprocess.Popen(command, env=server_environment()) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # it reached the server too, which then ends
                continue


def set_up_only(setup: Setup) -> int:
    """Do the set-up without starting anything."""
    with one_at_a_time():
        set_up(setup)
    print("All is set up.")
    return 0


def status(setup: Setup) -> int:
    """Say whether the server runs, and where. Changes nothing."""
    record = running(setup.home)
    if record:
        silent = "" if answers(record) else " It does not answer at the moment."
        print(f"MusubiTLX is running: {describe(record)}{silent}")
    else:
        print("MusubiTLX is not running.")
    tell_of_runs(setup.home)
    return 0 if record else NOT_RUNNING


def stop(setup: Setup) -> int:
    """Stop the server that the record names, and no other; runs go on."""
    record = running(setup.home)
    if record:
        stop_server(record["pid"], record["birth"])
        print("MusubiTLX has stopped.")
    else:
        print("MusubiTLX is not running.")
    if not running(setup.home):  # a server started meanwhile keeps its record
        setup.home.server_record.unlink(missing_ok=True)
    tell_of_runs(setup.home)
    return 0


def stop_server(pid: int, birth: str) -> None:
    """Ask a process to stop, kill it after STOP_S; UserError if it may not or can't be."""
    for number, patience in ((signal.SIGTERM, STOP_S), (KILL, 5)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        except PermissionError:
            raise UserError(
                f"The server (process {pid}) belongs to another user.",
                hint="Stop it as that user, or as the administrator.",
            ) from None
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if not births.alive(pid, birth):
                return
            time.sleep(POLL_S)
    raise UserError(f"The server (process {pid}) can't be ended; it may hang on a disk or a GPU.")


KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # on Windows SIGTERM is the end at once

ACTIONS = [
    ("--fg", foreground, "stay in the foreground; Ctrl-C ends it"),
    ("--stop", stop, "stop the server; a training run goes on"),
    ("--status", status, "say whether it runs; exit status 3 if not"),
    ("--setup", set_up_only, "set up what is missing, start nothing"),
]


def main(arguments: list[str]) -> int:
    """Do what the command line asks for; return the exit status."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace", line_buffering=True)
    chosen = parse(arguments)
    try:
        return chosen.action(Setup.of(chosen))
    except UserError as error:
        print(error, *filter(None, [error.hint]), sep="\n", file=sys.stderr)
    except OSError as error:
        print(f"This failed: {error}\nPut that right, then start again.", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nBroken off. The next start goes on from here.", file=sys.stderr)
        return 130
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
