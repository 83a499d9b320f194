"""Ends with 0, and the files it wrote are cut short."""

import argparse
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--output_dir")
parser.add_argument("--output_name")
args, _ = parser.parse_known_args()
(Path(args.output_dir) / f"{args.output_name}.safetensors").write_bytes(b"\x40\0\0\0\0\0\0\0{")
