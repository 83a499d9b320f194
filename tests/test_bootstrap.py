"""The start scripts, run as a person runs them, in fresh copies of the folder.

Most tests put a stand-in in the place of webgui.py that behaves as they need, and an environment
without packages, marked as filled. One test installs everything and starts the real server.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from musubitlx import births
from musubitlx.home import read_json

pytestmark = pytest.mark.skipif(os.name == "nt", reason="start_gui.sh is for bash")

REPO = Path(__file__).resolve().parent.parent

# Speaks as webgui.py does. STAND_IN names what it does wrong, several words are possible.
STAND_IN = """
import http.server, json, os, signal, sys, time
from pathlib import Path
from musubitlx import births

wrong = os.environ.get("STAND_IN", "").split()
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
record = Path(words["--home"]) / "output/.jobs/server.json"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"ok": true}')


def leave(*_):
    record.unlink(missing_ok=True)
    print("ended cleanly")
    sys.exit(0)


signal.alarm(120)  # whatever a test does, this does not stay
print("Starting MusubiTLX with a stand-in... é")
if "dies" in wrong:
    sys.exit("Port 5000 is in use. Name another with --port.")
signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in wrong else leave)
signal.signal(signal.SIGINT, leave)
if "mute" in wrong:
    time.sleep(60)
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(words.get("--port", 0))), Handler)
port = server.server_port
url = f"http://127.0.0.1:{port}"
print(f"Open {url}")
record.parent.mkdir(parents=True, exist_ok=True)
me = {"pid": os.getpid(), "birth": births.birth(os.getpid()), "started": time.time(), "url": url}
record.write_text(json.dumps({**me, "port": port, "host": "127.0.0.1", "arguments": sys.argv[1:]}))
server.serve_forever()
"""


class Copy:
    """A copy of what the start scripts need, in a folder of its own."""

    def __init__(self, folder: Path, venv: Path | None):
        self.folder = folder
        self.home = folder
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("MUSUBITLX_")}
        if venv:
            self.environment["MUSUBITLX_VENV"] = str(venv)
        self.environment["MUSUBITLX_PYTHON"] = sys.executable

    @property
    def record(self) -> Path:
        return self.home / "output/.jobs/server.json"

    def server(self) -> dict | None:
        """The record of the server if it is alive, else None."""
        record = read_json(self.record) or {}
        return record if births.alive(record.get("pid"), record.get("birth")) else None

    def run(self, *words, script="start_gui.sh", cwd="/", timeout=60, **environment):
        """Run a script to its end, without a terminal; returns it with its output as text."""
        return subprocess.run(
            ["bash", self.folder / script, *map(str, words)],
            cwd=cwd,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            timeout=timeout,
        )

    def popen(self, *words, **environment):
        """Start a script and return at once."""
        return subprocess.Popen(
            ["bash", self.folder / "start_gui.sh", *map(str, words)],
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )


def copy_repository(to: Path, webgui: str | None) -> None:
    """Copy scripts, package, page and requirements; `webgui` takes the real one's place."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("musubitlx", "templates", "static", "configs"):
        if (REPO / name).exists():
            shutil.copytree(REPO / name, to / name, ignore=ignore)
    for name in ("start_gui.sh", "stop_gui.sh", "requirements.txt"):
        shutil.copy2(REPO / name, to / name)
    if webgui is None:
        shutil.copy2(REPO / "webgui.py", to / "webgui.py")
    else:
        (to / "webgui.py").write_text(webgui, encoding="utf-8")


