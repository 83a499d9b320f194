"""A trainer whose whole family ignores the polite signal; one grandchild leaves the session too."""

import os
import signal
import subprocess
import sys
import time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
BODY = """
import signal, time, os, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if sys.argv[1] == "apart":
    os.setsid()
    if os.fork():
        os._exit(0)
print("MEMBER", os.getpid(), flush=True)
time.sleep(600)
"""
for how in ("beside", "apart"):
    subprocess.Popen([sys.executable, "-c", BODY, how])
print("MEMBER", os.getpid(), flush=True)
time.sleep(600)
