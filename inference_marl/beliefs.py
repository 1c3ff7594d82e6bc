"""Numbers read off recorded beliefs: how sure an opponent model is of the optimum, and how far it is from the truth.

Everything here takes the dataset of `posterior.nc`: dims `learner, replicate, step, agent, state`, then
`opponent_action` (probabilities) for discrete actions or `draw, opponent_dim` (draws) for continuous ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

Beliefs = npt.NDArray[np.float64]

PROBABILITY_FLOOR = 1e-6
"""Smaller probabilities count as this much, so that one belief of exactly 0 does not make every mean infinite."""

SPREAD_FLOOR = 1e-3
"""A standard deviation of draws counts as at least this share of the action range, for the same reason."""


def optimum_probability(posterior: xr.Dataset, name: str) -> xr.DataArray | None:
    """Probability that a belief gives to the opponents' part of the game's optimum.

    Args:
        posterior: as in `posterior.nc`.
        name: `opponent_model`, `opponent_prior` or `opponent_policy`.

    Returns:
        `learner x replicate x step x agent`, averaged over states; summed over optimal actions for discrete
        actions, the share of draws within `optimum_radius` (Euclidean) for continuous ones. NaN for learners
        without the belief; `None` if no learner has it, or if the game has no known optimum.
    """
    if name not in posterior or "optimal_opponent_action" not in posterior:
        return None
    belief, optimum = posterior[name], posterior["optimal_opponent_action"]
    if posterior.attrs["kind"] == "discrete":
        probability = belief.where(optimum.astype(bool), 0.0).sum("opponent_action", skipna=False)
        # An action that is not optimal is masked, so a learner without the belief needs its NaN back.
        probability = probability.where(belief.notnull().any("opponent_action"))
    elif "optimum_radius" in posterior.attrs:
        squared = ((belief - optimum) ** 2).where(optimum.notnull(), 0.0).sum("opponent_dim", skipna=False)
        inside = (squared <= posterior.attrs["optimum_radius"] ** 2).where(squared.notnull())
        probability = inside.mean("draw", skipna=False)
    else:
        return None
    return probability.mean("state", skipna=False).transpose("learner", "replicate", "step", "agent")


@dataclass(frozen=True)
class Divergences:
    """How far a learner's opponent model is from its prior and from the truth, see `divergences`.

    Attributes:
        from_prior: `KL(rho || P)` in nats, `replicates`: how far the model departs from what was observed.
        from_truth: `KL(opponents' policy || rho)` in nats, `replicates`.
        log_score: the opponents' expected `log rho(b)` in nats, `replicates`; higher is better. It is what the
            model earns as a forecast, and includes the opponents' own entropy, unlike `from_truth`.
    """

    from_prior: Beliefs
    from_truth: Beliefs
    log_score: Beliefs


def divergences(posterior: xr.Dataset, learner: str, record: int = -1) -> Divergences | None:
    """Divergences of one learner's opponent model, averaged over states and over agents that have a model.

    Discrete beliefs are exact, with probabilities floored at `PROBABILITY_FLOOR`. Of continuous ones only draws
    are recorded: each belief is replaced by a normal with the draws' mean and standard deviation in every
    dimension, floored at `SPREAD_FLOOR` of the range, which is crude for beliefs with several modes.

    Args:
        posterior: as in `posterior.nc`.
        learner: which learner.
        record: which record, as an index.

    Returns:
        NaN for a comparison that cannot be made; `None` if the learner has no opponent model.
    """
    if "opponent_model" not in posterior:
        return None
    here = posterior.sel(learner=learner).isel(step=record)
    discrete = posterior.attrs["kind"] == "discrete"
    event = ("opponent_action",) if discrete else ("draw", "opponent_dim")
    missing = xr.full_like(here["opponent_model"], np.nan)
    model, prior, truth = (
        here.get(name, missing).transpose("agent", "replicate", "state", *event).to_numpy().astype(np.float64)
        for name in ("opponent_model", "opponent_prior", "opponent_policy")
    )
    modelling = ~np.isnan(model).all(axis=tuple(range(1, model.ndim)))
    if not modelling.any():
        return None
    model, prior, truth = model[modelling], prior[modelling], truth[modelling]

    def compare(p: Beliefs, q: Beliefs, score: bool = False) -> Beliefs:
        if discrete:
            value = _discrete(p, q, score)
        else:
            spread = SPREAD_FLOOR * (posterior.attrs["high"] - posterior.attrs["low"])
            value = _normal(p, q, score, spread)
        mean: Beliefs = value.mean(axis=(0, 2))
        return mean

    return Divergences(compare(model, prior), compare(truth, model), compare(truth, model, score=True))


def _discrete(p: Beliefs, q: Beliefs, score: bool) -> Beliefs:
    """`E_p[log q]` if `score`, else `KL(p || q)`, over the last dimension; NaN in both is padding."""
    log_q = np.log(np.maximum(q, PROBABILITY_FLOOR))
    terms = p * (log_q if score else np.log(np.maximum(p, PROBABILITY_FLOOR)) - log_q)
    total: Beliefs = np.where(np.isnan(p) & np.isnan(q), 0.0, terms).sum(-1)
    return total


def _normal(p: Beliefs, q: Beliefs, score: bool, spread: float) -> Beliefs:
    """As `_discrete`, for draws `... x draws x dims` and the normals fitted to them, independent in each dim."""
    mean_p, mean_q = p.mean(-2), q.mean(-2)
    sd_p, sd_q = (np.maximum(draws.std(-2), spread) for draws in (p, q))
    surprise = (sd_p**2 + (mean_p - mean_q) ** 2) / (2 * sd_q**2)
    terms = -np.log(sd_q * np.sqrt(2 * np.pi)) - surprise if score else np.log(sd_q / sd_p) + surprise - 0.5
    total: Beliefs = np.where(np.isnan(mean_p) & np.isnan(mean_q), 0.0, terms).sum(-1)
    return total
