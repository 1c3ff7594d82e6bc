"""Named plates: a model's batch dimensions, declared and never inferred from sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor


@dataclass(frozen=True)
class Plates:
    """Named batch dimensions, the leftmost first; the first is `replicate`.

    There is no plate over steps, which are not independent: a trajectory unrolls them into sites, and a likelihood in
    which they are independent given the states includes them in its batch.

    Attributes:
        names: one per dimension.
    """

    names: tuple[str, ...] = ("replicate", "batch")

    def __len__(self) -> int:
        """The number of plates, Pyro's `max_plate_nesting`."""
        return len(self.names)

    def dim(self, name: str) -> int:
        """The dimension of a plate, counted from the right: -1 for the last."""
        return self.names.index(name) - len(self.names)

    def open(self, sizes: Sequence[int]) -> OpenPlates:
        """Create the plates for one run of a model. To Pyro a plate is a site, so call this only once per run.

        Args:
            sizes: size of each plate, in order; usually the first dimensions of an observation.

        Raises:
            ValueError: if there is not one size per name.
        """
        if len(sizes) != len(self.names):
            raise ValueError(f"plates: got sizes {tuple(sizes)}, expected one for each of {', '.join(self.names)}")
        pairs = zip(self.names, sizes, strict=True)
        return OpenPlates({name: pyro.plate(name, size, dim=self.dim(name)) for name, size in pairs})

    def sizes(self, value: Tensor, event_shape: Sequence[int]) -> torch.Size:
        """The sizes of these plates in a value, `plates x event_shape`.

        Raises:
            ValueError: if the value has other dimensions.
        """
        events = len(event_shape)
        if value.dim() != len(self) + events or tuple(value.shape[len(self) :]) != tuple(event_shape):
            expected = " x ".join([*self.names, *map(str, event_shape)])
            raise ValueError(f"observations: got shape {tuple(value.shape)}, expected {expected}")
        return value.shape[: len(self)]


class OpenPlates(dict[str, Any]):
    """The plates of one run of a model, by name."""

    @contextmanager
    def within(self, *names: str) -> Iterator[None]:
        """Enter the named plates, or all of them if none is named."""
        with ExitStack() as stack:
            for name in names or self:
                stack.enter_context(self[name])
            yield


ONE_STEP = Plates()
"""The plates `replicate` and `batch`, for models of one step of play and of trajectories."""
