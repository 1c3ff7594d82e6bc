"""Opponent priors `P(b | s)`: the opponents' policy before conditioning on optimality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl.described import IncompatibleError, NotNegative
from inference_marl.inference.conditional import Conditional, Over, Reads
from inference_marl.inference.factored import Factored, Separate
from inference_marl.spaces import Discrete, joint_action


class OpponentPrior(Conditional):
    """Base: a prior `P(b | s)` over the opponents' actions `b`.

    A subclass defines `forward(obs)`, the distribution of the opponent's action, or of the joint action of several
    opponents as one discrete variable; one that learns from play also defines `observe(obs, opponent_action)`. With
    `over = "each"` it handles each opponent's action separately, see `Factored`. Priors are conditionals, so a guide
    may use one that does not learn as its opponent model.
    """

    over: ClassVar[Over] = "joint"

    def given(self, model: Reads, obs: Tensor) -> Factored | dist.TorchDistribution:
        """`P(b | s)` as part of a model; equals `forward`, except for priors that read the model's values."""
        distribution: Factored | dist.TorchDistribution = self(obs)
        return distribution

    def observe_given(self, model: Reads, obs: Tensor, *opponent_actions: Tensor) -> None:
        """As `observe`, for priors that read the model; takes every opponent's action."""
        self.observe(obs, *self.as_observed(opponent_actions))

    def as_observed(self, opponent_actions: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the actions as `observe` takes them: the joint action, or every opponent's."""
        if self.over == "each":
            return opponent_actions
        return [joint_action(self.seat.opponent_actions, opponent_actions)]

    def fit(self) -> None:
        """Fit the observations; raises `NonFiniteError` if the loss is not finite. Nothing by default."""

    def types(self, obs: Tensor) -> Tensor | None:
        """Probabilities of the opponents' types, `replicates x batch x types`; `None` for a prior without types."""
        return None


class Uniform(OpponentPrior):
    """The uniform prior, for any action space: no assumption about the opponents."""

    bounded = True
    over = "each"

    def forward(self, *parents: Tensor) -> Factored | dist.TorchDistribution:
        """The uniform distribution, batch shape `()`."""
        if not isinstance(self.target, tuple):
            return self.target.uniform(self.seat.dtype, self.seat.device)
        return Separate([space.uniform(self.seat.dtype, self.seat.device) for space in self.target], self.target)


class Fixed(OpponentPrior):
    """A given distribution of the opponents' joint action, the same in every state. Discrete actions.

    Args:
        probabilities: probabilities of the opponents' joint actions, the last opponent's action varying fastest;
            normalised.

    Raises:
        ValueError: if a probability is negative or all are 0.
    """

    targets = (Discrete,)

    def __init__(self, probabilities: Sequence[NotNegative]) -> None:
        super().__init__()
        if not sum(probabilities) > 0:
            raise ValueError(
                f"probabilities: got {list(probabilities)}, expected numbers that are not negative and not all 0"
            )
        self.probabilities = tuple(probabilities)

    def setup(self) -> None:
        """Check the number of probabilities and store their logarithms."""
        if len(self.probabilities) != self.target.features:
            raise IncompatibleError(
                f"got {len(self.probabilities)} numbers, expected one per value: {self.target.features}",
                key="probabilities",
            )
        probabilities = torch.tensor(self.probabilities, dtype=self.seat.dtype, device=self.seat.device)
        self.register_buffer("logits", (probabilities / probabilities.sum()).log())

    @property
    def full_support(self) -> bool:
        """Whether every probability is positive."""
        return min(self.probabilities) > 0

    def forward(self, *parents: Tensor) -> dist.TorchDistribution:
        """The given distribution, batch shape `()`."""
        return dist.Categorical(logits=self.logits)
