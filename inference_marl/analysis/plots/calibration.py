"""Figures of how well beliefs are calibrated; `inference_marl.analysis.plots` gathers them with the others."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inference_marl.analysis.plots.drawing import ROLES, heading, panels, shared_legend, styled, title
from inference_marl.analysis.plots.opponents import chosen, left_out_learners
from inference_marl.analysis.report.tables import number
from inference_marl.statistics.calibration import Calibration, calibration, ranks
from inference_marl.statistics.intervals import mean_interval

BARS = "#c3d9e8"
RANK_BINS = 10


@styled
def reliability(posterior: xr.Dataset, learners: list[str] | None = None) -> Figure:
    """Reliability diagrams of the opponent models over the whole run, a column per learner.

    Discrete: how often an action is played against rho's probability of it, with the share of forecasts in each bin
    below. Continuous: actual against nominal coverage of rho's central intervals, and below the ranks of the opponents'
    actions among the draws at the last record, flat if calibrated. On the diagonal beliefs are calibrated.

    Args:
        posterior: as in `posterior.nc`.
        learners: which arms; as many as there is room for if `None`.

    Raises:
        InspectError: if no such learner has an opponent model.
    """
    shown = chosen(posterior, learners)
    discrete = posterior.attrs["kind"] == "discrete"
    figure, grid = panels(2, len(shown), (2.7, 2.0), sharex=True, sharey="row", heights=(2.4, 1))
    for upper, lower, learner in zip(*grid, shown, strict=True):
        found = calibration(posterior, learner)
        if found is None:
            continue
        _diagonal(upper, found)
        title(upper, learner, f"error {number(found.error.mean)}, overconfidence {_mean(found)}")
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
    shared_legend(figure, upper)
    what = "whole run" if discrete else "coverage: whole run, ranks: last record"
    heading(figure, posterior, what + left_out_learners(posterior, learners, shown))
    return figure


def _diagonal(axis: Axes, found: Calibration) -> None:
    """One reliability diagram."""
    axis.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=(0, (5, 1.5)), label="calibrated")
    real = np.isfinite(found.forecast)
    x, band = found.forecast[real], found.outcome
    mean, low, high = (np.asarray(each)[real] for each in (band.mean, band.low, band.high))
    errors = np.nan_to_num(np.stack([mean - low, high - mean])).clip(0)
    look = {"color": ROLES["opponent_model"]["color"], "linewidth": 1.4, "marker": "o", "markersize": 4}
    axis.errorbar(x, mean, errors, capsize=2, elinewidth=1, **look, label=r"opponent model $\rho$, 95 % interval")
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.03, 1.03))


def _mean(found: Calibration) -> str:
    return number(mean_interval(found.overconfidence).mean)
