"""Scripted players of the coin game."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl.described import IncompatibleError, hyperparameters
from inference_marl.games.coins import MOVES, CoinGame
from inference_marl.learners.scripted import Script
from inference_marl.types import Memory


@hyperparameters
class CoinTaker(Script):
    """Goes for every coin, or only for its own: who always defects in the coin game, or always cooperates.

    It goes straight for a coin that it wants, by any of the moves that bring it nearer, all alike; and else anywhere
    but onto the coin. Both are the players of leagues such as that of Aghajohari et al. (2024, LOQA).

    Args:
        coins: which ones, its `own` or `all`.
    """

    coins: Literal["own", "all"] = "own"
    moves: Tensor = field(init=False)

    def setup(self) -> None:
        """Tabulate the moves.

        Raises:
            IncompatibleError: if the game is not a `CoinGame`.
        """
        game = self.seat.game
        if not isinstance(game, CoinGame):
            raise IncompatibleError(f"CoinTaker got {type(game).__name__}, expected CoinGame itself")
        self.game = game
        wanted = _moves(game.size)
        table = torch.stack([wanted[1] if self.coins == "own" else wanted[0], wanted[0]])
        # Whether the coin is one's own, where it is, moves.
        self.register_buffer("moves", table.to(self.seat.device, self.seat.dtype))

    def forward(self, obs: Tensor) -> Tensor:
        """Probabilities of the moves, `replicates x environments x actions`."""
        where, own = self.game.coin_seen(obs)
        return self.moves[own.long(), where]

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.TorchDistribution, Memory]:
        """See the class."""
        return dist.Categorical(probs=self(obs)), memory


def _moves(size: int) -> Tensor:
    """Probabilities of the moves towards and around a coin, `2 x places of the coin x actions`."""
    cell, moves = torch.arange(size**2), torch.tensor(list(MOVES.values()))
    # Of the coin after each move, counted around the torus.
    down = (cell // size).unsqueeze(1) - moves[:, 0]
    right = (cell % size).unsqueeze(1) - moves[:, 1]
    left = sum(torch.minimum(way % size, -way % size) for way in (down, right))
    assert isinstance(left, Tensor)
    chosen = torch.stack([left == left.amin(1, keepdim=True), left > 0]).double()
    return chosen / chosen.sum(-1, keepdim=True)
