"""Amortised Stein variational gradients, which fit samplers without a density to a density known up to a constant.

Particles are `... x particles x dim` in the functions below. The first dimensions are never coupled: every replicate
and datum has its own particles, scores and bandwidth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from inference_marl.described import Described, Several
from inference_marl.spaces import Box

SMALLEST_BANDWIDTH = 1e-6
"""The bandwidth for particles that coincide."""


def median_bandwidth(particles: Tensor) -> Tensor:
    """The bandwidth h of the kernel `exp(-|x - y|^2 / h)`, `...`: median squared distance over `log(n + 1)`.

    The median (the lower of two) is over pairs of different particles, and distances are Euclidean, as in Liu and Wang
    (2016, Section 5), whose `log n` Pyro's `RBFSteinKernel` replaces by `log(n + 1)`. Pyro has one bandwidth per
    dimension, so in several dimensions its kernel is narrower. At least `SMALLEST_BANDWIDTH`.
    """
    count = particles.shape[-2]
    first, second = torch.triu_indices(count, count, 1, device=particles.device)
    median = _squared_distances(particles, particles)[..., first, second].median(-1).values
    return (median / math.log(count + 1)).clamp_min(SMALLEST_BANDWIDTH)


def stein_direction(fixed: Tensor, score: Tensor, moved: Tensor, bandwidth: Tensor) -> Tensor:
    """The Stein variational gradient at `moved`, `... x moved x dim` (Liu and Wang 2016, Eq. 8)::

        phi(y) = mean_x [k(x, y) score(x) + grad_x k(x, y)],   k(x, y) = exp(-|x - y|^2 / h)

    the direction in which particles approach the target fastest: towards high density and away from each other.

    Args:
        fixed: the particles x over which means are taken.
        score: gradients of the target's log-density at `fixed`.
        moved: the particles y.
        bandwidth: h, `...`.
    """
    h = bandwidth[..., None, None]
    kernel = torch.exp(-_squared_distances(moved, fixed) / h)  # ... x moved x fixed
    apart = 2 / h * (kernel.sum(-1, keepdim=True) * moved - kernel @ fixed)
    return (kernel @ score + apart) / fixed.shape[-2]


def stein_discrepancy(particles: Tensor, score: Tensor, bandwidth: Tensor) -> Tensor:
    """An estimate of the squared kernelised Stein discrepancy, `...` (Liu, Lee and Jordan 2016, Theorem 3.6)::

        E[k(x, y) (s(x).s(y) + 2/h (s(x) - s(y)).(x - y) + 2 dim/h - 4 |x - y|^2 / h^2)]

    over pairs of different particles, with s the score; unbiased if the bandwidth does not depend on them. So its mean
    is 0 for exact draws and otherwise positive, on the scale of squared scores: it compares samplers of the same target
    only. It hardly notices a mode far from all particles, since scores do not depend on the mass of modes.

    Args:
        particles: `... x particles x dim`.
        score: gradients of the target's log-density there.
        bandwidth: h, `...`.
    """
    count, dim = particles.shape[-2:]
    h = bandwidth[..., None, None]
    squared = _squared_distances(particles, particles)
    kernel = torch.exp(-squared / h) - torch.eye(count, dtype=h.dtype, device=h.device)  # different particles only
    across = score @ particles.mT
    along = across.diagonal(dim1=-2, dim2=-1)
    parted = along.unsqueeze(-1) + along.unsqueeze(-2) - across - across.mT
    terms = score @ score.mT + 2 / h * parted + 2 * dim / h - 4 * squared / h.square()
    return (kernel * terms).sum((-1, -2)) / (count * (count - 1))


def _squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """`... x first x second`."""
    return (first.unsqueeze(-2) - second.unsqueeze(-3)).square().sum(-1)


class SteinStep(NamedTuple):
    """The results of one evaluation of the objective, `replicates` each.

    Attributes:
        loss: surrogate whose gradient fits the sampler's parameters; its value has no meaning.
        discrepancy: `stein_discrepancy` of the fixed particles, averaged over the batch.
        log_density: the target's log-density as given, averaged over the fixed particles and the batch.
    """

    loss: Tensor
    discrepancy: Tensor
    log_density: Tensor


class Stein(Described):
    """Amortised Stein variational gradient descent (Feng, Wang and Liu 2017; Haarnoja et al. 2017, Eq. 13 and 14).

    A sampler's parameters follow the Stein variational gradient phi of its draws y, `E[phi(y) dy / dparameters]`. As in
    the authors' code of soft Q-learning, half of the draws are fixed and define phi, and the others are moved. The
    bandwidth is computed from the moved draws, so that the discrepancy of the fixed ones is unbiased; in the authors'
    code it is computed from the distances between the two.

    Kernel and score are those of the real numbers u that `tanh` squashes into the box, including the Jacobian::

        score(u) = grad_u [log p(centre + half_width tanh u) + sum_i log(1 - tanh^2 u_i)]

    This target vanishes at infinity, so Stein's identity is exact. For particles in the box itself it is not, unless
    the density vanishes at the edges; the kernel would push particles against them.

    Args:
        fixed: particles per datum that define the direction, at least 2.
        moved: particles per datum that move along it, at least 2.
        coordinates: `unbounded`, as above; or `tilted_box`, as in the authors' code of MASQL and PR2, where kernel and
            score are those of `x = tanh u` and `log(1 - x^2 + 1e-6)` is added to the log-density. Then draws have a
            density proportional to p times `prod_i (1 - x_i^2)`, tilted to the middle of the box.
    """

    def __init__(
        self,
        fixed: Several = 16,
        moved: Several = 16,
        coordinates: Literal["unbounded", "tilted_box"] = "unbounded",
    ) -> None:
        self.fixed, self.moved, self.coordinates = fixed, moved, coordinates

    def __call__(self, draw: Callable[..., Tensor], box: Box, log_density: Callable[[Tensor], Tensor]) -> SteinStep:
        """Evaluate the objective.

        Args:
            draw: draws real numbers from the sampler, differentiably: `draw(count=n)` is `n x replicates x batch x
                dim`. It is called twice, the first time without gradients for the fixed particles.
            box: the box into which `tanh` squashes them.
            log_density: maps points in the box, `n x replicates x batch x dim`, to the target's log-density up to a
                constant, `n x replicates x batch`.
        """
        with torch.no_grad():
            fixed = self._points(draw(count=self.fixed))
        moved = self._points(draw(count=self.moved))
        score, density = self._score(fixed, box, log_density)
        bandwidth = median_bandwidth(moved.detach())
        direction = stein_direction(fixed, score, moved.detach(), bandwidth)
        return SteinStep(
            loss=-(direction * moved).sum(-1).mean((-1, -2)),
            discrepancy=stein_discrepancy(fixed, score, bandwidth).mean(-1),
            log_density=density.mean((-1, -2)),
        )

    def _points(self, draws: Tensor) -> Tensor:
        """The draws in the coordinates of kernel and score, `replicates x batch x n x dim`."""
        return (draws if self.coordinates == "unbounded" else torch.tanh(draws)).movedim(0, -2)

    def _score(self, points: Tensor, box: Box, log_density: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Gradients of the log-density in the coordinates of `points`, and the log-density as given."""
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            if self.coordinates == "unbounded":
                inside = torch.tanh(points)
                slope = -2 * (points + softplus(-2 * points))  # log(1 - tanh^2), up to a constant
            else:
                inside, slope = points, torch.log(1 - points.square() + 1e-6)
            density = log_density(box.decode(inside).movedim(-2, 0)).movedim(0, -1)
            (score,) = torch.autograd.grad(density.sum() + slope.sum(), points)
        return score, density.detach()
