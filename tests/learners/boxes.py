"""A game of three agents whose spaces are of different kinds, and learners trained on any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inference_marl.experiment import Experiment
from inference_marl.play import Collector, GameSimulator, update
from inference_marl.spaces import Box, Discrete, Space
from inference_marl.types import Actor, Game, Observed, State, Step, seed_streams

R, E = 3, 2


class ThreeBoxes(Game):
    """Observations are an index, a point of a box and a matrix; rewards prefer small actions."""

    horizon = 3
    terminates = False

    def __init__(self) -> None:
        self.observations: tuple[Space, ...] = (Discrete(3), Box(-1, 1, 2), Box(shape=(2, 2)))
        self.action_spaces: tuple[Space, ...] = (Box(-1, 2, 2), Box(0, 5), Box((-3, 1), (-1, 4), 2))

    def reset(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None = None
    ) -> State:
        shape = (replicates, environments)
        one, two = (torch.zeros(*shape, *space.event_shape, dtype=dtype) for space in self.observations[1:])
        return {"index": torch.zeros(shape, dtype=torch.int64), "point": one, "matrix": two}

    def observe(self, state: State) -> Observed:
        return Observed((state["index"], state["point"], state["matrix"]))

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        rewards = -torch.stack([action.square().sum(-1) for action in actions], -1)
        index = (state["index"] + 1) % 3
        return Step({**state, "index": index}, rewards, torch.zeros_like(index, dtype=torch.bool))


def bound(arm: Actor, game: Game) -> list[Any]:
    seed_streams(0, torch.device("cpu"))
    return Experiment(game, {"it": arm}, replicates=R, environments=E, dtype="float64").bind("it")


def trained(arm: Actor, game: Game, steps: int = 4) -> tuple[list[Any], Collector]:
    """Learners after so many updates, and the collector that they play in."""
    actors = bound(arm, game)
    collector = Collector(GameSimulator(game, R, E, dtype=torch.float64), actors)
    for _ in range(steps):
        update(actors, collector.collect())
    return actors, collector
