"""Parametric conditionals for policies `pi(a | s, b)`, opponent models `rho(b | s)` and learned priors."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions.transforms import AffineTransform, ConditionalSpline, TanhTransform
from pyro.ops.indexing import Vindex
from torch import Tensor, nn

from inference_marl.described import Count, NotNegative, Positive, Several, interval
from inference_marl.inference.conditional import Conditional
from inference_marl.inference.networks import MLP
from inference_marl.spaces import Box, Discrete, encode


class Tabular(Conditional):
    """A table of logits, one per replicate, parent values and action: full capacity for discrete games.

    Parents are `[extra x] replicates x batch`; the distribution is categorical over the target.

    Args:
        scale: standard deviation of the initial logits; 0 starts at the uniform distribution.
    """

    over = "joint"
    targets = (Discrete,)
    conditions = (Discrete,)

    def __init__(self, scale: NotNegative = 0.0) -> None:
        super().__init__()
        self.scale = scale

    def setup(self) -> None:
        """Create `logits`, `replicates x parent_1 x ... x target`."""
        seat = self.seat
        shape = (seat.replicates, *(parent.features for parent in self.parents), self.target.features)
        self.logits = nn.Parameter(self.scale * torch.randn(shape, device=seat.device, dtype=seat.dtype))

    def forward(self, *parents: Tensor) -> dist.TorchDistribution:
        """A categorical with the logits that the parents select."""
        return dist.Categorical(logits=Vindex(self.logits)[(self.seat.rows, *parents, slice(None))])


class NetworkConditional(Conditional):
    """Base: the distribution's parameters are outputs of a multilayer perceptron over the parents' features.

    Args:
        hidden: widths of the hidden layers.
    """

    def __init__(self, hidden: Sequence[Count] = (100, 100)) -> None:
        super().__init__()
        self.hidden = tuple(hidden)

    def make_network(self, outputs: int) -> None:
        """Create the network; called by `setup`."""
        self.network = MLP(self.seat, sum(parent.features for parent in self.parents), outputs, self.hidden)

    def outputs(self, parents: Sequence[Tensor]) -> Tensor:
        """The network's outputs, `[extra x] replicates x batch x outputs`."""
        outputs: Tensor = self.network(encode(self.parents, parents, self.seat.dtype))
        return outputs


class CategoricalNetwork(NetworkConditional):
    """A categorical with logits from a multilayer perceptron over the parents' features.

    Args:
        hidden: widths of the hidden layers.
    """

    targets = (Discrete,)

    def setup(self) -> None:
        """Create the network."""
        self.make_network(self.target.features)

    def forward(self, *parents: Tensor) -> dist.TorchDistribution:
        """A categorical with batch shape `[extra x] replicates x batch`."""
        return dist.Categorical(logits=self.outputs(parents))


class _ClampedTanh(TanhTransform):
    """Tanh whose inverse stays finite at the bounds, so that stored actions have finite log-probabilities."""

    def _inverse(self, y: Tensor) -> Tensor:
        eps = torch.finfo(y.dtype).eps
        return torch.atanh(y.clamp(-1 + eps, 1 - eps))


def squashed(
    conditional: Conditional, base: dist.TorchDistribution, *first: torch.distributions.Transform
) -> dist.TorchDistribution:
    """Squash a distribution over the reals, transformed by `first`, into the box of a conditional's target.

    Transforms cache values, so that sampled values are scored exactly.

    Raises:
        TypeError: if the target is not a box; `bind` raises earlier for classes that declare their targets.
        ValueError: if the box is unbounded.
    """
    box, seat = conditional.target, conditional.seat
    if not isinstance(box, Box):
        raise TypeError(f"{type(conditional).__name__}: got target {box}, expected a Box")
    if not box.bounded:
        raise ValueError(f"got {box}, expected a box with finite edges to squash into")
    centre: float | Tensor
    half_width: float | Tensor
    if isinstance(box.low, tuple) or isinstance(box.high, tuple):
        centre, half_width = box.scale(seat.dtype, seat.device)
    else:  # Python floats, whose logarithm torch does not round to the floating type
        centre, half_width = (box.high + box.low) / 2, (box.high - box.low) / 2
    into = [_ClampedTanh(cache_size=1), AffineTransform(centre, half_width, cache_size=1)]
    transformed: dist.TorchDistribution = dist.TransformedDistribution(base, [*first, *into])
    return transformed


class TanhNormalNetwork(NetworkConditional):
    """A normal squashed into the box by tanh, with mean and scale from a multilayer perceptron::

        u ~ Normal(mean(parents), exp(log_std(parents)));  target = centre + half_width tanh(u)

    The squashed policy of soft actor-critic, as in ROMMEO-AC (Tian et al. 2019, Section 3.2). The authors' code clips
    `log_std` to [-20, 2]; here the upper bound is 1, since a wider normal puts its mass on the bounds of the box.
    Dimensions of the target are independent given the parents.

    Args:
        hidden: widths of the hidden layers.
        log_std: lower and upper bound of the log standard deviation before squashing.
    """

    bounded = True
    targets = (Box,)

    def __init__(self, hidden: Sequence[Count] = (100, 100), log_std: tuple[float, float] = (-5.0, 1.0)) -> None:
        super().__init__(hidden)
        self.log_std = interval("log_std", log_std)

    def setup(self) -> None:
        """Create the network, with two outputs per dimension of the target."""
        self.make_network(2 * self.target.features)

    def forward(self, *parents: Tensor) -> dist.TorchDistribution:
        """Batch shape `[extra x] replicates x batch`, event shape `(dim,)`."""
        mean, log_std = self.outputs(parents).chunk(2, dim=-1)
        base = dist.Normal(mean, log_std.clamp(*self.log_std).exp())
        independent: dist.TorchDistribution = squashed(self, base).to_event(1)
        return independent


class SplineFlow(NetworkConditional):
    """A conditional rational-spline flow squashed into the box, for multimodal densities::

        u ~ Normal(0, 1);  target = centre + half_width tanh(spline(u; parents))

    The spline is Pyro's `ConditionalSpline` (Durkan et al. 2019, Dolatabadi et al. 2020) with parameters from a
    multilayer perceptron. Dimensions of the target are independent given the parents.

    Args:
        hidden: widths of the hidden layers.
        bins: segments of the spline.
        bound: the spline acts on `[-bound, bound]` before squashing and is the identity outside.
    """

    bounded = True
    targets = (Box,)

    def __init__(self, hidden: Sequence[Count] = (100, 100), bins: Several = 8, bound: Positive = 3.0) -> None:
        super().__init__(hidden)
        self.bins, self.bound = bins, bound

    def setup(self) -> None:
        """Create the network; the spline has `4 bins - 1` parameters per dimension."""
        dim = self.target.features
        self.widths = [dim * self.bins, dim * self.bins, dim * (self.bins - 1), dim * self.bins]
        self.make_network(sum(self.widths))
        # The network is applied before the spline, whose own hypernetwork only splits the network's output.
        self.spline = ConditionalSpline(lambda context: context.split(self.widths, -1), dim, self.bins, self.bound)

    def forward(self, *parents: Tensor) -> dist.TorchDistribution:
        """Batch shape `[extra x] replicates x batch`, event shape `(dim,)`."""
        context = self.outputs(parents)
        zeros = context.new_zeros(*context.shape[:-1], self.target.features)
        base = dist.Normal(zeros, torch.ones_like(zeros)).to_event(1)
        return squashed(self, base, self.spline.condition(context))
