"""Figures of learning: rewards and success over time, and the ELBO's parts."""

from __future__ import annotations

from typing import Any

import xarray as xr
from matplotlib.figure import Figure

from inference_marl.analysis.plots import drawing
from inference_marl.described import InspectError
from inference_marl.statistics.beliefs import Numbers
from inference_marl.statistics.intervals import mean_band
from inference_marl.statistics.metrics import OF_AGENTS, is_zero_sum, metric_band, per_replicate

CURVES = {
    "reward": "reward per step",
    "return": "exact return of the joint policy",
    "joint_optimum_probability": "joint probability of the optimum",
    "success_rate": "share of replicates that succeed",
}
FEWEST, MOST = 20, 0.6
"""Fewest records, and largest fraction of all, that are shown if the time axis ends where all curves have settled."""

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


@drawing.styled
def learning_curves(metrics: xr.Dataset) -> Figure:
    """Reward, joint probability of the optimum and success rate over time, all learners in each panel (Fig. 1a, b).

    Where it is known of all learners, the exact return replaces the reward, which has the noise of play too. Both are
    means over agents; in zero-sum games, where these are 0, those of agent 0. The band of the success rate is Wilson's.
    The time axis ends some time after all curves have settled, and the figure says so.

    Args:
        metrics: as in `metrics.nc`.
    """
    learners = metrics["learner"].to_numpy().tolist()
    zero_sum = is_zero_sum(metrics)
    found = _shown(metrics.isel(agent=[0]) if zero_sum else metrics, learners)
    figure, grid = drawing.panels(1, len(found), (3.3, 2.7), sharey=False)
    x, label = drawing.time_axis(metrics)
    styles = drawing.looks(learners)
    curves = []
    for axis, (name, of_learners) in zip(grid[0], found.items(), strict=True):
        bands = {learner: metric_band(name, values) for learner, values in of_learners.items()}
        curves.append([drawing.draw_band(axis, x, band, **styles[learner]) for learner, band in bands.items()])
        axis.set_ylabel(CURVES[name] + (" (agent 0)" if zero_sum and name in OF_AGENTS else ""))
        if name not in OF_AGENTS:
            axis.set_ylim(drawing.PROBABILITY_AXIS)
    over = drawing.settled(curves)
    end = max(2 * over + 1, FEWEST)
    is_cut = over > 0 and end < MOST * len(x)
    drawing.label_time(grid, x[:end] if is_cut else x, label)
    if len(learners) > 1:
        drawing.shared_legend(figure, grid[0][0])
    else:
        drawing.title(grid[0][0], learners[0])
    cut = f"; settled by {x[over]:,g}, run to {x[-1]:,g}" if is_cut else ""
    drawing.heading(figure, metrics, f"mean and 95 % interval{cut}")
    return figure


def _shown(metrics: xr.Dataset, learners: list[str]) -> dict[str, dict[str, Numbers]]:
    """What is drawn, `replicates x steps`, by metric and learner."""
    found = {
        name: {each: values for each in learners if (values := per_replicate(metrics, name, each)) is not None}
        for name in CURVES
    }
    del found["reward" if len(found["return"]) == len(learners) else "return"]
    return {name: values for name, values in found.items() if values}


@drawing.styled
def elbo_parts(metrics: xr.Dataset) -> Figure:
    """The ELBO and its parts over time, a panel per learner that has one.

    The three parts add up to the ELBO, so both weights are included: the temperature in the entropy, beta in the KL of
    rho from the prior and, for a planner that changes the dynamics, of its dynamics from the model's. The first part is
    the critic's expectation, so with a discount factor it includes future rewards. Where an annealed temperature makes
    the first records huge, the axis is fitted to the rest and the panel says how far the curves go.

    Args:
        metrics: as in `metrics.nc`.

    Raises:
        InspectError: if no learner has an ELBO.
    """
    learners = with_elbo(metrics)
    if not learners:
        raise InspectError("metrics: got no learner with an ELBO, expected at least one")
    columns = -(-len(learners) // -(-len(learners) // 3))
    figure, axes, lowest = drawing.tiles(len(learners), columns, (3.6, 2.7))
    x, label = drawing.time_axis(metrics)
    notes = []
    for axis, learner in zip(axes, learners, strict=True):
        curves = []
        for name, look in ELBO.items():
            values = per_replicate(metrics, name, learner)
            if values is not None:
                curves.append(drawing.draw_band(axis, x, mean_band(-values if name == "elbo_kl" else values), **look))
        axis.axhline(0, color="#999999", linewidth=0.7, zorder=0.5)
        notes.append(drawing.readable_limits(axis, curves))
    for axis, learner, note in zip(axes, learners, notes, strict=True):
        drawing.title(axis, learner, note if any(notes) else None)
    for axis in lowest:
        axis.tick_params(labelbottom=True)
    for axis in axes[::columns]:
        axis.set_ylabel("in units of reward")
    drawing.label_time([axes, lowest], x, label)
    drawing.shared_legend(figure, axes[0])
    drawing.heading(figure, metrics, "mean over agents and replicates, 95 % interval")
    return figure


def with_elbo(metrics: xr.Dataset) -> list[str]:
    """The learners that have an ELBO."""
    names: list[str] = metrics["learner"].to_numpy().tolist()
    return [name for name in names if per_replicate(metrics, "elbo", name) is not None]
