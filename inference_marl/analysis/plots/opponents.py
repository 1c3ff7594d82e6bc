"""Figures of learners' beliefs about their opponents, over time and at the last record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inference_marl.analysis.plots import drawing
from inference_marl.described import InspectError
from inference_marl.statistics.beliefs import as_array, opponent_types, optimum_probability
from inference_marl.statistics.intervals import FloatArray, mean_band
from inference_marl.types import PROBABILITY

MAX_ROWS, MAX_TYPES = 6, len(drawing.PALETTE)
"""Maximum numbers of rows (agents, opponents and dimensions of actions) and of types of opponents in a figure, which
says how many it omits."""

MAX_STACKED = 2
"""Maximum number of learners in the figure of all agents' beliefs about each other, unless they are named."""


@drawing.styled
def beliefs(posterior: xr.Dataset, learners: list[str] | None = None, replicate: int | None = None) -> Figure:
    """Opponent model, prior and the opponents' actual policy over time, with a column per learner and a row per agent.

    As in Fig. 1c and 2c of Tian et al. (2019), it shows the probability of the opponents' part of the optimum (of their
    first action if no optimum is known), or for continuous actions their mean action with the outer deciles of all
    draws, since the mean of two modes is near neither. Values are averaged over states.

    Args:
        posterior: the dataset of `posterior.nc`.
        learners: names of the arms; `None` for up to `MAX_LEARNERS` with an opponent model.
        replicate: a single replicate to show, as in the paper; `None` for the mean and 95 % interval over replicates.

    Raises:
        InspectError: if no such learner has an opponent model.
    """
    shown, left_out = drawing.modellers(posterior, learners)
    tracked = tracked_beliefs(posterior)
    panels = _Panels(tracked["opponent_model"].sel(learner=shown), shown, (3.0, 2.0))
    _over_time(panels, tracked, drawing.ROLES, replicate)
    for axes, (agent, part) in zip(panels.axes, panels.rows, strict=True):
        axes[0].set_ylabel(f"agent {agent}\n{_tracked_name(posterior, agent, part)}")
        if posterior.attrs["kind"] == "continuous" and "optimal_opponent_action" in posterior:
            best = float(by_part(posterior, ["optimal_opponent_action"]).isel(agent=agent, part=part).to_dataarray()[0])
            for axis in axes:
                axis.axhline(best, color="#999999", linewidth=0.8, zorder=0.5)
    what = "mean and 95 % interval" if replicate is None else f"replicate {replicate} alone"
    if posterior.attrs["kind"] == "continuous":
        _deciles(panels, posterior if replicate is None else posterior.isel(replicate=[replicate]))
        what += ", dotted: outer deciles"
    return drawing.finish(panels.figure, what + panels.left_out + left_out, panels.axes[0, 0], of=posterior)


class _Panels:
    """Panels with a column for each learner, and a row for each agent and part that has `values`."""

    def __init__(self, values: xr.DataArray, learners: list[str], size: tuple[float, float], **shared: Any) -> None:
        having = values.notnull().any([dim for dim in values.dims if dim not in ("agent", "part")])
        pairs = np.argwhere(having.transpose("agent", "part").to_numpy()).tolist()
        self.learners, self.rows = learners, pairs[:MAX_ROWS]
        self.left_out = drawing.not_shown(len(pairs), MAX_ROWS, "more rows")
        self.figure, self.axes = drawing.panels(len(self.rows), len(learners), size, **shared)
        drawing.titles(self.axes[0], learners)

    def with_values(self, dataset: xr.Dataset) -> Iterator[tuple[Axes, xr.Dataset]]:
        """Iterate over panels and the dataset's values for their learner, agent and part."""
        for (i, j), axis in np.ndenumerate(self.axes):
            agent, part = self.rows[i]
            yield axis, dataset.sel(learner=self.learners[j]).isel(agent=agent, part=part)


