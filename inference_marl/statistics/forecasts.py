"""Scores of beliefs as forecasts of the opponents' next actions.

A belief recorded at step t is scored by the actions of step t + 1, which it could not know: one-step-ahead
leave-future-out. Replicates are independent, steps of one replicate are not, so intervals are over replicates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from inference_marl.statistics.beliefs import PROBABILITY_FLOOR, SPREAD_FLOOR, Numbers, about, action_sizes
from inference_marl.types import Metric

FORECASTERS = {"rho": "opponent_model", "P": "opponent_prior"}
"""Beliefs that are scored, by their symbols."""

UNIFORM = "uniform"
"""The uninformed forecast: uniform over actions."""

FORECAST_SCORE = Metric(
    "forecast_score",
    "log score of the next action",
    "nats",
    higher_is_better=True,
    meaning="Log-probability (of continuous actions: log-density) of the opponents' next actions under a belief, "
    "summed over opponents; mean over records, environments and agents.",
)


def forecast_scores(posterior: xr.Dataset, actions: xr.Dataset) -> xr.DataArray | None:
    """One-step-ahead log scores of rho, P and a uniform guess, in nats.

    Probabilities are at least `PROBABILITY_FLOOR`; samples are approximated by a normal in every dimension, with a
    standard deviation of at least `SPREAD_FLOOR` of the range. With several opponents, each one's actions are scored
    separately and the scores are summed, so correlations in a belief do not count.

    Args:
        posterior: the dataset of `posterior.nc`.
        actions: the dataset of `actions.nc`.

    Returns:
        `forecaster x learner x replicate x agent x step`, where `step` is that of the belief; means over environments.
        NaN where a belief is missing or NaN. `uniform` has a value wherever an agent that models its opponents could
        have been scored. `None` if no belief is followed by recorded actions.
    """
    steps = [step for step in posterior["step"].to_numpy().tolist() if step + 1 in actions["step"].to_numpy()]
    known = {symbol: name for symbol, name in FORECASTERS.items() if name in posterior}
    if not steps or "rho" not in known:
        return None
    played = actions.sel(step=[step + 1 for step in steps]).assign_coords(step=steps)
    played["scored"] = xr.ones_like(played["ended"], dtype=bool)
    if "state" not in played and posterior.sizes["state"] > 1:
        # Beliefs are those in the states of the record; after the end of an episode agents act in other states.
        played["scored"] = ~actions["ended"].sel(step=steps).astype(bool)
    score, sizes = _of_probabilities if posterior.attrs["kind"] == "discrete" else _of_draws, action_sizes(posterior)
    of_agents = []
    for agent in range(len(sizes)):
        others = [other for other in range(len(sizes)) if other != agent]
        beliefs = [about(posterior.sel(step=steps), agent, other).isel(agent=0) for other in others]
        found = {}
        for symbol, name in known.items():
            pairs = zip(beliefs, others, strict=True)
            scored = [score(each[name], played, other, sizes[other], posterior.attrs) for each, other in pairs]
            found[symbol] = sum(scored[1:], scored[0])
        possible = found["rho"].notnull().any(["replicate", "step"]) & played["scored"].any("environment")
        size = sum(_log_size(sizes[other], posterior.attrs) for other in others)
        found[UNIFORM] = xr.full_like(found["rho"], -size).where(possible)
        of_agents.append(xr.concat(found.values(), xr.DataArray(list(found), dims="forecaster", name="forecaster")))
    scores = xr.concat(of_agents, "agent", coords="minimal", compat="override")
    return scores.transpose("forecaster", "learner", "replicate", "agent", "step")


def total_scores(scores: xr.DataArray, learner: str) -> tuple[xr.DataArray, xr.DataArray]:
    """A learner's scores, summed over records and over its agents that have an opponent model.

    A belief that is missing or NaN where it could have been scored makes its replicate's sum NaN: a forecaster never
    gains by abstaining.

    Args:
        scores: see `forecast_scores`.
        learner: name of the learner.

    Returns:
        Sums in nats, `forecaster x replicate`, without forecasters that the learner lacks; and the number of scores in
        each sum, `replicate`.
    """
    here = scores.sel(learner=learner, drop=True)
    possible = here.sel(forecaster=UNIFORM, drop=True).notnull()
    sums = here.dropna("forecaster", how="all").where(possible, 0.0).sum(["agent", "step"], skipna=False)
    return sums, possible.sum(["agent", "step"])


def log_score(probabilities: Numbers, taken: npt.NDArray[np.int64]) -> Numbers:
    """Log-probability of the outcomes, in nats; probabilities are at least `PROBABILITY_FLOOR`.

    Args:
        probabilities: `... x actions`.
        taken: indices of the actions taken, `...`.
    """
    chosen = np.take_along_axis(probabilities, taken[..., None], -1)[..., 0]
    found: Numbers = np.log(chosen.clip(PROBABILITY_FLOOR))
    return found


def crps(draws: Numbers, actual: Numbers) -> Numbers:
    """Continuous ranked probability score of a forecast given by samples; lower is better.

    `E|X - y| - E|X - X'| / 2` for independent X, X' of the forecast (Gneiting and Raftery 2007, Eq. 21), where the
    second mean is over pairs of different samples, so that its expectation does not depend on their number (Ferro 2014,
    'Fair scores for ensemble forecasts'). So it may be negative.

    Args:
        draws: samples of the forecast, `... x draws`, at least two.
        actual: the outcomes, `...`.
    """
    count = draws.shape[-1]
    weights = 2 * np.arange(1, count + 1) - count - 1  # of sorted samples; the weighted sum is that over pairs
    spread = (np.sort(draws, -1) * weights).sum(-1) / (count * (count - 1))
    found: Numbers = np.abs(draws - actual[..., None]).mean(-1) - spread
    return found


def _of_probabilities(
    belief: xr.DataArray, played: xr.Dataset, other: int, size: int, attrs: Mapping[str, Any]
) -> xr.DataArray:
    """Log-probability of an opponent's action."""
    taken = played["actions"].isel(agent=other, drop=True).astype(np.int64)
    here = _where_played(belief.drop_vars("opponent_action", errors="ignore"), played).astype(np.float64)
    chosen = here.isel(opponent_action=taken.sel(learner=here["learner"]))
    return _over_environments(xr.ufuncs.log(chosen.clip(PROBABILITY_FLOOR)), played)


