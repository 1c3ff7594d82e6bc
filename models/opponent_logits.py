"""What a learner that looks at its opponent's logits believes they are, from what the opponent does."""

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
        """Note the sizes."""
        seat = self.seat
        self.shape = (seat.replicates, seat.observation.features, seat.opponent_action.features)

    def counted(self, newest: Trajectory) -> Tensor:
        """How often the opponent did each action in each state, `replicates x states x opponent_actions`."""
        seen = newest.flat.seen_by(self.seat)
        counts = torch.zeros(self.shape, dtype=self.seat.dtype, device=self.seat.device)
        cell = seen.obs * self.shape[-1] + seen.opponent_action
        counts.flatten(1).scatter_add_(1, cell, torch.ones_like(cell, dtype=counts.dtype))
        return counts

    @abstractmethod
    def observe(self, newest: Trajectory) -> None:
        """Learn from what the opponent did at each step, under one policy throughout."""

    @abstractmethod
    def parameters_believed(self) -> tuple[Tensor, Tensor]:
        """Logits, `draws x replicates x states x (opponent_actions - 1)`, and weights, `draws x replicates`, sum 1.

        The last action's logit is 0.
        """

    @abstractmethod
    def policy(self) -> Tensor | None:
        """The opponent's believed policy, `replicates x states x opponent_actions`; `None` before the first step."""


@hyperparameters
class CountedOpponent(OpponentLogits):
    """Frequencies of the opponent's actions in every state, with pseudocounts, as logits.

    LOLA with opponent modelling (Foerster et al. 2018, section 4.3), which clones the opponent's policy by maximum
    likelihood; here with as many pseudocounts as say that nothing is certain.

    Args:
        forget: fraction of a state's counts that is forgotten at every visit to the state, so that about its last
            `1 / forget` visits count, in [0, 1); 0 weighs all equally.
        pseudocount: of each action in every state.

    Attributes:
        counts: `replicates x states x opponent_actions`.
    """

    forget: BelowOne = 0.01
    pseudocount: Positive = 1.0
    counts: Tensor = field(init=False)

    def setup(self) -> None:
        """Start without counts."""
        super().setup()
        self.register_buffer("counts", torch.zeros(self.shape, dtype=self.seat.dtype, device=self.seat.device))

    def observe(self, newest: Trajectory) -> None:
        """Count the opponent's actions, step by step, after discounting earlier counts of the visited states."""
        for step in newest.steps:
            once = self.counted(Trajectory([step]))
            self.counts.mul_((1 - self.forget) ** once.sum(-1, keepdim=True)).add_(once)

    def parameters_believed(self) -> tuple[Tensor, Tensor]:
        """Of the frequencies, one draw."""
        logarithms = (self.counts + self.pseudocount).log()
        logits = logarithms[..., :-1] - logarithms[..., -1:]
        return logits.unsqueeze(0), logits.new_ones(1, len(logits))

    def policy(self) -> Tensor | None:
        """The frequencies."""
        if not bool(self.counts.any()):
            return None
        smoothed = self.counts + self.pseudocount
        return smoothed / smoothed.sum(-1, keepdim=True)


@hyperparameters
class ClonedOpponent(CountedOpponent):
    """Frequencies in the newest trajectory alone, which one policy played: the maximum-likelihood clone, smoothed.

    Args:
        pseudocount: of each action in every state; as it tends to 0 the clone does to the likelihood's maximum, whose
            logits are infinite where an action was not seen.
    """

    forget: BelowOne = field(default=0.0, init=False)
    pseudocount: Positive = 0.05

    def observe(self, newest: Trajectory) -> None:
        """Count the opponent's actions in this trajectory only."""
        self.counts = self.counted(newest)
