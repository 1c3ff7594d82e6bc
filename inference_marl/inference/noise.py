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
    """Base: adds standard noise times `scale` times half the box's width to actions, and clips them to the box.

    Args:
        scale: scale of the noise in units of half the box's width, not negative; a number or a schedule over updates.
    """

    def __init__(self, scale: NotNegative | Schedule = 0.2) -> None:
        self.scale = scale

    def __call__(self, action: Tensor, space: Box, memory: Memory, step: int) -> tuple[Tensor, Memory]:
        """Return the action with noise and the next memory.

        Args:
            action: `replicates x environments x event`.
            space: the action space, with finite edges.
            memory: the actor's memory, which includes the entries of `initial_memory`; others are left unchanged.
            step: number of updates made.
        """
        noise, memory = self.draw(action, memory)
        low, high = space.edges(action.dtype, action.device)
        spread = current(self.scale, step) * (high - low) / 2
        return (action + spread * noise).clamp(low, high), memory

    def initial_memory(self, seat: Seat, replicates: int, environments: int) -> Memory:
        """The memory at the start of an episode, for actions in `seat`; empty by default."""
        return {}

    @abstractmethod
    def draw(self, like: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Noise of scale 1 in the shape of `like`, and the next memory."""


class NormalNoise(ActionNoise):
    """Independent normal noise of standard deviation `scale` at every step and coordinate."""

    def draw(self, like: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Draw standard normal noise."""
        return torch.randn_like(like), memory


class OrnsteinUhlenbeckNoise(ActionNoise):
    """Temporally correlated noise that starts at 0 in every episode: `x <- x - rate x + scale e, e ~ N(0, I)`.

    The process of Uhlenbeck and Ornstein (1930) in steps of time 1, the exploration noise of DDPG (Lillicrap et al.
    2016, with `scale=0.2` and `rate=0.15`). Its stationary standard deviation is `scale / sqrt(1 - (1 - rate)^2)`, 1.9
    times the scale at this rate. `x` is stored in units of the scale, so a changing scale also scales past draws.

    Args:
        scale: see `ActionNoise`.
        rate: fraction of the noise that is lost per step, in (0, 1]; 1 is `NormalNoise`.
    """

    def __init__(self, scale: NotNegative | Schedule = 0.2, rate: Rate = 0.15) -> None:
        super().__init__(scale)
        self.rate = rate

    def initial_memory(self, seat: Seat, replicates: int, environments: int) -> Memory:
        """The entry `noise`, which is 0."""
        shape = (replicates, environments, *seat.action.event_shape)
        return {"noise": torch.zeros(shape, dtype=seat.dtype, device=seat.device)}

    def draw(self, like: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Advance the process by one step."""
        noise = (1 - self.rate) * memory["noise"] + torch.randn_like(like)
        return noise, memory | {"noise": noise}
