"""Scripted agents for games with hidden types: an opponent that plays its type, and an oracle that infers it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from inference_marl.described import IncompatibleError, Positive, hyperparameters
from inference_marl.games.bayesian_matrix import BayesianMatrixGame, payoffs_of
from inference_marl.learners.scripted import Script
from inference_marl.types import Experience, Memory, Start, choose

COUNTS = "counts"
"""The key in memory of the counts of the opponent's actions, `replicates x environments x actions`."""

TIES = 1e-6
"""Tolerance, relative to the largest payoff, within which values are tied."""


@hyperparameters
class PlaysItsType(Script):
    """Plays the mixed strategy that it observes, in seat 1 of `BayesianMatrixGame`."""

    def setup(self) -> None:
        """Check the seat.

        Raises:
            IncompatibleError: if it is not seat 1 of a `BayesianMatrixGame`.
        """
        game, seat = self.seat.game, self.seat.index
        if not isinstance(game, BayesianMatrixGame) or seat != 1:
            raise IncompatibleError(
                f"PlaysItsType got seat {seat} of {type(game).__name__}, expected seat 1 of BayesianMatrixGame"
            )

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.TorchDistribution, Memory]:
        """The observed probabilities."""
        return dist.Categorical(probs=obs), memory


@hyperparameters
class BayesOracle(Script):
    """Plays a best response to the exact posterior over an opponent's fixed mixed strategy.

    The prior over the strategy is a Dirichlet distribution, so the counts of the opponent's actions since the task
    began are sufficient; they are kept from one episode of a task to the next. Expected rewards are linear in the
    strategy, so this is a best response to the posterior mean; ties are broken uniformly. Against opponents drawn from
    the prior, no agent without knowledge of their types earns more in expectation, so it is an upper bound for learners
    that have to learn to infer them. Without `tasks` every episode is a task.

    Args:
        concentration: concentration of the prior for each action, or one number for all, as in `DirichletTypes`.

    Raises:
        ValueError: if a number is not positive.
    """

    concentration: Positive | Sequence[Positive] = 1.0
    prior: Tensor = field(init=False)
    payoff: Tensor = field(init=False)

    def setup(self) -> None:
        """Look up the payoffs.

        Raises:
            IncompatibleError: if the game is not a matrix game of two agents, or there is not one concentration per
                action.
        """
        seat = self.seat
        payoff = payoffs_of(seat.game, seat.index, "BayesOracle")
        actions = payoff.shape[1]
        prior = torch.tensor(self.concentration, dtype=seat.dtype, device=seat.device)
        if prior.dim() and len(prior) != actions:
            raise IncompatibleError(f"got {len(prior)} numbers, expected {actions}", key="concentration")
        self.register_buffer("payoff", payoff.to(prior))
        self.register_buffer("prior", prior.expand(actions).clone())

    def initial_memory(self, replicates: int, environments: int) -> Memory:
        """Counts of 0."""
        return {COUNTS: self.prior.new_zeros(replicates, environments, len(self.prior))}

    def begin(self, start: Start, memory: Memory | None) -> Memory:
        """Reset the counts where a task begins, but not where an episode does."""
        fresh = self.initial_memory(*start.episode.shape)
        return fresh if memory is None else choose(start.new_task, fresh, memory)

    def remember(self, memory: Memory, step: Experience) -> Memory:
        """Count the opponent's action."""
        seen = one_hot(step.opponent_actions[0], len(self.prior))
        return {COUNTS: memory[COUNTS] + seen}

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.TorchDistribution, Memory]:
        """Uniform over the best responses."""
        counts = memory[COUNTS] + self.prior
        values = (counts / counts.sum(-1, keepdim=True)) @ self.payoff.T
        best = values >= values.amax(-1, keepdim=True) - TIES * self.payoff.abs().max()
        return dist.Categorical(probs=best.to(values)), memory
