"""A scripted player: the same mixed strategy for ever."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inference_marl.models import Fixed, Uniform
from inference_marl.spaces import Discrete
from inference_marl.types import Conditional, Learner, Posterior, Transition


class Stationary(Learner):
    """Plays every action with the same probability at every step and learns nothing.

    Args:
        probabilities: one per action, normalised; `None` plays uniformly (any action space).
    """

    def __init__(self, probabilities: Sequence[float] | None = None) -> None:
        super().__init__()
        self.policy: Conditional = Uniform() if probabilities is None else Fixed(probabilities)

    def setup(self) -> None:
        """Check the strategy against the seat's actions.

        Raises:
            IncompatibleError: if the number of probabilities is not the number of actions.
        """
        self.policy = self.policy.bind(self.seat, self.seat.action, [self.seat.observation])

    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        """Draws from the strategy, or its most probable action without `explore` (discrete actions)."""
        strategy = self.policy(obs)
        if not explore and isinstance(self.seat.action, Discrete):
            best: Tensor = strategy.probs.argmax(-1)
            return best.expand(obs.shape[:2])
        action: Tensor = strategy.sample(obs.shape[:2])
        return action

    def update(self, batch: Transition, peers: Sequence[Learner]) -> None:
        """Nothing."""

    def posterior(self, obs: Tensor, draws: int) -> Posterior:
        """The strategy; no beliefs."""
        strategy = self.policy(obs)
        if isinstance(self.seat.action, Discrete):
            return Posterior(policy=strategy.probs.expand(*obs.shape[:2], -1))
        return Posterior(policy=strategy.sample(torch.Size([*obs.shape[:2], draws])))
