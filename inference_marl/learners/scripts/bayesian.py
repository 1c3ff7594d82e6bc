"""Players of games in which opponents have types: who plays its type, and who infers it exactly."""

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
"""The name in memory of how often the opponent has played each action, `replicates x environments x actions`."""

TIES = 1e-6
"""Values that differ by less, relative to the largest payoff, are equal."""


@hyperparameters
class PlaysItsType(Script):
    """Plays the mixed strategy that it observes, in seat 1 of `BayesianMatrixGame`."""

    def setup(self) -> None:
        """Look at the seat.

        Raises:
            IncompatibleError: if it is not seat 1 of a `BayesianMatrixGame`.
        """
        game, seat = self.seat.game, self.seat.index
        if not isinstance(game, BayesianMatrixGame) or seat != 1:
            raise IncompatibleError(
                f"PlaysItsType got seat {seat} of {type(game).__name__}, expected seat 1 of BayesianMatrixGame"
            )

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.TorchDistribution, Memory]:
        """The probabilities that are observed."""
        return dist.Categorical(probs=obs), memory


@hyperparameters
class BayesOracle(Script):
    """Plays a best response to the exact posterior of an opponent who draws every action from the same strategy.

    The strategy is believed to be from a Dirichlet distribution, so all that matters is how often the opponent has
    played each action since the task began; within a task, episodes are not forgotten. Mean rewards are linear in the
    strategy, so the best response is that to the posterior mean; of several ones, any is played. Against opponents from
    that distribution nobody who does not know their types gets more: a yardstick of learners that have to find out how
    to infer them. Without `tasks` every episode is one.

    Args:
        concentration: of each action's probability before anything was seen, or of all; that of `DirichletTypes`.

    Raises:
        ValueError: if a number is not positive.
    """

    concentration: Positive | Sequence[Positive] = 1.0
    prior: Tensor = field(init=False)
    payoff: Tensor = field(init=False)

    def setup(self) -> None:
        """Take the payoffs.

        Raises:
            IncompatibleError: if the game is no matrix game of two, or there is not one concentration per action.
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
        """Nothing was seen."""
        return {COUNTS: self.prior.new_zeros(replicates, environments, len(self.prior))}

    def begin(self, start: Start, memory: Memory | None) -> Memory:
        """Forget where a task begins, and not where an episode does."""
        fresh = self.initial_memory(*start.episode.shape)
        return fresh if memory is None else choose(start.new_task, fresh, memory)

    def remember(self, memory: Memory, step: Experience) -> Memory:
        """Count what the opponent did."""
        seen = one_hot(step.opponent_actions[0], len(self.prior))
        return {COUNTS: memory[COUNTS] + seen}

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.TorchDistribution, Memory]:
        """All best responses alike."""
        counts = memory[COUNTS] + self.prior
        values = (counts / counts.sum(-1, keepdim=True)) @ self.payoff.T
        best = values >= values.amax(-1, keepdim=True) - TIES * self.payoff.abs().max()
        return dist.Categorical(probs=best.to(values)), memory
