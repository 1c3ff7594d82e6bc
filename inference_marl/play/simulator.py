"""The simulator of pure games, and the choice of a game's simulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from inference_marl.types import ForeignGame, Game, Observed, Outcome, Simulator, State, choose

LONG_ENOUGH = 100
"""Steps after which a game's `terminates = False` is no longer checked."""


def simulate(
    game: Game,
    replicates: int,
    environments: int = 1,
    device: torch.device = torch.device("cpu"),
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Simulator:
    """Create the simulator of a game; the caller has to close it.

    Args:
        game: the game to play.
        replicates: number of replicates.
        environments: number of environments per replicate.
        device: where tensors live.
        dtype: their floating-point type.
        seed: random seed, for games that do not draw from torch's random stream.
    """
    if isinstance(game, ForeignGame):
        return game.simulator(replicates, environments, device, dtype, seed)
    return GameSimulator(game, replicates, environments, device, dtype)


class GameSimulator(Simulator):
    """Plays a pure game in all environments of all replicates; keeps its state, and ends episodes at the horizon."""

    def __init__(
        self,
        game: Game,
        replicates: int,
        environments: int = 1,
        device: torch.device = torch.device("cpu"),
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.game, self.shape, self.device, self.dtype = game, (replicates, environments), device, dtype
        self.observations, self.action_spaces = game.observations, game.action_spaces
        self.state: State = {}
        # Elapsed steps of every episode: a single number while all run in lockstep.
        self.clock: int | Tensor = torch.zeros(self.shape, dtype=torch.int64, device=device) if game.terminates else 0
        self._believed = False  # whether it has played long enough to trust `terminates = False`
        self._everywhere = torch.ones(self.shape, dtype=torch.bool, device=device)
        self._nowhere = torch.zeros_like(self._everywhere)

    def reset(self, where: Tensor | None = None, task: Tensor | None = None) -> None:
        """Begin episodes, see `Simulator.reset`."""
        fresh = self.game.reset(*self.shape, self.device, self.dtype, task)
        if where is None or where is self._everywhere or bool(where.all()):
            self.state = fresh
            self.clock = 0 if isinstance(self.clock, int) else torch.zeros_like(self.clock)
        else:
            self.state = choose(where, fresh, self.state)
            if isinstance(self.clock, int):  # episodes no longer run in lockstep
                self.clock = torch.full(self.shape, self.clock, device=self.device)
            self.clock = self.clock.masked_fill(where, 0)

    def observe(self) -> Observed:
        """The current observation of each agent."""
        return self.game.observe(self.state)

    def step(self, actions: Sequence[Tensor]) -> Outcome:
        """Play a joint action, see `Simulator.step`."""
        self.state, rewards, terminated, truncated = self.game.step(self.state, actions)
        if self.game.horizon == 1:
            return Outcome(rewards, terminated, self._everywhere, self._judged())
        self.clock = self.clock + 1
        if isinstance(self.clock, int):
            if truncated is not None or (not self._believed and bool(terminated.any())):
                raise ValueError(
                    f"{type(self.game).__name__}.terminates: got False, but an episode was over before the horizon, "
                    "expected True"
                )
            over = self.game.horizon is not None and self.clock >= self.game.horizon
            self._believed = self._believed or over or self.clock > LONG_ENOUGH
            if not over:
                return Outcome(rewards, terminated, self._nowhere)
            return Outcome(rewards, terminated, self._everywhere, self._judged())
        ended = terminated if truncated is None else terminated | truncated
        if self.game.horizon is not None:
            ended = ended | (self.clock >= self.game.horizon)
        return Outcome(rewards, terminated, ended)

    def _judged(self) -> Mapping[str, Tensor] | None:
        """The game's scores of episodes, if they have ended in all environments."""
        return self.game.judge(self.state) if self.game.episode_metrics else None

    def state_dict(self) -> dict[str, Any]:
        """The game's state, and the elapsed steps of each episode."""
        return {"state": self.state, "clock": self.clock}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore from `state_dict`."""
        self.state = {key: value.to(self.device) for key, value in state["state"].items()}
        clock = state["clock"]
        self.clock = clock if isinstance(clock, int) else clock.to(self.device)
