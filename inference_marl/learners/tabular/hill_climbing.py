"""Policy hill climbing, and its "win or learn fast" form: a policy that follows the best action in small steps."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from inference_marl.inference.schedules import Schedule, as_rate
from inference_marl.inference.tables import mean_per_cell
from inference_marl.learners.tabular.exploration import EpsilonGreedy, greedy
from inference_marl.learners.tabular.independent_q import IndependentQ
from inference_marl.types import Experience


class PHC(IndependentQ):
    """Policy hill climbing (Bowling and Veloso 2002, PHC): Q-learning whose policy climbs towards the best action::

        d(a) = min(pi(s, a), delta / (actions - 1))                 delta: policy_rate
        pi(s, a) <- pi(s, a) - d(a)                                 if a is not the best action
        pi(s, a) <- pi(s, a) + sum of d over those that are not     if it is

    so the policy stays on the simplex. Values bootstrap from `max_a' Q(s', a')`, whatever the policy. Where several
    actions are best they share the sum, which the paper leaves open: the first of them alone would favour actions by
    their number. A state that several environments visit moves once.

    Args:
        policy_rate: delta in (0, 1], how much probability moves in a step; number or schedule over updates.
        rate, discount, initial: as for `ValueLearner`; the paper's values start at 0.
        epsilon: share of uniformly random actions on top of the policy, in [0, 1]; number or schedule over updates. The
            paper asks for "suitable exploration"; the policy itself is some while it is mixed.
        initial_policy: `uniform`, as in the paper, or `random`, drawn for every state uniformly from the simplex, as in
            the public code of the ROMMEO comparison (mapr2).
        step: `every_action`, the step above, or `played_action`, that of mapr2: only the probability of the action just
            played moves, by `delta` if it is the best and else by `-delta / (actions - 1)`; then all are raised by what
            a negative one lacks to 0, and scaled to sum to 1.

    Raises:
        ValueError: if an argument is out of its range.
    """

    policy: Tensor
    exploration: EpsilonGreedy

    def __init__(
        self,
        policy_rate: float | Schedule = 0.01,
        rate: float | Schedule = 0.1,
        discount: float = 0.95,
        initial: float | tuple[float, float] = 0.0,
        epsilon: float | Schedule = 0.0,
        initial_policy: Literal["uniform", "random"] = "uniform",
        step: Literal["every_action", "played_action"] = "every_action",
    ) -> None:
        super().__init__(EpsilonGreedy(epsilon), rate, discount, initial)
        self.policy_rate = as_rate("policy_rate", policy_rate)
        for name, got, known in [
            ("initial_policy", initial_policy, ("uniform", "random")),
            ("step", step, ("every_action", "played_action")),
        ]:
            if got not in known:
                raise ValueError(f"{name}: got {got!r}, expected {' or '.join(known)}")
        self.initial_policy, self.step = initial_policy, step

    def setup(self) -> None:
        """Check the seat and make the tables: values and `policy`, `replicates x states x actions`."""
        super().setup()
        self.table("policy", self.states, self.actions, fill=1 / self.actions)
        if self.initial_policy == "random":
            self.policy.exponential_()
            self.policy /= self.policy.sum(-1, keepdim=True)

    def preferences(self, obs: Tensor) -> Tensor:
        """The policy without exploration, `replicates x batch x actions`."""
        return self.policy[self.seat.rows, obs]

    def forward(self, obs: Tensor) -> Tensor:
        """The policy, and uniformly random actions with probability epsilon, `replicates x batch x actions`."""
        return self.exploration.mix(self.preferences(obs), self.updates)

    def learn(self, seen: Experience) -> None:
        """Learn values, then step the policy of the visited states."""
        super().learn(seen)
        rows, obs = self.seat.rows, seen.obs
        policy, values = self.policy[rows, obs], self.values[rows, obs]
        delta = self.steps(obs, policy, values)
        if self.step == "every_action":
            policy = climb(policy, values, delta)
        else:
            change = played_change(values, seen.action, delta)
            cell = obs.unsqueeze(-1) * self.actions + torch.arange(self.actions, device=obs.device)
            change = mean_per_cell(self.states * self.actions, cell.flatten(1), change.flatten(1)).view_as(policy)
            policy = policy + change
            policy = policy - policy.amin(-1, keepdim=True).clamp_max(0)
        self.policy[rows, obs] = policy / policy.sum(-1, keepdim=True)

    def steps(self, obs: Tensor, policy: Tensor, values: Tensor) -> Tensor | float:
        """How far policies step, a number or `replicates x batch x 1`: `policy_rate`, unless overridden.

        Args:
            obs: the states visited, `replicates x batch`.
            policy: their policies, `replicates x batch x actions`.
            values: their values, `replicates x batch x actions`.
        """
        return self.policy_rate(self.updates)


class WoLFPHC(PHC):
    """Win or learn fast: hill climbing in small steps while winning (Bowling and Veloso 2001, 2002, WoLF-PHC).

    An agent wins in a state if its policy is worth more than its average policy over all visits of the state so far::

        average(s, .) <- average(s, .) + (pi(s, .) - average(s, .)) / visits(s)
        delta = policy_rate_winning if sum_a pi(s, a) Q(s, a) > sum_a average(s, a) Q(s, a) else policy_rate_losing

    Args:
        policy_rate_winning, policy_rate_losing: delta while winning and while losing, in (0, 1], the second not the
            smaller; numbers or schedules over updates.
        rate, discount, initial, epsilon, initial_policy, step: as for `PHC`.

    Raises:
        ValueError: if a number is out of its range, or steps are larger while winning.
    """

    average: Tensor
    visits: Tensor

    def __init__(
        self,
        policy_rate_winning: float | Schedule = 0.0025,
        policy_rate_losing: float | Schedule = 0.005,
        rate: float | Schedule = 0.1,
        discount: float = 0.95,
        initial: float | tuple[float, float] = 0.0,
        epsilon: float | Schedule = 0.0,
        initial_policy: Literal["uniform", "random"] = "uniform",
        step: Literal["every_action", "played_action"] = "every_action",
    ) -> None:
        losing = as_rate("policy_rate_losing", policy_rate_losing)
        super().__init__(losing, rate, discount, initial, epsilon, initial_policy, step)
        self.policy_rate_winning, self.policy_rate_losing = as_rate("policy_rate_winning", policy_rate_winning), losing
        if self.policy_rate_winning(0) > losing(0):
            raise ValueError(
                f"policy_rate_winning: got {self.policy_rate_winning(0)} at the first update, expected at most "
                f"policy_rate_losing = {losing(0)}: it learns fast when it loses; exchange the two"
            )

    def setup(self) -> None:
        """Make the tables of `PHC`, the average policy, and the number of visits, `replicates x states`."""
        super().setup()
        self.table("average", self.states, self.actions)
        self.table("visits", self.states)

    def steps(self, obs: Tensor, policy: Tensor, values: Tensor) -> Tensor | float:
        """Move the average policies, and say how far policies step, `replicates x batch x 1`."""
        rows = self.seat.rows
        visits = self.visits[rows, obs] + 1
        average = torch.lerp(self.average[rows, obs], policy, visits.reciprocal().unsqueeze(-1))
        self.visits[rows, obs], self.average[rows, obs] = visits, average
        winning = ((policy - average) * values).sum(-1, keepdim=True) > 0
        small, large = self.policy_rate_winning(self.updates), self.policy_rate_losing(self.updates)
        return torch.where(winning, values.new_tensor(small), values.new_tensor(large))


def climb(policy: Tensor, values: Tensor, delta: Tensor | float) -> Tensor:
    """The policy after a step towards its best actions (Bowling and Veloso 2002), `... x actions`.

    Args:
        policy: `... x actions`.
        values: `... x actions`.
        delta: a number or `... x 1`.
    """
    best = greedy(values)
    limit = torch.as_tensor(delta, dtype=policy.dtype, device=policy.device) / max(policy.shape[-1] - 1, 1)
    loss = torch.where(best > 0, 0.0, torch.minimum(policy, limit))
    return policy - loss + best * loss.sum(-1, keepdim=True)


def played_change(values: Tensor, action: Tensor, delta: Tensor | float) -> Tensor:
    """What the step of the played action alone adds to a policy, before it is made one again, `... x actions`.

    Args:
        values: `... x actions`.
        action: the one played, `...`.
        delta: a number or `... x 1`.
    """
    actions = values.shape[-1]
    best = values.gather(-1, action.unsqueeze(-1)) == values.amax(-1, keepdim=True)
    share = torch.where(best, values.new_tensor(1.0), values.new_tensor(-1.0 / max(actions - 1, 1)))
    return one_hot(action, actions) * share * delta