def _over_time(panels: _Panels, curves: xr.Dataset, looks: Mapping[Any, drawing.Look], replicate: int | None) -> None:
    """Draw mean and 95 % interval, or one replicate, of curves `learner x replicate x step x agent x part`."""
    x, label = drawing.time_axis(curves)
    for axis, here in panels.with_values(curves):
        for name in here:
            values = as_array(here[name], "replicate", "step")
            if not np.isnan(values).all():
                band = mean_band(values if replicate is None else values[[replicate]], bounds=range_of(curves))
                drawing.draw_band(axis, x, band, **looks[name])
        if curves.attrs["kind"] == "discrete":
            axis.set_ylim(drawing.PROBABILITY_AXIS)
    drawing.label_time(panels.axes, x, label)


def _deciles(panels: _Panels, posterior: xr.Dataset) -> None:
    """Draw the first and the last decile of all replicates' draws over time."""
    x, _ = drawing.time_axis(posterior)
    for axis, here in panels.with_values(by_part(posterior).astype(np.float64)):
        for name, values in here.items():
            known = values.dropna("replicate", how="all").dropna("step", how="all")
            if known.size:
                ends = known.quantile([0.1, 0.9], ["replicate", "draw", "state"]).reindex(step=posterior["step"])
                colour = drawing.ROLES[str(name)]["color"]
                axis.plot(x, ends.transpose("step", "quantile"), color=colour, linestyle=":", linewidth=0.8)


def tracked_beliefs(posterior: xr.Dataset) -> xr.Dataset:
    """The values that `beliefs` shows, for every belief: `learner x replicate x step x agent x part`."""
    found = by_part(posterior)
    if posterior.attrs["kind"] == "continuous":
        return found.mean(["draw", "state"], keep_attrs=True)
    if "optimal_opponent_action" in posterior:
        probabilities = {name: optimum_probability(posterior, str(name)) for name in found}
        known = xr.Dataset(probabilities, attrs=posterior.attrs)
        return known.rename(other="part") if "other" in known.sizes else known.expand_dims(part=1)
    return found.isel(opponent_action=0, drop=True).mean("state", keep_attrs=True)


def by_part(posterior: xr.Dataset, names: Iterable[str] = tuple(drawing.ROLES)) -> xr.Dataset:
    """Beliefs about opponents, with a dimension `part` over opponents and, for continuous actions, their dimensions."""
    found = posterior[[name for name in names if name in posterior]]
    apart = [dim for dim in ("other", "opponent_dim") if dim in found.sizes]
    return found.stack(part=apart, create_index=False) if apart else found.expand_dims(part=1)


def _of_whom(posterior: xr.Dataset, part: int) -> tuple[str, int]:
    """The opponent of a part, named if there are several, and the dimension of its action."""
    other, dim = divmod(part, posterior.sizes.get("opponent_dim", 1))
    return (f"agent {other}" if "other" in posterior.sizes else ""), dim


def range_of(posterior: xr.Dataset) -> tuple[float, float]:
    """The range of `tracked_beliefs`: that of probabilities or of continuous actions."""
    return PROBABILITY if posterior.attrs["kind"] == "discrete" else (posterior.attrs["low"], posterior.attrs["high"])


def _tracked_name(posterior: xr.Dataset, agent: int, part: int) -> str:
    whom, dim = _of_whom(posterior, part)
    if posterior.attrs["kind"] == "continuous":
        return f"{whom or 'opponent'}'s mean action" + (f" (dim {dim})" if posterior.sizes["opponent_dim"] > 1 else "")
    names, best = posterior["opponent_action"].to_numpy(), posterior.get("optimal_opponent_action")
    if best is None:
        followed = names[:1]
    else:
        whose = {"agent": agent} | ({"other": part} if "other" in best.sizes else {})
        followed = names[best.isel(whose).to_numpy().astype(bool)]
    return f"P({whom or 'opponent'} plays {' or '.join(map(str, followed))})"


