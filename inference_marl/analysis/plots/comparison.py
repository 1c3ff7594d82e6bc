"""Figures that compare two runs."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inference_marl.analysis.comparison import check_comparable, learner_pairs, run_names
from inference_marl.analysis.plots import drawing, opponents
from inference_marl.analysis.recorded import Recorded
from inference_marl.described import InspectError
from inference_marl.statistics.beliefs import about, as_array, modelling
from inference_marl.statistics.intervals import mean_band

MAX_COLUMNS = 4
"""Maximum number of pairs of learners in a figure, which says how many it omits."""


@drawing.styled
def compared_beliefs(first: Recorded, second: Recorded) -> Figure:
    """The opponent models of two runs over time and at their last records, in a column per pair of learners.

    The upper rows, one for each belief of an agent about another, are as in `beliefs`, with both runs in one panel; the
    lower rows compare the last records, with bars for discrete actions and densities for continuous ones. Beliefs are
    averaged over states.

    Args:
        first: the first run.
        second: the second run, with the same agents and actions.

    Raises:
        InspectError: if the runs cannot be compared, or no pair of learners has opponent models.
    """
    check_comparable(first, second)
    runs = [each.beliefs.assign_attrs({**each.metrics.attrs, **each.beliefs.attrs}) for each in (first, second)]
    having, names = [modelling(run) for run in runs], run_names(first, second)
    every = [pair for pair in learner_pairs(first, second) if pair[0] in having[0] and pair[1] in having[1]]
    if not every:
        raise InspectError("learner: got no pair of learners with opponent models, expected at least one")
    pairs, beliefs = every[:MAX_COLUMNS], list(permutations(range(runs[0].sizes["agent"]), 2))
    shown = beliefs[: opponents.MAX_ROWS // 2]
    figure, grid = drawing.panels(2 * len(shown), len(pairs), (3.0, 2.1), sharex="row", sharey="row")
    upper, lower = grid[: len(shown)], grid[len(shown) :]
    for row, (agent, other) in enumerate(shown):
        for above, below, pair in zip(upper[row], lower[row], pairs, strict=True):
            for i, (run, name, learner) in enumerate(zip(runs, names, pair, strict=True)):
                here = about(run.sel(learner=[learner]), agent, other)
                _over_time(above, here, name, drawing.look(i))
                _at_the_end(below, here, 0.34 * (i - 0.5), drawing.look(i))
        _label(upper[row][0], lower[row][0], runs[0], agent, other)
    drawing.label_time(upper, *max((drawing.time_axis(run) for run in runs), key=lambda found: float(found[0][-1])))
    drawing.titles(grid[0], [", ".join(dict.fromkeys(pair)) for pair in pairs])
    for axis in lower[-1]:
        axis.set_xlabel("opponents' action")
    cut = drawing.not_shown(len(every), MAX_COLUMNS, "more pairs of learners")
    cut += drawing.not_shown(len(beliefs), len(shown), "more beliefs of an agent about another")
    what = f"{names[0]} and {names[1]}, mean and 95 % interval{cut}"
    return drawing.finish(figure, what, upper[0][0], lower[-1][0])


def _label(above: Axes, below: Axes, run: xr.Dataset, agent: int, other: int) -> None:
    """Label the panels of one belief, after all runs are drawn, since the highest density sets a limit."""
    who = f"agent {agent} on agent {other}" if run.sizes["agent"] > 2 else f"agent {agent}"
    if run.attrs["kind"] == "discrete":
        what = "P(opponent's optimum)" if "optimal_opponent_action" in run else "P(first action)"
        height = "probability"
    else:
        what, height = "opponent's mean action", "density"
        below.set(xlim=opponents.range_of(run), ylim=(0, None))
    above.set_ylabel(f"{who}\n{what}")
    below.set_ylabel(f"{who}\n{height}, at the end")


def _over_time(axis: Axes, run: xr.Dataset, name: str, look: dict[str, Any]) -> None:
    """Draw opponent model and actual policy over time, for one learner and agent of a run."""
    x, tracked = drawing.time_axis(run)[0], opponents.tracked_beliefs(run).isel(learner=0, agent=0, part=0)
    model = mean_band(as_array(tracked["opponent_model"], "replicate", "step"), bounds=opponents.range_of(run))
    drawing.draw_band(axis, x, model, **look, label=rf"$\rho$, {name}")
    if "opponent_policy" in run:
        actual = as_array(tracked["opponent_policy"], "replicate", "step").mean(0)
        axis.plot(x, actual, color=look["color"], linewidth=0.8, linestyle=":", label=f"actual, {name}")
    if run.attrs["kind"] == "discrete":
        axis.set_ylim(drawing.PROBABILITY_AXIS)


def _at_the_end(axis: Axes, run: xr.Dataset, shift: float, look: dict[str, Any]) -> None:
    """Draw the opponent model at the last record, for one learner and agent of a run."""
    final = opponents.by_part(run).isel(learner=0, agent=0, part=0, step=-1)
    if run.attrs["kind"] == "continuous":
        opponents.draw_density(axis, final["opponent_model"], opponents.range_of(run), {**look, "linewidth": 1.6})
        return
    x = opponents.draw_bars(axis, final["opponent_model"], shift, 0.32, look)
    if "opponent_policy" in final:
        actual = final["opponent_policy"].mean(["state", "replicate"])
        axis.plot(x, actual, "_", markersize=9, color="black", label="actual, at the end")
