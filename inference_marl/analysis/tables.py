"""Tables that answer a question, and the formatting of numbers, intervals and tables, by pandas."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from inference_marl.statistics.intervals import Interval
from inference_marl.types import SEEDS, STEPS, UNBOUNDED, Metric

WIDTH = 98
"""Width of printed prose, in columns."""

TABLE_WIDTH = 120
"""Maximum width of a printed table, in columns, unless names alone are wider."""

LATEX = str.maketrans({letter: f"\\{letter}" for letter in "&%$#_{}"})
"""Escapes of letters in captions that LaTeX would read as commands."""

NO_INTERVAL = "An estimate without an interval: the replicates are too few, or too much alike, to give one."
NO_ESTIMATE = (
    "No estimate (-) where a replicate has failed: it has no value, and a mean over the others alone would be biased."
)


@dataclass(frozen=True)
class Section:
    """A question and its answer.

    Attributes:
        title: the question.
        explanation: the meaning of the numbers, in plain words.
        table: cells as text, with names of rows as index.
        note: note below the table, such as what was omitted and how to get it.
        figures: names of the figures of this section, without suffix.
    """

    title: str
    explanation: str = ""
    table: pd.DataFrame | None = None
    note: str = ""
    figures: tuple[str, ...] = ()

    def text(self) -> str:
        """Format for a terminal; tables wider than `TABLE_WIDTH` are split."""
        parts = [self.title, textwrap.fill(self.explanation, WIDTH)]
        if self.table is not None:
            lines = self.table.to_string(na_rep="", line_width=TABLE_WIDTH).splitlines()
            parts.append("\n" + "\n".join(line.rstrip(" \\") for line in lines))  # pandas marks continued lines
        return "\n".join(part for part in (*parts, textwrap.fill(self.note, WIDTH)) if part)

    def markdown(self) -> str:
        """Format as Markdown: heading, paragraphs and table."""
        parts = [f"## {self.title}" if self.title else "", self.explanation]
        if self.table is not None:
            flat = _flat(self.table)
            sides = ["left"] * self.table.index.nlevels + ["right"] * len(self.table.columns)
            parts.append(flat.to_markdown(index=False, disable_numparse=True, colalign=sides))
        return "\n\n".join(part for part in (*parts, self.note) if part)

    def latex(self) -> str:
        """Format the table as LaTeX, with its title as caption."""
        if self.table is None:
            return textwrap.indent(self.title, "% ")
        caption = self.title.translate(LATEX)
        return str(_flat(self.table).to_latex(index=False, escape=True, caption=caption or None))


def _flat(table: pd.DataFrame) -> pd.DataFrame:
    """Move a table's index to its first columns."""
    named = table.rename_axis([name or "" for name in table.index.names], axis=0).rename_axis(None, axis=1)
    return named.reset_index().fillna("")


def as_text(sections: Iterable[Section]) -> str:
    """Format sections for a terminal."""
    return "\n\n".join(text for section in sections if (text := section.text()))


def number(value: float, digits: int = 3, last: int | None = None) -> str:
    """Format a number with `digits` decimals, at most one if it is large.

    NaN is `-`; infinity means later than the `last` step, if that is given.
    """
    if math.isinf(value) and last is not None:
        return f"> {last}"
    if not math.isfinite(value):
        return "-" if math.isnan(value) else f"{value}"
    text = f"{value:.{digits if abs(value) < 100 else min(digits, 1)}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def ends(interval: Interval, digits: int = 3, last: int | None = None) -> str:
    """Format an interval as `[low, high]`; empty if there is none."""
    if math.isnan(interval.low) or math.isnan(interval.high):
        return ""
    return f"[{number(interval.low, digits, last)}, {number(interval.high, digits, last)}]"


def decimals(metric: Metric) -> int:
    """The number of decimals of a metric."""
    return {STEPS: 1, SEEDS: 0}.get(metric.unit, 3)


def cell(metric: Metric, interval: Interval, last: int | None = None) -> str:
    """Format an estimate and its interval: ± half of it, or its ends if it may be asymmetric."""
    digits = decimals(metric)
    estimate, between = number(interval.mean, digits, last), ends(interval, digits, last)
    if not between:
        return estimate
    if metric.bounds == UNBOUNDED and metric.estimate == "mean" and not metric.censored:
        return f"{estimate} ± {number((interval.high - interval.low) / 2, digits)}"
    return f"{estimate} {between}"


def failures(failed: Mapping[str, str]) -> list[Section]:
    """A section of failures by name and reason; empty if there are none."""
    lines = [f"failed  {name}: {why}" for name, why in failed.items()]
    return [Section("\n".join(lines))] if lines else []