@drawing.styled
def opponent_types_over_time(posterior: xr.Dataset) -> Figure:
    """Probabilities of the opponents' types over time, with a column per learner that has types and a row per agent.

    Values are averaged over states. At most the `MAX_TYPES` types that are most probable at the end are shown.

    Args:
        posterior: the dataset of `posterior.nc`.

    Raises:
        InspectError: if no learner's prior has types.
    """
    values = posterior.get("opponent_type", xr.DataArray()).astype(np.float64)
    having = values.notnull().any([dim for dim in values.dims if dim != "learner"])
    if not having.any():
        raise InspectError("opponent_type: got no learner whose prior has types, expected at least one")
    learners, left_out = drawing.some_of(having["learner"].to_numpy()[having.to_numpy()].tolist())
    panels = _Panels(values.expand_dims(part=1), learners, (3.0, 2.0))
    names = opponent_types(posterior)
    likeliest = values.isel(step=-1).mean([dim for dim in values.dims if dim not in ("step", "type")])
    shown = sorted(np.argsort(-likeliest.fillna(0).to_numpy())[:MAX_TYPES].tolist())
    curves = xr.Dataset({kind: values.isel(type=kind, drop=True).mean("state") for kind in shown}).expand_dims(part=1)
    looks = {kind: {**drawing.look(i), "label": names[kind]} for i, kind in enumerate(shown)}
    _over_time(panels, curves.assign_attrs({**posterior.attrs, "kind": "discrete"}), looks, None)
    for axes, (agent, _) in zip(panels.axes, panels.rows, strict=True):
        axes[0].set_ylabel(f"agent {agent}\nP(opponents' type)")
    cut = drawing.not_shown(len(names), MAX_TYPES, "less likely types") + panels.left_out + left_out
    return drawing.finish(panels.figure, f"mean and 95 % interval{cut}", *panels.axes.flat, of=posterior)


@drawing.styled
def opponent_action_bars(posterior: xr.Dataset, learners: list[str] | None = None) -> Figure:
    """Opponent model, prior and the opponents' actual policy at the last record, with a column per learner.

    Discrete: bars of means over replicates with 95 % intervals. Continuous: densities of all replicates' draws. Values
    are averaged over states.

    Args:
        posterior: the dataset of `posterior.nc`.
        learners: names of the arms; `None` for up to `MAX_LEARNERS` with an opponent model.

    Raises:
        InspectError: if no such learner has an opponent model.
    """
    shown, left_out = drawing.modellers(posterior, learners)
    discrete, last = posterior.attrs["kind"] == "discrete", by_part(posterior).isel(step=-1)
    panels = _Panels(last["opponent_model"].sel(learner=shown), shown, (2.7, 1.9), sharey=discrete)
    for axis, here in panels.with_values(last):
        _draw_beliefs(axis, here, posterior)
    for axes, (agent, part) in zip(panels.axes, panels.rows, strict=True):
        whom, number = _of_whom(posterior, part)
        dim = f", dim {number}" if posterior.sizes.get("opponent_dim", 1) > 1 else ""
        axes[0].set_ylabel(f"agent {agent}{whom and ' on '}{whom}{dim}\n{'probability' if discrete else 'density'}")
    for axis in panels.axes[-1]:
        axis.set_xlabel("opponents' action")
    what = f"at the end, {'mean and 95 % interval' if discrete else 'all draws'}{panels.left_out}{left_out}"
    return drawing.finish(panels.figure, what, panels.axes[0, 0], of=posterior)


