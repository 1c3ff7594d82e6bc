"""Guard: defenders against raiders whose habits and abilities are hidden."""

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
"""How far from the middle a shot may land."""

SPEED = 0.5
"""How far a defender moves in a step at most, against raiders who do not change that."""

WIDTH = 0.25
"""How far from a shot a defender still stops much of it."""


class Guard(BayesianGame):
    """As many defenders as raiders on a line; what raiders do, and how much it costs, depends on a hidden type.

    Seat 0 has all `size` defenders, at `d` in [-1, 1]; seat 1 has all raiders. At every step each raider takes a stance
    `x ~ U(-1, 1)` that everybody sees. Then, at once, defenders move by `a` in [-1, 1], and raiders shoot at `y` in
    [-1.2, 1.2]::

        d' = clip(d + .5 (1 - .6 speed) a, -1, 1)
        r  = mean_i (1 + .7 strength c_i) (2 exp(-(min_j |y_i - d'_j| / .25)^2) - 1)

    Seat 0 gets `r` and seat 1 gets `-r`. `c` falls evenly from 1 for the first raider to -1 for the last, so strength
    says which of them count for more; of two they are `1 ± .7 strength`. Episodes begin with the defenders spread
    evenly from -.5 to .5.

    A type has `size + 4` numbers in [-1, 1], named by `feature_names`: `bluff`, how a raider's aim depends on its
    stance; the `side` of each raider; `aggression`, how much they avoid the nearest defender; `strength` and `speed`,
    see above. The first ones matter to `learners.scripts.Raiders`, who play by them; the last two to the rules, whoever
    plays. Seat 0 observes `(d, x, t / horizon)`, and seat 1 the type after that.

    What is to be inferred is not a place that could be watched but a mapping, from what both see to what the other will
    do. That is why a policy without a memory is far from one that knows the type.

    Args:
        populations: opponents by the names of their populations; see `BayesianGame`.
        size: how many defenders, and raiders.
        horizon: steps per episode. A time limit: no step terminates.
        rewards: `dense` as above; `no_negative` for `max(r, 0)`, so that a bad defence is no worse than none;
            `regardless` of who is responsible, where raiders stop each other too: the minimum of raider `i` is over the
            defenders and over the shots `y_k` of all other raiders, so that much of `r` is not the defenders' doing.

    Attributes:
        feature_names: of the numbers in a type.
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
        """The defenders `d` in their places, and new stances `x`; see `Game.reset`.

        The state has both, `replicates x environments x size`, the `type`, and the `steps` that were played.
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
        """What each seat observes, as the class says."""
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
    """How far each shot is from the nearest one of another raider, `... x size`."""
    itself = torch.eye(shots.shape[-1], dtype=torch.bool, device=shots.device)
    gaps = (shots.unsqueeze(-1) - shots.unsqueeze(-2)).abs()
    return gaps.masked_fill(itself, float("inf")).amin(-1)
