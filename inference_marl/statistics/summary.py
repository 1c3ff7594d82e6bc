"""The rows of `summary.json`: a run's results as estimates with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import xarray as xr

from inference_marl.statistics.beliefs import Numbers, as_array
from inference_marl.statistics.bounds import PROBABILITY
from inference_marl.statistics.intervals import (
    Interval,
    deviation_interval,
    mean_band,
    mean_interval,
    median_interval,
)
from inference_marl.statistics.metrics import AVERAGED, OF_AGENTS, metric_band, metric_difference, per_replicate
from inference_marl.statistics.time_to_threshold import first_lasting_step, lasting_step_of_mean, learner_lead

CHECKPOINTS = 12
"""Number of steps at which `summarise` reports, including the last."""

Row = dict[str, Any]


def summarise(metrics: xr.Dataset, posterior: xr.Dataset | None = None) -> list[Row]:
    """The rows of a run's results table.

    Args:
        metrics: as in `metrics.nc`.
        posterior: as in `posterior.nc`, for the opponent model's lead.

    Returns:
        Rows `{"learner", "metric", "step", "mean", "low", "high", "replicates"}` with 95 % intervals, as JSON: numbers
        that are not finite are `None`. Quantities that a learner or its game lacks have no row.

        At up to `CHECKPOINTS` evenly spaced records, including the last: `reward`, `return`, `elbo` and `elbo_gap`
        (means over agents), `joint_optimum_probability`, `success_rate` (Wilson), `nash_conv`, and the game's own
        scores, which are fractions.

        The last record also has `return_deviation`, the standard deviation over replicates of an agent's return;
        `steps_to_98`, the first record from which the mean of `joint_optimum_probability` is at least 0.98 to the end,
        else `None`; `steps_to_success`, the median over replicates of the first record from which success, judged at
        each record separately, lasts to the end, `None` if censored; `opponent_model_lead` in steps, with `replicates`
        counting those that are not excluded.
    """
    return [
        each
        for learner in metrics["learner"].to_numpy().tolist()
        for each in (*_over_time(metrics, learner), *_at_the_end(metrics, posterior, learner))
    ]


def _over_time(metrics: xr.Dataset, learner: str) -> Iterator[Row]:
    count, steps = metrics.sizes["step"], metrics["step"].to_numpy().tolist()
    records = sorted({-(-k * count // CHECKPOINTS) - 1 for k in range(1, CHECKPOINTS + 1)})
    scores = [str(name) for name, found in metrics.items() if name not in AVERAGED and "agent" not in found.dims]
    for name in (*AVERAGED, *scores):
        values = per_replicate(metrics, name, learner)
        if values is not None:
            here = values[:, records]
            band = mean_band(here, bounds=PROBABILITY) if name in scores else metric_band(name, here)
            for record, interval in zip(records, band.intervals(), strict=True):
                yield row(interval, len(values), learner=learner, metric=name, step=steps[record])


def _at_the_end(metrics: xr.Dataset, posterior: xr.Dataset | None, learner: str) -> Iterator[Row]:
    steps = metrics["step"].to_numpy()

    def last(metric: str, interval: Interval, replicates: int) -> Row:
        return row(interval, replicates, learner=learner, metric=metric, step=int(steps[-1]))

    if per_replicate(metrics, "return", learner) is not None:
        returns = _of_agents(metrics, "return", learner)
        yield last("return_deviation", deviation_interval(returns), len(returns))
    optimum = per_replicate(metrics, "joint_optimum_probability", learner)
    if optimum is not None:
        yield last("steps_to_98", lasting_step_of_mean(optimum, 0.98, steps), len(optimum))
    success, reward = (per_replicate(metrics, name, learner) for name in ("success_rate", "reward"))
    if success is not None:
        threshold = metrics.attrs.get("success_reward")
        # Judged record by record: the moving average of the success rate would add its window.
        held = success > 0.5 if threshold is None or reward is None else reward >= threshold
        yield last("steps_to_success", median_interval(first_lasting_step(held, steps)), len(success))
    ahead = None if posterior is None else learner_lead(posterior, learner)
    if ahead is not None:
        yield last("opponent_model_lead", ahead.interval, len(ahead.steps) - ahead.excluded)


def summarise_agents(metrics: xr.Dataset) -> list[Row]:
    """Each agent's own numbers at the last record, which averages over agents hide.

    Rows `{"learner", "agent", "metric", "step", "mean", "low", "high", "replicates"}` of `reward` and, where defined,
    `return`, with Student's 95 % intervals.
    """
    step = int(metrics["step"][-1])
    return [
        row(mean_interval(values), len(values), learner=learner, agent=agent, metric=name, step=step)
        for learner in metrics["learner"].to_numpy().tolist()
        for name in OF_AGENTS
        if per_replicate(metrics, name, learner) is not None
        for agent, values in enumerate(_of_agents(metrics, name, learner).T)
    ]


def _of_agents(metrics: xr.Dataset, name: str, learner: str) -> Numbers:
    """Values at the last record, `replicates x agents`."""
    return as_array(metrics[name].sel(learner=learner).isel(step=-1), "replicate", "agent")


def paired_differences(metrics: xr.Dataset, reference: str) -> list[Row]:
    """Improvement of each learner over a reference at the last record, replicate by replicate.

    Arms of a run start from the same random numbers, so replicate `r` of one is paired with replicate `r` of the other
    and intervals are those of pairs, narrower the more the pairs correlate: Newcombe's for the success rate, else
    Student's for the mean difference, which is exact for normal differences. For few replicates, of which few pairs
    differ, it undercovers; if none differ, there is no interval.

    Args:
        metrics: as in `metrics.nc`.
        reference: the learner that the others are compared with.

    Returns:
        Rows `{"learner", "reference", "metric", "step", "mean", "low", "high", "replicates"}` for every other learner,
        of `reward` and of `joint_optimum_probability` (where the game has none, `success_rate`); none if the reference
        is missing.
    """
    learners, step = metrics["learner"].to_numpy().tolist(), int(metrics["step"][-1])
    second = "joint_optimum_probability" if "joint_optimum_probability" in metrics else "success_rate"
    rows = []
    for learner in learners if reference in learners else []:
        for name in ("reward", second):
            mine, its = (per_replicate(metrics, name, each) for each in (learner, reference))
            if learner != reference and mine is not None and its is not None:
                interval = metric_difference(name, its[:, -1], mine[:, -1], paired=True)
                rows.append(row(interval, len(mine), learner=learner, reference=reference, metric=name, step=step))
    return rows


def row(interval: Interval, replicates: int, **of: Any) -> Row:
    """An interval with its labels `of` and number of replicates, as JSON, which has no infinity or NaN."""
    ends = {key: number if math.isfinite(number) else None for key, number in asdict(interval).items()}
    return {**of, **ends, "replicates": replicates}
