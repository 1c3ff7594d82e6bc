"""Figures of how well beliefs are calibrated."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inference_marl.analysis.plots import drawing
from inference_marl.analysis.plots.opponents import chosen
from inference_marl.analysis.tables import number
from inference_marl.statistics.calibration import Calibration, calibration, ranks
from inference_marl.statistics.intervals import Band, mean_interval

BARS = "#c3d9e8"
RANK_BINS = 10


@drawing.styled
def reliability(posterior: xr.Dataset, learners: list[str] | None = None) -> Figure:
    """Reliability diagrams of the opponent models over the whole run, a column per learner.

    Discrete: how often an action is played against rho's probability of it; below, the fraction of forecasts in each
    bin. Continuous: actual against nominal coverage of rho's central intervals; below, the ranks of the opponents'
    actions among the draws at the last record, uniform if calibrated. On the diagonal beliefs are calibrated.

    Args:
        posterior: as in `posterior.nc`.
        learners: which arms; as many as there is room for if `None`.

    Raises:
        InspectError: if no such learner has an opponent model.
    """
    shown, left_out = chosen(posterior, learners)
    discrete = posterior.attrs["kind"] == "discrete"
    figure, grid = drawing.panels(2, len(shown), (2.7, 2.0), sharex=True, sharey="row", heights=(2.4, 1))
    for upper, lower, learner in zip(*grid, shown, strict=True):
        found = calibration(posterior, learner)
        if found is None:
            continue
        _diagonal(upper, found)
        drawing.title(upper, learner, f"error {number(found.error.mean)}, overconfidence {_mean(found)}")
        if discrete:
            width = 1 / len(found.share)
            lower.bar(width * (np.arange(len(found.share)) + 0.5), found.share, 0.9 * width, color=BARS)
            lower.set_ylim(0, 1)
        else:
            at = ranks(posterior, learner)
            if at is not None and len(at):
                weights = np.full(len(at), RANK_BINS / len(at))
                lower.hist(at, bins=RANK_BINS, range=(0, 1), weights=weights, color=BARS, rwidth=0.9)
            lower.axhline(1, color="#999999", linewidth=0.8)
    upper, lower = grid[0][0], grid[1][0]
    upper.set_ylabel("opponents play it" if discrete else "actual coverage")
    lower.set_ylabel("share of\nforecasts" if discrete else "density\nof ranks")
    for axis in grid[1]:
        axis.set_xlabel(r"probability under $\rho$" if discrete else "nominal coverage, and rank (below)")
    drawing.shared_legend(figure, upper)
    what = "whole run" if discrete else "coverage: whole run, ranks: last record"
    drawing.heading(figure, posterior, what + left_out)
    return figure


def _diagonal(axis: Axes, found: Calibration) -> None:
    """One reliability diagram."""
    axis.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=(0, (5, 1.5)), label="calibrated")
    real = np.isfinite(found.forecast)
    band = Band(*(each[real] for each in (found.outcome.mean, found.outcome.low, found.outcome.high)))
    look: dict[str, Any] = {"color": drawing.ROLES["opponent_model"]["color"], "marker": "o", "markersize": 4}
    look |= {"linewidth": 1.4, "label": r"opponent model $\rho$, 95 % interval"}
    axis.errorbar(found.forecast[real], band.mean, drawing.error_lengths(band), capsize=2, elinewidth=1, **look)
    axis.set(xlim=(-0.02, 1.02), ylim=drawing.PROBABILITY_AXIS)


def _mean(found: Calibration) -> str:
    return number(mean_interval(found.overconfidence).mean)
