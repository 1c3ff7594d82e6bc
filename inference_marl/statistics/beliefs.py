"""Recorded beliefs about opponents: which learners have them, and the probability that they assign to the optimum.

`posterior` is the dataset of `posterior.nc`, dims `learner, replicate, step, agent, state`, then `opponent_action`
(probabilities) for discrete actions or `draw, opponent_dim` (samples) for continuous ones. In games of three or more
agents the dimension `other`, after `agent`, is the agent that a belief is about; values are NaN where both are the
same. The attribute `state_counts` says what `state` counts, see `places`.
"""

from __future__ import annotations

from types import EllipsisType

import numpy as np
import numpy.typing as npt
import xarray as xr

from inference_marl.types import OF_ALL_OPPONENTS

Numbers = npt.NDArray[np.float64]

PROBABILITY_FLOOR = 1e-6
"""Lower bound of probabilities, so that a single belief of exactly 0 does not make a mean infinite."""

BELIEFS = ("opponent_model", "opponent_prior", "opponent_policy")
"""An agent's model of its opponents, its prior, and the opponents' actual policy."""

SPREAD_FLOOR = 1e-3
"""Lower bound of standard deviations of samples, as a fraction of the action range, for the same reason."""

ROUNDING = 1e-5
"""Tolerance for equal probabilities, and for equal actions as a fraction of their range, due to float32 rounding."""


def as_array(values: xr.DataArray, *dims: str | EllipsisType) -> Numbers:
    """Values with dimensions in this order; dimensions not named are at `...`, or else last."""
    array: Numbers = values.transpose(*dims, *([] if ... in dims else [...])).to_numpy().astype(np.float64)
    return array


EVERY_STATE, WHERE_AGENTS_ARE = "states", "environments"
"""What the dimension `state` counts: states, or environments, for beliefs in the current states."""


def places(posterior: xr.Dataset) -> str:
    """What beliefs are averaged over: states, environments or, if learners differ, both; guessed for older files."""
    return str(posterior.attrs.get("state_counts", EVERY_STATE))


def modelling(posterior: xr.Dataset) -> list[str]:
    """The learners that have an opponent model at the last record."""
    if "opponent_model" not in posterior:
        return []
    last = posterior["opponent_model"].isel(step=-1)
    having = last.notnull().any([dim for dim in last.dims if dim != "learner"])
    return [str(learner) for learner in having["learner"].to_numpy()[having.to_numpy()]]


def favourites(belief: Numbers) -> npt.NDArray[np.bool_]:
    """The most probable actions, `... x actions`: all within `ROUNDING` of the largest probability.

    For a uniform belief these are all actions. NaN is padding and never a favourite.
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
    """Probability that a belief assigns to an opponent's part of the game's optimum.

    Args:
        posterior: the dataset of `posterior.nc`.
        name: one of `BELIEFS`.

    Returns:
        `learner x replicate x step x agent [x other]`, averaged over states. For discrete actions the sum over optimal
        ones. For continuous actions 1 where the belief's mean is within `optimum_radius` (Euclidean) of the optimum,
        else 0: Fig. 2c of Tian et al. (2019) compares means, and a wide belief may be centred on the optimum without
        having most of its mass there. NaN for learners without the belief; `None` if no learner has it, or the game has
        no known optimum.
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
    return probability.mean("state").transpose("learner", "replicate", "step", "agent", ...)


def action_sizes(posterior: xr.Dataset) -> list[int]:
    """Number of actions, or of dimensions of the action, of each agent, from its recorded policy."""
    real, own = posterior["policy"].notnull(), "action" if posterior.attrs["kind"] == "discrete" else "action_dim"
    sizes: list[int] = real.any([dim for dim in real.dims if dim not in ("agent", own)]).sum(own).to_numpy().tolist()
    return sizes


def about(posterior: xr.Dataset, agent: int, opponent: int) -> xr.Dataset:
    """One agent's beliefs about one of its opponents, in the format of the whole dataset of a game of two agents.

    Args:
        posterior: the dataset of `posterior.nc`.
        agent: the agent whose beliefs are selected.
        opponent: the opponent that they are about.

    Returns:
        The dataset with one entry along `agent`.
    """
    here = posterior.isel(agent=[agent])
    return here if "other" not in here.sizes else here.isel(other=opponent, drop=True)


def jointly(posterior: xr.Dataset) -> xr.Dataset:
    """Beliefs about the opponents' joint action, in the format of the whole dataset of a game of two agents.

    Beliefs that were not recorded, such as those over many joint actions, are left out.
    """
    if "other" not in posterior.sizes:
        return posterior
    # Names of actions are dropped, since they belong to a dimension that has been replaced.
    here = posterior.drop_dims(["other", "opponent_action"], errors="ignore")
    names = {joint: name for name, joint in OF_ALL_OPPONENTS.items()} | {"joint_opponent_action": "opponent_action"}
    return here.rename({joint: name for joint, name in names.items() if joint in (*here.variables, *here.sizes)})
