"""Differential games: stateless games with one real action per agent and smooth payoffs.

The games are those of the public code of PR2 (Wen et al. 2019), github.com/ml3705454/mapr2,
maci/environments/differential_game.py, adopted by ROMMEO (github.com/Jarvis-K/rommeo) and malib
(github.com/ying-wen/malib_deprecated); called "the public code" below. There, learners act in [-1, 1], the game
multiplies by 10, and every step ends an episode. Here actions are in the game's own units, and an episode has 25 steps
by default, as in section 5.2 of the ROMMEO paper.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from inference_marl.described import Horizon, Positive, Several, hyperparameters
from inference_marl.games.actions import check_actions
from inference_marl.spaces import Box, Discrete
from inference_marl.types import Game, State, Step


class DifferentialGame(Game, ABC):
    """Base: a stateless game on the cube `[low, high] ** agents`; a subclass defines `payoffs`.

    Every agent's action is one number, and observations are constant (0 of `Discrete(1)`). No step terminates:
    `horizon` is a time limit. Rewards have the floating type of the actions. The state is `obs`, int64 zeros,
    `replicates x environments`.

    Args:
        agents: number of agents.
        low, high: bounds of the actions.
        horizon: steps per episode; `None` for no limit.
    """

    shared_observation = True
    terminates = False

    def __init__(self, *, agents: Several = 2, low: float = -10.0, high: float = 10.0, horizon: Horizon = 25) -> None:
        if low >= high:
            raise ValueError(f"low: got {low} with high = {high}, expected low < high")
        self.action_spaces = (Box(low, high),) * agents
        self.observations = (Discrete(1),) * agents
        self.horizon = horizon

    @abstractmethod
    def payoffs(self, actions: Tensor) -> Tensor:
        """Rewards, `... x agents`, of joint actions, floating `... x agents`."""

    def expected_reward(self, obs: Tensor, actions: Sequence[Tensor]) -> Tensor:
        """The differentiable payoffs, `... x agents`, of actions `... x 1`."""
        return self.payoffs(torch.cat(torch.broadcast_tensors(*actions), dim=-1))

    def reset(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None = None
    ) -> State:
        """Return the only state."""
        return {"obs": torch.zeros(replicates, environments, dtype=torch.int64, device=device)}

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        """Compute the rewards of a joint action, see `Game.step`; the formula also applies outside the action space."""
        obs = state["obs"]
        check_actions(self.action_spaces, actions, obs.shape)
        rewards = self.payoffs(torch.cat(list(actions), dim=-1))
        return Step({"obs": obs}, rewards, torch.zeros_like(obs, dtype=torch.bool))


class MaxOfTwoQuadratics(DifferentialGame):
    """The max of two quadratics: a wide local hill and a narrow, higher one, with a reward common to all agents.

    With the local hill's centre c_1 and the global hill's c_2::

        f_1 = h_1 * (-sum_i ((a^i - c_1^i) / s_1)^2)               c_1 = -5, s_1 = 3, h_1 = 0.8
        f_2 = h_2 * (-sum_i ((a^i - c_2^i) / s_2)^2) + offset      c_2 = 5, s_2 = 1, h_2 = 1, offset = 10
        r^i = max(f_1, f_2)

    The maximum reward is `offset` on the global hill and 0 on the local one. The game originates from Panait, Luke and
    Wiegand (2006), 'Biasing coevolutionary search for optimal multiagent behaviors', with the values of Wei et al.
    (2018), 'Multiagent soft Q-learning'.

    `variant="text"` is the surface of the ROMMEO paper (section 5.2). The authors' code (`ma_softq` of the public code)
    does not square the width, `(a^i - c^i)^2 / s`, which makes the local hill three times as steep; this is
    `variant="code"`. For more than two agents the sum runs over all of them, as in the public ROMMEO code's three-agent
    version (there with centres (-5, -5, 3) and (5, 5, -3)).

    Args:
        local_centre, global_centre: c_1 and c_2; one number for all agents, or a list with one for each.
        local_width, global_width: s_1 and s_2.
        local_height, global_height: h_1 and h_2, the steepness of the hills; their maxima stay at 0 and at `offset`.
        offset: maximum reward on the global hill.
        variant: `text` divides by the squared width, `code` by the width.
        optimum_radius: Euclidean distance from the global hill's centre within which a joint action counts as optimal.
        success_reward: minimum mean reward per step of a successful replicate. Rewards on the local hill are not
            positive. The default requires a joint action within distance 1 of the global hill's centre, in both
            variants, if s_2 = h_2 = 1 and `offset` is 10.
        agents, low, high, horizon: see `DifferentialGame`.

    Attributes:
        optimum: the global hill's centre, one number per agent.

    Raises:
        ValueError: if an argument is out of range, or a centre lies outside the action space.
    """

    def __init__(
        self,
        local_centre: float | list[float] = -5.0,
        global_centre: float | list[float] = 5.0,
        *,
        local_width: Positive = 3.0,
        global_width: Positive = 1.0,
        local_height: Positive = 0.8,
        global_height: Positive = 1.0,
        offset: Positive = 10.0,
        variant: Literal["text", "code"] = "text",
        optimum_radius: Positive = 1.0,
        success_reward: float = 9.0,
        agents: Several = 2,
        low: float = -10.0,
        high: float = 10.0,
        horizon: Horizon = 25,
    ) -> None:
        super().__init__(agents=agents, low=low, high=high, horizon=horizon)
        if not 0 < success_reward <= offset:
            raise ValueError(
                f"success_reward: got {success_reward}, expected more than 0, the local hill's top, and at "
                f"most offset = {offset}, the global hill's; set it to what counts as success on this surface"
            )
        self.optimum = self._centre("global_centre", global_centre, low, high)
        self.optimum_radius = optimum_radius
        self.success_reward = success_reward
        power = 2 if variant == "text" else 1
        self._local_centre = self._centre("local_centre", local_centre, low, high)
        self._slopes = (local_height / local_width**power, global_height / global_width**power)
        self._offset = offset

    def payoffs(self, actions: Tensor) -> Tensor:
        """The higher of the two hills, the same for all agents."""
        each = actions.unbind(-1)
        local_hill = -self._slopes[0] * _squared_distance(each, self._local_centre)
        global_hill = self._offset - self._slopes[1] * _squared_distance(each, self.optimum)
        return torch.maximum(local_hill, global_hill).unsqueeze(-1).expand_as(actions).clone()

    def is_optimal(self, actions: Sequence[Tensor]) -> Tensor:
        """Whether the joint action is within `optimum_radius` of the global hill's centre."""
        each = [action[..., 0] for action in actions]
        return _squared_distance(each, self.optimum) <= self.optimum_radius**2

    def _centre(self, name: str, centre: float | list[float], low: float, high: float) -> tuple[float, ...]:
        values = tuple(centre) if isinstance(centre, (list, tuple)) else (centre,) * self.agents
        if len(values) != self.agents or not all(low <= value <= high for value in values):
            raise ValueError(
                f"{name}: got {centre}, expected a number between low = {low} and high = {high}, or a list "
                f"of {self.agents} of them, one per agent; move the centre, or change low, high or agents"
            )
        return values


