"""Reports of tournaments: tables and heat maps of learners by opponents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from inference_marl.analysis.estimates import pivot
from inference_marl.analysis.recorded import ESTIMATE, Recorded
from inference_marl.analysis.report.tables import PUBLISHED, Report
from inference_marl.analysis.tables import NO_INTERVAL, Section, failures
from inference_marl.experiment import learners
from inference_marl.statistics.beliefs import Numbers, as_array
from inference_marl.statistics.intervals import mean_interval
from inference_marl.statistics.metrics import RETURN, REWARD, SUCCESS_RATE, estimate
from inference_marl.statistics.summary import RELAPSE_RATE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AVERAGE = "all opponents"
"""The name of the column of averages, which no arm can have."""

SHOWN = {
    REWARD: "{} of the row's learner",
    RETURN: "exact return of the row's learner",
    SUCCESS_RATE: "{} of the pair",
    RELAPSE_RATE: "{} of the pair",
}
"""Metrics that are tabulated if they are known, and the titles of their tables."""

Pair = tuple[str, str]
"""The names of the row's and of the column's learner."""


def tournament_report(recorded: Recorded) -> Report:
    """Report learners by opponents at the last record, sorted by average reward."""
    found = pairs(recorded)

    def draw() -> Mapping[str, Figure]:
        from inference_marl.analysis.plots.heat_map import heat_map

        figures = {}
        for name, rows in found.groupby("metric", sort=False):
            order, columns = _order(recorded, found, str(name))
            means = rows.pivot(index="learner", columns="opponent", values="mean").reindex(order, columns=columns)
            ends = float(np.nanmin(means)), float(np.nanmax(means))
            limits = SUCCESS_RATE.bounds if name in (SUCCESS_RATE.name, RELAPSE_RATE.name) else ends
            title = "tournament" if name == REWARD.name else f"tournament_{name}"
            apart = int(columns[0] == AVERAGE)
            figures[title] = heat_map(means, _title(str(name)), recorded.title, limits, _failed(recorded), apart)
        return figures

    return Report(recorded.folder, "tournament", sections(recorded, found), found, draw)


def sections(recorded: Recorded, found: pd.DataFrame) -> list[Section]:
    """A description, a table for each metric, and failures."""
    steps = recorded.metrics["step"].to_numpy()
    since = int(steps[-1]) - (int(steps[-2]) if len(steps) > 1 else 0)
    over = f"over the last {since} steps" if since > 1 else "at the last step"
    head = Section(
        recorded.title,
        f"Rows are learners, columns their opponents, sorted by the reward {over} averaged over all opponents, the "
        "learner itself included. Intervals are 95 % over replicates, of averages over the replicates' own averages. "
        + NO_INTERVAL
        + PUBLISHED * bool(recorded.summary.get("published")),
    )
    names = found["metric"].unique()
    tables = [Section(_title(name), table=table(recorded, found, name)) for name in names]
    return [head, *tables, *failures(recorded.failed)]


def table(recorded: Recorded, found: pd.DataFrame, metric: str, intervals: bool = True) -> pd.DataFrame:
    """A table of one metric by learner and opponent, as text."""
    rows = found[found["metric"] == metric]
    order, columns = _order(recorded, found, metric)
    texts = pivot(rows, ["learner"], "opponent", recorded.declared, intervals)
    texts = texts.reindex(order, columns=columns).astype(object)  # columns without values are not numeric
    for (row, column), _ in _failed(recorded).items():
        texts.loc[row, column] = "failed"
    return texts.fillna("-").rename_axis(columns=None)


def _order(recorded: Recorded, found: pd.DataFrame, metric: str) -> tuple[list[str], list[str]]:
    """Rows and columns sorted by average reward, with learners without averages last; averages are the first column."""
    reward = found[(found["metric"] == REWARD.name) & (found["opponent"] == AVERAGE)]
    averages = reward.set_index("learner")["mean"]
    rows = sorted(learners(recorded.levels), key=lambda name: averages.get(name, -np.inf), reverse=True)
    return rows, [AVERAGE, *rows] if metric != RELAPSE_RATE.name else rows


def _title(metric: str) -> str:
    return next(words.format(each.label) for each, words in SHOWN.items() if each.name == metric)


def pairs(recorded: Recorded) -> pd.DataFrame:
    """Estimates and intervals of all pairs, and of averages of learners that have results against all opponents.

    Columns are those of `Recorded.frame` and `opponent`.
    """
    names, rows = learners(recorded.levels), []
    for metric in SHOWN:
        if metric is RELAPSE_RATE:
            rows += _relapses(recorded)
            continue
        samples = _samples(recorded, metric.name)
        for (learner, opponent), values in samples.items():
            rows.append(_row(recorded, learner, opponent, metric.name, vars(estimate(metric, values)), len(values)))
        for learner in names if samples else []:
            own = [samples[learner, other] for other in names if (learner, other) in samples]
            if len(own) == len(names):  # averages over different opponents are not comparable
                average = vars(mean_interval(np.mean(own, axis=0), bounds=metric.bounds))
                rows.append(_row(recorded, learner, AVERAGE, metric.name, average, len(own[0])))
    columns = ["learner", "opponent", "metric", "step", *ESTIMATE, "replicates", "published"]
    return pd.DataFrame(rows, columns=columns)


def _row(
    recorded: Recorded, learner: str, opponent: str, metric: str, numbers: Mapping[str, float], replicates: int
) -> dict[str, Any]:
    published = (recorded.summary.get("published") or {}).get(learner, {}).get(metric, np.nan)
    who = {"learner": learner, "opponent": opponent, "metric": metric, "step": recorded.last_step}
    return {**who, **numbers, "replicates": replicates, "published": published if opponent == AVERAGE else np.nan}


def averages(recorded: Recorded) -> pd.DataFrame:
    """Each learner's averages over all opponents, as rows like those of other runs."""
    found = pairs(recorded)
    return found[found["opponent"] == AVERAGE].drop(columns="opponent")


