"""Conditionals over the actions of several opponents, with one factor and one Pyro site for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import torch
from pyro.nn import PyroModuleList
from torch import Tensor

from inference_marl.described import IncompatibleError, within
from inference_marl.inference.conditional import Conditional, Over, need_density
from inference_marl.inference.factored import Factored, InTurn, Separate, as_factored, need_discrete
from inference_marl.spaces import Box, Discrete, Space
from inference_marl.types import Seat

C = TypeVar("C", bound=Conditional)


class Opponents(Conditional):
    """Base: a conditional over all opponents' actions, given an observation and perhaps the own action.

    It serves as the conditional of an opponent prior or as the opponent model of a guide. A subclass defines
    `forward(*parents)`, which returns a `Factored`; with one opponent that is the factor's distribution.

    Args:
        factor: template of the conditional over an opponent's action; or a list, one for each opponent.
    """

    over: ClassVar[Over] = "each"
    takes_list: ClassVar[bool] = True
    """Whether `factor` may be a list."""

    factors: Any  # a PyroModuleList, which is not generic
    spaces: tuple[Space, ...]

    def __init__(self, factor: Conditional | Sequence[Conditional]) -> None:
        super().__init__()
        self.factor = factor if isinstance(factor, Conditional) else tuple(factor)

    def setup(self) -> None:
        """Bind one factor per opponent.

        Raises:
            IncompatibleError: if the target is not the opponents' actions, or a factor cannot be fitted or does not fit
                its spaces.
        """
        self.spaces = self.seat.opponent_actions
        if self.target != (self.spaces if len(self.spaces) > 1 else self.spaces[0]):
            raise IncompatibleError(f"{type(self).__name__} got {self.target}, expected the opponents' actions")
        with within("factor"):
            if not (self.takes_list or isinstance(self.factor, Conditional)):
                raise IncompatibleError(f"{type(self).__name__} got a list, expected one conditional for all")
            one = self.factor if isinstance(self.factor, Conditional) else None
            unfit = [space for space in self.spaces if one is not None and not isinstance(space, one.targets)]
            if 0 < len(unfit) < len(self.spaces):
                raise IncompatibleError(
                    f"got one {type(one).__name__} for opponents with actions {', '.join(map(str, self.spaces))}, "
                    "expected a list: a conditional for each"
                )
            templates = [self.factor] * len(self.spaces) if isinstance(self.factor, Conditional) else self.factor
            if len(templates) != len(self.spaces):
                raise IncompatibleError(f"got {len(templates)} factors, expected one per opponent: {len(self.spaces)}")
            self.factors = PyroModuleList(self.bind_factors([_fitted(template) for template in templates]))

    def bind_factors(self, templates: Sequence[Conditional]) -> list[Conditional]:
        """Return bound factors, given a template per opponent; by default each is conditioned on the parents alone."""
        return [
            template.bind(self.seat, space, self.parents)
            for template, space in zip(templates, self.spaces, strict=True)
        ]

    @property
    def full_support(self) -> bool:
        """Whether every factor has full support."""
        return all(factor.full_support for factor in self.factors)


class Independent(Opponents):
    """Models opponents as independent: `rho(b | s) = prod_j rho_j(b_j | s)`.

    The default of priors that are networks. As an opponent model it is a mean-field approximation: the posterior of Eq.
    11 (Tian et al. 2019) correlates opponents whenever `Q` is not additive over them.

    Args:
        factor: see `Opponents`.
    """

    def forward(self, *parents: Tensor) -> Factored:
        """See `Opponents`."""
        return Separate([factor(*parents) for factor in self.factors], self.spaces)


class Autoregressive(Opponents):
    """Models each opponent's action given those of the previous opponents::

        rho(b | s) = prod_j rho_j(b_j | s, b_1, ..., b_{j-1})

    (`s, a` in place of `s` if the policy comes first), in the order of seats, but discrete actions before continuous
    ones: no gradient of a draw then has to pass through a discrete choice. A product without the earlier actions cannot
    represent opponents that are correlated given the state, and the posterior of Eq. 11 (Tian et al. 2019) correlates
    them whenever `Q` is not additive over them, even under an independent prior. The default of opponent models that
    are networks.

    Args:
        factor: see `Opponents`.
    """

    @property
    def order(self) -> list[int]:
        """The order in which opponents are drawn."""
        return sorted(range(len(self.spaces)), key=lambda number: isinstance(self.spaces[number], Box))

    def bind_factors(self, templates: Sequence[Conditional]) -> list[Conditional]:
        """See `Opponents`; each factor is conditioned on the parents and the earlier opponents' actions."""
        order, factors = self.order, []
        for number, (template, space) in enumerate(zip(templates, self.spaces, strict=True)):
            earlier = [self.spaces[each] for each in order[: order.index(number)]]
            factors.append(template.bind(self.seat, space, (*self.parents, *earlier)))
        return factors

    def forward(self, *parents: Tensor) -> Factored:
        """See `Opponents`."""
        return InTurn(list(self.factors), parents, self.spaces, self.order)


