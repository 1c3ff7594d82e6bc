"""What a reading can be at least and at most; every interval of it is cut to that."""

from __future__ import annotations

import math

UNBOUNDED = (-math.inf, math.inf)
POSITIVE = (0.0, math.inf)
PROBABILITY = (0.0, 1.0)

BOUNDS = {
    "joint_optimum_probability": PROBABILITY,
    "success": PROBABILITY,
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
"""By the name of a metric in `metrics.nc` or of a reading's field; of probabilities, where densities have others."""

OF_DENSITIES = frozenset({"entropy", "log_score"})
"""Readings that are bounded for discrete beliefs only."""


def bounds_of(name: str, discrete: bool = True) -> tuple[float, float]:
    """Ends of what a reading can be; `UNBOUNDED` where nothing is known of it."""
    return UNBOUNDED if name in OF_DENSITIES and not discrete else BOUNDS.get(name, UNBOUNDED)


def difference_bounds(name: str, discrete: bool = True) -> tuple[float, float]:
    """Ends of what the difference of two such readings can be."""
    low, high = bounds_of(name, discrete)
    return low - high, high - low
