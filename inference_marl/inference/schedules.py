"""Numeric hyperparameters: schedules over learning steps, and numbers that differ by replicate."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from inference_marl.described import (
    LARGEST,
    Count,
    Described,
    In,
    IncompatibleError,
    NotNegative,
    PerReplicate,
    Positive,
    Varying,
    Whole,
    expect,
)

Number = float | Tensor
"""A number that all replicates share or, from `ByReplicate`, one for each, `replicates x 1`.

Either broadcasts with `[extra x] replicates x batch`; `over_events` adds dimensions for events.
"""


class Schedule(Varying, Described, ABC):
    """Base: a number for every learning step, counted from 0.

    The range of an argument holds for all values of its schedule. They are checked when the object is made if `ends` is
    defined, and otherwise when they are evaluated.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__call__" in vars(cls):
            cls.__call__ = _watched(cls.__call__)  # type: ignore[assignment, method-assign]
            if "ends" not in vars(cls):  # the base's belong to other values
                cls.ends = Schedule.ends  # type: ignore[method-assign]

    @abstractmethod
    def __call__(self, step: int) -> Number:
        """The value at `step`, the number of updates so far; a number, except for `ByReplicate`."""

    def each(self, step: int) -> tuple[float, ...]:
        """The values at `step`, one per group of replicates."""
        value = self(step)
        return (float(value) if isinstance(value, Tensor) else value,)

    def ends(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Bounds between which all values lie: those that are attained, and those that are only approached.

        By default only the first value is known.
        """
        return self.each(0), ()

    def check(self, name: str, allowed: In, declared: type) -> None:
        """See `Varying`."""
        taken, approached = self.ends()
        for value in taken:
            expect(allowed.what, " at every update", **{name: value})
        for value in approached:
            expect(CLOSED.get(allowed.what, allowed.what), " in the limit", **{name: value})

    def watch(self, name: str, allowed: In) -> None:
        """See `Varying`; does nothing if the `ends` are known."""
        if type(self).ends is Schedule.ends:
            self.__dict__.setdefault("_watching", {})[name, allowed.what] = None

    def at(self, steps: Tensor, dtype: torch.dtype) -> Tensor:
        """The values, of type `dtype`, at many steps (int64, any shape), such as the visit counts of a table."""
        known, where = steps.unique(return_inverse=True)
        return torch.tensor([self(step) for step in known.tolist()], dtype=dtype, device=steps.device)[where]


def _watched(call: Callable[[Any, int], Number]) -> Callable[[Any, int], Number]:
    """Wrap `Schedule.__call__` to raise for a value outside the range that the argument requires."""

    @functools.wraps(call)
    def checked(self: Schedule, step: int) -> Number:
        value = call(self, step)
        if type(self).__call__ is checked:  # not the base's, whose value the subclass changes
            for name, what in vars(self).get("_watching", ()):
                for number in value.flatten().tolist() if isinstance(value, Tensor) else (value,):
                    try:
                        expect(what, **{name: number})
                    except ValueError as error:
                        got, separator, expected = str(error).partition(", expected")
                        raise ValueError(f"{got} at step {step}{separator}{expected}") from error
        return value

    return checked


class Constant(Schedule):
    """The same `value` at every step."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, step: int) -> float:
        """`value`."""
        return self.value


class ExponentialDecay(Schedule):
    """Exponential decay: `start exp(-rate max(step - delay, 0)) + floor`.

    With `start=500, rate=0.1, floor=0.1` this is the annealing of the ROMMEO authors' code; the paper itself has a
    constant temperature.

    Args:
        start: initial size of the decaying term (the initial value is `start + floor`).
        rate: decay per step, not negative.
        floor: the value in the limit.
        delay: steps before the decay begins.
    """

    def __init__(self, start: float, rate: NotNegative, floor: float = 0.0, delay: Whole = 0) -> None:
        self.start, self.rate, self.floor, self.delay = start, rate, floor, delay

    def __call__(self, step: int) -> float:
        """The value at `step`."""
        return self.start * math.exp(-self.rate * max(step - self.delay, 0)) + self.floor

    def ends(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The initial value, and `floor`."""
        return self.each(0), (self.floor,)


class InverseTime(Schedule):
    """A Robbins-Monro rate: `start scale / (scale + step)`; `1e4 / (1e4 + t)` in the ROMMEO authors' code.

    With `start=1, scale=1` over the visits of a cell (`TabularCritic(rate_over="visits")`) it yields sample means.

    Args:
        start: the value at step 0.
        scale: steps after which the value has halved, positive.
    """

    def __init__(self, start: float = 1.0, scale: Positive = 1e4) -> None:
        self.start, self.scale = start, scale

    def __call__(self, step: int) -> float:
        """The value at `step`."""
        return self.start * self.scale / (self.scale + step)

    def ends(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """`start`, and 0."""
        return (self.start,), (0.0,)


class Linear(Schedule):
    """Linear interpolation from `start` to `end` over `steps` steps, then `end`."""

    def __init__(self, start: float, end: float, steps: Count) -> None:
        self.start, self.end, self.steps = start, end, steps

    def __call__(self, step: int) -> float:
        """The value at `step`."""
        return self.start + (self.end - self.start) * min(step / self.steps, 1.0)

    def ends(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """`start` and `end`."""
        return (self.start, self.end), ()


class PiecewiseConstant(Schedule):
    """Piecewise constant: `values[k]` from step k to the next key; before the first key, the first value.

    Raises:
        ValueError: if there are no values.
    """

    def __init__(self, values: Mapping[Whole, Annotated[float, In("a finite number")]]) -> None:
        if not values:
            raise ValueError("values: got none, expected numbers by the step from which on they hold")
        self.steps, self.values = zip(*sorted(dict(values).items()), strict=True)

    def __call__(self, step: int) -> float:
        """The value at `step`."""
        value: float = self.values[max(bisect_right(self.steps, step) - 1, 0)]
        return value

    def ends(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The lowest and the highest value."""
        return (min(self.values), max(self.values)), ()


class ByReplicate(PerReplicate, Schedule):
    """Numbers or schedules that differ by replicate, so that arms that differ in them alone can be played together.

    The replicates are split evenly, in order: of six, `values=[0.1, 1.0]` gives 0.1 to the first three and 1 to the
    others. A class lists in `by_replicate` the arguments that accept one.

    Args:
        values: one number or schedule per group of replicates.

    Raises:
        ValueError: if there are no values, or one is neither a number nor a schedule.
    """

    def __init__(self, values: list[Annotated[float, In("a finite number", ", or a schedule")] | Schedule]) -> None:
        if not values:
            raise ValueError("values: got none, expected one per group of replicates")
        self.values, self.groups = tuple(values), len(values)
        self._constant = not any(isinstance(value, Schedule) for value in values)
        self.split(self.groups, torch.float64, torch.device("cpu"))

    def split(self, replicates: int, dtype: torch.dtype, device: torch.device) -> None:
        """See `PerReplicate`; before this call there is one replicate per value.

        Raises:
            IncompatibleError: if the number of replicates is not a multiple of the number of values.
        """
        if replicates % self.groups:
            raise IncompatibleError(
                f"got {self.groups} values for {replicates} replicates, expected a number of them "
                "that divides the replicates"
            )
        self._size, self._dtype, self._device = replicates // self.groups, dtype, device
        self._known: tuple[int, Tensor] | None = None

    def each(self, step: int) -> tuple[float, ...]:
        """The value of each group at `step`."""
        return tuple(number for value in self.values for number in each(value, step))

    def ends(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The bounds of all groups' values."""
        every = [as_schedule(value).ends() for value in self.values]
        return tuple(end for ends, _ in every for end in ends), tuple(end for _, ends in every for end in ends)

    def check(self, name: str, allowed: In, declared: type) -> None:
        """See `Varying`; an argument that takes no schedules must be given constant numbers."""
        for value in self.values:
            if isinstance(value, Schedule) and issubclass(Schedule, declared):
                value.check(name, allowed, declared)
            else:
                expect(allowed.what, allowed.also, **{name: value})

    def watch(self, name: str, allowed: In) -> None:
        """See `Varying`."""
        for value in self.values:
            if isinstance(value, Schedule):
                value.watch(name, allowed)

    def __call__(self, step: int) -> Tensor:
        """The value of each replicate at `step`, `replicates x 1`."""
        step = 0 if self._constant else step
        if self._known is None or self._known[0] != step:
            numbers = torch.tensor(self.each(step), dtype=self._dtype, device=self._device)
            self._known = step, numbers.repeat_interleave(self._size).unsqueeze(-1)
        return self._known[1]

    def at(self, steps: Tensor, dtype: torch.dtype) -> Tensor:
        """See `Schedule`; the first dimension of `steps` is `replicates`."""
        parts = zip(self.values, steps.chunk(self.groups), strict=True)
        return torch.cat([as_schedule(value).at(part, dtype) for value, part in parts])


def positive(step: int, **schedules: float | Schedule) -> tuple[Number, ...]:
    """The values of numbers and schedules at `step`, in the given order.

    Raises:
        ValueError: if one is not positive, or too small or large for single precision; names it.
    """
    values = [current(schedule, step) for schedule in schedules.values()]
    for (name, schedule), value in zip(schedules.items(), values, strict=True):
        for number in each(schedule, step) if isinstance(value, Tensor) else (value,):
            if not 1 / LARGEST <= number <= LARGEST:
                raise ValueError(
                    f"{name}: got {number} at update {step}, expected a number that stays positive; use a small "
                    "one, such as 1e-3, to switch a term off"
                )
    return tuple(values)


def current(number: float | Schedule, step: int) -> Number:
    """The value of a schedule at `step`, or the number itself."""
    return number(step) if isinstance(number, Schedule) else number


def each(number: float | Schedule, step: int) -> tuple[float, ...]:
    """The values at `step`, one per group of replicates."""
    return number.each(step) if isinstance(number, Schedule) else (number,)


def over_events(number: Number, dims: int) -> Number:
    """Append `dims` dimensions to numbers per replicate, to broadcast with `replicates x batch x event`."""
    return number[(..., *[None] * dims)] if isinstance(number, Tensor) else number


def filled(number: Number, like: Tensor) -> Tensor:
    """Expand a number, or one per replicate, to the shape of a tensor with as many dimensions."""
    return number.expand_as(like) if isinstance(number, Tensor) else torch.full_like(like, number)


def clamped(number: Number, least: float, most: float = math.inf) -> Number:
    """Clamp a number, or one per replicate, to `[least, most]`."""
    return number.clamp(least, most) if isinstance(number, Tensor) else min(max(number, least), most)


CLOSED = {
    "a positive number": "a number that is not negative",
    "a number in [0, 1)": "a number in [0, 1]",
    "a number in (0, 1]": "a number in [0, 1]",
    "a number in (0, 1)": "a number in [0, 1]",
}
"""Maps each range to the one that also contains the limits that values may approach."""


def as_schedule(value: float | Schedule) -> Schedule:
    """Return a schedule unchanged, and a number as a constant schedule."""
    return value if isinstance(value, Schedule) else Constant(value)
