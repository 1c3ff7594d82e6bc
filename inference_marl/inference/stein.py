"""Amortised Stein variational gradients: fitting what can only be sampled to a density known up to a constant.

Particles are `... x particles x dim` in the functions below, which never couple what leads: every replicate and datum
has particles, scores and a bandwidth of its own.
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
"""Of particles that lie on top of each other."""


def median_bandwidth(particles: Tensor) -> Tensor:
    """The bandwidth h of the kernel `exp(-|x - y|^2 / h)`, `...`: median squared distance over `log(n + 1)`.

    The median, the lower of two, is over the pairs of different particles, and distances are Euclidean, as in Liu and
    Wang (2016, Section 5), whose `log n` Pyro's `RBFSteinKernel` replaces by `log(n + 1)`. Pyro has a bandwidth for
    each dimension, which is the same in one dimension; in more its kernel is narrower. At least `SMALLEST_BANDWIDTH`.
    """
    count = particles.shape[-2]
    first, second = torch.triu_indices(count, count, 1, device=particles.device)
    median = _squared_distances(particles, particles)[..., first, second].median(-1).values
    return (median / math.log(count + 1)).clamp_min(SMALLEST_BANDWIDTH)


def stein_direction(fixed: Tensor, score: Tensor, moved: Tensor, bandwidth: Tensor) -> Tensor:
    """The Stein variational gradient at `moved`, `... x moved x dim` (Liu and Wang 2016, Eq. 8)::

        phi(y) = mean_x [k(x, y) score(x) + grad_x k(x, y)],   k(x, y) = exp(-|x - y|^2 / h)

    the direction in which particles approach the target fastest: towards where it is dense, and apart.

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

    over pairs of different particles, with s the score; unbiased, if the bandwidth does not come from them. So on
    average it is 0 for exact draws and positive for others, of the size of squared scores: it compares samplers of one
    target. A mode far from all particles is hardly noticed, since scores say nothing of its mass.

    Args:
        particles: `... x particles x dim`.
        score: gradients of the target's log-density there.
        bandwidth: h, `...`.
    """
    count, dim = particles.shape[-2:]
    h = bandwidth[..., None, None]
    squared = _squared_distances(particles, particles)
    kernel = torch.exp(-squared / h) - torch.eye(count, dtype=h.dtype, device=h.device)  # 0 with itself
    across = score @ particles.mT
    along = across.diagonal(dim1=-2, dim2=-1)
    parted = along.unsqueeze(-1) + along.unsqueeze(-2) - across - across.mT
    terms = score @ score.mT + 2 / h * parted + 2 * dim / h - 4 * squared / h.square()
    return (kernel * terms).sum((-1, -2)) / (count * (count - 1))


def _squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """`... x first x second`."""
    return (first.unsqueeze(-2) - second.unsqueeze(-3)).square().sum(-1)


class SteinStep(NamedTuple):
    """What one evaluation of the objective gives, `replicates` each.

    Attributes:
        loss: to be descended in the sampler's parameters; its value means nothing.
        discrepancy: `stein_discrepancy` of the fixed particles, averaged over the batch.
        log_density: the target's, as given, averaged over the fixed particles and the batch.
    """

    loss: Tensor
    discrepancy: Tensor
    log_density: Tensor


class Stein(Described):
    """Amortised Stein variational gradient descent (Feng, Wang and Liu 2017; Haarnoja et al. 2017, Eq. 13 and 14).

    A sampler's parameters move such that its draws y move along their Stein variational gradient, `E[phi(y) dy /
    dparameters]`. As in the authors' code of soft Q-learning, half of the draws are fixed and define phi, and the
    others are moved. The bandwidth is that of the moved ones, so that the discrepancy of the fixed ones is unbiased;
    there it is made of the distances between the two.

    Kernel and score are those of the real numbers u that `tanh` moves into the box, so with the Jacobian::

        score(u) = grad_u [log p(centre + half_width tanh u) + sum_i log(1 - tanh^2 u_i)]

    whose target vanishes at infinity. Stein's identity is exact for such targets. It is not for particles in the box
    themselves, unless the density vanishes at its edges: there the kernel would push them against the edges.

    Args:
        fixed: particles per datum that define the direction, at least 2.
        moved: particles per datum that move along it, at least 2.
        coordinates: `unbounded`, as above; or `tilted_box`, as in the authors' code of MASQL and PR2, where kernel and
            score are those of `x = tanh u` and `log(1 - x^2 + 1e-6)` is added to the log-density. Then draws have
            density p times `prod_i (1 - x_i^2)`, tilted to the middle of the box.
    """

    def __init__(
        self,
        fixed: Several = 16,
        moved: Several = 16,
        coordinates: Literal["unbounded", "tilted_box"] = "unbounded",
    ) -> None:
        self.fixed, self.moved, self.coordinates = fixed, moved, coordinates

    def __call__(self, draw: Callable[..., Tensor], box: Box, log_density: Callable[[Tensor], Tensor]) -> SteinStep:
        """The objective.

        Args:
            draw: a sampler's draws, real numbers with their gradients: `draw(count=n)` is `n x replicates x batch x
                dim`. It is called twice, without gradients for the fixed ones.
            box: where `tanh` moves them.
            log_density: the target's up to a constant, from points in the box, `n x replicates x batch x dim`, to
                `n x replicates x batch`.
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
        """In the coordinates of kernel and score, `replicates x batch x n x dim`."""
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
