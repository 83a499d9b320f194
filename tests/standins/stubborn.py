"""A trainer whose whole family ignores the polite signal; one grandchild leaves the session too.

Each says its pid in one write: three of them share the pipe.
"""

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
os.write(1, b"MEMBER %d\\n" % os.getpid())
time.sleep(600)
"""
for how in ("beside", "apart"):
    subprocess.Popen([sys.executable, "-c", BODY, how])
os.write(1, b"MEMBER %d\n" % os.getpid())
time.sleep(600)
