"""Figure of adaptation: returns by the number of earlier episodes with the same opponents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from inference_marl.analysis.plots import drawing
from inference_marl.described import InspectError
from inference_marl.statistics.adaptation import RETURN, at_the_end, by_evaluation
from inference_marl.statistics.beliefs import Numbers
from inference_marl.statistics.metrics import band, in_dataset
from inference_marl.types import Metric

COLUMNS = 3
"""Maximum number of panels side by side."""

APART = 0.3
"""Fraction of the smallest distance between numbers of episodes over which the arms' marks are spread."""

MOST_TICKS = 8
"""Maximum number of tick labels for numbers of episodes."""


@drawing.styled
def adaptation(metrics: xr.Dataset) -> Figure:
    """Returns by the number of earlier episodes with the same opponents, for all arms, in a panel per evaluation.

    Means over replicates at the last record with 95 % intervals (Student's). Adjacent marks of arms belong to the same
    number of episodes. Panels have their own ranges, since some opponents are harder.

    Args:
        metrics: the dataset of `metrics.nc`.

    Raises:
        InspectError: if no returns of a `TrialEvaluation` were recorded.
    """
    found = by_evaluation(metrics, RETURN)
    if not found:
        raise InspectError("metrics: got no return_after_... at the last record, expected those of a TrialEvaluation")
    learners = metrics["learner"].to_numpy().tolist()
    columns = drawing.columns_of(len(found), COLUMNS)
    shared = {"sharex": False, "sharey": False}
    figure, (axes,) = drawing.panels(1, len(found), (3.9, 3.1), columns, **shared)
    for axis, names in zip(axes, found.values(), strict=True):
        _arms(axis, metrics, names, learners)
        label_episodes(axis, list(names))
    for axis in axes[::columns]:
        axis.set_ylabel("return of the episode")
    if any(found):
        drawing.titles(axes, list(found))
    what = f"after {int(metrics['step'][-1]):,} steps of training, mean and 95 % interval"
    return drawing.finish(figure, what, *axes, of=metrics)


def _arms(axis: Axes, metrics: xr.Dataset, names: dict[int, str], learners: list[str]) -> None:
    """Draw the returns of every arm by number of episodes."""
    metric = in_dataset(metrics)[next(iter(names.values()))]
    won = {learner: at_the_end(metrics, names.values(), learner) for learner in learners}
    mark_arms(axis, list(names), won, metric)


def mark_arms(axis: Axes, numbers: Sequence[int], arms: Mapping[str, Numbers | None], metric: Metric) -> None:
    """Draw means and intervals of a metric by number of episodes; an arm without values is in the legend only.

    Args:
        axis: the panel.
        numbers: numbers of episodes.
        arms: values of each arm, `replicates x numbers`.
        metric: declaration of the metric.
    """
    at = np.array(numbers, dtype=np.float64)
    gap = np.diff(at).min(initial=np.inf)
    spread = APART * (gap if np.isfinite(gap) else 1.0)
    places = np.linspace(-0.5, 0.5, len(arms)) * spread if len(arms) > 1 else np.zeros(1)
    for place, (arm, look) in zip(places, drawing.looks(arms).items(), strict=True):
        values = arms[arm]
        if values is None:
            axis.plot([], [], **look)
            continue
        shown = band(metric, values)
        axis.plot(at + place, shown.mean, marker="o", markersize=3.5, **look)
        low, high = (np.where(np.isfinite(end), end, shown.mean) for end in (shown.low, shown.high))
        axis.vlines(at + place, low, high, color=look["color"], alpha=0.5, linewidth=1.2, zorder=1.9)


def label_episodes(axis: Axes, numbers: Sequence[int]) -> None:
    """Label the axis of numbers of episodes with integers."""
    if len(numbers) <= MOST_TICKS:
        axis.set_xticks(numbers)
    else:
        axis.xaxis.set_major_locator(MaxNLocator(MOST_TICKS, integer=True))
    axis.set_xlabel("episodes with the same opponents before")
