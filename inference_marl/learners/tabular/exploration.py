"""Exploration policies, which map action values to probabilities."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from inference_marl.described import Described, Positive, Probability
from inference_marl.inference.schedules import Schedule, as_schedule, clamped, over_events


class Exploration(Described, ABC):
    """Base: maps action values to the probabilities of playing the actions.

    If its numbers differ by replicate, values begin with `replicates x batch`.
    """

    @abstractmethod
    def __call__(self, values: Tensor, step: int) -> Tensor:
        """Probabilities from values, both `... x actions`, after `step` updates of the learner."""


class Boltzmann(Exploration):
    """Boltzmann exploration: probabilities proportional to `exp(value / temperature)`.

    Args:
        temperature: positive, in units of reward; a number or a schedule over updates.
    """

    by_replicate = frozenset({"temperature"})

    def __init__(self, temperature: Positive | Schedule = 1.0) -> None:
        self.temperature = as_schedule(temperature)

    def __call__(self, values: Tensor, step: int) -> Tensor:
        """The softmax of `values / temperature`, which is bounded away from 0."""
        temperature = clamped(self.temperature(step), torch.finfo(values.dtype).tiny ** 0.5)
        return torch.softmax(values / over_events(temperature, values.dim() - 2), dim=-1)


class EpsilonGreedy(Exploration):
    """Epsilon-greedy exploration: uniformly random with probability `epsilon`, else a best action; splits ties evenly.

    Args:
        epsilon: in [0, 1]; a number or a schedule over updates.
    """

    by_replicate = frozenset({"epsilon"})

    def __init__(self, epsilon: Probability | Schedule = 0.1) -> None:
        self.epsilon = as_schedule(epsilon)

    def __call__(self, values: Tensor, step: int) -> Tensor:
        """Probabilities of the epsilon-greedy policy."""
        return self.mix(greedy(values), step)

    def mix(self, policy: Tensor, step: int) -> Tensor:
        """`policy` with probability `1 - epsilon`, else a uniformly random action, `... x actions`."""
        epsilon = over_events(clamped(self.epsilon(step), 0.0, 1.0), policy.dim() - 2)
        return (1 - epsilon) * policy + epsilon / policy.shape[-1]


def greedy(values: Tensor) -> Tensor:
    """Uniform over the best actions, `... x actions`."""
    best = (values == values.max(-1, keepdim=True).values).to(values.dtype)
    return best / best.sum(-1, keepdim=True)
