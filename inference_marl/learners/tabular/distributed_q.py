"""Distributed Q-learning: values never fall, and a policy is kept until a better one is known."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inference_marl.inference.tables import draw
from inference_marl.learners.tabular.base import ValueLearner
from inference_marl.learners.tabular.exploration import Exploration, greedy
from inference_marl.types import Experience


class DistributedQ(ValueLearner):
    """Optimistic Q-learning over the own actions, with a social convention (Lauer and Riedmiller 2000)::

        Q(s, a) <- max(Q(s, a), r + gamma max_a' Q(s', a'))
        choice(s) <- a    if that raised max_a Q(s, a), else unchanged

    A value is what its action yields if the teammates do their best, so it finds the optimum of every deterministic
    game of common interest; where rewards are random, it takes luck for the rule. All teammates see the greedy value
    rise in the same step, so their choices are parts of one joint action even where several are optimal. In the paper
    the first choice is arbitrary; here it is a random one of the best initial values.

    What is explored from are the values, the choice being just above its equals. So `EpsilonGreedy` plays the choice
    with probability `1 - epsilon`, as in the paper; `Boltzmann` plays equally good actions equally often until its
    temperature is close to 0. Several environments are learned from one after the other.

    Args:
        exploration: from values to probabilities.
        discount: gamma in [0, 1).
        initial: initial values, which must not exceed the returns: 0, as in the paper, for rewards that are not
            negative (a number, or `[low, high]` for uniform draws).

    Raises:
        ValueError: if a number is out of its range.
    """

    choice: Tensor

    def __init__(
        self, exploration: Exploration, discount: float = 0.95, initial: float | tuple[float, float] = 0.0
    ) -> None:
        super().__init__(exploration, rate=1.0, discount=discount, initial=initial)

    def setup(self) -> None:
        """Draw the table, and the first choices, int64, `replicates x states`."""
        super().setup()
        self.register_buffer("choice", draw(greedy(self.values)))

    def preferences(self, obs: Tensor) -> Tensor:
        """The values, but the choice's is the next larger number, `replicates x batch x actions`."""
        values = super().preferences(obs)
        choice = self.choice[self.seat.rows, obs].unsqueeze(-1)
        above = torch.nextafter(values.gather(-1, choice), values.new_tensor(math.inf))
        return values.scatter(-1, choice, above)

    def rates(self, cell: Tensor, error: Tensor) -> Tensor:
        """All the way up, not at all down."""
        return (error > 0).to(error.dtype)

    def learn(self, seen: Experience) -> None:
        """Raise the visited values, one environment after the other, and choose what raised its state's largest."""
        for environment in range(seen.reward.shape[1]):
            one = Experience(**{name: field[:, environment, None] for name, field in seen.tensors().items()})
            before = self.next_value(one.obs)
            super().learn(one)
            better = self.next_value(one.obs) > before
            kept = self.choice.gather(1, one.obs)
            self.choice.scatter_(1, one.obs, torch.where(better, one.action, kept))
