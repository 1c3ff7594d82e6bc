"""Figures of beliefs state by state."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inference_marl.analysis.plots import drawing
from inference_marl.analysis.plots.opponents import chosen
from inference_marl.described import InspectError
from inference_marl.statistics.beliefs import about

MAX_STATES = 16
"""States that a heat map shows: those where the opponent model is most certain."""

MAX_ACTIONS = 12
"""First actions of the opponents that a heat map shows."""

MAX_LEARNERS = 3
"""Learners whose beliefs are shown, three heat maps each, unless they are named."""

MAX_PAIRS = 4
"""Pairs of an agent and one of its opponents, one row of heat maps each."""

SHADES = mpl.colormaps["Blues"]


@drawing.styled
def beliefs_by_state(posterior: xr.Dataset, learners: list[str] | None = None) -> Figure:
    """Opponent model, prior and the opponents' actual policy at the last record: heat maps of states by actions.

    Means over replicates of discrete beliefs; a row per agent and opponent of it, three heat maps per learner.

    Args:
        posterior: as in `posterior.nc`, with several states and discrete actions.
        learners: which arms; as many as there is room for if `None`.

    Raises:
        InspectError: if no such learner has an opponent model, or beliefs have one state only or are continuous.
    """
    shown, left_out = chosen(posterior, learners, MAX_LEARNERS)
    if posterior.attrs["kind"] != "discrete" or posterior.sizes["state"] < 2:
        raise InspectError("posterior: got beliefs in one state or about continuous actions, expected several states")
    agents, actions = posterior.sizes["agent"], posterior.sizes["opponent_action"]
    pairs = [(agent, other) for agent in range(agents) for other in range(agents) if other != agent]
    columns = [(learner, name) for learner in shown for name in drawing.ROLES if name in posterior]
    final = posterior.isel(step=[-1])
    states = _surest(final, shown)
    size = (max(1.15, 0.55 + 0.28 * min(actions, MAX_ACTIONS)), 0.6 + 0.22 * len(states))
    figure, grid = drawing.panels(len(pairs[:MAX_PAIRS]), len(columns), size, sharex="row")
    labels = final["state"].to_numpy() if "state" in final.coords else np.arange(final.sizes["state"])
    for row, (agent, opponent) in zip(grid, pairs[:MAX_PAIRS], strict=True):
        beliefs = about(final, agent, opponent).isel(agent=0, step=0, state=states)
        for axis, (learner, name) in zip(row, columns, strict=True):
            values = beliefs[name].sel(learner=learner).mean("replicate").transpose("state", "opponent_action")
            picture = _heat(axis, values)
        row[0].set_yticks(range(len(states)), [str(label) for label in labels[states]])
        row[0].set_ylabel(f"agent {agent} on agent {opponent}" if agents > 2 else f"agent {agent}")
    _head(grid[0], columns)
    figure.supxlabel("opponent's action", fontsize=9)
    figure.colorbar(picture, ax=[axis for row in grid for axis in row], label="probability", shrink=0.8, aspect=24)
    cut = {
        f"{len(labels) - len(states)} states with less sure beliefs not shown": len(labels) > len(states),
        f"first {MAX_ACTIONS} actions": actions > MAX_ACTIONS,
        f"{len(pairs) - MAX_PAIRS} more pairs of agents not shown": len(pairs) > MAX_PAIRS,
    }
    what = "; ".join(["means at the last record", *(words for words, is_cut in cut.items() if is_cut)])
    drawing.heading(figure, posterior, what + left_out)
    return figure


def _head(axes: list[Axes], columns: list[tuple[str, str]]) -> None:
    """What the columns are: beliefs, and learners above the first of theirs."""
    short = {"opponent_model": r"$\rho$", "opponent_prior": "$P$", "opponent_policy": "actual"}
    for axis, (learner, name) in zip(axes, columns, strict=True):
        at = axis.annotate(short[name], (0.5, 1), (0, 4), xycoords="axes fraction", textcoords="offset points")
        at.set(fontsize=9, ha="center")
        if name == columns[0][1]:
            axis.set_title(learner, loc="left", pad=18)


def _surest(final: xr.Dataset, learners: list[str]) -> list[int]:
    """Sorted indices of the states in which the opponent models are most certain, on average over replicates."""
    model = final["opponent_model"].sel(learner=learners)
    sure = model.max("opponent_action").mean([dim for dim in model.dims if dim not in ("state", "opponent_action")])
    order = np.argsort(-sure.fillna(0).to_numpy(), kind="stable")
    return sorted(order[:MAX_STATES].tolist())


def _heat(axis: Axes, values: xr.DataArray) -> mpl.image.AxesImage:
    """One heat map of `state x opponent_action`."""
    shown = values.isel(opponent_action=slice(MAX_ACTIONS))
    picture = axis.imshow(shown.to_numpy(), cmap=SHADES, vmin=0, vmax=1, aspect="auto")
    names = shown["opponent_action"].to_numpy().tolist() if "opponent_action" in shown.coords else []
    axis.set_xticks(range(len(names)), [str(name) for name in names])
    axis.grid(False)
    axis.tick_params(length=0)
    return picture
