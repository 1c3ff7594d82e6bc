"""Figures of learning, of a run's learners or an ablation's cells: rewards, success and the terms of the ELBO."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from inference_marl.analysis.levels import groups
from inference_marl.analysis.plots import drawing
from inference_marl.analysis.plots.drawing import DASHES, PALETTE
from inference_marl.analysis.tables import number
from inference_marl.described import InspectError
from inference_marl.experiment import Levels
from inference_marl.learners.variational import ELBO_PARTS
from inference_marl.statistics.adaptation import of_trials
from inference_marl.statistics.beliefs import Numbers
from inference_marl.statistics.intervals import FloatArray, mean_band
from inference_marl.statistics.metrics import (
    EVALUATION_REWARD,
    EVALUATION_SUCCESS,
    OPTIMUM_PROBABILITY,
    RETURN,
    REWARD,
    SUCCESS_RATE,
    band,
    in_dataset,
    is_zero_sum,
    measured,
    per_replicate,
)
from inference_marl.statistics.summary import PUBLISHABLE
from inference_marl.types import PROBABILITY

CURVES = (
    REWARD.name,
    RETURN.name,
    EVALUATION_REWARD.name,
    EVALUATION_SUCCESS.name,
    OPTIMUM_PROBABILITY.name,
    SUCCESS_RATE.name,
)
"""Metrics that are drawn over time if they are known, before those that games and learners declare."""

COLUMNS = 4
"""Maximum number of panels of learning curves side by side."""

FEWEST, MOST = 20, 0.6
"""Minimum number, and maximum fraction, of records shown if the time axis ends after all curves have settled."""

ELBO: dict[str, dict[str, Any]] = {
    "elbo": {"label": "ELBO", "color": PALETTE[6], "linewidth": 2.0},
    "elbo_reward": {"label": "expected value $Q$", "color": PALETTE[2], "linestyle": DASHES[3]},
    "elbo_entropy": {"label": "+ weighted entropy (relative to uniform)", "color": PALETTE[1], "linestyle": DASHES[1]},
    "elbo_kl": {"label": r"$-$ weighted KL from the model", "color": PALETTE[0], "linestyle": DASHES[2]},
}
"""Style of the ELBO and of its terms, see `_elbo_part`."""

PARTS = {name: ELBO[name]["label"].removeprefix("+ ") for name in ("elbo_reward", "elbo_entropy", "elbo_kl")}
PARTS["elbo_reward"] += r" under $\rho$ and $\pi$"
"""Labels of bars of the terms."""

READABLE = 10.0
"""Bars more than this many times longer than a panel's shortest are cut off, so that the shortest is readable."""


@drawing.styled
def learning_curves(metrics: xr.Dataset) -> Figure:
    """Reward, joint probability of the optimum and success rate over time, for all learners (Fig. 1a, b).

    If it is known for all learners, the exact return replaces the noisy reward. Both are means over agents, or those of
    agent 0 in zero-sum games, where the means are 0. The band of the success rate is Wilson's interval. Curves join the
    records at which a metric was measured. Metrics by number of episodes that were measured only once are left to
    `adaptation`. The time axis ends some time after all curves have settled, and the figure says so.

    Args:
        metrics: the dataset of `metrics.nc`.
    """
    learners = metrics["learner"].to_numpy().tolist()
    zero_sum = is_zero_sum(metrics)
    shown = metrics.isel(agent=[0]) if zero_sum else metrics
    counts = {name: sum(per_replicate(shown, name, each) is not None for each in learners) for name in _drawn(metrics)}
    counts[REWARD.name if counts.get(RETURN.name) == len(learners) else RETURN.name] = 0
    names = [name for name, count in counts.items() if count]
    columns = drawing.columns_of(len(names), COLUMNS)
    figure, (axes,) = drawing.panels(1, len(names), (3.3, 2.7), columns, sharey=False)
    x, label = drawing.time_axis(metrics)
    curves = []
    for axis, name in zip(axes, names, strict=True):
        curves.append(_metric_curves(axis, shown, name, drawing.looks(learners)))
        metric = in_dataset(metrics)[name]
        of_agent = zero_sum and "agent" in metric.dims
        axis.set_ylabel(textwrap.fill(metric.label + (" (agent 0)" if of_agent else ""), 36))
        if metric.bounds == PROBABILITY:
            axis.set_ylim(drawing.PROBABILITY_AXIS)
    over = drawing.settled(curves)
    end = max(2 * over + 1, FEWEST)
    is_cut = over > 0 and end < MOST * len(x)
    drawing.label_time([axes, axes[-columns:]], x[:end] if is_cut else x, label)
    alone = len(learners) == 1
    drawing.titles(axes[:1], learners if alone else [""])
    cut = f"; settled by {x[over]:,g}, run to {x[-1]:,g}" if is_cut else ""
    return drawing.finish(figure, f"mean and 95 % interval{cut}", *() if alone else axes[:1], of=metrics)


