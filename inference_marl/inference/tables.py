"""Operations on tables of numbers per replicate and cell, for tabular critics and tabular learners."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl.inference.failures import fail
from inference_marl.inference.schedules import Number
from inference_marl.spaces import Space
from inference_marl.types import Seat


def random_table(seat: Seat, ends: tuple[float, float], *shape: int) -> Tensor:
    """A table of uniform draws from the interval `ends`, `replicates x shape`."""
    low, high = ends
    drawn: Tensor = torch.rand(seat.replicates, *shape, device=seat.device, dtype=seat.dtype) * (high - low) + low
    return drawn


def tabulate(conditional: Callable[..., dist.TorchDistribution], seat: Seat, spaces: Sequence[Space]) -> Tensor:
    """A conditional's probabilities given all combinations of discrete values, `replicates x spaces x values`."""
    sizes = [space.features for space in spaces]
    grid = torch.meshgrid(*(torch.arange(size, device=seat.device) for size in sizes), indexing="ij")
    given = conditional(*(values.reshape(-1, 1, 1) for values in grid))
    flat: Tensor = given.expand((math.prod(sizes), seat.replicates, 1)).probs
    return flat.squeeze(-2).movedim(0, 1).reshape(seat.replicates, *sizes, -1)


def mean_per_cell(cells: int, cell: Tensor, target: Tensor) -> Tensor:
    """Replace each datum's target by the mean target of its cell, `replicates x batch`.

    If several data of a batch visit one cell, the cell is then moved once, towards their mean: every datum of the cell
    writes the same number, so the order of writes does not matter.

    Args:
        cells: number of cells per replicate.
        cell: each datum's cell, int64, `replicates x batch`.
        target: `replicates x batch`.
    """
    if cell.shape[1] == 1:
        return target
    sums = target.new_zeros(2, cell.shape[0], cells)
    sums[0].scatter_add_(1, cell, target)
    sums[1].scatter_add_(1, cell, torch.ones_like(target))
    return (sums[0] / sums[1].clamp_min(1)).gather(1, cell)


def move(table: Tensor, cell: Tensor, target: Tensor, rate: Number) -> None:
    """Move cells the fraction `rate` of the way to their targets, in place.

    `lerp` is exact at rate 1, so values stay within the bounds of their targets.

    Args:
        table: `replicates x cells`.
        cell: int64, `replicates x batch`.
        target: `replicates x batch`, the same for all data of a cell (`mean_per_cell`).
        rate: a number, or `replicates x batch`, or `replicates x 1`.
    """
    table.scatter_(1, cell, torch.lerp(table.gather(1, cell), target, rate))


def draw(probabilities: Tensor) -> Tensor:
    """One draw from each distribution, int64, `...`; several times faster than `torch.multinomial` for few actions.

    Args:
        probabilities: `... x actions`; rows need not be normalised.
    """
    cumulative = probabilities.cumsum(-1)
    # Scaled by the sum, which rounding may move off 1; the comparison is strict, so that an action of probability 0 is
    # never drawn.
    level = torch.rand(cumulative.shape[:-1], dtype=cumulative.dtype, device=cumulative.device) * cumulative[..., -1]
    return (cumulative <= level.unsqueeze(-1)).sum(-1).clamp_max(probabilities.shape[-1] - 1)


def total_correlation(joint: Tensor, sizes: Sequence[int]) -> Tensor:
    """Total correlation: the sum of the marginals' entropies minus the joint entropy, in nats, `...`.

    Args:
        joint: probabilities of joint values, the last variable varying fastest, `... x joint`.
        sizes: number of values of each variable.
    """
    table = joint.unflatten(-1, tuple(sizes))
    first = joint.dim() - 1
    every = range(first, table.dim())
    marginals = [table.sum([dim for dim in every if dim != kept]) for kept in every]
    entropies = [torch.special.entr(marginal).sum(-1) for marginal in marginals]
    found: Tensor = sum(entropies[1:], entropies[0]) - torch.special.entr(joint).sum(-1)
    return found.clamp_min(0.0)


def finite(part: str, numbers: Tensor) -> Tensor:
    """Check numbers to learn from, `replicates x batch`; those of failed replicates are set to 0.

    Raises:
        NonFiniteError: if numbers are not finite, outside `Failures.heeded`; names `part` and the replicates.
    """
    if math.isfinite(numbers.detach().sum()) or bool((is_finite := torch.isfinite(numbers)).all()):
        return numbers
    rows = torch.unique((~is_finite).nonzero()[:, 0])
    fail(part, rows.tolist(), len(numbers))
    return numbers.index_fill(0, rows, 0.0)
