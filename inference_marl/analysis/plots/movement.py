"""Figures of how beliefs change over a run."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from inference_marl.analysis.plots import drawing
from inference_marl.analysis.plots.opponents import MAX_LEARNERS, MAX_ROWS, chosen, evenly, some_of
from inference_marl.described import InspectError
from inference_marl.statistics.beliefs import opponent_types
from inference_marl.statistics.intervals import mean_band
from inference_marl.statistics.quantities import movement

MAX_LINES = len(drawing.PALETTE)
"""Lines that a panel shows: evenly spaced learners, or the most probable types."""


@drawing.styled
def belief_movement(posterior: xr.Dataset, learners: list[str] | None = None) -> Figure:
    """How far opponent models change from record to record (left), and when each seed's changes most (right).

    Total variation for discrete beliefs, 1-Wasserstein distance of draws for continuous ones; averaged over agents and
    states. The right panel shows the fraction of seeds whose largest change has happened.

    Args:
        posterior: as in `posterior.nc`, with two records or more.
        learners: which arms; as many as there is room for if `None`.

    Raises:
        InspectError: if no such learner has an opponent model, or there is one record only.
    """
    shown, left_out = chosen(posterior, learners, MAX_LINES)
    found = {learner: change for learner in shown if (change := movement(posterior, learner)) is not None}
    if not found:
        raise InspectError("step: got one record, expected two or more to see a change between them")
    discrete = posterior.attrs["kind"] == "discrete"
    figure, grid = drawing.panels(1, 2, (3.4, 2.6), sharey=False)
    times, label = drawing.time_axis(posterior)
    every = posterior["learner"].to_numpy().tolist()
    # As in the other figures, unless there are more learners than colours.
    look = drawing.looks(every if len(every) <= len(drawing.PALETTE) else shown)
    for learner, change in found.items():
        drawing.draw_band(grid[0][0], times[1:], mean_band(change["change"], bounds=(0, np.inf)), **look[learner])
        come = (change["at"] <= change["step"]).mean("replicate")
        grid[0][1].step(times[1:], come, where="post", **look[learner])
    unit = "total variation" if discrete else "1-Wasserstein distance"
    grid[0][0].set(ylabel=f"change of $\\rho$\nsince the last record\n({unit})", ylim=(0, None))
    grid[0][1].set(ylabel="share of seeds whose\nlargest change has come", ylim=drawing.PROBABILITY_AXIS)
    drawing.label_time(grid, times, label)
    drawing.shared_legend(figure, grid[0][0])
    drawing.heading(figure, posterior, "mean and 95 % interval" + left_out)
    return figure


@drawing.styled
def opponent_types_over_time(posterior: xr.Dataset) -> Figure:
    """Probabilities of the opponents' latent types over time, a column per learner with types, a row per agent.

    Averaged over states. Of many types the `MAX_LINES` most probable ones at the end are shown.

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
    figure, grid = drawing.panels(len(agents), len(learners), (3.0, 2.0))
    times, label = drawing.time_axis(posterior)
    for row, agent in zip(grid, agents, strict=True):
        for axis, learner in zip(row, learners, strict=True):
            here = values.sel(learner=learner).isel(agent=agent).mean("state").transpose("replicate", "step", ...)
            for i, kind in enumerate(shown):
                band = mean_band(here.isel(type=kind).to_numpy(), bounds=(0, 1))
                look = {"color": drawing.PALETTE[i], "linestyle": drawing.DASHES[i % len(drawing.DASHES)]}
                drawing.draw_band(axis, times, band, **look, label=names[kind])
            axis.set_ylim(drawing.PROBABILITY_AXIS)
        row[0].set_ylabel(f"agent {agent}\nP(opponents' type)")
    drawing.name_columns(grid, learners)
    drawing.label_time(grid, times, label)
    drawing.shared_legend(figure, grid[0][0])
    more = f"; {len(names) - MAX_LINES} less likely types not shown" if len(names) > MAX_LINES else ""
    drawing.heading(figure, posterior, f"mean and 95 % interval{more}{left_out}")
    return figure
