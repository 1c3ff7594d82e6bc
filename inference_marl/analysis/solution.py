"""How far what a run has learned is from the exact solution of its game, for games that give their rules as tables."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from inference_marl.analysis.posterior import Recorded
from inference_marl.config.files import SpecError, load
from inference_marl.guides import Empirical, PolicyFirst
from inference_marl.inference.exact import Solution, seen_by, smooth, soft_q_iteration
from inference_marl.learners import Planner, Rommeo
from inference_marl.models import OpponentPrior
from inference_marl.statistics.beliefs import Numbers
from inference_marl.types import Learner

MAX_ENTRIES = 5_000_000
"""Entries of the largest table; replicates beyond that are left out."""


@dataclass(frozen=True)
class Distance:
    """Total variation between what one agent has learned and the exact solution, see `distances`.

    Attributes:
        learner: which arm.
        agent: which agent.
        opponent_model: of rho, mean over states, `replicates`.
        policy: of the marginal policy, mean over states, `replicates`.
    """

    learner: str
    agent: int
    opponent_model: Numbers
    policy: Numbers


def distances(recorded: Recorded) -> list[Distance]:
    """Every modelling agent's distance from Eq. 9-13 of Tian et al. (2019), solved exactly.

    The solution is that of an agent that knows the game's rules and whose opponents do what its own prior says at the
    last record, with the temperature, KL weight and discount (or planning horizon and treatment of the dynamics) of
    that moment. So it is not how well an agent plays, but how far its learning has come towards what it aims at.

    Returns:
        Empty for games without tables, beliefs that were not recorded in every state, and runs whose experiment cannot
        be built here. Learners that aim at something else have no row: those whose opponent model is given (rho := P,
        or a fixed one) or whose guide samples the policy first.
    """
    try:
        experiment = load(recorded.folder / "spec.yaml")
    except SpecError:
        return []
    posterior, rules = recorded.posterior, experiment.game.dynamics()
    if posterior is None or rules is None or posterior.sizes["state"] != len(rules.initial):
        return []
    found = []
    last = posterior.isel(step=-1)
    for name, arm in experiment.arms.items():
        if name not in last["learner"]:
            continue
        for agent in range(experiment.game.agents):
            learner = arm[agent] if isinstance(arm, list) else arm
            reward, transition = seen_by(rules, agent)
            kept = max(1, MAX_ENTRIES // transition.numel())
            here = last.sel(learner=name).isel(agent=agent, replicate=slice(kept))
            sizes = {"action": reward.shape[1], "opponent_action": reward.shape[2]}
            beliefs = {
                belief: torch.from_numpy(
                    here[belief].isel({dim: slice(sizes[dim])}).transpose("replicate", "state", dim).to_numpy()
                ).double()
                for belief, dim in [
                    ("opponent_prior", "opponent_action"),
                    ("opponent_model", "opponent_action"),
                    ("policy", "action"),
                ]
                if belief in here
            }
            if len(beliefs) < 3 or any(bool(values.isnan().any()) for values in beliefs.values()):
                continue
            solution = _solve(learner, int(last["step"]), reward, transition, beliefs["opponent_prior"].log())
            if solution is not None:
                marginal = (solution.policy * solution.opponent_model.unsqueeze(-2)).sum(-1)
                found.append(
                    Distance(
                        name,
                        agent,
                        _total_variation(beliefs["opponent_model"], solution.opponent_model),
                        _total_variation(beliefs["policy"], marginal),
                    )
                )
    return found


def _solve(learner: Learner, step: int, reward: Tensor, transition: Tensor, log_prior: Tensor) -> Solution | None:
    """What a learner aims at after `step` updates; `None` for learners that do not aim at a soft value."""
    if not isinstance(learner, Rommeo | Planner) or isinstance(learner.guide, PolicyFirst):
        return None
    if isinstance(learner.guide.opponent_model, Empirical | OpponentPrior):
        return None
    solve = partial(
        soft_q_iteration if isinstance(learner, Rommeo) else smooth,
        reward,
        transition,
        log_prior,
        temperature=learner.temperature(step),
        kl_weight=learner.kl_weight(step),
    )
    if isinstance(learner, Rommeo):
        return solve(discount=learner.discount, tolerance=1e-7)
    plan = solve(horizon=learner.horizon, dynamics=learner.guide.dynamics)
    first = {name: getattr(plan, name).select(1, 0) for name in ("q", "v", "policy", "opponent_model", "transition")}
    return Solution(**first)


def _total_variation(p: Tensor, q: Tensor) -> Numbers:
    """Half the absolute difference, `replicates`, of probabilities `replicates x states x values`."""
    distance: Numbers = np.asarray(((p - q).abs().sum(-1) / 2).mean(-1))
    return distance
