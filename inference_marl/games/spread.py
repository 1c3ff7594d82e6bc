"""Agents who must spread over the landmarks of a plane: a small particle world."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from inference_marl.described import Horizon, NotNegative, Positive, Several
from inference_marl.games.actions import check_actions
from inference_marl.spaces import Box, Discrete
from inference_marl.types import Game, Observed, State, Step

MOVES = {"stay": (0.0, 0.0), "right": (1.0, 0.0), "left": (-1.0, 0.0), "up": (0.0, 1.0), "down": (0.0, -1.0)}
"""The discrete actions, in order, as forces (x, y)."""
DAMPING = 0.25
"""Share of its velocity that an agent loses per step."""
PUSH = 5.0
"""Acceleration at full force, in units of position per squared unit of time."""
DT = 0.1
"""Time per step."""


class Spread(Game):
    """N agents in the plane who are rewarded for being where N landmarks are, and must agree who goes where.

    Cooperative navigation, from Lowe et al. (2017), 'Multi-agent actor-critic for mixed cooperative-competitive
    environments'; `simple_spread` of OpenAI's multi-agent particle environments (MPE). With positions x^i, velocities
    v^i, landmarks l^k and forces a^i in `[-1, 1] ** 2`::

        v^i <- (1 - 0.25) v^i + 5 a^i dt,  dt = 0.1
        x^i <- x^i + v^i dt                                             with the new velocity
        r    = -sum_k min_i |x^i - l^k| - collision #{i < j: |x^i - x^j| < 2 size}

    The reward is the same for all, and depends on the positions after the move. Initially agents and landmarks are
    uniformly random in `[-1, 1] ** 2`, and at rest; landmarks never move, and nothing keeps the agents in the square.
    No step terminates: `horizon` is a time limit. All else is deterministic.

    Agent i observes `4 N + 2` numbers without bounds: v^i, x^i, then the positions of all landmarks and of all other
    agents, in order, relative to x^i.

    What differs from MPE: agents pass through each other, and observe no messages (there, two zeros per other agent).
    OpenAI's code pays all agents the sum of their rewards, in which distances count N times and collisions twice, and
    each agent collides with itself. Its successor `mpe2` moves agents with their old velocity, and has left before
    right, down before up, and five numbers in [0, 1] for a force.

    Mean rewards per step over episodes of 25 steps, without collisions::

        policy                                             N = 2    N = 3
        all stay                                           -1.56    -1.93
        uniform over the moves                             -1.68    -2.08
        uniform forces                                     -1.66    -2.06
        forces clip(10 (l^i - x^i) - 1.5 v^i, -1, 1)       -0.31    -0.40     each to the landmark of its number

    The state is `position`, `velocity` and `landmarks`, each `replicates x environments x N x 2`, last (x, y).

    Args:
        agents: N, the number of agents and of landmarks.
        actions: `discrete` for the five `MOVES`, `continuous` for forces.
        collision: what each pair of overlapping agents costs everyone per step, in units of reward (1 in MPE), not
            negative.
        size: radius of an agent, in units of position, positive.
        horizon: steps per episode; `None` if unlimited.
    """

    terminates = False

    def __init__(
        self,
        agents: Several = 3,
        *,
        actions: Literal["discrete", "continuous"] = "discrete",
        collision: NotNegative = 0.0,
        size: Positive = 0.15,
        horizon: Horizon = 25,
    ) -> None:
        self.collision, self.size, self.horizon = collision, size, horizon
        self.symmetric = agents == 2  # three observe each other in an order that exchanging seats changes
        self.observations = (Box(shape=4 * agents + 2),) * agents
        if actions == "discrete":
            self.action_spaces = (Discrete(len(MOVES)),) * agents
            self.action_names = tuple(MOVES)
        else:
            self.action_spaces = (Box(-1.0, 1.0, 2),) * agents

    def reset(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None = None
    ) -> State:
        """Draw uniformly random positions of agents and landmarks."""
        shape = (replicates, environments, 2 * self.agents, 2)
        position, landmarks = (2 * torch.rand(shape, dtype=dtype, device=device) - 1).chunk(2, dim=2)
        return {"position": position, "velocity": torch.zeros_like(position), "landmarks": landmarks}

    def observe(self, state: State) -> Observed:
        """What each agent observes, `replicates x environments x (4 N + 2)`; see the class."""
        position = state["position"]
        entities = torch.cat([state["landmarks"], position], dim=2)
        around = entities.index_select(2, _others(self.agents, position.device)).unflatten(2, (self.agents, -1))
        relative = (around - position[:, :, :, None]).flatten(3)
        return Observed(torch.cat([state["velocity"], position, relative], dim=-1).unbind(2))

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        """Move, and pay for where all are now, see `Game.step`; beyond full force the formulas still apply.

        Raises:
            ValueError: if the number or the shapes of the actions do not fit.
            IndexError: if moves are not integers or (on the CPU) too large.
        """
        position, landmarks = state["position"], state["landmarks"]
        check_actions(self.action_spaces, actions, position.shape[:2])
        force = torch.stack(list(actions), dim=2)
        if isinstance(self.action_spaces[0], Discrete):
            force = _forces(position.dtype, position.device)[force]
        velocity = (1 - DAMPING) * state["velocity"] + PUSH * DT * force
        position = position + DT * velocity
        common = -_distances(position, landmarks).amin(2).sum(-1)
        if self.collision:
            near = _distances(position, position) < 2 * self.size  # each pair twice, and each agent to itself
            common = common - self.collision * (near.sum((2, 3)) - self.agents) / 2
        terminated = torch.zeros(position.shape[:2], dtype=torch.bool, device=position.device)
        after = {"position": position, "velocity": velocity, "landmarks": landmarks}
        return Step(after, torch.stack([common] * self.agents, dim=-1), terminated)


def _distances(one: Tensor, other: Tensor) -> Tensor:
    """Between all points of two sets, `... x ones x others`, without the rounding of products of matrices."""
    return torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist")


@cache
def _forces(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The forces of `MOVES`, `moves x 2`."""
    return torch.tensor(list(MOVES.values()), dtype=dtype, device=device)


@cache
def _others(agents: int, device: torch.device) -> Tensor:
    """Which landmarks and agents, counted in this order, each agent observes, one after another: all but itself."""
    every = range(2 * agents)
    return torch.tensor([k for i in range(agents) for k in every if k != agents + i], device=device)
