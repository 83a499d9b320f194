"""Buckets and crops against the real Musubi's own functions."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path

from musubi_here import GIVEN, needs_musubi

from musubitlx.buckets import bucket_of, crop_of

pytestmark = needs_musubi

# Marks each pixel with where it is; what comes out tells what was kept of the image.
ASK = """
import json, sys
import numpy as np
from musubi_tuner.dataset.bucket import BucketSelector
from musubi_tuner.dataset.media_utils import resize_image_to_bucket
for row in json.load(sys.stdin):
    (w, h), area = row["size"], row["area"]
    selector = BucketSelector(tuple(area), True, False, "qi")
    bucket = tuple(map(int, selector.get_bucket_resolution((w, h))))
    x, y = np.meshgrid((np.arange(w) + 0.5) / w * 250, (np.arange(h) + 0.5) / h * 250)
    image = np.stack([x, y, x], -1).astype(np.uint8)
    out = resize_image_to_bucket(image, bucket).astype(float)
    y, x = out.shape[0] // 2, out.shape[1] // 2
    edges = [out[y, 0, 0], out[0, x, 1], out[y, -1, 0], out[-1, x, 1]]
    print(json.dumps([bucket, list(out.shape[:2][::-1]), [float(edge) / 250 for edge in edges]]))
"""


def test_every_image_goes_where_the_real_musubi_puts_it_and_keeps_what_it_keeps():
    rng = random.Random(1)
    areas = [(512, 512), (1024, 1024), (768, 512), (960, 544), (1328, 1328), (256, 256)]
    rows = [
        {"size": [rng.randint(16, 1500), rng.randint(16, 1500)], "area": rng.choice(areas)}
        for _ in range(150)
    ]
    rows += [{"size": [512, 512], "area": [1024, 1024]}, {"size": [16, 1200], "area": [512, 512]}]
    answer = subprocess.run(
        [GIVEN["MUSUBI_PYTHON"], "-c", ASK],
        input=json.dumps(rows),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(GIVEN["MUSUBI_DIR"]) / "src")},
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    told = [json.loads(line) for line in answer.stdout.splitlines() if line.startswith("[")]
    assert len(told) == len(rows)
    for row, (bucket, made, edges) in zip(rows, told, strict=True):
        size, area = tuple(row["size"]), tuple(row["area"])
        assert bucket_of(size, area) == tuple(bucket) == tuple(made), row
        crop = crop_of(size, tuple(bucket))
        kept = (crop.left, crop.top, crop.right, crop.bottom)
        for ours, theirs, side in zip(kept, edges, size * 2, strict=True):
            assert abs(ours - theirs) < 0.02 + 1.5 / side, (row, kept, edges)
