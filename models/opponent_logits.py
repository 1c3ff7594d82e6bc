"""Beliefs about an opponent's logits, for learners that use them, estimated from the opponent's actions."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import field

import torch
from torch import Tensor

from inference_marl.described import BelowOne, Positive, hyperparameters
from inference_marl.types import Part, Trajectory


@hyperparameters
class OpponentLogits(Part):
    """Base: beliefs about the free logits of one opponent with finitely many actions, in every state.

    Attributes:
        shape: `replicates x states x opponent_actions`, once bound.
    """

    shape: tuple[int, int, int] = field(init=False)

    def setup(self) -> None:
        """Set `shape`."""
        seat = self.seat
        self.shape = (seat.replicates, seat.observation.features, seat.opponent_action.features)

    def counted(self, newest: Trajectory) -> Tensor:
        """Count the opponent's actions in each state, `replicates x states x opponent_actions`."""
        seen = newest.flat.seen_by(self.seat)
        counts = torch.zeros(self.shape, dtype=self.seat.dtype, device=self.seat.device)
        cell = seen.obs * self.shape[-1] + seen.opponent_action
        counts.flatten(1).scatter_add_(1, cell, torch.ones_like(cell, dtype=counts.dtype))
        return counts

    @abstractmethod
    def observe(self, newest: Trajectory) -> None:
        """Update the belief with a trajectory, throughout which the opponent's policy was fixed."""

    @abstractmethod
    def parameters_believed(self) -> tuple[Tensor, Tensor]:
        """Draws of the logits, `draws x replicates x states x (opponent_actions - 1)`, and their weights.

        The last action's logit is 0. The weights are `draws x replicates` and sum to 1 over draws.
        """

    @abstractmethod
    def policy(self) -> Tensor | None:
        """The opponent's believed policy, `replicates x states x opponent_actions`; `None` before the first step."""


@hyperparameters
class CountedOpponent(OpponentLogits):
    """Logits of the smoothed frequencies of the opponent's actions in every state.

    LOLA with opponent modelling (Foerster et al. 2018, section 4.3) clones the opponent's policy by maximum likelihood;
    here pseudocounts keep every probability off 0 and 1.

    Args:
        forget: fraction of a state's counts that is forgotten at every visit to the state, in [0, 1), so that about its
            last `1 / forget` visits count; 0 weighs all visits equally.
        pseudocount: prior count of each action in every state.

    Attributes:
        counts: `replicates x states x opponent_actions`.
    """

    forget: BelowOne = 0.01
    pseudocount: Positive = 1.0
    counts: Tensor = field(init=False)

    def setup(self) -> None:
        """Start with counts of 0."""
        super().setup()
        self.register_buffer("counts", torch.zeros(self.shape, dtype=self.seat.dtype, device=self.seat.device))

    def observe(self, newest: Trajectory) -> None:
        """Count the opponent's actions, step by step, after discounting earlier counts of the visited states."""
        for step in newest.steps:
            once = self.counted(Trajectory([step]))
            self.counts.mul_((1 - self.forget) ** once.sum(-1, keepdim=True)).add_(once)

    def parameters_believed(self) -> tuple[Tensor, Tensor]:
        """The logits of the frequencies, as a single draw of weight 1."""
        logarithms = (self.counts + self.pseudocount).log()
        logits = logarithms[..., :-1] - logarithms[..., -1:]
        return logits.unsqueeze(0), logits.new_ones(1, len(logits))

    def policy(self) -> Tensor | None:
        """The smoothed frequencies."""
        if not bool(self.counts.any()):
            return None
        smoothed = self.counts + self.pseudocount
        return smoothed / smoothed.sum(-1, keepdim=True)


@hyperparameters
class ClonedOpponent(CountedOpponent):
    """Logits of the smoothed frequencies in the newest trajectory alone: a clone of the policy that played it.

    Args:
        pseudocount: prior count of each action in every state; as it tends to 0, the clone tends to the
            maximum-likelihood one, whose logits are infinite where an action was not seen.
    """

    forget: BelowOne = field(default=0.0, init=False)
    pseudocount: Positive = 0.05

    def observe(self, newest: Trajectory) -> None:
        """Count the opponent's actions in this trajectory only."""
        self.counts = self.counted(newest)
