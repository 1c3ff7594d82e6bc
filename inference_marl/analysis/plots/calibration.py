"""Figures of the calibration of beliefs and of their change over time."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inference_marl.analysis.plots import drawing
from inference_marl.analysis.tables import number
from inference_marl.described import InspectError
from inference_marl.statistics.calibration import Calibration, calibration, ranks
from inference_marl.statistics.intervals import mean_band, mean_interval
from inference_marl.statistics.quantities import movement
from inference_marl.types import POSITIVE

BARS = "#c3d9e8"
RANK_BINS = 10


@drawing.styled
def reliability(posterior: xr.Dataset, learners: list[str] | None = None) -> Figure:
    """Reliability diagrams of the opponent models over the whole run, a column per learner.

    Discrete: the frequency of an action against rho's probability of it; below, the fraction of forecasts in each bin.
    Continuous: actual against nominal coverage of rho's central intervals; below, the ranks of the opponents' actions
    among the draws at the last record, uniform if calibrated. Calibrated beliefs are on the diagonal.

    Args:
        posterior: the dataset of `posterior.nc`.
        learners: names of the arms; `None` for as many as fit.

    Raises:
        InspectError: if no such learner has an opponent model, or the opponents' policy is unknown.
    """
    shown, left_out = drawing.modellers(posterior, learners)
    discrete = posterior.attrs["kind"] == "discrete"
    figure, (upper, lower) = drawing.panels(2, len(shown), (2.7, 2.0), sharey="row", height_ratios=(2.4, 1))
    notes = []
    for above, below, learner in zip(upper, lower, shown, strict=True):
        found = calibration(posterior, learner)
        if found is None:
            raise InspectError("posterior: got no opponent_policy, expected the opponents' actual policy")
        _diagonal(above, found)
        overconfidence = number(mean_interval(found.overconfidence).mean)
        notes.append(f"error {number(found.error.mean)}, overconfidence {overconfidence}")
        if discrete:
            width = 1 / len(found.share)
            below.bar(width * (np.arange(len(found.share)) + 0.5), found.share, 0.9 * width, color=BARS)
            below.set_ylim(0, 1)
        else:
            at = ranks(posterior, learner)
            if at is not None and len(at):
                weights = np.full(len(at), RANK_BINS / len(at))
                below.hist(at, bins=RANK_BINS, range=(0, 1), weights=weights, color=BARS, rwidth=0.9)
            below.axhline(1, color="#999999", linewidth=0.8)
    drawing.titles(upper, shown, notes)
    upper[0].set_ylabel("opponents play it" if discrete else "actual coverage")
    lower[0].set_ylabel("share of\nforecasts" if discrete else "density\nof ranks")
    for axis in lower:
        axis.set_xlabel(r"probability under $\rho$" if discrete else "nominal coverage, and rank (below)")
    what = "whole run" if discrete else "coverage: whole run, ranks: last record"
    return drawing.finish(figure, what + left_out, upper[0], of=posterior)


def _diagonal(axis: Axes, found: Calibration) -> None:
    """One reliability diagram."""
    axis.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=drawing.DASHES[1], label="calibrated")
    real = np.isfinite(found.forecast)
    look: dict[str, Any] = {"color": drawing.PALETTE[0], "marker": "o", "markersize": 4, "linewidth": 1.4}
    look |= {"capsize": 2, "elinewidth": 1, "label": r"opponent model $\rho$, 95 % interval"}
    outcome, lengths = found.outcome.mean[real], drawing.error_lengths(found.outcome)[:, real]
    axis.errorbar(found.forecast[real], outcome, lengths, **look)
    axis.set(xlim=(-0.02, 1.02), ylim=drawing.PROBABILITY_AXIS)


@drawing.styled
def belief_movement(posterior: xr.Dataset, learners: list[str] | None = None) -> Figure:
    """Change of opponent models between records (left), and time of each seed's largest change (right).

    The change is total variation for discrete beliefs and 1-Wasserstein distance of draws for continuous ones, averaged
    over agents and states. The right panel shows the fraction of seeds whose largest change has happened.

    Args:
        posterior: the dataset of `posterior.nc`, with two records or more.
        learners: names of the arms; `None` for as many as fit.

    Raises:
        InspectError: if no such learner has an opponent model, or there is only one record.
    """
    shown, left_out = drawing.modellers(posterior, learners, len(drawing.PALETTE))
    found = {learner: change for learner in shown if (change := movement(posterior, learner)) is not None}
    if not found:
        raise InspectError("step: got one record, expected two or more to see a change between them")
    figure, ((left, right),) = drawing.panels(1, 2, (3.4, 2.6), sharey=False)
    times, label = drawing.time_axis(posterior)
    every = posterior["learner"].to_numpy().tolist()
    # As in other figures, unless there are more learners than colours.
    look = drawing.looks(every if len(every) <= len(drawing.PALETTE) else shown)
    for learner, change in found.items():
        drawing.draw_band(left, times[1:], mean_band(change["change"], bounds=POSITIVE), **look[learner])
        come = (change["at"] <= change["step"]).mean("replicate")
        right.step(times[1:], come, where="post", **look[learner])
    unit = "total variation" if posterior.attrs["kind"] == "discrete" else "1-Wasserstein distance"
    left.set(ylabel=f"change of $\\rho$\nsince the last record\n({unit})", ylim=(0, None))
    right.set(ylabel="share of seeds whose\nlargest change has come", ylim=drawing.PROBABILITY_AXIS)
    drawing.label_time([[left, right]], times, label)
    return drawing.finish(figure, "mean and 95 % interval" + left_out, left, of=posterior)
