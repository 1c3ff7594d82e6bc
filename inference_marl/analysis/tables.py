"""Tables that answer a question about a run, and how they are written: as text, Markdown, HTML and CSV."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import pandas as pd

from inference_marl.statistics.intervals import Interval

WIDTH = 98
"""Columns of printed prose."""

TABLE_WIDTH = 120
"""Columns of a printed table, at most; names alone may be wider."""

SHORT_GROUP, SHORT_TABLE = 9, 30
"""Rows of a group, and of a table, up to which they stay on one page in print."""

LONG_CELL = 40
"""Characters above which the text of an HTML cell is wrapped."""

NO_INTERVAL = "A dash in the place of an interval: the replicates are too few, or too much alike, to give one."
"""What `ends` shows where there is no interval, in words."""

CENSORED = "steps_to_"
"""Prefix of metrics that are beyond the last step where they are unknown."""

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
"""Names of metrics, in the order of a run's table; others come last under their own names."""


@dataclass(frozen=True)
class Section:
    """One question and its answer.

    Attributes:
        title: the question.
        explanation: what the numbers mean, in plain words.
        header: of the table's columns; the first is that of the rows' names, usually empty.
        rows: cells as text, may be shorter than the header; a row of one cell is a heading.
        note: below the table: what was left out, and how to get it.
        figures: names of the figures that belong here, without suffix.
        names: how many of the first columns name a row.
    """

    title: str
    explanation: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    note: str = ""
    figures: tuple[str, ...] = ()
    names: int = 1

    def text(self) -> str:
        """For a terminal; only the table may be wider than `WIDTH`."""
        parts = [self.title, *([textwrap.fill(self.explanation, WIDTH)] if self.explanation else [])]
        if self.rows:
            parts += ["", _aligned(self)]
        return "\n".join([*parts, *([textwrap.fill(self.note, WIDTH)] if self.note else [])])


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
    """`[low, high]`; `-` where the sample allows no interval."""
    if math.isnan(interval.low) or math.isnan(interval.high):
        return "-"
    return f"[{number(interval.low, digits, last)}, {number(interval.high, digits, last)}]"


def cell(interval: Interval, digits: int = 3, last: int | None = None) -> str:
    """An estimate and its interval in one cell."""
    return f"{number(interval.mean, digits, last)} {ends(interval, digits, last)}"


def interval_of(row: Mapping[str, Any], metric: str) -> Interval:
    """The interval of a row of `summary.json`, where infinity and NaN are `None`."""
    missing = math.inf if metric.startswith(CENSORED) else math.nan
    mean, low, high = (missing if row[key] is None else row[key] for key in ("mean", "low", "high"))
    if row["low"] is None and row["high"] is None:
        return Interval(mean, math.nan, math.nan)
    return Interval(mean, low, high)


def failures(failed: Mapping[str, str]) -> list[Section]:
    """What failed, by name, and why; nothing if nothing did."""
    lines = [f"failed  {name}: {why}" for name, why in failed.items()]
    return [Section("\n".join(lines))] if lines else []


def as_text(sections: Iterable[Section]) -> str:
    """For a terminal, at most `TABLE_WIDTH` columns wide as far as names allow."""
    return "\n\n".join(part.text().strip("\n") for section in sections for part in fitted(section))


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


def as_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows by column name, with full precision; `None` is an empty cell."""
    table = pd.DataFrame(list(rows), dtype=object)
    return "" if table.empty else str(table.to_csv(index=False, lineterminator="\n"))


def as_html(section: Section, caption: str) -> str:
    """The table of a section, with row names as headers; a row of one cell is a heading over all columns.

    Args:
        section: what is shown.
        caption: HTML.
    """
    looks = [' class="name"'] * section.names + [""] * (len(section.header) - section.names)
    heads = "".join(
        f'<th scope="col"{look}>{escape(text) or "<span>Name</span>"}</th>'  # screen readers need a text
        for text, look in zip(section.header, looks, strict=True)
    )
    bodies: list[list[str]] = [[]]
    for row in section.rows:
        if _is_heading(section, row):
            bodies.append([])
        bodies[-1].append(_html_row(section, row))
    groups = "\n".join(
        "\n".join(['<tbody class="short">' if len(body) <= SHORT_GROUP else "<tbody>", *body, "</tbody>"])
        for body in bodies
        if body
    )
    kept = " short" if len(section.rows) <= SHORT_TABLE else ""
    return (
        f'<div class="wide{kept}" tabindex="0" role="region" aria-label="{escape(section.title or "table")}"><table>'
        f"<caption>{caption}</caption>\n<thead><tr>{heads}</tr></thead>\n{groups}\n</table></div>"
    )


def _html_row(section: Section, row: Sequence[str]) -> str:
    width, cells = len(section.header), [text.strip() for text in row]
    if _is_heading(section, row):
        return f'<tr class="group"><th scope="rowgroup" colspan="{width}">{escape(cells[0])}</th></tr>'
    look = "name inner" if row[0].startswith(" ") else "name"
    names = "".join(f'<th scope="row" class="{look}">{escape(text)}</th>' for text in cells[: section.names])
    data = "".join(
        ('<td class="long">' if len(text) > LONG_CELL else "<td>") + f"{escape(text)}</td>"
        for text in [*cells[section.names :], *[""] * (width - len(row))]
    )
    return f"<tr>{names}{data}</tr>"


def _is_heading(section: Section, row: Sequence[str]) -> bool:
    return len(row) == 1 < len(section.header)


def fitted(section: Section, width: int = TABLE_WIDTH) -> list[Section]:
    """A table that is too wide, in parts with some of its columns each; all have the columns of names."""
    if not section.rows:
        return [section]
    widths = [max(map(len, column)) + 2 for column in zip(section.header, *section.rows, strict=True)]
    names = list(range(section.names))
    parts = [names]
    for i in range(section.names, len(widths)):
        if len(parts[-1]) > len(names) and sum(widths[j] for j in [*parts[-1], i]) - 2 > width:
            parts.append(names)
        parts[-1] = [*parts[-1], i]
    return [
        replace(
            section,
            title="" if k else section.title,
            explanation="" if k else section.explanation,
            header=[section.header[i] for i in chosen],
            rows=[[row[i] for i in chosen] for row in section.rows],
            note=section.note if chosen is parts[-1] else "",
        )
        for k, chosen in enumerate(parts)
    ]


def _aligned(section: Section) -> str:
    """Aligned columns, those of names to the left."""
    filled = [[*row, *[""] * (len(section.header) - len(row))] for row in [section.header, *section.rows]]
    # A heading may run on over the empty columns.
    widths = [max(len(row[i]) for row in filled if i or any(row[1:])) for i in range(len(section.header))]
    lines = [
        "  ".join(
            text.ljust(width) if i < section.names else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in filled
    ]
    return "\n".join(line.rstrip() for line in lines)
