"""The rows of `summary.json`: what a run found, in numbers with intervals."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr

from inference_marl.statistics.beliefs import Numbers, per_replicate
from inference_marl.statistics.bounds import PROBABILITY
from inference_marl.statistics.intervals import (
    Interval,
    deviation_interval,
    first_lasting_step,
    lasting_step_of_mean,
    learner_lead,
    mean_band,
    mean_interval,
    median_interval,
    metric_band,
    metric_difference,
)

AVERAGED = ("reward", "return", "joint_optimum_probability", "success", "nash_conv", "elbo", "elbo_gap")
"""Metrics of `metrics.nc` whose means over agents and replicates are reported at several steps."""

OF_AGENTS = ("reward", "return")
"""Metrics that are reported of every agent by itself as well."""

METRICS = (
    *("reward", "return", "joint_optimum_probability", "success_rate", "nash_conv", "tit_for_tat", "near_uniform"),
    *("elbo", "elbo_gap", "return_deviation", "steps_to_98", "steps_to_success", "opponent_model_lead"),
    *(f"{name}_{agent}" for name in OF_AGENTS for agent in range(2)),
)
"""What `published` may name: what `summarise` reports, as far as a learner and its game have it, and what the agents of
two-player games have by themselves."""

CHECKPOINTS = 12
"""At how many steps `summarise` reports, the last one included."""


def summarise(metrics: xr.Dataset, posterior: xr.Dataset | None = None) -> list[dict[str, Any]]:
    """The rows of a run's results table.

    Args:
        metrics: as in `metrics.nc`.
        posterior: as in `posterior.nc`, for the opponent model's lead.

    Returns:
        Rows `{"learner", "metric", "step", "mean", "low", "high", "replicates"}` with 95 % intervals, ready for JSON:
        what is not a finite number is `None`. What a learner or its game does not have gets no row.

        At up to `CHECKPOINTS` evenly spaced records, the last one included: `reward`, `return`, `elbo` and `elbo_gap`
        (means over agents), `joint_optimum_probability`, `success_rate` (Wilson), `nash_conv`, and the game's own
        scores, which are shares.

        At the last record: `return_deviation`, the standard deviation over replicates of an agent's return;
        `steps_to_98`, the first record from which the mean of `joint_optimum_probability` is at least 0.98 to the end,
        `None` where it is not; `steps_to_success`, the median over replicates of the first record from which success,
        judged at each record by itself, lasts to the end, `None` where censored; `opponent_model_lead` in steps, with
        `replicates` counting those that are not excluded.
    """
    count, steps = metrics.sizes["step"], metrics["step"].to_numpy()
    shown = sorted({-(-k * count // CHECKPOINTS) - 1 for k in range(1, CHECKPOINTS + 1)})
    rows: list[dict[str, Any]] = []

    def add(metric: str, record: int, interval: Interval, replicates: int) -> None:
        where = {"learner": learner, "metric": metric, "step": int(steps[record])}
        rows.append({**where, **_valid(interval), "replicates": replicates})

    for learner in metrics["learner"].to_numpy().tolist():
        found = {name: per_replicate(metrics, name, learner) for name in (*AVERAGED, *_scores(metrics))}
        for name, values in found.items():
            if values is None:
                continue
            here = values[:, shown]
            band = metric_band(name, here) if name in AVERAGED else mean_band(here, bounds=PROBABILITY)
            for record, interval in zip(shown, band.intervals(), strict=True):
                add("success_rate" if name == "success" else name, record, interval, len(values))
        if found["return"] is not None:
            returns = _of_agents(metrics, "return", learner)
            add("return_deviation", -1, deviation_interval(returns), len(returns))
        optimum = found["joint_optimum_probability"]
        if optimum is not None:
            add("steps_to_98", -1, lasting_step_of_mean(optimum, 0.98, steps), len(optimum))
        success, reward = found["success"], found["reward"]
        if success is not None:
            threshold = metrics.attrs.get("success_reward")
            # Judged record by record: the window that steadies the success rate would only add its own length.
            lasting = success > 0.5 if threshold is None or reward is None else reward >= threshold
            add("steps_to_success", -1, median_interval(first_lasting_step(lasting, steps)), len(success))
        ahead = None if posterior is None else learner_lead(posterior, learner)
        if ahead is not None:
            add("opponent_model_lead", -1, ahead.interval, len(ahead.steps) - ahead.excluded)
    return rows


def summarise_agents(metrics: xr.Dataset) -> list[dict[str, Any]]:
    """What every agent has by itself at the last record, which averages over agents hide.

    Args:
        metrics: as in `metrics.nc`.

    Returns:
        Rows `{"learner", "agent", "metric", "step", "mean", "low", "high", "replicates"}` of `reward` and, where it is
        defined, `return`, with Student's 95 % intervals.
    """
    rows: list[dict[str, Any]] = []
    for learner in metrics["learner"].to_numpy().tolist():
        for name in OF_AGENTS:
            if per_replicate(metrics, name, learner) is None:
                continue
            for agent, values in enumerate(_of_agents(metrics, name, learner).T):
                where = {"learner": learner, "agent": agent, "metric": name, "step": int(metrics["step"][-1])}
                rows.append({**where, **_valid(mean_interval(values)), "replicates": len(values)})
    return rows


def _scores(metrics: xr.Dataset) -> list[str]:
    """The game's own shares: what else a replicate has one number of."""
    return [str(name) for name, values in metrics.items() if name not in AVERAGED and "agent" not in values.dims]


def _of_agents(metrics: xr.Dataset, name: str, learner: str) -> Numbers:
    """At the last record, `replicates x agents`."""
    values = metrics[name].sel(learner=learner).isel(step=-1).transpose("replicate", "agent")
    array: Numbers = values.to_numpy().astype(np.float64)
    return array


def paired_differences(metrics: xr.Dataset, reference: str) -> list[dict[str, Any]]:
    """How much each learner is above one of them at the last record, replicate by replicate.

    Arms of a run start from the same random numbers, so replicate `r` of one is paired with replicate `r` of the other:
    intervals are those of pairs, the narrower the more the pairs are alike: Newcombe's for the success rate, else
    Student's for the mean of the differences, which is exact for normal differences only, alike pairs or not. Of few
    replicates that differ in a few pairs only it claims too much; if they differ in none it claims nothing.

    Args:
        metrics: as in `metrics.nc`.
        reference: the learner that the others are compared with.

    Returns:
        Rows `{"learner", "reference", "metric", "step", "mean", "low", "high", "replicates"}` for every other learner,
        of `reward` and of `joint_optimum_probability` (where the game has none, `success_rate`); none at all if the
        reference is missing.
    """
    learners = metrics["learner"].to_numpy().tolist()
    names = {"reward": "reward", "joint_optimum_probability": "joint_optimum_probability"}
    if "joint_optimum_probability" not in metrics:
        names = {"reward": "reward", "success": "success_rate"}
    rows: list[dict[str, Any]] = []
    for learner in learners if reference in learners else []:
        for name, metric in names.items():
            mine, its = (per_replicate(metrics, name, each) for each in (learner, reference))
            if learner != reference and mine is not None and its is not None:
                found = _valid(metric_difference(name, its[:, -1], mine[:, -1], paired=True))
                where = {"learner": learner, "reference": reference, "metric": metric}
                rows.append({**where, "step": int(metrics["step"][-1]), **found, "replicates": len(mine)})
    return rows


def _valid(interval: Interval) -> dict[str, float | None]:
    """For JSON, which has no infinity."""
    return {key: number if math.isfinite(number) else None for key, number in asdict(interval).items()}
