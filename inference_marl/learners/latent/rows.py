"""Steps from one agent's perspective, as rows of features."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from inference_marl.spaces import encode
from inference_marl.types import Experience, Seat


class Apart(NamedTuple):
    """The parts of a row: features `... x features`, and the reward, `...`."""

    obs: Tensor
    action: Tensor
    opponent_actions: tuple[Tensor, ...]
    reward: Tensor
    next_obs: Tensor


class Rows:
    """Converts steps to rows: observation, all agents' actions, own reward and next observation.

    PEARL's context has no actions of other agents, and in most of its experiments no next observation (Rakelly et al.
    2019, Section 4.1). Here the other agents are what is inferred.

    Args:
        seat: the agent's seat.

    Attributes:
        features: number of features of a row.
    """

    def __init__(self, seat: Seat) -> None:
        self.spaces, self.dtype = seat.spaces, seat.dtype
        widths = [*(space.features for space in self.spaces), 1, seat.observation.features]
        ends = [sum(widths[:number]) for number in range(len(widths) + 1)]
        self.features, self._slices = ends[-1], [slice(*pair) for pair in pairwise(ends)]

    def of(self, step: Experience) -> Tensor:
        """Rows of steps, `replicates x batch x features`."""
        before = encode(self.spaces, (step.obs, step.action, *step.opponent_actions), self.dtype)
        after = self.spaces[0].encode(step.next_obs, self.dtype)
        return torch.cat([before, step.reward.unsqueeze(-1).to(self.dtype), after], -1)

    def apart(self, rows: Tensor) -> Apart:
        """Split rows, `... x features`, into their parts."""
        obs, action, *others, reward, after = (rows[..., each] for each in self._slices)
        return Apart(obs, action, tuple(others), reward.squeeze(-1), after)
