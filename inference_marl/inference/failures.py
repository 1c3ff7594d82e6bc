"""Numbers that are not finite, and the replicates that have failed with them while the others continue."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor


class NonFiniteError(ArithmeticError):
    """Raised if a loss, its gradient or another number to learn from is not finite; nothing was updated.

    Attributes:
        replicates: the replicates at fault, as far as their gradients show.
        agent: the agent that the number belongs to, if known.
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
    """The replicates that have failed, and why; inside `heeded`, numbers that are not finite are recorded here.

    Replicates are independent, so the others continue undisturbed.

    Args:
        replicates: number of replicates.

    Attributes:
        why: the first failure of each failed replicate, by replicate.
        step: the current step, for `why`.
        agent: the agent whose numbers are being checked, if any.
    """

    def __init__(self, replicates: int) -> None:
        self.replicates = replicates
        self.why: dict[int, str] = {}
        self.step = 0
        self.agent: int | None = None

    def note(self, what: str, replicates: Sequence[int]) -> None:
        """Record that replicates have failed.

        Raises:
            NonFiniteError: if no replicate is left.
        """
        agent = "" if self.agent is None else f", agent {self.agent}"
        for replicate in replicates:
            self.why.setdefault(replicate, f"step {self.step}{agent}: {what} is not finite")
        if len(self.why) == self.replicates:
            raise NonFiniteError(what, replicates)

    def look(self, what: str, numbers: Tensor, agent: int | None = None) -> None:
        """Record the replicates in which `numbers`, `replicates x ...`, are not finite.

        Raises:
            NonFiniteError: if no replicate is left.
        """
        if not math.isfinite(numbers.detach().sum()):
            (rows,) = (~torch.isfinite(numbers)).flatten(1).any(1).nonzero(as_tuple=True)
            if len(rows):
                self.agent = agent
                self.note(what, rows.tolist())

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Context in which failures are recorded here instead of raising `NonFiniteError`."""
        token = _HEEDED.set(self)
        try:
            yield
        finally:
            _HEEDED.reset(token)


_HEEDED: ContextVar[Failures | None] = ContextVar("heeded", default=None)


def heeded() -> Failures | None:
    """The `Failures` that record failures in the current context, if any."""
    return _HEEDED.get()


def failed_rows(of: int) -> list[int]:
    """The rows, out of `of` as for `fail`, that belong to failed replicates."""
    there = _HEEDED.get()
    if there is None or not there.why:
        return []
    each = of // there.replicates
    return [row for replicate in sorted(there.why) for row in range(replicate * each, (replicate + 1) * each)]


def fail(what: str, rows: Sequence[int], of: int) -> None:
    """Record that the numbers of some rows are not finite; the caller continues without them.

    Args:
        what: name of the numbers, for messages.
        rows: indices of the rows.
        of: the number of all rows, a multiple of the number of replicates; each replicate has equally many, in order.

    Raises:
        NonFiniteError: outside `Failures.heeded`, or if no replicate is left.
    """
    there = _HEEDED.get()
    if there is None or not rows:
        raise NonFiniteError(what, rows)
    there.note(what, sorted({row // (of // there.replicates) for row in rows}))
