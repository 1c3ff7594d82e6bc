"""Learners that look ahead through their opponent's step: LOLA, LookAhead and SOS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from inference_marl.described import In, NotNegative, hyperparameters
from inference_marl.inference.schedules import ByReplicate, current, over_events
from inference_marl.learners.lola.derivatives import Derivatives
from inference_marl.learners.lola.gradient import ExactGradientLearner


@hyperparameters
class OpponentShapingLearner(ExactGradientLearner):
    """Base: assumes that the opponent takes a learning step of size eta.

    Args:
        opponent_step_size: eta, the opponent's assumed learning rate.
        step_size, init_scale, update_every, forget, opponent_model, gradients: see `ExactGradientLearner`.
    """

    by_replicate = ExactGradientLearner.by_replicate | {"opponent_step_size"}

    opponent_step_size: NotNegative | ByReplicate = 1.0

    def ahead(self, change: Tensor) -> Tensor:
        """Scale a change per unit of the opponent's step size by the assumed one, both `replicates x ...`."""
        return over_events(current(self.opponent_step_size, self.updates), change.dim() - 2) * change


@hyperparameters
class Lola(OpponentShapingLearner):
    """LOLA: learning with opponent-learning awareness (Foerster et al. 2018), of any order.

    The opponent j is assumed to step by `eta f^j_(n-1)`; the learner accounts for how its parameters shape that step::

        f^i_0 = grad_i V^i
        f^i_n = grad_i V^i + eta grad_i [f^j_(n-1) . stop(grad_j V^i)]

    where `stop` marks a constant. Order 1 is the paper's LOLA (section 4.2), which assumes a naive opponent; order 2
    assumes a LOLA opponent of order 1. The paper has results for order 2, but no formula. With the factor also constant
    inside the opponent's step, as here, first against second order agrees with the paper (-1.16, -1.17 in the
    prisoner's dilemma, there -1.14, -1.17); otherwise the result is -1.28, -1.30.

    With `look_ahead` nothing is constant. The learner's gradient is then also evaluated after the opponent's step,
    which gives the gradient of `V^i(theta^i, theta^j + eta f^j_(n-1))` to first order in eta::

        f^i_n = grad_i V^i + eta grad_i [f^j_(n-1) . grad_j V^i]

    The paper and its code omit this; others, such as Letcher et al. (2019), include it in LOLA.

    Args:
        order: n, at least 1.
        look_ahead: whether to differentiate through everything, as above.
        opponent_step_size, step_size, init_scale, update_every, forget, opponent_model, gradients: see the bases.
    """

    order: Annotated[int, In("a positive integer", "; order 0 is NaiveGradient")] = 1
    look_ahead: bool = False

    def direction(self, at: Derivatives) -> Tensor:
        """The direction of the learner's order."""
        return self._of_order(self.order, self.seat.index, at)

    def _of_order(self, order: int, i: int, at: Derivatives) -> Tensor:
        """The direction of agent i at the given order."""
        j = 1 - i
        gradients = at.gradients(i)
        if order == 0:
            return gradients[i]
        weight = gradients[j] if self.look_ahead else gradients[j].detach()
        if order == 1:  # the derivative of the opponent's gradient is a block of the Hessian
            shaping = at.change(of=j, wrt=i, direction=weight)
        else:
            pull_back = torch.func.vjp(lambda own: self._of_order(order - 1, j, at.moved(i, own)), at.parameters[i])[1]
            (shaping,) = pull_back(weight)
        if self.look_ahead:
            shaping = shaping + at.change(of=i, wrt=i, direction=self._of_order(order - 1, j, at))
        return gradients[i] + self.ahead(shaping)


@hyperparameters
class LookAhead(OpponentShapingLearner):
    """LookAhead: the agent's own gradient after the opponent's step, without shaping (Zhang and Lesser 2010)::

        f^i = grad_i V^i + eta (d grad_i V^i / d theta^j) grad_j V^j

    to first order in eta, as in Letcher et al. (2019, section 2.2).
    """

    def direction(self, at: Derivatives) -> Tensor:
        """The agent's own gradient plus its change by the opponent's step."""
        i, j = self.seat.index, 1 - self.seat.index
        change = at.change(of=i, wrt=i, direction=at.gradients(j)[j])
        return at.gradients(i)[i] + self.ahead(change)


@hyperparameters
class StableOpponentShaping(OpponentShapingLearner):
    """SOS: LookAhead with as much shaping as preserves its convergence (Letcher et al. 2019, algorithm 1)::

        xi_0^i = grad_i V^i + eta (d grad_i V^i / d theta^j) grad_j V^j    # LookAhead
        chi^i  = eta (d grad_j V^j / d theta^i)^T grad_j V^i               # shaping
        f^i    = xi_0^i + p chi^i                                          # p = 0: LookAhead, p = 1: LOLA
        p      = min(p_1, p_2)
        p_1    = min(1, -a |xi_0|^2 / <chi, xi_0>), and 1 where <chi, xi_0> >= 0
        p_2    = |xi|^2 where |xi| < b, and 1 elsewhere, with xi^i = grad_i V^i

    Norms and products are over both agents' parameters: an agent computes p as if the other agent also used SOS.

    Args:
        a: in (0, 1), limits how far shaping may turn a step.
        b: in (0, 1), gradient norm below which shaping fades.
        opponent_step_size, step_size, init_scale, update_every, forget, opponent_model, gradients: see the bases.
    """

    a: Annotated[float, In("a number in (0, 1)")] = 0.5
    b: Annotated[float, In("a number in (0, 1)")] = 0.1

    def direction(self, at: Derivatives) -> Tensor:
        """The direction of algorithm 1."""
        values = [at.gradients(agent) for agent in (0, 1)]
        xi = [values[agent][agent] for agent in (0, 1)]
        ahead = [xi[i] + self.ahead(at.change(of=i, wrt=i, direction=xi[1 - i])) for i in (0, 1)]
        shaping = [self.ahead(at.change(of=1 - i, wrt=i, direction=values[i][1 - i])) for i in (0, 1)]
        turning, length, gradient = _product(shaping, ahead), _product(ahead, ahead), _product(xi, xi)
        bounded = torch.where(turning < 0, (-self.a * length / turning).clamp_max(1), 1.0)
        share = torch.minimum(bounded, torch.where(gradient < self.b**2, gradient, 1.0))
        i = self.seat.index
        return ahead[i] + share.view(-1, 1, 1) * shaping[i]


def _product(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """The inner product over both agents' parameters, `replicates`."""
    return torch.stack([(x * y).flatten(1).sum(1) for x, y in zip(one, other, strict=True)]).sum(0)
