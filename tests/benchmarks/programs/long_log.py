"""Prints a line a second until it is ended."""

import time

number = 0
while True:
    print(f"later {number}", flush=True)
    number += 1
    time.sleep(1.0)
