"""Tasks, which vary between episodes and are drawn for every environment."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from inference_marl.described import Count, Described, Positive, Whole
from inference_marl.types import Game, kept_streams, seed_streams


class Tasks(Described):
    """A distribution over tasks, each of which lasts for a number of episodes.

    A task is an index: of a variant of the game (`games.Variants`), of an opponent with a private type
    (`games.BayesianGame`), or of a member of a `Population`. It is part of the game, never of the observations, so
    learners have to infer it. Tasks depend on the seed only, so all arms meet the same ones. Two distributions with
    different `ids` are a training and a held-out set.

    Args:
        ids: the tasks that may be drawn.
        weights: unnormalised probability of each task; uniform if `None`.
        episodes: number of episodes that a task lasts, in every environment separately.
        population: instead of `ids`, the name of one of the game's populations of tasks, see `Game.populations`.
        order: `random` for independent draws; `in_turn` for the first task in the first environment, the second in the
            second and so on, each followed by the next one, so that environments differ if there are enough tasks.

    Raises:
        ValueError: if there are no tasks, one is negative or repeated, weights are not one positive number per task, or
            tasks in turn have weights.
    """

    def __init__(
        self,
        ids: Sequence[Whole] | None = None,
        weights: Sequence[Positive] | None = None,
        episodes: Count = 1,
        population: str | None = None,
        order: Literal["random", "in_turn"] = "random",
    ) -> None:
        self.population, self.episodes, self.order, self.weights = population, episodes, order, weights
        self.ids = None if ids is None else list(ids)
        if self.ids is not None and population is not None:
            raise ValueError(f"population: got {population} beside ids, expected only one of the two")
        if population is None and (not self.ids or len(set(self.ids)) < len(self.ids)):
            raise ValueError(f"ids: got {ids}, expected at least one task, and none twice, or the name of a population")
        if weights is not None and order == "in_turn":
            raise ValueError(f"weights: got {weights} of tasks in turn, expected none: each has its turn")
        self._check_weights()

    def of(self, game: Game) -> Tasks:
        """The distribution for a game, with its population, if one is named, resolved to `ids`.

        Raises:
            ValueError: if the game has no such population, or variants but not that many; games without variants leave
                tasks to their actors. The message begins with `tasks`.
        """
        name = type(game).__name__
        if self.population is not None and self.population not in game.populations:
            known = f"one of {', '.join(game.populations)}" if game.populations else f"ids: {name} has no populations"
            raise ValueError(f"tasks.population: got {self.population}, expected {known}")
        found = copy.copy(self)
        if self.population is not None:
            found.ids = list(game.populations[self.population])
            found._check_weights("tasks.")
        elif self.ids is not None and game.tasks is not None and max(self.ids) >= game.tasks:
            raise ValueError(
                f"tasks.ids: got {max(self.ids)}, expected at most {game.tasks - 1}: {name} has {game.tasks} variants"
            )
        return found

    def draw(
        self,
        replicates: int,
        environments: int,
        device: torch.device,
        seed: Sequence[int],
        before: Tensor | None = None,
    ) -> Tensor:
        """Draw the next tasks, int64, `replicates x environments`, without advancing torch's random stream.

        Args:
            replicates: number of replicates.
            environments: number of environments per replicate.
            device: where the result lives.
            seed: random seed, any sequence of non-negative integers.
            before: the previous tasks; `None` if there are none.

        Raises:
            ValueError: if a population has not been resolved yet; see `of`.
        """
        if self.ids is None:
            raise ValueError(f"population: got {self.population}, expected tasks of a game: Tasks.of(game)")
        ids = torch.tensor(self.ids, device=device)
        if self.order == "in_turn":
            place = torch.arange(environments, device=device).expand(replicates, environments)
            if before is not None:
                ordered, at = ids.sort()
                place = at[torch.searchsorted(ordered, before)] + 1
            return ids[place % len(ids)]
        with kept_streams(device):
            seed_streams(int(np.random.SeedSequence(seed).generate_state(1)[0]), device)
            uniform = torch.rand(replicates, environments, dtype=torch.float64, device=device)
        weights = [1.0] * len(ids) if self.weights is None else list(self.weights)
        edges = torch.tensor(weights, dtype=torch.float64, device=device).cumsum(0)
        which = torch.bucketize(uniform * edges[-1], edges[:-1], right=True)
        return ids[which]

    def _check_weights(self, prefix: str = "") -> None:
        """Raise `ValueError` unless there is one weight per task, once the number of tasks is known."""
        weights, ids = self.weights, self.ids
        if weights is not None and ids is not None and len(weights) != len(ids):
            raise ValueError(f"{prefix}weights: got {weights}, expected a positive number for each of {len(ids)} tasks")