def _squared_distance(coordinates: Sequence[Tensor], centre: Sequence[float]) -> Tensor:
    """Squared Euclidean distance of points from a centre, `...`; one tensor `...` per coordinate."""
    squares = [(value - middle).square() for value, middle in zip(coordinates, centre, strict=True)]
    total = squares[0]
    for square in squares[1:]:
        total = total + square
    return total


@hyperparameters
class TwoAgentGame(DifferentialGame, ABC):
    """Base: a differential game of two agents with actions `a` and `b`; a subclass defines `rewards`.

    Arguments and errors are those of `DifferentialGame`.
    """

    low: float = -10.0
    high: float = 10.0
    horizon: Horizon = 25

    def __post_init__(self) -> None:
        super().__init__(low=self.low, high=self.high, horizon=self.horizon)

    @abstractmethod
    def rewards(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Both agents' rewards, each `...`, for their actions, each `...`."""

    def payoffs(self, actions: Tensor) -> Tensor:
        """Rewards `... x 2` of joint actions `... x 2`."""
        return torch.stack(self.rewards(actions[..., 0], actions[..., 1]), dim=-1)


class ZeroSum(TwoAgentGame):
    """A zero-sum game, `r^1 = a b`, `r^2 = -a b`, with a saddle at (0, 0) around which gradient play circles.

    Source: `zero_sum` of the public code.
    """

    def rewards(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """`(a b, -a b)`."""
        return a * b, -a * b


@hyperparameters
class MatchingPenniesContinuous(TwoAgentGame):
    """Continuous matching pennies, `r^1 = (a - 1/2) (b - 1/2)`, `r^2 = -r^1`, with equilibrium (1/2, 1/2).

    It is the only pure equilibrium. On [0, 1] this is a quarter of the payoff of matching pennies, with `a` and `b` the
    probabilities of heads.

    Source: `mataching_pennies` (sic) of the public code, which pays `r^1` to both agents, so it is a common-interest
    game and not matching pennies; this is `variant="code"`.

    Args:
        variant: `zero_sum`, or `code` to pay both agents the same.
        low, high, horizon: see `DifferentialGame`.
    """

    variant: Literal["zero_sum", "code"] = "zero_sum"

    def rewards(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """`((a - 1/2) (b - 1/2), -(a - 1/2) (b - 1/2))`, without the minus for `code`."""
        match = (a - 0.5) * (b - 0.5)
        return match, -match if self.variant == "zero_sum" else match


class Rotational(TwoAgentGame):
    """`r^1 = a^2 / 2 + 10 a b`, `r^2 = b^2 / 2 - 10 a b`, whose gradients mostly rotate around (0, 0).

    Source: `rotational` of the public code. Balduzzi et al. (2018), 'The mechanics of n-player differentiable games',
    use the same formulas as losses; here, as in the public code, they are rewards, so (0, 0) repels.
    """

    def rewards(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """`(a^2 / 2 + 10 a b, b^2 / 2 - 10 a b)`."""
        return 0.5 * a * a + 10 * a * b, 0.5 * b * b - 10 * a * b


class Trigonometric(TwoAgentGame):
    """`r^1 = a cos b`, `r^2 = b sin a`, where an agent's direction of ascent alternates as the other moves.

    Source: `trigonometric` of the public code.
    """

    def rewards(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """`(a cos b, b sin a)`."""
        return b.cos() * a, a.sin() * b


@hyperparameters
class Wolf(TwoAgentGame):
    """The mixed extension of a 2 x 2 game; `a` and `b` are the probabilities of the first row and column.

    The expected payoffs are the bilinear forms::

        r^i = a b R^i_00 + a (1 - b) R^i_01 + (1 - a) b R^i_10 + (1 - a) (1 - b) R^i_11
        R^1 = [[0, 3], [1, 2]]        R^2 = [[3, 2], [0, 1]]

    The matrix game's only equilibrium is (1/2, 1/2). Gradient ascent circles it; win-or-learn-fast steps spiral in.

    Source: `wolf` of the public code, which applies the formula on [-10, 10]; here actions are probabilities, on [0,
    1]. The matrices are the tricky game of Abdallah and Lesser (2008), 'A multiagent reinforcement learning algorithm
    with non-linear dynamics'. Arguments and errors are those of `DifferentialGame`.
    """

    low: float = 0.0
    high: float = 1.0

    def rewards(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """The expanded bilinear forms: `(2 + a - b - 2 a b, 1 + a - b + 2 a b)`."""
        return 2 + a - b - 2 * a * b, 1 + a - b + 2 * a * b
