"""The exact posterior over the parameters of a Dirichlet-multinomial prior, for ArviZ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from inference_marl.analysis.arviz.library import known, tree
from inference_marl.analysis.recorded import Recorded, read
from inference_marl.described import InspectError
from inference_marl.spaces import Discrete, joint_names
from inference_marl.statistics.beliefs import Numbers


def parameter_posterior(
    run: Path | str | Recorded,
    learner: str | None = None,
    agent: int = 0,
    replicate: int = 0,
    step: int | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Any:
    """The posterior over the parameters of a `DirichletMultinomial` prior, for ArviZ's own functions such as `loo`.

    In every state `theta` are the probabilities of the opponents' joint actions. Their posterior given the counted
    actions is Dirichlet(concentration + counts), whose mean is `P`. Draws are exact and independent, hence a single
    chain. Each replicate is a separate data set.

    * `posterior`, `prior`: `theta`, `chain x draw x state x opponent_action`, without `state` if there is only one;
    * `log_likelihood`: `opponent_action`, `chain x draw x observation`;
    * `observed_data`: `opponent_action`, indices of the labels of `theta`, with the `step` and the `state` of each.

    `loo` estimates the effect of leaving out an observation with weights `1 / theta`, whose tail index (Pareto's k) is
    `1 / (concentration + count)`, so its warnings about rare actions with a small concentration are correct.

    Args:
        run: a run's folder, or the result of `read`.
        learner: name of the arm; `None` for the first.
        agent: index of the agent.
        replicate: index of the replicate.
        step: environment step up to which actions are counted; `None` for the last.
        draws: number of draws from the prior and from the posterior.
        seed: random seed of the draws.

    Returns:
        `xarray.DataTree`; `arviz.InferenceData` on ArviZ 0.23.

    Raises:
        InspectError: if the folder is not a run, the run is not finished or did not record actions and states, the
            learner, agent, replicate or step was not recorded, or the agent has another prior, or none.
    """
    recorded = read(run)
    learner = known(recorded.metrics, "learner", learner or recorded.learners[0])
    agent = known(recorded.metrics, "agent", agent)
    prior = _dirichlet(recorded, learner, agent)
    seen = _counted(recorded, learner, replicate, step, prior)
    counts = np.zeros((prior.states, len(prior.labels["opponent_action"])))
    np.add.at(counts, (seen["state"], seen["opponent_action"]), 1.0)
    rng = np.random.default_rng(seed)
    theta, before = (
        _dirichlet_draws(rng, prior.concentration + each, draws, prior.labels) for each in (counts, 0 * counts)
    )
    likelihood = xr.ufuncs.log(theta.isel({str(name): each for name, each in seen.items() if name in theta.dims}))
    likelihood = likelihood.drop_vars("opponent_action")
    observed = seen["opponent_action"].assign_coords(likelihood.isel(chain=0, draw=0, drop=True).coords)
    named = {
        "theta": {"posterior": theta, "prior": before},
        "opponent_action": {"log_likelihood": likelihood, "observed_data": observed},
    }
    return tree(recorded, {group: each.to_dataset(name=name) for name in named for group, each in named[name].items()})


@dataclass(frozen=True)
class _Counting:
    """A `DirichletMultinomial` prior and its agent's spaces.

    Attributes:
        agent: index of the agent.
        concentration: see `DirichletMultinomial`.
        window: see `DirichletMultinomial`.
        spaces: all agents' action spaces.
        states: number of states.
        labels: names of the states and of the opponents' joint actions.
    """

    agent: int
    concentration: float
    window: int | None
    spaces: Sequence[Discrete]
    states: int
    labels: Mapping[str, Sequence[Any]]

    @property
    def opponents(self) -> list[int]:
        """Indices of the other agents."""
        return [other for other in range(len(self.spaces)) if other != self.agent]


def _dirichlet(recorded: Recorded, learner: str, agent: int) -> _Counting:
    """An agent's prior from its description, without importing classes that the run names."""
    arm = recorded.spec["arms"][learner]
    described = arm[agent] if isinstance(arm, list) else arm
    prior = described.get("init_args", {}).get("opponent_prior") or {"class_path": "no opponent prior"}
    package, _, name = prior["class_path"].rpartition(".")
    if name != "DirichletMultinomial" or not package.startswith("inference_marl."):
        raise InspectError(
            f"{learner}, agent {agent}: got {name}, expected DirichletMultinomial, whose posterior is known exactly"
        )
    if recorded.actions is None:
        raise InspectError(f"{recorded.folder}: got a run without actions.nc, expected one with record_actions")
    said = recorded.actions.attrs
    if "action_sizes" not in said:
        raise InspectError(f"{recorded.folder}: got a run of a version before 0.2.0, expected one that says its spaces")
    spaces = [Discrete(int(size)) for size in np.atleast_1d(said["action_sizes"])]
    states = int(np.atleast_1d(said["state_sizes"])[agent])
    names = {key: np.atleast_1d(said[key]).tolist() if key in said else None for key in ("state_names", "action_names")}
    others = [space for other, space in enumerate(spaces) if other != agent]
    labels = {
        "state": names["state_names"] or list(range(states)),
        "opponent_action": joint_names(others, names["action_names"]),
    }
    arguments = prior["init_args"]
    return _Counting(agent, arguments["concentration"], arguments.get("window"), spaces, states, labels)


def _counted(recorded: Recorded, learner: str, replicate: int, step: int | None, prior: _Counting) -> xr.Dataset:
    """The prior's observations after a step: `state` and `opponent_action` by `observation`, in order."""
    assert recorded.actions is not None  # the prior's spaces are from there
    played = recorded.actions.sel(learner=learner, drop=True)
    if prior.states > 1 and "state" not in played:
        raise InspectError(f"{recorded.folder}: got actions without the states in which they were taken, expected both")
    played = played.isel(replicate=known(played, "replicate", replicate)).sel(step=slice(known(played, "step", step)))
    flat = played.transpose("step", "environment", ...).stack(observation=("step", "environment"), create_index=False)
    each = flat["actions"].isel(agent=prior.opponents).transpose("agent", "observation").to_numpy().astype(np.int64)
    sizes = [prior.spaces[other].features for other in prior.opponents]
    taken = xr.DataArray(np.ravel_multi_index(tuple(each), sizes), dims="observation")  # last agent's fastest
    state = flat["state"].astype(np.int64) if "state" in flat else 0 * taken
    return xr.Dataset({"state": state, "opponent_action": taken}).isel(observation=slice(-(prior.window or 0), None))


def _dirichlet_draws(
    rng: np.random.Generator, concentration: Numbers, draws: int, labels: Mapping[str, Sequence[Any]]
) -> xr.DataArray:
    """Independent draws, `chain x draw x state x opponent_action`, without `state` if there is only one."""
    theta = np.stack([rng.dirichlet(each, draws) for each in concentration], 1)[None]
    drawn = xr.DataArray(theta, {"chain": [0], "draw": np.arange(draws), **labels})
    return drawn if len(concentration) > 1 else drawn.isel(state=0, drop=True)
