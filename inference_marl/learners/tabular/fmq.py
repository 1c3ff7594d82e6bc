"""Frequency of the maximum Q-value (FMQ): actions are judged by their value and by how often their best reward came."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inference_marl.inference.schedules import Schedule
from inference_marl.learners.tabular.exploration import Exploration
from inference_marl.learners.tabular.independent_q import IndependentQ
from inference_marl.types import Experience


class FMQ(IndependentQ):
    """Q-learning that explores from the FMQ heuristic (Kapetanakis and Kudenko 2002, section "the FMQ heuristic")::

        E(s, a) = Q(s, a) + weight frequency(s, a) maximum(s, a)

    with `maximum` the largest reward that came of `a` in `s` so far, and `frequency` the share of the plays of `a` in
    `s` in which it came. An action without plays has `E = Q`. The paper explores from `E` by Boltzmann exploration at
    temperature `max_temp exp(-s t) + 1`, weight 10, learning rate 0.9, in games of a single state.

    With more states there is one such table per state (not in the paper). Maximum and frequency are of rewards, not of
    TD targets: what follows enters through `Q` alone, which bootstraps from `max_a' Q(s', a')`, because a target moves
    whenever the values of later states do, and so would never be equal to the largest one again. For the same reason
    rewards with continuous noise defeat the heuristic: each maximum then comes once.

    Args:
        exploration: from the heuristic to probabilities.
        weight: c, not negative.
        rate, discount, initial: as for `ValueLearner`.
        restart_count: whether a new maximum is counted from 1, as in the paper. Otherwise it goes on from the count of
            the maxima before it, as in the public code of the ROMMEO comparison (malib), which so overrates it.
        initial_maximum: what rewards must reach to be a maximum; minus infinity, as in the paper, makes the first one
            such. That public code has 0, so actions that never paid that much have `E = Q`.

    Raises:
        ValueError: if a number is out of its range.
    """

    maximum: Tensor
    count: Tensor
    plays: Tensor

    def __init__(
        self,
        exploration: Exploration,
        weight: float = 10.0,
        rate: float | Schedule = 0.9,
        discount: float = 0.95,
        initial: float | tuple[float, float] = 0.0,
        restart_count: bool = True,
        initial_maximum: float = -math.inf,
    ) -> None:
        super().__init__(exploration, rate, discount, initial)
        if not weight >= 0:
            raise ValueError(f"weight: got {weight}, expected a number that is not negative")
        if not initial_maximum < math.inf:
            raise ValueError(f"initial_maximum: got {initial_maximum}, expected a number, or minus infinity")
        self.weight, self.restart_count, self.initial_maximum = weight, restart_count, initial_maximum

    def setup(self) -> None:
        """Check the seat and make the tables, `replicates x states x actions`."""
        super().setup()
        self.table("maximum", self.states, self.actions, fill=self.initial_maximum)
        self.table("count", self.states, self.actions)
        self.table("plays", self.states, self.actions)

    def preferences(self, obs: Tensor) -> Tensor:
        """The heuristic `E`, `replicates x batch x actions`."""
        cell = (self.seat.rows, obs)
        frequency = self.count[cell] / self.plays[cell].clamp_min(1)
        bonus = torch.where(frequency > 0, self.weight * frequency * self.maximum[cell], 0.0)
        return self.values[cell] + bonus

    def learn(self, seen: Experience) -> None:
        """Learn values, maxima and counts. Data of one cell are seen together: each that equals the maximum counts."""
        super().learn(seen)
        cells = self.states * self.actions
        maximum, count, plays = (table.view(-1, cells) for table in (self.maximum, self.count, self.plays))
        cell, reward = seen.obs * self.actions + seen.action, seen.reward.to(maximum.dtype)
        raised = maximum.scatter_reduce(1, cell, reward, "amax")
        if self.restart_count:
            count.masked_fill_(raised > maximum, 0)
        count.scatter_add_(1, cell, (reward == raised.gather(1, cell)).to(count.dtype))
        plays.scatter_add_(1, cell, torch.ones_like(reward))
        maximum.copy_(raised)
