"""Scripted players, which never learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl.described import expect, hyperparameters
from inference_marl.inference.conditional import Conditional
from inference_marl.models import Fixed, Uniform
from inference_marl.spaces import Discrete
from inference_marl.types import Actor, Decision, Memory, most_probable


class _Drawn(Conditional):
    """One strategy per replicate, drawn from Dirichlet(concentration, ..., concentration); the same in every state."""

    targets = (Discrete,)

    def __init__(self, concentration: float) -> None:
        super().__init__()
        self.concentration = concentration

    def setup(self) -> None:
        """Draw the strategies, `replicates x 1 x actions`."""
        seat = self.seat
        shape = (seat.replicates, 1, self.target.features)
        # In float64: small concentrations underflow in float32, which makes strategies less extreme.
        symmetric = torch.full(shape, self.concentration, dtype=torch.float64, device=seat.device)
        self.register_buffer("logits", dist.Dirichlet(symmetric).sample().log().to(seat.dtype))

    def forward(self, *parents: Tensor) -> dist.TorchDistribution:
        """The strategies, batch shape `replicates x 1`."""
        return dist.Categorical(logits=self.logits)


@hyperparameters
class Stationary(Actor):
    """Plays the same mixed strategy at every step, by default the uniform one (any action space).

    Args:
        probabilities: one per action, normalised.
        concentration: positive; every replicate instead draws its probabilities at the start of a run, from the
            Dirichlet distribution with this concentration for every action (discrete actions). The true opponent can
            thus be a draw from a belief's prior, as required to check calibration.

    Raises:
        ValueError: if both are given, or one is out of range.
    """

    probabilities: Sequence[float] | None = None
    concentration: float | None = None
    strategy: Conditional = field(init=False)

    def __post_init__(self) -> None:
        concentration = self.concentration
        if concentration is not None and self.probabilities is not None:
            raise ValueError(f"concentration: got {concentration} beside probabilities, expected only one of the two")
        expect("a positive number", ", or null for probabilities", concentration=concentration)
        if concentration is not None:
            self.strategy = _Drawn(concentration)
        else:
            self.strategy = Uniform() if self.probabilities is None else Fixed(self.probabilities)

    def setup(self) -> None:
        """Validate or draw the strategy.

        Raises:
            IncompatibleError: if the number of probabilities is not the number of actions, or a strategy over discrete
                actions was requested for others.
        """
        self.strategy = self.strategy.bind(self.seat, self.seat.action, [self.seat.observation])

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.TorchDistribution, Memory]:
        """The strategy, whatever is observed."""
        strategy: dist.TorchDistribution = self.strategy(obs)
        return strategy.expand(obs.shape[:2]), memory

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        """A draw from the strategy; without `explore`, the most probable action (discrete actions)."""
        strategy, memory = self.policy(obs, memory)
        greedy = not explore and isinstance(self.seat.action, Discrete)
        return Decision(most_probable(strategy) if greedy else strategy.sample(), memory)
