"""Games as PettingZoo parallel environments, for use with other libraries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv  # type: ignore[import-untyped, unused-ignore]
from torch import Tensor

from inference_marl.described import expect
from inference_marl.spaces import Discrete, Space
from inference_marl.types import Game, State


class PettingZooGame(ParallelEnv[str, Any, Any]):  # type: ignore[misc, unused-ignore]
    """A PettingZoo parallel environment of a game (1 replicate, 1 environment).

    Agents are called `agent_0`, `agent_1`, ...; all act at every step and leave together. The game's `terminated`
    becomes terminations; the time limit becomes truncations, unless the game terminated at that step. Discrete values
    are `numpy.int64`, boxes are `float32` arrays of the space's shape; rewards are computed in float64.

    The environment has its own random stream: calls leave torch's global generator unchanged, and `reset(seed)`
    determines all subsequent draws.

    Args:
        game: the game.
        max_steps: time limit; `None` takes the game's horizon. If both are given, the shorter one applies.

    Raises:
        ValueError: if `max_steps` is not positive, or missing for a game without horizon.
    """

    def __init__(self, game: Game, *, max_steps: int | None = None) -> None:
        expect("a positive integer", ", or null for the game's horizon", max_steps=max_steps)
        limits = [limit for limit in (max_steps, game.horizon) if limit is not None]
        if not limits:
            raise ValueError(
                "max_steps: got None, expected a positive integer, because the game's horizon is None and "
                "episodes would never end; set max_steps, or the game's horizon"
            )
        self.game = game
        self.max_steps = min(limits)
        self.metadata = {"name": type(game).__name__, "render_modes": [], "is_parallelizable": True}
        self.render_mode = None
        self.possible_agents = [f"agent_{index}" for index in range(game.agents)]
        self.agents: list[str] = []
        self.observation_spaces = dict(zip(self.possible_agents, map(_space, game.observations), strict=True))
        self.action_spaces = dict(zip(self.possible_agents, map(_space, game.action_spaces), strict=True))
        self._state: State = {}
        self._steps = 0
        generator = torch.Generator()
        generator.seed()
        self._random = generator.get_state()

    def observation_space(self, agent: str) -> gymnasium.Space[Any]:
        """An agent's observation space; always the same object."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gymnasium.Space[Any]:
        """An agent's action space; always the same object."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Begin an episode; returns observations and (empty) infos by agent.

        Args:
            seed: restarts the environment's random stream, which otherwise continues.
            options: ignored.
        """
        if seed is not None:
            self._random = torch.Generator().manual_seed(int(seed)).get_state()
        with self._own_random_numbers():
            self._state = self.game.reset(1, 1, torch.device("cpu"), torch.float64)
        self._steps = 0
        self.agents = list(self.possible_agents)
        return self._observe(), {agent: {} for agent in self.agents}

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Play one joint action, given by agent name.

        Returns:
            Observations, rewards, terminations, truncations and (empty) infos by agent.

        Raises:
            gymnasium.error.ResetNeeded: before the first `reset`, and after an episode's end.
            ValueError: if an agent's action is missing or not in its space.
        """
        if not self.agents:
            raise gymnasium.error.ResetNeeded("step: got a call outside an episode, expected reset first")
        values = [self._action(agent, actions) for agent in self.possible_agents]
        with self._own_random_numbers():
            self._state, rewards, terminated, truncated = self.game.step(self._state, values)
        self._steps += 1
        over = bool(terminated.item())
        limited = self._steps >= self.max_steps or (truncated is not None and bool(truncated.item()))
        cut = limited and not over
        if over or cut:
            self.agents = []
        everyone = self.possible_agents
        return (
            self._observe(),
            dict(zip(everyone, rewards[0, 0].tolist(), strict=True)),
            dict.fromkeys(everyone, over),
            dict.fromkeys(everyone, cut),
            {agent: {} for agent in everyone},
        )

    def render(self) -> None:
        """Do nothing: `render_mode` is `None`."""

    def _action(self, agent: str, actions: Mapping[str, Any]) -> Tensor:
        """An agent's action in the game's format, `1 x 1 x event`."""
        space = self.action_space(agent)
        if agent not in actions:
            raise ValueError(f"actions: got {sorted(actions)}, expected one of every agent; add {agent!r}")
        value = np.asarray(actions[agent])
        kind = np.integer if isinstance(space, spaces.Discrete) else np.number
        fits = value.shape == space.shape and np.issubdtype(value.dtype, kind)
        if not fits or not space.contains(value.astype(space.dtype)):
            raise ValueError(f"actions[{agent!r}]: got {actions[agent]!r}, expected an element of {space}")
        dtype = torch.int64 if isinstance(space, spaces.Discrete) else torch.float64
        return torch.as_tensor(value, dtype=dtype)[None, None]

    def _observe(self) -> dict[str, Any]:
        seen = zip(self.possible_agents, self.game.observe(self._state).obs, strict=True)
        return {agent: obs[0, 0].numpy().astype(self.observation_space(agent).dtype)[()] for agent, obs in seen}

    @contextmanager
    def _own_random_numbers(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._random)
            yield
            self._random = torch.get_rng_state()


def _space(space: Space) -> gymnasium.Space[Any]:
    if isinstance(space, Discrete):
        return spaces.Discrete(space.n)
    low, high = (edge.numpy() for edge in space.edges(torch.float32, torch.device("cpu")))
    return spaces.Box(low, high, space.event_shape, np.float32)
