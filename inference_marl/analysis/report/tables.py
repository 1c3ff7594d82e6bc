"""Tables that commands print and write: the results of a run, and the cells of an ablation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from inference_marl.analysis.estimates import at_the_end, interval, pivot, records, shown
from inference_marl.analysis.levels import names_of
from inference_marl.analysis.recorded import Recorded
from inference_marl.analysis.report.findings import predictions
from inference_marl.analysis.tables import NO_ESTIMATE, NO_INTERVAL, Section, as_text, decimals, ends, failures, number
from inference_marl.runs.files import write_text
from inference_marl.statistics.metrics import (
    EVALUATION_REWARD,
    EVALUATION_SUCCESS,
    OPTIMUM_PROBABILITY,
    REWARD,
    SUCCESS_RATE,
)
from inference_marl.statistics.summary import PUBLISHABLE, STEPS_TO_SUCCESS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES, BARS = "ablation_curves", "ablation_elbo"
"""The names of the figures of an ablation, without suffix."""

REACHED = (
    REWARD.name,
    EVALUATION_REWARD.name,
    EVALUATION_SUCCESS.name,
    OPTIMUM_PROBABILITY.name,
    SUCCESS_RATE.name,
    STEPS_TO_SUCCESS.name,
)
"""Metrics of the first block of an ablation's table."""

ELBO, GAP = "elbo", "elbo_gap"

WHAT_WAS_REACHED = (
    "What was reached, means over agents and replicates: ± is half of the 95 % interval (Student's), brackets hold its "
    f"ends. {NO_INTERVAL}"
)

PUBLISHED = " In parentheses: published."
"""Explanation of tables with published numbers."""


def no_figures() -> Mapping[str, Figure]:
    """No figures, for reports without any."""
    return {}


@dataclass(frozen=True)
class Report:
    """The tables that a command prints for a folder, and the files that it writes there.

    Attributes:
        folder: folder of a run or a suite.
        name: name of the files, without suffix.
        sections: the tables, as printed.
        estimates: the tidy frame from which the tables are pivoted.
        draw: creates the figures of the tables, by name.
    """

    folder: Path
    name: str
    sections: Sequence[Section]
    estimates: pd.DataFrame
    draw: Callable[[], Mapping[str, Figure]] = no_figures

    def text(self) -> str:
        """The text for a terminal, at most 120 columns wide if names allow."""
        return as_text(self.sections)

    def write(self) -> list[Path]:
        """Write the frame as CSV, the tables as Markdown and LaTeX, and the figures; returns the files."""
        from inference_marl.analysis.plots.writing import write_figures  # the tables do not need matplotlib

        tables = [section for section in self.sections if section.title or section.table is not None]
        texts = {
            "csv": self.estimates.to_csv(index=False, lineterminator="\n"),
            "md": "\n\n".join(section.markdown() for section in tables) + "\n",
            "tex": "\n".join(section.latex() for section in tables) + "\n",
        }
        written = [write_text(self.folder / f"{self.name}.{suffix}", text) for suffix, text in texts.items()]
        return [*written, *write_figures(self.folder, self.draw())]


def run_report(recorded: Recorded) -> Report:
    """Report the results of a run at its last step, for every learner and metric."""
    found = recorded.frame()
    return Report(recorded.folder, "results", [results(recorded, found), *failures(recorded.failed)], found)


def results(recorded: Recorded, found: pd.DataFrame) -> Section:
    """Tabulate estimates, intervals and published values.

    If the arm has a learner per seat, single agents follow the mean over agents; in zero-sum games, where the mean is
    meaningless, they replace it.
    """
    rows, last, declared = shown(recorded, at_the_end(found)), recorded.last_step, list(recorded.declared)
    rows = rows.sort_values("metric", key=lambda names: names.map(declared.index), kind="stable")
    lines = []
    for row in records(rows):
        metric = recorded.metric(row.metric)
        estimate, digits = interval(row), decimals(metric)
        numbers = number(estimate.mean, digits, last), ends(estimate, digits, last), f"{row.replicates:g}"
        published = "" if pd.isna(row.published) else number(row.published, digits)
        lines.append((metric.label, row.name, *numbers, published))
    columns = ["", "learner", "mean", "95 % interval", "replicates", "published"]
    table = pd.DataFrame(lines, columns=columns).set_index(["", "learner"])
    known = table["mean"] != "-"
    notes = [NO_INTERVAL] if (known & (table["95 % interval"] == "")).any() else []
    if recorded.failed_replicates and not known.all():
        notes.append(NO_ESTIMATE)
    if recorded.summary.get("published"):
        source = recorded.summary.get("source") or "source not given"
        notes.append(f"published: at the last step of the published experiment, which may not be this one's; {source}")
    else:
        del table["published"]
    return Section(recorded.title, "", table, " ".join(notes), ("learning_curves", "elbo_parts"))


