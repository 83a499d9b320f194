"""Generated inputs, for the tests that look for what nobody thought of."""

from __future__ import annotations

import re

from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from musubitlx import presets, settings
from musubitlx.home import name_problem

# A busy machine is no failure, and a home folder may serve many examples.
patient = hypothesis_settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

LINES = st.text(max_size=60).map(lambda text: " ".join(text.replace("\x00", "").split()))
AREAS = st.text(max_size=200).map(
    lambda text: re.sub("\r\n|[\r\x85\u2028\u2029]", "\n", text.replace("\x00", "")).strip()
)
NAMES = st.text(min_size=1, max_size=20).filter(
    lambda name: (
        name_problem(name) is None
        and " ".join(name.split()) == name
        and not name.startswith("-")
        and "_qi" not in name
    )
)
SIDES = st.integers(4, 256).map(lambda n: n * 16)
VALUES = {
    "output_dir": NAMES,
    "output_name": NAMES,
    "trigger_word": LINES,
    "prompt": LINES,
    "vram_profile": st.sampled_from([profile.id for profile in presets.PROFILES]),
    "resolution": st.tuples(SIDES, SIDES).map(lambda sides: f"{sides[0]}x{sides[1]}"),
    "epochs": st.integers(1, 10_000),
    "image_repeats": st.integers(1, 10_000),
    "batch_size": st.integers(1, 64),
    "learning_rate": st.floats(0, 1, exclude_min=True, allow_subnormal=False),
    "optimizer_type": st.sampled_from([value for value, _ in settings.OPTIMIZERS]),
    "seed": st.integers(0, 4_294_967_295),
    "lora_rank": st.integers(1, 1024),
    "lora_dims": st.floats(0, 4096, exclude_min=True, allow_subnormal=False),
    "samples_enabled": st.booleans(),
    "sample_prompt_text": AREAS,
    "sample_every_epochs": st.integers(0, 10_000),
    "sample_every_steps": st.integers(0, 1_000_000),
    "sample_at_first": st.booleans(),
    "advanced_flags": st.none() | AREAS,
    "recipe": st.just("") | LINES,
}
VALID = st.fixed_dictionaries(VALUES)
