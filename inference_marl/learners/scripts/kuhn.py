"""The scripted second player of Kuhn poker."""

from __future__ import annotations

from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl.described import IncompatibleError, hyperparameters
from inference_marl.games.kuhn import KuhnPoker
from inference_marl.learners.scripted import Script
from inference_marl.types import Memory


@hyperparameters
class KuhnPlayer(Script):
    """The second player of `KuhnPoker`, in seat 1, which plays the strategy that it observes as its type."""

    heeds_masks: ClassVar[bool] = True

    def setup(self) -> None:
        """Check the seat.

        Raises:
            IncompatibleError: if it is not seat 1 of `KuhnPoker`.
        """
        game, seat = self.seat.game, self.seat.index
        if not isinstance(game, KuhnPoker) or seat != 1:
            raise IncompatibleError(
                f"KuhnPlayer got seat {seat} of {type(game).__name__}, expected seat 1 of KuhnPoker"
            )

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.TorchDistribution, Memory]:
        """The type's probability of betting or calling at the current decision, or 0 if there is none."""
        decision, kind = obs.chunk(2, -1)
        coin = (decision * kind).sum(-1)
        return dist.Categorical(probs=torch.stack([1 - coin, coin], -1)), memory
