"""Prints COUNT numbered lines with the time of printing, RATE a second, after a second of silence.

The time is CLOCK_MONOTONIC (the same in all processes of a machine) and wall clock, both in ns. The
gaps vary by a third, so that nothing in the measured programs falls in step.
"""

import random
import sys
import time

rate, count = float(sys.argv[1]), int(sys.argv[2])
time.sleep(1.0)
due = time.monotonic()
for number in range(count):
    due += random.uniform(2 / 3, 4 / 3) / rate
    time.sleep(max(0.0, due - time.monotonic()))
    sys.stdout.write(f"tick {number} {time.monotonic_ns()} {time.time_ns()}\n")
    sys.stdout.flush()
time.sleep(0.3)
