"""A scripted player: the same mixed strategy for ever."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl.models import Fixed, Uniform
from inference_marl.spaces import Discrete
from inference_marl.types import Conditional, Learner, Posterior, Transition


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
        # In float64: in float32 small concentrations underflow, to strategies that are not extreme enough.
        symmetric = torch.full(shape, self.concentration, dtype=torch.float64, device=seat.device)
        self.register_buffer("logits", dist.Dirichlet(symmetric).sample().log().to(seat.dtype))

    def forward(self, *parents: Tensor) -> dist.TorchDistribution:
        """The strategies, batch shape `replicates x 1`."""
        return dist.Categorical(logits=self.logits)


class Stationary(Learner):
    """Plays every action with the same probability at every step and learns nothing.

    Args:
        probabilities: one per action, normalised.
        concentration: positive; instead of given probabilities, every replicate draws its own when a run starts, from
            the Dirichlet distribution with this concentration for every action (discrete actions). So the truth about
            an opponent can be a draw from a belief's own prior, as a check of calibration needs it.

    With neither it plays uniformly (any action space).

    Raises:
        ValueError: if both are given, or one is out of its range.
    """

    def __init__(self, probabilities: Sequence[float] | None = None, concentration: float | None = None) -> None:
        super().__init__()
        if concentration is not None and probabilities is not None:
            raise ValueError(f"concentration: got {concentration} beside probabilities, expected only one of the two")
        if concentration is not None and not concentration > 0:
            raise ValueError(f"concentration: got {concentration}, expected a positive number")
        self.policy: Conditional
        if concentration is not None:
            self.policy = _Drawn(concentration)
        else:
            self.policy = Uniform() if probabilities is None else Fixed(probabilities)

    def setup(self) -> None:
        """Check the strategy against the seat's actions, or draw it.

        Raises:
            IncompatibleError: if the number of probabilities is not the number of actions, or the actions are not
                discrete and a strategy over such was asked for.
        """
        self.policy = self.policy.bind(self.seat, self.seat.action, [self.seat.observation])

    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        """Draws from the strategy, or its most probable action without `explore` (discrete actions)."""
        strategy = self.policy(obs).expand(obs.shape[:2])
        if not explore and isinstance(self.seat.action, Discrete):
            best: Tensor = strategy.probs.argmax(-1)
            return best
        action: Tensor = strategy.sample()
        return action

    def update(self, batch: Transition, peers: Sequence[Learner]) -> None:
        """Nothing."""

    def posterior(self, obs: Tensor, draws: int) -> Posterior:
        """The strategy; no beliefs."""
        strategy = self.policy(obs).expand(obs.shape[:2])
        if isinstance(self.seat.action, Discrete):
            return Posterior(policy=strategy.probs)
        return Posterior(policy=strategy.sample((draws,)).movedim(0, 2))
