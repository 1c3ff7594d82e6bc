"""Distributed Q-learning: values never decrease, and a policy is kept until a better one is found."""

from __future__ import annotations

import math
from dataclasses import field

import torch
from torch import Tensor

from inference_marl.described import hyperparameters
from inference_marl.inference.schedules import Schedule
from inference_marl.inference.tables import draw
from inference_marl.learners.tabular.base import ValueLearner
from inference_marl.learners.tabular.exploration import greedy
from inference_marl.types import Experience


@hyperparameters
class DistributedQ(ValueLearner):
    """Distributed Q-learning: optimistic, over own actions, with a social convention (Lauer and Riedmiller 2000)::

        Q(s, a) <- max(Q(s, a), r + gamma max_a' Q(s', a'))
        choice(s) <- a    if that raised max_a Q(s, a), else unchanged

    An action's value assumes that teammates respond optimally, so it finds the optimum of every deterministic
    common-interest game; with random rewards it overestimates. All teammates see the greedy value rise in the same
    step, so their choices form one joint action even where several are optimal. In the paper the first choice is
    arbitrary; here it is a random one of the best initial values.

    Exploration uses the values, with the choice infinitesimally above its equals. So `EpsilonGreedy` plays the choice
    with probability `1 - epsilon`, as in the paper; `Boltzmann` plays equally good actions equally often until its
    temperature is close to 0. It learns from several environments one after the other.

    Args:
        exploration, discount: see `ValueLearner`.
        initial: initial values, which must not exceed the returns: 0, as in the paper, for nonnegative rewards (a
            number, or `[low, high]` for uniform draws).
    """

    rate: float | Schedule = field(default=1.0, init=False)
    choice: Tensor = field(init=False)

    def setup(self) -> None:
        """Draw the table and the first choices, int64, `replicates x states`."""
        super().setup()
        self.register_buffer("choice", draw(greedy(self.values)))

    def preferences(self, obs: Tensor) -> Tensor:
        """The values, with the choice's raised to the next larger number, `replicates x batch x actions`."""
        values = super().preferences(obs)
        choice = self.choice[self.seat.rows, obs].unsqueeze(-1)
        above = torch.nextafter(values.gather(-1, choice), values.new_tensor(math.inf))
        return values.scatter(-1, choice, above)

    def rates(self, cell: Tensor, error: Tensor) -> Tensor:
        """1 for positive errors, 0 for others."""
        return (error > 0).to(error.dtype)

    def update(self, seen: Experience) -> None:
        """Raise the visited values, one environment at a time, and choose actions that raise their state's maximum."""
        for environment in range(seen.reward.shape[1]):
            one = seen.of_environment(environment)
            before = self.next_value(one.obs)
            super().update(one)
            better = self.next_value(one.obs) > before
            kept = self.choice.gather(1, one.obs)
            self.choice.scatter_(1, one.obs, torch.where(better, one.action, kept))
