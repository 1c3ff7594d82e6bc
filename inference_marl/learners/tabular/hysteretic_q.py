"""Hysteretic Q-learning: good news is believed faster than bad news."""

from __future__ import annotations

import torch
from torch import Tensor

from inference_marl.inference.schedules import Schedule, as_rate
from inference_marl.learners.tabular.base import ValueLearner
from inference_marl.learners.tabular.exploration import Exploration


class HystereticQ(ValueLearner):
    """Q-learning over the own actions with a smaller rate for errors below 0 (Matignon et al. 2007, Eq. 6)::

        delta = r + gamma max_a' Q(s', a') - Q(s, a)
        Q(s, a) <- Q(s, a) + (rate if delta >= 0 else negative_rate) delta

    A low reward may be the fault of an exploring teammate, so it counts for less, but is not ignored as in
    `DistributedQ`, since it may also be the game's own noise. With equal rates this is `IndependentQ`.

    Args:
        exploration: from values to probabilities.
        rate: alpha, learning rate in (0, 1] where the value rises; number or schedule over updates.
        negative_rate: beta, the same where it falls; smaller than `rate` for optimism.
        discount: gamma in [0, 1).
        initial: initial values: a number, or `[low, high]` for uniform draws.

    Raises:
        ValueError: if a number is out of its range.
    """

    def __init__(
        self,
        exploration: Exploration,
        rate: float | Schedule = 0.1,
        negative_rate: float | Schedule = 0.01,
        discount: float = 0.95,
        initial: float | tuple[float, float] = 0.0,
    ) -> None:
        super().__init__(exploration, rate, discount, initial)
        self.negative_rate = as_rate("negative_rate", negative_rate)

    def rates(self, cell: Tensor, error: Tensor) -> Tensor:
        """`rate`, or `negative_rate` for errors below 0."""
        return torch.full_like(error, self.rate(self.updates)).masked_fill(error < 0, self.negative_rate(self.updates))
