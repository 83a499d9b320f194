"""Prints a traceback as Musubi does and ends with 1, the open bar drawn once more behind it."""

import sys

sys.stderr.write("\rsteps:  33%|###| 2/6 [00:04<00:08,  2.19s/it, avr_loss=2.29]")
sys.stderr.write('Traceback (most recent call last):\n  File "x.py", line 1, in <module>\n')
sys.stderr.write("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 288.00 MiB.\n")
sys.stderr.write("\rsteps:  33%|###| 2/6 [00:04<00:08,  2.19s/it, avr_loss=2.29]\n")
sys.exit(1)
