"""The two plates that every model and guide of one step of play shares."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
from torch import Tensor


@contextmanager
def replicate_and_batch(obs: Tensor) -> Iterator[None]:
    """Plates `replicate` (dim -2) and `batch` (dim -1), sized by `obs`: `replicates x batch x event`."""
    replicates, batch = obs.shape[:2]
    with pyro.plate("replicate", replicates, dim=-2), pyro.plate("batch", batch, dim=-1):
        yield
