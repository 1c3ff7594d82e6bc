"""All results of a run as one tidy frame, of which every table is a pivot."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from inference_marl.analysis.recorded import Recorded
from inference_marl.analysis.tables import cell, decimals, number
from inference_marl.statistics.intervals import Interval
from inference_marl.statistics.metrics import OF_AGENTS
from inference_marl.types import Metric

ESTIMATE = ["mean", "low", "high"]


def frame(recorded: Recorded) -> pd.DataFrame:
    """Everything that `summary.json` reports, a row per estimate, with full precision.

    Returns:
        Columns `learner`, one per factor of a design (`..._level` if another column has its name), `agent` (missing:
        the mean over agents), `reference` (of a paired difference: the learner it is from), `metric`, `step`, `mean`,
        `low`, `high` (95 %; missing where the replicates allow no interval; infinite: later than the last step),
        `replicates` and `published`.
    """
    rows = [row for part in ("results", "agents", "differences") for row in recorded.summary.get(part) or []]
    keys = ["learner", "agent", "reference", "metric", "step"]
    found = pd.DataFrame(rows).reindex(columns=[*keys, *ESTIMATE, "replicates"])
    found[ESTIMATE] = found[ESTIMATE].astype(np.float64)
    censored = found["metric"].map(lambda name: recorded.metric(name).censored).astype(bool)
    found.loc[censored & found["mean"].isna(), "mean"] = math.inf
    found.loc[censored & found["low"].notna() & found["high"].isna(), "high"] = math.inf
    found["published"] = [_published(recorded, row) for row in records(found)]
    factors = pd.DataFrame.from_dict(recorded.spec.get("levels") or {}, orient="index")
    for place, factor in enumerate(factors.columns, 1):
        name = f"{factor}_level" if factor in found else factor
        found.insert(place, name, found["learner"].map(factors[factor]))
    return found


def records(found: pd.DataFrame) -> Iterator[Any]:
    """The rows of a frame, with columns as attributes."""
    return iter(found.itertuples(index=False))


def _published(recorded: Recorded, row: Any) -> float:
    """The published number that belongs beside a row, or NaN.

    Beside agent 0 of a zero-sum game it is that of `return_0`, else of `return`, which cannot be a mean there. Beside a
    mean over agents that have no rows of their own, it may be the mean of what is published of single agents.
    """
    numbers: Mapping[str, float] = (recorded.summary.get("published") or {}).get(row.learner, {})
    metric, agent = row.metric, row.agent
    if not pd.isna(row.reference):
        return math.nan
    if not pd.isna(agent):
        of_all = numbers.get(metric, math.nan) if recorded.zero_sum and agent == 0 else math.nan
        return numbers.get(f"{metric}_{agent:g}", of_all)
    single = [number for name, number in numbers.items() if name.removeprefix(f"{metric}_").isdecimal()]
    apart = recorded.zero_sum or recorded.has_own_learners(row.learner)
    return numbers.get(metric, fmean(single) if single and not apart else math.nan)


def at_the_end(found: pd.DataFrame) -> pd.DataFrame:
    """The rows of the last step that are no differences."""
    last: pd.DataFrame = found[(found["step"] == found["step"].max()) & found["reference"].isna()]
    return last


def shown(recorded: Recorded, found: pd.DataFrame) -> pd.DataFrame:
    """Means over agents and, where these say too little, the agents one by one, with a column `name` of who it is.

    They do where each seat has a learner of its own; in zero-sum games the agents stand in the place of the mean.
    """
    own = found["learner"].map(recorded.has_own_learners)
    apart = found["metric"].isin(OF_AGENTS) & recorded.zero_sum
    having = set(found.loc[found["agent"].notna(), "metric"])
    mean = found["agent"].isna()
    kept = found[(mean & ~(apart & found["metric"].isin(having))) | (~mean & (own | apart))]
    names = [row.learner if pd.isna(row.agent) else f"{row.learner}, agent {row.agent:g}" for row in records(kept)]
    return kept.assign(name=names)


def interval(row: Any) -> Interval:
    """The estimate in a row of a frame."""
    return Interval(row.mean, row.low, row.high)


def cells(found: pd.DataFrame, metrics: Mapping[str, Metric], intervals: bool = True) -> list[str]:
    """Estimates as text, with published numbers in parentheses; without intervals if these are not wanted."""
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
    """A table of text: one estimate per cell, rows and columns in the order in which they come."""
    texts = found.assign(cell=cells(found, metrics, intervals))
    table: pd.DataFrame = texts.set_index([*index, columns])["cell"].unstack(sort=False)
    return table
