"""Figures of what learners believe about their opponents."""

from __future__ import annotations

from collections.abc import Iterator

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
from inference_marl.described import InspectError
from inference_marl.statistics.beliefs import Numbers, modelling, optimum_probability
from inference_marl.statistics.intervals import mean_band

MAX_ROWS = 6
"""Rows (agents, or dimensions of their opponents' actions) that a figure shows; it says how many it leaves out."""

MAX_LEARNERS = 5
"""Columns of learners that a figure shows unless they are named: evenly spaced ones if there are more."""

THIN_PATHS = 20
"""Replicates whose paths are drawn on a reward surface."""

PATH_POINTS = 60
"""Records that a path goes through; with more, the noise of the draws hides its direction."""

PATH = "#D55E00"
SHADES = LinearSegmentedColormap.from_list("shades", mpl.colormaps["bone"](np.linspace(0.35, 1.0, 256)))


@drawing.styled
def beliefs(posterior: xr.Dataset, learners: list[str] | None = None, replicate: int | None = None) -> Figure:
    """Opponent model, prior and the opponents' actual policy over time, a column per learner, a row per agent.

    As Fig. 1c and 2c of Tian et al. (2019): the probability of the opponents' part of the optimum (of their first
    action where no optimum is known), or for continuous actions their mean action. Averaged over states.

    Args:
        posterior: as in `posterior.nc`.
        learners: which arms; up to `MAX_LEARNERS` of those that have an opponent model if `None`.
        replicate: show this one alone, as the paper does; the mean and 95 % interval over replicates if `None`.

    Raises:
        InspectError: if no such learner has an opponent model.
    """
    shown, left_out = chosen(posterior, learners)
    tracked = {name: tracked_belief(posterior, name) for name in drawing.ROLES if name in posterior}
    rows, more = _rows(tracked["opponent_model"].sel(learner=shown))
    discrete = posterior.attrs["kind"] == "discrete"
    bounds = (0.0, 1.0) if discrete else (posterior.attrs["low"], posterior.attrs["high"])
    figure, grid = drawing.panels(len(rows), len(shown), (3.0, 2.0))
    x, label = drawing.time_axis(posterior)
    for axis, learner, (agent, part) in _cells(grid, shown, rows):
        for name, values in tracked.items():
            here = values.sel(learner=learner).isel(agent=agent, part=part).transpose("replicate", "step").to_numpy()
            if not np.isnan(here).all():
                one = here if replicate is None else here[[replicate]]
                drawing.draw_band(axis, x, mean_band(one, bounds=bounds), **drawing.ROLES[name])
        if discrete:
            axis.set_ylim(drawing.PROBABILITY_AXIS)
        elif "optimal_opponent_action" in posterior:
            best = float(posterior["optimal_opponent_action"].isel(agent=agent, opponent_dim=part))
            axis.axhline(best, color="#999999", linewidth=0.8, zorder=0.5)
    _name_rows(posterior, grid, rows)
    drawing.name_columns(grid, shown)
    drawing.label_time(grid, x, label)
    drawing.shared_legend(figure, grid[0][0])
    what = "mean and 95 % interval" if replicate is None else f"replicate {replicate} alone"
    drawing.heading(figure, posterior, what + more + left_out)
    return figure


@drawing.styled
def opponent_action_bars(posterior: xr.Dataset, learners: list[str] | None = None) -> Figure:
    """Opponent model, prior and the opponents' actual policy at the last record, a column per learner.

    Discrete: bars, means over replicates with 95 % intervals. Continuous: densities of all replicates' draws.
    Averaged over states.

    Args:
        posterior: as in `posterior.nc`.
        learners: which arms; up to `MAX_LEARNERS` of those that have an opponent model if `None`.

    Raises:
        InspectError: if no such learner has an opponent model.
    """
    shown, left_out = chosen(posterior, learners)
    discrete = posterior.attrs["kind"] == "discrete"
    last = {name: posterior[name].isel(step=-1) for name in drawing.ROLES if name in posterior}
    model = last["opponent_model"].sel(learner=shown)
    rows, more = _rows(model.expand_dims(part=1) if discrete else model.rename(opponent_dim="part"))
    figure, grid = drawing.panels(len(rows), len(shown), (2.7, 1.9), sharey=discrete)
    for axis, learner, (agent, part) in _cells(grid, shown, rows):
        here = {name: values.sel(learner=learner).isel(agent=agent) for name, values in last.items()}
        if discrete:
            _bars(axis, here)
        else:
            _densities(axis, posterior, {name: values.isel(opponent_dim=part) for name, values in here.items()})
    drawing.name_columns(grid, shown)
    for axis in grid[-1]:
        axis.set_xlabel("opponents' action")
    for row, (agent, part) in zip(grid, rows, strict=True):
        dim = f", dim {part}" if not discrete and posterior.sizes["opponent_dim"] > 1 else ""
        row[0].set_ylabel(f"agent {agent}{dim}\n{'probability' if discrete else 'density'}")
    drawing.shared_legend(figure, grid[0][0])
    what = "mean and 95 % interval" if discrete else "all draws"
    drawing.heading(figure, posterior, f"at the end, {what}{more}{left_out}")
    return figure


