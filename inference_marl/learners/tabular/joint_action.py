"""Joint action learners: values of joint actions with frequencies of the opponents' actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field

import torch
from torch import Tensor

from inference_marl.described import hyperparameters, within
from inference_marl.learners.tabular.base import JointValueLearner
from inference_marl.models import EmpiricalFrequency, TabularCounts
from inference_marl.types import Actor, Trajectory


@hyperparameters
class JointActionLearner(JointValueLearner):
    """JAL, joint action learner: Q-learning over joint actions, averaged with the opponents' frequencies::

        EV(s, a) = sum_b P(b | s) Q(s, a, b)

    (Claus and Boutilier 1998, Section 3, for repeated games; in games with states it bootstraps from the best expected
    value of the next state, `max_a EV(s', a)`: Bowling and Veloso 2002, Table 4). Counts are updated before values.

    With several opponents, the paper multiplies their individual frequencies; here those of their joint action are
    used, which also capture correlation.

    Args:
        opponent_prior: P(b | s), from counts; by default `EmpiricalFrequency()`, over all past actions. The public code
            of the ROMMEO comparison has a window of 50.
        divide_by_sum: explore from the expected values divided by their sum over own actions, as that public code does.
            A negative sum reverses their order, so that the worst action seems the best. Bootstrapping is not affected.
        exploration, rate, discount, initial: see `ValueLearner`.
    """

    opponent_prior: TabularCounts | None = None
    divide_by_sum: bool = False
    prior: TabularCounts = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.prior = self.opponent_prior or EmpiricalFrequency()

    def setup(self) -> None:
        """Check the seat, draw the table and create the counts."""
        super().setup()
        with within("opponent_prior"):
            self.prior = self.prior.bind(self.seat, self.seat.opponent_action, [self.seat.observation])

    def belief(self, obs: Tensor) -> Tensor:
        """`P(b | s)`, `replicates x batch x opponent_actions`."""
        probabilities: Tensor = self.prior(obs).probs
        return probabilities

    def replies(self, obs: Tensor) -> Tensor:
        """`P(b | s)`, for every own action, `replicates x batch x 1 x opponent_actions`."""
        return self.belief(obs).unsqueeze(-2)

    def preferences(self, obs: Tensor) -> Tensor:
        """The expected values, divided by their sum if requested, `replicates x batch x actions`."""
        expected = self.expected_values(obs)
        if not self.divide_by_sum:
            return expected
        total = expected.sum(-1, keepdim=True)
        return expected / torch.where(total == 0, torch.ones_like(total), total)

    def store(self, newest: Trajectory) -> None:
        """Update the prior with the opponents' actions."""
        super().store(newest)
        for seen in newest.seen_by(self.seat):
            self.prior.observe(seen.obs, seen.opponent_action)

    def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
        """Fit the prior, if it is fitted by gradients, then update the values."""
        self.prior.fit()
        return super().learn(newest, peers)
