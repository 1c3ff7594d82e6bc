"""Lenient Q-learning (LMRL2): low rewards are ignored, the less often the more an action has been tried."""

from __future__ import annotations

import torch
from torch import Tensor

from inference_marl.inference.schedules import Schedule
from inference_marl.inference.tables import mean_per_cell, move
from inference_marl.learners.tabular.base import ValueLearner
from inference_marl.learners.tabular.exploration import EpsilonGreedy
from inference_marl.types import Experience


class LenientQ(ValueLearner):
    """Lenient multiagent reinforcement learning, LMRL2 (Wei and Luke 2016)::

        pi(a | s) ~ exp(Q(s, a) / (omega mean_a T(s, a)))     greedy where mean_a T(s, a) < T_min

        y = r + gamma max_a' Q(s', a')
        Q(s, a) <- Q(s, a) + rate (y - Q(s, a))    if y >= Q(s, a), else with probability 1 - exp(-1 / (theta T(s, a)))
        T(s, a) <- decay ((1 - diffusion) T(s, a) + diffusion mean_a' T(s', a'))    decay T(s, a) if s' is terminal

    Every action of every state has its own temperature. While it is hot, errors below 0 are mostly forgiven, since
    teammates still explore; as it cools, values become the means that noisy rewards call for. Defaults are the paper's
    but for the climbing games, where it tunes theta alone: 1e7 for the deterministic, 1e3 for the partially and 10 for
    the fully stochastic one. Data of several environments that visit one cell move it, and cool it, once.

    Args:
        rate: alpha, learning rate in (0, 1]; number or schedule over updates.
        discount: gamma in [0, 1).
        initial: initial values: a number, or `[low, high]` for uniform draws.
        max_temperature: initial temperatures, positive.
        min_temperature: mean temperature below which a state is played greedily, positive.
        decay: factor in (0, 1] of a temperature per visit; delta in the paper.
        diffusion: share in [0, 1] of the next state's mean temperature; tau in the paper.
        selection_moderation: omega, reward per unit of temperature where actions are selected, positive.
        leniency_moderation: theta, positive; the larger, the more lenient.

    Raises:
        ValueError: if a number is out of its range.
    """

    temperature: Tensor

    def __init__(
        self,
        rate: float | Schedule = 0.1,
        discount: float = 0.9,
        initial: float | tuple[float, float] = 0.0,
        max_temperature: float = 50.0,
        min_temperature: float = 2.0,
        decay: float = 0.995,
        diffusion: float = 0.1,
        selection_moderation: float = 1.0,
        leniency_moderation: float = 1.0,
    ) -> None:
        super().__init__(EpsilonGreedy(0.0), rate, discount, initial)
        for name, number in [
            ("max_temperature", max_temperature),
            ("min_temperature", min_temperature),
            ("selection_moderation", selection_moderation),
            ("leniency_moderation", leniency_moderation),
        ]:
            if not number > 0:
                raise ValueError(f"{name}: got {number}, expected a positive number")
        if not 0 < decay <= 1:
            raise ValueError(f"decay: got {decay}, expected a number in (0, 1]")
        if not 0 <= diffusion <= 1:
            raise ValueError(f"diffusion: got {diffusion}, expected a number in [0, 1]")
        self.max_temperature, self.min_temperature = max_temperature, min_temperature
        self.decay, self.diffusion = decay, diffusion
        self.selection_moderation, self.leniency_moderation = selection_moderation, leniency_moderation

    def setup(self) -> None:
        """Draw the table; all temperatures, `replicates x states x actions`, are at their maximum."""
        super().setup()
        self.table("temperature", self.states, self.actions, fill=self.max_temperature)

    def forward(self, obs: Tensor) -> Tensor:
        """Softmax of the values at the state's mean temperature, `replicates x batch x actions`; greedy once cold."""
        mean = self.temperature[self.seat.rows, obs].mean(-1, keepdim=True)
        hot = torch.softmax(self.preferences(obs) / (self.selection_moderation * mean), -1)
        return torch.where(mean < self.min_temperature, super().forward(obs), hot)

    def rates(self, cell: Tensor, error: Tensor) -> Tensor:
        """The learning rate of now, but mostly 0 for errors below 0 of hot actions."""
        temperature = self.temperature.view(len(cell), -1)
        luck = torch.rand_like(temperature).gather(1, cell)  # the same for all data of a cell, so any may be written
        forgiven = luck >= -torch.expm1(-1 / (self.leniency_moderation * temperature.gather(1, cell)))
        return torch.full_like(error, self.rate(self.updates)).masked_fill((error < 0) & forgiven, 0.0)

    def learn(self, seen: Experience) -> None:
        """Move the visited cells towards their targets, then cool them."""
        super().learn(seen)
        temperature = self.temperature.view(self.seat.replicates, -1)
        cell = seen.obs * self.actions + seen.action
        own, following = temperature.gather(1, cell), self.temperature[self.seat.rows, seen.next_obs].mean(-1)
        diffused = torch.where(seen.terminated, own, torch.lerp(own, following, self.diffusion))
        move(temperature, cell, mean_per_cell(temperature.shape[1], cell, self.decay * diffused), 1.0)
