"""Exploration noise of deterministic policies over boxes."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from inference_marl.described import Described, NotNegative, Rate
from inference_marl.inference.schedules import Schedule, current
from inference_marl.spaces import Box
from inference_marl.types import Memory, Seat


class ActionNoise(Described, ABC):
    """Adds `scale` times half the box's width times a standard noise to actions, and moves them back into the box.

    Args:
        scale: in units of half the box's width, not negative; number or schedule over updates.
    """

    def __init__(self, scale: NotNegative | Schedule = 0.2) -> None:
        self.scale = scale

    def __call__(self, action: Tensor, space: Box, memory: Memory, step: int) -> tuple[Tensor, Memory]:
        """The action with noise, and the memory afterwards.

        Args:
            action: `replicates x environments x event`.
            space: the actions, with finite edges.
            memory: as begun by `initial_memory`, within its actor's; entries of other names are left alone.
            step: updates made.
        """
        noise, memory = self.draw(action, memory)
        low, high = space.edges(action.dtype, action.device)
        spread = current(self.scale, step) * (high - low) / 2
        return (action + spread * noise).clamp(low, high), memory

    def initial_memory(self, seat: Seat, replicates: int, environments: int) -> Memory:
        """The memory at the start of an episode, for actions of that seat; empty by default."""
        return {}

    @abstractmethod
    def draw(self, like: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Noise of scale 1, like actions, and the memory afterwards."""


class NormalNoise(ActionNoise):
    """Independent normal noise of standard deviation `scale` at every step and coordinate."""

    def draw(self, like: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """A standard normal draw."""
        return torch.randn_like(like), memory


class OrnsteinUhlenbeckNoise(ActionNoise):
    """Noise that is correlated over time, and starts at 0 in every episode: `x <- x - rate x + scale e, e ~ N(0, I)`.

    After Uhlenbeck and Ornstein (1930) in steps of time 1, as explores DDPG (Lillicrap et al. 2016, with `scale=0.2`
    and `rate=0.15`). In the long run its standard deviation is `scale / sqrt(1 - (1 - rate)^2)`, 1.9 times the scale at
    this rate. Where the scale changes, so do the past draws in `x`, which is remembered in units of it.

    Args:
        scale: see `ActionNoise`.
        rate: share of itself that the noise loses per step, in (0, 1]; with 1 it is `NormalNoise`.
    """

    def __init__(self, scale: NotNegative | Schedule = 0.2, rate: Rate = 0.15) -> None:
        super().__init__(scale)
        self.rate = rate

    def initial_memory(self, seat: Seat, replicates: int, environments: int) -> Memory:
        """`noise`, which is 0."""
        shape = (replicates, environments, *seat.action.event_shape)
        return {"noise": torch.zeros(shape, dtype=seat.dtype, device=seat.device)}

    def draw(self, like: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """The process after another step."""
        noise = (1 - self.rate) * memory["noise"] + torch.randn_like(like)
        return noise, memory | {"noise": noise}
