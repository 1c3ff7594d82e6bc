"""The scripted raiders of the game `Guard`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from inference_marl.described import IncompatibleError, NotNegative, hyperparameters
from inference_marl.games.guard import REACH, Guard
from inference_marl.types import Actor, Decision, Memory


@hyperparameters
class Raiders(Actor):
    """The raiders in seat 1 of `Guard`, which shoot according to the type that they observe::

        base = .8 bluff x + .6 side        gap = base - nearest defender
        y    = clip(base + .5 aggression sign(gap) exp(-|gap| / .4) + noise N(0, 1), -1.2, 1.2)

    Args:
        noise: standard deviation of every shot before clipping.
    """

    noise: NotNegative = 0.1

    def setup(self) -> None:
        """Check the seat.

        Raises:
            IncompatibleError: if it is not seat 1 of `Guard`.
        """
        game, seat = self.seat.game, self.seat.index
        if not isinstance(game, Guard) or seat != 1:
            raise IncompatibleError(f"Raiders got seat {seat} of {type(game).__name__}, expected seat 1 of Guard")
        self.size = game.size

    def forward(self, obs: Tensor) -> Tensor:
        """The aims of shots, `... x size`."""
        places, stances, _, bluff, sides, aggression, _ = obs.split([self.size, self.size, 1, 1, self.size, 1, 2], -1)
        base = 0.8 * bluff * stances + 0.6 * sides
        gaps = base.unsqueeze(-1) - places.unsqueeze(-2)
        gap = gaps.gather(-1, gaps.abs().argmin(-1, keepdim=True)).squeeze(-1)
        aim: Tensor = base + 0.5 * aggression * gap.sign() * (-gap.abs() / 0.4).exp()
        return aim

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[None, Memory]:
        """`None`, since clipped shots have no density."""
        return None, memory

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        """Draw shots, with and without `explore`."""
        return Decision(self._shots(self(obs)), memory)

    @torch.no_grad()
    def beliefs(self, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        """Draws of shots, as the entry `policy`."""
        return {"policy": self._shots(self(obs).unsqueeze(2).expand(-1, -1, draws, -1))}

    def _shots(self, aims: Tensor) -> Tensor:
        return (aims + self.noise * torch.randn_like(aims)).clamp(-REACH, REACH)
