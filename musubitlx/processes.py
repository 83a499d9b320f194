"""Process trees: starting them apart from us, and ending all of one, whatever its members do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

POSIX = os.name == "posix"
MARK = "MUSUBITLX_JOB"  # in the environment of every process of a job: its id
CHECK_S = 0.05
PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
WINDOWS_DETACHED = 0x00000008 | 0x00000200 | 0x08000000  # detached, own group, no window
WINDOWS_GROUP = 0x00000200 | 0x08000000  # own group, no window


def start_detached(argv: list[str], *, cwd: str, env: dict, log: str) -> subprocess.Popen:
    """Start a program that outlives us: own session, no terminal, output appended to `log`."""
    with Path(log).open("ab") as output:
        return subprocess.Popen(
            argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=POSIX,
            creationflags=0 if POSIX else WINDOWS_DETACHED,
        )


def start_child(argv: list[str], *, cwd: str, env: dict) -> subprocess.Popen:
    """Start a program in a process group of its own; stdout and stderr are one pipe of bytes."""
    return subprocess.Popen(
        argv,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
        start_new_session=POSIX,
        creationflags=0 if POSIX else WINDOWS_GROUP,
    )


def adopt_orphans() -> None:
    """Make grandchildren whose parent ends ours instead of init's (Linux; elsewhere nothing).

    With that, `members` finds processes that left their group and lost their parent.
    """
    if sys.platform.startswith("linux"):
        import ctypes

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def members(pid: int) -> list[psutil.Process]:
    """Every living process of the tree that `pid` leads or led.

    Its group and session (POSIX), its descendants, and the descendants of the
    calling process: a runner has one child at a time, so orphans it adopted
    belong to that tree. Zombies are reaped where they are ours, and left out.
    """
    found = {process.pid: process for process in _descendants(os.getpid())}
    with suppress(psutil.Error):
        leader = psutil.Process(pid)
        found |= {process.pid: process for process in [leader, *leader.children(recursive=True)]}
    if POSIX:
        found |= {process.pid: process for process in _same_group(pid)}
    found.pop(os.getpid(), None)
    return [process for process in found.values() if _lives(process, keep=pid)]


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _same_group(leader: int) -> list[psutil.Process]:
    """Processes whose group or session is `leader`, never our own."""
    if leader == os.getpgrp():
        return []
    found = []
    for pid in psutil.pids():
        with suppress(OSError, psutil.Error):
            if leader in (os.getpgid(pid), os.getsid(pid)):
                found.append(psutil.Process(pid))
    return found


def _lives(process: psutil.Process, keep: int) -> bool:
    try:
        if process.status() != psutil.STATUS_ZOMBIE:
            return True
    except psutil.Error:
        return False
    if POSIX and process.pid != keep:  # `keep` is reaped by whoever started it
        with suppress(OSError):
            os.waitpid(process.pid, os.WNOHANG)
    return False


def _signal_tree(pid: int, number: int) -> None:
    everyone = members(pid)
    if POSIX and everyone and pid != os.getpgrp():
        with suppress(OSError):
            os.killpg(pid, number)  # reaches what was born since we looked
    _signal(everyone, number)


def _signal(everyone: list[psutil.Process], number: int) -> None:
    for process in everyone:
        with suppress(psutil.Error, OSError):
            process.send_signal(number) if POSIX else process.kill()


def end_tree(pid: int, *, patience_s: float) -> None:
    """Ask the tree to end, wait `patience_s` for the last member, then kill what is left."""
    _end(lambda: members(pid), lambda number: _signal_tree(pid, number), patience_s)


def marked(job_id: str) -> list[psutil.Process]:
    """Every living process of ours that was started for this job, going by its environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == job_id and _lives(process, keep=0):
                found.append(process)
    return found


def end_marked(job_id: str, *, patience_s: float) -> None:
    """End what a job left running, when its runner is gone: as `end_tree`, by the mark."""
    _end(lambda: marked(job_id), lambda number: _signal(marked(job_id), number), patience_s)


def _end(find: Callable, send: Callable[[int], None], patience_s: float) -> None:
    send(signal.SIGTERM)
    deadline = time.monotonic() + patience_s
    while find():
        if time.monotonic() >= deadline:
            send(getattr(signal, "SIGKILL", signal.SIGTERM))
            deadline += 0.5  # again, for what was born between looking and killing
        time.sleep(CHECK_S)
