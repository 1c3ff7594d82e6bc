"""Derivatives of two agents' values with respect to their parameters, for opponent-shaping learners.

The agents' values V^1, V^2 (not normalised) are functions of both agents' parameters, theta^1 and theta^2. The rules of
the LOLA family combine two kinds of derivatives, where j is the agent other than i::

    grad_1 V^k, grad_2 V^k                                   `gradients(of=k)`
    d/de grad_i V^k(theta^i, theta^j + e u) at e = 0         `change(of=k, wrt=i, direction=u)`

The second is a block of the Hessian of V^k times a vector, `sum_t d^2 V^k / (dtheta^i_s dtheta^j_t) u_t`. `Autograd`
computes both with torch.func, for any policies, and `ClosedForm` by the policy gradient theorem, for free logits.

Replicates are independent, so the gradient of a sum over replicates contains each replicate's gradient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from inference_marl.inference.returns import state_values
from inference_marl.types import Dynamics

PolicyMap = Callable[[Tensor], Tensor]
"""Maps an agent's parameters, `replicates x ...`, to its policy in every state, `replicates x states x actions`."""


def free_logits(logits: Tensor) -> Tensor:
    """The policy of free logits per state, `replicates x states x (actions - 1)` to `replicates x states x actions`.

    The last action's logit is 0, so with two actions the single logit is that of the first action's probability.
    """
    return _probabilities(logits).movedim(-1, 0)


@dataclass(frozen=True)
class Derivatives(ABC):
    """Base: derivatives at one pair of parameters.

    Attributes:
        dynamics: the game, of two agents, on the device of the parameters.
        discount: gamma; `None` for games that always terminate.
        policies: maps from each agent's parameters to its policy.
        parameters: theta^1 and theta^2, `replicates x ...`.
    """

    dynamics: Dynamics
    discount: float | None
    policies: tuple[PolicyMap, PolicyMap]
    parameters: tuple[Tensor, Tensor]

    def moved(self, agent: int, parameters: Tensor) -> Self:
        """The derivatives with one agent's parameters replaced."""
        changed = (parameters, self.parameters[1]) if agent == 0 else (self.parameters[0], parameters)
        return replace(self, parameters=changed)

    @abstractmethod
    def gradients(self, of: int) -> tuple[Tensor, Tensor]:
        """The gradients of agent `of`'s value with respect to each agent's parameters, in their shapes."""

    @abstractmethod
    def change(self, of: int, wrt: int, direction: Tensor) -> Tensor:
        """The directional derivative of agent `of`'s gradient in agent `wrt`'s parameters, in the shape of the latter.

        Args:
            of: the agent whose value is differentiated.
            wrt: the agent with respect to whose parameters the gradient is taken.
            direction: direction in the parameters of the agent other than `wrt`, in their shape.
        """


class Autograd(Derivatives):
    """Derivatives by torch.func, for any policies; second derivatives in reverse mode over reverse mode."""

    def gradients(self, of: int) -> tuple[Tensor, Tensor]:
        """See `Derivatives`."""
        first, second = torch.func.grad(lambda *both: self._total(of, *both), argnums=(0, 1))(*self.parameters)
        return first, second

    def change(self, of: int, wrt: int, direction: Tensor) -> Tensor:
        """See `Derivatives`; the Hessian is symmetric, so this is the gradient of a directional derivative."""

        def along(own: Tensor) -> Tensor:
            both = self.moved(wrt, own).parameters
            gradient = torch.func.grad(lambda *each: self._total(of, *each), argnums=1 - wrt)(*both)
            total: Tensor = (gradient * direction).sum()
            return total

        change: Tensor = torch.func.grad(along)(self.parameters[wrt])
        return change

    def _total(self, of: int, *parameters: Tensor) -> Tensor:
        """An agent's value, summed over replicates."""
        played = [policy(own) for policy, own in zip(self.policies, parameters, strict=True)]
        values = state_values(self.dynamics, played, self.discount)[:, of]
        return values.sum(0) @ self.dynamics.initial


