"""The game Guard: defenders against raiders with a hidden type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from inference_marl.described import Count, Several
from inference_marl.games.actions import check_actions
from inference_marl.games.bayesian import TYPE, BayesianGame
from inference_marl.games.hidden_types import Types
from inference_marl.spaces import Box
from inference_marl.types import Observed, State, Step

REACH = 1.2
"""Bound of the positions of shots."""

SPEED = 0.5
"""Maximum distance that a defender moves in a step, if the type's `speed` is 0."""

WIDTH = 0.25
"""Scale of the distance at which a defender stops a shot."""


class Guard(BayesianGame):
    """A zero-sum game of defenders against raiders on a line, whose behaviour and strength depend on a hidden type.

    Seat 0 has all `size` defenders, at `d` in [-1, 1]; seat 1 has all raiders. At every step each raider has a stance
    `x ~ U(-1, 1)`, which both seats observe. Then, simultaneously, defenders move by `a` in [-1, 1], and raiders shoot
    at `y` in [-1.2, 1.2]::

        d' = clip(d + .5 (1 - .6 speed) a, -1, 1)
        r  = mean_i (1 + .7 strength c_i) (2 exp(-(min_j |y_i - d'_j| / .25)^2) - 1)

    Seat 0 gets `r` and seat 1 gets `-r`. `c` falls evenly from 1 for the first raider to -1 for the last, so `strength`
    determines their weights; for two raiders these are `1 ± .7 strength`. Episodes begin with the defenders spread
    evenly from -.5 to .5.

    A type has `size + 4` numbers in [-1, 1], named by `feature_names`: `bluff`, the dependence of a raider's aim on its
    stance; the `side` of each raider; `aggression`, the degree to which they avoid the nearest defender; `strength` and
    `speed`, see above. The script `learners.scripts.Raiders` plays according to the first ones; the last two are part
    of the rules, for any opponent. Seat 0 observes `(d, x, t / horizon)`, and seat 1 also the type.

    What has to be inferred is a mapping, from observations to the opponent's actions, so a policy without a memory is
    far from one that knows the type.

    Args:
        populations: types of opponents by population, see `BayesianGame`.
        size: number of defenders, and of raiders.
        horizon: steps per episode. This is a time limit: no step terminates.
        rewards: `dense` as above; `no_negative` for `max(r, 0)`, so that a bad defence is no worse than none; or
            `regardless` of who stops a shot: raider `i`'s minimum is also over the shots `y_k` of all other raiders, so
            that much of `r` does not depend on the defenders.

    Attributes:
        feature_names: names of a type's coordinates.
    """

    terminates = False
    horizon: int

    def __init__(
        self,
        populations: Mapping[str, Types],
        size: Several = 2,
        *,
        horizon: Count = 10,
        rewards: Literal["dense", "no_negative", "regardless"] = "dense",
    ) -> None:
        sides = tuple(f"side {raider}" for raider in range(1, size + 1))
        self.feature_names = ("bluff", *sides, "aggression", "strength", "speed")
        super().__init__(populations, -1.0, 1.0, len(self.feature_names))
        self.size, self.horizon, self.rewards = size, horizon, rewards
        low, high = (-1.0,) * (2 * size) + (0.0,), (1.0,) * (2 * size + 1)
        features = len(self.feature_names)
        self.observations = (
            Box(low, high, 2 * size + 1),
            Box(low + (-1.0,) * features, high + (1.0,) * features, 2 * size + 1 + features),
        )
        self.action_spaces = (Box(-1.0, 1.0, size), Box(-REACH, REACH, size))

    def reset(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None = None
    ) -> State:
        """Place the defenders `d` and draw stances `x`, see `Game.reset`.

        The state has both, `replicates x environments x size`, the `type`, and the number of `steps` played.
        """
        shape = (replicates, environments)
        places = torch.linspace(-0.5, 0.5, self.size, dtype=dtype, device=device)
        return {
            "d": places.repeat(*shape, 1),
            "x": _stances((*shape, self.size), device, dtype),
            "steps": torch.zeros(shape, dtype=torch.int64, device=device),
            **self.drawn_type(*shape, device, dtype, task),
        }

    def observe(self, state: State) -> Observed:
        """The observations of both seats, see the class."""
        time = (state["steps"] / self.horizon).to(state["d"]).unsqueeze(-1)
        public = torch.cat([state["d"], state["x"], time], -1)
        return Observed((public, torch.cat([public, state[TYPE]], -1)))

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        """Move and shoot, see `Game.step`."""
        check_actions(self.action_spaces, actions, state["steps"].shape)
        (moves, shots), (strength, speed) = actions, state[TYPE][..., -2:].unsqueeze(-1).unbind(-2)
        places = (state["d"] + SPEED * (1 - 0.6 * speed) * moves).clamp(-1, 1)
        misses = (shots.unsqueeze(-1) - places.unsqueeze(-2)).abs().amin(-1)
        if self.rewards == "regardless":
            misses = torch.minimum(misses, _nearest_other(shots))
        counts = 1 + 0.7 * strength * torch.linspace(1, -1, self.size, dtype=places.dtype, device=places.device)
        reward = (counts * (2 * (-((misses / WIDTH) ** 2)).exp() - 1)).mean(-1)
        if self.rewards == "no_negative":
            reward = reward.clamp(min=0)
        after = state | {
            "d": places,
            "x": _stances(places.shape, places.device, places.dtype),
            "steps": state["steps"] + 1,
        }
        return Step(after, torch.stack([reward, -reward], -1), torch.zeros_like(state["steps"], dtype=torch.bool))


def _stances(shape: Sequence[int], device: torch.device, dtype: torch.dtype) -> Tensor:
    return 2 * torch.rand(*shape, dtype=dtype, device=device) - 1


def _nearest_other(shots: Tensor) -> Tensor:
    """Distance of each shot from the nearest one of another raider, `... x size`."""
    itself = torch.eye(shots.shape[-1], dtype=torch.bool, device=shots.device)
    gaps = (shots.unsqueeze(-1) - shots.unsqueeze(-2)).abs()
    return gaps.masked_fill(itself, float("inf")).amin(-1)
