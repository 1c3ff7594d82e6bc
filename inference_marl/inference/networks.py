"""Networks batched over replicates: the first dimension of every weight is `replicates`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from inference_marl.inference.plates import ONE_STEP, Plates
from inference_marl.types import Seat

_EACH: ContextVar[int] = ContextVar("rows of each replicate", default=1)


@contextmanager
def rows(each: int) -> Iterator[None]:
    """Context in which first dimensions are `(replicates each)`, as if the networks of several agents form one batch.

    Arms that are played together use it to separate the random numbers of their replicates.
    """
    token = _EACH.set(each)
    try:
        yield
    finally:
        _EACH.reset(token)


def rows_of_each() -> int:
    """Number of rows per replicate in the current context; 1 outside `rows`."""
    return _EACH.get()


class BatchedLinear(nn.Module):
    """One affine map per replicate: weights `replicates x in x out`, Xavier-uniform, and biases, initially 0."""

    def __init__(self, replicates: int, inputs: int, outputs: int, *, device: torch.device, dtype: torch.dtype):
        super().__init__()
        bound = math.sqrt(6.0 / (inputs + outputs))
        weight = torch.empty(replicates, inputs, outputs, device=device, dtype=dtype).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(replicates, 1, outputs, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """`replicates x rows x in` to `replicates x rows x out`."""
        return torch.baddbmm(self.bias, x, self.weight)


class BatchedGRU(nn.Module):
    """One gated recurrent unit per replicate (Cho et al. 2014), with the reset gate after the product, as in torch.

    Args:
        replicates: number of replicates.
        inputs, hidden: numbers of input features and of hidden units.
        device, dtype: device and type of the weights.
    """

    def __init__(self, replicates: int, inputs: int, hidden: int, *, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.read = BatchedLinear(replicates, inputs, 3 * hidden, device=device, dtype=dtype)
        self.recall = BatchedLinear(replicates, hidden, 3 * hidden, device=device, dtype=dtype)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """The next hidden states, `replicates x rows x hidden`, given inputs `replicates x rows x in`."""
        return self._next(self.read(x), hidden)

    def unrolled(self, x: Tensor, hidden: Tensor, kept: Tensor | None = None) -> Tensor:
        """The hidden states after each step.

        Args:
            x: `time x replicates x rows x in`.
            hidden: hidden states before the first step, `replicates x rows x hidden`.
            kept: 0 where a step begins with a hidden state of 0, else 1, `time x replicates x rows`; `None` for all 1.

        Returns:
            `time x replicates x rows x hidden`.
        """
        steps, _, rows, _ = x.shape
        read = self.read(x.transpose(0, 1).flatten(1, 2)).unflatten(1, (steps, rows))
        found = []
        for step in range(steps):
            hidden = hidden if kept is None else hidden * kept[step].unsqueeze(-1)
            hidden = self._next(read[:, step], hidden)
            found.append(hidden)
        return torch.stack(found)

    def _next(self, read: Tensor, hidden: Tensor) -> Tensor:
        recalled = self.recall(hidden)
        width = hidden.shape[-1]
        reset, update = (read[..., : 2 * width] + recalled[..., : 2 * width]).sigmoid().chunk(2, -1)
        new = torch.addcmul(read[..., 2 * width :], reset, recalled[..., 2 * width :]).tanh()
        return torch.lerp(new, hidden, update)


class MLP(nn.Module):
    """A multilayer perceptron per replicate, with ReLU between layers.

    Args:
        seat: provides replicates, device and floating type.
        inputs, outputs: numbers of features.
        hidden: widths of the hidden layers.
        plates: the batch dimensions of the input.
    """

    def __init__(self, seat: Seat, inputs: int, outputs: int, hidden: Sequence[int], plates: Plates = ONE_STEP) -> None:
        super().__init__()
        self.inputs, self.replicates, self.plates = inputs, seat.replicates, plates
        widths = [inputs, *hidden, outputs]
        self.layers = nn.ModuleList(
            BatchedLinear(seat.replicates, narrow, wide, device=seat.device, dtype=seat.dtype)
            for narrow, wide in pairwise(widths)
        )

    @property
    def last(self) -> BatchedLinear:
        """The last layer."""
        return cast(BatchedLinear, self.layers[-1])

    def features(self, x: Tensor) -> Tensor:
        """Inputs of the last layer, `[extra x] plates x (last hidden width, or inputs)`.

        Raises:
            ValueError: if `x` is not `[extra x] plates x inputs`; enumerated values may have 1 for `replicates`.
        """
        return self._unfolded(self._hidden(self._folded(x)), x)

    def forward(self, x: Tensor) -> Tensor:
        """`[extra x] plates x inputs` to `[extra x] plates x outputs`; raises like `features`."""
        return self._unfolded(self.last(self._hidden(self._folded(x))), x)

    def _hidden(self, rows: Tensor) -> Tensor:
        """Inputs of the last layer, `replicates x rows x width`."""
        *hidden, _ = self.layers
        for layer in hidden:
            rows = torch.relu_(layer(rows))
        return rows

    def _folded(self, x: Tensor) -> Tensor:
        """`replicates x rows x inputs`: extra dimensions (particles, enumerated values) are folded into the batch."""
        plates = len(self.plates)
        if x.dim() <= plates or x.shape[-1] != self.inputs or x.shape[-1 - plates] not in (1, self.replicates):
            names = " x ".join(self.plates.names)
            raise ValueError(
                f"a network got features of shape {tuple(x.shape)}, expected [extra x] {names} x {self.inputs} with "
                f"{self.replicates} replicates"
            )
        if x.shape[-1 - plates] != self.replicates:  # replicates share enumerated values
            x = x.expand(*x.shape[: -1 - plates], self.replicates, *x.shape[-plates:])
        return x.movedim(-1 - plates, 0).flatten(1, -2)

    def _unfolded(self, rows: Tensor, x: Tensor) -> Tensor:
        """`replicates x rows x outputs` in the shape of the input."""
        plates = len(self.plates)
        extra, batch = x.shape[: -1 - plates], x.shape[-plates:-1]
        shaped: Tensor = rows.unflatten(1, (*extra, *batch))
        return shaped.movedim(0, len(extra))


@torch.no_grad()
def track(target: nn.Module, online: nn.Module, rate: float) -> None:
    """Move every parameter and buffer of `target` the fraction `rate` towards `online` (Polyak averaging)."""
    track_each([*target.parameters(), *target.buffers()], [*online.parameters(), *online.buffers()], rate)


@torch.no_grad()
def track_each(target: Iterable[Tensor], online: Iterable[Tensor], rate: float) -> None:
    """As `track`, for given tensors: collecting those of small modules takes longer than moving them."""
    for slow, fast in zip(target, online, strict=True):
        if slow.is_floating_point():
            slow.lerp_(fast, rate)
        else:
            slow.copy_(fast)