def ablation_report(recorded: Recorded) -> Report:
    """Report the cells of a design and their differences from the first. A cell is an arm of the run."""
    from inference_marl.analysis.plots import ablation_curves, elbo_bars  # imports matplotlib, as in `Report.write`

    def draw() -> Mapping[str, Figure]:
        figures = {CURVES: ablation_curves(recorded.metrics, recorded.levels)}
        return figures | ({BARS: elbo_bars(recorded.metrics, recorded.levels)} if "elbo" in recorded.metrics else {})

    found = recorded.frame()
    return Report(recorded.folder, "ablation", ablation(recorded, found), found, draw)


def what_differs(found: pd.DataFrame) -> str:
    """Explain the second block of an ablation's table, depending on its content."""
    metrics = set(found.loc[found["reference"].isna(), "metric"])
    gap = ", and what it lacks of the evidence, where the learner can compute that" * (GAP in metrics)
    parts = {
        "the paired difference from the first cell, replicate by replicate": found["reference"].notna().any(),
        f"how far inference came: the ELBO, in units of reward{gap}": ELBO in metrics,
        "what the game and the learners measure of their own": metrics - {ELBO, GAP},
    }
    said = "; and ".join(words for words, known in parts.items() if known)
    caution = " Where models or critics differ, a higher ELBO is not better inference"
    caution = f"{caution}{': compare the gap' * (GAP in metrics)}." * (ELBO in metrics)
    return f"{said[:1].upper()}{said[1:]}{'.' * bool(said)}{caution}"


def ablation(recorded: Recorded, found: pd.DataFrame) -> list[Section]:
    """Results, differences, ELBOs, metrics of games and learners, and scores of forecasts."""
    levels, failed = recorded.levels, recorded.failed
    cells = found[(found["step"] == recorded.last_step) & found["agent"].isna()]
    paired = cells["reference"].notna()
    general = {metric.name for metric in PUBLISHABLE}
    others = cells[paired | ~cells["metric"].isin(general)]
    blocks = {
        WHAT_WAS_REACHED: cells[~paired & cells["metric"].isin(REACHED)],
        what_differs(others): others.sort_values("reference", kind="stable", na_position="last"),
    }
    what = f"{len(levels)} cells, {recorded.replicates} each, at step {recorded.last_step}"
    sections = [Section(f"{recorded.name}: {recorded.metrics.attrs.get('game', 'a game')}, {what}")]
    first = next(iter(levels))
    for explanation, rows in blocks.items():
        versus = rows["reference"].notna().map({True: " vs first", False: ""})
        columns = rows["metric"] + versus
        labels = rows["metric"].map(lambda name: recorded.metric(name).label) + versus
        table = pivot(rows.assign(column=columns), ["learner"], "column", recorded.declared)
        table = table.rename(columns=dict(zip(columns, labels, strict=True))).rename_axis(columns=None)
        table = _by_level(recorded, table)
        compared = explanation != WHAT_WAS_REACHED
        note = f"no differences: the first cell failed ({first})" if compared and first in failed else ""
        said = explanation + PUBLISHED * bool(rows["published"].notna().any())
        figures = (CURVES, BARS) if compared else ()
        sections.append(Section("", said, None if table.empty else table, note, figures))
    forecasts = [
        replace(each, table=_by_level(recorded, each.table)) for each in predictions(recorded) if each.table is not None
    ]
    return [*sections, *forecasts, *failures(failed)]


def _by_level(recorded: Recorded, table: pd.DataFrame) -> pd.DataFrame:
    """A table with a row per arm, named by its levels, including arms that failed or have no values."""
    every = table.reindex(index=list(recorded.levels)).fillna("-")
    every.loc[list(recorded.failed)] = "failed"
    header, names = names_of(recorded.levels)
    return every.set_axis(pd.MultiIndex.from_tuples(map(tuple, names), names=header))
