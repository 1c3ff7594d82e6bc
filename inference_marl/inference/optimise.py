"""Gradient steps of independent replicates in parallel."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from inference_marl.inference.failures import fail, failed_rows
from inference_marl.inference.schedules import ByReplicate


class Optimiser(nn.Module):
    """Adam on one loss per replicate, without coupling replicates.

    Adam is elementwise, gradients are clipped per replicate, and parameters that the loss reads but the optimiser does
    not own accumulate no gradient, so a replicate's step does not depend on how many are trained in parallel.

    Args:
        what: name of the parameters, for messages.
        parameters: parameters to optimise, each with `replicates` as first dimension.
        learning_rate: Adam's step size: a number, or one per replicate as a tensor `replicates` or a `ByReplicate`.
        max_gradient_norm: clip each replicate's gradient to this norm; `None` for no clipping.
    """

    only_for_learning: ClassVar[bool] = True
    """Learners' snapshots omit this module."""

    def __init__(
        self,
        what: str,
        parameters: Iterable[nn.Parameter],
        learning_rate: float | ByReplicate | Tensor,
        max_gradient_norm: float | None = None,
    ) -> None:
        super().__init__()
        self.what = what
        self.max_gradient_norm = max_gradient_norm
        self._own = tuple(parameters)
        self._rates: Tensor | None = None
        self.adam = torch.optim.Adam(self._own, lr=1.0, fused=True)
        self.set_rate(learning_rate(0) if isinstance(learning_rate, ByReplicate) else learning_rate)

    def set_rate(self, rate: float | Tensor) -> None:
        """Set the step size, for instance to the current value of a schedule; `rate` is like `learning_rate`."""
        self._rates = rate if isinstance(rate, Tensor) else None
        for group in self.adam.param_groups:
            group["lr"] = 1.0 if isinstance(rate, Tensor) else rate

    def step(self, loss: Tensor) -> None:
        """Take one descent step on `loss`, one number per replicate, `replicates`, or their sum as returned by Pyro.

        Raises:
            NonFiniteError: if the loss or its gradient is not finite, outside `Failures.heeded`; parameters and
                optimiser are then unchanged. Inside, the gradient of failed replicates is 0.
            ValueError: if the loss has another shape, such as one number per datum.
        """
        replicates = self._own[0].shape[:1]
        if loss.dim() and loss.shape != replicates:
            raise ValueError(
                f"{self.what}: got a loss of shape {list(loss.shape)}, expected one number per replicate, "
                f"{list(replicates)}, or their sum, []"
            )
        total = loss.sum()
        free = [parameter for parameter in self._own if parameter.requires_grad]  # others are `frozen`
        found: Sequence[Tensor | None] = torch.autograd.grad(total, free, allow_unused=True)
        reached = [(parameter, each) for parameter, each in zip(free, found, strict=True) if each is not None]
        if not reached:
            return
        gradients: Sequence[Tensor] = [gradient for _, gradient in reached]
        if not _finite(total, *gradients):
            fail(self.what, rows := _not_finite(loss, gradients), len(self._own[0]))
            gradients = [_without(gradient, rows) for gradient in gradients]
        if self.max_gradient_norm is not None:
            gradients = _clipped(gradients, self.max_gradient_norm)
        self.adam.zero_grad()
        for (parameter, _), gradient in zip(reached, gradients, strict=True):
            parameter.grad = gradient.contiguous()
        self._move()
        self.adam.zero_grad()

    @torch.no_grad()
    def _move(self) -> None:
        """Take Adam's step at each replicate's own rate, without moving failed replicates by momentum."""
        lost = failed_rows(len(self._own[0]))
        if self._rates is None and not lost:
            self.adam.step()
            return
        before = [parameter.clone() for parameter in self._own]
        self.adam.step()
        for parameter, start in zip(self._own, before, strict=True):
            if self._rates is not None:  # the step was taken at rate 1
                parameter.copy_(torch.lerp(start, parameter, _per_replicate(self._rates, parameter)))
            if lost:
                parameter[lost] = start[lost]

    def get_extra_state(self) -> dict[str, Any]:
        """Adam's state, for `state_dict`."""
        return self.adam.state_dict()

    def set_extra_state(self, state: Any) -> None:
        """Restore from `get_extra_state`."""
        # Copied, because torch keeps the given tensors and modifies them in place.
        self.adam.load_state_dict(copy.deepcopy(state))


@contextmanager
def frozen(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Context in which parameters are constants, which saves the cost of their gradients."""
    free = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in free:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in free:
            parameter.requires_grad_(True)


def _per_replicate(numbers: Tensor, like: Tensor) -> Tensor:
    """Reshape `replicates` numbers to broadcast with a tensor whose first dimension is `replicates`."""
    return numbers.to(like).view(-1, *[1] * (like.dim() - 1))


def _without(gradient: Tensor, rows: Sequence[int]) -> Tensor:
    """The gradient with some rows set to 0."""
    return gradient.index_fill(0, torch.tensor(rows, device=gradient.device), 0.0)


def _clipped(gradients: Sequence[Tensor], most: float) -> Sequence[Tensor]:
    """Scale gradients such that their joint norm is at most `most` in each replicate."""
    squares = [gradient.reshape(len(gradient), -1).square().sum(1) for gradient in gradients]
    scale = (most / torch.stack(squares).sum(0).sqrt()).clamp_max(1.0)  # a norm of 0 gives infinity, and so 1
    return [gradient * _per_replicate(scale, gradient) for gradient in gradients]


def _finite(*numbers: Tensor) -> bool:
    """Whether all numbers are finite; a single value is read, so that a GPU synchronises once."""
    return math.isfinite(float(sum(each.detach().sum() for each in numbers)))


def _not_finite(loss: Tensor, gradients: Sequence[Tensor]) -> list[int]:
    """The replicates whose loss or gradients are not finite."""
    broken = [~torch.isfinite(gradient.flatten(1)).all(1) for gradient in gradients]
    if loss.dim():
        broken.append(~torch.isfinite(loss.detach()))
    return [int(r) for r in torch.stack(broken).any(0).nonzero().flatten()] if broken else []
