"""How noisy the pictures are that the network is shown: Musubi's `--timestep_sampling`."""

from __future__ import annotations

import argparse
from statistics import NormalDist

import numpy as np

DRAWS = 6  # noise levels at which each picture of a batch is seen in one step
LEAST = 0.01  # noise level; at 0 there would be nothing to learn
NORMAL = NormalDist()
EVEN = ("uniform", "sigma")  # every level as likely as any other, before the shift
SHIFTED = ("sigma", "shift")  # by --discrete_flow_shift; others with shift in their name by this:
OWN_SHIFT = 2.2  # what a shift by resolution comes to at the usual sizes


def draw_times(args: argparse.Namespace, rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw noise levels in LEAST..1 for `count` pictures, DRAWS of them each: (count * DRAWS).

    The levels of one picture lie in different parts of the distribution, which
    makes the loss less jumpy without changing what is learnt.
    """
    spread = (rng.random((count, 1)) + np.arange(DRAWS) / DRAWS) % 1
    times = np.array([_level(args, float(share)) for share in spread.ravel()])
    low, high = (args.min_timestep or 0) / 1000, (args.max_timestep or 1000) / 1000
    return np.clip(low + times * (high - low), LEAST, 1).astype(np.float32)


def shift_times(times: np.ndarray | float, shift: float) -> np.ndarray | float:
    """Move noise levels upwards; a shift of 1 changes nothing."""
    return shift * times / (1 + (shift - 1) * times)


def _level(args: argparse.Namespace, share: float) -> float:
    """The noise level below which that share of all draws lies."""
    kind = args.timestep_sampling
    level = share if kind in EVEN else _sigmoid(share, args.sigmoid_scale)
    if kind in SHIFTED:
        return shift_times(level, args.discrete_flow_shift)
    return shift_times(level, OWN_SHIFT) if "shift" in kind else level


def _sigmoid(share: float, scale: float) -> float:
    normal = NORMAL.inv_cdf(min(max(share, 1e-4), 1 - 1e-4))
    return float(1 / (1 + np.exp(-normal * scale)))
