"""Figures of learning: rewards and success over time, and the ELBO's parts."""

from __future__ import annotations

from typing import Any

import xarray as xr
from matplotlib.figure import Figure

from inference_marl.analysis.plots.drawing import (
    draw_band,
    heading,
    label_time,
    looks,
    panels,
    readable_limits,
    settled,
    shared_legend,
    styled,
    time_axis,
    title,
)
from inference_marl.analysis.posterior import InspectError
from inference_marl.analysis.report.agents import is_zero_sum
from inference_marl.statistics.beliefs import per_replicate
from inference_marl.statistics.intervals import mean_band, metric_band
from inference_marl.statistics.summary import OF_AGENTS

CURVES = {
    "reward": "reward per step",
    "return": "exact return of the joint policy",
    "joint_optimum_probability": "joint probability of the optimum",
    "success": "share of replicates that succeed",
}
FEWEST, MOST = 20, 0.6
"""Records that are shown, at least, and their share of all, at most, if the time axis ends where all is over."""

ELBO: dict[str, dict[str, Any]] = {
    "elbo": {"label": "ELBO", "color": "#000000", "linewidth": 2.0},
    "elbo_reward": {"label": "expected value $Q$", "color": "#009E73", "linestyle": (0, (6, 1.5, 1.5, 1.5))},
    "elbo_entropy": {
        "label": "+ weighted entropy (relative to uniform)",
        "color": "#D55E00",
        "linestyle": (0, (5, 1.5)),
    },
    "elbo_kl": {"label": r"$-$ weighted KL from the model", "color": "#0072B2", "linestyle": (0, (1.5, 1.2))},
}


@styled
def learning_curves(metrics: xr.Dataset) -> Figure:
    """Reward, joint probability of the optimum and success rate over time, all learners in each panel (Fig. 1a, b).

    Where it is known of all learners, their exact return stands for the reward, which has the noise of play as well.
    Both are means over agents; of zero-sum games, where these are 0, those of agent 0. The band of the success rate is
    Wilson's. The time axis ends where all has long been over, and the figure says so.

    Args:
        metrics: as in `metrics.nc`.
    """
    learners = metrics["learner"].to_numpy().tolist()
    zero_sum = is_zero_sum(metrics)
    shown_metrics = metrics.isel(agent=[0]) if zero_sum else metrics
    found = {
        name: {
            learner: values
            for learner in learners
            if (values := per_replicate(shown_metrics, name, learner)) is not None
        }
        for name in CURVES
    }
    del found["reward" if len(found["return"]) == len(learners) else "return"]
    shown = [name for name, values in found.items() if values]
    figure, grid = panels(1, len(shown), (3.3, 2.7), sharey=False)
    x, label = time_axis(metrics)
    styles = looks(learners)
    curves = []
    for axis, name in zip(grid[0], shown, strict=True):
        bands = {learner: metric_band(name, values) for learner, values in found[name].items()}
        curves.append([draw_band(axis, x, band, **styles[learner]) for learner, band in bands.items()])
        axis.set_ylabel(CURVES[name] + (" (agent 0)" if zero_sum and name in OF_AGENTS else ""))
        if name not in OF_AGENTS:
            axis.set_ylim(-0.03, 1.03)
    over = settled(curves)
    end = max(2 * over + 1, FEWEST)
    is_cut = over > 0 and end < MOST * len(x)
    label_time(grid, x[:end] if is_cut else x, label)
    if len(learners) > 1:
        shared_legend(figure, grid[0][0])
    else:
        title(grid[0][0], learners[0])
    cut = f"; settled by {x[over]:,g}, run to {x[-1]:,g}" if is_cut else ""
    heading(figure, metrics, f"mean and 95 % interval{cut}")
    return figure


@styled
def elbo_parts(metrics: xr.Dataset) -> Figure:
    """The ELBO and what it is made of over time, a panel per learner that has one.

    The three parts add up to the ELBO, so both weights are included: the temperature in the entropy, beta in the KL.
    That is of rho from the prior and, of a planner that bends the dynamics, of its dynamics from the model's as well.
    The first part is what the critic expects, so with a discount factor it counts future rewards as well. Where an
    annealed temperature makes the first records huge, the axis is fitted to the rest and the panel says how far the
    curves go.

    Args:
        metrics: as in `metrics.nc`.

    Raises:
        InspectError: if no learner has an ELBO.
    """
    learners = with_elbo(metrics)
    if not learners:
        raise InspectError("metrics: got no learner with an ELBO, expected at least one")
    rows = -(-len(learners) // 3)
    columns = -(-len(learners) // rows)
    figure, grid = panels(rows, columns, (3.6, 2.7), sharey=False)
    axes = [axis for row in grid for axis in row]
    x, label = time_axis(metrics)
    notes = []
    for axis, learner in zip(axes, learners, strict=False):
        curves = []
        for name, look in ELBO.items():
            values = per_replicate(metrics, name, learner)
            if values is not None:
                curves.append(draw_band(axis, x, mean_band(-values if name == "elbo_kl" else values), **look))
        axis.axhline(0, color="#999999", linewidth=0.7, zorder=0.5)
        notes.append(readable_limits(axis, curves))
    for axis, learner, note in zip(axes, learners, notes, strict=False):
        title(axis, learner, note if any(notes) else None)
    for axis in axes[len(learners) :]:
        axis.set_visible(False)
    lowest = axes[: len(learners)][-columns:]
    for axis in lowest:
        axis.tick_params(labelbottom=True)
    for row in grid:
        row[0].set_ylabel("in units of reward")
    label_time([axes, lowest], x, label)
    shared_legend(figure, axes[0])
    heading(figure, metrics, "mean over agents and replicates, 95 % interval")
    return figure


def with_elbo(metrics: xr.Dataset) -> list[str]:
    """The learners that have an ELBO."""
    names: list[str] = metrics["learner"].to_numpy().tolist()
    return [name for name in names if per_replicate(metrics, "elbo", name) is not None]
