"""Questions about a run with their answers as tables: what the command prints and the report shows."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from inference_marl.statistics.intervals import Interval

WIDTH = 100
"""Columns of printed text, about."""

NO_INTERVAL = "A dash in the place of an interval: the replicates are too few, or too much alike, to give one."
"""What `ends` shows where there is no interval, in words."""

NAMES = {
    "reward": "reward per step",
    "return": "exact return of the joint policy",
    "return_deviation": "standard deviation of an agent's return",
    "joint_optimum_probability": "joint probability of the optimum",
    "steps_to_98": "steps until its mean stays at 0.98 or above",
    "success_rate": "success rate",
    "steps_to_success": "steps to lasting success (median)",
    "nash_conv": "NashConv: what best responses would gain, summed",
    "tit_for_tat": "share of states with tit-for-tat",
    "near_uniform": "share of states with near uniform play",
    "elbo": "ELBO",
    "elbo_gap": "evidence minus ELBO",
    "opponent_model_lead": "opponent model's lead, in steps",
}
"""What metrics are called, in the order of a run's table; others come last under their own names."""


@dataclass(frozen=True)
class Section:
    """One question and its answer.

    Attributes:
        title: the question.
        explanation: what the numbers mean, in plain words.
        header: of the table's columns; the first is that of the rows' names, usually empty.
        rows: cells as text, may be shorter than the header; a row of one cell is a heading.
        note: below the table: what was left out, and how to get it.
        figures: names of the figures that belong here, without their ending.
        names: how many of the first columns say what a row is of.
    """

    title: str
    explanation: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    note: str = ""
    figures: tuple[str, ...] = ()
    names: int = 1

    def text(self) -> str:
        """For a terminal, about `WIDTH` columns wide."""
        parts = [self.title, *([textwrap.fill(self.explanation, WIDTH - 2)] if self.explanation else [])]
        if self.rows:
            parts += ["", aligned(self.header, self.rows, self.names)]
        return "\n".join([*parts, *([textwrap.fill(self.note, WIDTH - 2)] if self.note else [])])


def number(value: float, digits: int = 3) -> str:
    """So many decimals, at most one where the number is large; `-` for NaN."""
    if not math.isfinite(value):
        return "-" if math.isnan(value) else f"{value}"
    text = f"{value:.{digits if abs(value) < 100 else min(digits, 1)}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def ends(interval: Interval, digits: int = 3) -> str:
    """`[low, high]`; `-` where the sample allows no interval."""
    known = not math.isnan(interval.low) and not math.isnan(interval.high)
    return f"[{number(interval.low, digits)}, {number(interval.high, digits)}]" if known else "-"


def cell(interval: Interval, digits: int = 3) -> str:
    """An estimate and its interval in one cell."""
    return f"{number(interval.mean, digits)} {ends(interval, digits)}"


def step_cell(interval: Interval, last: int) -> str:
    """A median step; what had not happened by the last step is more than that."""
    mean, low, high = (
        f"> {last}" if math.isinf(each) else number(each, 1) for each in (interval.mean, interval.low, interval.high)
    )
    return f"{mean} [{low}, {high}]" if not math.isnan(interval.low) else f"{mean} -"


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """Aligned columns, the first `names` of them to the left; rows may be shorter than the header."""
    filled = [[*row, *[""] * (len(header) - len(row))] for row in [header, *rows]]
    # A row of one cell is a heading and may run on over the empty columns.
    widths = [max(len(row[i]) for row in filled if i or row[1:] != [""] * len(row[1:])) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if i < names else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in filled
    ]
    return "\n".join(line.rstrip() for line in lines)
