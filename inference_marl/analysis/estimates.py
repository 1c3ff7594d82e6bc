"""Selections of a run's tidy frame (`Recorded.frame`) and pivot tables of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from inference_marl.analysis.recorded import Recorded
from inference_marl.analysis.tables import cell, decimals, number
from inference_marl.statistics.intervals import Interval
from inference_marl.statistics.metrics import OF_AGENTS, of_learner
from inference_marl.types import Metric


def records(found: pd.DataFrame) -> Iterator[Any]:
    """Iterate over the rows of a frame, with columns as attributes."""
    return iter(found.itertuples(index=False))


def at_the_end(found: pd.DataFrame) -> pd.DataFrame:
    """The rows of the last step that are not differences."""
    last: pd.DataFrame = found[(found["step"] == found["step"].max()) & found["reference"].isna()]
    return last


def shown(recorded: Recorded, found: pd.DataFrame) -> pd.DataFrame:
    """Means over agents and, where needed, single agents, with a column `name` for the row.

    Single agents are shown if each seat has its own learner, unless all agents have the same values and nothing is
    published of them; in zero-sum games they replace the mean.
    """
    told = {(row.learner, row.metric) for row in records(found) if not (pd.isna(row.agent) or pd.isna(row.published))}
    pairs = zip(found["learner"], found["metric"], strict=True)
    repeated = [pair not in told and _alike(recorded, *pair) for pair in pairs]
    own = found["learner"].map(recorded.has_own_learners) & ~pd.Series(repeated, found.index, dtype=bool)
    apart = found["metric"].isin(OF_AGENTS) & recorded.zero_sum
    having = set(found.loc[found["agent"].notna(), "metric"])
    mean = found["agent"].isna()
    kept = found[(mean & ~(apart & found["metric"].isin(having))) | (~mean & (own | apart))]
    names = [row.learner if pd.isna(row.agent) else f"{row.learner}, agent {row.agent:g}" for row in records(kept)]
    return kept.assign(name=names)


def _alike(recorded: Recorded, learner: str, metric: str) -> bool:
    """Whether all agents have the same value of a metric in every replicate at the last record."""
    values = recorded.metrics.get(metric)
    if values is None or "agent" not in values.dims:
        return False
    last = of_learner(recorded.metrics, metric, learner).isel(step=-1).transpose("agent", ...).to_numpy()
    return bool((last == last[0]).all())


def interval(row: Any) -> Interval:
    """The estimate in a row of a frame."""
    return Interval(row.mean, row.low, row.high)


def cells(found: pd.DataFrame, metrics: Mapping[str, Metric], intervals: bool = True) -> list[str]:
    """Format estimates, with published numbers in parentheses, and with or without intervals."""
    texts = []
    for row in records(found):
        metric, last = metrics[row.metric], int(row.step)
        digits = decimals(metric)
        text = cell(metric, interval(row), last) if intervals else number(row.mean, digits, last)
        texts.append(text if pd.isna(row.published) else f"{text} ({number(row.published, digits)})")
    return texts


def pivot(
    found: pd.DataFrame,
    index: Sequence[str],
    columns: str,
    metrics: Mapping[str, Metric],
    intervals: bool = True,
) -> pd.DataFrame:
    """A table of formatted estimates, with rows and columns in their order of appearance."""
    texts = found.assign(cell=cells(found, metrics, intervals))
    table: pd.DataFrame = texts.set_index([*index, columns])["cell"].unstack(sort=False)
    return table