@drawing.styled
def surface(payoff: xr.Dataset, posterior: xr.Dataset, learners: list[str] | None = None) -> Figure:
    """The reward surface of agent 0 with the paths that learners take over it, a panel per learner (Fig. 2a).

    A point of a path is the pair of both agents' mean actions at one record: those of their policies, and those that
    their opponent models predict. Thin: replicates' policies. Bold: the median over replicates,
    coordinate by coordinate.

    Args:
        payoff: as in `surface.nc`: `payoff(agent, action_0, action_1)`.
        posterior: as in `posterior.nc`, for continuous actions.
        learners: which arms; up to `MAX_LEARNERS` of them if `None`.
    """
    every = posterior["learner"].to_numpy().tolist()
    shown = evenly(every, MAX_LEARNERS) if learners is None else learners
    figure, grid = drawing.panels(1, len(shown), (3.2, 2.9))
    x, y = payoff["action_0"].to_numpy(), payoff["action_1"].to_numpy()
    height = payoff["payoff"].isel(agent=0).transpose("action_1", "action_0").to_numpy()
    levels = MaxNLocator(14).tick_values(float(np.quantile(height, 0.05)), float(height.max()))
    for axis, learner in zip(grid[0], shown, strict=True):
        axis.contourf(x, y, height, levels=levels, cmap=SHADES, extend="min")
        axis.contour(x, y, height, levels=levels, colors="#777777", linewidths=0.3, linestyles="solid")
        _paths(axis, posterior.sel(learner=learner))
        if "optimal_action" in posterior:
            best = posterior["optimal_action"].isel(action_dim=0).to_numpy()
            axis.plot(*best, "o", markersize=13, markerfacecolor="none", color="#000000", label="optimum")
        axis.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), xlabel="action of agent 0", aspect="equal")
        axis.grid(False)
        drawing.title(axis, learner)
    grid[0][0].set_ylabel("action of agent 1")
    shading = ScalarMappable(BoundaryNorm(levels, SHADES.N, extend="min"), SHADES)
    figure.colorbar(shading, ax=grid[0], label="reward of agent 0", shrink=0.8, aspect=22)
    drawing.shared_legend(figure, max(grid[0], key=lambda axis: len(axis.get_legend_handles_labels()[1])))
    more = some_of(every, shown) if learners is None else ""
    drawing.heading(figure, posterior, f"bold: median, thin: single replicates{more}")
    return figure


def _paths(axis: Axes, posterior: xr.Dataset) -> None:
    """Paths of one learner: `posterior` without `learner`."""
    halo = [Stroke(linewidth=3.4, foreground="white"), Normal()]
    policy = _mean_action(posterior, "policy", "action_dim")
    shown = np.unique(np.linspace(0, len(policy) - 1, THIN_PATHS).astype(int))
    for i, path in enumerate(policy[shown]):
        label = r"policies $\pi$, single replicates" if i == 0 else None
        axis.plot(*path.T, color=PATH, linewidth=0.5, alpha=0.5, label=label)
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
    """`replicates x records x agents`, at up to `PATH_POINTS` records."""
    records = np.unique(np.linspace(0, posterior.sizes["step"] - 1, PATH_POINTS).astype(int))
    mean = posterior[name].isel({"step": records, dim: 0}).mean(["draw", "state"])
    array: Numbers = mean.transpose("replicate", "step", "agent").to_numpy()
    return array


