"""Prints the bytes of a log as a terminal would have got them and ends as that run did.

Arguments: the file, and the exit code (negative: the signal).
"""

import os
import signal
import sys
import time
from pathlib import Path

data = Path(sys.argv[1]).read_bytes()
for start in range(0, len(data), 1000):
    os.write(2, data[start : start + 1000])
    time.sleep(0.002)
code = int(sys.argv[2])
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
