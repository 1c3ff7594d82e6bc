"""Guides of one step of play, in the two orders in which its two sites can be factorised."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from pyro import poutine
from pyro.poutine.runtime import InferDict
from torch import Tensor

from inference_marl.described import IncompatibleError, within
from inference_marl.guides.closed_form import ClosedForm, Optimal
from inference_marl.inference.conditional import Conditional, PyroPart, Reads, local_parameters, need_density
from inference_marl.inference.factored import Factored, as_factored, opponent_sites
from inference_marl.inference.opponents import Autoregressive, bind_over_opponents, for_each, need_own
from inference_marl.inference.plates import ONE_STEP
from inference_marl.spaces import Discrete, Space, separate_actions
from inference_marl.types import Seat

FACTORS = {"action": "policy", "opponent_action": "opponent_model"}
"""The attribute of a guide that holds the factor of each site; that of `opponent_action` covers all opponents."""


class Guide(PyroPart):
    """Base: a variational posterior over the agent's own action and the opponents', sampled in `order`.

    The agent's own action is the site `action`; every opponent's action has its own site, see `opponent_sites`.
    Discrete sites are marked for parallel enumeration, so Pyro sums over them exactly. The model's weights (temperature
    on the own action, KL weight on the opponents') scale the same sites here.

    A guide is called with the model that it approximates, which provides the weights and the inputs of closed-form
    factors. For Pyro's own inference, `functools.partial(guide, model=model)` is the guide of `model`.

    Shapes: `obs` is `replicates x batch x event`; sites are `[extra x] replicates x batch | event`.

    Args:
        opponent_model: rho. With several opponents a network is copied for each of them, see `Autoregressive`.
        policy: pi.
    """

    order: ClassVar[tuple[str, str]]

    def __init__(self, opponent_model: Conditional, policy: Conditional) -> None:
        super().__init__()
        self.opponent_model = opponent_model
        self.policy = policy

    def bind(self, seat: Seat) -> Self:
        """Return a working copy in `seat`; raises `IncompatibleError` if a factor does not fit its site."""
        return self._bound(seat=seat)

    def setup(self) -> None:
        """Bind both factors to their targets and, by their order, to their parents."""
        parents = [self.seat.observation]
        for site in self.order:
            with within(FACTORS[site]):
                factor: Conditional = getattr(self, FACTORS[site])
                need_density(factor)
                if factor.learns_from_play:
                    raise IncompatibleError(
                        f"got {type(factor).__name__}, which learns from what it is shown, but a guide shows it "
                        "nothing; expected a factor that is fitted, or Empirical (rho := P) and this as opponent prior"
                    )
                if site == "action":
                    need_own(factor)
                    bound = factor.bind(self.seat, self.seat.action, parents)
                else:
                    bound = bind_over_opponents(for_each(factor, self.seat, Autoregressive), self.seat, parents)
                if isinstance(bound, ClosedForm):
                    bound.take_place(site, self.order)
            setattr(self, FACTORS[site], bound)
            parents = [*parents, *self.spaces(site)]

    def spaces(self, site: str) -> tuple[Space, ...]:
        """The spaces of a site: of the agent's own action (`action`), or of every opponent's (`opponent_action`)."""
        return (self.seat.action,) if site == "action" else self.seat.opponent_actions

    def factor(self, site: str, model: Reads, obs: Tensor, *earlier: Tensor) -> Factored:
        """The distribution of the agent's own action (`action`), or of all opponents' actions (`opponent_action`).

        Args:
            site: `action` or `opponent_action`.
            model: the model that the guide approximates.
            obs: `[extra x] replicates x batch x event`.
            earlier: values of the other site, if that is sampled first.
        """
        factor: Conditional = getattr(self, FACTORS[site])
        if not factor.reads_model:
            return as_factored(factor(obs, *earlier), self.spaces(site))
        other: Conditional = getattr(self, FACTORS["action" if site == "opponent_action" else "opponent_action"])
        with local_parameters():  # the model's parameters are not the guide's
            return as_factored(factor(obs, *earlier, model=model, other=other), self.spaces(site))

    def believed(self, model: Reads, obs: Tensor, action: Tensor) -> Factored:
        """The opponents' actions, as believed if the agent plays `action`, `[extra x] replicates x batch x event`."""
        given = [action] if self.order[0] == "action" else []
        return self.factor("opponent_action", model, obs, *given)

    def forward(self, obs: Tensor, model: Reads) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Sample all sites; returns the agent's own action and the opponents'.

        Raises:
            ValueError: if `obs` is not `replicates x batch x event`.
        """
        names = {"action": ("action",), "opponent_action": opponent_sites(len(self.seat.opponents))}
        weights = {"action": model.temperature, "opponent_action": model.kl_weight}
        values: dict[str, tuple[Tensor, ...]] = {}
        with ONE_STEP.open(ONE_STEP.sizes(obs, self.seat.observation.event_shape)).within():
            for site in self.order:
                earlier = [value for each in values.values() for value in each]
                factor = self.factor(site, model, obs, *earlier)
                with poutine.scale(scale=weights[site]):
                    values[site] = factor.sites(names[site], summed_out)
        (action,) = values["action"]
        return action, values["opponent_action"]

    def tables(self, obs: Tensor, model: Reads) -> tuple[Tensor, Tensor, Tensor | None]:
        """`log pi` and `log rho`, which broadcast to `replicates x batch x actions x (opponents' joint actions)`.

        The third is the optimal value of the second factor for each value of the first, as `optimal_value` takes it, or
        `None` if it is not known. Discrete sites only; `obs` is `replicates x batch x event`.
        """
        first, second = self.order
        one, other = getattr(self, FACTORS[first]), getattr(self, FACTORS[second])
        if isinstance(one, Optimal) and isinstance(other, Optimal):
            before, after, value = one.both(obs, model, other)
        else:
            before = self.factor(first, model, obs).table()
            every = torch.arange(before.shape[-1], device=obs.device).view(-1, 1, 1)
            after = self.factor(second, model, obs, *separate_actions(self.spaces(first), every)).table()
            after, value = after.expand(len(every), *obs.shape[:2], -1).movedim(0, -2), None
        before = before.unsqueeze(-1)
        return (before, after, value) if first == "action" else (after.mT, before.mT, value)


def summed_out(space: Space) -> InferDict | None:
    """How Pyro enumerates a site over `space`; `None` if the space is not discrete."""
    return InferDict(enumerate="parallel") if isinstance(space, Discrete) else None


class OpponentFirst(Guide):
    """A guide in ROMMEO's order, opponents first (Tian et al. 2019, Eq. 25)::

        b ~ rho(b | s)          # opponent_model
        a ~ pi(a | s, b)        # policy

    Args:
        opponent_model: rho, a conditional on the observation; `Optimal` for Eq. 11, `Empirical` for rho := P.
        policy: pi, a conditional on the observation and the opponents' action; `Optimal` for Eq. 10.
    """

    order = ("opponent_action", "action")


class PolicyFirst(Guide):
    """A guide in the order of PR2, policy first (Wen et al. 2019)::

        a ~ pi(a | s)           # policy
        b ~ rho(b | s, a)       # opponent_model

    With full-capacity factors and equal weights on both sites the optimum is the same joint posterior as that of
    `OpponentFirst`; the two differ under unequal weights or restricted factors.

    Args:
        opponent_model: rho, a conditional on the observation and the agent's own action.
        policy: pi, a conditional on the observation.
    """

    order = ("action", "opponent_action")
