"""The naive gradient learner, and the bases of learners that follow an exact or estimated gradient."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import ClassVar, Literal

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl.described import BelowOne, Count, IncompatibleError, NotNegative, hyperparameters, within
from inference_marl.inference.returns import discount_factor
from inference_marl.inference.schedules import ByReplicate, current, over_events
from inference_marl.inference.tables import finite
from inference_marl.learners.lola.derivatives import Autograd, ClosedForm, Derivatives, PolicyMap, free_logits
from inference_marl.learners.tabular.base import TabularLearner
from inference_marl.models import CountedOpponent, OpponentLogits
from inference_marl.play import Functional
from inference_marl.types import Actor, Experience, Memory, Trajectory

Pair = tuple[Tensor, Tensor]
"""One tensor per agent, in seat order."""


class FreeLogits(torch.nn.Module):
    """The policy of free logits per state, as a module with the logits as parameter.

    Args:
        logits: initial logits, `replicates x states x (actions - 1)`; the last action's logit is 0.
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, obs: Tensor, memory: Memory) -> tuple[dist.Categorical, Memory]:
        """A categorical with batch shape `replicates x batch`."""
        rows = torch.arange(len(self.logits), device=obs.device).view(-1, 1)
        return dist.Categorical(probs=free_logits(self.logits[rows, obs]).to(self.logits.dtype)), memory


@hyperparameters
class GradientLearner(TabularLearner):
    """Base: free logits per state that follow a gradient, given the policy of one opponent as a function::

        pi(a | s) = softmax(theta(s, .))(a)        theta <- theta + delta f(theta, theta')

    The last action's logit is 0, so for two actions this is the sigmoid of Foerster et al. (2018). A subclass defines
    `ascent`, f.

    The opponent's policy, as a function of its parameters theta', is read from its snapshot if that is a `Functional`
    whose parameters have `replicates` as first dimension. Otherwise, and whenever there is an `opponent_model`, theta'
    are the logits of an estimate of its policy; with several draws of them, f is averaged over draws.

    Args:
        step_size: delta, the learning rate, not negative.
        init_scale: standard deviation of the initial logits, which are normal with mean 0.
        update_every: updates per step of the policy.
        forget: `forget` of the `CountedOpponent`, the default opponent model.
        opponent_model: belief about the opponent's logits, used even if its parameters could be read; `None` reads the
            parameters where possible and otherwise counts the opponent's actions.

    Attributes:
        logits: theta, `replicates x states x (actions - 1)`.
        believed: the opponent model.
    """

    by_replicate = frozenset({"step_size"})
    reads_peers: ClassVar[bool] = True

    step_size: NotNegative | ByReplicate = 1.0
    init_scale: NotNegative = 1.0
    update_every: Count = 1
    forget: BelowOne = 0.01
    opponent_model: OpponentLogits | None = None
    believed: OpponentLogits = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._observed: Trajectory | None = None

    def setup(self) -> None:
        """Check the seat and draw the logits.

        Raises:
            IncompatibleError: if there are not two agents with finitely many actions.
        """
        super().setup()
        seat, name = self.seat, type(self).__name__
        if len(seat.opponents) != 1:
            raise IncompatibleError(
                f"{name} got {len(seat.action_spaces)} agents, expected 2: it looks at the learning of one opponent; "
                "choose another learner, or a game of two"
            )
        shape = (seat.replicates, self.states, self.actions - 1)
        self.softmax = FreeLogits(torch.randn(shape, dtype=seat.dtype, device=seat.device) * self.init_scale)
        with within("opponent_model"):
            self.believed = (self.opponent_model or CountedOpponent(forget=self.forget)).bind(seat)

    @property
    def logits(self) -> Tensor:
        """theta, `replicates x states x (actions - 1)`."""
        return self.softmax.logits

    def forward(self, obs: Tensor) -> Tensor:
        """The policy, `replicates x batch x actions`."""
        return free_logits(self.logits[self.seat.rows, obs]).to(self.seat.dtype)

    def snapshot(self) -> Functional:
        """The policy with the current logits."""
        return Functional.of(self.softmax, self.seat)

    @abstractmethod
    def ascent(self, parameters: Pair, policies: tuple[PolicyMap, PolicyMap]) -> Tensor:
        """f, the direction of the agent's step, `replicates x states x (actions - 1)`.

        Args:
            parameters: both agents' parameters in seat order, detached, each `replicates x ...`.
            policies: maps from them to the agents' policies, in seat order.
        """

    @torch.no_grad()
    def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
        """Update the opponent model if there is one, and the policy every `update_every` updates.

        Raises:
            NonFiniteError: if the gradient is not finite.
            IncompatibleError: if a differentiable opponent has a memory, or parameters whose first dimension is not
                `replicates`.
        """
        opponent = peers[self.seat.opponents[0]] if self.opponent_model is None else None
        known = opponent if isinstance(opponent, Functional) else None
        if known is None and newest is not self._observed:
            self.believed.observe(newest)
        self._observed = newest
        self.updates += 1
        if self.updates % self.update_every == 0:
            self.follow(self._mean_ascent() if known is None else self.ascent(*self._both(*self._read(known))))
        return {}

    def follow(self, direction: Tensor) -> None:
        """Take a step of the logits along a direction, `replicates x states x (actions - 1)`.

        Raises:
            NonFiniteError: if the direction is not finite.
        """
        direction = finite("gradient", direction.flatten(1)).view_as(direction)
        step = over_events(current(self.step_size, self.updates), 1)
        if isinstance(step, Tensor):
            self.softmax.logits.addcmul_(direction, step)
        else:
            self.softmax.logits.add_(direction, alpha=step)

    def update(self, seen: Experience) -> None:
        """Do nothing: learning is from whole trajectories."""

    def belief(self, obs: Tensor) -> Tensor | None:
        """The believed opponent policy, `replicates x batch x opponent_actions`; `None` if none is needed."""
        policy = self.believed.policy()
        return None if policy is None else policy[self.seat.rows, obs]

    def _mean_ascent(self) -> Tensor:
        """The mean direction over the believed parameters of the opponent."""
        draws, weights = self.believed.parameters_believed()
        total = torch.zeros_like(self.logits)
        for logits, weight in zip(draws, weights, strict=True):
            total += weight.view(-1, 1, 1) * self.ascent(*self._both(logits, free_logits))
        return total

    def _both(self, parameters: Tensor, policy: PolicyMap) -> tuple[Pair, tuple[PolicyMap, PolicyMap]]:
        """Both agents' parameters and policies, given the opponent's; see `ascent`."""
        mine, other = (self.logits.detach(), free_logits), (parameters.detach(), policy)
        first, second = (mine, other) if self.seat.index == 0 else (other, mine)
        return (first[0], second[0]), (first[1], second[1])

    def _read(self, opponent: Functional) -> tuple[Tensor, PolicyMap]:
        """The opponent's parameters, `replicates x ...`, and its policy as a function of them."""
        if isinstance(opponent.module, FreeLogits):
            return opponent.parameters_by_name["logits"], free_logits
        replicates, given = self.seat.replicates, opponent.parameters_by_name
        if opponent.initial_memory(replicates, 1):
            raise IncompatibleError(
                f"{type(self).__name__} got a {type(opponent.module).__name__} for an opponent, which has a memory, "
                "expected a policy of the observation alone; or set an opponent_model"
            )
        for name, parameter in given.items():
            if parameter.shape[:1] != (replicates,):
                raise IncompatibleError(
                    f"{type(self).__name__} got a {type(opponent.module).__name__} for an opponent whose parameter "
                    f"{name} has shape {tuple(parameter.shape)}, expected the {replicates} replicates first: "
                    "replicates are independent"
                )
        flat = [parameter.reshape(replicates, -1) for parameter in given.values()]
        states = torch.arange(self.states, device=self.seat.device).expand(replicates, -1)
        sizes = [part.shape[1] for part in flat]

        def policy(parameters: Tensor) -> Tensor:
            parts = zip(given.items(), parameters.split(sizes, 1), strict=True)
            imagined = opponent.at({name: part.view(own.shape) for (name, own), part in parts})
            distribution, _ = imagined.policy(states, {})
            played: Tensor = distribution.probs  # type: ignore[union-attr]
            return played

        return torch.cat(flat, 1), policy