@drawing.styled
def who_believes_what(posterior: xr.Dataset, learners: list[str] | None = None) -> Figure:
    """All agents' beliefs about each other at the last record: a row per agent, and a column per agent believed about.

    They are opponent model, prior and actual policy, averaged over states: bars of means over replicates with 95 %
    intervals, or densities of draws of a continuous action's first dimension. The diagonal shows the agent's own
    policy.

    Args:
        posterior: the dataset of `posterior.nc`, with three or more agents.
        learners: names of the arms, one below the other; `None` for up to `MAX_STACKED` with an opponent model.

    Raises:
        InspectError: if no such learner has an opponent model, or there are only two agents.
    """
    shown, left_out = drawing.modellers(posterior, learners, MAX_STACKED)
    if "other" not in posterior.sizes:
        raise InspectError("posterior: got beliefs about one opponent each, expected three agents or more")
    count, discrete = min(posterior.sizes["agent"], MAX_ROWS), posterior.attrs["kind"] == "discrete"
    figure, grid = drawing.panels(count * len(shown), count, (2.1, 1.5), sharey=discrete)
    for (row, other), axis in np.ndenumerate(grid):
        learner, agent = shown[row // count], row % count
        here = posterior.sel(learner=learner).isel(agent=agent, step=-1)
        if agent == other:
            axis.set_facecolor("#f4f4f4")
            _draw_beliefs(axis, {"opponent_policy": _as_opponents_see(here["policy"])}, posterior)
        else:
            known = {name: here[name].isel(other=other) for name in drawing.ROLES if name in here}
            _draw_beliefs(axis, known, posterior)
        if other == 0:
            arm = f"{learner}\n" if len(shown) > 1 and agent == 0 else ""
            axis.set_ylabel(f"{arm}agent {agent}\n{'probability' if discrete else 'density'}")
        if row == 0:
            axis.set_title(f"of agent {other}")
    for axis in grid[-1]:
        axis.set_xlabel("action")
    what = f"at the end, {'mean and 95 % interval' if discrete else 'all draws'}; shaded: own policy"
    cut = drawing.not_shown(posterior.sizes["agent"], count, "more agents")
    return drawing.finish(figure, what + cut + left_out, grid[0, 1], of=posterior)


def _as_opponents_see(policy: xr.DataArray) -> xr.DataArray:
    """An agent's own policy, with the dimensions of others' beliefs about it."""
    own = {"action": "opponent_action", "action_dim": "opponent_dim"}
    return policy.rename({old: new for old, new in own.items() if old in policy.dims})


def _draw_beliefs(axis: Axes, beliefs: Mapping[Any, xr.DataArray], of: xr.Dataset) -> None:
    """Draw beliefs at one record by role: adjacent bars, or densities of the first dimension of actions."""
    for i, (name, values) in enumerate(beliefs.items()):
        if of.attrs["kind"] == "discrete":
            draw_bars(axis, values, 0.27 * (i - (len(beliefs) - 1) / 2), 0.25, drawing.ROLES[name])
        else:
            first = values.isel(opponent_dim=0, missing_dims="ignore")
            draw_density(axis, first, range_of(of), drawing.ROLES[name], filled=name == "opponent_model")
    if of.attrs["kind"] == "continuous":  # after all are drawn, so that the highest density sets the limit
        axis.set(xlim=range_of(of), ylim=(0, None))


def draw_bars(axis: Axes, values: xr.DataArray, shift: float, width: float, look: drawing.Look) -> FloatArray:
    """Draw bars of actions' probabilities, `replicate x state x opponent_action`; returns their positions."""
    band = mean_band(as_array(values.mean("state"), "replicate", "opponent_action"), bounds=PROBABILITY)
    x, names = np.arange(len(band.mean)), values["opponent_action"].to_numpy().tolist()
    ends: dict[str, Any] = {"ecolor": "#888888", "elinewidth": 1.0, "capsize": 2}
    looks = {"color": look["color"], "label": look.get("label"), "yerr": drawing.error_lengths(band), "error_kw": ends}
    axis.bar(x + shift, band.mean, width, **looks)
    every = -(-len(names) // 16)  # as many names as fit
    axis.set_xticks(x[::every], names[::every])
    axis.grid(False, axis="x")
    axis.set_ylim(0, 1.03)
    return x + shift


def draw_density(
    axis: Axes, values: xr.DataArray, limits: tuple[float, float], look: drawing.Look, filled: bool = False
) -> None:
    """Draw a histogram of all draws."""
    draws = values.to_numpy()[np.isfinite(values)]
    if draws.size:
        density, edges = histogram(draws, limits[1] - limits[0])
        if filled:
            axis.stairs(density, edges, fill=True, color=look["color"], alpha=0.25)
        axis.stairs(density, edges, **look)


def histogram(draws: FloatArray, span: float) -> tuple[FloatArray, FloatArray]:
    """Density of draws in equal bins over their range, and the bins' edges, for an axis of length `span`.

    There are `2 n^(1/3)` bins (Rice's rule), or fewer, so that none is narrower than 1 / 100 of the axis.
    """
    low, high = float(draws.min()), float(draws.max())
    narrowest = span / 100
    if high - low < narrowest:
        low, high = (low + high - narrowest) / 2, (low + high + narrowest) / 2
    count = max(1, min(round(2 * len(draws) ** (1 / 3)), int((high - low) / narrowest + 1e-9)))
    density, edges = np.histogram(draws, count, (low, high), density=True)
    return density, edges
