"""Mixtures of normals for continuous actions."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl.described import Count, interval
from inference_marl.guides.conditionals import NetworkConditional, squashed
from inference_marl.inference.distributions import MixtureOfNormals
from inference_marl.spaces import Box


class TanhNormalMixture(NetworkConditional):
    """A mixture of diagonal normals squashed into the box, for several modes and correlated dimensions::

        k ~ Categorical(weights(parents));  u ~ Normal(mean_k(parents), exp(log_std_k(parents)))
        target = centre + half_width tanh(u)

    Weights, means and scales come from one multilayer perceptron. `k` is marginalised and gradients are pathwise, so it
    can be used wherever `TanhNormalNetwork` can. Components start narrow and apart, since the ELBO does not separate
    components that have collapsed onto one mode.

    Args:
        components: number of normals, at least 1.
        hidden, log_std: see `TanhNormalNetwork`.
    """

    bounded = True
    targets = (Box,)

    def __init__(
        self,
        components: Count = 3,
        hidden: Sequence[Count] = (100, 100),
        log_std: tuple[float, float] = (-5.0, 1.0),
    ) -> None:
        super().__init__(hidden)
        self.components, self.log_std = components, interval("log_std", log_std)

    def setup(self) -> None:
        """Create the network: a logit per component, and a mean and a log standard deviation per dimension of each."""
        self.sizes = [self.components, *[self.components * self.target.features] * 2]
        self.make_network(sum(self.sizes))
        with torch.no_grad():
            _, mean, log_std = self.network.last.bias.split(self.sizes, -1)
            mean.uniform_(-1, 1)
            log_std.fill_(-1.0)

    def forward(self, *parents: Tensor) -> dist.TorchDistribution:
        """Batch shape `[extra x] replicates x batch`, event shape `(dim,)`."""
        logits, mean, log_std = self.outputs(parents).split(self.sizes, -1)
        mean, log_std = (part.unflatten(-1, (self.components, -1)) for part in (mean, log_std))
        return squashed(self, MixtureOfNormals.of(logits, mean, log_std.clamp(*self.log_std).exp()))
