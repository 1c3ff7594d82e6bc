"""Figures of two runs side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inference_marl.analysis.comparison import check_comparable, learner_pairs, run_names
from inference_marl.analysis.plots.drawing import (
    PALETTE,
    ROLES,
    draw_band,
    histogram,
    label_time,
    panels,
    shared_legend,
    styled,
    time_axis,
    title,
)
from inference_marl.analysis.plots.opponents import MAX_ROWS, tracked_belief
from inference_marl.analysis.posterior import InspectError, Recorded
from inference_marl.statistics.beliefs import modelling
from inference_marl.statistics.intervals import mean_band

MAX_COLUMNS = 4
"""Pairs of learners that a figure shows; the rest is left out, and said."""

COLOURS = (PALETTE[0], PALETTE[1])
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)))


@styled
def compared_beliefs(first: Recorded, second: Recorded) -> Figure:
    """The opponent models of two runs at their last records, and over time; a column per pair of learners.

    The upper rows, one per agent, are as in `beliefs`, with both runs in one panel; the lower ones compare the last
    records: bars for discrete actions, densities for continuous ones. Averaged over states.

    Args:
        first: a run.
        second: another one, with the same agents and actions.

    Raises:
        InspectError: if the runs cannot be compared, or no pair of learners has opponent models.
    """
    check_comparable(first, second)
    one, other = (recorded.posterior for recorded in (first, second))
    if one is None or other is None:
        raise InspectError("posterior: got a run without beliefs, expected two with them")
    every = [pair for pair in learner_pairs(first, second) if pair[0] in modelling(one) and pair[1] in modelling(other)]
    if not every:
        raise InspectError("learner: got no pair of learners with opponent models, expected at least one")
    pairs, agents = every[:MAX_COLUMNS], list(range(one.sizes["agent"]))[: MAX_ROWS // 2]
    runs = [_with_time(recorded, posterior) for recorded, posterior in ((first, one), (second, other))]
    names = run_names(first, second)
    figure, grid = panels(2 * len(agents), len(pairs), (3.0, 2.1), sharex="row", sharey="row")
    for axes, agent in zip(grid[: len(agents)], agents, strict=True):
        for axis, pair in zip(axes, pairs, strict=True):
            _over_time(axis, runs, pair, agent, names)
        axes[0].set_ylabel(f"agent {agent}\n{_tracked_name(one)}")
    times = max((time_axis(run) for run in runs), key=lambda found: float(found[0][-1]))
    label_time(grid[: len(agents)], *times)
    for axes, agent in zip(grid[len(agents) :], agents, strict=True):
        for axis, pair in zip(axes, pairs, strict=True):
            _at_the_end(axis, runs, pair, agent, names)
        axes[0].set_ylabel(
            f"agent {agent}\n{'probability' if one.attrs['kind'] == 'discrete' else 'density'}, at the end"
        )
    for axis, pair in zip(grid[0], pairs, strict=True):
        title(axis, pair[0] if pair[0] == pair[1] else f"{pair[0]}, {pair[1]}")
    for axis in grid[-1]:
        axis.set_xlabel("opponents' action")
    shared_legend(figure, grid[0][0], grid[-1][0])
    cut = f"; {len(every) - MAX_COLUMNS} more pairs of learners not shown" if len(every) > MAX_COLUMNS else ""
    cut += f"; {one.sizes['agent'] - len(agents)} more agents not shown" if one.sizes["agent"] > len(agents) else ""
    words = f"{names[0]} and {names[1]}, mean and 95 % interval{cut}"
    figure.suptitle(words, x=0.01, ha="left", fontsize=8, color="#666666")
    return figure


def _with_time(recorded: Recorded, posterior: xr.Dataset) -> xr.Dataset:
    return posterior.assign_attrs({**recorded.metrics.attrs, **posterior.attrs})


def _tracked_name(posterior: xr.Dataset) -> str:
    if posterior.attrs["kind"] == "continuous":
        return "opponents' mean action"
    return "P(opponents' optimum)" if "optimal_opponent_action" in posterior else "P(first action)"


def _over_time(axis: Axes, runs: list[xr.Dataset], pair: tuple[str, str], agent: int, names: tuple[str, str]) -> None:
    """Opponent models and actual policies of both runs."""
    for run, learner, name, colour, dashes in zip(runs, pair, names, COLOURS, DASHES, strict=True):
        times = time_axis(run)[0]
        discrete = run.attrs["kind"] == "discrete"
        bounds = (0.0, 1.0) if discrete else (run.attrs["low"], run.attrs["high"])
        for belief in ("opponent_model", "opponent_policy"):
            if belief not in run:
                continue
            values = tracked_belief(run, belief).sel(learner=learner).isel(agent=agent, part=0)
            band = mean_band(values.transpose("replicate", "step").to_numpy(), bounds=bounds)
            if belief == "opponent_model":
                draw_band(axis, times, band, color=colour, linestyle=dashes, label=rf"$\rho$, {name}")
            else:
                axis.plot(times, band.mean, color=colour, linewidth=0.8, linestyle=":", label=f"actual, {name}")
        if discrete:
            axis.set_ylim(-0.03, 1.03)


def _at_the_end(axis: Axes, runs: list[xr.Dataset], pair: tuple[str, str], agent: int, names: tuple[str, str]) -> None:
    """Opponent models of both runs at their last records."""
    for i, (run, learner) in enumerate(zip(runs, pair, strict=True)):
        final = run.sel(learner=learner).isel(step=-1, agent=agent)
        look: dict[str, Any] = {"color": COLOURS[i]}
        if run.attrs["kind"] == "continuous":
            draws = final["opponent_model"].isel(opponent_dim=0).to_numpy().ravel()
            draws = draws[np.isfinite(draws)]
            if len(draws):
                counts, edges = histogram(draws, run.attrs["high"] - run.attrs["low"])
                axis.stairs(counts, edges, linestyle=DASHES[i], linewidth=1.6, **look)
            axis.set(xlim=(run.attrs["low"], run.attrs["high"]), ylim=(0, None))
            continue
        values = final["opponent_model"].mean("state").transpose("replicate", "opponent_action").to_numpy()
        band = mean_band(values, bounds=(0, 1))
        at = np.arange(len(band.mean)) + 0.34 * (i - 0.5)
        axis.bar(at, band.mean, 0.32, **look)
        errors = np.nan_to_num(np.stack([band.mean - band.low, band.high - band.mean])).clip(0)
        axis.errorbar(at, band.mean, errors, fmt="none", ecolor="#888888", elinewidth=1.0, capsize=2)
        if "opponent_policy" in final:
            actual = final["opponent_policy"].mean(["state", "replicate"]).to_numpy()
            truth = {"color": ROLES["opponent_policy"]["color"], "label": "actual, at the end"}
            axis.plot(at, actual, "_", markersize=9, **truth)
        labels = final["opponent_action"].to_numpy().tolist() if "opponent_action" in final.coords else []
        every = max(1, -(-len(labels) // 16))
        axis.set_xticks(range(0, len(labels), every), labels[::every])
        axis.grid(False, axis="x")
        axis.set_ylim(0, 1.03)
