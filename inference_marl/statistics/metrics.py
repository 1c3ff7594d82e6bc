"""Recorded metrics: their names, values per replicate and step, and suitable intervals.

`metrics` is the dataset of `metrics.nc`, dims `learner, replicate, step` and mostly `agent`.
"""

from __future__ import annotations

import numpy.typing as npt
import xarray as xr

from inference_marl.statistics.beliefs import Numbers, as_array
from inference_marl.statistics.bounds import bounds_of, difference_bounds
from inference_marl.statistics.intervals import (
    ROUNDING,
    Band,
    Interval,
    difference_interval,
    mean_band,
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
RETURN = Metric(
    "return",
    "exact return of the joint policy",
    higher_is_better=True,
    meaning="Expected return of each agent under the joint policy, from the game's rules: discounted and normalised by "
    "1 - discount, or summed in games that terminate. A time limit is left out.",
)
OPTIMUM_PROBABILITY = Metric(
    "joint_optimum_probability",
    "joint probability of the optimum",
    bounds=PROBABILITY,
    dims=(),
    higher_is_better=True,
    meaning="Probability that the joint policy plays a joint action that is best for every agent at once.",
)
SUCCESS_RATE = Metric(
    "success_rate",
    "success rate",
    bounds=PROBABILITY,
    dims=(),
    estimate="rate",
    higher_is_better=True,
    meaning="Share of the replicates that succeed: whose reward reaches the game's threshold or, in games without one, "
    "whose joint policy has more than half of its probability on the optimum. Wilson's interval.",
)
NASH_CONV = Metric(
    "nash_conv",
    "NashConv",
    bounds=POSITIVE,
    dims=(),
    higher_is_better=False,
    meaning="What all agents together would gain by best responses to the others' policies; 0 in an equilibrium. In "
    "units of the game's reward, so it cannot be compared between games.",
)
OF_PLAY = (REWARD, RETURN, OPTIMUM_PROBABILITY, SUCCESS_RATE, NASH_CONV)
"""Metrics of any run, where the game has them."""

AVERAGED = ("reward", "return", "joint_optimum_probability", "success_rate", "nash_conv", "elbo", "elbo_gap")
"""Metrics of `metrics.nc` whose means over agents and replicates are reported at several steps."""

OF_AGENTS = ("reward", "return")
"""Metrics that are also reported for each agent."""

METRICS = (
    *("reward", "return", "joint_optimum_probability", "success_rate", "nash_conv", "tit_for_tat", "near_uniform"),
    *("elbo", "elbo_gap", "return_deviation", "steps_to_98", "steps_to_success", "opponent_model_lead"),
    *(f"{name}_{agent}" for name in OF_AGENTS for agent in range(2)),
)
"""Names allowed in `published`: metrics of `summarise`, and those of single agents of two-player games."""


def per_replicate(metrics: xr.Dataset, name: str, learner: str) -> Numbers | None:
    """One metric of one learner, averaged over the agents that have it, `replicates x steps`.

    `None` if the metric is missing, or NaN throughout for this learner.
    """
    if name not in metrics:
        return None
    values = metrics[name].sel(learner=learner)
    if values.isnull().all():
        return None
    if "agent" in values.dims:
        # An agent that lacks the metric is NaN throughout; a NaN among its records must propagate.
        values = values.sel(agent=~values.isnull().all(["replicate", "step"])).mean("agent", skipna=False)
    return as_array(values, "replicate", "step")


def is_zero_sum(metrics: xr.Dataset) -> bool:
    """Whether the agents' rewards sum to zero at every record and are not all zero."""
    reward = metrics["reward"]
    size = abs(reward).max()
    return bool(size > 0 and abs(reward.sum("agent")).max() <= ROUNDING * size)


def metric_band(name: str, values: npt.ArrayLike) -> Band:
    """95 % interval of a metric: Wilson's for `success_rate`, otherwise Student's, clipped to the metric's bounds.

    `values` are `replicates x steps`, `name` is as in `metrics.nc`.
    """
    return proportion_band(values) if name == "success_rate" else mean_band(values, bounds=bounds_of(name))


def metric_difference(
    name: str, first: npt.ArrayLike, second: npt.ArrayLike, paired: bool, discrete: bool = True
) -> Interval:
    """95 % interval of the second minus the first sample of a metric, or of another quantity.

    Args:
        name: as in `metrics.nc`, or as in `inference_marl.statistics.bounds`.
        first: one number per replicate.
        second: the same.
        paired: whether replicate `r` of both samples used the same random numbers.
        discrete: for belief quantities, whether the beliefs are probabilities.
    """
    if name == "success_rate":
        return proportion_difference(first, second, paired)
    return difference_interval(first, second, paired, bounds=difference_bounds(name, discrete))
