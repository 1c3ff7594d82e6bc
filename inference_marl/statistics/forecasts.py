"""Beliefs as forecasts: how probable they made what the opponents did next.

A belief that is recorded at step t is scored by the actions of step t + 1, which it could not know: leave-future-out,
one step ahead. Replicates are independent, steps of one replicate are not, so intervals are over replicates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from inference_marl.statistics.beliefs import PROBABILITY_FLOOR, SPREAD_FLOOR, action_sizes
from inference_marl.types import Metric

FORECASTERS = {"rho": "opponent_model", "P": "opponent_prior"}
"""Beliefs that are scored, by their symbols."""

UNIFORM = "uniform"
"""The forecast of someone who knows nothing: all joint actions alike."""

FORECAST_SCORE = Metric(
    "forecast_score",
    "log score of the next action",
    "nats",
    higher_is_better=True,
    meaning="Log-probability (of continuous actions: log-density) that a belief gave what the opponents played at the "
    "next step; mean over records, environments and agents.",
)


def forecast_scores(posterior: xr.Dataset, actions: xr.Dataset) -> xr.DataArray | None:
    """One-step-ahead log scores of rho, P and a uniform guess, in nats.

    Probabilities below `PROBABILITY_FLOOR` count as that; draws are approximated by a normal in every dimension, with a
    standard deviation of at least `SPREAD_FLOOR` of the range.

    Args:
        posterior: as in `posterior.nc`.
        actions: as in `actions.nc`.

    Returns:
        `forecaster x learner x replicate x agent x step`, where `step` is that of the belief; means over environments.
        NaN where a belief is missing or is no number. `uniform` has a number wherever an agent that models its
        opponents could have been scored. `None` if no belief is followed by recorded actions.
    """
    steps = [step for step in posterior["step"].to_numpy().tolist() if step + 1 in actions["step"].to_numpy()]
    known = {symbol: name for symbol, name in FORECASTERS.items() if name in posterior}
    if not steps or "rho" not in known:
        return None
    played = actions.sel(step=[step + 1 for step in steps]).assign_coords(step=steps)
    played["scored"] = xr.ones_like(played["ended"], dtype=bool)
    if "state" not in played and posterior.sizes["state"] > 1:
        # Beliefs are those where the agents were; after the end of an episode they act somewhere else.
        played["scored"] = ~actions["ended"].sel(step=steps).astype(bool)
    discrete, beliefs = posterior.attrs["kind"] == "discrete", posterior.sel(step=steps)
    of_agents = []
    for agent in range(posterior.sizes["agent"]):
        others = [other for other in range(posterior.sizes["agent"]) if other != agent]
        score = _of_probabilities if discrete else _of_draws
        found = {
            symbol: score(beliefs[name].isel(agent=agent), played, others, posterior) for symbol, name in known.items()
        }
        possible = found["rho"].notnull().any(["replicate", "step"]) & played["scored"].any("environment")
        found[UNIFORM] = xr.full_like(found["rho"], -_log_size(posterior, others)).where(possible)
        of_agents.append(xr.concat(found.values(), xr.DataArray(list(found), dims="forecaster", name="forecaster")))
    scores = xr.concat(of_agents, "agent", coords="minimal", compat="override")
    return scores.transpose("forecaster", "learner", "replicate", "agent", "step")


def total_scores(scores: xr.DataArray, learner: str) -> tuple[xr.DataArray, xr.DataArray]:
    """A learner's scores, added up over its agents that have a model and over records.

    A belief that is missing or no number where it could have been scored makes its replicate's sum NaN: a forecaster
    never gains by falling silent.

    Args:
        scores: see `forecast_scores`.
        learner: its name.

    Returns:
        Sums in nats, `forecaster x replicate`, without forecasters that the learner lacks; and over how many scores,
        `replicate`.
    """
    here = scores.sel(learner=learner, drop=True)
    possible = here.sel(forecaster=UNIFORM, drop=True).notnull()
    sums = here.dropna("forecaster", how="all").where(possible, 0.0).sum(["agent", "step"], skipna=False)
    return sums, possible.sum(["agent", "step"])


def joint_actions(actions: xr.DataArray, agents: Sequence[int], sizes: Sequence[int]) -> xr.DataArray:
    """Numbers of some agents' joint actions, in which the last agent's runs fastest.

    Args:
        actions: integers, with the dimension `agent`.
        agents: whose.
        sizes: how many actions each of all agents has.

    Returns:
        As `actions`, without `agent`.
    """
    taken = actions.astype(np.int64)
    joint = xr.zeros_like(taken.isel(agent=0, drop=True))
    for agent in agents:
        joint = joint * sizes[agent] + taken.isel(agent=agent, drop=True)
    return joint


def _of_probabilities(
    belief: xr.DataArray, played: xr.Dataset, others: list[int], posterior: xr.Dataset
) -> xr.DataArray:
    """Log-probability of the opponents' joint action."""
    joint = joint_actions(played["actions"], others, action_sizes(posterior))
    here = _where_played(belief.drop_vars("opponent_action", errors="ignore"), played).astype(np.float64)
    chosen = here.isel(opponent_action=joint.sel(learner=here["learner"]))
    return _over_environments(xr.ufuncs.log(chosen.clip(PROBABILITY_FLOOR)), played)


def _of_draws(belief: xr.DataArray, played: xr.Dataset, others: list[int], posterior: xr.Dataset) -> xr.DataArray:
    """Log-density of the opponents' actions under the normals fitted to the draws."""
    sizes = action_sizes(posterior)
    taken = [played["actions"].isel(agent=other, drop=True, action_dim=slice(sizes[other])) for other in others]
    actual = xr.concat(taken, "action_dim").rename(action_dim="opponent_dim")
    here = _where_played(belief, played).astype(np.float64).isel(opponent_dim=slice(actual.sizes["opponent_dim"]))
    floor = SPREAD_FLOOR * (posterior.attrs["high"] - posterior.attrs["low"])
    mean, sd = here.mean("draw", skipna=False), here.std("draw", skipna=False).clip(floor)
    density = -np.log(sd * np.sqrt(2 * np.pi)) - (actual - mean) ** 2 / (2 * sd**2)
    return _over_environments(density.sum("opponent_dim", skipna=False), played)


def _over_environments(score: xr.DataArray, played: xr.Dataset) -> xr.DataArray:
    """Mean over the environments that are scored; NaN if there is none, or one of them has no number."""
    scored = played["scored"].sel(learner=score["learner"])
    mean: xr.DataArray = score.where(scored, 0.0).sum("environment", skipna=False) / scored.sum("environment")
    return mean.where(scored.any("environment"))


def _where_played(belief: xr.DataArray, played: xr.Dataset) -> xr.DataArray:
    """A belief in the states in which actions were taken: `environment` in the place of `state`."""
    belief = belief.drop_vars("state", errors="ignore")
    if "state" in played:
        return belief.isel(state=played["state"].astype(np.int64).sel(learner=belief["learner"]))
    if belief.sizes["state"] == 1:
        return belief.isel(state=0, drop=True).expand_dims(environment=played.sizes["environment"])
    return belief.rename(state="environment")


def _log_size(posterior: xr.Dataset, others: list[int]) -> float:
    """Logarithm of the number of joint actions, or of the volume of their space."""
    sizes = [action_sizes(posterior)[other] for other in others]
    if posterior.attrs["kind"] == "discrete":
        return float(np.log(sizes).sum())
    return float(sum(sizes) * np.log(posterior.attrs["high"] - posterior.attrs["low"]))
