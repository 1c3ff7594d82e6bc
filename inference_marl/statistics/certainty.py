"""How certain a belief is, and whether independent seeds agree on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import xarray as xr

from inference_marl.statistics.beliefs import PROBABILITY_FLOOR, SPREAD_FLOOR, Numbers, favourites, modelling

CHANCE_DRAWS = 10_000
"""Simulated votes used to compute the agreement expected by chance."""


@dataclass(frozen=True)
class Certainty:
    """How certain a belief is, see `certainty`.

    Attributes:
        entropy: in nats, `replicates`; for continuous beliefs that of the fitted normal, which may be negative.
        favourite: the largest probability, `replicates`; NaN for continuous beliefs.
        spread: standard deviation of the draws, in units of actions, `replicates`; NaN for discrete beliefs.
    """

    entropy: Numbers
    favourite: Numbers
    spread: Numbers


def certainty(posterior: xr.Dataset, learner: str, name: str = "opponent_model", record: int = -1) -> Certainty | None:
    """How certain one learner's belief is, averaged over states, agents and dimensions; `None` without the belief.

    Args:
        posterior: as in `posterior.nc`.
        learner: its name.
        name: one of `beliefs.BELIEFS`.
        record: index of the record.
    """
    if name not in posterior:
        return None
    belief = posterior[name].sel(learner=learner).isel(step=record).astype(np.float64)
    if belief.isnull().all():
        return None
    nothing = np.full(belief.sizes["replicate"], np.nan)

    if posterior.attrs["kind"] == "discrete":
        real = belief.notnull().any("opponent_action")
        entropy = -(belief * np.log(belief.clip(PROBABILITY_FLOOR))).sum("opponent_action").where(real)
        return Certainty(_mean(entropy), _mean(belief.max("opponent_action")), nothing)
    spread = belief.std("draw", skipna=False)
    floor = SPREAD_FLOOR * (posterior.attrs["high"] - posterior.attrs["low"])
    entropy = np.log(spread.clip(floor)) + 0.5 * np.log(2 * np.pi * np.e)
    total = entropy.sum("opponent_dim").where(entropy.notnull().any("opponent_dim"))
    return Certainty(_mean(total), nothing, _mean(spread))


@dataclass(frozen=True)
class Agreement:
    """Whether the seeds agree on a belief, see `agreement`.

    Attributes:
        share: fraction of the replicates whose favourite action is the most common favourite, averaged over agents and
            states; tied favourites share a replicate's vote. NaN for continuous beliefs.
        chance: expected `share` if every replicate drew its favourite at random; it exceeds one over the number of
            actions, since the most common favourite is selected afterwards.
        spread: distance of each replicate's belief from the mean belief, `replicates`: total variation, in [0, 1], or
            for continuous beliefs the distance of means in units of actions.
    """

    share: float
    chance: float
    spread: Numbers


def agreement(posterior: xr.Dataset, learner: str, record: int = -1) -> Agreement | None:
    """Whether replicates agree on one learner's opponent model at one record; `None` without such a model."""
    if learner not in modelling(posterior):
        return None
    belief = posterior["opponent_model"].sel(learner=learner).isel(step=record).astype(np.float64)
    if posterior.attrs["kind"] == "continuous":
        centre = belief.mean("draw")
        return Agreement(float("nan"), float("nan"), _mean(abs(centre - centre.mean("replicate"))))
    real = belief.notnull().any("opponent_action")
    apart = abs(belief - belief.mean("replicate")).sum("opponent_action") / 2
    table = belief.transpose("replicate", "agent", "state", "opponent_action").to_numpy()
    liked = favourites(table)
    number = liked.sum(-1, keepdims=True)
    votes = np.divide(liked, number, where=number > 0, out=np.zeros(liked.shape)).sum(0)
    voters = (number > 0).sum(0)[..., 0]
    held = voters > 0
    actions = (~np.isnan(table)).any(0).sum(-1)
    shares = votes.max(-1)[held] / voters[held]
    by_chance = [_chance(*each) for each in zip(voters[held].tolist(), actions[held].tolist(), strict=True)]
    return Agreement(float(shares.mean()), float(np.mean(by_chance)), _mean(apart.where(real)))


@cache
def _chance(voters: int, actions: int) -> float:
    """Expected share of the most common action if each voter picks one at random."""
    counts = np.random.default_rng(0).multinomial(voters, np.full(actions, 1 / actions), CHANCE_DRAWS)
    return float(counts.max(-1).mean()) / voters


def _mean(values: xr.DataArray) -> Numbers:
    """Average over all dimensions but the replicates."""
    array: Numbers = values.mean([dim for dim in values.dims if dim != "replicate"]).to_numpy()
    return array
