"""Declarations of the metrics that runs record and report; each is declared once, where it is produced."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

UNBOUNDED = (-math.inf, math.inf)
POSITIVE = (0.0, math.inf)
PROBABILITY = (0.0, 1.0)

STEPS = "environment steps"
"""Unit of durations."""

SEEDS = "seeds"
"""Unit of numbers of replicates."""


@dataclass(frozen=True)
class Metric:
    """Name, range and summary of a metric, which files, tables and figures use.

    A learner or a game adds a metric by declaring it in its `metrics` and returning it by name.

    Attributes:
        name: name in files: letters, digits and `_`.
        label: label in tables and figures; if empty, the name with spaces.
        unit: unit of its values; empty if they have none, or the game's own.
        bounds: range of its values, to which intervals are clipped.
        dims: dimensions besides `replicate` and `step`: `("agent",)`, or none for a metric of the joint policy.
        over: how values between two records are aggregated: their `mean`, or the `last`.
        estimate: how replicates are summarised: by the `mean` (Student's interval), the `rate` of values 0 or 1
            (Wilson's), the `median` (distribution-free), or the interquartile mean, `iqm` (bootstrap).
        higher_is_better: whether higher values are better, or lower ones; `None` if neither.
        meaning: definition in a sentence or two, for the glossary.
        censored: whether a missing value means that the event had not happened by the last step.
        tabulated: whether it appears in tables of results; it is recorded and plotted in any case.

    Raises:
        ValueError: if the name is invalid, or the bounds are empty.
    """

    name: str
    label: str = ""
    unit: str = ""
    bounds: tuple[float, float] = UNBOUNDED
    dims: tuple[str, ...] = ("agent",)
    over: Literal["mean", "last"] = "mean"
    estimate: Literal["mean", "rate", "median", "iqm"] = "mean"
    higher_is_better: bool | None = None
    meaning: str = ""
    censored: bool = False
    tabulated: bool = True

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"name: got {self.name!r}, expected letters, digits and _")
        if not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"bounds: got {self.bounds} for {self.name}, expected a lower and a higher number")
        object.__setattr__(self, "label", self.label or self.name.replace("_", " "))

    @property
    def difference_bounds(self) -> tuple[float, float]:
        """Range of the difference of two values."""
        low, high = self.bounds
        return low - high, high - low

    def attributes(self) -> dict[str, str]:
        """The declaration as attributes of a stored variable; inverse of `from_attributes`."""
        content = asdict(self) | {"bounds": [end if math.isfinite(end) else None for end in self.bounds]}
        return {"long_name": self.label, "units": self.unit, "metric": json.dumps(content)}

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Self:
        """Read a declaration from the attributes of a stored variable."""
        content = json.loads(attributes["metric"])
        low, high = content["bounds"]
        bounds = (-math.inf if low is None else low, math.inf if high is None else high)
        return cls(**{**content, "bounds": bounds, "dims": tuple(content["dims"])})


def check_declared(names: Iterable[str], declared: Iterable[str]) -> None:
    """Check that all metrics in `names` are `declared`.

    Raises:
        ValueError: if one is not.
    """
    known = list(declared)
    for name in names:
        if name not in known:
            raise ValueError(
                f"metrics: got {name}, which is not declared, expected one of {', '.join(known) or 'none'}; add "
                f'Metric("{name}") to the `metrics` of the class that returns it'
            )
