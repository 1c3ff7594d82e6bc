"""Distributions that Pyro lacks, and a faster `logsumexp`."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor


class MixtureOfNormals(dist.MixtureSameFamily):  # type: ignore[misc]  # Pyro makes it at import, untyped
    """A mixture of diagonal normals with pathwise gradients, including those of the weights.

    Draws follow the parameters such that every coordinate keeps the value of its conditional distribution function
    given the coordinates before it, `F_i(z_i | z_1, ..., z_{i-1})` (implicit reparameterisation: Figurnov, Mohamed and
    Mnih 2018, Eq. 5, coordinate by coordinate). So the gradient is unbiased for any dimension and needs no relaxation.
    Pyro's `MixtureOfDiagNormals` is not used: it excludes one dimension, and its gradient of the weights is biased in
    general (checked in version 1.9.2 against quadrature).

    Args:
        logits: logits of the components, `batch_shape x components`.
        mean, scale: parameters of the components, `batch_shape x components x dim`.
    """

    has_rsample = True

    @classmethod
    def of(cls, logits: Tensor, mean: Tensor, scale: Tensor) -> MixtureOfNormals:
        """Construct from the arguments of the class docstring."""
        mixture: MixtureOfNormals = cls(dist.Categorical(logits=logits), dist.Normal(mean, scale).to_event(1))
        return mixture

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws `sample_shape x batch_shape x dim`."""
        drawn = self.sample(torch.Size(sample_shape))
        components = self.component_distribution.base_dist
        log_weight = self.mixture_distribution.logits
        coordinates: list[Tensor] = []
        for i, z in enumerate(drawn.unsqueeze(-1).unbind(-2)):
            normal = dist.Normal(components.loc[..., i], components.scale[..., i])
            weight = log_weight.softmax(-1)
            below = (weight * normal.cdf(z)).sum(-1)
            density = (weight * normal.log_prob(z).exp()).sum(-1)
            # The value is z; the derivative is that of z at constant F(z).
            coordinates.append(z.squeeze(-1) - (below - below.detach()) / density.detach())
            log_weight = log_weight + normal.log_prob(coordinates[-1].unsqueeze(-1))
        return torch.stack(coordinates, -1)


def logsumexp(values: Tensor, dim: int, keepdim: bool = False) -> Tensor:
    """`torch.logsumexp` of a dimension that has a finite value, several times faster where terms underflow.

    Processors are slow with subnormal numbers. Terms are clamped to the square of the rounding error, relative to the
    largest term, which makes no difference to the sum.
    """
    highest = values.detach().amax(dim, keepdim=True)
    terms = (values - highest).clamp_min(2 * math.log(torch.finfo(values.dtype).eps)).exp()
    found = terms.sum(dim, keepdim=True).log() + highest
    return found if keepdim else found.squeeze(dim)
