"""Matrix games, one-shot or repeated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inference_marl.described import Count, Discount, Horizon
from inference_marl.games.actions import check_actions
from inference_marl.games.payoffs import check_unused, named_outcomes, outcomes_of
from inference_marl.games.tables import Kept
from inference_marl.spaces import Discrete, joint_action, joint_names
from inference_marl.types import PROBABILITY, Dynamics, Game, Metric, State, Step

TIT_FOR_TAT = ((1.0, 1.0), (1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (0.0, 0.0))
"""Each agent's probability of action 0 under tit-for-tat, which starts with action 0 and then copies the opponent.

Rows are states: the start, then after AA, AB, BA and BB, with agent 0's action first.
"""

TIT_FOR_TAT_SHARE = Metric(
    "tit_for_tat",
    "share of states with tit-for-tat",
    bounds=PROBABILITY,
    dims=(),
    meaning="Fraction of states in which both agents' probability of their first action differs by less than 0.5 from "
    "that of tit-for-tat; %TFT of Foerster et al. (2018), table 3.",
)
NEAR_UNIFORM = Metric(
    "near_uniform",
    "share of states with near uniform play",
    bounds=PROBABILITY,
    dims=(),
    meaning="Fraction of states in which both agents' probability of their first action differs by less than 0.25 from "
    "1/2; %Nash of Foerster et al. (2018), table 3, for matching pennies.",
)


class MatrixGame(Game):
    """A matrix game, one-shot or repeated, optionally with observation of the last joint action.

    The rewards of a step are those of one random outcome::

        outcome ~ Uniform(outcomes)        r^i = payoff[outcome, i, a^1, ..., a^n]

    Without memory every observation is 0. With memory all agents observe 0 at the start and `1 + joint index` of the
    last joint action afterwards; the joint index is row-major over agents (the last agent's action varies fastest). So
    for two agents with two actions each, the observations after (0, 0), (0, 1), (1, 0), (1, 1) are 1, 2, 3, 4. In
    `MatrixGame("pure_coordination", memory=1, horizon=20)` agents can repeat their last successful actions.

    The state is `obs` (int64, `replicates x environments`) and the last step's `rewards` (floating, `replicates x
    environments x agents`, 0 at the start), which also determine the dtype of the next ones.

    Args:
        payoff: name of a payoff in `PAYOFFS`, or nested lists of numbers: `A1 x ... x An` if all agents get the same,
            `n x A1 x ... x An` if every agent has its own (see `common`).
        horizon: 1 is the one-shot game: every step terminates, so nothing is bootstrapped. Larger values are repeated
            games with a time limit, and `None` has no limit; these never terminate.
        memory: number of joint actions that the agents observe, 0 or 1.
        k: payoff of miscoordination, for `penalty` only.
        actions: number of actions, for `pure_coordination` only.
        common: how nested lists are read: true if all agents share one tensor, false if the first dimension runs over
            agents. Optional if there is only one reading; `n x A1 x ... x An` can also be read as a game of n + 1
            agents, so it needs `common=False`.
        stochastic: nested lists have an additional leading dimension over equally likely outcomes.
        discount: gamma in [0, 1) for exact returns of repeated games; see `Game`.
        success_reward: minimum mean reward per step and agent of a successful replicate, if no joint action is best for
            all agents; see `Game`.

    Attributes:
        outcomes: the payoff tensor, float64, `outcomes x agents x A1 x ... x An`.
        symmetric: whether exchanging any two agents leaves every outcome's payoffs unchanged.

    Raises:
        ValueError: if an argument is out of range or meaningless for this payoff, or if nested lists are ragged, not
            numbers, empty or ambiguous.
    """

    shared_observation = True
    terminates = False

    def __init__(
        self,
        payoff: str | list[Any] = "climbing",
        *,
        horizon: Horizon = 1,
        memory: int = 0,
        k: float = -100.0,
        actions: Count = 2,
        common: bool | None = None,
        stochastic: bool = False,
        discount: Discount = None,
        success_reward: float | None = None,
    ) -> None:
        if discount is not None and horizon == 1:
            raise ValueError(f"discount: got {discount} with horizon = 1, expected none: nothing follows a single step")
        if memory not in (0, 1):
            raise ValueError(f"memory: got {memory}, expected 0 or 1; longer memories are not supported")
        if memory == 1 and horizon == 1:
            raise ValueError(
                "memory: got 1 with horizon = 1, expected 0; a one-shot game ends before agents observe "
                "any action, so set memory to 0, or horizon to more than 1 or to None"
            )
        if isinstance(payoff, str):
            self.outcomes = named_outcomes(payoff, k, actions, common, stochastic)
        else:
            check_unused("a nested list", k=(k, -100.0), actions=(actions, 2))
            self.outcomes = outcomes_of(payoff, common, stochastic)
        self.payoff = payoff
        self.horizon = horizon
        self.discount = discount
        self.success_reward = success_reward
        self.memory = memory
        self.action_spaces = tuple(Discrete(size) for size in self.outcomes.shape[2:])
        joint_actions = math.prod(self.outcomes.shape[2:])
        self.observations = (Discrete(1 + joint_actions * memory),) * len(self.action_spaces)
        if memory:
            self.state_names = ("start", *(f"after {name}" for name in joint_names(self.action_spaces)))
            self.metrics = (TIT_FOR_TAT_SHARE, NEAR_UNIFORM) if self.outcomes.shape[2:] == (2, 2) else ()
        self.symmetric = _is_symmetric(self.outcomes)
        self._optimal = _common_optimum(self.expected_payoff)
        self._tables: dict[tuple[torch.device, torch.dtype], Tensor] = Kept()
        self._constants: dict[object, Tensor] = Kept()

    @property
    def expected_payoff(self) -> Tensor:
        """The mean payoff over outcomes, float64, `agents x A1 x ... x An`."""
        return self.outcomes.mean(0)

    def reset(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None = None
    ) -> State:
        """Return the start, with observation 0."""
        return {
            "obs": self._constant((replicates, environments), 0, torch.int64, device),
            "rewards": self._constant((replicates, environments, self.agents), 0, dtype, device),
        }

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        """Play one joint action, see `Game.step`."""
        obs = state["obs"]
        shape = obs.shape
        check_actions(self.action_spaces, actions, shape)
        table = self._table(obs.device, state["rewards"].dtype)
        cell = tuple(actions)
        if table.shape[0] > 1:
            rewards = table[(torch.randint(table.shape[0], shape, device=obs.device), *cell)]
        else:
            rewards = table[0][cell]
        if self.memory:
            obs = joint_action(self.action_spaces, cell) + 1
        terminated = self._constant(shape, self.horizon == 1, torch.bool, obs.device)
        return Step({"obs": obs, "rewards": rewards}, rewards, terminated)

    def is_optimal(self, actions: Sequence[Tensor]) -> Tensor | None:
        """Whether joint actions maximise every agent's expected payoff at once, including ties.

        `None` if no joint action does (prisoner's dilemma, chicken, battle of the sexes, matching pennies).
        """
        if self._optimal is None:
            return None
        return self._optimal.to(actions[0].device)[tuple(actions)]

    def dynamics(self) -> Dynamics:
        """The rules as tables: with memory, the next state is the last joint action; one-shot games terminate."""
        states, shape = self.observations[0].features, self.outcomes.shape[2:]
        initial = torch.zeros(states, dtype=torch.float64)
        initial[0] = 1
        joint = math.prod(shape)
        following = torch.zeros(joint, states, dtype=torch.float64)
        if self.memory:
            following[:, 1:] = torch.eye(joint, dtype=torch.float64)
        elif self.horizon != 1:
            following[:, 0] = 1
        return Dynamics(
            initial,
            following.view(1, *shape, states).expand(states, *shape, states),
            self.expected_payoff.unsqueeze(1).expand(-1, states, *shape),
        )

    def scores(self, policies: Sequence[Tensor]) -> dict[str, Tensor]:
        """Closeness of memory-one policies of two agents with two actions each to tit-for-tat and to one half.

        These are the fractions of the five states in which both agents' probability of action 0 differs by less than
        0.5 from that of tit-for-tat (`tit_for_tat`), and by less than 0.25 from 1/2 (`near_uniform`). Averaged over
        replicates they are the %TFT and %Nash of Foerster et al. (2018), table 3. Other games have no scores.

        Args:
            policies: policy of each agent, `replicates x 5 x 2`.
        """
        if not self.metrics:
            return {}
        first = torch.stack([policy[..., 0] for policy in policies], -1)  # replicates x states x agents

        def share(near: Tensor) -> Tensor:
            return near.all(-1).to(first.dtype).mean(-1)

        return {
            TIT_FOR_TAT_SHARE.name: share((first - first.new_tensor(TIT_FOR_TAT)).abs() < 0.5),
            NEAR_UNIFORM.name: share((first - 0.5).abs() < 0.25),
        }

    def _table(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The payoffs with agents last, `outcomes x A1 x ... x An x agents`, cached per device and dtype."""
        key = (device, dtype)
        if key not in self._tables:
            self._tables[key] = self.outcomes.movedim(1, -1).to(device, dtype).contiguous()
        return self._tables[key]

    def _constant(self, shape: Sequence[int], value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
        """A cached constant tensor, which states share, so it must not be written to."""
        key = (tuple(shape), value, dtype, device)
        if key not in self._constants:
            self._constants[key] = torch.full(tuple(shape), value, dtype=dtype, device=device)
        return self._constants[key]


def _common_optimum(expected: Tensor) -> Tensor | None:
    """Whether every agent's expected payoff is maximal, bool `A1 x ... x An`; `None` if it never is."""
    best = expected.flatten(1).max(1).values.view(-1, *(1,) * (expected.dim() - 1))
    tolerance = 1e-12 * float(expected.abs().max())  # means over outcomes have rounding errors
    optimal = (expected >= best - tolerance).all(0)
    return optimal if bool(optimal.any()) else None


def _is_symmetric(outcomes: Tensor) -> bool:
    """Whether exchanging adjacent agents, and so any two, leaves `outcomes x agents x A1 x ... x An` unchanged."""
    for agent in range(outcomes.shape[1] - 1):
        exchanged = outcomes.transpose(2 + agent, 3 + agent).clone()
        exchanged[:, [agent, agent + 1]] = exchanged[:, [agent + 1, agent]]
        if not torch.equal(exchanged, outcomes):  # also if the numbers of actions differ
            return False
    return True
