"""Joint action learners: values of joint actions, and how often the opponents play what."""

from __future__ import annotations

import torch
from torch import Tensor

from inference_marl.described import within
from inference_marl.inference.schedules import Schedule
from inference_marl.learners.tabular.base import JointValueLearner
from inference_marl.learners.tabular.exploration import Exploration
from inference_marl.models import EmpiricalFrequency, TabularCounts
from inference_marl.types import Experience


class JointActionLearner(JointValueLearner):
    """JAL: Q-learning over joint actions, each own action valued by what the opponents usually do::

        EV(s, a) = sum_b P(b | s) Q(s, a, b)

    (Claus and Boutilier 1998, Section 3, for repeated games; in games with states it bootstraps from the best expected
    value of the next, `max_a EV(s', a)`: Bowling and Veloso 2002, Table 4). The opponents are counted first, then the
    values move.

    With several opponents, the paper multiplies the frequencies of each; here those of their joint action count, which
    also hold how they go together.

    Args:
        exploration: from expected values to probabilities.
        opponent_prior: P(b | s), by counting; `EmpiricalFrequency()` if none is given, which forgets nothing. The
            public code of the ROMMEO comparison has a window of 50.
        divide_by_sum: explore what becomes of the expected values when they are divided by their sum over the own
            actions, as that public code does. Where the sum is negative this turns their order around: the worst
            action is then taken for the best. Bootstrapping is not affected.
        rate: learning rate in (0, 1]; number or schedule over updates.
        discount: gamma in [0, 1).
        initial: initial values: a number, or `[low, high]` for uniform draws.

    Raises:
        ValueError: if a number is out of its range.
    """

    def __init__(
        self,
        exploration: Exploration,
        opponent_prior: TabularCounts | None = None,
        divide_by_sum: bool = False,
        rate: float | Schedule = 0.1,
        discount: float = 0.95,
        initial: float | tuple[float, float] = 0.0,
    ) -> None:
        super().__init__(exploration, rate, discount, initial)
        self.opponent_prior = opponent_prior or EmpiricalFrequency()
        self.divide_by_sum = divide_by_sum

    def setup(self) -> None:
        """Check the seat, draw the table and start counting."""
        super().setup()
        with within("opponent_prior"):
            self.opponent_prior = self.opponent_prior.bind(
                self.seat, self.seat.opponent_action, [self.seat.observation]
            )

    def opponent_model(self, obs: Tensor) -> Tensor:
        """`P(b | s)`, `replicates x batch x opponent_actions`."""
        probabilities: Tensor = self.opponent_prior(obs).probs
        return probabilities

    def replies(self, obs: Tensor) -> Tensor:
        """`P(b | s)`, whatever the own action, `replicates x batch x 1 x opponent_actions`."""
        return self.opponent_model(obs).unsqueeze(-2)

    def preferences(self, obs: Tensor) -> Tensor:
        """The expected values, divided by their sum where that was asked for, `replicates x batch x actions`."""
        expected = self.expected_values(obs)
        if not self.divide_by_sum:
            return expected
        total = expected.sum(-1, keepdim=True)
        return expected / torch.where(total == 0, torch.ones_like(total), total)

    def learn(self, seen: Experience) -> None:
        """Count what the opponents did, then move the values."""
        self.observe(seen)
        super().learn(seen)

    def observe(self, seen: Experience) -> None:
        """Show the prior what the opponents did; some are fitted by gradients."""
        with torch.enable_grad():
            self.opponent_prior.observe(seen.obs, seen.opponent_action)
