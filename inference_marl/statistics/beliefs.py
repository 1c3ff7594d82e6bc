"""Numbers read off a run's datasets: metrics per replicate, how sure a belief is, and how far it is from the truth.

`metrics` is the dataset of `metrics.nc`, dims `learner, replicate, step` and mostly `agent`. `posterior` is that of
`posterior.nc`, dims `learner, replicate, step, agent, state`, then `opponent_action` (probabilities) for discrete
actions or `draw, opponent_dim` (draws) for continuous ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

Numbers = npt.NDArray[np.float64]

PROBABILITY_FLOOR = 1e-6
"""Smaller probabilities count as this much, so that one belief of exactly 0 does not make every mean infinite."""

BELIEFS = ("opponent_model", "opponent_prior", "opponent_policy")
"""What an agent believes of its opponents, what it assumed, and what they do."""

SPREAD_FLOOR = 1e-3
"""A standard deviation of draws counts as at least this share of the action range, for the same reason."""

ROUNDING = 1e-5
"""Probabilities that differ by no more than this are the same, and so are actions that do by this share of their
range: recorded in float32, they carry the rounding of many operations."""


def per_replicate(metrics: xr.Dataset, name: str, learner: str) -> Numbers | None:
    """One metric of one learner, averaged over the agents that have it, `replicates x steps`.

    Returns:
        `None` if the metric is missing, or NaN throughout for this learner.
    """
    if name not in metrics:
        return None
    values = metrics[name].sel(learner=learner)
    if values.isnull().all():
        return None
    if "agent" in values.dims:
        # An agent that lacks the metric is NaN throughout; a NaN among its records must show.
        values = values.sel(agent=~values.isnull().all(["replicate", "step"])).mean("agent", skipna=False)
    array: Numbers = values.transpose("replicate", "step").to_numpy().astype(np.float64)
    return array


def modelling(posterior: xr.Dataset) -> list[str]:
    """The learners that have an opponent model at the last record."""
    if "opponent_model" not in posterior:
        return []
    last = posterior["opponent_model"].isel(step=-1)
    having = last.notnull().any([dim for dim in last.dims if dim != "learner"])
    return [str(learner) for learner in having["learner"].to_numpy()[having.to_numpy()]]


def favourites(belief: Numbers) -> npt.NDArray[np.bool_]:
    """The likeliest actions, `... x actions`: all that are within `ROUNDING` of the largest probability.

    A belief that gives every action the same has them all as favourites. NaN is padding and never one.
    """
    filled = np.where(np.isnan(belief), -np.inf, belief)
    likeliest: npt.NDArray[np.bool_] = (filled >= filled.max(-1, keepdims=True) - ROUNDING) & ~np.isnan(belief)
    return likeliest


def opponent_types(posterior: xr.Dataset) -> list[str]:
    """Names of the opponents' types; numbers where the run has no names."""
    if "type" in posterior.coords:
        return [str(name) for name in posterior["type"].to_numpy()]
    return [str(number) for number in range(posterior.sizes["type"])]


def optimum_probability(posterior: xr.Dataset, name: str) -> xr.DataArray | None:
    """Probability that a belief gives to the opponents' part of the game's optimum.

    Args:
        posterior: as in `posterior.nc`.
        name: `opponent_model`, `opponent_prior` or `opponent_policy`.

    Returns:
        `learner x replicate x step x agent`, averaged over states; summed over optimal actions for discrete
        actions. For continuous ones 1 where the belief's mean is within `optimum_radius` (Euclidean) of the optimum
        and 0 elsewhere: Fig. 2c of Tian et al. (2019) compares means, and a wide belief may be centred on the
        optimum without having most of its mass there. NaN for learners without the belief; `None` if no learner
        has it, or if the game has no known optimum.
    """
    if name not in posterior or "optimal_opponent_action" not in posterior:
        return None
    belief, optimum = posterior[name], posterior["optimal_opponent_action"]
    if posterior.attrs["kind"] == "discrete":
        probability = belief.where(optimum.astype(bool), 0.0).sum("opponent_action", skipna=False)
        # An action that is not optimal is masked, so a learner without the belief needs its NaN back.
        probability = probability.where(belief.notnull().any("opponent_action"))
    elif "optimum_radius" in posterior.attrs:
        mean = belief.mean("draw", skipna=False)
        squared = ((mean - optimum) ** 2).where(optimum.notnull(), 0.0).sum("opponent_dim", skipna=False)
        probability = (squared <= posterior.attrs["optimum_radius"] ** 2).astype("float64").where(squared.notnull())
    else:
        return None
    return probability.mean("state").transpose("learner", "replicate", "step", "agent")


