"""What a tournament found: tables and heat maps of who earns what against whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from inference_marl.analysis.cross_table import CrossTable, Entry
from inference_marl.analysis.recorded import Recorded, read
from inference_marl.analysis.tables import Section, as_csv, as_markdown, as_text, failures, fitted
from inference_marl.experiment import Levels, learners
from inference_marl.runs.files import write_text
from inference_marl.statistics.beliefs import Numbers, as_array
from inference_marl.statistics.bounds import PROBABILITY, UNBOUNDED
from inference_marl.statistics.intervals import mean_interval, proportion_interval
from inference_marl.statistics.summary import row as summary_row

AVERAGE = "all opponents"
"""Name of the column of averages; no arm can be called so."""

SHOWN = {
    "reward": ("reward", "reward per step of the row's learner"),
    "return": ("return", "exact return of the row's learner"),
    "success_rate": ("success_rate", "success rate of the pair"),
}
"""Metrics that are tabulated where they are known: their names in `metrics.nc`, and in words."""

PUBLISHED = " In parentheses: published."
"""How a table is read that has published numbers."""

Pair = tuple[str, str]
"""Names of the row's and of the column's learner."""


def table(run: Path | str | Recorded) -> str:
    """The tables as text, for 120 columns.

    Raises:
        InspectError: if the folder is not a run, or the run has no results.
    """
    return as_text(sections(read(run), printed=True))


def write(run: Path | str | Recorded) -> list[Path]:
    """Write `tournament.csv`, `tournament.md` and heat maps into a run's folder.

    Returns:
        The files.

    Raises:
        InspectError: if the folder is not a run, or the run has no results.
    """
    from inference_marl.analysis.plots.heat_map import heat_map  # matplotlib, which the tables do not need
    from inference_marl.analysis.plots.writing import write_figures

    recorded = read(run)
    folder, found, figures = recorded.folder, cross_tables(recorded), {}
    for cross in found:
        means = cross.means()
        limits = PROBABILITY if cross.metric == "success_rate" else (np.nanmin(means), np.nanmax(means))
        name = "tournament" if cross.metric == "reward" else f"tournament_{cross.metric}"
        figures[name] = heat_map(cross, recorded.title, limits)
    return [
        write_text(folder / "tournament.csv", as_csv(record for cross in found for record in cross.records())),
        write_text(folder / "tournament.md", as_markdown(sections(recorded))),
        *write_figures(folder, figures),
    ]


def sections(recorded: Recorded, printed: bool = False) -> list[Section]:
    """What was played, a table for each metric, and what failed.

    Args:
        recorded: the run.
        printed: in a narrow form: estimates and halves of their intervals apart, opponents by rank where their names
            are too long, in several tables where that is not enough.
    """
    steps = recorded.metrics["step"].to_numpy()
    since = int(steps[-1]) - (int(steps[-2]) if len(steps) > 1 else 0)
    over = f"over the last {since} steps" if since > 1 else "at the last step"
    head = Section(
        recorded.title,
        f"Rows are learners, columns their opponents, sorted by the reward {over} averaged over all opponents, the "
        "learner itself included. Intervals are 95 % over replicates, of averages over the replicates' own averages; "
        "replicates that are all alike give none." + PUBLISHED * bool(recorded.summary.get("published")),
    )
    found = [head]
    for cross in cross_tables(recorded):
        if printed and cross.form == "half":
            found += [_narrow(cross, "alone", ""), _narrow(cross, "half only", ", ± (half of the 95 % interval)")]
        else:  # halves of Wilson's intervals would mislead
            found.append(_narrow(cross, cross.form, "") if printed else cross.section())
    return [*found, *failures(recorded.failed)]


def rewards(recorded: Recorded) -> Section:
    """Who earns what against whom, without intervals: the first of `sections`' tables, to stand beside other runs'."""
    return _narrow(cross_tables(recorded)[0], "alone", f", {recorded.name}")


def _narrow(cross: CrossTable, form: str, what: str) -> Section:
    """A table with opponents called by their ranks, if their names are too long for it."""
    section = cross.section(form)
    section = replace(section, title=section.title + what)
    if len(fitted(section)) == 1:
        return section
    ranked = {name: str(rank) for rank, name in enumerate(cross.rows, 1)}
    return replace(
        section,
        explanation=f"{section.explanation} Columns are opponents, by the number of their row.".strip(),
        header=[ranked.get(name, name) for name in section.header],
        rows=[[f"{ranked[row[0]]} {row[0]}", *row[1:]] for row in section.rows],
    )


def cross_tables(recorded: Recorded) -> list[CrossTable]:
    """Learners by opponents at the last record, for each metric that is known, sorted by the average reward."""
    order = learners(recorded.summary["levels"])
    failed: dict[Pair, Entry] = {pair: {"failed": why} for pair, why in _failed(recorded).items()}
    found = []
    for metric, (name, words) in SHOWN.items():
        samples = _samples(recorded, name)
        if not samples:
            continue
        entries = _entries(recorded, metric, samples)
        if metric == "reward":
            average = {each: entries[each, AVERAGE]["mean"] for each in order if (each, AVERAGE) in entries}
            order = sorted(order, key=lambda each: average.get(each, -np.inf), reverse=True)
        columns = [AVERAGE, *order]
        found.append(CrossTable(metric, words, "", "learner", "opponent", order, columns, entries | failed, apart=1))
    return found


def _entries(recorded: Recorded, metric: str, samples: Mapping[Pair, Numbers]) -> dict[Pair, Entry]:
    """Estimates and intervals of all pairs, and of the averages of learners that met all opponents."""
    names, rate = learners(recorded.summary["levels"]), metric == "success_rate"
    found: dict[Pair, Entry] = {}
    for pair, values in samples.items():
        interval = proportion_interval(int(values.sum()), len(values)) if rate else mean_interval(values)
        found[pair] = summary_row(interval, len(values), step=recorded.last_step)
    for learner in names:
        own = [samples[learner, other] for other in names if (learner, other) in samples]
        if len(own) == len(names):  # averages over different opponents could not be compared
            interval = mean_interval(np.mean(own, axis=0), bounds=PROBABILITY if rate else UNBOUNDED)
            published = (recorded.summary.get("published") or {}).get(learner, {}).get(metric)
            found[learner, AVERAGE] = summary_row(interval, len(own[0]), step=recorded.last_step, published=published)
    return found


def missing_averages(recorded: Recorded) -> dict[str, str]:
    """Why a learner has no averages, of those that have none: what became of its first pair that failed."""
    found: dict[str, str] = {}
    for (row, _), why in _failed(recorded).items():
        found.setdefault(row, why)
    return found


def _failed(recorded: Recorded) -> dict[Pair, str]:
    """Why pairs failed."""
    levels = recorded.summary["levels"]
    found = {}
    for arm, why in recorded.failed.items():
        row, column = levels[arm]["row"], levels[arm]["column"]
        found[row, column] = why
        if _is_mirrored(levels):
            found[column, row] = why
    return found


def _is_mirrored(levels: Levels) -> bool:
    """Whether one seating of each pair stands for both."""
    return len(levels) < len(learners(levels)) ** 2


def averages(recorded: Recorded) -> list[dict[str, Any]]:
    """What each learner earns on average over all opponents, in rows like those of `summary.json`."""
    return [
        {"learner": learner, "metric": cross.metric, **cross.entries[learner, AVERAGE]}
        for cross in cross_tables(recorded)
        for learner in cross.rows
        if (learner, AVERAGE) in cross.entries
    ]


def _samples(recorded: Recorded, name: str) -> dict[Pair, Numbers]:
    """A metric of the row's learner at the last record, `replicates`, by pair.

    Where one seating stands for both, a learner against itself has the mean of both seats.
    """
    metrics, levels = recorded.metrics, recorded.summary["levels"]
    found: dict[Pair, Numbers] = {}
    mirrored, known = _is_mirrored(levels), set(recorded.learners if name in metrics else [])
    for arm, at in levels.items():
        if arm not in known:
            continue
        values = as_array(metrics[name].sel(learner=arm).isel(step=-1), "replicate")
        if np.isnan(values).all():
            continue
        row, column = at["row"], at["column"]
        first, second = (values, values) if values.ndim == 1 else (values[:, 0], values[:, 1])
        found[row, column] = (first + second) / 2 if mirrored and row == column else first
        if mirrored and row != column:
            found[column, row] = second
    return found
