"""One-step guides: the two orders in which the two sites can be factorised."""

from __future__ import annotations

from typing import ClassVar, Self

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.runtime import InferDict
from torch import Tensor

from inference_marl.described import IncompatibleError, within
from inference_marl.guides.closed_form import ClosedForm, Optimal
from inference_marl.inference.conditional import Conditional, PyroPart, Reads, local_parameters, need_density
from inference_marl.inference.plates import ONE_STEP
from inference_marl.spaces import Discrete
from inference_marl.types import Seat

FACTORS = {"action": "policy", "opponent_action": "opponent_model"}
"""The attribute of a guide that holds the factor of each site."""


class Guide(PyroPart):
    """A variational posterior over the sites `opponent_action` and `action`, sampled in `order`.

    Discrete sites are marked for parallel enumeration, so Pyro sums over them exactly. The model's weights (temperature
    on `action`, KL weight on `opponent_action`) scale the same sites here.

    A guide is called with the model that it approximates, which provides the weights and the inputs of closed-form
    factors. For Pyro's own inference, `functools.partial(guide, model=model)` is the guide of `model`.

    Shapes: `obs` is `replicates x batch x event`; sites are `[extra x] replicates x batch | event`.

    Args:
        opponent_model: rho.
        policy: pi.
    """

    order: ClassVar[tuple[str, str]]

    def __init__(self, opponent_model: Conditional, policy: Conditional) -> None:
        super().__init__()
        self.opponent_model = opponent_model
        self.policy = policy

    def bind(self, seat: Seat) -> Self:
        """Return a working copy in `seat`; raises `IncompatibleError` if a factor does not fit its place."""
        return self._bound(seat=seat)

    def setup(self) -> None:
        """Bind both factors to the spaces given by their place in the order."""
        parents = [self.seat.observation]
        spaces = {"action": self.seat.action, "opponent_action": self.seat.opponent_action}
        for site in self.order:
            with within(FACTORS[site]):
                factor: Conditional = getattr(self, FACTORS[site])
                need_density(factor)
                if factor.learns_from_play:
                    raise IncompatibleError(
                        f"got {type(factor).__name__}, which learns from what it is shown, but a guide shows it "
                        "nothing; expected a factor that is fitted, or Empirical (rho := P) and this as opponent prior"
                    )
                bound = factor.bind(self.seat, spaces[site], parents)
                if isinstance(bound, ClosedForm):
                    bound.take_place(site, self.order)
            setattr(self, FACTORS[site], bound)
            parents = [*parents, spaces[site]]

    def factor(self, site: str, model: Reads, obs: Tensor, *earlier: Tensor) -> dist.TorchDistribution:
        """The distribution of one site.

        Args:
            site: `action` or `opponent_action`.
            model: the model that the guide approximates.
            obs: `[extra x] replicates x batch x event`.
            earlier: the other site's value, if it comes first.
        """
        factor: Conditional = getattr(self, FACTORS[site])
        if not isinstance(factor, ClosedForm):
            fitted: dist.TorchDistribution = factor(obs, *earlier)
            return fitted
        other: Conditional = getattr(self, FACTORS["action" if site == "opponent_action" else "opponent_action"])
        with local_parameters():  # the model's parameters are not the guide's
            closed: dist.TorchDistribution = factor(obs, *earlier, model=model, other=other)
        return closed

    def forward(self, obs: Tensor, model: Reads) -> tuple[Tensor, Tensor]:
        """Sample both sites and return `(action, opponent_action)`.

        Raises:
            ValueError: if `obs` is not `replicates x batch x event`.
        """
        weights = {"action": model.temperature, "opponent_action": model.kl_weight}
        spaces = {"action": self.seat.action, "opponent_action": self.seat.opponent_action}
        values: dict[str, Tensor] = {}
        with ONE_STEP.open(ONE_STEP.sizes(obs, self.seat.observation.event_shape)).within():
            for site in self.order:
                infer = InferDict(enumerate="parallel") if isinstance(spaces[site], Discrete) else None
                with poutine.scale(scale=weights[site]):
                    values[site] = pyro.sample(site, self.factor(site, model, obs, *values.values()), infer=infer)
        return values["action"], values["opponent_action"]

    def tables(self, obs: Tensor, model: Reads) -> tuple[Tensor, Tensor, Tensor | None]:
        """`log pi` and `log rho`, which broadcast to `replicates x batch x actions x opponent_actions`.

        Only for discrete sites; `obs` is `replicates x batch x event`. And the best value of the second site for each
        value of the first, where that is known, as `optimal_value` takes it.
        """
        first, second = self.order
        one, other = getattr(self, FACTORS[first]), getattr(self, FACTORS[second])
        if isinstance(one, Optimal) and isinstance(other, Optimal):
            before, after, value = one.both(obs, model, other)
        else:
            spaces = {"action": self.seat.action, "opponent_action": self.seat.opponent_action}
            sizes = [spaces[site].features for site in self.order]
            values = torch.arange(sizes[0], device=obs.device).view(-1, 1, 1)
            before = log_probabilities(self.factor(first, model, obs), sizes[0])
            after = log_probabilities(self.factor(second, model, obs, values), sizes[1])
            after, value = after.expand(sizes[0], *obs.shape[:2], sizes[1]).movedim(0, -2), None
        before = before.unsqueeze(-1)
        return (before, after, value) if first == "action" else (after.mT, before.mT, value)


def log_probabilities(distribution: dist.TorchDistribution, size: int) -> Tensor:
    """Of the values `0 .. size - 1`, in the last dimension."""
    if isinstance(distribution, dist.Categorical):
        logits: Tensor = distribution.logits
        return logits
    values = torch.arange(size).view(-1, *[1] * len(distribution.batch_shape))
    return distribution.log_prob(values).movedim(0, -1)


class OpponentFirst(Guide):
    """ROMMEO's order (Tian et al. 2019, Eq. 25)::

        b ~ rho(b | s)          # opponent_model
        a ~ pi(a | s, b)        # policy

    Args:
        opponent_model: rho, a conditional on the observation; `Optimal` for Eq. 11, `Empirical` for rho := P.
        policy: pi, a conditional on the observation and the opponents' action; `Optimal` for Eq. 10.
    """

    order = ("opponent_action", "action")


class PolicyFirst(Guide):
    """The reverse order, as in PR2 (Wen et al. 2019)::

        a ~ pi(a | s)           # policy
        b ~ rho(b | s, a)       # opponent_model

    With full-capacity factors and equal weights on both sites the optimum is the same joint posterior as that of
    `OpponentFirst`; the two differ under unequal weights or restricted factors.

    Args:
        opponent_model: rho, a conditional on the observation and the agent's own action.
        policy: pi, a conditional on the observation.
    """

    order = ("action", "opponent_action")
