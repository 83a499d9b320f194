"""Prints nothing for STAND_IN_SILENT_S seconds, then ends with 0 without its files."""

import os
import time

time.sleep(float(os.environ.get("STAND_IN_SILENT_S", "60")))
