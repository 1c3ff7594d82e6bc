"""Ranges of quantities, to which their intervals are clipped."""

from __future__ import annotations

import math

UNBOUNDED = (-math.inf, math.inf)
POSITIVE = (0.0, math.inf)
PROBABILITY = (0.0, 1.0)

BOUNDS = {
    "joint_optimum_probability": PROBABILITY,
    "success_rate": PROBABILITY,
    "nash_conv": POSITIVE,
    "elbo_gap": POSITIVE,
    "entropy": POSITIVE,
    "favourite": PROBABILITY,
    "spread": POSITIVE,
    "from_prior": POSITIVE,
    "from_truth": POSITIVE,
    "log_score": (-math.inf, 0.0),
    "overconfidence": (-1.0, 1.0),
    "distance": POSITIVE,
    "size": POSITIVE,
}
"""By name of a metric in `metrics.nc` or of a belief quantity (for discrete beliefs, where densities differ)."""

OF_DENSITIES = frozenset({"entropy", "log_score"})
"""Quantities that are bounded for discrete beliefs only."""


def bounds_of(name: str, discrete: bool = True) -> tuple[float, float]:
    """Range of a quantity; `UNBOUNDED` where none is known."""
    return UNBOUNDED if name in OF_DENSITIES and not discrete else BOUNDS.get(name, UNBOUNDED)


def difference_bounds(name: str, discrete: bool = True) -> tuple[float, float]:
    """Range of the difference of two such quantities."""
    low, high = bounds_of(name, discrete)
    return low - high, high - low
