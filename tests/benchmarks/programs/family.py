"""A trainer with workers: PIDS (a file) gets the process ids, then all wait to be ended.

KIND `polite` ends at once when asked. KIND `stubborn` ignores every signal that can be ignored,
and so do its workers; one has left the session, and one lost its parent as well.
"""

import os
import signal
import sys
import time
from pathlib import Path

kind, pids = sys.argv[1], Path(sys.argv[2])


def note():
    with pids.open("a") as file:
        file.write(f"{os.getpid()}\n")


def stay():
    note()
    while True:
        time.sleep(3600)


def worker(*, leaves=False, orphan=False):
    if os.fork():
        return
    if leaves:
        os.setsid()
    if orphan and os.fork():
        os._exit(0)
    stay()


if kind == "stubborn":
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
worker()
worker()
worker(leaves=True)
worker(leaves=True, orphan=True)
print("all here", flush=True)
stay()
