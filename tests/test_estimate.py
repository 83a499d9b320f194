"""Steps, exactly as Musubi counts them."""

from __future__ import annotations

from musubitlx.estimate import steps
from musubitlx.settings import parse


def test_steps_are_counted_bucket_by_bucket():
    square, wide = (512, 512), (768, 512)
    given_ = parse({"resolution": "512x512", "epochs": 3, "image_repeats": 5, "batch_size": 4})
    counted = steps(given_, [square] * 3 + [wide] * 2)
    assert counted == {"steps_per_epoch": 4 + 3, "steps": 21, "looks_per_image": 15}
    assert steps(given_, [])["steps"] == 0


def test_with_defaults_a_step_is_a_look_at_an_image():
    counted = steps(parse({}), [(512, 512)] * 12)
    assert counted == {"steps_per_epoch": 120, "steps": 720, "looks_per_image": 60}