def missing_averages(recorded: Recorded) -> dict[str, str]:
    """The reasons why learners have no averages: the failure of their first failed pair."""
    found: dict[str, str] = {}
    for (row, _), why in _failed(recorded).items():
        found.setdefault(row, why)
    return found


def _failed(recorded: Recorded) -> dict[Pair, str]:
    """The reasons of failed pairs."""
    found = {}
    for arm, why in recorded.failed.items():
        row, column = recorded.levels[arm]["row"], recorded.levels[arm]["column"]
        found[row, column] = why
        if _is_mirrored(recorded):
            found[column, row] = why
    return found


def _is_mirrored(recorded: Recorded) -> bool:
    """Whether one seating of each pair represents both."""
    return len(recorded.levels) < len(learners(recorded.levels)) ** 2


def _relapses(recorded: Recorded) -> list[dict[str, Any]]:
    """Relapse rates of pairs from the summary; they are of successful replicates only, so there are no averages."""
    found, rows = recorded.frame(), []
    found = found[(found["metric"] == RELAPSE_RATE.name) & (found["step"] == recorded.last_step)]
    for arm, *numbers, replicates in found[["learner", *ESTIMATE, "replicates"]].itertuples(index=False):
        pair = recorded.levels[arm]["row"], recorded.levels[arm]["column"]
        seatings = {pair, pair[::-1]} if _is_mirrored(recorded) else {pair}
        of_pair = dict(zip(ESTIMATE, numbers, strict=True))
        rows += [_row(recorded, *each, RELAPSE_RATE.name, of_pair, replicates) for each in sorted(seatings)]
    return rows


def _samples(recorded: Recorded, name: str) -> dict[Pair, Numbers]:
    """A metric of the row's learner at the last record, `replicates`, by pair.

    If one seating represents both, a learner against itself has the mean of both seats.
    """
    metrics, found = recorded.metrics, {}
    mirrored, known = _is_mirrored(recorded), set(recorded.learners if name in metrics else [])
    for arm, at in recorded.levels.items():
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
