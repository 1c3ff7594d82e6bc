"""Figures of how beliefs move over a run; `inference_marl.analysis.plots` gathers them with the others."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from inference_marl.analysis.plots.drawing import (
    DASHES,
    PALETTE,
    draw_band,
    heading,
    label_time,
    looks,
    panels,
    shared_legend,
    styled,
    time_axis,
)
from inference_marl.analysis.plots.drawing import title as panel_title
from inference_marl.analysis.plots.opponents import MAX_LEARNERS, MAX_ROWS, chosen, evenly, left_out_learners, some_of
from inference_marl.analysis.posterior import InspectError
from inference_marl.statistics.beliefs import opponent_types
from inference_marl.statistics.changes import belief_change
from inference_marl.statistics.intervals import mean_band

MAX_LINES = len(PALETTE)
"""Lines that a panel tells apart: of learners evenly spaced ones, of types the likeliest."""


@styled
def belief_movement(posterior: xr.Dataset, learners: list[str] | None = None) -> Figure:
    """How far the opponent models move from record to record (left), and when each seed's moves most (right).

    Total variation for discrete beliefs, 1-Wasserstein distance of draws for continuous ones; averaged over agents and
    states. On the right the share of seeds whose largest change has come.

    Args:
        posterior: as in `posterior.nc`, with two records or more.
        learners: which arms; as many as there is room for if `None`.

    Raises:
        InspectError: if no such learner has an opponent model, or there is one record only.
    """
    shown = chosen(posterior, learners, MAX_LINES)
    found = {learner: change for learner in shown if (change := belief_change(posterior, learner)) is not None}
    if not found:
        raise InspectError("step: got one record, expected two or more to see a change between them")
    discrete = posterior.attrs["kind"] == "discrete"
    figure, grid = panels(1, 2, (3.4, 2.6), sharey=False)
    times, label = time_axis(posterior)
    every = posterior["learner"].to_numpy().tolist()
    # As in the other figures, unless there are more learners than colours.
    look = looks(every if len(every) <= len(PALETTE) else shown)
    for learner, change in found.items():
        draw_band(grid[0][0], times[1:], mean_band(change.curve, bounds=(0, np.inf)), **look[learner])
        come = (change.at[:, None] <= change.steps).mean(0)
        grid[0][1].step(times[1:], come, where="post", **look[learner])
    unit = "total variation" if discrete else "1-Wasserstein distance"
    grid[0][0].set(ylabel=f"change of $\\rho$\nsince the last record\n({unit})", ylim=(0, None))
    grid[0][1].set(ylabel="share of seeds whose\nlargest change has come", ylim=(-0.03, 1.03))
    label_time(grid, times, label)
    shared_legend(figure, grid[0][0])
    heading(figure, posterior, "mean and 95 % interval" + left_out_learners(posterior, learners, shown))
    return figure


@styled
def opponent_types_over_time(posterior: xr.Dataset) -> Figure:
    """Probabilities of the opponents' latent types over time, a column per learner with types, a row per agent.

    Averaged over states. Of many types the `MAX_LINES` that are likeliest at the end are shown.

    Args:
        posterior: as in `posterior.nc`.

    Raises:
        InspectError: if no learner's prior has types.
    """
    values = posterior.get("opponent_type", xr.DataArray()).astype(np.float64)
    having = values.notnull().any([dim for dim in values.dims if dim not in ("learner", "agent")])
    if not bool(having.any()):
        raise InspectError("opponent_type: got no learner whose prior has types, expected at least one")
    every = having["learner"].to_numpy()[having.any("agent").to_numpy()].tolist()
    learners = evenly(every, MAX_LEARNERS)
    agents = np.flatnonzero(having.any("learner").to_numpy()).tolist()
    left_out = f"; {len(agents) - MAX_ROWS} more rows not shown" if len(agents) > MAX_ROWS else ""
    left_out += some_of(every, learners)
    agents = agents[:MAX_ROWS]
    names = opponent_types(posterior)
    likeliest = values.isel(step=-1).mean([dim for dim in values.dims if dim not in ("step", "type")])
    shown = sorted(np.argsort(-likeliest.fillna(0).to_numpy())[:MAX_LINES].tolist())
    figure, grid = panels(len(agents), len(learners), (3.0, 2.0))
    times, label = time_axis(posterior)
    for row, agent in zip(grid, agents, strict=True):
        for axis, learner in zip(row, learners, strict=True):
            here = values.sel(learner=learner).isel(agent=agent).mean("state").transpose("replicate", "step", ...)
            for i, kind in enumerate(shown):
                band = mean_band(here.isel(type=kind).to_numpy(), bounds=(0, 1))
                draw_band(axis, times, band, color=PALETTE[i], linestyle=DASHES[i % len(DASHES)], label=names[kind])
            axis.set_ylim(-0.03, 1.03)
        row[0].set_ylabel(f"agent {agent}\nP(opponents' type)")
    for axis, learner in zip(grid[0], learners, strict=True):
        panel_title(axis, learner)
    label_time(grid, times, label)
    shared_legend(figure, grid[0][0])
    more = f"; {len(names) - MAX_LINES} less likely types not shown" if len(names) > MAX_LINES else ""
    heading(figure, posterior, f"mean and 95 % interval{more}{left_out}")
    return figure
