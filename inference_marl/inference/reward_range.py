"""The range of the rewards that a learner has seen, as a unit for its hyperparameters."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from inference_marl.described import Described, Positive
from inference_marl.inference.schedules import Number, Schedule, positive
from inference_marl.inference.tables import finite
from inference_marl.types import Counting, Seat

NARROWEST = 1e-3
"""Smallest range of rewards, relative to their size, that single precision resolves well enough."""
NOTHING = 1e-20
"""A unit smaller than any reward that single precision can still represent well."""
LOOKS_AFTER = 100
"""Number of observations after which the range is compared with `NARROWEST`."""


class OfRange(Described):
    """A number in units of the range of rewards seen, the highest minus the lowest, in each replicate.

    Learning is then the same for rewards `c r + d` as for rewards `r`, for any `c > 0` and `d` (only `d = 0` in games
    that may terminate or that bootstrap from there). While all rewards seen are equal, the unit is their size; while
    they are 0, it is next to 0, so that entropy is worth next to nothing until the scale is known.

    Args:
        fraction: fraction of the range, positive; a number or a schedule.
    """

    by_replicate = frozenset({"fraction"})

    def __init__(self, fraction: Positive | Schedule) -> None:
        self.fraction = fraction


class RewardRange(Counting, nn.Module):
    """The lowest and the highest reward that each replicate has seen.

    Args:
        seat: seat of the agent.

    Attributes:
        lowest, highest: `replicates x 1`; infinity and minus infinity before the first reward.
        size: `highest - lowest`, `replicates x 1`; 0 before the first reward.
        unit: `size` where that is positive, otherwise see `OfRange`.
    """

    lowest: Tensor
    highest: Tensor
    size: Tensor
    unit: Tensor

    def __init__(self, seat: Seat) -> None:
        super().__init__()
        nothing = torch.zeros(seat.replicates, 1, dtype=seat.dtype, device=seat.device)
        self.register_buffer("lowest", nothing + torch.inf)
        self.register_buffer("highest", nothing - torch.inf)
        self.register_buffer("size", nothing)
        self.register_buffer("unit", nothing + NOTHING)

    @torch.no_grad()
    def observe(self, reward: Tensor) -> None:
        """Update the range with rewards, `replicates x batch`.

        Warns once if the range is too narrow for single precision.

        Raises:
            NonFiniteError: as `tables.finite`.
        """
        reward = finite("rewards", reward)
        self.lowest = torch.minimum(self.lowest, reward.amin(1, keepdim=True))
        self.highest = torch.maximum(self.highest, reward.amax(1, keepdim=True))
        self.size = self.highest - self.lowest
        largest = torch.maximum(self.lowest.abs(), self.highest.abs())
        self.unit = torch.where(self.size > 0, self.size, largest.clamp_min(NOTHING))
        self.updates += 1
        if self.updates == LOOKS_AFTER and self.size.dtype != torch.float64:
            self._look(largest)

    def _look(self, largest: Tensor) -> None:
        narrow = (self.size > 0) & (self.size < NARROWEST * largest)
        if bool(narrow.any()):
            warnings.warn(  # the same message from the same line, so that Python shows it once
                f"rewards: got a range below {NARROWEST:g} of their size in "
                f"{str(self.size.dtype).removeprefix('torch.')}, where rounding hides their differences; expected "
                "dtype: float64",
                stacklevel=1,
            )

    def times(self, step: int, **numbers: float | Schedule | OfRange) -> tuple[Number, ...]:
        """The values of numbers, schedules and fractions of the range at `step`, in units of reward.

        Raises:
            ValueError: as `positive`.
        """
        given = {name: each.fraction if isinstance(each, OfRange) else each for name, each in numbers.items()}
        values = positive(step, **given)
        return tuple(
            value * self.unit if isinstance(each, OfRange) else value
            for each, value in zip(numbers.values(), values, strict=True)
        )