def _drawn(metrics: xr.Dataset) -> list[str]:
    general = {metric.name for metric in (*PUBLISHABLE, *ELBO_PARTS)}
    own = [name for name, metric in in_dataset(metrics).items() if metric.tabulated and name not in general]
    own = [name for name in own if not (of_trials(name) and _once(metrics[name]))]  # see `adaptation`
    return [*(name for name in CURVES if name in metrics), *own]


def _once(values: xr.DataArray) -> bool:
    """Whether a metric was measured at one record at most."""
    return int(values.notnull().any([dim for dim in values.dims if dim != "step"]).sum()) <= 1


def _metric_curves(axis: Axes, metrics: xr.Dataset, name: str, looks: Mapping[str, Any]) -> list[FloatArray]:
    """Draw one metric of learners over time and return the means; learners without it are in the legend only."""
    x, means = drawing.time_axis(metrics)[0], []
    for learner, look in looks.items():
        values = per_replicate(metrics, name, learner)
        if values is None:
            axis.plot([], [], **look)
        else:
            found = band(in_dataset(metrics)[name], values)
            means.append(drawing.draw_band(axis, x, found, measured(values), **look))
    return means


@drawing.styled
def elbo_parts(metrics: xr.Dataset) -> Figure:
    """The ELBO and its terms over time, in a panel per learner that has one.

    The three terms add up to the ELBO, so both weights are included: the temperature in the entropy, and beta in the KL
    of rho from the prior and, for a planner with inferred dynamics, of these from the model's. The first term is the
    critic's expectation, so with a discount factor it includes future rewards. If an annealed temperature makes the
    first records very large, the axis is fitted to the others and the panel notes the range of the curves.

    Args:
        metrics: the dataset of `metrics.nc`.

    Raises:
        InspectError: if no learner has an ELBO.
    """
    every = metrics["learner"].to_numpy().tolist()
    learners = [learner for learner in every if _elbo_part(metrics, "elbo", learner) is not None]
    if not learners:
        raise InspectError("metrics: got no learner with an ELBO, expected at least one")
    columns = drawing.columns_of(len(learners), 3)
    figure, (axes,) = drawing.panels(1, len(learners), (3.6, 2.7), columns, sharey=False)
    x, label = drawing.time_axis(metrics)
    notes = []
    for axis, learner in zip(axes, learners, strict=True):
        parts = {name: values for name in ELBO if (values := _elbo_part(metrics, name, learner)) is not None}
        curves = [
            drawing.draw_band(axis, x, mean_band(values), measured(values), **ELBO[name])
            for name, values in parts.items()
        ]
        axis.axhline(0, color="#999999", linewidth=0.7, zorder=0.5)
        notes.append(drawing.readable_limits(axis, curves))
    drawing.titles(axes, learners, notes)
    for axis in axes[::columns]:
        axis.set_ylabel("in units of reward")
    drawing.label_time([axes, axes[-columns:]], x, label)
    return drawing.finish(figure, "mean over agents and replicates, 95 % interval", axes[0], of=metrics)


def _elbo_part(metrics: xr.Dataset, name: str, learner: str) -> Numbers | None:
    """The ELBO or the signed contribution of a term, `replicates x steps`; `None` if the learner lacks it."""
    values = per_replicate(metrics, name, learner)
    return -values if values is not None and name == "elbo_kl" else values


