"""Recursive FMQ: values between the average and the largest, by how often the largest comes of late."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from inference_marl.inference.objectives import td_target
from inference_marl.inference.schedules import Schedule, as_rate
from inference_marl.inference.tables import draw, mean_per_cell, move
from inference_marl.learners.tabular.exploration import EpsilonGreedy, greedy
from inference_marl.learners.tabular.independent_q import IndependentQ
from inference_marl.types import Experience


class RecursiveFMQ(IndependentQ):
    """Recursive FMQ (Matignon, Laurent and Le Fort-Piat 2012, "Recursive FMQ"; first in theirs of 2008)::

        E(s, a) = (1 - F(s, a)) Q(s, a) + F(s, a) Qmax(s, a)

    with `Q` learned as usual, `Qmax` the largest target so far, and `F` a recursive estimate of how often it comes::

        F(s, a) <- 1                                 if y > Qmax(s, a), the new maximum
        F(s, a) <- (1 - alpha_f) F(s, a) + alpha_f   if y = Qmax(s, a)
        F(s, a) <- (1 - alpha_f) F(s, a)             if y < Qmax(s, a)

    So agents are optimists where the others explore and realists where rewards are noise; unlike FMQ's, the frequency
    forgets, so exploration need not be annealed, and nothing is weighed by hand. Both values start alike, F at 1.
    The policy is greedy in `E` with equilibrium selection: a choice is kept while no other is better, which breaks ties
    between equal optima alike for all; else it is drawn among the best. Exploration is epsilon-greedy.

    The paper's has a single state, where `y = r`. With more (not in the paper) there is one such table per state, and
    the targets of `Qmax` are those of distributed Q-learning, `r + gamma max_a' Qmax(s', a')`: they repeat exactly once
    those that follow are settled. `Q` bootstraps from `max_a' Q(s', a')`. Where several environments visit a cell at
    once, `F` moves once, towards the share of them that reached the maximum.

    Args:
        epsilon: share of uniformly random actions, in [0, 1]; number or schedule over updates.
        rate: learning rate of `Q` in (0, 1]; number or schedule over updates.
        frequency_rate: alpha_f in (0, 1], smaller than `rate`, so that a frequency is judged over many plays; number or
            schedule over updates.
        discount, initial: as for `ValueLearner`.

    Raises:
        ValueError: if a number is out of its range.
    """

    maximum: Tensor
    frequency: Tensor
    choice: Tensor

    def __init__(
        self,
        epsilon: float | Schedule = 0.05,
        rate: float | Schedule = 0.1,
        frequency_rate: float | Schedule = 0.01,
        discount: float = 0.95,
        initial: float | tuple[float, float] = 0.0,
    ) -> None:
        super().__init__(EpsilonGreedy(epsilon), rate, discount, initial)
        self.frequency_rate = as_rate("frequency_rate", frequency_rate)

    def setup(self) -> None:
        """Make the tables, `replicates x states x actions`, and the choices, `replicates x states`."""
        super().setup()
        self.register_buffer("maximum", self.values.clone())
        self.table("frequency", self.states, self.actions, fill=1.0)
        self.register_buffer("choice", draw(torch.ones_like(self.values)))

    @property
    def evaluation(self) -> Tensor:
        """`E`, `replicates x states x actions`."""
        return torch.lerp(self.values, self.maximum, self.frequency)

    def preferences(self, obs: Tensor) -> Tensor:
        """1 for the choice and 0 for the other actions, `replicates x batch x actions`."""
        return one_hot(self.choice[self.seat.rows, obs], self.actions).to(self.values.dtype)

    def learn(self, seen: Experience) -> None:
        """Learn values, maxima and frequencies, then choose anew where something has become better."""
        super().learn(seen)
        cells = self.states * self.actions
        maximum, frequency = (table.view(-1, cells) for table in (self.maximum, self.frequency))
        cell = seen.obs * self.actions + seen.action
        optimistic = self.maximum[self.seat.rows, seen.next_obs].max(-1).values
        target = td_target(seen.reward.to(maximum.dtype), self.discount, seen.terminated, optimistic)
        raised = maximum.scatter_reduce(1, cell, target, "amax")
        reached = (target == raised.gather(1, cell)).to(frequency.dtype)
        move(frequency, cell, mean_per_cell(cells, cell, reached), self.frequency_rate(self.updates))
        frequency.masked_fill_(raised > maximum, 1.0)
        maximum.copy_(raised)
        evaluation = self.evaluation
        kept = evaluation.gather(-1, self.choice.unsqueeze(-1)).squeeze(-1) == evaluation.max(-1).values
        self.choice.copy_(torch.where(kept, self.choice, draw(greedy(evaluation))))
