"""Frequency of the maximum Q-value (FMQ): scores actions by value and by the frequency of their best reward."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Annotated

import torch
from torch import Tensor

from inference_marl.described import In, NotNegative, Rate, hyperparameters
from inference_marl.inference.schedules import ByReplicate, Schedule, current, over_events
from inference_marl.learners.tabular.independent_q import IndependentQ
from inference_marl.types import Experience


@hyperparameters
class FMQ(IndependentQ):
    """FMQ: Q-learning that explores with the FMQ heuristic (Kapetanakis and Kudenko 2002)::

        E(s, a) = Q(s, a) + weight frequency(s, a) maximum(s, a)

    with `maximum` the largest reward of `a` in `s` so far, and `frequency` the fraction of the plays of `a` in `s` that
    obtained it. An unplayed action has `E = Q`. The paper explores from `E` by Boltzmann exploration at temperature
    `max_temp exp(-s t) + 1`, weight 10, learning rate 0.9, in games of a single state.

    With more states there is one such table per state (not in the paper). Maximum and frequency are of rewards, not of
    TD targets, which change with later states' values and so would never reach their maximum again; later states enter
    through `Q` alone, which bootstraps from `max_a' Q(s', a')`. Likewise, rewards with continuous noise defeat the
    heuristic: each maximum occurs once.

    Args:
        weight: c, not negative.
        exploration, rate, discount, initial: see `ValueLearner`.
        restart_count: whether a new maximum is counted from 1, as in the paper. Otherwise the count of the previous
            maximum continues, which overestimates the frequency, as in the public code of the ROMMEO comparison
            (malib).
        initial_maximum: threshold that the first maximum must reach; minus infinity in the paper. That public code has
            0, so actions that never earned that much have `E = Q`.
    """

    by_replicate = IndependentQ.by_replicate | {"weight"}

    weight: NotNegative | ByReplicate = 10.0
    rate: Rate | Schedule = 0.9
    restart_count: bool = True
    initial_maximum: Annotated[float, In("a finite number, or minus infinity")] = -math.inf
    maximum: Tensor = field(init=False)
    count: Tensor = field(init=False)
    plays: Tensor = field(init=False)

    def setup(self) -> None:
        """Check the seat and create the tables, `replicates x states x actions`."""
        super().setup()
        self.table("maximum", self.states, self.actions, fill=self.initial_maximum)
        self.table("count", self.states, self.actions)
        self.table("plays", self.states, self.actions)

    def preferences(self, obs: Tensor) -> Tensor:
        """The heuristic `E`, `replicates x batch x actions`."""
        cell = (self.seat.rows, obs)
        frequency = self.count[cell] / self.plays[cell].clamp_min(1)
        weight = over_events(current(self.weight, self.updates), 1)
        bonus = torch.where(frequency > 0, weight * frequency * self.maximum[cell], 0.0)
        return self.values[cell] + bonus

    def update(self, seen: Experience) -> None:
        """Update values, maxima and counts; data of one cell are pooled, and each that equals the maximum counts."""
        super().update(seen)
        cells = self.states * self.actions
        maximum, count, plays = (table.view(-1, cells) for table in (self.maximum, self.count, self.plays))
        cell, reward = seen.obs * self.actions + seen.action, seen.reward.to(maximum.dtype)
        raised = maximum.scatter_reduce(1, cell, reward, "amax")
        if self.restart_count:
            count.masked_fill_(raised > maximum, 0)
        count.scatter_add_(1, cell, (reward == raised.gather(1, cell)).to(count.dtype))
        plays.scatter_add_(1, cell, torch.ones_like(reward))
        maximum.copy_(raised)
