"""Prints COUNT numbered lines of 60 bytes as fast as it can, each for itself, after a second.

REPORT (a file) gets {"start", "end"} in monotonic ns and "longest_ms", the slowest single write.
"""

import json
import os
import sys
import time
from pathlib import Path

count, report = int(sys.argv[1]), Path(sys.argv[2])
time.sleep(1.0)
lines = [f"burst {number:07d} ".ljust(59, "x") + "\n" for number in range(count)]
write, clock = sys.stdout.write, time.monotonic_ns
longest, start = 0, clock()
before = start
for line in lines:
    write(line)
    now = clock()
    longest = max(longest, now - before)
    before = now
sys.stdout.flush()
end = clock()
os.close(1)
report.write_text(json.dumps({"start": start, "end": end, "longest_ms": longest / 1e6}))
os._exit(0)