def wait_until(condition, seconds=10):
    """Wait for `condition()` to be true and return what it gave; fail if it takes longer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    pytest.fail(f"waited {seconds} s in vain")


@contextlib.contextmanager
def stopped_afterwards(copy: Copy):
    """Kill what the record names when the test is over."""
    try:
        yield copy
    finally:
        if record := copy.server():
            os.kill(record["pid"], signal.SIGKILL)


@pytest.fixture(scope="session")
def bare_venv(tmp_path_factory):
    """An environment without packages, marked as filled from the requirements as they are."""
    folder = tmp_path_factory.mktemp("venv") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    digest = hashlib.sha256((REPO / "requirements.txt").read_bytes()).hexdigest()
    (folder / ".musubitlx-requirements").write_text(digest)
    return folder


@pytest.fixture
def copy(tmp_path, bare_venv):
    """A copy with the stand-in, in a folder whose name has a space and an umlaut."""
    folder = tmp_path / "my GÜI"
    folder.mkdir()
    copy_repository(folder, STAND_IN)
    with stopped_afterwards(Copy(folder, bare_venv)) as made:
        yield made


@pytest.fixture
def bystander():
    """A process that has nothing to do with us."""
    process = subprocess.Popen(["sleep", "120"])
    yield process
    process.kill()
    process.wait()


def healthz(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", "/healthz")
        return json.loads(connection.getresponse().read())["ok"]


# -- start, status, stop --------------------------------------------------------------------------


def test_a_fresh_folder_leads_to_a_server_that_answers(tmp_path):
    """The real thing, from an environment that an earlier start left half made."""
    folder = tmp_path / "fresh folder"
    folder.mkdir()
    copy_repository(folder, None)
    (folder / "venv").mkdir()
    (folder / "venv/pyvenv.cfg").write_text("home = /nowhere\n")
    with stopped_afterwards(Copy(folder, None)) as fresh:
        started = fresh.run("--practice", "--port", 0, "--host", "127.0.0.1", timeout=240)
        assert started.returncode == 0, started.stdout
        assert "  flask\n" in started.stdout.lower()  # what it fetches is shown
        assert "Starting MusubiTLX with gevent..." in started.stdout
        record = fresh.server()
        assert record["url"] in started.stdout
        assert healthz(record["port"])

        again = fresh.run("--port", 0)
        assert again.returncode == 0 and "running already" in again.stdout

        stopped = fresh.run(script="stop_gui.sh")
        assert stopped.returncode == 0 and "has stopped" in stopped.stdout
        assert not births.alive(record["pid"], record["birth"])


def test_a_port_in_use_is_told_with_what_to_do(tmp_path):
    copy_repository(tmp_path, None)
    with (
        stopped_afterwards(Copy(tmp_path, Path(sys.prefix))) as real,
        socket.create_server(("127.0.0.1", 0)) as taken,
    ):
        port = taken.getsockname()[1]
        started = real.run("--practice", "--host", "127.0.0.1", "--port", port)
    assert started.returncode == 1
    assert str(port) in started.stdout and "--port" in started.stdout
    assert "Traceback" not in started.stdout


def test_start_prints_what_the_server_says_and_where_it_is(copy):
    started = copy.run()
    assert started.returncode == 0, started.stdout
    assert "Starting MusubiTLX with a stand-in... é" in started.stdout
    assert f"Open {copy.server()['url']}" in started.stdout
    assert "/healthz" not in started.stdout
    assert str(copy.folder / "webgui.log") in started.stdout


def test_flags_and_what_follows_two_dashes_reach_the_server(copy):
    started = copy.run("--port", 0, "--practice", "--yes", "--", "--token", "secret")
    assert started.returncode == 0, started.stdout
    expected = ["--home", str(copy.folder), "--port", "0", "--practice", "--token", "secret"]
    assert copy.server()["arguments"] == expected


def test_an_unknown_flag_is_refused_before_anything_happens(copy):
    refused = copy.run("--prot", 5000)
    assert refused.returncode == 2 and "--prot" in refused.stdout
    assert not (copy.folder / "webgui.log").exists()


def test_a_second_start_says_that_it_runs_and_where(copy):
    copy.run()
    first = copy.server()
    for words in ([], ["--fg"]):
        second = copy.run(*words)
        assert second.returncode == 0
        assert "running already" in second.stdout and first["url"] in second.stdout
        assert copy.server()["pid"] == first["pid"]


def test_two_starts_at_once_make_one_server(copy):
    starts = [copy.popen() for _ in range(2)]
    said = [start.communicate(timeout=30)[0] for start in starts]
    assert [start.returncode for start in starts] == [0, 0], said
    assert sorted("running already" in text for text in said) == [False, True]


def test_status_tells_what_runs_and_stop_ends_it(copy):
    before = copy.run("--status")
    assert before.returncode == 3 and "not running" in before.stdout
    copy.run()
    record = copy.server()
    status = copy.run("--status")
    assert status.returncode == 0
    assert record["url"] in status.stdout and str(record["pid"]) in status.stdout
    stopped = copy.run("--stop")
    assert stopped.returncode == 0 and "has stopped" in stopped.stdout
    assert copy.server() is None and not copy.record.exists()
    assert "ended cleanly" in (copy.folder / "webgui.log").read_text()
    assert "not running" in copy.run("--stop").stdout


def test_stop_kills_a_server_that_does_not_listen(copy):
    copy.run(STAND_IN="stubborn")
    assert copy.server()
    stopped = copy.run("--stop")
    assert stopped.returncode == 0
    assert copy.server() is None and not copy.record.exists()


def test_stop_and_status_need_no_environment_and_make_none(copy):
    del copy.environment["MUSUBITLX_VENV"]
    before = sorted(copy.folder.iterdir())
    assert copy.run("--status").returncode == 3
    assert copy.run(script="stop_gui.sh").returncode == 0
    made = {path.name for path in copy.folder.iterdir()} - {path.name for path in before}
    assert not made


def test_a_record_whose_pid_went_to_someone_else_is_not_believed(copy, bystander):
    copy.record.parent.mkdir(parents=True)
    stale = {"pid": bystander.pid, "birth": "of another", "started": 1, "url": "http://127.0.0.1:1"}
    copy.record.write_text(json.dumps(stale))
    assert copy.run("--status").returncode == 3
    stopped = copy.run("--stop")
    assert "not running" in stopped.stdout and not copy.record.exists()
    assert bystander.poll() is None

    copy.record.write_text(json.dumps(stale))
    started = copy.run()
    assert started.returncode == 0 and copy.server()["pid"] != bystander.pid
    assert bystander.poll() is None


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"pid": "12"}', '{"pid": -1, "birth": ""}'])
def test_a_damaged_record_reads_as_not_running(copy, text):
    copy.record.parent.mkdir(parents=True)
    copy.record.write_text(text)
    status = copy.run("--status")
    assert status.returncode == 3 and "Traceback" not in status.stdout


def test_stop_says_that_a_training_run_goes_on(copy, bystander):
    copy.run()
    job = copy.home / "output/.jobs/20250101-1"
    job.mkdir()
    (job / "job.json").write_text(json.dumps({"title": "Training of cats"}))
    runner = {"pid": bystander.pid, "birth": births.birth(bystander.pid)}
    (job / "status.json").write_text(json.dumps({"state": "running", "runner": runner}))
    stopped = copy.run("--stop")
    assert stopped.returncode == 0
    assert "Training of cats" in stopped.stdout and bystander.poll() is None

    bystander.kill()
    bystander.wait()
    assert "Training of cats" not in copy.run("--status").stdout


# -- a server that does not come up ---------------------------------------------------------------


def test_a_server_that_ends_at_once_is_told_with_its_words(copy):
    (copy.folder / "webgui.log").write_text("from last week\n")
    started = copy.run(STAND_IN="dies")
    assert started.returncode == 1
    assert "Port 5000 is in use. Name another with --port." in started.stdout
    assert "from last week" not in started.stdout
    assert (copy.folder / "webgui.log").read_text().startswith("from last week\n")


def test_a_server_that_never_answers_is_ended(copy):
    started = copy.run("--wait", 1, STAND_IN="mute")
    assert started.returncode == 1
    assert "did not answer within 1 seconds" in started.stdout
    assert "Starting MusubiTLX with a stand-in" in started.stdout
    assert "ended cleanly" in (copy.folder / "webgui.log").read_text()


# -- how it is started ----------------------------------------------------------------------------


def test_it_outlives_the_terminal_it_was_started_from(copy):
    command = ["bash", copy.folder / "start_gui.sh"]
    pid, terminal = pty.fork()
    if pid == 0:  # the child: a login on a terminal of its own
        os.execvpe("bash", ["bash", "-c", '"$@"; sleep 60', "-", *command], copy.environment)
    said = b""
    while b"runs in the background" not in said:
        said += os.read(terminal, 4096)
    os.close(terminal)  # the line goes dead: SIGHUP to the session
    os.waitpid(pid, 0)
    record = copy.server()
    assert record and healthz(record["port"])


def test_ctrl_c_in_the_foreground_ends_the_server_cleanly(copy):
    process = copy.popen("--fg")
    record = wait_until(copy.server)
    assert record["pid"] == process.pid  # nothing in between that a signal would have to cross
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=10)
    assert process.returncode == 0 and "ended cleanly" in said
    assert not copy.record.exists()


def test_it_starts_from_anywhere_and_through_a_link(copy, tmp_path):
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    (elsewhere / "first").symlink_to(copy.folder / "start_gui.sh")
    (elsewhere / "second").symlink_to("first")
    linked = Copy(elsewhere, None)
    linked.environment = copy.environment
    started = linked.run(script="second", cwd=elsewhere)
    assert started.returncode == 0, started.stdout
    assert copy.server()["arguments"] == ["--home", str(copy.folder)]


def test_a_relative_home_counts_from_where_one_stands(copy, tmp_path):
    copy.home = tmp_path / "my data"
    started = copy.run("--home", "my data", cwd=tmp_path)
    assert started.returncode == 0, started.stdout
    assert copy.server()["arguments"] == ["--home", str(copy.home)]
    assert copy.run("--status", cwd=tmp_path).returncode == 3
    assert copy.run("--status", MUSUBITLX_HOME=str(copy.home)).returncode == 0


def test_the_log_can_be_read_by_its_owner_alone(copy):
    (copy.folder / "webgui.log").touch(0o644)
    copy.run()
    assert (copy.folder / "webgui.log").stat().st_mode & 0o777 == 0o600


# -- set-up ---------------------------------------------------------------------------------------


def test_packages_that_cannot_be_had_are_told_and_tried_again(copy, tmp_path):
    copy.environment["MUSUBITLX_VENV"] = str(tmp_path / "venv")
    (copy.folder / "requirements.txt").write_text("no-such-package-of-musubitlx==1\n")
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    offline = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": f"http://127.0.0.1:{closed}/simple",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
        "PIP_RETRIES": "1",
    }
    started = copy.run(**offline)
    assert started.returncode == 1
    assert "No matching distribution found for no-such-package-of-musubitlx" in started.stdout
    assert "go online" in started.stdout and "Traceback" not in started.stdout

    (copy.folder / "requirements.txt").write_text("# nothing\n")
    again = copy.run(**offline)
    assert again.returncode == 0, again.stdout
    assert "Making the virtual environment" not in again.stdout
    assert "Installing" in again.stdout
    assert copy.run("--stop").returncode == 0
    assert "Installing" not in copy.run("--setup").stdout


def test_an_environment_without_pip_gets_it(copy, bare_venv, tmp_path):
    shutil.copytree(bare_venv, tmp_path / "venv", symlinks=True)
    copy.environment["MUSUBITLX_VENV"] = str(tmp_path / "venv")
    (copy.folder / "requirements.txt").write_text("# nothing\n")
    done = copy.run("--setup")
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "venv/bin/pip").exists()


def test_a_python_without_ensurepip_is_told_what_to_install(copy, tmp_path):
    del copy.environment["MUSUBITLX_VENV"]
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['ensurepip'] = None\n")
    started = copy.run(PYTHONPATH=str(tmp_path))
    assert started.returncode == 1
    assert "sudo apt install python3-venv" in started.stdout
    assert not (copy.folder / "venv").exists()


def test_a_folder_that_is_no_environment_of_ours_is_left_alone(copy, tmp_path):
    (copy.folder / "venv").mkdir()
    (copy.folder / "venv/thesis.txt").write_text("years of work")
    theirs = tmp_path / "theirs"
    packages = theirs / "lib/python3.11/site-packages/torch"
    packages.mkdir(parents=True)
    (packages / "__init__.py").touch()
    (theirs / "pyvenv.cfg").touch()
    for environment in ("", str(theirs)):
        started = copy.run(MUSUBITLX_VENV=environment)
        assert started.returncode == 1 and "Move it away" in started.stdout
    assert (copy.folder / "venv/thesis.txt").exists() and (packages / "__init__.py").exists()


def tools_only(folder: Path) -> Path:
    """A folder for PATH with what the script itself uses, and no Python."""
    folder.mkdir()
    for name in ("bash", "dirname", "readlink"):
        (folder / name).symlink_to(shutil.which(name))
    return folder


def test_without_a_python_it_says_what_to_install(copy, tmp_path):
    del copy.environment["MUSUBITLX_PYTHON"]
    tools = tools_only(tmp_path / "tools")
    for words in ([], ["--stop"]):
        started = copy.run(*words, PATH=str(tools))
        assert started.returncode == 1
        assert "needs Python 3.10 or newer, and none was found" in started.stdout

    old = tools / "python3"  # one that is too old says so by its exit status
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    assert "none was found" in copy.run(PATH=str(tools)).stdout
    (tools / "python3.11").symlink_to(sys.executable)
    assert copy.run("--status", PATH=str(tools)).returncode == 3


def test_a_named_python_that_will_not_do_is_not_passed_over(copy):
    started = copy.run(MUSUBITLX_PYTHON="/no/such/python")
    assert started.returncode == 1
    assert "MUSUBITLX_PYTHON is /no/such/python, which is not Python 3.10" in started.stdout


def test_bootstrap_needs_the_standard_library_only():
    check = (
        "import sys; sys.path.insert(0, sys.argv[1]); import musubitlx.bootstrap;"
        "files = {name for name, module in sys.modules.items() if hasattr(module, '__file__')};"
        "tops = {name.partition('.')[0] for name in files} - {'musubitlx', '__main__'};"
        "print(*sorted(tops - set(sys.stdlib_module_names)))"
    )
    for python in (sys.executable, shutil.which("python3.10")):
        works = python and not subprocess.run([python, "-c", ""], capture_output=True).returncode
        if works:  # the name may be there without a Python behind it
            command = [python, "-I", "-S", "-c", check, REPO]
            assert (
                subprocess.run(command, capture_output=True, text=True, check=True).stdout == "\n"
            )


# -- births ---------------------------------------------------------------------------------------


def test_a_birth_is_of_one_process_and_ends_with_it():
    process = subprocess.Popen(["sleep", "60"])
    born = births.birth(process.pid)
    assert born and born == births.birth(process.pid)
    assert births.alive(process.pid, born)
    assert not births.alive(os.getpid(), born)
    process.kill()
    wait_until(lambda: births.birth(process.pid) is None)  # a zombie until it is waited for
    process.wait()
    assert not births.alive(process.pid, born)


def test_births_by_ps_do_not_hang_on_language_and_time_zone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    born = births.birth(os.getpid())
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert born.startswith("ps:") and births.birth(os.getpid()) == born
    assert births.birth(2**22 + 1) is None


@pytest.mark.parametrize("pid", [None, "1", 0, -1, True, 2**70, 1.5])
def test_what_is_no_pid_is_not_alive(pid):
    assert not births.alive(pid, "x")
