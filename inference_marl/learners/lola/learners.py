"""Gradient learners that know the game: naive ones, and those that shape how their opponent learns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.inference.returns import discount_factor
from inference_marl.inference.tables import check_finite
from inference_marl.learners.lola.derivatives import Autograd, ClosedForm, Derivatives, Policy, free_logits
from inference_marl.learners.tabular.base import TabularLearner
from inference_marl.types import Dynamics, Experience, Learner, Transition


class ExactGradientLearner(TabularLearner):
    """Base: follows derivatives of the exact values of a two-agent game with free logits per state::

        pi(a | s) = softmax(theta(s, .))(a)        theta <- theta + delta f(theta, theta')

    The last action's logit is 0, so for two actions this is the sigmoid of Foerster et al. (2018). Values are not
    normalised, and are discounted by the game's `discount`. A subclass defines `direction`, f.

    What the opponent plays and how that depends on its parameters theta' is read off the opponent if it is
    `differentiable`, whatever its parameters are, as long as they lead with replicates. Otherwise theta' are the logits
    of an estimate of its policy, the frequencies of its actions in every state, smoothed by one imagined count each:
    LOLA with opponent modelling (Foerster et al. 2018, section 4.3) in its exact form.

    Args:
        step_size: delta, the own learning rate.
        init_scale: standard deviation of the initial logits, which are normal with mean 0.
        update_every: steps per update of the policy.
        forget: share of a state's counts of an estimated opponent that every visit to the state forgets, so that about
            its last `1 / forget` visits count; 0 weighs all the same.
        gradients: `closed` form, or `autograd`, which gives the same and is taken anyway opposite a differentiable
            learner with parameters of its own kind.

    Attributes:
        logits: theta, `replicates x states x (actions - 1)`.
        counts: of the opponent's actions, as far as it is estimated, `replicates x states x opponent_actions`.

    Raises:
        ValueError: if a number is out of its range.
    """

    reads_peers: ClassVar[bool] = True
    differentiable: ClassVar[bool] = True

    counts: Tensor

    def __init__(
        self,
        step_size: float = 1.0,
        init_scale: float = 1.0,
        update_every: int = 1,
        forget: float = 0.01,
        gradients: Literal["closed", "autograd"] = "closed",
    ) -> None:
        super().__init__()
        for name, number in [("step_size", step_size), ("init_scale", init_scale)]:
            if not number >= 0:
                raise ValueError(f"{name}: got {number}, expected a number that is not negative")
        if update_every < 1:
            raise ValueError(f"update_every: got {update_every}, expected a positive integer")
        if not 0 <= forget < 1:
            raise ValueError(f"forget: got {forget}, expected a number in [0, 1)")
        if gradients not in ("closed", "autograd"):
            raise ValueError(f"gradients: got {gradients!r}, expected closed or autograd")
        self.step_size, self.init_scale = step_size, init_scale
        self.update_every, self.forget, self.gradients = update_every, forget, gradients

    def setup(self) -> None:
        """Check the seat and draw the logits.

        Raises:
            IncompatibleError: if there are not two agents with finitely many actions, or the game's rules are not
                known, or it has no discount and may go on for ever.
        """
        super().setup()
        seat, name = self.seat, type(self).__name__
        if len(seat.opponents) != 1:
            raise IncompatibleError(
                f"{name} got {len(seat.action_spaces)} agents, expected 2: it looks at the learning of one opponent; "
                "choose another learner, or a game of two"
            )
        rules, self.discount = self.known_rules()
        self.dynamics = Dynamics(
            rules.initial.to(seat.device), rules.transition.to(seat.device), rules.reward.to(seat.device)
        )
        try:
            discount_factor(rules.transition, self.discount)
        except ValueError as error:
            raise IncompatibleError(f"{name} needs exact values: {error}") from error
        shape = (seat.replicates, self.states, self.actions - 1)
        self.logits = torch.nn.Parameter(torch.randn(shape, dtype=seat.dtype, device=seat.device) * self.init_scale)
        self.table("counts", self.states, self.opponent_actions)

    def forward(self, obs: Tensor) -> Tensor:
        """The policy, `replicates x batch x actions`."""
        return free_logits(self.logits[self.seat.rows, obs]).to(self.seat.dtype)

    @abstractmethod
    def direction(self, at: Derivatives) -> Tensor:
        """f, the direction of the own step, `replicates x states x (actions - 1)`.

        Args:
            at: derivatives at both agents' present parameters, in seat order.
        """

    @torch.no_grad()
    def update(self, batch: Transition, peers: Sequence[Learner]) -> None:
        """Watch an opponent that has to be estimated, and take a step of one's own.

        Raises:
            NonFiniteError: if the direction of the step is not finite.
            IncompatibleError: if a differentiable opponent has parameters that do not lead with replicates.
        """
        opponent = peers[self.seat.opponents[0]]
        if not opponent.differentiable:
            self.learn(batch.seen_by(self.seat))
        self.updates += 1
        if self.updates % self.update_every == 0:
            direction = self.direction(self.derivatives(opponent))
            check_finite("gradient", direction.flatten(1))
            self.logits.add_(direction, alpha=self.step_size)

    def learn(self, seen: Experience) -> None:
        """Count what the opponent did; the states in which it was seen forget first."""
        once = torch.ones_like(seen.obs, dtype=self.counts.dtype)
        visits = torch.zeros_like(self.counts[..., 0]).scatter_add_(1, seen.obs, once)
        self.counts.mul_((1 - self.forget) ** visits.unsqueeze(-1))
        self.counts.flatten(1).scatter_add_(1, seen.obs * self.opponent_actions + seen.opponent_action, once)

    def opponent_model(self, obs: Tensor) -> Tensor | None:
        """The estimate of the opponent's policy, `replicates x batch x opponent_actions`; `None` if none is needed."""
        if not bool(self.counts.any()):
            return None
        smoothed = self.counts[self.seat.rows, obs] + 1
        return smoothed / smoothed.sum(-1, keepdim=True)

    def derivatives(self, opponent: Learner) -> Derivatives:
        """Derivatives at the present parameters, opposite `opponent` as it is, or as it is estimated to be."""
        parameters, policy = self._read(opponent)
        kind = ClosedForm if self.gradients == "closed" and policy is free_logits else Autograd
        mine, other = (self.logits.detach(), free_logits), (parameters.detach(), policy)
        first, second = (mine, other) if self.seat.index == 0 else (other, mine)
        return kind(self.dynamics, self.discount, (first[1], second[1]), (first[0], second[0]))

    def _read(self, opponent: Learner) -> tuple[Tensor, Policy]:
        """The opponent's parameters, `replicates x ...`, and its policy as a function of them."""
        if isinstance(opponent, ExactGradientLearner):
            return opponent.logits, free_logits
        if not opponent.differentiable:
            logarithms = (self.counts + 1).log()
            return logarithms[..., :-1] - logarithms[..., -1:], free_logits
        replicates = self.seat.replicates
        names, shapes, flat = [], [], []
        for name, parameter in opponent.named_parameters():
            if parameter.shape[:1] != (replicates,):
                raise IncompatibleError(
                    f"{type(self).__name__} got a {type(opponent).__name__} for an opponent whose parameter {name} has "
                    f"shape {tuple(parameter.shape)}, expected one that leads with replicates, {replicates}: it looks "
                    "at the learning of every replicate by itself"
                )
            names.append(name)
            shapes.append(parameter.shape)
            flat.append(parameter.reshape(replicates, -1))
        states = torch.arange(self.states, device=self.seat.device).expand(replicates, -1)
        sizes = [part.shape[1] for part in flat]

        def policy(parameters: Tensor) -> Tensor:
            parts = zip(names, parameters.split(sizes, 1), shapes, strict=True)
            given = {name: part.view(shape) for name, part, shape in parts}
            played: Tensor = torch.func.functional_call(opponent, given, (states,))
            return played

        return torch.cat(flat, 1), policy


class NaiveGradient(ExactGradientLearner):
    """Gradient ascent on the own value, as if the opponent stayed as it is: `f^i = grad_i V^i`.

    NL-Ex of Foerster et al. (2018, section 4.1).
    """

    def direction(self, at: Derivatives) -> Tensor:
        """The gradient of the own value."""
        return at.gradients(self.seat.index)[self.seat.index]


class OpponentShapingLearner(ExactGradientLearner):
    """Base: takes the opponent to make a step of its own, of size eta.

    Args:
        step_size: delta, the own learning rate.
        opponent_step_size: eta, the learning rate that the opponent is taken to have.
        init_scale: see `ExactGradientLearner`.
        update_every: see `ExactGradientLearner`.
        forget: see `ExactGradientLearner`.
        gradients: see `ExactGradientLearner`.

    Raises:
        ValueError: if a number is out of its range.
    """

    def __init__(
        self,
        step_size: float = 1.0,
        opponent_step_size: float = 1.0,
        init_scale: float = 1.0,
        update_every: int = 1,
        forget: float = 0.01,
        gradients: Literal["closed", "autograd"] = "closed",
    ) -> None:
        super().__init__(step_size, init_scale, update_every, forget, gradients)
        if not opponent_step_size >= 0:
            raise ValueError(f"opponent_step_size: got {opponent_step_size}, expected a number that is not negative")
        self.opponent_step_size = opponent_step_size


class Lola(OpponentShapingLearner):
    """Learning with opponent-learning awareness (Foerster et al. 2018), of any order.

    The opponent j is taken to step by `eta f^j_(n-1)`; what counts is how the own parameters shape that step::

        f^i_0 = grad_i V^i
        f^i_n = grad_i V^i + eta grad_i [f^j_(n-1) . stop(grad_j V^i)]

    where `stop` marks what is held constant. Order 1 is the paper's LOLA (section 4.2), which takes the opponent for a
    naive learner; order 2 takes it for a LOLA learner of order 1. The paper has results of order 2, but no formula. If
    the factor is held constant inside the opponent's step too, as here, first against second order comes out as in the
    paper (-1.16, -1.17 in the prisoner's dilemma, there -1.14, -1.17); if not, as -1.28, -1.30.

    With `look_ahead` nothing is held constant. The own gradient is then also taken where the opponent's step leads,
    which is all of `grad_i V^i(theta^i, theta^j + eta f^j_(n-1))` to first order in eta::

        f^i_n = grad_i V^i + eta grad_i [f^j_(n-1) . grad_j V^i]

    The paper and its code leave that out; what others call LOLA, such as Letcher et al. (2019), has it.

    Args:
        order: n, at least 1.
        look_ahead: hold nothing constant.
        step_size: see `OpponentShapingLearner`.
        opponent_step_size: see `OpponentShapingLearner`.
        init_scale: see `ExactGradientLearner`.
        update_every: see `ExactGradientLearner`.
        forget: see `ExactGradientLearner`.
        gradients: see `ExactGradientLearner`.

    Raises:
        ValueError: if a number is out of its range.
    """

    def __init__(
        self,
        order: int = 1,
        look_ahead: bool = False,
        step_size: float = 1.0,
        opponent_step_size: float = 1.0,
        init_scale: float = 1.0,
        update_every: int = 1,
        forget: float = 0.01,
        gradients: Literal["closed", "autograd"] = "closed",
    ) -> None:
        super().__init__(step_size, opponent_step_size, init_scale, update_every, forget, gradients)
        if order < 1:
            raise ValueError(f"order: got {order}, expected a positive integer; order 0 is NaiveGradient")
        self.order, self.look_ahead = order, look_ahead

    def direction(self, at: Derivatives) -> Tensor:
        """The step of the learner's order."""
        return self._of_order(self.order, self.seat.index, at)

    def _of_order(self, order: int, i: int, at: Derivatives) -> Tensor:
        """The step of order n of agent i."""
        j = 1 - i
        gradients = at.gradients(i)
        if order == 0:
            return gradients[i]
        weight = gradients[j] if self.look_ahead else gradients[j].detach()
        if order == 1:  # the opponent's step is a gradient, and its derivative a block of the Hessian
            shaping = at.change(of=j, wrt=i, direction=weight)
        else:
            pull_back = torch.func.vjp(lambda own: self._of_order(order - 1, j, at.moved(i, own)), at.parameters[i])[1]
            (shaping,) = pull_back(weight)
        if self.look_ahead:
            shaping = shaping + at.change(of=i, wrt=i, direction=self._of_order(order - 1, j, at))
        return gradients[i] + self.opponent_step_size * shaping


class LookAhead(OpponentShapingLearner):
    """The own gradient after the opponent's step, which it is not taken to shape (Zhang and Lesser 2010)::

        f^i = grad_i V^i + eta (d grad_i V^i / d theta^j) grad_j V^j

    to first order in eta, as in Letcher et al. (2019, section 2.2).
    """

    def direction(self, at: Derivatives) -> Tensor:
        """The own gradient, and its change by the opponent's step."""
        i, j = self.seat.index, 1 - self.seat.index
        change = at.change(of=i, wrt=i, direction=at.gradients(j)[j])
        return at.gradients(i)[i] + self.opponent_step_size * change


class StableOpponentShaping(OpponentShapingLearner):
    """SOS: LookAhead with as much of LOLA's shaping as keeps its convergence (Letcher et al. 2019, algorithm 1)::

        xi_0^i = grad_i V^i + eta (d grad_i V^i / d theta^j) grad_j V^j    # LookAhead
        chi^i  = eta (d grad_j V^j / d theta^i)^T grad_j V^i               # shaping
        f^i    = xi_0^i + p chi^i                                          # p = 0: LookAhead, p = 1: LOLA
        p      = min(p_1, p_2)
        p_1    = min(1, -a |xi_0|^2 / <chi, xi_0>), and 1 where <chi, xi_0> >= 0
        p_2    = |xi|^2 where |xi| < b, and 1 elsewhere, with xi^i = grad_i V^i

    Norms and products are over both agents' parameters: an agent computes p as if the other were its like.

    Args:
        a: in (0, 1), how far shaping may turn a step.
        b: in (0, 1), how long the gradient is where shaping begins to fade.
        step_size: see `OpponentShapingLearner`.
        opponent_step_size: see `OpponentShapingLearner`.
        init_scale: see `ExactGradientLearner`.
        update_every: see `ExactGradientLearner`.
        forget: see `ExactGradientLearner`.
        gradients: see `ExactGradientLearner`.

    Raises:
        ValueError: if a number is out of its range.
    """

    def __init__(
        self,
        a: float = 0.5,
        b: float = 0.1,
        step_size: float = 1.0,
        opponent_step_size: float = 1.0,
        init_scale: float = 1.0,
        update_every: int = 1,
        forget: float = 0.01,
        gradients: Literal["closed", "autograd"] = "closed",
    ) -> None:
        super().__init__(step_size, opponent_step_size, init_scale, update_every, forget, gradients)
        for name, number in [("a", a), ("b", b)]:
            if not 0 < number < 1:
                raise ValueError(f"{name}: got {number}, expected a number between 0 and 1")
        self.a, self.b = a, b

    def direction(self, at: Derivatives) -> Tensor:
        """The direction of algorithm 1."""
        values = [at.gradients(agent) for agent in (0, 1)]
        xi = [values[agent][agent] for agent in (0, 1)]
        eta = self.opponent_step_size
        ahead = [xi[i] + eta * at.change(of=i, wrt=i, direction=xi[1 - i]) for i in (0, 1)]
        shaping = [eta * at.change(of=1 - i, wrt=i, direction=values[i][1 - i]) for i in (0, 1)]
        turning, length, gradient = _product(shaping, ahead), _product(ahead, ahead), _product(xi, xi)
        bounded = torch.where(turning < 0, (-self.a * length / turning).clamp_max(1), 1.0)
        share = torch.minimum(bounded, torch.where(gradient < self.b**2, gradient, 1.0))
        i = self.seat.index
        return ahead[i] + share.view(-1, 1, 1) * shaping[i]


def _product(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Inner products over both agents' parameters, `replicates`."""
    return torch.stack([(x * y).flatten(1).sum(1) for x, y in zip(one, other, strict=True)]).sum(0)
