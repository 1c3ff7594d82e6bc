"""What varies between episodes: tasks, drawn for every environment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from inference_marl.described import Count, Described, Positive, Whole
from inference_marl.types import Game, kept_streams, seed_streams


class Tasks(Described):
    """A distribution over tasks, each of which is kept for some episodes.

    A task is a number: which variant of a game is played (`games.Variants`), or which member of a `Population` sits in
    a seat. It is part of the game, never of an observation, so learners have to find it out. Tasks depend on the seed
    only: every arm meets the same ones. Two of these with different `ids` are a training and a held-out set.

    Args:
        ids: the tasks that may be drawn.
        weights: how probable each is, up to a factor; all alike if `None`.
        episodes: how many episodes a task is kept for, in every environment on its own.

    Raises:
        ValueError: if there are no tasks, one is negative or there twice, or weights are not one positive number each.
    """

    def __init__(self, ids: Sequence[Whole], weights: Sequence[Positive] | None = None, episodes: Count = 1) -> None:
        self.ids, self.episodes = list(ids), episodes
        if not self.ids or len(set(self.ids)) < len(self.ids):
            raise ValueError(f"ids: got {ids}, expected at least one task, and none twice")
        self.weights = [1.0] * len(self.ids) if weights is None else list(weights)
        if len(self.weights) != len(self.ids):
            raise ValueError(f"weights: got {weights}, expected one positive number for each of {len(self.ids)} ids")

    def check(self, game: Game) -> None:
        """Refuse tasks that a game with variants does not know (`ValueError`); others leave it to their actors."""
        if game.tasks is not None and max(self.ids) >= game.tasks:
            raise ValueError(
                f"tasks.ids: got {max(self.ids)}, expected at most {game.tasks - 1}: {type(game).__name__} has "
                f"{game.tasks} variants"
            )

    def draw(self, replicates: int, environments: int, device: torch.device, seed: Sequence[int]) -> Tensor:
        """Independent tasks, int64, `replicates x environments`; torch's stream is left as it was.

        Args:
            replicates: their number.
            environments: their number.
            device: where they live.
            seed: random seed, any sequence of non-negative integers.
        """
        with kept_streams(device):
            seed_streams(int(np.random.SeedSequence(seed).generate_state(1)[0]), device)
            uniform = torch.rand(replicates, environments, dtype=torch.float64, device=device)
        edges = torch.tensor(self.weights, dtype=torch.float64, device=device).cumsum(0)
        which = torch.bucketize(uniform * edges[-1], edges[:-1], right=True)
        return torch.tensor(self.ids, device=device)[which]
