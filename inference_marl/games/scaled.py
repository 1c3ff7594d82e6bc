"""Games with scaled and shifted rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from inference_marl.described import Positive
from inference_marl.types import Dynamics, Game, Observed, State, Step


class Scaled(Game):
    """Another game with its rewards `r` replaced by `factor r + offset`.

    The offset is paid at every step, so in games that may terminate it changes the optimal policies; the factor never
    does.

    Args:
        game: the other game.
        factor: factor of rewards, positive.
        offset: offset of rewards, in the new units.
    """

    def __init__(self, game: Game, factor: Positive = 1.0, offset: float = 0.0) -> None:
        self.game, self.factor, self.offset = game, factor, offset
        for name in (
            "observations",
            "action_spaces",
            "horizon",
            "terminates",
            "shared_observation",
            "state_names",
            "action_names",
            "discount",
            "symmetric",
            "metrics",
            "episode_metrics",
            "tasks",
            "populations",
        ):
            setattr(self, name, getattr(game, name))
        self.success_reward = None if game.success_reward is None else factor * game.success_reward + offset

    def reset(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None = None
    ) -> State:
        """See `Game`; as in the other game."""
        return self.game.reset(replicates, environments, device, dtype, task)

    def observe(self, state: State) -> Observed:
        """See `Game`; as in the other game."""
        return self.game.observe(state)

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        """Take a step of the other game, with scaled rewards."""
        step = self.game.step(state, actions)
        return step._replace(rewards=self._paid(step.rewards))

    def is_optimal(self, actions: Sequence[Tensor]) -> Tensor | None:
        """See `Game`; as in the other game."""
        return self.game.is_optimal(actions)

    def expected_reward(self, obs: Tensor, actions: Sequence[Tensor]) -> Tensor | None:
        """Mean rewards in the new units, see `Game.expected_reward`."""
        rewards = self.game.expected_reward(obs, actions)
        return None if rewards is None else self._paid(rewards)

    def dynamics(self) -> Dynamics | None:
        """The other game's rules, with scaled rewards."""
        rules = self.game.dynamics()
        return None if rules is None else replace(rules, reward=self._paid(rules.reward))

    def scores(self, policies: Sequence[Tensor]) -> dict[str, Tensor]:
        """See `Game`; as in the other game."""
        return self.game.scores(policies)

    def hidden_type(self, task: Tensor) -> Tensor | None:
        """See `Game`; as in the other game."""
        return self.game.hidden_type(task)

    def judge(self, state: State) -> Mapping[str, Tensor]:
        """See `Game`; as in the other game."""
        return self.game.judge(state)

    def _paid(self, rewards: Tensor) -> Tensor:
        return self.factor * rewards + self.offset
