"""The rows of `summary.json`: a run's results as estimates with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr

from inference_marl.statistics.beliefs import Numbers
from inference_marl.statistics.intervals import Interval, deviation_interval, median_interval
from inference_marl.statistics.metrics import (
    OF_PLAY,
    OPTIMUM_PROBABILITY,
    RETURN,
    REWARD,
    SUCCESS_RATE,
    band,
    difference,
    estimate,
    in_dataset,
    measured,
    of_learner,
    per_replicate,
)
from inference_marl.statistics.time_to_threshold import (
    first_lasting_step,
    lasting_step_of_mean,
    learner_lead,
    relapses,
)
from inference_marl.types import POSITIVE, PROBABILITY, STEPS, Metric

RETURN_DEVIATION = Metric(
    "return_deviation",
    "standard deviation of an agent's return",
    bounds=POSITIVE,
    meaning="Standard deviation of the return over replicates, pooled over agents.",
)
RELAPSE_RATE = Metric(
    "relapse_rate",
    "relapse rate",
    bounds=PROBABILITY,
    estimate="rate",
    higher_is_better=False,
    meaning="Of the replicates whose exact return, averaged over agents, reaches the game's `success_reward` at two "
    "successive records, the share that later fall below it at two successive records. Wilson's interval.",
)
STEPS_TO_98 = Metric(
    "steps_to_98",
    "steps until P(optimum) stays at 0.98 or above",
    STEPS,
    higher_is_better=False,
    censored=True,
    meaning="First record from which P(optimum), averaged over replicates, stays at 0.98 or above to the end; "
    "bootstrap interval.",
)
STEPS_TO_SUCCESS = Metric(
    "steps_to_success",
    "steps to success",
    STEPS,
    estimate="median",
    higher_is_better=False,
    censored=True,
    meaning="First record from which a replicate succeeds at every record to the end; median over replicates with a "
    "distribution-free interval.",
)
OPPONENT_MODEL_LEAD = Metric(
    "opponent_model_lead",
    "opponent model's lead, in steps",
    STEPS,
    meaning="Number of steps by which the opponent model finds the optimum for good before the opponents' policies do; "
    "mean over the replicates in which both find it.",
)
DERIVED = {
    RETURN.name: (RETURN_DEVIATION, RELAPSE_RATE),
    OPTIMUM_PROBABILITY.name: (STEPS_TO_98,),
    SUCCESS_RATE.name: (STEPS_TO_SUCCESS,),
}
"""Metrics derived from a whole curve, by the metric of the curve."""

PUBLISHABLE = (*OF_PLAY, *(metric for each in DERIVED.values() for metric in each), OPPONENT_MODEL_LEAD)
"""Metrics that any run may report, and `published` may name."""

CHECKPOINTS = 12
"""Number of steps at which `summarise` reports, including the last."""

Row = dict[str, Any]


def declared(metrics: xr.Dataset) -> dict[str, Metric]:
    """The metrics that the results of a run may contain, in the order of its table."""
    found: dict[str, Metric] = {}
    for name, metric in in_dataset(metrics).items():
        found |= {name: metric} | {derived.name: derived for derived in DERIVED.get(name, ())}
    return found | {OPPONENT_MODEL_LEAD.name: OPPONENT_MODEL_LEAD}


def summarise(metrics: xr.Dataset, posterior: xr.Dataset | None = None) -> list[Row]:
    """The rows of a run's results table.

    Args:
        metrics: the dataset of `metrics.nc`.
        posterior: the dataset of `posterior.nc`, for the opponent model's lead.

    Returns:
        Rows `{"learner", "metric", "step", "mean", "low", "high", "replicates"}` with 95 % intervals, as JSON: numbers
        that are not finite are `None`. Metrics that a learner or its game lacks have no row.

        There are rows at up to `CHECKPOINTS` evenly spaced records, including the last, for every tabulated metric,
        averaged over agents, where it was `measured`. A mean is `None` if one of the replicates has failed. The last
        record also has the metrics `DERIVED` from whole curves and `opponent_model_lead`; their `replicates` are those
        not excluded, e.g. for `relapse_rate` those that had succeeded.
    """
    return [each for learner in metrics["learner"].to_numpy().tolist() for each in _of(metrics, posterior, learner)]


def _of(metrics: xr.Dataset, posterior: xr.Dataset | None, learner: str) -> Iterator[Row]:
    count, steps = metrics.sizes["step"], metrics["step"].to_numpy()
    records = sorted({-(-k * count // CHECKPOINTS) - 1 for k in range(1, CHECKPOINTS + 1)})
    for name, metric in in_dataset(metrics).items():
        values = per_replicate(metrics, name, learner)
        if values is None or not metric.tabulated:
            continue
        at = measured(values)
        there = [record for record in records if at[record]]
        for record, interval in zip(there, band(metric, values[:, there]).intervals(), strict=True):
            yield row(interval, len(values), learner=learner, metric=name, step=int(steps[record]))
        for derived in DERIVED.get(name, ()) if at[-1] else ():  # an arm that failed has no values at the end
            found = _derived(derived, metrics, values, learner)
            if found is not None:
                interval, replicates = found
                yield row(interval, replicates, learner=learner, metric=derived.name, step=int(steps[-1]))
    ahead = None if posterior is None else learner_lead(posterior, learner)
    if ahead is not None:
        known = len(ahead.steps) - ahead.excluded
        yield row(ahead.interval, known, learner=learner, metric=OPPONENT_MODEL_LEAD.name, step=int(steps[-1]))


def _derived(metric: Metric, metrics: xr.Dataset, values: Numbers, learner: str) -> tuple[Interval, int] | None:
    """The estimate of a `DERIVED` metric from curves `replicates x steps`, and its number of replicates.

    `None` if it is not defined.
    """
    steps = metrics["step"].to_numpy()
    if metric is RETURN_DEVIATION:
        return deviation_interval(_of_agents(metrics, RETURN.name, learner)), len(values)
    if metric is STEPS_TO_98:
        return lasting_step_of_mean(values, 0.98, steps), len(values)
    threshold, reward = metrics.attrs.get("success_reward"), per_replicate(metrics, REWARD.name, learner)
    if metric is RELAPSE_RATE:
        if threshold is None:
            return None
        fell = relapses(values >= threshold).astype(np.float64)
        if np.isnan(values).any():  # not known for failed replicates
            fell[:] = np.nan
        return (estimate(metric, fell), len(fell)) if len(fell) else None
    # Judged at each record by itself: the moving average of the success rate would add its window.
    held = values > 0.5 if threshold is None or reward is None else reward >= threshold
    return median_interval(first_lasting_step(held, steps)), len(values)


def summarise_agents(metrics: xr.Dataset) -> list[Row]:
    """The rows of single agents at the last record, which averages over agents hide.

    Rows are `{"learner", "agent", "metric", "step", "mean", "low", "high", "replicates"}`, for every tabulated metric
    with the dimension `agent`.
    """
    step = int(metrics["step"][-1])
    return [
        row(estimate(metric, values), len(values), learner=learner, agent=agent, metric=name, step=step)
        for learner in metrics["learner"].to_numpy().tolist()
        for name, metric in in_dataset(metrics).items()
        if metric.tabulated and "agent" in metrics[name].dims
        for agent, values in enumerate(_of_agents(metrics, name, learner).T)
        if not np.isnan(values).all()
    ]


def _of_agents(metrics: xr.Dataset, name: str, learner: str) -> Numbers:
    """Values at the last record, `replicates x agents`."""
    last = of_learner(metrics, name, learner).isel(step=-1).transpose("replicate", "agent")
    return last.to_numpy().astype(np.float64)


def paired_differences(metrics: xr.Dataset, reference: str, names: Sequence[str] = ()) -> list[Row]:
    """Differences between each learner and a reference at the last record, paired by replicate.

    Arms of a run start from the same random numbers, so replicates `r` of two arms are paired, and the intervals are
    those of pairs, narrower the more the pairs correlate: Newcombe's for the success rate, otherwise Student's for the
    mean difference, which is exact for normal differences. For few replicates, of which few pairs differ, it
    undercovers; if none differ, there is no interval.

    Args:
        metrics: the dataset of `metrics.nc`.
        reference: the learner that the others are compared with.
        names: metrics to compare; if empty, `reward` and `joint_optimum_probability` (or `success_rate` if the game has
            no optimum).

    Returns:
        Rows `{"learner", "reference", "metric", "step", "mean", "low", "high", "replicates"}` for every other learner
        that has the metric; none if the reference is missing.
    """
    learners, step = metrics["learner"].to_numpy().tolist(), int(metrics["step"][-1])
    known = in_dataset(metrics)
    second = OPTIMUM_PROBABILITY.name if OPTIMUM_PROBABILITY.name in known else SUCCESS_RATE.name
    rows = []
    for learner in learners if reference in learners else []:
        for name in names or (REWARD.name, second):
            mine, its = (per_replicate(metrics, name, each) for each in (learner, reference))
            if learner != reference and mine is not None and its is not None:
                interval = difference(known[name], its[:, -1], mine[:, -1], paired=True)
                rows.append(row(interval, len(mine), learner=learner, reference=reference, metric=name, step=step))
    return rows


def row(interval: Interval, replicates: int, **of: Any) -> Row:
    """An interval with its labels `of` and number of replicates, as JSON, which has no infinity or NaN."""
    ends = {key: number if math.isfinite(number) else None for key, number in asdict(interval).items()}
    return {**of, **ends, "replicates": replicates}
