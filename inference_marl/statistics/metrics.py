"""The metrics of play that every run records, and intervals for any metric.

`metrics` is the dataset of `metrics.nc`, dims `learner, replicate, step` and mostly `agent`; the attributes of each
variable are its declaration.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import xarray as xr

from inference_marl.statistics.beliefs import Numbers
from inference_marl.statistics.intervals import (
    ROUNDING,
    Band,
    Interval,
    difference_interval,
    iqm_interval,
    mean_band,
    median_interval,
    proportion_band,
    proportion_difference,
)
from inference_marl.types import POSITIVE, PROBABILITY, Metric

REWARD = Metric(
    "reward",
    "reward per step",
    higher_is_better=True,
    meaning="Mean reward per environment step since the last record, of each agent.",
)
EVALUATION_REWARD = Metric(
    "evaluation_reward",
    "reward per step, evaluated",
    over="last",
    higher_is_better=True,
    meaning="Mean reward per step of each agent in the newest evaluation, played in fresh environments.",
)
EVALUATION_RETURN = Metric(
    "evaluation_return",
    "return per episode, evaluated",
    over="last",
    higher_is_better=True,
    meaning="Undiscounted return of each agent in the first episode of the newest evaluation; mean over environments.",
)
EVALUATION_SUCCESS = Metric(
    "evaluation_success",
    "success rate, evaluated",
    bounds=PROBABILITY,
    dims=(),
    over="last",
    estimate="rate",
    higher_is_better=True,
    meaning="Share of replicates whose reward per step in the newest evaluation, averaged over agents, is at least the "
    "evaluation's `success_reward`.",
)
PREFIX = "evaluation_"
"""Prefix of the names of metrics of evaluations."""
RETURN = Metric(
    "return",
    "exact return, no time limit",
    higher_is_better=True,
    meaning="Expected return of each agent under the joint policy, computed from the game's rules: discounted and "
    "multiplied by 1 - discount, or summed in games that terminate. A time limit is ignored.",
)
OPTIMUM_PROBABILITY = Metric(
    "joint_optimum_probability",
    "P(optimum)",
    bounds=PROBABILITY,
    dims=(),
    higher_is_better=True,
    meaning="Probability that the joint policy plays a joint action that is best for all agents.",
)
SUCCESS_RATE = Metric(
    "success_rate",
    "success rate",
    bounds=PROBABILITY,
    dims=(),
    estimate="rate",
    higher_is_better=True,
    meaning="Share of replicates that succeed: their reward reaches the game's `success_reward` or, in games without "
    "one, their joint policy plays an optimum with probability above 1/2. Wilson's interval.",
)
NASH_CONV = Metric(
    "nash_conv",
    "NashConv",
    bounds=POSITIVE,
    dims=(),
    higher_is_better=False,
    meaning="Sum over agents of the gain from a best response to the others' policies; 0 in an equilibrium. It is in "
    "units of the game's reward, so it cannot be compared between games.",
)
OF_PLAY = (
    *(REWARD, EVALUATION_REWARD, EVALUATION_RETURN, EVALUATION_SUCCESS),
    *(RETURN, OPTIMUM_PROBABILITY, SUCCESS_RATE, NASH_CONV),
)
"""The metrics of any run, if they are defined for the game."""


OF_AGENTS = ("reward", "return")
"""Metrics whose means over agents are meaningless in zero-sum games; those of one agent are `reward_0` and so on."""


def evaluated(metric: Metric) -> Metric:
    """The metric as measured in evaluations."""
    meaning = f"In the newest evaluation. {metric.meaning}" if metric.meaning else ""
    label = f"{metric.label}, evaluated"
    return replace(metric, name=PREFIX + metric.name, label=label, over="last", meaning=meaning)


def in_dataset(metrics: xr.Dataset) -> dict[str, Metric]:
    """The declarations of a dataset's variables, by name; the metrics of play come first."""
    found = {str(name): Metric.from_attributes(values.attrs) for name, values in metrics.items()}
    return {metric.name: metric for metric in OF_PLAY if metric.name in found} | found


def per_replicate(metrics: xr.Dataset, name: str, learner: str) -> Numbers | None:
    """One metric of one learner, averaged over the agents that have it, `replicates x steps`.

    `None` if the metric is missing, or NaN throughout for this learner.
    """
    if name not in metrics:
        return None
    values = of_learner(metrics, name, learner).transpose("replicate", "step", ...).to_numpy()
    missing = np.isnan(values)
    if missing.all():
        return None
    if values.ndim == 3:
        # An agent that lacks the metric is NaN throughout; a NaN among its records must propagate.
        values = values[..., ~missing.all((0, 1))].mean(-1)
    return values.astype(np.float64)


def of_learner(metrics: xr.Dataset, name: str, learner: str) -> xr.Variable:
    """One metric of one learner, without coordinates, whose lookup would take longer than the computation."""
    learners = metrics.variables["learner"].to_numpy().tolist()
    return metrics.variables[name].isel(learner=learners.index(learner))


def measured(values: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """The records at which a metric was measured, bool `steps`, from values `replicates x steps`.

    It was not measured at records where all replicates are NaN but one has a value later: evaluations may be rarer than
    records, and learners may wait before they learn. Failed replicates stay NaN, so that counts as measured.
    """
    known = np.any(~np.isnan(np.asarray(values, dtype=np.float64)), axis=0)
    before_the_last = np.logical_or.accumulate(known[::-1])[::-1]
    found: npt.NDArray[np.bool_] = known | ~before_the_last
    return found


def is_zero_sum(metrics: xr.Dataset) -> bool:
    """Whether the agents' rewards sum to zero at every record and are not all zero."""
    reward = metrics["reward"]
    size = abs(reward).max()
    return bool(size > 0 and abs(reward.sum("agent")).max() <= ROUNDING * size)


def estimate(metric: Metric, values: npt.ArrayLike | Interval) -> Interval:
    """The estimate of one number per replicate, by the metric's `estimate`, with a 95 % interval.

    An `Interval` is returned unchanged.
    """
    return values if isinstance(values, Interval) else band(metric, np.reshape(values, (-1, 1))).intervals()[0]


def band(metric: Metric, values: npt.ArrayLike) -> Band:
    """`estimate` at each record, for values `replicates x steps`.

    A NaN among the replicates makes it NaN: a diverged seed is never dropped silently. A rate of numbers that are not
    all 0 or 1, such as means over agents, is treated as a mean.
    """
    data = np.asarray(values, dtype=np.float64)
    if metric.estimate == "rate" and np.isin(data[~np.isnan(data)], (0, 1)).all():
        return proportion_band(data)
    if metric.estimate in ("mean", "rate"):
        return mean_band(data, bounds=metric.bounds)
    interval = median_interval if metric.estimate == "median" else iqm_interval
    found = [Interval(np.nan, np.nan, np.nan) if np.isnan(column).any() else interval(column) for column in data.T]
    return Band(*np.array([[each.mean, each.low, each.high] for each in found]).T)


def difference(metric: Metric, first: npt.ArrayLike, second: npt.ArrayLike, paired: bool) -> Interval:
    """95 % interval of the second minus the first sample: Newcombe's for rates of 0 and 1, else Student's or Welch's.

    Args:
        metric: the metric of the numbers.
        first: one number per replicate.
        second: likewise.
        paired: whether replicate `r` of both samples used the same random numbers.
    """
    if metric.estimate == "rate" and np.isin(np.concatenate([np.ravel(first), np.ravel(second)]), (0, 1)).all():
        return proportion_difference(first, second, paired)
    return difference_interval(first, second, paired, bounds=metric.difference_bounds)