def _bars(axis: Axes, beliefs: dict[str, xr.DataArray]) -> None:
    """Bars of one agent's beliefs, `replicate x state x opponent_action`."""
    for i, (name, values) in enumerate(beliefs.items()):
        band = mean_band(values.mean("state").transpose("replicate", "opponent_action").to_numpy(), bounds=(0, 1))
        at = np.arange(len(band.mean)) + 0.27 * (i - 1)
        drawing.draw_bars(axis, at, 0.25, band, color=drawing.ROLES[name]["color"], label=drawing.ROLES[name]["label"])
    drawing.name_actions(axis, next(iter(beliefs.values()))["opponent_action"].to_numpy().tolist())


def _densities(axis: Axes, posterior: xr.Dataset, beliefs: dict[str, xr.DataArray]) -> None:
    """Histograms of one agent's beliefs about one dimension, `replicate x state x draw`."""
    low, high = posterior.attrs["low"], posterior.attrs["high"]
    for name, values in beliefs.items():
        draws = values.to_numpy().ravel()
        draws = draws[np.isfinite(draws)]
        if not len(draws):
            continue
        counts, edges = drawing.histogram(draws, high - low)
        if name == "opponent_model":
            axis.stairs(counts, edges, fill=True, color=drawing.ROLES[name]["color"], alpha=0.25)
        axis.stairs(counts, edges, **drawing.ROLES[name])
    axis.set(xlim=(low, high), ylim=(0, None))


def tracked_belief(posterior: xr.Dataset, name: str) -> xr.DataArray:
    """What `beliefs` follows: `learner x replicate x step x agent x part`."""
    if posterior.attrs["kind"] == "continuous":
        return posterior[name].mean(["draw", "state"]).rename(opponent_dim="part")
    probability = optimum_probability(posterior, name)
    if probability is None:
        probability = posterior[name].isel(opponent_action=0, drop=True).mean("state")
    return probability.expand_dims(part=1)


def _rows(model: xr.DataArray) -> tuple[list[tuple[int, int]], str]:
    """The (agent, part) pairs that have a model, and words about those left out."""
    having = model.notnull().any([dim for dim in model.dims if dim not in ("agent", "part")])
    pairs = [(int(agent), int(part)) for agent, part in np.argwhere(having.transpose("agent", "part").to_numpy())]
    return pairs[:MAX_ROWS], f"; {len(pairs) - MAX_ROWS} more rows not shown" if len(pairs) > MAX_ROWS else ""


def _cells(
    grid: list[list[Axes]], learners: list[str], rows: list[tuple[int, int]]
) -> Iterator[tuple[Axes, str, tuple[int, int]]]:
    for axes, row in zip(grid, rows, strict=True):
        for axis, learner in zip(axes, learners, strict=True):
            yield axis, learner, row


def _name_rows(posterior: xr.Dataset, grid: list[list[Axes]], rows: list[tuple[int, int]]) -> None:
    for axes, (agent, part) in zip(grid, rows, strict=True):
        if posterior.attrs["kind"] == "continuous":
            dim = f" (dim {part})" if posterior.sizes["opponent_dim"] > 1 else ""
            axes[0].set_ylabel(f"agent {agent}\nopponents' mean action{dim}")
            continue
        names = posterior["opponent_action"].to_numpy()
        if "optimal_opponent_action" in posterior:
            names = names[posterior["optimal_opponent_action"].isel(agent=agent).to_numpy().astype(bool)]
        else:
            names = names[:1]
        axes[0].set_ylabel(f"agent {agent}\nP(opponent plays {' or '.join(map(str, names))})")


def chosen(posterior: xr.Dataset, learners: list[str] | None, most: int = MAX_LEARNERS) -> tuple[list[str], str]:
    """The named learners, or up to `most` of those that have an opponent model, and words about the others.

    Raises:
        InspectError: if one of them has none, or nobody has.
    """
    having = modelling(posterior)
    wanted = having if learners is None else learners
    if not wanted or not set(wanted) <= set(having):
        raise InspectError(
            f"learners: got {learners or 'a run'} without an opponent model, expected some of: "
            f"{', '.join(having) or 'none in this run has one'}"
        )
    shown = evenly(wanted, most) if learners is None else wanted
    return shown, some_of(wanted, shown)


def evenly(learners: list[str], most: int) -> list[str]:
    """Up to so many, evenly spaced from the first on, so that in a grid not all have the same level."""
    count = min(most, len(learners))
    return [learners[i * len(learners) // count] for i in range(count)]


def some_of(every: list[str], shown: list[str]) -> str:
    """Words about learners that are left out."""
    return f"; {len(shown)} of {len(every)} learners, evenly spaced" if len(shown) < len(every) else ""
