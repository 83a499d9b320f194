"""The practice trainer: Musubi Tuner's three Qwen-Image scripts by name, on a CPU, in seconds.

It reads the same dataset and prompt files, takes the same options, prints the
same lines and writes the same files. It really trains, but a small network of
its own: its LoRA is not for Qwen-Image, and says so in its metadata.

`MUSUBITLX_PRACTICE_STEP_DELAY=S` makes every training step take S seconds more
(a fraction is allowed), for those who want to watch or stop a slow run.
"""

import os

# The matrices are small: measured, a second thread saves nothing and makes a run five
# times slower when the machine is busy. NumPy reads this when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
