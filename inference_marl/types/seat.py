"""One agent's place in a game."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.spaces import Box, Discrete, Space, joint_space
from inference_marl.types.game import Dynamics, Game

MOST_CELLS = 4096
"""Maximum number of joint actions of three or more agents for which there are tables."""


@dataclass(frozen=True)
class Seat:
    """One agent's place in a game: everything that a description needs to be bound.

    Attributes:
        index: index of the agent.
        observations, action_spaces: the spaces of all agents.
        replicates: number of independent seeds, trained in parallel.
        environments: copies of the game that each replicate plays in parallel.
        device, dtype: where tensors live, and their floating-point type.
        game: the game, for learners that know the rules (payoffs, dynamics). `None` for third-party environments.
    """

    index: int
    observations: tuple[Space, ...]
    action_spaces: tuple[Space, ...]
    replicates: int
    environments: int = 1
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32
    game: Game | None = None

    def __deepcopy__(self, memo: object) -> Self:
        """Return itself, since a seat and its game are immutable."""
        return self

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

    @cached_property
    def opponent_actions(self) -> tuple[Space, ...]:
        """The opponents' action spaces, in the order of `opponents`."""
        return tuple(self.action_spaces[agent] for agent in self.opponents)

    @cached_property
    def opponent_action(self) -> Space:
        """The space of the opponents' joint action as one variable: an index into tables, or concatenated boxes.

        Raises:
            IncompatibleError: if there is none; see `has_joint_action`.
        """
        if not self.has_joint_action:
            raise IncompatibleError(
                f"a joint action: got actions {', '.join(map(str, self.action_spaces))}, expected of all opponents Box "
                f"with one dimension, or Discrete with at most {MOST_CELLS} joint actions; use parts with a network "
                "for each opponent (NetworkCritic, Autoregressive, Independent)"
            )
        return joint_space(self.opponent_actions)

    @cached_property
    def has_joint_action(self) -> bool:
        """Whether the opponents' joint action is one variable: the only opponent's action, a box or a table index.

        Several opponents with discrete actions have a table if all agents have at most `MOST_CELLS` joint actions.
        """
        others = self.opponent_actions
        if any(isinstance(space, Box) for space in others):
            return all(isinstance(space, Box) and len(space.shape) == 1 for space in others)
        cells = math.prod(space.n for space in (*others, self.action) if isinstance(space, Discrete))
        return len(others) < 2 or cells <= MOST_CELLS

    @property
    def is_of_one_kind(self) -> bool:
        """Whether all agents' actions are discrete, or all are continuous."""
        return len({type(space) for space in self.action_spaces}) == 1

    @property
    def has_table(self) -> bool:
        """Whether all agents' actions are discrete, and few enough for tables."""
        return all(isinstance(space, Discrete) for space in self.action_spaces) and self.has_joint_action

    @property
    def spaces(self) -> tuple[Space, ...]:
        """The spaces of the observation, the agent's own action and every opponent's action."""
        return self.observation, self.action, *self.opponent_actions

    @property
    def is_discrete(self) -> bool:
        """Whether all `spaces` are `Discrete`."""
        return all(isinstance(space, Discrete) for space in self.spaces)

    @property
    def rules(self) -> Dynamics | None:
        """The game's rules as tables; `None` if it does not give them."""
        return None if self.game is None else self.game.dynamics()

    def known_rules(self, who: object, otherwise: str) -> tuple[Dynamics, float | None]:
        """The game's rules as tables and its discount factor, for a part that needs them.

        Args:
            who: the part.
            otherwise: the alternative that the error message suggests.

        Raises:
            IncompatibleError: if the game does not give its rules.
        """
        rules = self.rules
        if self.game is None or rules is None:
            game = "no game" if self.game is None else type(self.game).__name__
            raise IncompatibleError(
                f"{type(who).__name__} got {game}, which does not give its rules as tables, expected a tabular game "
                f"such as MatrixGame or StochasticGame, or {otherwise}"
            )
        return rules, self.game.discount

    @cached_property
    def rows(self) -> Tensor:
        """Replicate indices, `replicates x 1`, to index together with observations `replicates x batch`."""
        return torch.arange(self.replicates, device=self.device).view(-1, 1)
