"""Two agents who meet in continuous space: states, actions and time steps of a planner's world."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from inference_marl.games.actions import check_actions
from inference_marl.spaces import Box
from inference_marl.types import Game, State


class Rendezvous(Game):
    """Two agents move on a line, a square or a cube, and are paid for being near each other.

    Positions x^1, x^2 lie in `[-1, 1] ** dim`; both agents observe both. With velocities a^i in `[-1, 1] ** dim`::

        r  = -|x^1 - x^2|^2 - cost (|a^1|^2 + |a^2|^2)                     the same for both
        x^i <- clip(x^i + speed a^i + noise e^i, -1, 1),  e^i ~ Normal(0, I)

    The reward is for the positions in which the agents act. Episodes begin at uniformly random positions. No step
    terminates: `horizon` is a time limit. The state is `obs`, both positions, `replicates x environments x (2 dim)`.

    Args:
        dim: of the space.
        speed: how far a step at full velocity goes, in units of position.
        noise: standard deviation of the disturbance per step and coordinate, in units of position.
        cost: of squared velocity, in units of reward.
        horizon: steps in an episode; `None` if it never ends.

    Raises:
        ValueError: if an argument is out of range.
    """

    shared_observation = True

    def __init__(
        self,
        dim: int = 1,
        *,
        speed: float = 0.2,
        noise: float = 0.02,
        cost: float = 0.1,
        horizon: int | None = 20,
    ) -> None:
        if not 0 < speed < math.inf:
            raise ValueError(f"speed: got {speed}, expected a positive number")
        for name, value in {"noise": noise, "cost": cost}.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name}: got {value}, expected a number that is not negative")
        if dim < 1:
            raise ValueError(f"dim: got {dim}, expected a positive integer")
        if horizon is not None and horizon < 1:
            raise ValueError(f"horizon: got {horizon}, expected a positive integer, or None for a game without end")
        self.speed, self.noise, self.cost = speed, noise, cost
        self.horizon = horizon
        self.action_spaces = (Box(-1.0, 1.0, dim),) * 2
        self.observations = (Box(-1.0, 1.0, 2 * dim),) * 2

    def reset(self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype) -> State:
        """Uniformly random positions."""
        shape = (replicates, environments, self.observations[0].features)
        return {"obs": 2 * torch.rand(shape, dtype=dtype, device=device) - 1}

    def observe(self, state: State) -> tuple[Tensor, ...]:
        """Both positions, the first agent's first, for both agents: `replicates x environments x (2 dim)`."""
        return (state["obs"],) * 2

    def expected_reward(self, obs: Tensor, actions: Sequence[Tensor]) -> Tensor:
        """What joint actions pay; differentiable in observations and actions, and without randomness.

        Args:
            obs: both positions, `... x (2 dim)`.
            actions: one tensor per agent, `... x dim`; leading shapes broadcast.

        Returns:
            Rewards, `... x 2`.
        """
        first, second = obs.chunk(2, dim=-1)
        effort = actions[0].square().sum(-1) + actions[1].square().sum(-1)
        common = -(first - second).square().sum(-1) - self.cost * effort
        return torch.stack([common, common], dim=-1)

    def step(self, state: State, actions: Sequence[Tensor]) -> tuple[State, Tensor, Tensor]:
        """Pay for one joint action and move, see `Game.step`.

        Args:
            state: from `reset` or `step`.
            actions: one floating tensor per agent, `replicates x environments x dim`. Where they leave the action
                space, the formulas hold as they stand.

        Raises:
            ValueError: if the number or the shapes of the actions do not fit.
        """
        obs = state["obs"]
        check_actions(self.action_spaces, actions, obs.shape[:-1])
        moved = obs + self.speed * torch.cat(list(actions), dim=-1) + self.noise * torch.randn_like(obs)
        terminated = torch.zeros(obs.shape[:-1], dtype=torch.bool, device=obs.device)
        return {"obs": moved.clamp(-1, 1)}, self.expected_reward(obs, actions), terminated