@hyperparameters
class ExactGradientLearner(GradientLearner):
    """Base: follows derivatives of the exact values of a two-agent game with known rules.

    Values are unnormalised and discounted by the game's `discount`. A subclass defines `direction`.

    Args:
        gradients: `closed` form, or the equivalent `autograd`, which is always used against differentiable learners
            with other parameters than free logits.
        step_size, init_scale, update_every, forget, opponent_model: see `GradientLearner`.
    """

    gradients: Literal["closed", "autograd"] = "closed"

    def setup(self) -> None:
        """Check the seat and draw the logits.

        Raises:
            IncompatibleError: if there are not two agents with finitely many actions, the game does not provide its
                rules as tables, or it has no discount and may go on forever.
        """
        super().setup()
        rules, self.discount = self.known_rules()
        self.dynamics = rules.to(self.seat.device)
        try:
            discount_factor(rules.transition, self.discount)
        except ValueError as error:
            raise IncompatibleError(f"{type(self).__name__} needs exact values: {error}") from error

    @abstractmethod
    def direction(self, at: Derivatives) -> Tensor:
        """f, the direction of the agent's step, `replicates x states x (actions - 1)`.

        Args:
            at: derivatives at both agents' current parameters, in seat order.
        """

    def ascent(self, parameters: Pair, policies: tuple[PolicyMap, PolicyMap]) -> Tensor:
        """See `GradientLearner`."""
        return self.direction(self.at(parameters, policies))

    def at(self, parameters: Pair, policies: tuple[PolicyMap, PolicyMap]) -> Derivatives:
        """The derivatives at both agents' parameters."""
        closed = self.gradients == "closed" and all(policy is free_logits for policy in policies)
        kind = ClosedForm if closed else Autograd
        return kind(self.dynamics, self.discount, policies, parameters)


@hyperparameters
class NaiveGradient(ExactGradientLearner):
    """Gradient ascent on the agent's own value with a fixed opponent: `f^i = grad_i V^i`.

    This is NL-Ex of Foerster et al. (2018, section 4.1).
    """

    def direction(self, at: Derivatives) -> Tensor:
        """The gradient of the agent's own value."""
        return at.gradients(self.seat.index)[self.seat.index]
