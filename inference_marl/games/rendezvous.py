"""A continuous game for planners, in which two agents have to meet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inference_marl.described import Count, Horizon, NotNegative, Positive
from inference_marl.games.actions import check_actions
from inference_marl.spaces import Box
from inference_marl.types import Game, State, Step


class Rendezvous(Game):
    """Two agents move in a cube of any dimension and are rewarded for being near each other.

    Positions x^1, x^2 lie in `[-1, 1] ** dim`; both agents observe both. With velocities a^i in `[-1, 1] ** dim`::

        r  = -|x^1 - x^2|^2 - cost (|a^1|^2 + |a^2|^2)                     the same for both
        x^i <- clip(x^i + speed a^i + noise e^i, -1, 1),  e^i ~ Normal(0, I)

    The reward depends on the positions before the move. Initial positions are uniformly random. No step terminates:
    `horizon` is a time limit. The state is `obs`, both positions, `replicates x environments x (2 dim)`.

    Args:
        dim: dimension of the space.
        speed: distance covered by a step at full velocity, in units of position, positive.
        noise: standard deviation of the disturbance per step and coordinate, in units of position.
        cost: cost of squared velocity, in units of reward, not negative.
        horizon: steps per episode; `None` for no limit.
    """

    shared_observation = True
    terminates = False

    def __init__(
        self,
        dim: Count = 1,
        *,
        speed: Positive = 0.2,
        noise: NotNegative = 0.02,
        cost: NotNegative = 0.1,
        horizon: Horizon = 20,
    ) -> None:
        self.speed, self.noise, self.cost = speed, noise, cost
        self.horizon = horizon
        self.action_spaces = (Box(-1.0, 1.0, dim),) * 2
        self.observations = (Box(-1.0, 1.0, 2 * dim),) * 2

    def reset(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None = None
    ) -> State:
        """Draw uniformly random positions."""
        shape = (replicates, environments, self.observations[0].features)
        return {"obs": 2 * torch.rand(shape, dtype=dtype, device=device) - 1}

    def expected_reward(self, obs: Tensor, actions: Sequence[Tensor]) -> Tensor:
        """Deterministic rewards, `... x 2`, differentiable in observations `... x (2 dim)` and actions `... x dim`."""
        first, second = obs.chunk(2, dim=-1)
        effort = actions[0].square().sum(-1) + actions[1].square().sum(-1)
        common = -(first - second).square().sum(-1) - self.cost * effort
        return torch.stack([common, common], dim=-1)

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        """Compute the rewards and move, see `Game.step`; the formulas also apply outside the action space."""
        obs = state["obs"]
        check_actions(self.action_spaces, actions, obs.shape[:-1])
        moved = obs + self.speed * torch.cat(list(actions), dim=-1) + self.noise * torch.randn_like(obs)
        terminated = torch.zeros(obs.shape[:-1], dtype=torch.bool, device=obs.device)
        return Step({"obs": moved.clamp(-1, 1)}, self.expected_reward(obs, actions), terminated)
