"""Scripted agents for the coin game."""

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
    """Always defects in the coin game, by going for every coin, or always cooperates, by taking only its own.

    For a coin that it takes, it plays uniformly the moves that bring it nearer; otherwise uniformly those that do not
    end on the coin. Both are used in leagues such as that of Aghajohari et al. (2024, LOQA).

    Args:
        coins: the coins that it takes, its `own` or `all`.
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
        # Dimensions: whether the coin is the agent's own, its place, moves.
        self.register_buffer("moves", table.to(self.seat.device, self.seat.dtype))

    def forward(self, obs: Tensor) -> Tensor:
        """Probabilities of the moves, `replicates x environments x actions`."""
        where, own = self.game.coin_seen(obs)
        return self.moves[own.long(), where]

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.TorchDistribution, Memory]:
        """The probabilities of `forward`."""
        return dist.Categorical(probs=self(obs)), memory


def _moves(size: int) -> Tensor:
    """Probabilities of the moves towards and around a coin, `2 x places of the coin x actions`."""
    cell, moves = torch.arange(size**2), torch.tensor(list(MOVES.values()))
    # Offsets of the coin after each move, counted around the torus.
    down = (cell // size).unsqueeze(1) - moves[:, 0]
    right = (cell % size).unsqueeze(1) - moves[:, 1]
    left = sum(torch.minimum(way % size, -way % size) for way in (down, right))
    assert isinstance(left, Tensor)
    chosen = torch.stack([left == left.amin(1, keepdim=True), left > 0]).double()
    return chosen / chosen.sum(-1, keepdim=True)