class Shared(Opponents):
    """Models opponents as independent by one conditional, which also takes the opponent's index::

        rho(b | s) = prod_j rho(b_j | s, j)

    For opponents with equal action spaces, where data on each inform the model of the others.

    Args:
        factor: template of the shared conditional.
    """

    takes_list = False

    def __init__(self, factor: Conditional) -> None:
        super().__init__(factor)

    def bind_factors(self, templates: Sequence[Conditional]) -> list[Conditional]:
        """See `Opponents`; one factor, conditioned on the parents and the opponent's index.

        Raises:
            IncompatibleError: if the action spaces differ.
        """
        if len(set(self.spaces)) > 1:
            raise IncompatibleError(f"Shared got opponents with actions {list(self.spaces)}, expected equal ones")
        return [templates[0].bind(self.seat, self.spaces[0], (*self.parents, Discrete(len(self.spaces))))]

    def forward(self, *parents: Tensor) -> Factored:
        """See `Opponents`."""
        (factor,) = self.factors
        numbers = torch.arange(len(self.spaces), device=self.seat.device).view(-1, 1, 1)
        return Separate([factor(*parents, number) for number in numbers], self.spaces)


class Joint(Opponents):
    """Models the opponents' discrete joint action as one variable, with a parameter for every joint action.

    Tables (`Tabular`) and closed forms do so by themselves; for networks it is an option.

    Args:
        factor: the conditional over the joint action, the last opponent's action varying fastest.
    """

    takes_list = False

    def __init__(self, factor: Conditional) -> None:
        super().__init__(factor)

    def bind_factors(self, templates: Sequence[Conditional]) -> list[Conditional]:
        """See `Opponents`; one factor, over the joint action.

        Raises:
            IncompatibleError: if an action space is not discrete.
        """
        if len(self.spaces) > 1:
            need_discrete(self.spaces)
        return [templates[0].bind(self.seat, self.seat.opponent_action, self.parents)]

    def forward(self, *parents: Tensor) -> Factored:
        """See `Opponents`."""
        (factor,) = self.factors
        return as_factored(factor(*parents), self.spaces)


def _fitted(factor: Conditional) -> Conditional:
    need_density(factor)
    if factor.learns_from_play or factor.reads_model or factor.over == "each":
        raise IncompatibleError(
            f"got {type(factor).__name__}, expected a conditional over one opponent's action that is fitted, such as "
            "Tabular, CategoricalNetwork or TanhNormalNetwork"
        )
    return factor


def need_own(conditional: Conditional) -> None:
    """Raise for a conditional over opponents where a policy is expected.

    Raises:
        IncompatibleError: if the conditional is over the opponents' actions.
    """
    if isinstance(conditional, Opponents):
        raise IncompatibleError(
            f"{type(conditional).__name__} got the policy's place, expected the opponent model's: it is over the "
            "opponents' actions; use its factor by itself for the policy"
        )


def for_each(conditional: Conditional, seat: Seat, several: type[Independent] | type[Autoregressive]) -> Conditional:
    """Wrap a conditional over `one` opponent's action in `several` if there are several; return others unchanged."""
    return several(conditional) if conditional.over == "one" and len(seat.opponents) > 1 else conditional


def bind_over_opponents(conditional: C, seat: Seat, parents: Sequence[Space]) -> C:
    """Return a working copy of a conditional over the opponents' actions, see `Conditional.over`.

    Raises:
        IncompatibleError: if the conditional does not fit the spaces.
    """
    spaces = seat.opponent_actions
    if len(spaces) == 1:
        return conditional.bind(seat, spaces[0], parents)
    return conditional.bind(seat, seat.opponent_action if conditional.over == "joint" else spaces, parents)
