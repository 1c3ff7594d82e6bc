"""Parametric conditionals: policies `pi(a | s, b)`, opponent models `rho(b | s)`, learned priors."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions.transforms import AffineTransform, ConditionalSpline, TanhTransform
from pyro.ops.indexing import Vindex
from torch import Tensor, nn

from inference_marl.inference.conditional import Conditional
from inference_marl.inference.networks import MLP, check_widths
from inference_marl.spaces import Box, Discrete, encode


class Tabular(Conditional):
    """One logit per replicate, parent values and action: full capacity for discrete games.

    Parents are `[extra x] replicates x batch`; the distribution is categorical over the target.

    Args:
        scale: standard deviation of the initial logits; 0 starts at the uniform distribution.
    """

    targets = (Discrete,)
    conditions = (Discrete,)

    def __init__(self, scale: float = 0.0) -> None:
        super().__init__()
        if scale < 0:
            raise ValueError(f"scale: got {scale}, expected a number that is not negative")
        self.scale = scale

    def setup(self) -> None:
        """Create `logits`, `replicates x parent_1 x ... x target`."""
        seat = self.seat
        shape = (seat.replicates, *(parent.features for parent in self.parents), self.target.features)
        self.logits = nn.Parameter(self.scale * torch.randn(shape, device=seat.device, dtype=seat.dtype))

    def forward(self, *parents: Tensor) -> dist.TorchDistribution:
        """A categorical with the logits that the parents select."""
        return dist.Categorical(logits=Vindex(self.logits)[(self.seat.rows, *parents, slice(None))])


class CategoricalNetwork(Conditional):
    """Logits from a multilayer perceptron over the parents' features.

    Args:
        hidden: widths of the hidden layers.
    """

    targets = (Discrete,)

    def __init__(self, hidden: Sequence[int] = (100, 100)) -> None:
        super().__init__()
        self.hidden = check_widths(hidden)

    def setup(self) -> None:
        """Create the network."""
        self.network = MLP(self.seat, sum(p.features for p in self.parents), self.target.features, self.hidden)

    def forward(self, *parents: Tensor) -> dist.TorchDistribution:
        """A categorical with batch shape `[extra x] replicates x batch`."""
        return dist.Categorical(logits=self.network(encode(self.parents, parents, self.seat.dtype)))


class _ClampedTanh(TanhTransform):
    """Tanh whose inverse stays finite at the bounds, so that stored actions have finite log-probabilities."""

    def _inverse(self, y: Tensor) -> Tensor:
        eps = torch.finfo(y.dtype).eps
        return torch.atanh(y.clamp(-1 + eps, 1 - eps))


def squash(box: Box, dtype: torch.dtype, device: torch.device) -> list[torch.distributions.Transform]:
    """Transforms from the reals into `box`, with cached values, so that sampling and scoring agree exactly.

    Raises:
        ValueError: if the box is unbounded.
    """
    if not box.bounded:
        raise ValueError(f"got {box}, expected a box with finite edges: nothing is squashed into another")
    centre: float | Tensor
    half_width: float | Tensor
    if isinstance(box.low, tuple) or isinstance(box.high, tuple):
        centre, half_width = box.scale(dtype, device)
    else:  # Python floats, whose logarithm torch does not round to the floating type
        centre, half_width = (box.high + box.low) / 2, (box.high - box.low) / 2
    return [_ClampedTanh(cache_size=1), AffineTransform(centre, half_width, cache_size=1)]


class TanhNormalNetwork(Conditional):
    """A normal squashed into the box, with mean and scale from a multilayer perceptron::

        u ~ Normal(mean(parents), exp(log_std(parents)));  target = centre + half_width tanh(u)

    The squashed policy of soft actor-critic, as in ROMMEO-AC (Tian et al. 2019, Section 3.2). The authors' code clips
    `log_std` to [-20, 2]; here the upper bound is 1, since a wider normal puts its mass on the bounds of the box.
    Dimensions of the target are independent given the parents.

    Args:
        hidden: widths of the hidden layers.
        log_std: lower and upper bound of the log standard deviation before squashing.

    Raises:
        ValueError: if a width is not positive or the bounds are not in order.
    """

    bounded = True
    targets = (Box,)

    def __init__(self, hidden: Sequence[int] = (100, 100), log_std: tuple[float, float] = (-5.0, 1.0)) -> None:
        super().__init__()
        self.hidden = check_widths(hidden)
        if not log_std[0] < log_std[1]:
            raise ValueError(f"log_std: got {log_std}, expected [low, high] with low < high")
        self.log_std = tuple(log_std)

    def setup(self) -> None:
        """Create the network, with two outputs per dimension of the target."""
        self.network = MLP(self.seat, sum(p.features for p in self.parents), 2 * self.target.features, self.hidden)

    def forward(self, *parents: Tensor) -> dist.TorchDistribution:
        """Batch shape `[extra x] replicates x batch`, event shape `(dim,)`."""
        output = self.network(encode(self.parents, parents, self.seat.dtype))
        mean, log_std = output.chunk(2, dim=-1)
        base = dist.Normal(mean, log_std.clamp(*self.log_std).exp())
        squashed: dist.TorchDistribution = dist.TransformedDistribution(
            base, squash(as_box(self), self.seat.dtype, self.seat.device)
        ).to_event(1)
        return squashed


class SplineFlow(Conditional):
    """A conditional rational-spline flow, squashed into the box: multimodal densities::

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

    def __init__(self, hidden: Sequence[int] = (100, 100), bins: int = 8, bound: float = 3.0) -> None:
        super().__init__()
        self.hidden = check_widths(hidden)
        if bins < 2 or bound <= 0:
            raise ValueError(f"bins, bound: got {bins}, {bound}, expected at least 2 and a positive number")
        self.bins, self.bound = bins, bound

    def setup(self) -> None:
        """Create the network; the spline has `4 bins - 1` parameters per dimension."""
        dim = self.target.features
        self.widths = [dim * self.bins, dim * self.bins, dim * (self.bins - 1), dim * self.bins]
        self.network = MLP(self.seat, sum(p.features for p in self.parents), sum(self.widths), self.hidden)
        # The network is applied before the spline, whose own hypernetwork is then a split of its output.
        self.spline = ConditionalSpline(lambda context: context.split(self.widths, -1), dim, self.bins, self.bound)

    def forward(self, *parents: Tensor) -> dist.TorchDistribution:
        """Batch shape `[extra x] replicates x batch`, event shape `(dim,)`."""
        context = self.network(encode(self.parents, parents, self.seat.dtype))
        zeros = context.new_zeros(*context.shape[:-1], self.target.features)
        base = dist.Normal(zeros, torch.ones_like(zeros)).to_event(1)
        transforms = [self.spline.condition(context), *squash(as_box(self), self.seat.dtype, self.seat.device)]
        flow: dist.TorchDistribution = dist.TransformedDistribution(base, transforms)
        return flow


def as_box(conditional: Conditional) -> Box:
    """The target of a conditional over a box.

    Raises:
        TypeError: for any other target, which `bind` refuses for classes that declare their targets.
    """
    box = conditional.target
    if not isinstance(box, Box):
        raise TypeError(f"{type(conditional).__name__}: got target {box}, expected a Box")
    return box
