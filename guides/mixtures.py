"""Mixtures of normals for continuous actions."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl.guides.conditionals import as_box, squash
from inference_marl.inference.conditional import Conditional
from inference_marl.inference.distributions import MixtureOfNormals
from inference_marl.inference.networks import MLP, check_widths
from inference_marl.spaces import Box, encode


class TanhNormalMixture(Conditional):
    """A mixture of diagonal normals squashed into the box: several modes, correlated dimensions::

        k ~ Categorical(weights(parents));  u ~ Normal(mean_k(parents), exp(log_std_k(parents)))
        target = centre + half_width tanh(u)

    Weights, means and scales come from one multilayer perceptron. `k` is marginalised and gradients are pathwise, so it
    can be fitted wherever `TanhNormalNetwork` can. Components start narrow and apart, since the ELBO does not separate
    components that have collapsed onto one mode.

    Args:
        components: number of normals.
        hidden, log_std: see `TanhNormalNetwork`.

    Raises:
        ValueError: if `components` or a width is not positive, or the bounds are not in order.
    """

    bounded = True
    targets = (Box,)

    def __init__(
        self,
        components: int = 3,
        hidden: Sequence[int] = (100, 100),
        log_std: tuple[float, float] = (-5.0, 1.0),
    ) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(f"components: got {components}, expected a positive integer")
        self.hidden = check_widths(hidden)
        if not log_std[0] < log_std[1]:
            raise ValueError(f"log_std: got {log_std}, expected [low, high] with low < high")
        self.components, self.log_std = components, tuple(log_std)

    def setup(self) -> None:
        """Create the network: a logit per component, and a mean and a log standard deviation per dimension of each."""
        inputs = sum(parent.features for parent in self.parents)
        self.sizes = [self.components, *[self.components * self.target.features] * 2]
        self.network = MLP(self.seat, inputs, sum(self.sizes), self.hidden)
        with torch.no_grad():
            _, mean, log_std = self.network.last.bias.split(self.sizes, -1)
            mean.uniform_(-1, 1)
            log_std.fill_(-1.0)

    def forward(self, *parents: Tensor) -> dist.TorchDistribution:
        """Batch shape `[extra x] replicates x batch`, event shape `(dim,)`."""
        output = self.network(encode(self.parents, parents, self.seat.dtype))
        logits, mean, log_std = output.split(self.sizes, -1)
        mean, log_std = (part.unflatten(-1, (self.components, -1)) for part in (mean, log_std))
        base = MixtureOfNormals.of(logits, mean, log_std.clamp(*self.log_std).exp())
        squashed: dist.TorchDistribution = dist.TransformedDistribution(
            base, squash(as_box(self), self.seat.dtype, self.seat.device)
        )
        return squashed
