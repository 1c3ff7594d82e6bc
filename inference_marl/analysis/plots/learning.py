"""Figures of learning: rewards and success over time, and the ELBO's parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inference_marl.analysis.plots import drawing
from inference_marl.analysis.plots.drawing import DASHES, PALETTE
from inference_marl.analysis.tables import NAMES
from inference_marl.described import InspectError
from inference_marl.statistics.beliefs import Numbers
from inference_marl.statistics.intervals import FloatArray
from inference_marl.statistics.metrics import OF_AGENTS, is_zero_sum, metric_band, per_replicate

CURVES = {
    **{name: NAMES[name] for name in ("reward", "return", "joint_optimum_probability")},
    "success": "share of replicates that succeed",
}
FEWEST, MOST = 20, 0.6
"""Fewest records, and largest fraction of all, that are shown if the time axis ends where all curves have settled."""

ELBO: dict[str, dict[str, Any]] = {
    "elbo": {"label": "ELBO", "color": PALETTE[6], "linewidth": 2.0},
    "elbo_reward": {"label": "expected value $Q$", "color": PALETTE[2], "linestyle": DASHES[3]},
    "elbo_entropy": {"label": "+ weighted entropy (relative to uniform)", "color": PALETTE[1], "linestyle": DASHES[1]},
    "elbo_kl": {"label": r"$-$ weighted KL from the model", "color": PALETTE[0], "linestyle": DASHES[2]},
}
"""Look of the ELBO and of the parts that add up to it, see `elbo_part`."""


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
    shown = metrics.isel(agent=[0]) if zero_sum else metrics
    names = _known(shown, learners)
    figure, (axes,) = drawing.panels(1, len(names), (3.3, 2.7), sharey=False)
    x, label = drawing.time_axis(metrics)
    styles = drawing.looks(learners)
    curves = []
    for axis, name in zip(axes, names, strict=True):
        curves.append(metric_curves(axis, shown, name, styles))
        axis.set_ylabel(CURVES[name] + (" (agent 0)" if zero_sum and name in OF_AGENTS else ""))
        if name not in OF_AGENTS:
            axis.set_ylim(drawing.PROBABILITY_AXIS)
    over = drawing.settled(curves)
    end = max(2 * over + 1, FEWEST)
    is_cut = over > 0 and end < MOST * len(x)
    drawing.label_time([axes], x[:end] if is_cut else x, label)
    if len(learners) > 1:
        drawing.shared_legend(figure, axes[0])
    else:
        drawing.titles(axes[:1], learners)
    cut = f"; settled by {x[over]:,g}, run to {x[-1]:,g}" if is_cut else ""
    return drawing.finish(figure, metrics, f"mean and 95 % interval{cut}")


def _known(metrics: xr.Dataset, learners: list[str]) -> list[str]:
    """The metrics that some learner has; of reward and exact return the latter if all have it."""
    counts = {name: sum(per_replicate(metrics, name, each) is not None for each in learners) for name in CURVES}
    del counts["reward" if counts["return"] == len(learners) else "return"]
    return [name for name, count in counts.items() if count]


def metric_curves(axis: Axes, metrics: xr.Dataset, name: str, looks: Mapping[str, Any]) -> list[FloatArray]:
    """Draw one metric of some learners over time and return their means; those without it are in the legend alone."""
    x, known, means = drawing.time_axis(metrics)[0], metrics["learner"].to_numpy(), []
    for learner, look in looks.items():
        values = per_replicate(metrics, name, learner) if learner in known else None
        if values is None:
            axis.plot([], [], **look)
        else:
            means.append(drawing.draw_band(axis, x, metric_band(name, values), **look))
    return means


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
    every = metrics["learner"].to_numpy().tolist()
    learners = [learner for learner in every if elbo_part(metrics, "elbo", learner) is not None]
    if not learners:
        raise InspectError("metrics: got no learner with an ELBO, expected at least one")
    columns = -(-len(learners) // -(-len(learners) // 3))
    figure, (axes,) = drawing.tiles((1, len(learners)), columns, (3.6, 2.7))
    x, label = drawing.time_axis(metrics)
    notes = []
    for axis, learner in zip(axes, learners, strict=True):
        parts = {name: values for name in ELBO if (values := elbo_part(metrics, name, learner)) is not None}
        curves = [drawing.draw_band(axis, x, metric_band(name, parts[name]), **ELBO[name]) for name in parts]
        axis.axhline(0, color="#999999", linewidth=0.7, zorder=0.5)
        notes.append(drawing.readable_limits(axis, curves))
    drawing.titles(axes, learners, notes)
    for axis in axes[::columns]:
        axis.set_ylabel("in units of reward")
    drawing.label_time([axes, axes[-columns:]], x, label)
    return drawing.finish(figure, metrics, "mean over agents and replicates, 95 % interval", axes[0])


def elbo_part(metrics: xr.Dataset, name: str, learner: str) -> Numbers | None:
    """The ELBO or what one of its parts adds to it, `replicates x steps`; `None` if the learner lacks it."""
    values = per_replicate(metrics, name, learner)
    return -values if values is not None and name == "elbo_kl" else values
