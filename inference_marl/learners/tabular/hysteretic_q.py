"""Hysteretic Q-learning: values increase faster than they decrease."""

from __future__ import annotations

import torch
from torch import Tensor

from inference_marl.described import Rate, hyperparameters
from inference_marl.inference.schedules import Schedule, current, filled
from inference_marl.learners.tabular.base import ValueLearner


@hyperparameters
class HystereticQ(ValueLearner):
    """Hysteretic Q-learning, with a smaller rate for negative TD errors (Matignon et al. 2007, Eq. 6)::

        delta = r + gamma max_a' Q(s', a') - Q(s, a)
        Q(s, a) <- Q(s, a) + (rate if delta >= 0 else negative_rate) delta

    A low reward may be due to an exploring teammate, so it has less weight; unlike in `DistributedQ` it is not ignored,
    since it may also be due to the game's own noise. With equal rates this is `IndependentQ`.

    Args:
        rate: alpha, learning rate in (0, 1] for errors that are not negative; a number or a schedule over updates.
        negative_rate: beta, the same for negative errors; smaller than `rate` for optimism.
        exploration, discount, initial: see `ValueLearner`.
    """

    by_replicate = ValueLearner.by_replicate | {"negative_rate"}

    negative_rate: Rate | Schedule = 0.01

    def rates(self, cell: Tensor, error: Tensor) -> Tensor:
        """`rate`, or `negative_rate` for negative errors."""
        rising, falling = (current(rate, self.updates) for rate in (self.rate, self.negative_rate))
        return torch.where(error < 0, falling, filled(rising, error))
