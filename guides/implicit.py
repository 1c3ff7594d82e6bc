"""Implicit conditionals: networks that map noise to samples, without a density."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from inference_marl.described import Count, In, Positive
from inference_marl.inference.conditional import Conditional
from inference_marl.inference.networks import MLP
from inference_marl.spaces import Box, encode


class Implicit(Conditional):
    """Base: a conditional over a box that can be sampled with pathwise gradients but has no density.

    A subclass defines `unbounded`, draws of real numbers, which `tanh` squashes into the box. The objective `Stein`
    uses the real numbers, whose density vanishes at infinity. Objectives that need a density raise, see `has_density`.
    """

    has_density = False
    bounded = True
    targets = (Box,)

    target: Box

    @abstractmethod
    def unbounded(self, *parents: Tensor, count: int) -> Tensor:
        """Draw values before they are squashed into the box, differentiable in parameters and parents.

        Args:
            parents: `[extra x] replicates x batch x event`.
            count: independent draws per datum.

        Returns:
            `count x [extra x] replicates x batch x dim`.
        """

    def particles(self, *parents: Tensor, count: int) -> Tensor:
        """Draw values in the box; arguments and shape as for `unbounded`."""
        return self.target.decode(torch.tanh(self.unbounded(*parents, count=count)))

    def forward(self, *parents: Tensor) -> dist.TorchDistribution:
        """A distribution that can be sampled but not scored, batch shape `[extra x] replicates x batch`."""
        return _Sampled(self, parents)


class SamplerNetwork(Implicit):
    """A multilayer perceptron that maps the parents' features and noise to samples::

        e ~ Normal(0, I);  target = centre + half_width tanh(network(parents, e))

    The sampler of soft Q-learning (Haarnoja et al. 2017, Section 3.3). Dimensions of the target may depend on each
    other, and their distribution may have several modes.

    Args:
        hidden: widths of the hidden layers.
        noise: dimensions of the noise; `None` for as many as the target has, as in the authors' code.
        spread: factor on the initial weights of the last layer. With 1, as in the authors' code, initial samples lie
            close to the middle of the box, from where Stein variational gradients may find only one of two modes; with
            4 they spread over the box.
    """

    def __init__(
        self,
        hidden: Sequence[Count] = (100, 100),
        noise: Annotated[int | None, In("a positive integer", ", or null for the target's dimensions")] = None,
        spread: Positive = 1.0,
    ) -> None:
        super().__init__()
        self.hidden, self.noise, self.spread = tuple(hidden), noise, spread

    def setup(self) -> None:
        """Create the network."""
        self.noises = self.noise or self.target.features
        inputs = sum(parent.features for parent in self.parents) + self.noises
        self.network = MLP(self.seat, inputs, self.target.features, self.hidden)
        with torch.no_grad():
            self.network.last.weight.mul_(self.spread)

    def unbounded(self, *parents: Tensor, count: int) -> Tensor:
        """See `Implicit`."""
        seat = self.seat
        features = encode(self.parents, parents, seat.dtype)
        *extra, _, batch, _ = features.shape  # replicates share enumerated values, in a dimension of size 1
        size = (seat.replicates, count, *extra, batch, self.noises)
        # Random numbers are drawn with replicates first, so that arms that are played together can separate theirs.
        noise = torch.randn(size, dtype=seat.dtype, device=seat.device).movedim(0, 1 + len(extra))
        outputs: Tensor = self.network(torch.cat([features.expand(*noise.shape[:-1], -1), noise], -1))
        return outputs


class _Sampled(dist.TorchDistribution):
    """The distribution of an `Implicit` at its parents.

    Args:
        implicit: the conditional.
        parents: `[extra x] replicates x batch x event`; their batch shapes broadcast.
        batch_shape: to expand the parents' to.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (an instance attribute in torch's stubs)
    has_rsample = True

    def __init__(self, implicit: Implicit, parents: Sequence[Tensor], batch_shape: Sequence[int] = ()) -> None:
        self.implicit, self.parents = implicit, tuple(parents)
        self.events = [len(space.event_shape) for space in implicit.parents]
        pairs = zip(parents, self.events, strict=True)
        shapes = [value.shape[: value.dim() - event] for value, event in pairs]
        shape = torch.broadcast_shapes((implicit.seat.replicates, 1), batch_shape, *shapes)
        super().__init__(shape, torch.Size(implicit.target.event_shape))

    @property
    def support(self) -> constraints.Constraint:
        """The box."""
        edges = self.implicit.target.edges(torch.float64, torch.device("cpu"))
        return constraints.independent(constraints.interval(*edges), 1)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> _Sampled:
        """The same distribution with a larger batch shape."""
        return _Sampled(self.implicit, self.parents, batch_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws `sample_shape x batch_shape x dim`."""
        parents = [
            value.expand(*self.batch_shape, *value.shape[value.dim() - event :])
            for value, event in zip(self.parents, self.events, strict=True)
        ]
        drawn = self.implicit.particles(*parents, count=math.prod(sample_shape))
        return drawn.reshape(*sample_shape, *drawn.shape[1:])

    def log_prob(self, value: Tensor) -> Tensor:
        """Raise: there is no density.

        Raises:
            NotImplementedError: always, and not `ValueError`, which Pyro would wrap.
        """
        raise NotImplementedError(
            f"{type(self.implicit).__name__} has no density: it can be sampled, and fitted by Stein, but not scored"
        )
