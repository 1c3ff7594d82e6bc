"""Ranges of numbers: `expect` checks one, `In` declares one in an annotation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, NamedTuple


class Range(NamedTuple):
    """A range of numbers: their type, a predicate, and whether they may be arbitrarily large or small."""

    kind: type
    fits: Callable[[Any], bool]
    any_size: bool = False


RANGES: Mapping[str, Range] = {
    "a finite number": Range(Real, lambda number: -math.inf < number < math.inf),
    "a finite number, or minus infinity": Range(Real, lambda number: number < math.inf),
    "a positive number": Range(Real, lambda number: 0 < number < math.inf),
    "a number that is not negative": Range(Real, lambda number: 0 <= number < math.inf),
    "a number in [0, 1]": Range(Real, lambda number: 0 <= number <= 1),
    "a number in [0, 1)": Range(Real, lambda number: 0 <= number < 1),
    "a number in (0, 1]": Range(Real, lambda number: 0 < number <= 1),
    "a number in (0, 1)": Range(Real, lambda number: 0 < number < 1),
    "an integer": Range(Integral, lambda number: True),
    "a positive integer": Range(Integral, lambda number: number >= 1),
    "an integer that is not negative": Range(Integral, lambda number: number >= 0),
    "an integer of at least 2": Range(Integral, lambda number: number >= 2),
    "an integer that is not negative and below 2**64": Range(Integral, lambda number: 0 <= number < 2**64, True),
}
"""The ranges that `expect` and `In` accept, by their wording in messages. NaN is in none; infinity if it is named."""


LARGEST = 1e30
"""Maximum absolute value of a number, and inverse of the minimum of a positive number."""
MOST = 10**12
"""Maximum absolute value of an integer, which no loop reaches in practice."""


def expect(what: str, also: str = "", /, **numbers: Any) -> None:
    """Check the range of numbers. Arguments of descriptions are checked by their annotations instead, see `In`.

    Args:
        what: a key of `RANGES`.
        also: an addition to the message, such as a hint. If it contains `or null`, `None` is accepted.
        numbers: arguments by name.

    Raises:
        ValueError: `name: got number, expected what also`.
    """
    allowed = RANGES[what]
    for name, number in numbers.items():
        if number is None and "or null" in also:
            continue
        if not isinstance(number, allowed.kind) or isinstance(number, bool) or not allowed.fits(number):
            got = _digits(number) if isinstance(number, int) else repr(number)
            raise ValueError(f"{name}: got {got}, expected {what}{also}")
        if not allowed.any_size:
            _check_size(name, number, f"{what}{also}")


def _check_size(name: str, number: Any, expected: str) -> None:
    """Raise `ValueError` for integers above `MOST`, and numbers that are too large or small for single precision."""
    if isinstance(number, Integral):
        if abs(int(number)) > MOST:
            raise ValueError(f"{name}: got {_digits(number)}, expected {expected}, of at most {MOST:,}")
    elif LARGEST < abs(number) < math.inf or (expected.startswith("a positive number") and number < 1 / LARGEST):
        size = f"of a size from {1 / LARGEST:g} to {LARGEST:g}, with which single precision can work"
        raise ValueError(f"{name}: got {number!r}, expected {expected}, {size}")


def _digits(number: Any) -> str:
    """An integer, shortened if it is very long."""
    text = str(number)
    return text if len(text) <= 40 else f"{text[:20]}... ({len(text)} digits)"


@dataclass(frozen=True)
class In:
    """Declares the range of the numbers in an annotation: `rate: Annotated[float, In("a number in (0, 1]")] = 0.1`.

    `Described` checks every argument that is annotated as a number, or as a container of numbers, on construction. By
    default an `int` is `In("an integer")` and a `float` is `In("a finite number")`. The aliases below are the most
    common ranges. In `rate: Rate | Schedule` the range applies to every value of the schedule. An argument inherits the
    range that a base declares under the same name, unless it has its own.

    Args:
        what: a key of `RANGES`.
        also: an addition to the message, such as a hint; `, or null` by default if `None` is allowed.
    """

    what: str
    also: str = ""

    def __post_init__(self) -> None:
        if self.what not in RANGES:
            raise ValueError(f"In: got {self.what!r}, expected one of {', '.join(RANGES)}")


Positive = Annotated[float, In("a positive number")]
NotNegative = Annotated[float, In("a number that is not negative")]
Probability = Annotated[float, In("a number in [0, 1]")]
BelowOne = Annotated[float, In("a number in [0, 1)")]
"""A number in [0, 1), such as a discount factor."""
Rate = Annotated[float, In("a number in (0, 1]")]
Count = Annotated[int, In("a positive integer")]
Whole = Annotated[int, In("an integer that is not negative")]
Several = Annotated[int, In("an integer of at least 2")]
Horizon = Annotated[int | None, In("a positive integer", ", or null for a game without end")]
Discount = Annotated[float | None, In("a number in [0, 1)", ", or null for none")]
"""The discount factor of a game."""
Clip = Annotated[float | None, In("a positive number", ", or null for none")]
"""A maximum norm of gradients."""


class Varying:
    """Mixin for descriptions of a number that varies, such as a schedule."""

    def check(self, name: str, allowed: In, declared: type) -> None:
        """Check that values are in range, as far as they are known.

        Args:
            name: name of the argument that has this value.
            allowed: the range of its values.
            declared: the declared class of the argument.

        Raises:
            ValueError: `name: got value, expected ...`.
        """
        raise NotImplementedError(f"{type(self).__name__}.check is not defined")

    def watch(self, name: str, allowed: In) -> None:
        """Check later values, which are not known yet, when they are computed; called when its owner is bound."""


def interval(name: str, ends: float | Sequence[float], *, strictly: bool = True) -> tuple[float, float]:
    """The ends of an interval `[low, high]`; a single number is both ends.

    Raises:
        ValueError: unless they are finite and in order, strictly if `strictly`.
    """
    pair: tuple[Any, ...] = tuple(ends) if isinstance(ends, Sequence) else (ends, ends)
    finite = len(pair) == 2 and all(isinstance(end, Real) and math.isfinite(end) for end in pair)
    if not finite or pair[0] > pair[1] or (strictly and pair[0] == pair[1]):
        raise ValueError(f"{name}: got {ends}, expected [low, high] with low {'<' if strictly else '<='} high")
    return float(pair[0]), float(pair[1])
