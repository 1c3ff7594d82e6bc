"""Distances of a run's beliefs from the exact solution of its game, for games with rules as tables."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from inference_marl.experiment import Experiment
from inference_marl.guides import Empirical, PolicyFirst
from inference_marl.inference.exact import Solution, seen_by, smooth, soft_q_iteration
from inference_marl.inference.reward_range import OfRange
from inference_marl.inference.schedules import Number, Schedule, current
from inference_marl.learners import Planner, Rommeo
from inference_marl.models import OpponentPrior
from inference_marl.statistics.beliefs import Numbers, jointly
from inference_marl.types import Actor

MAX_ENTRIES = 5_000_000
"""Maximum number of entries of a table; replicates beyond it are left out."""

BELIEFS = {"opponent_prior": "opponent_action", "opponent_model": "opponent_action", "policy": "action"}
"""The beliefs that are compared or used for the solution, with their last dimension."""


def distances(experiment: Experiment, posterior: xr.Dataset) -> xr.Dataset | None:
    """Total variation between learned beliefs and the exact solution of Eq. 9-13 of Tian et al. (2019).

    The solution is that of an agent that knows the game's rules and whose opponents follow its own prior at the last
    record, with the current temperature, KL weight and discount factor (or planning horizon and treatment of the
    dynamics). So the distance does not measure how well an agent plays, but how close learning has come to its target.

    Args:
        experiment: the experiment that was run.
        posterior: its recorded beliefs.

    Returns:
        `opponent_model` (for rho) and `policy` (for the marginal policy), means over states, with the dimensions
        `learner`, `agent` and `replicate`. NaN for learners with another target: those with a given opponent model
        (rho := P, or a fixed one), and those whose guide samples the policy first. `None` if there are no distances, as
        for games without tables, for beliefs not recorded in every state, and for beliefs about several opponents not
        recorded as a table of their joint actions.
    """
    rules = experiment.game.dynamics()
    if rules is None or posterior.sizes.get("state") != len(rules.initial):
        return None
    last = jointly(posterior.isel(step=-1))
    learners, agents = last["learner"].to_numpy().tolist(), list(range(experiment.game.agents))
    found = {}
    for name in learners:
        for agent, learner in enumerate(experiment.players(name)):
            reward, transition = seen_by(rules, agent)
            beliefs = _beliefs(last.sel(learner=name).isel(agent=agent), reward, transition)
            if beliefs is None:
                continue
            prior, model, policy = beliefs
            solution = _solve(learner, int(last["step"]), reward, transition, prior.log())
            if solution is not None:
                marginal = (solution.policy * solution.opponent_model.unsqueeze(-2)).sum(-1)
                compared = (model, solution.opponent_model), (policy, marginal)
                found[name, agent] = np.stack([_total_variation(*pair) for pair in compared])
    if not found:
        return None
    missing = np.full_like(next(iter(found.values())), np.nan)
    values = np.array([[found.get((name, agent), missing) for agent in agents] for name in learners])
    dims = ("learner", "agent", "replicate")
    return xr.Dataset(
        {name: (dims, values[:, :, which]) for which, name in enumerate(("opponent_model", "policy"))},
        {"learner": learners, "agent": agents},
    )


def _beliefs(here: xr.Dataset, reward: Tensor, transition: Tensor) -> list[Tensor] | None:
    """An agent's prior, opponent model and policy, `replicates x states x actions`; `None` if one is missing."""
    sizes = {"action": reward.shape[1], "opponent_action": reward.shape[2]}
    kept = slice(max(1, MAX_ENTRIES // transition.numel()))
    found = []
    for name, dim in BELIEFS.items():
        if name not in here:
            return None
        values = here[name].isel({dim: slice(sizes[dim]), "replicate": kept}).transpose("replicate", "state", dim)
        found.append(torch.from_numpy(values.to_numpy()).double())
    return None if any(bool(values.isnan().any()) for values in found) else found


def _solve(learner: Actor, step: int, reward: Tensor, transition: Tensor, log_prior: Tensor) -> Solution | None:
    """The target of a learner after `step` updates; `None` for learners that do not learn a soft value."""
    if not isinstance(learner, Rommeo | Planner) or isinstance(learner.guide, PolicyFirst):
        return None
    if isinstance(learner.guide.opponent_model, Empirical | OpponentPrior):
        return None
    solve = partial(
        soft_q_iteration if isinstance(learner, Rommeo) else smooth,
        reward,
        transition,
        log_prior,
        temperature=_weight(learner.temperature, step, reward),
        kl_weight=_weight(learner.kl_weight, step, reward),
    )
    if isinstance(learner, Rommeo):
        return solve(discount=learner.discount, tolerance=1e-7)
    plan = solve(horizon=learner.horizon, dynamics=learner.guide.dynamics)
    first = {name: getattr(plan, name).select(1, 0) for name in ("q", "v", "policy", "opponent_model", "transition")}
    return Solution(**first)


def _weight(number: float | Schedule | OfRange | None, step: int, reward: Tensor) -> Number:
    """A weight at `step`; for `OfRange`, in units of the range of mean rewards, which learners know with noise only."""
    if not isinstance(number, OfRange):
        return current(0.0 if number is None else number, step)  # learners have replaced `None`
    size = float(reward.max() - reward.min())
    return current(number.fraction, step) * (size or 1.0)


def _total_variation(p: Tensor, q: Tensor) -> Numbers:
    """Mean total variation over states, `replicates`, of probabilities `replicates x states x values`."""
    distance: Numbers = np.asarray(((p - q).abs().sum(-1) / 2).mean(-1))
    return distance
