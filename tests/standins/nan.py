"""A training whose loss becomes NaN at step 4 and that goes on for STAND_IN_STEPS steps."""

import json
import os
import struct
import sys
import time
from pathlib import Path

steps = int(os.environ.get("STAND_IN_STEPS", "400"))
print("running training\n  num epochs / x: 1", flush=True)
print(f"  total optimization steps / x: {steps}\n\nepoch 1/1", flush=True)
for step in range(1, steps + 1):
    time.sleep(float(os.environ.get("STAND_IN_STEP_S", "0.1")))
    loss = f"{1 / step:.3f}" if step < 4 else "nan"
    sys.stderr.write(
        f"\rsteps: {100 * step // steps:3d}%|##| {step}/{steps} "
        f"[00:{step % 60:02d}<00:01, 2.00s/it, avr_loss={loss}]"
    )
    sys.stderr.flush()
given = dict(zip(sys.argv, sys.argv[1:], strict=False))
header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
lora = Path(given["--output_dir"]) / f"{given['--output_name']}.safetensors"
lora.write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0\0\0")
