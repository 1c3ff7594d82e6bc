"""One metric of everything against everything: arms by runs (suites), learners by opponents (tournaments)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inference_marl.analysis.tables import Section, ends, interval_of, number
from inference_marl.statistics.beliefs import Numbers

Entry = Mapping[str, Any]
"""A row of `summary.json`, or anything else with `mean`, `low`, `high` and `step`, and possibly a `published` number;
or, for an arm that was not played to its end, why it `failed`."""

FORMS = {
    **dict.fromkeys(("reward", "return", "elbo"), ("half", 3)),
    **dict.fromkeys(("steps_to_success", "steps_to_98"), ("ends", 0)),
}
"""How entries are printed, and with how many decimals, see `entry_text`."""

USUAL = ("ends", 3)
"""How entries of other metrics are printed: half of an interval says too little where it is not symmetric."""


def entry_text(entry: Entry | None, metric: str, form: str, digits: int) -> str:
    """An entry as printed.

    Args:
        entry: `None` where there is none.
        metric: as in `summary.json`.
        form: `half` is an estimate and half of its interval, `ends` the interval's ends, `alone` neither, `half only`
            half of the interval alone.
        digits: decimals.
    """
    if entry is None:
        return "-"
    if "failed" in entry:
        return "failed"
    interval, last = interval_of(entry, metric), entry["step"]
    estimate = number(interval.mean, digits, last)
    half = number((interval.high - interval.low) / 2, digits)
    if not math.isfinite(interval.mean):
        return estimate
    if form == "half only":
        return half
    known = {"half": f" ± {half}", "ends": f" {ends(interval, digits, last)}"}.get(form, "")
    beside = f" ({number(entry['published'], digits)})" if entry.get("published") is not None else ""
    return f"{estimate}{known if half != '-' else ''}{beside}"


@dataclass(frozen=True)
class CrossTable:
    """A metric of rows by columns.

    Attributes:
        metric: as in `summary.json`.
        title: what it is.
        explanation: how to read it.
        corner: what rows are.
        across: what columns are.
        rows: their names.
        columns: their names.
        entries: by row and column; where there is none, nothing is known.
        apart: how many of the first columns summarise the others.
    """

    metric: str
    title: str
    explanation: str
    corner: str
    across: str
    rows: Sequence[str]
    columns: Sequence[str]
    entries: Mapping[tuple[str, str], Entry]
    apart: int = 0

    @property
    def form(self) -> str:
        """How entries are usually printed."""
        return FORMS.get(self.metric, USUAL)[0]

    def text(self, row: str, column: str, form: str | None = None) -> str:
        """An entry as printed, in the metric's own form unless another is asked for."""
        _, digits = FORMS.get(self.metric, USUAL)
        return entry_text(self.entries.get((row, column)), self.metric, form or self.form, digits)

    def section(self, form: str | None = None) -> Section:
        """The whole table, however wide."""
        rows = [[row, *(self.text(row, column, form) for column in self.columns)] for row in self.rows]
        return Section(self.title, self.explanation, [self.corner, *self.columns], rows)

    def means(self) -> Numbers:
        """Estimates, `rows x columns`; NaN where there is none."""
        found = [[self.entries.get((row, column), {}).get("mean") for column in self.columns] for row in self.rows]
        return np.array(found, dtype=np.float64)  # None is NaN

    def records(self) -> Iterator[dict[str, Any]]:
        """One entry after the other, for `as_csv`."""
        for row in self.rows:
            for column in self.columns:
                entry = self.entries.get((row, column))
                if entry is not None:
                    keys = ("step", "mean", "low", "high", "replicates", "published", "failed")
                    where = {self.corner: row, self.across: column, "metric": self.metric}
                    yield where | {key: entry.get(key) for key in keys}
