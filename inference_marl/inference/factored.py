"""Factorised distributions of several variables: the simultaneous actions of several opponents."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.spaces import Discrete, Space, joint_action, separate_actions
from inference_marl.types.beliefs import numbered

Given = Callable[..., dist.TorchDistribution]
"""A conditional: maps the values of its parents to a distribution."""


def opponent_sites(count: int, step: int | None = None) -> tuple[str, ...]:
    """The names of the sites of the opponents' actions, in the order of `Seat.opponents`.

    `opponent_action` for a single opponent, `opponent_action_0` and so on for several; in models of trajectories each
    is followed by `_` and the step.
    """
    names = numbered("opponent_action", count)
    return names if step is None else tuple(f"{name}_{step}" for name in names)


class Factored(ABC):
    """Base: a distribution of several variables, with a factor for each given the earlier ones in `order`.

    Args:
        spaces: spaces of the variables.
    """

    def __init__(self, spaces: Sequence[Space]) -> None:
        self.spaces = tuple(spaces)

    @property
    def order(self) -> Sequence[int]:
        """The order in which the variables are drawn."""
        return range(len(self.spaces))

    @abstractmethod
    def factor(self, number: int, *earlier: Tensor) -> dist.TorchDistribution:
        """The distribution of one variable, whose batch shape broadcasts with `[extra x] replicates x batch`.

        Args:
            number: index of the variable.
            earlier: values of the variables before it in `order`, `[extra x] replicates x batch x event`.
        """

    def sites(
        self, names: Sequence[str], infer: Callable[[Space], Any] | None = None, obs: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, ...]:
        """Run a Pyro sample statement for each variable; returns the values in the order of `names`.

        Args:
            names: names of the sites, one per variable.
            infer: maps a variable's space to Pyro's `infer` configuration of its site.
            obs: values to condition on.
        """
        values: dict[int, Tensor] = {}
        for number in self.order:
            factor = self.factor(number, *values.values())
            value = None if obs is None else obs[number]
            configured = None if infer is None else infer(self.spaces[number])
            values[number] = pyro.sample(names[number], factor, obs=value, infer=configured)
        return tuple(values[number] for number in range(len(values)))

    def sample(self, shape: Sequence[int]) -> tuple[Tensor, ...]:
        """A draw of every variable, `shape x event`, to which the batch shapes are expanded."""
        values: dict[int, Tensor] = {}
        for number in self.order:
            values[number] = self.factor(number, *values.values()).expand(torch.Size(shape)).sample()
        return tuple(values[number] for number in range(len(values)))

    def outlook(self, shape: Sequence[int]) -> tuple[Tensor, ...]:
        """For every variable, given draws of the earlier ones: its probabilities if it is discrete, otherwise a draw.

        `shape x values` or `shape x event`. The mean of such probabilities is an unbiased estimate of the marginal
        ones, and exact if the variables are independent.
        """
        values: dict[int, Tensor] = {}
        found: dict[int, Tensor] = {}
        for number in self.order:
            factor = self.factor(number, *values.values()).expand(torch.Size(shape))
            values[number] = factor.sample()
            space = self.spaces[number]
            discrete = isinstance(space, Discrete)
            found[number] = log_probabilities(factor, space.features).exp() if discrete else values[number]
        return tuple(found[number] for number in range(len(found)))

    def log_prob(self, values: Sequence[Tensor]) -> Tensor:
        """The log-density of values, `[extra x] replicates x batch x event` each."""
        earlier: list[Tensor] = []
        total: Any = 0.0
        for number in self.order:
            total = total + self.factor(number, *earlier).log_prob(values[number])
            earlier.append(values[number])
        return torch.as_tensor(total)

    def table(self) -> Tensor:
        """Log-probabilities of joint values in the last dimension, the last variable varying fastest.

        Raises:
            IncompatibleError: if a variable is not discrete.
        """
        need_discrete(self.spaces)
        joint = log_probabilities(self.factor(0), self.spaces[0].features)
        data = max(joint.dim() - 1, 2)
        for number, space in enumerate(self.spaces[1:], start=1):
            # All combinations of the earlier values at once, in one new leftmost dimension.
            every = torch.arange(joint.shape[-1], device=joint.device).view(-1, *[1] * data)
            factor = self.factor(number, *separate_actions(self.spaces[:number], every))
            factor = factor.expand(torch.broadcast_shapes((len(every), *[1] * data), factor.batch_shape))
            joint = (joint.unsqueeze(-1) + log_probabilities(factor, space.features).movedim(0, -2)).flatten(-2)
        return joint


class Separate(Factored):
    """Independent variables.

    Args:
        factors: distributions of the variables.
        spaces: see `Factored`.
    """

    def __init__(self, factors: Sequence[dist.TorchDistribution], spaces: Sequence[Space]) -> None:
        super().__init__(spaces)
        self.factors = tuple(factors)

    def factor(self, number: int, *earlier: Tensor) -> dist.TorchDistribution:
        """See `Factored`."""
        return self.factors[number]

    def table(self) -> Tensor:
        """See `Factored`."""
        need_discrete(self.spaces)
        joint, *others = (
            log_probabilities(factor, space.features) for factor, space in zip(self.factors, self.spaces, strict=True)
        )
        for each in others:
            joint = (joint.unsqueeze(-1) + each.unsqueeze(-2)).flatten(-2)
        return joint


class InTurn(Factored):
    """Variables that each have a conditional given the parents and the earlier variables.

    Args:
        conditionals: one per variable, on `(*parents, *earlier)`.
        parents: values of the common parents, `[extra x] replicates x batch x event`.
        spaces: see `Factored`.
        order: see `Factored`.
    """

    def __init__(
        self, conditionals: Sequence[Given], parents: Sequence[Tensor], spaces: Sequence[Space], order: Sequence[int]
    ) -> None:
        super().__init__(spaces)
        self.conditionals, self.parents, self._order = tuple(conditionals), tuple(parents), tuple(order)

    @property
    def order(self) -> Sequence[int]:
        """See `Factored`."""
        return self._order

    def factor(self, number: int, *earlier: Tensor) -> dist.TorchDistribution:
        """See `Factored`."""
        return self.conditionals[number](*self.parents, *earlier)


class OfTable(Factored):
    """Discrete variables with a table of joint probabilities; a factor sums out the later variables.

    Args:
        logits: normalised log-probabilities of joint values, the last variable varying fastest, `... x joint`.
        spaces: see `Factored`.
    """

    def __init__(self, logits: Tensor, spaces: Sequence[Space]) -> None:
        super().__init__(spaces)
        need_discrete(spaces)
        self.logits = logits

    def factor(self, number: int, *earlier: Tensor) -> dist.TorchDistribution:
        """See `Factored`. Uniform given earlier values of probability 0."""
        sizes = [space.features for space in self.spaces]
        logits = self.logits.unflatten(-1, (math.prod(sizes[:number]), sizes[number], -1)).logsumexp(-1)
        if not number:
            return dist.Categorical(logits=logits.squeeze(-2))
        logits = Vindex(logits)[..., joint_action(self.spaces[:number], earlier), :]
        impossible = logits.isneginf().all(-1, keepdim=True)
        return dist.Categorical(logits=logits.masked_fill(impossible, 0.0))

    def table(self) -> Tensor:
        """See `Factored`."""
        return self.logits


def as_factored(found: Factored | dist.TorchDistribution, spaces: Sequence[Space]) -> Factored:
    """Return a distribution of the only variable, or of the joint value of discrete variables, as a `Factored`."""
    if isinstance(found, Factored):
        return found
    if len(spaces) == 1:
        return Separate([found], spaces)
    return OfTable(log_probabilities(found, math.prod(space.features for space in spaces)), spaces)


def log_probabilities(distribution: dist.TorchDistribution, size: int) -> Tensor:
    """Log-probabilities of the values `0 .. size - 1`, in the last dimension."""
    if isinstance(distribution, dist.Categorical):
        logits: Tensor = distribution.logits
        return logits
    values = torch.arange(size).view(-1, *[1] * len(distribution.batch_shape))
    return distribution.log_prob(values).movedim(0, -1)


def need_discrete(spaces: Sequence[Space]) -> None:
    """Raise for spaces over which there is no table.

    Raises:
        IncompatibleError: if a space is not discrete.
    """
    for space in spaces:
        if not isinstance(space, Discrete):
            raise IncompatibleError(
                f"a table of the opponents' actions: got {space}, expected Discrete spaces; closed forms (Optimal) "
                "and counts are for those, networks for others"
            )
