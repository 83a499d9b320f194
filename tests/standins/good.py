"""Does what each of Musubi's scripts should, in no time; one file plays all three by its name.

STAND_IN_STEPS and STAND_IN_STEP_S say how many steps it takes and how long each,
STAND_IN_CACHE_S how long a latent takes.
"""

import argparse
import json
import os
import struct
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--dataset_config")
parser.add_argument("--output_dir")
parser.add_argument("--output_name")
parser.add_argument("--skip_existing", action="store_true")
args, _ = parser.parse_known_args()


def cache(path):
    if not (args.skip_existing and path.exists()):
        tensor_file(path)


def tensor_file(path):
    header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    Path(path).write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0\0\0")


def images():
    from PIL import Image

    folder = Path(args.dataset_config).parent
    for line in (folder / "dataset.jsonl").read_text(encoding="utf-8").splitlines():
        path = Path(json.loads(line)["image_path"])
        with Image.open(path) as image:
            yield path, image.size


if "latents" in sys.argv[0]:
    for number, (path, (width, height)) in enumerate(images(), 1):
        cache(path.with_name(f"{path.stem}_{width:04d}x{height:04d}_qi.safetensors"))
        time.sleep(float(os.environ.get("STAND_IN_CACHE_S", "0")))
        sys.stderr.write(f"\r{number}it [00:00,  9.00it/s]")
elif "text_encoder" in sys.argv[0]:
    for path, _ in images():
        cache(path.with_name(f"{path.stem}_qi_te.safetensors"))
else:
    steps = int(os.environ.get("STAND_IN_STEPS", "10"))
    print("running training")
    print(f"  total optimization steps / x: {steps}")
    print("\nepoch 1/1", flush=True)
    for step in range(1, steps + 1):
        time.sleep(float(os.environ.get("STAND_IN_STEP_S", "0.01")))
        share = 100 * step // steps
        sys.stderr.write(
            f"\rsteps: {share:3d}%|##| {step}/{steps} "
            f"[00:{step:02d}<00:01, 2.00s/it, avr_loss={1 / step:.3f}]"
        )
        sys.stderr.flush()
        print(f"line {step}", flush=True)
    tensor_file(Path(args.output_dir) / f"{args.output_name}.safetensors")
    print("model saved.")
