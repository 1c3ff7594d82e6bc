"""Distributions of several variables, one factor after the other: what opponents do at once."""

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
"""A conditional, called with the values of its parents."""


def opponent_sites(count: int, step: int | None = None) -> tuple[str, ...]:
    """The names of the sites at which opponents act, in the order of `Seat.opponents`.

    Of the only opponent it is `opponent_action`, of several `opponent_action_0` and so on; in models of trajectories
    each is followed by `_` and the step.
    """
    names = numbered("opponent_action", count)
    return names if step is None else tuple(f"{name}_{step}" for name in names)


class Factored(ABC):
    """The distribution of several variables at given parents: a factor for each, given the earlier ones in `order`.

    Args:
        spaces: of the variables.
    """

    def __init__(self, spaces: Sequence[Space]) -> None:
        self.spaces = tuple(spaces)

    @property
    def order(self) -> Sequence[int]:
        """In which the variables are drawn."""
        return range(len(self.spaces))

    @abstractmethod
    def factor(self, number: int, *earlier: Tensor) -> dist.TorchDistribution:
        """The distribution of one variable, whose batch shape broadcasts with `[extra x] replicates x batch`.

        Args:
            number: which.
            earlier: values of those before it in `order`, `[extra x] replicates x batch x event`.
        """

    def sites(
        self, names: Sequence[str], infer: Callable[[Space], Any] | None = None, obs: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, ...]:
        """A Pyro sample statement for each variable; returns their values in the order of `names`.

        Args:
            names: of the sites, one per variable.
            infer: configuration of a site, by space.
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
        """Of every variable, given draws of the earlier ones: its probabilities if it is discrete, and else a draw.

        `shape x values` or `shape x event`. The mean of such probabilities estimates the marginal ones without
        bias, and exactly if the variables are independent.
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
        """Log-density of values, `[extra x] replicates x batch x event` each."""
        earlier: list[Tensor] = []
        total: Any = 0.0
        for number in self.order:
            total = total + self.factor(number, *earlier).log_prob(values[number])
            earlier.append(values[number])
        return torch.as_tensor(total)

    def table(self) -> Tensor:
        """Log-probabilities of joint values, the last variable's running fastest, in the last dimension.

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
        factors: their distributions.
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
    """Variables each of which has a conditional given the parents and the earlier ones.

    Args:
        conditionals: one per variable, on `(*parents, *earlier)`.
        parents: what all condition on, `[extra x] replicates x batch x event`.
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
    """Discrete variables with a table of joint probabilities; a factor sums out the later ones.

    Args:
        logits: normalised log-probabilities of joint values, the last variable's running fastest, `... x joint`.
        spaces: see `Factored`.
    """

    def __init__(self, logits: Tensor, spaces: Sequence[Space]) -> None:
        super().__init__(spaces)
        need_discrete(spaces)
        self.logits = logits

    def factor(self, number: int, *earlier: Tensor) -> dist.TorchDistribution:
        """See `Factored`. Given what is impossible it is uniform."""
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
    """A distribution of what is in `spaces`: of the only variable, or of discrete ones' joint value."""
    if isinstance(found, Factored):
        return found
    if len(spaces) == 1:
        return Separate([found], spaces)
    return OfTable(log_probabilities(found, math.prod(space.features for space in spaces)), spaces)


def log_probabilities(distribution: dist.TorchDistribution, size: int) -> Tensor:
    """Of the values `0 .. size - 1`, in the last dimension."""
    if isinstance(distribution, dist.Categorical):
        logits: Tensor = distribution.logits
        return logits
    values = torch.arange(size).view(-1, *[1] * len(distribution.batch_shape))
    return distribution.log_prob(values).movedim(0, -1)


def need_discrete(spaces: Sequence[Space]) -> None:
    """Refuse spaces of which there is no table.

    Raises:
        IncompatibleError: if one is not discrete.
    """
    for space in spaces:
        if not isinstance(space, Discrete):
            raise IncompatibleError(
                f"a table of the opponents' actions: got {space}, expected Discrete spaces; closed forms (Optimal) "
                "and counts are for those, networks for others"
            )
