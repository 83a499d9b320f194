"""A training whose loss becomes NaN at step 4 and that goes on for STAND_IN_STEPS steps."""

import os
import sys
import time

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
sys.exit(1)
