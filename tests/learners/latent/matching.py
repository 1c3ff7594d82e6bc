"""A game of matching one of two opponents, and what plays it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from inference_marl.experiment import Experiment
from inference_marl.learners.latent import Context, GaussianFactors, Pearl, Recurrent, Told
from inference_marl.play import Collector, GameSimulator, Tasks, update
from inference_marl.spaces import Box, Discrete, Space
from inference_marl.types import Actor, Decision, Game, Memory, Observed, State, Step, seed_streams

R, E, HORIZON, EPISODES = 3, 2, 3, 2


class Matching(Game):
    """Seat 0 is paid for being where its opponent has its home, which is 1 or -1, as the task says.

    Args:
        discrete: whether seat 0 chooses one of the two homes, or any place between.
        reveals: whether the game says to oracles where the home is.
    """

    horizon = HORIZON
    terminates = False
    tasks = 2

    def __init__(self, discrete: bool = False, reveals: bool = True) -> None:
        self.discrete, self.reveals = discrete, reveals
        own: Space = Discrete(2) if discrete else Box(-1, 1)
        self.observations = (Box(0, 1), Box(-1, 1))
        self.action_spaces = (own, Box(-2, 2))

    def hidden_type(self, task: Tensor) -> Tensor | None:
        return (2.0 * task.double() - 1).unsqueeze(-1) if self.reveals else None

    def reset(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None = None
    ) -> State:
        task = torch.zeros(replicates, environments, dtype=torch.int64) if task is None else task
        home = (2 * task.to(dtype) - 1).unsqueeze(-1)
        return {"home": home, "time": torch.zeros_like(home)}

    def observe(self, state: State) -> Observed:
        return Observed((state["time"], state["home"]))

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        place = 2.0 * actions[0].unsqueeze(-1) - 1 if self.discrete else actions[0]
        reward = 1 - (place - state["home"]).square()
        time = state["time"] + 1 / HORIZON
        return Step({**state, "time": time}, torch.cat([reward, -reward], -1), torch.zeros_like(time[..., 0]).bool())


class Homebody(Actor):
    """It is about at home."""

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[None, Memory]:
        return None, memory

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        return Decision((obs + 0.3 * torch.randn_like(obs)).clamp(-2, 2), memory)


SMALL: Mapping[str, Any] = {"hidden": (8,), "batch": 4, "tasks_per_update": 2, "replay": 60}
CONTEXTS: Mapping[str, Context | None] = {
    "none": None,
    "factors": GaussianFactors(latent=2, hidden=(8,), context_steps=5),
    "recurrent": Recurrent(hidden=4),
    "recurrent, some steps": Recurrent(hidden=4, every_step=False),
    "told": Told(),
}


def pearl(context: str = "factors", **changes: Any) -> Pearl:
    return Pearl(context=CONTEXTS[context], **SMALL | changes)


def seated(learner: Pearl, game: Game | None = None, dtype: str = "float64", environments: int = E) -> list[Any]:
    """The learner and its opponent, bound."""
    seed_streams(0, torch.device("cpu"))
    arm: list[Actor] = [learner, Homebody()]
    made = Experiment(game or Matching(), {"it": arm}, replicates=R, environments=environments, dtype=dtype)  # type: ignore[arg-type]
    return made.bind("it")


def collecting(actors: Sequence[Actor], explore: bool = True, environments: int = E, seed: int = 0) -> Collector:
    seat = actors[0].seat
    assert seat.game is not None
    simulator = GameSimulator(seat.game, R, environments, dtype=seat.dtype)
    return Collector(simulator, actors, explore, Tasks([0, 1], episodes=EPISODES), seed)


def trained(learner: Pearl, steps: int, game: Game | None = None) -> tuple[Pearl, Collector]:
    """The learner, bound, after so many steps with an update each, and where it plays."""
    actors = seated(learner, game)
    collector = collecting(actors)
    for _ in range(steps):
        update(actors, collector.collect())
    return actors[0], collector
