"""Policy hill climbing and WoLF-PHC: the policy moves towards the best action in small steps."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from inference_marl.described import Probability, Rate, hyperparameters
from inference_marl.inference.schedules import Number, Schedule, current, each, filled, over_events
from inference_marl.inference.tables import mean_per_cell
from inference_marl.learners.tabular.exploration import EpsilonGreedy, Exploration, greedy
from inference_marl.learners.tabular.independent_q import IndependentQ
from inference_marl.types import Experience


@hyperparameters
class PHC(IndependentQ):
    """PHC, policy hill climbing: Q-learning whose policy moves towards the best action (Bowling and Veloso 2002)::

        d(a) = min(pi(s, a), delta / (actions - 1))                 delta: policy_rate
        pi(s, a) <- pi(s, a) - d(a)                                 if a is not the best action
        pi(s, a) <- pi(s, a) + sum of d over the other actions      if it is

    so the policy stays on the simplex. Values bootstrap from `max_a' Q(s', a')`, independently of the policy. Tied best
    actions share the sum, which the paper leaves open: choosing the first would favour actions by their number. A state
    visited by several environments is updated once.

    Args:
        policy_rate: delta in (0, 1], the probability moved per step; a number or a schedule over updates.
        rate, discount, initial: see `ValueLearner`; the paper's values start at 0.
        epsilon: fraction of uniformly random actions on top of the policy, in [0, 1]; a number or a schedule over
            updates. The paper asks for "suitable exploration"; a mixed policy already explores.
        initial_policy: `uniform`, as in the paper, or `random`, drawn for every state uniformly from the simplex, as in
            the public code of the ROMMEO comparison (mapr2).
        step: `every_action`, the step above, or `played_action`, that of mapr2: only the probability of the action just
            played changes, by `delta` if it is the best and otherwise by `-delta / (actions - 1)`; if it becomes
            negative, all are shifted up by its deficit, and then all are normalised.
    """

    by_replicate = IndependentQ.by_replicate | {"policy_rate", "epsilon"}

    exploration: Exploration = field(init=False)
    policy_rate: Rate | Schedule = 0.01
    epsilon: Probability | Schedule = 0.0
    initial_policy: Literal["uniform", "random"] = "uniform"
    step: Literal["every_action", "played_action"] = "every_action"
    strategy: Tensor = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.exploration = self._mixing = EpsilonGreedy(self.epsilon)

    def setup(self) -> None:
        """Check the seat and create the tables: values and `strategy`, `replicates x states x actions`."""
        super().setup()
        self.table("strategy", self.states, self.actions, fill=1 / self.actions)
        if self.initial_policy == "random":
            self.strategy.exponential_()
            self.strategy /= self.strategy.sum(-1, keepdim=True)

    def preferences(self, obs: Tensor) -> Tensor:
        """The policy without exploration, `replicates x batch x actions`."""
        return self.strategy[self.seat.rows, obs]

    def forward(self, obs: Tensor) -> Tensor:
        """The policy mixed with uniformly random actions at rate epsilon, `replicates x batch x actions`."""
        return self._mixing.mix(self.preferences(obs), self.updates)

    def update(self, seen: Experience) -> None:
        """Update the values, then the policy in the visited states."""
        super().update(seen)
        rows, obs = self.seat.rows, seen.obs
        policy, values = self.strategy[rows, obs], self.values[rows, obs]
        delta = self.steps(obs, policy, values)
        if self.step == "every_action":
            policy = climb(policy, values, delta)
        else:
            change = played_change(values, seen.action, delta)
            cell = obs.unsqueeze(-1) * self.actions + torch.arange(self.actions, device=obs.device)
            change = mean_per_cell(self.states * self.actions, cell.flatten(1), change.flatten(1)).view_as(policy)
            policy = policy + change
            policy = policy - policy.amin(-1, keepdim=True).clamp_max(0)
        self.strategy[rows, obs] = policy / policy.sum(-1, keepdim=True)

    def steps(self, obs: Tensor, policy: Tensor, values: Tensor) -> Number:
        """Step sizes of the policies: `policy_rate`, unless overridden.

        A number, or `replicates x batch x 1`, or `replicates x 1 x 1`.

        Args:
            obs: the states visited, `replicates x batch`.
            policy: the policies there, `replicates x batch x actions`.
            values: the action values there, `replicates x batch x actions`.
        """
        return over_events(current(self.policy_rate, self.updates), 1)


@hyperparameters
class WoLFPHC(PHC):
    """WoLF-PHC, win or learn fast: PHC with smaller steps while winning (Bowling and Veloso 2001, 2002).

    An agent wins in a state if its policy has a higher value than its average policy over all visits to the state::

        average(s, .) <- average(s, .) + (pi(s, .) - average(s, .)) / visits(s)
        delta = policy_rate_winning if sum_a pi(s, a) Q(s, a) > sum_a average(s, a) Q(s, a) else policy_rate_losing

    Args:
        policy_rate_winning, policy_rate_losing: delta while winning and while losing, in (0, 1]; the first must not
            exceed the second; numbers or schedules over updates.
        rate, discount, initial, epsilon, initial_policy, step: see `PHC`.

    Raises:
        ValueError: if a number is out of range, or the initial step is larger while winning.
    """

    by_replicate = PHC.by_replicate | {"policy_rate_winning", "policy_rate_losing"}

    policy_rate: Rate | Schedule = field(init=False)
    policy_rate_winning: Rate | Schedule = 0.0025
    policy_rate_losing: Rate | Schedule = 0.005
    average: Tensor = field(init=False)
    visits: Tensor = field(init=False)

    def __post_init__(self) -> None:
        rates = {"policy_rate_winning": self.policy_rate_winning, "policy_rate_losing": self.policy_rate_losing}
        self.policy_rate = self.policy_rate_losing
        super().__post_init__()
        slow, fast = (each(rate, 0) for rate in rates.values())
        for i in range(groups := math.lcm(len(slow), len(fast))):
            winning, losing = (numbers[i * len(numbers) // groups] for numbers in (slow, fast))
            if winning > losing:
                raise ValueError(
                    f"policy_rate_winning: got {winning} at the first update, expected at most policy_rate_losing = "
                    f"{losing}: it learns fast when it loses; exchange the two"
                )

    def setup(self) -> None:
        """Create the tables of `PHC`, the average policy, and the number of visits, `replicates x states`."""
        super().setup()
        self.table("average", self.states, self.actions)
        self.table("visits", self.states)

    def steps(self, obs: Tensor, policy: Tensor, values: Tensor) -> Number:
        """Update the average policies and return the step sizes, `replicates x batch x 1`."""
        rows = self.seat.rows
        visits = self.visits[rows, obs] + 1
        average = torch.lerp(self.average[rows, obs], policy, visits.reciprocal().unsqueeze(-1))
        self.visits[rows, obs], self.average[rows, obs] = visits, average
        winning = ((policy - average) * values).sum(-1, keepdim=True) > 0
        rates = (self.policy_rate_winning, self.policy_rate_losing)
        small, large = (over_events(current(rate, self.updates), 1) for rate in rates)
        return torch.where(winning, small, filled(large, values[..., :1]))


def climb(policy: Tensor, values: Tensor, delta: Number) -> Tensor:
    """The policy after a step of size `delta` towards its best actions (Bowling and Veloso 2002), `... x actions`."""
    best = greedy(values)
    limit = torch.as_tensor(delta, dtype=policy.dtype, device=policy.device) / max(policy.shape[-1] - 1, 1)
    loss = torch.where(best > 0, 0.0, torch.minimum(policy, limit))
    return policy - loss + best * loss.sum(-1, keepdim=True)


def played_change(values: Tensor, action: Tensor, delta: Number) -> Tensor:
    """The change of the played action's probability, before renormalisation, `... x actions`; see `PHC`'s `step`."""
    actions = values.shape[-1]
    best = values.gather(-1, action.unsqueeze(-1)) == values.amax(-1, keepdim=True)
    share = torch.where(best, values.new_tensor(1.0), values.new_tensor(-1.0 / max(actions - 1, 1)))
    return one_hot(action, actions) * share * delta
