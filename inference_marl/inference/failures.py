"""Replicates that fail while the others go on: numbers that are not finite."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor


class NonFiniteError(ArithmeticError):
    """A loss or its gradient, or another number to learn from, is not finite; nothing was updated.

    Attributes:
        replicates: the seeds at fault, as far as their gradients show.
        agent: the agent whose number it is, if known.
    """

    agent: int | None = None

    def __init__(self, what: str, replicates: Sequence[int]) -> None:
        super().__init__(what, replicates)
        self.what = what
        self.replicates = list(replicates)

    def __str__(self) -> str:
        listed = ", ".join(map(str, self.replicates[:10])) + (", ..." if len(self.replicates) > 10 else "")
        return f"{self.what} is not finite in replicate {listed or '(unknown)'}"


class Failures:
    """The replicates that have failed, and why; in `heeded`, numbers that are not finite are noted here.

    Replicates never touch each other, so the others need not notice.

    Args:
        replicates: their number.

    Attributes:
        why: what each has failed of first, by replicate.
        step: at which step they fail, for `why`.
        agent: whose numbers are looked at, if anybody's.
    """

    def __init__(self, replicates: int) -> None:
        self.replicates = replicates
        self.why: dict[int, str] = {}
        self.step = 0
        self.agent: int | None = None

    def note(self, what: str, replicates: Sequence[int]) -> None:
        """Note that some have failed.

        Raises:
            NonFiniteError: if that is all of them.
        """
        agent = "" if self.agent is None else f", agent {self.agent}"
        for replicate in replicates:
            self.why.setdefault(replicate, f"step {self.step}{agent}: {what} is not finite")
        if len(self.why) == self.replicates:
            raise NonFiniteError(what, replicates)

    def look(self, what: str, numbers: Tensor, agent: int | None = None) -> None:
        """Note the replicates in which numbers, `replicates x ...`, are not finite.

        Raises:
            NonFiniteError: if that is all of them.
        """
        if not math.isfinite(numbers.detach().sum()):
            (rows,) = (~torch.isfinite(numbers)).flatten(1).any(1).nonzero(as_tuple=True)
            if len(rows):
                self.agent = agent
                self.note(what, rows.tolist())

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Note failures here, in place of the errors that they would be elsewhere."""
        token = _HEEDED.set(self)
        try:
            yield
        finally:
            _HEEDED.reset(token)


_HEEDED: ContextVar[Failures | None] = ContextVar("heeded", default=None)


def heeded() -> Failures | None:
    """Where failures are noted, if anywhere."""
    return _HEEDED.get()


def failed_rows(of: int) -> list[int]:
    """The rows of replicates that have failed, of so many rows, as for `fail`."""
    there = _HEEDED.get()
    if there is None or not there.why:
        return []
    each = of // there.replicates
    return [row for replicate in sorted(there.why) for row in range(replicate * each, (replicate + 1) * each)]


def fail(what: str, rows: Sequence[int], of: int) -> None:
    """Note that numbers of some rows are not finite; whoever calls goes on without them.

    Args:
        what: the numbers, for messages.
        rows: which.
        of: the number of rows, a multiple of the replicates: each has as many, in order.

    Raises:
        NonFiniteError: if nobody heeds failures, or no replicate is left.
    """
    there = _HEEDED.get()
    if there is None or not rows:
        raise NonFiniteError(what, rows)
    there.note(what, sorted({row // (of // there.replicates) for row in rows}))
