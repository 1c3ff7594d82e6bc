"""Ranges of numbers: `expect` checks one, `In` states one in an annotation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, NamedTuple


class Range(NamedTuple):
    """Which numbers something may be: of what kind, between which ends, and whether of any size that these allow."""

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
"""What `expect` and `In` know, in the words of messages. NaN is in no range, and infinity in those that say so."""


LARGEST = 1e30
"""The largest size of a number that `expect` knows, and the inverse of the smallest that must be positive."""
MOST = 10**12
"""The largest integer that `expect` knows: what is counted up to more than that never ends."""


def expect(what: str, also: str = "", /, **numbers: Any) -> None:
    """Check the range of numbers; the arguments of a description are checked by their annotations, see `In`.

    Args:
        what: a key of `RANGES`.
        also: what the message adds, such as a hint. If it says `or null`, `None` is accepted.
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
    """Refuse integers that nobody counts to, and numbers that single precision cannot work with (`ValueError`)."""
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
    """In an annotation, the range of the numbers in it: `rate: Annotated[float, In("a number in (0, 1]")] = 0.1`.

    `Described` checks every argument that is annotated as a number, or as a container of some, when one is made: an
    `int` is `In("an integer")` and a `float` `In("a finite number")` unless something else is said. The aliases below
    say what is needed most. `rate: Rate | Schedule` is about every value that a schedule takes. An argument keeps the
    range that a base declares under the same name, unless it has one of its own.

    Args:
        what: a key of `RANGES`.
        also: what the message adds, such as a hint; if `None` may be given, `, or null` by default.
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
"""Not negative: discounts and the like."""
Rate = Annotated[float, In("a number in (0, 1]")]
Count = Annotated[int, In("a positive integer")]
Whole = Annotated[int, In("an integer that is not negative")]
Several = Annotated[int, In("an integer of at least 2")]
Horizon = Annotated[int | None, In("a positive integer", ", or null for a game without end")]
Discount = Annotated[float | None, In("a number in [0, 1)", ", or null for none")]
"""A game's."""
Clip = Annotated[float | None, In("a positive number", ", or null for none")]
"""A largest norm."""


class Varying:
    """Mixin of descriptions that stand for a number which changes or differs, such as a schedule."""

    def check(self, name: str, allowed: In, declared: type) -> None:
        """Refuse values out of range, as far as they are known.

        Args:
            name: the argument that it is given for.
            allowed: the range of its values.
            declared: the class that the argument may be of.

        Raises:
            ValueError: `name: got value, expected ...`.
        """
        raise NotImplementedError(f"{type(self).__name__}.check is not defined")

    def watch(self, name: str, allowed: In) -> None:
        """From now on, refuse values that are known only once they are taken; part of binding its owner."""


def interval(name: str, ends: float | Sequence[float], *, strictly: bool = True) -> tuple[float, float]:
    """The ends of `[low, high]`, or twice the number if `ends` is one.

    Raises:
        ValueError: unless they are finite and in order, `strictly` or not.
    """
    pair: tuple[Any, ...] = tuple(ends) if isinstance(ends, Sequence) else (ends, ends)
    finite = len(pair) == 2 and all(isinstance(end, Real) and math.isfinite(end) for end in pair)
    if not finite or pair[0] > pair[1] or (strictly and pair[0] == pair[1]):
        raise ValueError(f"{name}: got {ends}, expected [low, high] with low {'<' if strictly else '<='} high")
    return float(pair[0]), float(pair[1])
