"""Estimators of a guide's ELBO and its gradient for several opponents with discrete actions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any

import pyro.distributions as dist
from pyro import poutine
from pyro.distributions.util import detach
from pyro.poutine.messenger import Messenger
from torch import Tensor

from inference_marl.described import Described
from inference_marl.inference.factored import opponent_sites
from inference_marl.inference.svi import elbo_loss
from inference_marl.spaces import Box, Discrete
from inference_marl.types import Seat

Program = Callable[..., Any]
"""A model or a guide."""


class ElboEstimator(Described, ABC):
    """Base: which sites are summed out of a guide's ELBO, and how the gradient is estimated.

    Guides mark all discrete sites to be summed out, which takes as many values of the critic as there are joint
    actions. The agent's own action is always summed out; estimators differ in the treatment of the opponents' actions.
    All estimators draw continuous actions, with pathwise gradients.
    """

    @abstractmethod
    def loss(self, elbo: Any, model: Program, guide: Program, seat: Seat, obs: Tensor) -> Tensor:
        """The loss to minimise; its mean gradient is that of `elbo_loss`, unless the class says otherwise.

        Args:
            elbo: Pyro's estimator: `TraceEnum_ELBO`, or `Trace_ELBO` if no site is discrete.
            model: the model, a program of `obs`.
            guide: the guide, likewise.
            seat: the seat of the agent.
            obs: `replicates x batch x event`.
        """

    def suits(self, seat: Seat, policy_first: bool) -> bool:
        """Whether the gradient has the properties that the class states, in this seat and for a guide of this order."""
        return True

    def drawn(self, guide: Program, seat: Seat) -> Program:
        """The guide for expectations, such as the bootstrapped value; by default with the opponents' actions drawn.

        The ELBO is a mean over the draws, so it stays unbiased at the given guide.
        """
        names = discrete_sites(seat)
        return drawing(guide, names) if len(names) > 1 else guide


class Enumerate(ElboEstimator):
    """Sums over all joint actions: no variance, at the cost of the product of the opponents' numbers of actions."""

    def loss(self, elbo: Any, model: Program, guide: Program, seat: Seat, obs: Tensor) -> Tensor:
        """See `ElboEstimator`."""
        return elbo_loss(elbo, model, guide, obs.shape[1], obs)

    def drawn(self, guide: Program, seat: Seat) -> Program:
        """The guide itself: sums are exact."""
        return guide


class Local(ElboEstimator):
    """Sums over one opponent's actions at a time and draws the others', at the cost of the sum of their numbers.

    There is one ELBO per opponent, in which only its actions are summed out and only its factor gets a gradient; later
    opponents are drawn for each of its actions. The first ELBO also gives the gradients of the policy and of opponents
    with continuous actions. Unbiased, unless the policy comes first and is continuous and several opponents have
    discrete actions, whose draws depend on it (`suits`). With one opponent it is `Enumerate`.
    """

    def suits(self, seat: Seat, policy_first: bool) -> bool:
        """See `ElboEstimator`."""
        return not (policy_first and isinstance(seat.action, Box) and len(discrete_sites(seat)) > 1)

    def loss(self, elbo: Any, model: Program, guide: Program, seat: Seat, obs: Tensor) -> Tensor:
        """See `ElboEstimator`; the value is the sum of one estimate per opponent."""
        names = discrete_sites(seat)
        if len(names) < 2:
            return elbo_loss(elbo, model, guide, obs.shape[1], obs)
        fitted_once = {"action", *opponent_sites(len(seat.opponents))} - set(names)
        losses = []
        for place, name in enumerate(names):
            others = {other for other in names if other != name}
            held = others | fitted_once if place else others
            try:
                losses.append(elbo_loss(elbo, model, Held(held)(drawing(guide, others)), obs.shape[1], obs))
            except ValueError as error:  # from Pyro, if nothing is fitted, as for closed-form opponent models
                if "cannot be differentiated" not in str(error) or (place == len(names) - 1 and not losses):
                    raise
        return sum(losses[1:], losses[0])


class Sample(ElboEstimator):
    """Draws all opponents' actions, with score-function gradients: unbiased and cheapest, but of high variance.

    The learner's `particles` are the number of draws.
    """

    def loss(self, elbo: Any, model: Program, guide: Program, seat: Seat, obs: Tensor) -> Tensor:
        """See `ElboEstimator`."""
        return elbo_loss(elbo, model, drawing(guide, discrete_sites(seat)), obs.shape[1], obs)


class Relax(ElboEstimator):
    """Draws one-hot actions, with straight-through gradients for the probabilities (Bengio et al. 2013): biased.

    It follows the slopes of critic and factors between actions, which data do not determine. Only for networks, whose
    inputs are one-hot actions: tables have no values in between.
    """

    def loss(self, elbo: Any, model: Program, guide: Program, seat: Seat, obs: Tensor) -> Tensor:
        """See `ElboEstimator`."""
        names = discrete_sites(seat)
        one_hot = StraightThrough(names)
        return elbo_loss(elbo, one_hot(model), one_hot(drawing(guide, names)), obs.shape[1], obs)


def discrete_sites(seat: Seat) -> list[str]:
    """The sites of opponents with discrete actions."""
    names = opponent_sites(len(seat.opponents))
    return [name for name, space in zip(names, seat.opponent_actions, strict=True) if isinstance(space, Discrete)]


def drawing(guide: Program, names: Collection[str]) -> Program:
    """The guide with the named sites drawn, even if they are marked for enumeration."""

    def configure(site: Any) -> Any:
        return {"enumerate": None} if site["name"] in names else {}

    drawn: Program = poutine.infer_config(guide, configure)
    return drawn


class Held(Messenger):
    """A handler that stops gradients of a guide's parameters through the named sites.

    Args:
        names: names of the sites.
    """

    def __init__(self, names: Collection[str]) -> None:
        super().__init__()
        self.names = names

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.names:
            msg["fn"] = detach(msg["fn"])


class Played(Messenger):
    """A handler that fixes a site of a guide to a played value, with the score that the guide would give it.

    Args:
        name: name of the site.
        value: `replicates x batch x event`.
    """

    def __init__(self, name: str, value: Tensor) -> None:
        super().__init__()
        self.name, self.value = name, value

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] == self.name:
            scores = msg["fn"].log_prob(self.value)
            event = len(msg["fn"].event_shape)
            value = self.value.expand(*scores.shape, *self.value.shape[self.value.dim() - event :])
            # As a point mass it is neither enumerated nor a draw with a score-function gradient.
            msg["fn"] = dist.Delta(value, log_density=scores, event_dim=event)
            msg["infer"] = {**(msg["infer"] or {}), "enumerate": None}


class StraightThrough(Messenger):
    """A handler that makes categorical sites one-hot, with straight-through gradients for the probabilities.

    Args:
        names: names of the sites.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = names

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.names:
            msg["fn"] = _OneHot(logits=msg["fn"].logits)


class _OneHot(dist.OneHotCategoricalStraightThrough):  # type: ignore[misc]
    """As Pyro's, but the log-probability has a slope between one-hot values, as the critic has."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Linear in `value`, `... x values`."""
        scores: Tensor = (value * self.logits).sum(-1)
        return scores
