"""Figure of the reward surface with the paths of learners and their opponent models."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator

from inference_marl.analysis.plots import drawing
from inference_marl.statistics.beliefs import Numbers

THIN_PATHS, PATH_POINTS = 20, 60
"""Maximum numbers of replicates' paths, and of records on a path; with more, noise hides the direction."""

MAX_SURFACES, SURFACES_BESIDE = 8, 4
"""Maximum number of learners unless they are named, and of panels side by side."""

PATH = drawing.PALETTE[1]
SHADES = LinearSegmentedColormap.from_list("shades", mpl.colormaps["bone"](np.linspace(0.35, 1.0, 256)))


@drawing.styled
def surface(payoff: xr.Dataset, posterior: xr.Dataset, learners: list[str] | None = None) -> Figure:
    """The reward surface of agent 0 with learners' paths on it, in a panel per learner (Fig. 2a).

    A point of a path is the pair of both agents' mean actions at one record, under their policies or as predicted by
    their opponent models. Thin lines are single replicates' policies, and bold ones the coordinatewise median.

    Args:
        payoff: the dataset of `surface.nc`, with `payoff(agent, action_0, action_1)`.
        posterior: the dataset of `posterior.nc`, for continuous actions.
        learners: names of the arms; `None` for up to `MAX_SURFACES` of them.
    """
    shown, left_out = drawing.some_of(posterior["learner"].to_numpy().tolist(), learners, MAX_SURFACES)
    columns = drawing.columns_of(len(shown), SURFACES_BESIDE)
    figure, (axes,) = drawing.panels(1, len(shown), (3.2, 2.9), columns)
    x, y = payoff["action_0"].to_numpy(), payoff["action_1"].to_numpy()
    height = payoff["payoff"].isel(agent=0).transpose("action_1", "action_0").to_numpy()
    levels = MaxNLocator(14).tick_values(float(np.quantile(height, 0.05)), float(height.max()))
    for axis, learner in zip(axes, shown, strict=True):
        axis.contourf(x, y, height, levels=levels, cmap=SHADES, extend="min")
        axis.contour(x, y, height, levels=levels, colors="#777777", linewidths=0.3, linestyles="solid")
        _paths(axis, posterior.sel(learner=learner))
        if "optimal_action" in posterior:
            best = posterior["optimal_action"].isel(action_dim=0).to_numpy()
            axis.plot(*best, "o", markersize=13, markerfacecolor="none", color="#000000", label="optimum")
        axis.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), aspect="equal")
        axis.grid(False)
    for number, axis in enumerate(axes):
        lowest = number >= len(shown) - columns  # in its column
        axis.set(ylabel="" if number % columns else "action of agent 1", xlabel="action of agent 0" if lowest else "")
        axis.tick_params(labelbottom=lowest)
    drawing.titles(axes, shown)
    shading = ScalarMappable(BoundaryNorm(levels, SHADES.N, extend="min"), SHADES)
    figure.colorbar(shading, ax=axes, label="reward of agent 0", shrink=0.8, aspect=22)
    fullest = max(axes, key=lambda axis: len(axis.get_legend_handles_labels()[1]))
    return drawing.finish(figure, f"bold: median, thin: single replicates{left_out}", fullest, of=posterior)


def _paths(axis: Axes, posterior: xr.Dataset) -> None:
    """Draw the paths of one learner, given `posterior` without the dimension `learner`."""
    halo = [Stroke(linewidth=3.4, foreground="white"), Normal()]
    policy = _mean_action(posterior, "policy", "action_dim")
    thin = policy[_spread(len(policy), THIN_PATHS)]
    axis.plot(*thin.T, color=PATH, linewidth=0.5, alpha=0.5, label=r"policies $\pi$, single replicates")
    median = np.median(policy, axis=0)
    axis.plot(*median.T, color=PATH, linewidth=2.0, path_effects=halo, label=r"policies $\pi$, median")
    if "opponent_model" in posterior:
        model = np.median(_mean_action(posterior, "opponent_model", "opponent_dim"), axis=0)
        if not np.isnan(model).all():
            # Agent 1's model is about agent 0, whose action is the first coordinate.
            look = {**drawing.ROLES["opponent_model"], "label": r"opponent models $\rho$, median"}
            axis.plot(*model[:, ::-1].T, **look, path_effects=halo)
    axis.plot(*median[0], "*", markersize=13, color="#000000", markeredgecolor="white", zorder=5, label="start")


def _mean_action(posterior: xr.Dataset, name: str, dim: str) -> Numbers:
    """Mean actions, `replicates x records x agents`, at up to `PATH_POINTS` records."""
    records = _spread(posterior.sizes["step"], PATH_POINTS)
    mean = posterior[name].isel({"step": records, dim: 0}).mean(["draw", "state"])
    return np.asarray(mean.transpose("replicate", "step", "agent"))


def _spread(count: int, most: int) -> Numbers:
    """Up to `most` indices, evenly spaced from the first to the last."""
    return np.unique(np.linspace(0, count - 1, most).astype(int))