def _of_draws(
    belief: xr.DataArray, played: xr.Dataset, other: int, size: int, attrs: Mapping[str, Any]
) -> xr.DataArray:
    """Log-density of an opponent's action under the normals fitted to the draws."""
    taken = played["actions"].isel(agent=other, drop=True, action_dim=slice(size))
    actual = taken.rename(action_dim="opponent_dim")
    here = _where_played(belief, played).astype(np.float64).isel(opponent_dim=slice(size))
    floor = SPREAD_FLOOR * (attrs["high"] - attrs["low"])
    mean, sd = here.mean("draw", skipna=False), here.std("draw", skipna=False).clip(floor)
    density = -np.log(sd * np.sqrt(2 * np.pi)) - (actual - mean) ** 2 / (2 * sd**2)
    return _over_environments(density.sum("opponent_dim", skipna=False), played)


def _over_environments(score: xr.DataArray, played: xr.Dataset) -> xr.DataArray:
    """Mean over the environments that are scored; NaN if there is none, or one of them is NaN."""
    scored = played["scored"].sel(learner=score["learner"])
    mean: xr.DataArray = score.where(scored, 0.0).sum("environment", skipna=False) / scored.sum("environment")
    return mean.where(scored.any("environment"))


def _where_played(belief: xr.DataArray, played: xr.Dataset) -> xr.DataArray:
    """A belief in the states in which actions were taken: `environment` replaces `state`."""
    belief = belief.drop_vars("state", errors="ignore")
    if "state" in played:
        return belief.isel(state=played["state"].astype(np.int64).sel(learner=belief["learner"]))
    if belief.sizes["state"] == 1:
        return belief.isel(state=0, drop=True).expand_dims(environment=played.sizes["environment"])
    return belief.rename(state="environment")


def _log_size(size: int, attrs: Mapping[str, Any]) -> float:
    """Logarithm of the number of actions, or of the volume of their space."""
    return float(np.log(size) if attrs["kind"] == "discrete" else size * np.log(attrs["high"] - attrs["low"]))
