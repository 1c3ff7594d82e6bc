"""Autoregressive models of several opponents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.nn import PyroModuleList
from torch import Tensor
from torch.distributions import constraints

from inference_marl.described import IncompatibleError, within
from inference_marl.guides.closed_form import ClosedForm
from inference_marl.inference.conditional import Conditional, need_density
from inference_marl.spaces import Box, Space, separate_actions


class Autoregressive(Conditional):
    """Models each opponent given the previous ones, in seat order::

        rho(b | s) = prod_j rho_j(b_j | s, b_1, ..., b_{j-1})

    (`s, a` in place of `s` where the policy comes first). A product without the earlier actions cannot represent
    opponents that are correlated given the state, and the posterior of Eq. 11 (Tian et al. 2019) correlates them
    whenever `Q` is not additive over them, even under an independent prior.

    It models the opponents' joint action, so it can replace any opponent model. For discrete actions the distribution
    is a categorical over all joint actions, and enumeration stays exact. For boxes it is sampled sequentially, with
    pathwise gradients through the factors and through what they condition on. With one opponent it equals `factor`.

    Args:
        factor: template of the conditional over each opponent's own action.
    """

    factors: Any  # a PyroModuleList, which is not generic

    def __init__(self, factor: Conditional) -> None:
        super().__init__()
        self.factor = factor

    def setup(self) -> None:
        """Bind one factor per opponent, with the earlier opponents' actions as its last parents.

        Raises:
            IncompatibleError: if this is not the opponent model, or the factor cannot be fitted or does not fit.
        """
        seat = self.seat
        if self.target != seat.opponent_action:
            raise IncompatibleError(
                f"Autoregressive got {self.target}, expected the opponents' joint action {seat.opponent_action}: it is "
                "an opponent model; use its factor by itself for the policy"
            )
        self.opponents: list[Space] = [seat.action_spaces[agent] for agent in seat.opponents]
        factors = []
        with within("factor"):
            need_density(self.factor)
            if self.factor.learns_from_play or isinstance(self.factor, ClosedForm | Autoregressive):
                raise IncompatibleError(
                    f"got {type(self.factor).__name__}, expected a conditional over one opponent's action that is "
                    "fitted, such as Tabular, CategoricalNetwork or TanhNormalNetwork"
                )
            for position, opponent in enumerate(self.opponents):
                parents = (*self.parents, *self.opponents[:position])
                factors.append(self.factor.bind(seat, opponent, parents))
        self.factors = PyroModuleList(factors)

    @property
    def full_support(self) -> bool:
        """Whether every factor has full support."""
        return all(factor.full_support for factor in self.factors)

    def forward(self, *parents: Tensor) -> dist.TorchDistribution:
        """Batch shape `[extra x] replicates x batch`, over the opponents' joint action."""
        events = [len(space.event_shape) for space in self.parents]
        shapes = [value.shape[: value.dim() - event] for value, event in zip(parents, events, strict=True)]
        # Enumerated values are the same for all replicates; the factors' distributions are not.
        batch_shape = torch.broadcast_shapes((self.seat.replicates, 1), *shapes)
        if isinstance(self.target, Box):
            return _InTurn(list(self.factors), parents, self.target, batch_shape)
        return dist.Categorical(logits=self._joint_logits(parents, batch_shape))

    def _joint_logits(self, parents: Sequence[Tensor], batch_shape: torch.Size) -> Tensor:
        """`batch_shape x joint actions`, the last opponent's action running fastest."""
        joint = torch.zeros(*batch_shape, 1, dtype=self.seat.dtype, device=self.seat.device)
        for position, factor in enumerate(self.factors):
            # All combinations of the earlier actions at once, in one new leftmost dimension.
            every = torch.arange(joint.shape[-1], device=joint.device).view(-1, *[1] * len(batch_shape))
            earlier = separate_actions(self.opponents[:position], every)
            logits = factor(*parents, *earlier).expand((len(every), *batch_shape)).logits
            joint = (joint.unsqueeze(-1) + logits.movedim(0, -2)).flatten(-2)
        return joint


class _InTurn(dist.TorchDistribution):
    """Continuous actions of several opponents, concatenated, each sampled given the earlier ones.

    Args:
        factors: one conditional per opponent, on `(*parents, *earlier actions)`.
        parents: what all factors condition on.
        box: the joint action's space.
        batch_shape: the parents' batch shapes, broadcast or expanded.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (an instance attribute in torch's stubs)
    has_rsample = True

    def __init__(
        self, factors: Sequence[Conditional], parents: Sequence[Tensor], box: Box, batch_shape: torch.Size
    ) -> None:
        self.factors, self.parents, self.box = factors, parents, box
        self._drawn: tuple[Tensor, Tensor] | None = None
        super().__init__(batch_shape, torch.Size(box.event_shape))

    @property
    def support(self) -> constraints.Constraint:
        """The joint box."""
        return constraints.independent(constraints.interval(*self.box.edges(torch.float64, torch.device("cpu"))), 1)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> _InTurn:
        """The same distribution with a larger batch shape."""
        return _InTurn(self.factors, self.parents, self.box, torch.Size(batch_shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Sample sequentially, `sample_shape x batch_shape x dim`."""
        shape = torch.Size(sample_shape) + self.batch_shape
        actions: list[Tensor] = []
        terms = []
        for factor in self.factors:
            distribution = factor(*self.parents, *actions).expand(shape)
            actions.append(distribution.rsample())
            terms.append(distribution.log_prob(actions[-1]))
        value = torch.cat(actions, -1)
        # Rounding near the box's bounds makes the factors' inverses inexact, so the log-density of a draw is cached.
        self._drawn = (value, torch.stack(terms).sum(0))
        return value

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density at `value`, `... x dim`, whose leading shape broadcasts with the batch shape."""
        if self._drawn is not None and self._drawn[0] is value:
            log_prob = self._drawn[1]
            if log_prob.requires_grad or not torch.is_grad_enabled():  # a draw by `sample` is scored without gradient
                return log_prob
        shape = torch.broadcast_shapes(self.batch_shape, value.shape[:-1])
        actions = separate_actions([factor.target for factor in self.factors], value)
        terms = [
            factor(*self.parents, *actions[:position]).expand(shape).log_prob(actions[position])
            for position, factor in enumerate(self.factors)
        ]
        return torch.stack(terms).sum(0)
