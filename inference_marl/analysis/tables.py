"""Tables that answer a question, and how numbers, intervals and tables are written; pandas does the printing."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from inference_marl.statistics.intervals import Interval
from inference_marl.types import SEEDS, STEPS, UNBOUNDED, Metric

WIDTH = 98
"""Columns of printed prose."""

TABLE_WIDTH = 120
"""Columns of a printed table, at most; names alone may be wider."""

LATEX = str.maketrans({letter: f"\\{letter}" for letter in "&%$#_{}"})
"""Letters of captions that LaTeX would read as commands."""

NO_INTERVAL = "An estimate without an interval: the replicates are too few, or too much alike, to give one."
NO_ESTIMATE = (
    "No estimate (-) where a replicate has failed: it has no value, and a mean over the others alone would be biased."
)


@dataclass(frozen=True)
class Section:
    """One question and its answer.

    Attributes:
        title: the question.
        explanation: what the numbers mean, in plain words.
        table: cells as text; the index names the rows.
        note: below the table: what was left out, and how to get it.
        figures: names of the figures that belong here, without suffix.
    """

    title: str
    explanation: str = ""
    table: pd.DataFrame | None = None
    note: str = ""
    figures: tuple[str, ...] = ()

    def text(self) -> str:
        """For a terminal; tables wider than `TABLE_WIDTH` are printed in parts."""
        parts = [self.title, textwrap.fill(self.explanation, WIDTH)]
        if self.table is not None:
            lines = self.table.to_string(na_rep="", line_width=TABLE_WIDTH).splitlines()
            parts.append("\n" + "\n".join(line.rstrip(" \\") for line in lines))  # pandas marks lines that go on
        return "\n".join(part for part in (*parts, textwrap.fill(self.note, WIDTH)) if part)

    def markdown(self) -> str:
        """Heading, paragraphs and table."""
        parts = [f"## {self.title}" if self.title else "", self.explanation]
        if self.table is not None:
            flat = _flat(self.table)
            sides = ["left"] * self.table.index.nlevels + ["right"] * len(self.table.columns)
            parts.append(flat.to_markdown(index=False, disable_numparse=True, colalign=sides))
        return "\n\n".join(part for part in (*parts, self.note) if part)

    def latex(self) -> str:
        """The table, with its title as caption."""
        if self.table is None:
            return textwrap.indent(self.title, "% ")
        caption = self.title.translate(LATEX)
        return str(_flat(self.table).to_latex(index=False, escape=True, caption=caption or None))


def _flat(table: pd.DataFrame) -> pd.DataFrame:
    """A table with its index as first columns."""
    named = table.rename_axis([name or "" for name in table.index.names], axis=0).rename_axis(None, axis=1)
    return named.reset_index().fillna("")


def as_text(sections: Iterable[Section]) -> str:
    """For a terminal."""
    return "\n\n".join(text for section in sections if (text := section.text()))


def number(value: float, digits: int = 3, last: int | None = None) -> str:
    """A number with so many decimals, at most one if it is large.

    NaN is `-`; infinity is more than the `last` step, if that is given.
    """
    if math.isinf(value) and last is not None:
        return f"> {last}"
    if not math.isfinite(value):
        return "-" if math.isnan(value) else f"{value}"
    text = f"{value:.{digits if abs(value) < 100 else min(digits, 1)}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def ends(interval: Interval, digits: int = 3, last: int | None = None) -> str:
    """`[low, high]`; empty where the sample allows no interval."""
    if math.isnan(interval.low) or math.isnan(interval.high):
        return ""
    return f"[{number(interval.low, digits, last)}, {number(interval.high, digits, last)}]"


def decimals(metric: Metric) -> int:
    """How many decimals of a metric are printed."""
    return {STEPS: 1, SEEDS: 0}.get(metric.unit, 3)


def cell(metric: Metric, interval: Interval, last: int | None = None) -> str:
    """An estimate and its interval in one cell: ± half of it, or its ends where it need not be symmetric."""
    digits = decimals(metric)
    estimate, between = number(interval.mean, digits, last), ends(interval, digits, last)
    if not between:
        return estimate
    if metric.bounds == UNBOUNDED and metric.estimate == "mean" and not metric.censored:
        return f"{estimate} ± {number((interval.high - interval.low) / 2, digits)}"
    return f"{estimate} {between}"


def failures(failed: Mapping[str, str]) -> list[Section]:
    """What failed, by name, and why; nothing if nothing did."""
    lines = [f"failed  {name}: {why}" for name, why in failed.items()]
    return [Section("\n".join(lines))] if lines else []
