"""Schedules of hyperparameters: temperature, KL weight, learning rate."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from inference_marl.described import Described, expect


class Schedule(Described, ABC):
    """A number for every learning step, counted from 0."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """The value at `step`, the number of updates made so far."""

    def at(self, steps: Tensor, dtype: torch.dtype) -> Tensor:
        """The values, of type `dtype`, at many steps (int64, any shape), such as the visit counts of a table."""
        known, where = steps.unique(return_inverse=True)
        return torch.tensor([self(step) for step in known.tolist()], dtype=dtype, device=steps.device)[where]


class Constant(Schedule):
    """The same `value` at every step."""

    def __init__(self, value: float) -> None:
        expect("a finite number", value=value)
        self.value = value

    def __call__(self, step: int) -> float:
        """`value`."""
        return self.value


class ExponentialDecay(Schedule):
    """`start exp(-rate max(step - delay, 0)) + floor`.

    With `start=500, rate=0.1, floor=0.1` this is the annealing of the ROMMEO authors' code; the paper itself has a
    constant temperature.

    Args:
        start: initial size of the decaying term (the initial value is `start + floor`).
        rate: decay per step, not negative.
        floor: the value in the limit.
        delay: steps before the decay begins.
    """

    def __init__(self, start: float, rate: float, floor: float = 0.0, delay: int = 0) -> None:
        expect("a number that is not negative", rate=rate, delay=delay)
        expect("a finite number", start=start, floor=floor)
        self.start, self.rate, self.floor, self.delay = start, rate, floor, delay

    def __call__(self, step: int) -> float:
        """The value at `step`."""
        return self.start * math.exp(-self.rate * max(step - self.delay, 0)) + self.floor


class InverseTime(Schedule):
    """`start scale / (scale + step)`: the Robbins-Monro rate; `1e4 / (1e4 + t)` in the ROMMEO authors' code.

    With `start=1, scale=1` over the visits of a cell (`TabularCritic(rate_over="visits")`) it yields sample means.

    Args:
        start: the value at step 0.
        scale: steps after which the value has halved, positive.
    """

    def __init__(self, start: float = 1.0, scale: float = 1e4) -> None:
        expect("a positive number", scale=scale)
        expect("a finite number", start=start)
        self.start, self.scale = start, scale

    def __call__(self, step: int) -> float:
        """The value at `step`."""
        return self.start * self.scale / (self.scale + step)


class Linear(Schedule):
    """Linear interpolation from `start` to `end` over `steps` steps, then `end`."""

    def __init__(self, start: float, end: float, steps: int) -> None:
        expect("a positive integer", steps=steps)
        expect("a finite number", start=start, end=end)
        self.start, self.end, self.steps = start, end, steps

    def __call__(self, step: int) -> float:
        """The value at `step`."""
        return self.start + (self.end - self.start) * min(step / self.steps, 1.0)


def positive(step: int, **schedules: float | Schedule) -> tuple[float, ...]:
    """The values of numbers and schedules at `step`, in the given order.

    Raises:
        ValueError: if one is not positive, or not finite, by its name.
    """
    values = {name: current(schedule, step) for name, schedule in schedules.items()}
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(
                f"{name}: got {value} at update {step}, expected a number that stays positive; for almost none of it, "
                "a small one such as 1e-3"
            )
    return tuple(values.values())


def current(number: float | Schedule, step: int) -> float:
    """The value at `step` of a number, which is constant, or a schedule."""
    return number(step) if isinstance(number, Schedule) else number


def expect_first(what: str, **schedules: float | Schedule) -> None:
    """As `described.expect`, of numbers and of the first values of schedules."""
    expect(what, " at the first update", **{name: current(each, 0) for name, each in schedules.items()})


def as_schedule(value: float | Schedule) -> Schedule:
    """Return a schedule unchanged, and a number as a constant schedule."""
    return value if isinstance(value, Schedule) else Constant(value)