@dataclass(frozen=True)
class Divergences:
    """How far a learner's opponent model is from its prior and from the truth, see `divergences`.

    Attributes:
        from_prior: `KL(rho || P)` in nats, `replicates`: how far the model departs from what was observed.
        from_truth: `KL(opponents' policy || rho)` in nats, `replicates`.
        log_score: the opponents' expected `log rho(b)` in nats, `replicates`; higher is better. It is what the
            model earns as a forecast, and includes the opponents' own entropy, unlike `from_truth`.
        best_log_score: what the truth itself would earn, `replicates`: no model can have more.
    """

    from_prior: Numbers
    from_truth: Numbers
    log_score: Numbers
    best_log_score: Numbers


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

    def compare(p: Numbers, q: Numbers, score: bool = False) -> Numbers:
        if discrete:
            value = discrete_divergence(p, q, score)
        else:
            spread = SPREAD_FLOOR * (posterior.attrs["high"] - posterior.attrs["low"])
            value = normal_divergence(p, q, score, spread)
        mean: Numbers = xr.DataArray(value, dims=("agent", "replicate", "state")).mean(["agent", "state"]).to_numpy()
        return mean

    scores = (compare(truth, other, score=True) for other in (model, truth))
    return Divergences(compare(model, prior), compare(truth, model), *scores)


def about(posterior: xr.Dataset, agent: int, opponent: int) -> xr.Dataset:
    """One agent's beliefs about one of its opponents alone, in the form of the whole.

    What is believed of the others is summed out of probabilities and left out of draws.

    Args:
        posterior: as in `posterior.nc`, with a `policy` that says how many actions every agent has.
        agent: who believes.
        opponent: about whom.

    Returns:
        The dataset with one entry along `agent`, and the last dimension of every belief that of `opponent`.
    """
    here = posterior.isel(agent=[agent])
    agents = posterior.sizes["agent"]
    if agents == 2:
        return here
    own, joint = (
        ("action", "opponent_action") if posterior.attrs["kind"] == "discrete" else ("action_dim", "opponent_dim")
    )
    real = posterior["policy"].notnull()
    sizes = real.any([dim for dim in real.dims if dim not in ("agent", own)]).sum(own).to_numpy().tolist()
    others = [other for other in range(agents) if other != agent]
    shape, at = [sizes[other] for other in others], others.index(opponent)
    names = [name for name in BELIEFS if name in here]
    optimum = "optimal_opponent_action"
    parts = here.drop_dims(joint)
    for name in names:
        values = here[name].transpose(..., joint).to_numpy()
        if joint == "opponent_dim":
            first = sum(shape[:at])
            values = values[..., first : first + shape[at]]
        else:
            values = values[..., : int(np.prod(shape))].reshape(*values.shape[:-1], *shape)
            values = values.sum(tuple(k - len(shape) for k in range(len(shape)) if k != at))
        parts[name] = (here[name].transpose(..., joint).dims, values)
    if optimum in posterior:
        best = posterior[optimum.replace("opponent_", "")].to_numpy()[[opponent], : shape[at]]
        parts[optimum] = (("agent", joint), best)
    return parts.assign_coords({joint: posterior[own].to_numpy()[: shape[at]]}) if own in posterior.coords else parts


def discrete_divergence(p: Numbers, q: Numbers, score: bool) -> Numbers:
    """`E_p[log q]` if `score`, else `KL(p || q)`, over the last dimension; NaN in both is padding."""
    log_q = np.log(np.maximum(q, PROBABILITY_FLOOR))
    terms = p * (log_q if score else np.log(np.maximum(p, PROBABILITY_FLOOR)) - log_q)
    return _sum(terms, np.isnan(p) & np.isnan(q))


def normal_divergence(p: Numbers, q: Numbers, score: bool, spread: float) -> Numbers:
    """As `_discrete`, for draws `... x draws x dims` and the normals fitted to them, independent in each dim."""
    mean_p, mean_q = p.mean(-2), q.mean(-2)
    sd_p, sd_q = (np.maximum(draws.std(-2), spread) for draws in (p, q))
    surprise = (sd_p**2 + (mean_p - mean_q) ** 2) / (2 * sd_q**2)
    terms = -np.log(sd_q * np.sqrt(2 * np.pi)) - surprise if score else np.log(sd_q / sd_p) + surprise - 0.5
    return _sum(terms, np.isnan(mean_p) & np.isnan(mean_q))


def _sum(terms: Numbers, padding: npt.NDArray[np.bool_]) -> Numbers:
    """Sum over the last dimension without its padding; NaN where all is padding (a state the agent lacks)."""
    total: Numbers = np.where(padding.all(-1), np.nan, np.where(padding, 0.0, terms).sum(-1))
    return total
