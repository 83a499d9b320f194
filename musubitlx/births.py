"""Telling one process from a later one that was given the same pid. Standard library only."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path


def alive(pid: object, recorded: object) -> bool:
    """True if the process with this pid is the one whose birth was recorded, and has not ended.

    Both come from a file and may be anything; what is no pid is not alive.
    """
    if not isinstance(pid, int) or not isinstance(recorded, str):
        return False
    return birth(pid) == recorded


def birth(pid: int) -> str | None:
    """Return text that no other process with this pid has, ever; None if there is no such process.

    A zombie has ended: None. The text is for comparing, on one machine only.
    Windows gives "" for a process that may not be looked at.
    """
    if pid <= 0:
        return None
    if sys.platform == "win32":
        return _birth_on_windows(pid)
    if sys.platform.startswith("linux"):
        return _birth_on_linux(pid)
    return _birth_by_ps(pid)


def _birth_on_linux(pid: int) -> str | None:
    """The boot and the clock tick the process began at: proc(5), `stat`, fields 3 and 22."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:  # gone, or it went while being read
        return None
    fields = stat[stat.rindex(b")") + 1 :].split()  # the name before may hold anything, ")" too
    state, ticks = fields[0], fields[19]
    return None if state in (b"Z", b"X") else f"{_boot_id()}:{ticks.decode()}"


@functools.cache
def _boot_id() -> str:
    """What the kernel calls this boot; "" where it does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _birth_by_ps(pid: int) -> str | None:
    """The start to the second, as `ps` prints it in a language and time zone that stay the same."""
    command = ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)]
    plain = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    answer = subprocess.run(command, env=plain, stdin=subprocess.DEVNULL, capture_output=True)
    state, _, started = answer.stdout.decode(errors="replace").strip().partition(" ")
    return f"ps:{' '.join(started.split())}" if state and not state.startswith("Z") else None


def _birth_on_windows(pid: int) -> str | None:
    """The creation time in 100 ns units: GetProcessTimes."""
    import ctypes
    from ctypes import wintypes

    kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel32.OpenProcess.restype = wintypes.HANDLE
    query_limited_information, access_denied, still_active = 0x1000, 5, 259
    handle = kernel32.OpenProcess(query_limited_information, False, wintypes.DWORD(pid))
    if not handle:
        return "" if ctypes.get_last_error() == access_denied else None
    handle, code = wintypes.HANDLE(handle), wintypes.DWORD()
    created, *others = (wintypes.FILETIME() for _ in range(4))
    try:
        kernel32.GetExitCodeProcess(handle, ctypes.byref(code))
        if code.value != still_active:
            return None
        kernel32.GetProcessTimes(handle, ctypes.byref(created), *map(ctypes.byref, others))
        return f"win:{created.dwHighDateTime << 32 | created.dwLowDateTime}"
    finally:
        kernel32.CloseHandle(handle)