class ClosedForm(Derivatives):
    """Derivatives for free logits, by the policy gradient theorem (Sutton et al. 2000) and its derivative::

        dV^k / dtheta^i(s, a) = d(s) pi^i(a | s) (Q^k_i(s, a) - sum_a' pi^i(a' | s) Q^k_i(s, a'))

    with discounted visitations `d = p_0 + gamma P^T d`, and `Q^k_i(s, a)` the value to agent k of agent i's action a
    under the other agent's policy. If the latter changes by `dpi^j`, the joint policy changes by `dpi = pi^i dpi^j`
    and::

        dd = gamma N^T sum_sa d(s) dpi(a | s) T(. | s, a)    dV^k = N sum_a dpi(a | .) Q^k(., a)    N = (I - gamma P)^-1

    Internally, tensors are float64 with replicates as the last dimension, for speed.
    """

    def gradients(self, of: int) -> tuple[Tensor, Tensor]:
        """See `Derivatives`."""
        q, visits = self._q(of), self._visits.unsqueeze(1)
        first, second = (self._in_logits(i, visits * _of_action(q, i, self._played)) for i in (0, 1))
        return first, second

    def change(self, of: int, wrt: int, direction: Tensor) -> Tensor:
        """See `Derivatives`."""
        played, q, visits = self._played, self._q(of), self._visits.unsqueeze(1)
        moved = _centred(played[1 - wrt], _with_last(direction))
        moving = (played[0], moved) if wrt == 0 else (moved, played[1])
        joint = _joint(moving)
        visits_change = _sum_of(self._inverse, self._transition.T @ (visits.unsqueeze(1) * joint).flatten(0, 2), 0)
        q_change = self._following(_sum_of(self._inverse, (joint * q).sum((1, 2)), 1))
        of_action_change = _of_action(q, wrt, moving) + _of_action(q_change, wrt, played)
        change = visits_change.unsqueeze(1) * _of_action(q, wrt, played) + visits * of_action_change
        return self._in_logits(wrt, change)

    @cached_property
    def _played(self) -> tuple[Tensor, Tensor]:
        """Both policies, `states x actions_i x replicates`."""
        first, second = (_probabilities(own) for own in self.parameters)
        return first, second

    @cached_property
    def _transition(self) -> Tensor:
        """Discounted probabilities of the next state, with one index for state and actions, `joint x states`."""
        return (1.0 if self.discount is None else self.discount) * self.dynamics.transition.flatten(0, 2)

    @cached_property
    def _inverse(self) -> Tensor:
        """N, `states x states x replicates`."""
        states = len(self.dynamics.initial)
        onward = self._transition.view(states, -1, states).transpose(1, 2)
        chain = (onward @ _joint(self._played).flatten(1, 2)).permute(2, 0, 1)
        inverse: Tensor = torch.linalg.inv(torch.eye(states, dtype=chain.dtype, device=chain.device) - chain)
        return inverse.permute(1, 2, 0).contiguous()

    @cached_property
    def _visits(self) -> Tensor:
        """d, `states x replicates`."""
        return (self.dynamics.initial.view(-1, 1, 1) * self._inverse).sum(0)

    def _q(self, of: int) -> Tensor:
        """An agent's values of joint actions, `states x actions_1 x actions_2 x replicates`."""
        pays = self.dynamics.reward[of].unsqueeze(-1)
        return pays + self._following(_sum_of(self._inverse, (_joint(self._played) * pays).sum((1, 2)), 1))

    def _following(self, value: Tensor) -> Tensor:
        """Discounted value of the next state, from values `states x replicates`; shaped as `_q`."""
        return (self._transition @ value).view(*self.dynamics.reward.shape[1:], -1)

    def _in_logits(self, agent: int, of_action: Tensor) -> Tensor:
        """Convert derivatives with respect to an agent's action probabilities to those for its logits."""
        logits = _centred(self._played[agent], of_action)[:, :-1].movedim(-1, 0)
        return logits.to(self.parameters[agent].dtype)


def _with_last(logits: Tensor) -> Tensor:
    """Append a 0 for the last action, float64, `states x actions x replicates`."""
    return torch.nn.functional.pad(logits.double(), (0, 1)).movedim(0, -1).contiguous()


def _probabilities(logits: Tensor) -> Tensor:
    """The policy of free logits, `states x actions x replicates`."""
    return torch.softmax(_with_last(logits), 1)


def _centred(policy: Tensor, of_action: Tensor) -> Tensor:
    """The Jacobian of the softmax, which is symmetric, times a vector: `pi(a) (x(a) - sum_a' pi(a') x(a'))`."""
    weighted = policy * of_action
    return weighted - policy * weighted.sum(1, keepdim=True)


def _joint(policies: tuple[Tensor, Tensor]) -> Tensor:
    """Products over all pairs of actions, `states x actions_1 x actions_2 x replicates`."""
    return policies[0].unsqueeze(2) * policies[1].unsqueeze(1)


def _of_action(q: Tensor, agent: int, weights: tuple[Tensor, Tensor]) -> Tensor:
    """Values of joint actions, summed with weights over the other agent's, `states x actions x replicates`."""
    return (q * weights[1].unsqueeze(1)).sum(2) if agent == 0 else (q * weights[0].unsqueeze(2)).sum(1)


def _sum_of(matrix: Tensor, vector: Tensor, index: int) -> Tensor:
    """Matrix-vector product over the given index of the matrix, `states x replicates`."""
    return (matrix * vector.unsqueeze(1 - index)).sum(index)
