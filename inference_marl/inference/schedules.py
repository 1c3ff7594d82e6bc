"""Hyperparameters that change while a learner learns: temperature, KL weight, learning rate."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from inference_marl.described import Described


class Schedule(Described, ABC):
    """A number for every step of learning, counted from 0."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """The value at `step` (how many updates the learner has made)."""

    def at(self, steps: Tensor, dtype: torch.dtype) -> Tensor:
        """The values at many steps at once, for clocks that run at their own pace, such as visits of a table's cells.

        Args:
            steps: int64, any shape.
            dtype: of the values.

        Returns:
            As `steps`.
        """
        known, where = steps.unique(return_inverse=True)
        return torch.tensor([self(step) for step in known.tolist()], dtype=dtype, device=steps.device)[where]


class Constant(Schedule):
    """The same value at every step.

    Args:
        value: the value.
    """

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, step: int) -> float:
        """`value`."""
        return self.value


class ExponentialDecay(Schedule):
    """`start exp(-rate max(step - delay, 0)) + floor`.

    With `start=500, rate=0.1, floor=0.1` this is the annealing of the ROMMEO authors' code; the paper itself
    speaks of a constant temperature.

    Args:
        start: what decays, at the first step (the value there is `start + floor`).
        rate: decay per step, not negative.
        floor: the value in the limit.
        delay: steps before the decay sets in.

    Raises:
        ValueError: if `rate` or `delay` is negative.
    """

    def __init__(self, start: float, rate: float, floor: float = 0.0, delay: int = 0) -> None:
        if rate < 0 or delay < 0:
            raise ValueError(f"rate, delay: got {rate}, {delay}, expected numbers that are not negative")
        self.start, self.rate, self.floor, self.delay = start, rate, floor, delay

    def __call__(self, step: int) -> float:
        """The value at `step`."""
        return self.start * math.exp(-self.rate * max(step - self.delay, 0)) + self.floor


class InverseTime(Schedule):
    """`start scale / (scale + step)`: the Robbins-Monro rate; `1e4 / (1e4 + t)` in the ROMMEO authors' code.

    With `start=1, scale=1` over the visits of a cell (`TabularCritic(rate_over="visits")`) it makes sample means.

    Args:
        start: the value at step 0.
        scale: steps after which the value has halved, positive.

    Raises:
        ValueError: if `scale` is not positive.
    """

    def __init__(self, start: float = 1.0, scale: float = 1e4) -> None:
        if scale <= 0:
            raise ValueError(f"scale: got {scale}, expected a positive number")
        self.start, self.scale = start, scale

    def __call__(self, step: int) -> float:
        """The value at `step`."""
        return self.start * self.scale / (self.scale + step)


class Linear(Schedule):
    """From `start` to `end` in a straight line over `steps` steps, then `end`.

    Args:
        start: the value at step 0.
        end: the value from step `steps` on.
        steps: length of the line, positive.

    Raises:
        ValueError: if `steps` is not positive.
    """

    def __init__(self, start: float, end: float, steps: int) -> None:
        if steps < 1:
            raise ValueError(f"steps: got {steps}, expected a positive integer")
        self.start, self.end, self.steps = start, end, steps

    def __call__(self, step: int) -> float:
        """The value at `step`."""
        return self.start + (self.end - self.start) * min(step / self.steps, 1.0)


def positive(step: int, **schedules: Schedule) -> tuple[float, ...]:
    """The values of schedules at `step`, in the given order.

    Raises:
        ValueError: if one is not positive, by its name.
    """
    values = {name: schedule(step) for name, schedule in schedules.items()}
    for name, value in values.items():
        if not value > 0:
            raise ValueError(
                f"{name}: got {value} at update {step}, expected a number that stays positive; for almost none of it, "
                "a small one such as 1e-3"
            )
    return tuple(values.values())


def as_schedule(value: float | Schedule) -> Schedule:
    """A number stands for the schedule that keeps it."""
    return value if isinstance(value, Schedule) else Constant(value)


def as_rate(name: str, rate: float | Schedule) -> Schedule:
    """A learning rate as a schedule.

    Raises:
        ValueError: if it is not in (0, 1] at the first step, by its name.
    """
    schedule = as_schedule(rate)
    if not 0 < schedule(0) <= 1:
        raise ValueError(f"{name}: got {schedule(0)} at the first update, expected a number in (0, 1]")
    return schedule
