"""Heat maps of learners by opponents, of arms by games, and of beliefs by states."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from inference_marl.analysis.plots import drawing
from inference_marl.analysis.tables import number
from inference_marl.described import InspectError
from inference_marl.statistics.beliefs import EVERY_STATE, Numbers, about, places

CELL, LETTER = (0.62, 0.34), 0.066
"""Width and height of a cell, and width of a letter of the axis labels, in inches."""

MAX_STATES, MAX_ACTIONS, MAX_LEARNERS, MAX_PAIRS = 16, 12, 3, 4
"""Limits of beliefs by state: states (the most certain ones), actions (the first), learners (unless they are named),
and pairs of an agent and an opponent."""

SHORT = {"opponent_model": r"$\rho$", "opponent_prior": "$P$", "opponent_policy": "actual"}
"""Short names of beliefs above their heat maps."""


@drawing.styled
def heat_map(
    means: pd.DataFrame,
    title: str,
    note: str = "",
    limits: tuple[float, float] | None = None,
    failed: Collection[tuple[str, str]] = (),
    apart: int = 0,
) -> Figure:
    """A heat map of numbers, with grey cells where there are none.

    Args:
        means: numbers by row and column, with named axes.
        title: title of the figure.
        note: note at the top, in small grey letters.
        limits: limits of the colours; `None` gives every column its own, from 0 (or its smallest number, if that is
            negative) to its largest number.
        failed: rows and columns of cells marked as failed.
        apart: number of first columns that summarise the others and are separated by a gap.
    """
    numbers, rows, columns = means.to_numpy(np.float64), list(means.index), list(means.columns)
    low, high = limits or (np.fmin(np.fmin.reduce(numbers), 0), np.fmax.reduce(numbers))
    shade = (numbers - low) / np.maximum(np.subtract(high, low), 1e-12)
    names = max(map(len, columns)) * LETTER
    above, look = 0.7, {}
    if names > CELL[0]:
        above, look = 0.5 + names * 0.71, {"rotation": 45, "ha": "left", "rotation_mode": "anchor"}
    width = CELL[0] * len(columns) + LETTER * max(map(len, rows)) + 1.2
    figure, ((axis,),) = drawing.panels(1, 1, (width, CELL[1] * len(rows) + above))
    picture = shaded(axis, shade, rows, columns, **look)
    axis.set(facecolor="#f0f0f0", ylabel=means.index.name, xlabel=means.columns.name)
    axis.xaxis.tick_top()
    axis.xaxis.set_label_position("top")
    axis.spines[:].set_visible(False)
    for (i, j), mean in np.ndenumerate(numbers):
        text = "failed" if (rows[i], columns[j]) in failed else number(mean, 2)
        colour = "white" if shade[i, j] > 0.55 else "#333333"  # legible on dark and light cells
        axis.text(j, i, text, ha="center", va="center", fontsize=8, color=colour)
    _separate(axis, numbers.shape, apart)
    if limits:
        bar = figure.colorbar(picture, ax=axis, aspect=16, fraction=0.06)
        bar.set_ticks([0, 0.5, 1], labels=[number(tick, 2) for tick in np.linspace(*limits, 3)])
        bar.outline.set_visible(False)
    own = "" if limits else "every column has its own range of colours"
    return drawing.finish(figure, f"{title}\n{'; '.join(part for part in (note, own) if part)}")


def _separate(axis: Axes, shape: tuple[int, ...], apart: int) -> None:
    """Draw white lines between cells, and a broad one after separated columns."""
    for j in range(1, shape[1]):
        axis.axvline(j - 0.5, color="white", linewidth=6 if j == apart else 1)
    for i in range(1, shape[0]):
        axis.axhline(i - 0.5, color="white", linewidth=1)


def shaded(axis: Axes, shares: Numbers, rows: Sequence[str], columns: Sequence[str], **look: Any) -> AxesImage:
    """Draw cells shaded by numbers from 0 to 1, with names of rows and, in style `look`, of columns."""
    picture = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axis.set_xticks(range(len(columns)), columns, **look)
    axis.set_yticks(range(len(rows)), rows)
    axis.tick_params(length=0)
    axis.grid(False)
    return picture


@drawing.styled
def beliefs_by_state(posterior: xr.Dataset, learners: list[str] | None = None) -> Figure:
    """Heat maps by state and action of opponent model, prior and the opponents' actual policy at the last record.

    They show means over replicates of discrete beliefs, in a row per agent and opponent, with three maps per learner.

    Args:
        posterior: the dataset of `posterior.nc`, with several states and discrete actions.
        learners: names of the arms; `None` for as many as fit.

    Raises:
        InspectError: if no such learner has an opponent model, or beliefs are continuous, in a single state, or
            recorded only in visited states.
    """
    shown, left_out = drawing.modellers(posterior, learners, MAX_LEARNERS)
    if posterior.attrs["kind"] != "discrete" or posterior.sizes["state"] < 2 or places(posterior) != EVERY_STATE:
        raise InspectError(
            "posterior: got beliefs in one state, where agents were, or of continuous actions, expected several states"
        )
    agents, actions = posterior.sizes["agent"], posterior.sizes["opponent_action"]
    pairs = [(agent, other) for agent in range(agents) for other in range(agents) if other != agent]
    columns = [(learner, name) for learner in shown for name in SHORT if name in posterior]
    final = posterior.isel(step=[-1])
    states = _surest(final, shown)
    size = (max(1.15, 0.55 + 0.28 * min(actions, MAX_ACTIONS)), 0.6 + 0.22 * len(states))
    figure, grid = drawing.panels(len(pairs[:MAX_PAIRS]), len(columns), size, sharex="row")
    for axes, (agent, opponent) in zip(grid, pairs, strict=False):
        beliefs = about(final, agent, opponent).isel(agent=0, step=0, state=states).mean("replicate")
        for axis, (learner, name) in zip(axes, columns, strict=True):
            values = beliefs[name].sel(learner=learner).isel(opponent_action=slice(MAX_ACTIONS))
            ticks = [values[dim].to_numpy().astype(str).tolist() for dim in ("state", "opponent_action")]
            picture = shaded(axis, values.transpose("state", "opponent_action").to_numpy(), *ticks)
        axes[0].set_ylabel(f"agent {agent} on agent {opponent}" if agents > 2 else f"agent {agent}")
    for axis, (learner, name) in zip(grid[0], columns, strict=True):
        drawing.note_above(axis, SHORT[name], 0.5, fontsize=9, ha="center")
        if name == columns[0][1]:  # the learner's first
            axis.set_title(learner, loc="left", pad=18)
    figure.supxlabel("opponent's action", fontsize=9)
    figure.colorbar(picture, ax=grid, label="probability", shrink=0.8, aspect=24)
    cut = drawing.not_shown(final.sizes["state"], MAX_STATES, "states with less sure beliefs")
    cut += f"; first {MAX_ACTIONS} actions" if actions > MAX_ACTIONS else ""
    cut += drawing.not_shown(len(pairs), MAX_PAIRS, "more pairs of agents")
    return drawing.finish(figure, f"means at the last record{cut}{left_out}", of=posterior)


def _surest(final: xr.Dataset, learners: list[str]) -> list[int]:
    """Sorted indices of the states in which the opponent models are most certain, on average over replicates."""
    model = final["opponent_model"].sel(learner=learners)
    sure = model.max("opponent_action").mean([dim for dim in model.dims if dim not in ("state", "opponent_action")])
    order = np.argsort(-sure.fillna(0).to_numpy(), kind="stable")
    return sorted(order[:MAX_STATES].tolist())