@drawing.styled
def ablation_curves(metrics: xr.Dataset, levels: Levels) -> Figure:
    """Reward and joint probability of the optimum (or success rate) over time, in panels of a few cells each.

    Args:
        metrics: the dataset of `metrics.nc`; cells that it lacks are omitted.
        levels: levels by arm and factor.
    """
    probability = OPTIMUM_PROBABILITY.name if OPTIMUM_PROBABILITY.name in metrics else SUCCESS_RATE.name
    shown = [name for name in (REWARD.name, probability) if name in metrics]
    grouped = groups(levels)
    columns = min(len(grouped), 4)
    figure, grid = drawing.panels(len(shown), len(grouped), (3.4, 2.2), columns, sharey=False)
    metrics = metrics.reindex(learner=list(levels))
    for name, axes in zip(shown, grid, strict=True):
        for axis, cells in zip(axes, grouped.values(), strict=True):
            looks = drawing.looks(cells.values()).values()
            _metric_curves(axis, metrics, name, dict(zip(cells, looks, strict=True)))
        for axis in axes[::columns]:
            axis.set_ylabel(in_dataset(metrics)[name].label)
        ends = drawing.PROBABILITY_AXIS if name == probability else [axis.get_ylim() for axis in axes]
        for i, axis in enumerate(axes):  # one range, with tick labels at the left only
            axis.set_ylim(np.min(ends), np.max(ends))
            axis.tick_params(labelleft=i % columns == 0)
    drawing.titles(grid[0], [textwrap.fill(panel, 44) for panel in grouped])
    drawing.label_time(grid, *drawing.time_axis(metrics))
    if len({tuple(cells.values()) for cells in grouped.values()}) == 1:
        return drawing.finish(figure, "mean and 95 % interval", grid[0][0], of=metrics)
    longest = max(map(len, grouped.values()))  # room for a legend below each panel
    figure.set_figheight(figure.get_figheight() + -(-len(grouped) // columns) * 0.19 * longest)
    for axis in grid[-1]:
        below = axis.transAxes + ScaledTranslation(0, -0.45, figure.dpi_scale_trans)
        axis.legend(loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=below, borderaxespad=0)
    return drawing.finish(figure, "mean and 95 % interval", of=metrics)


@drawing.styled
def elbo_bars(metrics: xr.Dataset, levels: Levels) -> Figure:
    """The ELBO of every cell at the last record, and the three terms that add up to it.

    Each bar starts where the previous one ends, so that the last one ends at the ELBO. If the learner can compute the
    evidence, it is also marked; its distance from the ELBO is the guide's gap.

    ELBOs of different models or critics do not compare inference, and may differ a hundredfold. So every panel has its
    own range, and a bar more than `READABLE` times longer than the panel's shortest is cut off, with its ELBO written
    above the panel.

    Args:
        metrics: the dataset of `metrics.nc`; cells that it lacks, or that have no ELBO, are omitted.
        levels: levels by arm and factor.
    """
    metrics, grouped = metrics.reindex(learner=list(levels)), groups(levels)
    columns = min(len(grouped), 2)
    counts = [len(cells) for cells in grouped.values()]
    tallest = [max(counts[start : start + columns]) for start in range(0, len(counts), columns)]
    size = (5.6, 0.36 * sum(tallest) / len(tallest) + 0.4)
    shared = {"sharex": False, "sharey": False, "height_ratios": [count + 1 for count in tallest]}
    figure, (axes,) = drawing.panels(1, len(grouped), size, columns, **shared)
    notes = []
    for i, (axis, cells) in enumerate(zip(axes, grouped.values(), strict=True)):
        axis.set_yticks(range(len(cells)), list(cells.values()))
        axis.set_ylim(tallest[i // columns] - 0.4, -0.6)
        axis.grid(False, axis="y")
        axis.axvline(0, color="#999999", linewidth=0.7, zorder=0.5)
        notes.append(_decompositions(axis, metrics, cells))
    drawing.titles(axes, list(grouped), notes)
    for axis in axes[-columns:]:
        axis.set_xlabel("in units of reward")
    what = f"at step {int(metrics['step'][-1])}, mean over agents and replicates"
    return drawing.finish(figure, what, *axes, of=metrics)


def _decompositions(axis: Axes, metrics: xr.Dataset, cells: Mapping[str, str]) -> str:
    """Draw bars and marks of cells that have an ELBO, a row each; returns a note on those that are cut off."""
    rows = np.flatnonzero(np.isfinite(_last(metrics, "elbo", cells)))
    if not len(rows):
        return ""
    elbo, gap = _last(metrics, "elbo", cells)[rows], _last(metrics, "elbo_gap", cells)[rows]
    ends = [np.zeros(len(rows))]
    for i, (name, label) in enumerate(PARTS.items()):
        part = np.nan_to_num(_last(metrics, name, cells)[rows])
        axis.barh(rows + 0.26 * (i - 1), part, 0.24, left=ends[-1], color=ELBO[name]["color"], label=label)
        ends.append(ends[-1] + part)
    axis.plot(elbo, rows + 0.26, "kD", markersize=4.5, label="ELBO")
    if np.isfinite(gap).any():
        label = "evidence (the ELBO of the best guide)"
        axis.plot(elbo + gap, rows + 0.26, "ko", markersize=8.5, markerfacecolor="none", label=label)
    low, high = (end([*ends, elbo, elbo + gap], axis=0) for end in (np.nanmin, np.nanmax))
    reach = np.maximum(-low, high)
    readable = reach <= READABLE * reach[reach > 0].min(initial=np.inf)
    start, end = low[readable].min(), high[readable].max()
    margin = 0.03 * ((end - start) or 1.0)
    axis.set_xlim(start - margin, end + margin)
    labels = np.array(list(cells.values()))[rows]
    words = [f"{label} {number(value, 2)}" for label, value in zip(labels[~readable], elbo[~readable], strict=True)]
    more = f" and {len(words) - 2} more" if len(words) > 2 else ""
    return f"beyond the axis: ELBO of {', '.join(words[:2])}{more}" if words else ""


def _last(metrics: xr.Dataset, name: str, cells: Mapping[str, str]) -> Numbers:
    """Means over agents and replicates at the last record, by cell; NaN where there are none."""
    found = [_elbo_part(metrics, name, arm) for arm in cells]
    means = [np.nan if values is None else float(values[:, -1].mean()) for values in found]
    return np.array([mean if np.isfinite(mean) else np.nan for mean in means])
