"""Recursive FMQ: interpolates between average and maximum by the recent frequency of the maximum."""

from __future__ import annotations

from dataclasses import field

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from inference_marl.described import Probability, Rate, hyperparameters
from inference_marl.inference.objectives import td_target
from inference_marl.inference.schedules import Schedule, current
from inference_marl.inference.tables import draw, mean_per_cell, move
from inference_marl.learners.tabular.exploration import EpsilonGreedy, Exploration, greedy
from inference_marl.learners.tabular.independent_q import IndependentQ
from inference_marl.types import Experience


@hyperparameters
class RecursiveFMQ(IndependentQ):
    """Recursive FMQ: values between mean and maximum (Matignon, Laurent and Le Fort-Piat 2012, first in 2008)::

        E(s, a) = (1 - F(s, a)) Q(s, a) + F(s, a) Qmax(s, a)

    with `Q` learned as usual, `Qmax` the largest target so far, and `F` a recursive estimate of how often it occurs::

        F(s, a) <- 1                                 if y > Qmax(s, a), the new maximum
        F(s, a) <- (1 - alpha_f) F(s, a) + alpha_f   if y = Qmax(s, a)
        F(s, a) <- (1 - alpha_f) F(s, a)             if y < Qmax(s, a)

    So agents are optimistic while others explore and realistic if rewards are noisy; unlike in FMQ, the frequency
    forgets, so exploration need not be annealed, and there is no weight to tune. `Q` and `Qmax` start equal, F at 1.
    The policy is greedy in `E` with equilibrium selection: a choice is kept while no other action is better, so that
    all agents break ties between equal optima consistently; otherwise a best action is drawn. Exploration is
    epsilon-greedy.

    The paper has a single state, where `y = r`. With more states (not in the paper) there is one such table per state,
    and the targets of `Qmax` are those of distributed Q-learning, `r + gamma max_a' Qmax(s', a')`, which repeat exactly
    once later values have converged. `Q` bootstraps from `max_a' Q(s', a')`. If several environments visit a cell at
    once, `F` is updated once, towards the fraction of them that reached the maximum.

    Args:
        epsilon: fraction of uniformly random actions, in [0, 1]; a number or a schedule over updates.
        rate: learning rate of `Q` in (0, 1]; a number or a schedule over updates.
        frequency_rate: alpha_f in (0, 1], smaller than `rate`, so that a frequency averages over many plays; number or
            schedule over updates.
        discount, initial: see `ValueLearner`.
    """

    by_replicate = IndependentQ.by_replicate | {"epsilon", "frequency_rate"}

    exploration: Exploration = field(init=False)
    epsilon: Probability | Schedule = 0.05
    frequency_rate: Rate | Schedule = 0.01
    maximum: Tensor = field(init=False)
    frequency: Tensor = field(init=False)
    choice: Tensor = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.exploration = EpsilonGreedy(self.epsilon)

    def setup(self) -> None:
        """Create the tables, `replicates x states x actions`, and the choices, `replicates x states`."""
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

    def update(self, seen: Experience) -> None:
        """Update values, maxima and frequencies, then revise choices that are no longer the best."""
        super().update(seen)
        cells = self.states * self.actions
        maximum, frequency = (table.view(-1, cells) for table in (self.maximum, self.frequency))
        cell = seen.obs * self.actions + seen.action
        discount = current(self.discount, self.updates)
        optimistic = self.maximum[self.seat.rows, seen.next_obs].max(-1).values
        target = td_target(seen.reward.to(maximum.dtype), discount, seen.terminated, optimistic)
        raised = maximum.scatter_reduce(1, cell, target, "amax")
        reached = (target == raised.gather(1, cell)).to(frequency.dtype)
        move(frequency, cell, mean_per_cell(cells, cell, reached), current(self.frequency_rate, self.updates))
        frequency.masked_fill_(raised > maximum, 1.0)
        maximum.copy_(raised)
        evaluation = self.evaluation
        kept = evaluation.gather(-1, self.choice.unsqueeze(-1)).squeeze(-1) == evaluation.max(-1).values
        self.choice.copy_(torch.where(kept, self.choice, draw(greedy(evaluation))))
