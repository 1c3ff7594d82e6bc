"""One agent's place in a game."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from inference_marl.spaces import Space, joint_space
from inference_marl.types.game import Game


@dataclass(frozen=True)
class Seat:
    """One agent's place in a game: everything a description needs to become a working part.

    Attributes:
        index: which agent.
        observations, action_spaces: every agent's spaces.
        replicates: independent seeds trained in parallel.
        environments: copies of the game that each replicate plays at once.
        device, dtype: where tensors live and their floating type.
        game: for learners that know the rules (payoffs, dynamics). `None` if the rules belong to a third-party
            simulator.
    """

    index: int
    observations: tuple[Space, ...]
    action_spaces: tuple[Space, ...]
    replicates: int
    environments: int = 1
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32
    game: Game | None = None

    @property
    def observation(self) -> Space:
        """The agent's own observation space."""
        return self.observations[self.index]

    @property
    def action(self) -> Space:
        """The agent's own action space."""
        return self.action_spaces[self.index]

    @property
    def opponents(self) -> tuple[int, ...]:
        """The other agents, in seat order."""
        return tuple(agent for agent in range(len(self.action_spaces)) if agent != self.index)

    @property
    def opponent_action(self) -> Space:
        """The space of the opponents' joint action."""
        return joint_space([self.action_spaces[agent] for agent in self.opponents])

    @cached_property
    def rows(self) -> Tensor:
        """Replicate indices, `replicates x 1`, to index together with observations `replicates x batch`."""
        return torch.arange(self.replicates, device=self.device).view(-1, 1)
