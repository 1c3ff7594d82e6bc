"""Figures of two runs side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inference_marl.analysis.comparison import check_comparable, learner_pairs, run_names
from inference_marl.analysis.plots import drawing
from inference_marl.analysis.plots.opponents import MAX_ROWS, tracked_belief
from inference_marl.analysis.recorded import Recorded
from inference_marl.described import InspectError
from inference_marl.statistics.beliefs import modelling
from inference_marl.statistics.intervals import mean_band

MAX_COLUMNS = 4
"""Pairs of learners that a figure shows; it says how many it leaves out."""

COLOURS = (drawing.PALETTE[0], drawing.PALETTE[1])
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)))


@drawing.styled
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
    runs = [each.beliefs.assign_attrs({**each.metrics.attrs, **each.beliefs.attrs}) for each in (first, second)]
    one, other = runs
    every = [pair for pair in learner_pairs(first, second) if pair[0] in modelling(one) and pair[1] in modelling(other)]
    if not every:
        raise InspectError("learner: got no pair of learners with opponent models, expected at least one")
    pairs, names = every[:MAX_COLUMNS], run_names(first, second)
    agents = min(one.sizes["agent"], MAX_ROWS // 2)
    figure, grid = drawing.panels(2 * agents, len(pairs), (3.0, 2.1), sharex="row", sharey="row")
    upper, lower = grid[:agents], grid[agents:]
    for agent in range(agents):
        for over_time, at_the_end, pair in zip(upper[agent], lower[agent], pairs, strict=True):
            _over_time(over_time, runs, pair, agent, names)
            _at_the_end(at_the_end, runs, pair, agent)
        upper[agent][0].set_ylabel(f"agent {agent}\n{_tracked_name(one)}")
        what = "probability" if one.attrs["kind"] == "discrete" else "density"
        lower[agent][0].set_ylabel(f"agent {agent}\n{what}, at the end")
    drawing.label_time(upper, *max((drawing.time_axis(run) for run in runs), key=lambda found: float(found[0][-1])))
    drawing.name_columns(grid, [pair[0] if pair[0] == pair[1] else f"{pair[0]}, {pair[1]}" for pair in pairs])
    for axis in lower[-1]:
        axis.set_xlabel("opponents' action")
    drawing.shared_legend(figure, upper[0][0], lower[-1][0])
    cut = f"; {len(every) - MAX_COLUMNS} more pairs of learners not shown" if len(every) > MAX_COLUMNS else ""
    cut += f"; {one.sizes['agent'] - agents} more agents not shown" if one.sizes["agent"] > agents else ""
    drawing.name_above(figure, f"{names[0]} and {names[1]}, mean and 95 % interval{cut}")
    return figure


def _tracked_name(posterior: xr.Dataset) -> str:
    if posterior.attrs["kind"] == "continuous":
        return "opponents' mean action"
    return "P(opponents' optimum)" if "optimal_opponent_action" in posterior else "P(first action)"


def _over_time(axis: Axes, runs: list[xr.Dataset], pair: tuple[str, str], agent: int, names: tuple[str, str]) -> None:
    """Opponent models and actual policies of both runs."""
    for run, learner, name, colour, dashes in zip(runs, pair, names, COLOURS, DASHES, strict=True):
        times = drawing.time_axis(run)[0]
        discrete = run.attrs["kind"] == "discrete"
        bounds = (0.0, 1.0) if discrete else (run.attrs["low"], run.attrs["high"])
        for belief in ("opponent_model", "opponent_policy"):
            if belief not in run:
                continue
            values = tracked_belief(run, belief).sel(learner=learner).isel(agent=agent, part=0)
            band = mean_band(values.transpose("replicate", "step").to_numpy(), bounds=bounds)
            if belief == "opponent_model":
                drawing.draw_band(axis, times, band, color=colour, linestyle=dashes, label=rf"$\rho$, {name}")
            else:
                axis.plot(times, band.mean, color=colour, linewidth=0.8, linestyle=":", label=f"actual, {name}")
        if discrete:
            axis.set_ylim(drawing.PROBABILITY_AXIS)


def _at_the_end(axis: Axes, runs: list[xr.Dataset], pair: tuple[str, str], agent: int) -> None:
    """Opponent models of both runs at their last records."""
    for i, (run, learner) in enumerate(zip(runs, pair, strict=True)):
        final = run.sel(learner=learner).isel(step=-1, agent=agent)
        if run.attrs["kind"] == "continuous":
            draws = final["opponent_model"].isel(opponent_dim=0).to_numpy().ravel()
            draws = draws[np.isfinite(draws)]
            if len(draws):
                counts, edges = drawing.histogram(draws, run.attrs["high"] - run.attrs["low"])
                axis.stairs(counts, edges, linestyle=DASHES[i], linewidth=1.6, color=COLOURS[i])
            axis.set(xlim=(run.attrs["low"], run.attrs["high"]), ylim=(0, None))
            continue
        values = final["opponent_model"].mean("state").transpose("replicate", "opponent_action").to_numpy()
        band = mean_band(values, bounds=(0, 1))
        at = np.arange(len(band.mean)) + 0.34 * (i - 0.5)
        drawing.draw_bars(axis, at, 0.32, band, color=COLOURS[i])
        if "opponent_policy" in final:
            actual = final["opponent_policy"].mean(["state", "replicate"]).to_numpy()
            truth = {"color": drawing.ROLES["opponent_policy"]["color"], "label": "actual, at the end"}
            axis.plot(at, actual, "_", markersize=9, **truth)
        names = final["opponent_action"].to_numpy().tolist() if "opponent_action" in final.coords else []
        drawing.name_actions(axis, names)
