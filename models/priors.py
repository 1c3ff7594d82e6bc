"""Opponent priors `P(b | s)`: the opponents' expected behaviour before conditioning on optimality."""

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
    """`b ~ P(b | s)` for the opponents' joint action `b`.

    A subclass defines `forward(obs)`, the distribution of the only opponent's action, or of the joint action of several
    as one discrete variable; one that learns from play also defines `observe(obs, opponent_action)`. With `over =
    "each"` it gets and returns what each opponent does, see `Factored`. Priors are conditionals, so a guide may use one
    that does not learn as its opponent model.
    """

    over: ClassVar[Over] = "joint"

    def given(self, model: Reads, obs: Tensor) -> Factored | dist.TorchDistribution:
        """`P(b | s)` as part of a model; equals `forward`, except for priors that read the model's values."""
        distribution: Factored | dist.TorchDistribution = self(obs)
        return distribution

    def observe_given(self, model: Reads, obs: Tensor, *opponent_actions: Tensor) -> None:
        """As `observe`, for priors that read the model; always of every opponent's action."""
        self.observe(obs, *self.as_observed(opponent_actions))

    def as_observed(self, opponent_actions: Sequence[Tensor]) -> Sequence[Tensor]:
        """What it is shown of the opponents' actions: their joint one, or all."""
        if self.over == "each":
            return opponent_actions
        return [joint_action(self.seat.opponent_actions, opponent_actions)]

    def fit(self) -> None:
        """Take gradient steps on the observations; `NonFiniteError` if the loss is not. Nothing by default."""

    def types(self, obs: Tensor) -> Tensor | None:
        """Probabilities of the opponents' types, `replicates x batch x types`; `None` for a prior without types."""
        return None


class Uniform(OpponentPrior):
    """`P(b | s)` uniform: no assumption about the opponents. Any action space."""

    bounded = True
    over = "each"

    def forward(self, *parents: Tensor) -> Factored | dist.TorchDistribution:
        """The uniform distribution, batch shape `()`."""
        if not isinstance(self.target, tuple):
            return self.target.uniform(self.seat.dtype, self.seat.device)
        return Separate([space.uniform(self.seat.dtype, self.seat.device) for space in self.target], self.target)


class Fixed(OpponentPrior):
    """A given `P(b | s)`, the same in every state. Discrete actions.

    Args:
        probabilities: of the opponents' joint actions (the last opponent's varies fastest); normalised.

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
        """Validate the length and store the log-probabilities."""
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
