"""One metric of everything by everything, as a table: arms by runs (suites), learners by opponents (tournaments)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inference_marl.analysis.report.tables import Section, number

Entry = Mapping[str, Any]
"""A row of `summary.json`, or what else has `mean`, `low`, `high` and `step`; it may have a `published` number too. A
row that has `failed` instead stands for an arm that was not played to its end."""

WIDTH = 120
"""Columns of a printed table, at most; names alone may be wider."""

CENSORED = "steps_to_"
"""How metrics begin that are beyond the last step where they are not known."""

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
    censored = metric.startswith(CENSORED)
    if entry["mean"] is None:
        return f"> {entry['step']}" if censored else "-"
    estimate, low, high = number(entry["mean"], digits), entry["low"], entry["high"]
    beside = f" ({number(entry['published'], digits)})" if entry.get("published") is not None else ""
    if form == "half only":
        return "-" if low is None or high is None else number((high - low) / 2, digits)
    if form == "alone" or low is None or (high is None and not censored):
        return f"{estimate}{beside}"
    if form == "half":
        return f"{estimate} ± {number((high - low) / 2, digits)}{beside}"
    ends = f"> {entry['step']}" if high is None else number(high, digits)
    return f"{estimate} [{number(low, digits)}, {ends}]{beside}"


@dataclass(frozen=True)
class Matrix:
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
        apart: how many of the first columns sum up the others.
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

    def means(self) -> npt.NDArray[np.float64]:
        """Estimates, `rows x columns`; NaN where there is none."""
        found = [[self.entries.get((row, column), {}).get("mean") for column in self.columns] for row in self.rows]
        return np.array([[np.nan if mean is None else mean for mean in row] for row in found], dtype=np.float64)


def fitted(section: Section, width: int = WIDTH) -> list[Section]:
    """A table that is too wide in parts with some of its columns each; all have the first `names` columns."""
    widths = [max(map(len, column)) + 2 for column in zip(section.header, *section.rows, strict=True)]
    first = list(range(section.names))
    parts: list[list[int]] = [[]]
    for i in range(section.names, len(widths)):
        if parts[-1] and sum(widths[j] for j in [*first, *parts[-1], i]) - 2 > width:
            parts.append([])
        parts[-1].append(i)
    found = []
    for k, part in enumerate(parts):
        chosen = [*first, *part]
        title, explanation = ("", "") if k else (section.title, section.explanation)
        rows = [[row[i] for i in chosen] for row in section.rows]
        note = section.note if k == len(parts) - 1 else ""
        found.append(Section(title, explanation, [section.header[i] for i in chosen], rows, note, names=section.names))
    return found


def as_text(sections: Iterable[Section]) -> str:
    """For a terminal, at most `WIDTH` columns wide as far as names allow."""
    parts = [part for section in sections for part in (fitted(section) if section.rows else [section])]
    return "\n\n".join(part.text().strip("\n") for part in parts)


def as_markdown(sections: Iterable[Section]) -> str:
    """Headings, paragraphs and tables of Markdown."""
    parts = []
    for section in sections:
        parts += [f"## {section.title}"] if section.title else []
        parts += [section.explanation] if section.explanation else []
        if section.rows:
            rule = [":--"] * section.names + ["--:"] * (len(section.header) - section.names)
            lines = [section.header, rule, *section.rows]
            parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
        parts += [section.note] if section.note else []
    return "\n\n".join(parts) + "\n"


def as_csv(matrices: Iterable[Matrix]) -> str:
    """Every entry in a line of its own, with full precision."""
    ends = ("step", "mean", "low", "high", "replicates", "published", "failed")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for k, matrix in enumerate(matrices):
        if k == 0:
            writer.writerow([matrix.corner, matrix.across, "metric", *ends])
        for row in matrix.rows:
            for column in matrix.columns:
                entry = matrix.entries.get((row, column))
                if entry is not None:
                    writer.writerow([row, column, matrix.metric, *(entry.get(end) for end in ends)])
    return text.getvalue()
