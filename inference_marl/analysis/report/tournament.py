"""What a tournament found: the tables and the pictures of who earns what against whom."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from inference_marl.analysis.posterior import Recorded, read
from inference_marl.analysis.report.matrix import Entry, Matrix, as_csv, as_markdown, as_text, fitted
from inference_marl.analysis.report.tables import Section
from inference_marl.config.tournament import Levels, learners
from inference_marl.runs.results import write_text
from inference_marl.statistics.bounds import PROBABILITY, UNBOUNDED
from inference_marl.statistics.intervals import Interval, mean_interval, proportion_interval

AVERAGE = "all opponents"
"""Name of the column of averages; no arm can be called so."""

SHOWN = {
    "reward": ("reward", "reward per step of the row's learner"),
    "return": ("return", "exact return of the row's learner"),
    "success_rate": ("success", "success rate of the pair"),
}
"""Metrics that are tabulated as far as they are known: their names in `metrics.nc`, and in words."""

PUBLISHED = " In parentheses: published."
"""How a table is read that has published numbers."""

Numbers = npt.NDArray[np.float64]


def table(run: Path | str | Recorded) -> str:
    """The tables as text, for 120 columns.

    Raises:
        InspectError: if the folder is not a run, or the run has no results.
    """
    return as_text(sections(run if isinstance(run, Recorded) else read(run), printed=True))


def write(run: Path | str | Recorded) -> list[Path]:
    """Write `tournament.csv`, `tournament.md` and heat maps into a run's folder.

    Returns:
        The files.

    Raises:
        InspectError: if the folder is not a run, or the run has no results.
    """
    from inference_marl.analysis.plots import save  # matplotlib, which the tables do not need
    from inference_marl.analysis.plots.matrix import heat_map

    recorded = run if isinstance(run, Recorded) else read(run)
    folder, found = recorded.folder, matrices(recorded)
    paths = [
        write_text(folder / "tournament.csv", as_csv(found)),
        write_text(folder / "tournament.md", as_markdown(sections(recorded))),
    ]
    for matrix in found:
        name = "tournament" if matrix.metric == "reward" else f"tournament_{matrix.metric}"
        limits = (
            PROBABILITY if matrix.metric == "success_rate" else (np.nanmin(matrix.means()), np.nanmax(matrix.means()))
        )
        paths.append(save(heat_map(matrix, _title(recorded), limits), folder / "figures" / f"{name}.png"))
    return paths


def _title(recorded: Recorded) -> str:
    metrics = recorded.metrics
    count = metrics.sizes["replicate"]
    what = f"{metrics.attrs.get('experiment', recorded.folder.name)}: {metrics.attrs.get('game', 'a game')}, "
    return f"{what}{count} replicate{'s' if count > 1 else ''}, at step {int(metrics['step'][-1])}"


def sections(recorded: Recorded, printed: bool = False) -> list[Section]:
    """What was played, a table for each metric, and what failed.

    Args:
        recorded: the run.
        printed: in a form that is narrow: estimates and halves of their intervals apart, opponents by their ranks where
            their names are too long, in several tables where that is not enough.
    """
    failed = recorded.summary.get("failed") or {}
    metrics = recorded.metrics
    since = int(metrics["step"][-1]) - (int(metrics["step"][-2]) if metrics.sizes["step"] > 1 else 0)
    over = f"over the last {since} steps" if since > 1 else "at the last step"
    head = Section(
        _title(recorded),
        f"Rows are learners, columns their opponents, sorted by the reward {over} averaged over all opponents, the "
        "learner itself included. Intervals are 95 % over replicates, of averages over the replicates' own averages; "
        "replicates that are all alike give none." + PUBLISHED * bool(recorded.summary.get("published")),
    )
    found = [head]
    for matrix in matrices(recorded):
        if printed and matrix.form == "half":
            found += [_narrow(matrix, "alone", ""), _narrow(matrix, "half only", ", ± (half of the 95 % interval)")]
        else:  # halves of Wilson's intervals would mislead
            found.append(_narrow(matrix, matrix.form, "") if printed else matrix.section())
    why = "\n".join(f"failed  {pair}: {reason}" for pair, reason in failed.items())
    return [*found, *([Section(why)] if why else [])]


def cross(recorded: Recorded) -> Section:
    """Who earns what against whom, without intervals: the first of `sections`' tables, to stand beside other runs'."""
    name = recorded.metrics.attrs.get("experiment", recorded.folder.name)
    return _narrow(matrices(recorded)[0], "alone", f", {name}")


def _narrow(matrix: Matrix, form: str, what: str) -> Section:
    """A table with opponents called by their ranks, if their names are too long for it."""
    section = matrix.section(form)
    section = replace(section, title=section.title + what)
    if len(fitted(section)) == 1:
        return section
    ranked = {name: str(rank) for rank, name in enumerate(matrix.rows, 1)}
    said = f"{section.explanation} Columns are opponents, by the number of their row.".strip()
    header = [ranked.get(name, name) for name in section.header]
    return replace(
        section,
        explanation=said,
        header=header,
        rows=[[f"{ranked[row[0]]} {row[0]}", *row[1:]] for row in section.rows],
    )


def matrices(recorded: Recorded) -> list[Matrix]:
    """Learners by opponents at the last record, for each metric that is known, sorted by the average reward."""
    metrics, levels = recorded.metrics, recorded.summary["levels"]
    names, step = learners(levels), int(metrics["step"][-1])
    mirrored = _is_mirrored(levels)
    failed: dict[tuple[str, str], Entry] = {pair: {"failed": why} for pair, why in _failed(recorded).items()}

    def entry(interval: Interval, values: Numbers, **beside: float | None) -> Entry:
        ends = {key: number if np.isfinite(number) else None for key, number in asdict(interval).items()}
        return {**ends, "step": step, "replicates": len(values), **beside}

    found, order = [], names
    for metric, (name, words) in SHOWN.items():
        samples = _samples(metrics, name, levels, mirrored)
        if not samples:
            continue
        rate = metric == "success_rate"
        entries = {
            pair: entry(proportion_interval(int(values.sum()), len(values)) if rate else mean_interval(values), values)
            for pair, values in samples.items()
        }
        for learner in names:
            own = [samples[learner, other] for other in names if (learner, other) in samples]
            if len(own) == len(names):  # averages over different opponents could not be compared
                average = np.mean(own, axis=0)
                interval = mean_interval(average, bounds=PROBABILITY if rate else UNBOUNDED)
                published = (recorded.summary.get("published") or {}).get(learner, {}).get(metric)
                entries[learner, AVERAGE] = entry(interval, average, published=published)
        if metric == "reward":
            averages = {each: entries[each, AVERAGE]["mean"] for each in names if (each, AVERAGE) in entries}
            order = sorted(names, key=lambda each: averages.get(each, -np.inf), reverse=True)
        found.append(
            Matrix(metric, words, "", "learner", "opponent", order, [AVERAGE, *order], entries | failed, apart=1)
        )
    return found


def failures(recorded: Recorded) -> dict[str, str]:
    """Why a learner has no averages, of those that have none: what became of its first pair that failed."""
    found: dict[str, str] = {}
    for (row, _), why in _failed(recorded).items():
        found.setdefault(row, why)
    return found


def _failed(recorded: Recorded) -> dict[tuple[str, str], str]:
    """Why, by the names of row and column."""
    levels = recorded.summary["levels"]
    found = {}
    for arm, why in (recorded.summary.get("failed") or {}).items():
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
        {"learner": learner, "metric": matrix.metric, **matrix.entries[learner, AVERAGE]}
        for matrix in matrices(recorded)
        for learner in matrix.rows
        if (learner, AVERAGE) in matrix.entries
    ]


def _samples(metrics: xr.Dataset, name: str, levels: Levels, mirrored: bool) -> dict[tuple[str, str], Numbers]:
    """What the row's learner has of a metric at the last record against the column's, `replicates`, by pair.

    Where one seating stands for both (`mirrored`), a learner against itself is the mean of both seats.
    """
    found: dict[tuple[str, str], Numbers] = {}
    known = set(metrics["learner"].to_numpy().tolist()) if name in metrics else set()
    for arm, at in levels.items():
        if arm not in known:
            continue
        last = metrics[name].sel(learner=arm).isel(step=-1)
        values = last.transpose("replicate", ...).to_numpy().astype(np.float64)
        if np.isnan(values).all():
            continue
        row, column = at["row"], at["column"]
        first, second = (values, values) if values.ndim == 1 else (values[:, 0], values[:, 1])
        found[row, column] = (first + second) / 2 if mirrored and row == column else first
        if mirrored and row != column:
            found[column, row] = second
    return found
