"""Buckets, exactly as Musubi makes them, and what they cut off."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inputs import patient

from musubitlx.buckets import area_of, bucket_of, buckets, crop_of
from musubitlx.settings import parse

SIDES = st.integers(4, 256).map(lambda n: n * 16)


@pytest.mark.parametrize(("side", "count"), [(512, 33), (1024, 65), (1328, 85)])
def test_the_buckets_are_as_many_as_musubi_makes(side, count):
    made = buckets(side, side)
    assert len(made) == len(set(made)) == count
    assert (side // 16 * 16, side // 16 * 16) in made


def test_the_buckets_of_512_reach_from_1_by_4_to_4_by_1():
    made = buckets(512, 512)
    assert (made[0], made[-1]) == ((256, 1024), (1024, 256))


@pytest.mark.parametrize(
    ("area", "size", "bucket"),
    [
        ((1000, 1000), (700, 700), (992, 1008)),
        ((960, 544), (700, 700), (720, 720)),
        ((128, 128), (256, 256), (128, 128)),
        ((128, 128), (320, 192), (160, 96)),
        ((128, 128), (192, 320), (96, 160)),
        ((1024, 1024), (10_000, 1), (2048, 512)),
        ((1024, 1024), (1, 10_000), (512, 2048)),
    ],
)
def test_an_image_goes_into_the_bucket_musubi_takes(area, size, bucket):
    assert bucket_of(size, area) == bucket


@patient
@given(SIDES, SIDES, st.integers(1, 20_000), st.integers(1, 20_000))
def test_every_bucket_is_usable_and_the_nearest_is_taken(width, height, w, h):
    area = (width, height)
    for bucket in buckets(*area):
        assert min(bucket) >= 16
        assert bucket[0] % 16 == bucket[1] % 16 == 0
        assert bucket[0] * bucket[1] <= width * height
    taken = bucket_of((w, h), area)
    nearest = min(abs(b[0] / b[1] - w / h) for b in buckets(*area))
    assert abs(taken[0] / taken[1] - w / h) == nearest


@pytest.mark.parametrize(
    ("size", "bucket", "scale", "kept"),
    [
        ((1024, 1024), (1024, 1024), 1, (0, 0, 1, 1)),
        ((512, 512), (1024, 1024), 2, (0, 0, 1, 1)),
        ((2000, 1000), (1024, 1024), 1.024, (0.25, 0, 0.75, 1)),
        ((1000, 2000), (1024, 1024), 1.024, (0, 0.25, 1, 0.75)),
        ((2048, 2048), (1024, 1024), 0.5, (0, 0, 1, 1)),
    ],
)
def test_a_bucket_keeps_the_middle_of_an_image(size, bucket, scale, kept):
    crop = crop_of(size, bucket)
    assert crop.scale == pytest.approx(scale)
    assert (crop.left, crop.top, crop.right, crop.bottom) == pytest.approx(kept, abs=1e-3)
    width, height = kept[2] - kept[0], kept[3] - kept[1]
    assert crop.lost == pytest.approx(1 - width * height, abs=2e-3)


@patient
@given(SIDES, SIDES, st.integers(16, 5000), st.integers(16, 5000))
def test_what_is_kept_lies_in_the_image_and_covers_one_direction(width, height, w, h):
    bucket = bucket_of((w, h), (width, height))
    crop = crop_of((w, h), bucket)
    assert 0 <= crop.left < crop.right <= 1 and 0 <= crop.top < crop.bottom <= 1
    assert 0 <= crop.lost < 1
    whole = (crop.right - crop.left > 0.999, crop.bottom - crop.top > 0.999)
    assert any(whole)


def test_a_resolution_is_read_as_width_and_height():
    assert area_of(parse({"resolution": "768x1024"})["resolution"]) == (768, 1024)


ASK_MUSUBI = """
import json, sys
from musubi_tuner.dataset.bucket import BucketSelector
answers = []
for area, sizes in json.load(sys.stdin):
    one = BucketSelector(tuple(area), True, False, architecture="qi")
    answers.append([one.bucket_resolutions, [one.get_bucket_resolution(tuple(s)) for s in sizes]])
print("ANSWERS" + json.dumps(answers))
"""


@pytest.mark.real
@pytest.mark.skipif(not os.environ.get("MUSUBI_DIR"), reason="no Musubi: name it in MUSUBI_DIR")
def test_the_real_musubi_makes_the_same_buckets():
    source = Path(os.environ["MUSUBI_DIR"]) / "src"
    rng = random.Random(1)
    areas = [(512, 512), (1024, 1024), (1328, 1328), (960, 544), (1000, 1000), (64, 64)]
    areas += [(16 * rng.randint(4, 128), 16 * rng.randint(4, 128)) for _ in range(30)]
    asked = [
        (area, [(rng.randint(1, 5000), rng.randint(1, 5000)) for _ in range(60)]) for area in areas
    ]
    answer = subprocess.run(
        [os.environ.get("MUSUBI_PYTHON") or sys.executable, "-c", ASK_MUSUBI],
        input=json.dumps(asked),
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=True,
    )
    answers = json.loads(answer.stdout.rsplit("ANSWERS", 1)[1])
    for (area, sizes), (made, taken) in zip(asked, answers, strict=True):
        assert [list(bucket) for bucket in buckets(*area)] == made
        assert [list(bucket_of(size, area)) for size in sizes] == taken
