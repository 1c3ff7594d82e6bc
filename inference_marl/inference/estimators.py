"""How a guide's ELBO and its gradient are estimated where several opponents have discrete actions."""

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
    """What is summed out of a guide's ELBO, and how parameters get their gradient.

    Guides mark all discrete sites to be summed out, which takes as many values of the critic as there are joint
    actions. The agent's own action always is; estimators differ in what they do with the opponents'. Continuous actions
    are drawn, with pathwise gradients, by all of them.
    """

    @abstractmethod
    def loss(self, elbo: Any, model: Program, guide: Program, seat: Seat, obs: Tensor) -> Tensor:
        """What to descend: its mean gradient is that of `elbo_loss`, unless the class says otherwise.

        Args:
            elbo: Pyro's estimator: `TraceEnum_ELBO`, or `Trace_ELBO` where nothing is discrete.
            model: what is approximated, a program of `obs`.
            guide: its approximation.
            seat: whose opponents they are.
            obs: `replicates x batch x event`.
        """

    def suits(self, seat: Seat, policy_first: bool) -> bool:
        """Whether gradients are what the class says in this seat, for a guide of this order."""
        return True

    def drawn(self, guide: Program, seat: Seat) -> Program:
        """The guide at which expectations are taken, such as the bootstrap's; with the opponents' actions drawn.

        The ELBO is a mean over them, so it stays unbiased at the given guide.
        """
        names = discrete_sites(seat)
        return drawing(guide, names) if len(names) > 1 else guide


class Enumerate(ElboEstimator):
    """Sums over all joint actions: no variance. The cost is the product of the opponents' numbers of actions."""

    def loss(self, elbo: Any, model: Program, guide: Program, seat: Seat, obs: Tensor) -> Tensor:
        """See `ElboEstimator`."""
        return elbo_loss(elbo, model, guide, obs.shape[1], obs)

    def drawn(self, guide: Program, seat: Seat) -> Program:
        """The guide itself: sums are exact."""
        return guide


class Local(ElboEstimator):
    """Sums over one opponent's actions at a time, and draws the others': the cost is the sum of their numbers.

    For every opponent an ELBO in which it alone is summed out, and gets its gradient; the later ones are drawn for each
    of its actions. The policy, and opponents with continuous actions, get theirs in the first. Unbiased, unless a
    continuous own action is drawn before several discrete ones, whose draws follow it (`suits`). With one opponent it
    is `Enumerate`.
    """

    def suits(self, seat: Seat, policy_first: bool) -> bool:
        """See `ElboEstimator`."""
        return not (policy_first and isinstance(seat.action, Box) and len(discrete_sites(seat)) > 1)

    def loss(self, elbo: Any, model: Program, guide: Program, seat: Seat, obs: Tensor) -> Tensor:
        """See `ElboEstimator`; the value is the sum of as many estimates."""
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
            except ValueError as error:  # Pyro's, where nothing is fitted: such as the opponent model, in closed form
                if "cannot be differentiated" not in str(error) or (place == len(names) - 1 and not losses):
                    raise
        return sum(losses[1:], losses[0])


class Sample(ElboEstimator):
    """Draws all opponents' actions, with score-function gradients; several times if the learner has `particles`.

    Unbiased; the cheapest, and of high variance.
    """

    def loss(self, elbo: Any, model: Program, guide: Program, seat: Seat, obs: Tensor) -> Tensor:
        """See `ElboEstimator`."""
        return elbo_loss(elbo, model, drawing(guide, discrete_sites(seat)), obs.shape[1], obs)


class Relax(ElboEstimator):
    """Draws one-hot actions and passes gradients straight through them to the probabilities (Bengio et al. 2013).

    Biased: what it follows are the slopes of critic and factors between actions, which data do not determine. For
    networks, which see one-hot actions; tables have no values between theirs.
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
    """A guide of which some sites are drawn, whatever they are marked for."""

    def configure(site: Any) -> Any:
        return {"enumerate": None} if site["name"] in names else {}

    drawn: Program = poutine.infer_config(guide, configure)
    return drawn


class Held(Messenger):
    """Sites of a guide through which its parameters get no gradient.

    Args:
        names: of the sites.
    """

    def __init__(self, names: Collection[str]) -> None:
        super().__init__()
        self.names = names

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.names:
            msg["fn"] = detach(msg["fn"])


class Played(Messenger):
    """A site of a guide whose value is what was played, scored as if the guide had drawn it, but a constant.

    Args:
        name: of the site.
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
            # As a point it is neither one of all values nor a draw whose score would be followed.
            msg["fn"] = dist.Delta(value, log_density=scores, event_dim=event)
            msg["infer"] = {**(msg["infer"] or {}), "enumerate": None}


class StraightThrough(Messenger):
    """Categorical sites whose values are one-hot, with gradients as if they were the probabilities.

    Args:
        names: of the sites.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = names

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.names:
            msg["fn"] = _OneHot(logits=msg["fn"].logits)


class _OneHot(dist.OneHotCategoricalStraightThrough):  # type: ignore[misc]
    """As Pyro's, but its log-probability has a slope between one-hot values, as the critic has."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Linear in `value`, `... x values`."""
        scores: Tensor = (value * self.logits).sum(-1)
        return scores
