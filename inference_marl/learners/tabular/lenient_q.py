"""Lenient Q-learning (LMRL2): ignores low rewards, the less often the more an action has been tried."""

from __future__ import annotations

from dataclasses import field

import torch
from torch import Tensor

from inference_marl.described import BelowOne, Positive, Probability, Rate, hyperparameters
from inference_marl.inference.schedules import ByReplicate, Number, current, filled, over_events
from inference_marl.inference.tables import mean_per_cell, move
from inference_marl.learners.tabular.base import ValueLearner
from inference_marl.learners.tabular.exploration import EpsilonGreedy, Exploration
from inference_marl.types import Experience


@hyperparameters
class LenientQ(ValueLearner):
    """LMRL2, lenient multiagent reinforcement learning (Wei and Luke 2016)::

        pi(a | s) ~ exp(Q(s, a) / (omega mean_a T(s, a)))     greedy where mean_a T(s, a) < T_min

        y = r + gamma max_a' Q(s', a')
        Q(s, a) <- Q(s, a) + rate (y - Q(s, a))    if y >= Q(s, a), else with probability 1 - exp(-1 / (theta T(s, a)))
        T(s, a) <- decay ((1 - diffusion) T(s, a) + diffusion mean_a' T(s', a'))    decay T(s, a) if s' is terminal

    Every action of every state has its own temperature. At high temperatures, negative errors are mostly forgiven,
    since teammates still explore; as it cools, values become the means that noisy rewards require. Defaults are the
    paper's, which tunes only theta for the climbing games: 1e7 for the deterministic, 1e3 for the partially and 10 for
    the fully stochastic one. A cell visited by several environments is updated and cooled once.

    Args:
        rate, discount, initial: see `ValueLearner`.
        max_temperature: initial temperatures, positive.
        min_temperature: mean temperature below which a state is played greedily, positive.
        decay: factor in (0, 1] by which a visit reduces a temperature; delta in the paper.
        diffusion: weight in [0, 1] of the next state's mean temperature; tau in the paper.
        selection_moderation: omega, reward per unit of temperature in action selection, positive.
        leniency_moderation: theta, positive; larger values are more lenient.
    """

    by_replicate = ValueLearner.by_replicate | {
        *("max_temperature", "min_temperature", "decay", "diffusion", "selection_moderation", "leniency_moderation")
    }

    exploration: Exploration = field(init=False)
    discount: BelowOne | ByReplicate = 0.9
    max_temperature: Positive | ByReplicate = 50.0
    min_temperature: Positive | ByReplicate = 2.0
    decay: Rate | ByReplicate = 0.995
    diffusion: Probability | ByReplicate = 0.1
    selection_moderation: Positive | ByReplicate = 1.0
    leniency_moderation: Positive | ByReplicate = 1.0
    temperature: Tensor = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.exploration = EpsilonGreedy(0.0)

    def setup(self) -> None:
        """Draw the table; all temperatures, `replicates x states x actions`, start at their maximum."""
        super().setup()
        self.table("temperature", self.states, self.actions)
        self.temperature += self._now(self.max_temperature, 1)

    def _now(self, number: float | ByReplicate, events: int = 0) -> Number:
        """A number, or one per replicate with more dimensions."""
        return over_events(current(number, self.updates), events)

    def forward(self, obs: Tensor) -> Tensor:
        """The softmax of values at the state's mean temperature, `replicates x batch x actions`; greedy once cold."""
        mean = self.temperature[self.seat.rows, obs].mean(-1, keepdim=True)
        hot = torch.softmax(self.preferences(obs) / (self._now(self.selection_moderation, 1) * mean), -1)
        return torch.where(mean < self._now(self.min_temperature, 1), super().forward(obs), hot)

    def rates(self, cell: Tensor, error: Tensor) -> Tensor:
        """The current learning rate, or 0 for forgiven negative errors."""
        temperature = self.temperature.view(len(cell), -1)
        luck = torch.rand_like(temperature).gather(1, cell)  # the same for all data of a cell, in any order of writes
        forgiven = luck >= -torch.expm1(-1 / (self._now(self.leniency_moderation) * temperature.gather(1, cell)))
        return filled(current(self.rate, self.updates), error).masked_fill((error < 0) & forgiven, 0.0)

    def update(self, seen: Experience) -> None:
        """Move the visited cells towards their targets, then cool them."""
        super().update(seen)
        temperature = self.temperature.view(self.seat.replicates, -1)
        cell = seen.obs * self.actions + seen.action
        own, following = temperature.gather(1, cell), self.temperature[self.seat.rows, seen.next_obs].mean(-1)
        diffused = torch.where(seen.terminated, own, torch.lerp(own, following, self._now(self.diffusion)))
        move(temperature, cell, mean_per_cell(temperature.shape[1], cell, self._now(self.decay) * diffused), 1.0)
