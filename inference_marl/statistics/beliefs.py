"""Recorded beliefs about opponents: which learners have them, what they say about the optimum, and their accuracy.

`posterior` is the dataset of `posterior.nc`, dims `learner, replicate, step, agent, state`, then `opponent_action`
(probabilities) for discrete actions or `draw, opponent_dim` (draws) for continuous ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

Numbers = npt.NDArray[np.float64]

PROBABILITY_FLOOR = 1e-6
"""Smaller probabilities are raised to this, so that a single belief of exactly 0 does not make a mean infinite."""

BELIEFS = ("opponent_model", "opponent_prior", "opponent_policy")
"""An agent's model of its opponents, its prior, and the opponents' actual policy."""

SPREAD_FLOOR = 1e-3
"""Smaller standard deviations of draws are raised to this fraction of the action range, for the same reason."""

ROUNDING = 1e-5
"""Tolerance for equal probabilities, and for equal actions as a fraction of their range, due to float32 rounding."""


def as_array(values: xr.DataArray, *dims: str) -> Numbers:
    """Values with these dimensions first, in this order."""
    array: Numbers = values.transpose(*dims, ...).to_numpy().astype(np.float64)
    return array


def modelling(posterior: xr.Dataset) -> list[str]:
    """The learners that have an opponent model at the last record."""
    if "opponent_model" not in posterior:
        return []
    last = posterior["opponent_model"].isel(step=-1)
    having = last.notnull().any([dim for dim in last.dims if dim != "learner"])
    return [str(learner) for learner in having["learner"].to_numpy()[having.to_numpy()]]


def favourites(belief: Numbers) -> npt.NDArray[np.bool_]:
    """The most probable actions, `... x actions`: all within `ROUNDING` of the largest probability.

    All actions are favourites of a uniform belief. NaN is padding and never a favourite.
    """
    filled = np.where(np.isnan(belief), -np.inf, belief)
    likeliest: npt.NDArray[np.bool_] = (filled >= filled.max(-1, keepdims=True) - ROUNDING) & ~np.isnan(belief)
    return likeliest


def opponent_types(posterior: xr.Dataset) -> list[str]:
    """Names of the opponents' types; numbers if the run has no names."""
    if "type" in posterior.coords:
        return [str(name) for name in posterior["type"].to_numpy()]
    return [str(number) for number in range(posterior.sizes["type"])]


def optimum_probability(posterior: xr.Dataset, name: str) -> xr.DataArray | None:
    """Probability that a belief assigns to the opponents' part of the game's optimum.

    Args:
        posterior: as in `posterior.nc`.
        name: one of `BELIEFS`.

    Returns:
        `learner x replicate x step x agent`, averaged over states; for discrete actions the sum over optimal ones. For
        continuous actions 1 where the belief's mean is within `optimum_radius` (Euclidean) of the optimum, else 0: Fig.
        2c of Tian et al. (2019) compares means, and a wide belief may be centred on the optimum without having most of
        its mass there. NaN for learners without the belief; `None` if no learner has it, or the game has no known
        optimum.
    """
    if name not in posterior or "optimal_opponent_action" not in posterior:
        return None
    belief, optimum = posterior[name], posterior["optimal_opponent_action"]
    if posterior.attrs["kind"] == "discrete":
        probability = belief.where(optimum.astype(bool), 0.0).sum("opponent_action", skipna=False)
        # Suboptimal actions were set to 0, so restore NaN for learners without the belief.
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
        from_prior: `KL(rho || P)` in nats, `replicates`.
        from_truth: `KL(opponents' policy || rho)` in nats, `replicates`.
        log_score: expected `log rho(b)` under the opponents' policy in nats, `replicates`; higher is better. It scores
            the model as a forecast and, unlike `from_truth`, includes the opponents' entropy.
        best_log_score: log score of the truth itself, `replicates`, the maximum.
    """

    from_prior: Numbers
    from_truth: Numbers
    log_score: Numbers
    best_log_score: Numbers


def divergences(posterior: xr.Dataset, learner: str, record: int = -1) -> Divergences | None:
    """Divergences of one learner's opponent model, averaged over states and over agents that have a model.

    Discrete beliefs are exact, with probabilities floored at `PROBABILITY_FLOOR`. Continuous ones are recorded as draws
    and approximated by a normal with the draws' mean and standard deviation in every dimension, floored at
    `SPREAD_FLOOR` of the range, which is crude for multimodal beliefs.

    Args:
        posterior: as in `posterior.nc`.
        learner: its name.
        record: index of the record.

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
        as_array(here.get(name, missing), "agent", "replicate", "state", *event)
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
    """One agent's beliefs about one of its opponents, in the format of the whole dataset.

    The other opponents are marginalised out of probabilities and dropped from draws.

    Args:
        posterior: as in `posterior.nc`, with a `policy`, which shows how many actions each agent has.
        agent: the agent whose beliefs are selected.
        opponent: the opponent they are about.

    Returns:
        The dataset with one entry along `agent`, and `opponent` alone in the last dimension of every belief.
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
    """As `discrete_divergence`, for normals with independent dimensions fitted to draws `... x draws x dims`."""
    mean_p, mean_q = p.mean(-2), q.mean(-2)
    sd_p, sd_q = (np.maximum(draws.std(-2), spread) for draws in (p, q))
    surprise = (sd_p**2 + (mean_p - mean_q) ** 2) / (2 * sd_q**2)
    terms = -np.log(sd_q * np.sqrt(2 * np.pi)) - surprise if score else np.log(sd_q / sd_p) + surprise - 0.5
    return _sum(terms, np.isnan(mean_p) & np.isnan(mean_q))


def _sum(terms: Numbers, padding: npt.NDArray[np.bool_]) -> Numbers:
    """Sum over the last dimension without padding; NaN where all is padding (a state that the agent lacks)."""
    total: Numbers = np.where(padding.all(-1), np.nan, np.where(padding, 0.0, terms).sum(-1))
    return total
