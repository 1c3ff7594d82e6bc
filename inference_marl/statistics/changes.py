"""Changes of beliefs between records: their size, the largest jump, and when the belief has settled."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import xarray as xr

from inference_marl.statistics.beliefs import ROUNDING, Numbers, modelling
from inference_marl.statistics.time_to_threshold import first_lasting_step

SETTLED = 0.1
"""A belief has settled once this close to its final value: total variation, or fraction of the action range."""


@dataclass(frozen=True)
class Change:
    """How one learner's opponent model changed, see `belief_change`.

    Attributes:
        steps: environment step of each change, the later of its two records, `records - 1`.
        curve: size of each change, `replicates x (records - 1)`.
        size: of the largest change, `replicates`.
        at: step of the largest change, `replicates`; `inf` for a belief that never changes by more than `ROUNDING`
            (fraction of the action range, for draws).
        settled: first step from which the belief stays within `SETTLED` of its final value, `replicates`.
    """

    steps: Numbers
    curve: Numbers
    size: Numbers
    at: Numbers
    settled: Numbers


def belief_change(posterior: xr.Dataset, learner: str) -> Change | None:
    """How one learner's opponent model changed from record to record, averaged over agents and states.

    Discrete beliefs are compared by total variation, `1/2 sum_b |rho_t(b) - rho_t-1(b)|`, in [0, 1]; continuous ones by
    the 1-Wasserstein distance of their draws (the mean distance of sorted draws, dimension by dimension), in units of
    actions. As draws are random, the latter is never exactly 0.

    Returns:
        `None` if the learner has no opponent model, or the run has only one record.
    """
    if learner not in modelling(posterior) or posterior.sizes["step"] < 2:
        return None
    discrete = posterior.attrs["kind"] == "discrete"
    event = ("opponent_action",) if discrete else ("opponent_dim", "draw")
    values = posterior["opponent_model"].sel(learner=learner).transpose("step", "replicate", "agent", "state", *event)
    belief = values.to_numpy() if discrete else np.sort(values.to_numpy(), axis=-1)
    curve = np.stack([_distance(new, old, discrete) for old, new in pairwise(belief)], axis=1)
    from_last = np.stack([_distance(each, belief[-1], discrete) for each in belief], axis=1)
    steps = posterior["step"].to_numpy().astype(np.float64)
    size = curve.max(1)
    span = 1.0 if discrete else posterior.attrs["high"] - posterior.attrs["low"]
    return Change(
        steps=steps[1:],
        curve=curve,
        size=size,
        at=np.where(size > ROUNDING * span, steps[1:][curve.argmax(1)], np.inf),
        settled=first_lasting_step(from_last <= SETTLED * span, steps),
    )


def _distance(new: Numbers, old: Numbers, discrete: bool) -> Numbers:
    """Distance of two records, `replicates x agents x states x ...`, averaged over agents and states."""
    apart = np.abs(new.astype(np.float64) - old)
    real = ~np.isnan(apart).all(-1)
    total = np.nansum(apart, -1) / 2 if discrete else np.nansum(apart, -1) / apart.shape[-1]
    flat, known = (each.reshape(len(apart), -1) for each in (total, real))
    with np.errstate(invalid="ignore"):  # a replicate without any belief has no distance
        mean: Numbers = np.where(known, flat, 0.0).sum(1) / known.sum(1)
    return mean
