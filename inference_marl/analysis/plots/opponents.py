"""Figures of what learners believe about their opponents: over time, at the end, and how it changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inference_marl.analysis.plots import drawing
from inference_marl.described import InspectError
from inference_marl.statistics.beliefs import as_array, opponent_types, optimum_probability
from inference_marl.statistics.bounds import POSITIVE, PROBABILITY
from inference_marl.statistics.changes import belief_change
from inference_marl.statistics.intervals import FloatArray, mean_band

Looks = Mapping[Any, Mapping[str, Any]]

MAX_ROWS, MAX_LINES = 6, len(drawing.PALETTE)
"""Rows (agents, or dimensions of their opponents' actions) that a figure shows, and lines that a panel shows: evenly
spaced learners, or the most probable types; figures say how many they leave out."""


@drawing.styled
def beliefs(posterior: xr.Dataset, learners: list[str] | None = None, replicate: int | None = None) -> Figure:
    """Opponent model, prior and the opponents' actual policy over time, a column per learner, a row per agent.

    As Fig. 1c and 2c of Tian et al. (2019): the probability of the opponents' part of the optimum (of their first
    action where no optimum is known), or for continuous actions their mean action. Averaged over states.

    Args:
        posterior: as in `posterior.nc`.
        learners: which arms; up to `MAX_LEARNERS` of those that have an opponent model if `None`.
        replicate: show this one alone, as the paper does; the mean and 95 % interval over replicates if `None`.

    Raises:
        InspectError: if no such learner has an opponent model.
    """
    shown, left_out = drawing.modellers(posterior, learners)
    tracked = tracked_beliefs(posterior)
    panels = _Panels(tracked["opponent_model"].sel(learner=shown), shown, (3.0, 2.0))
    _over_time(panels, tracked, drawing.ROLES, range_of(posterior), replicate)
    panels.name_rows(lambda agent, part: f"agent {agent}\n{_tracked_name(posterior, agent, part)}")
    if posterior.attrs["kind"] == "continuous" and "optimal_opponent_action" in posterior:
        for axis, _, at in panels:
            best = posterior["optimal_opponent_action"].rename(opponent_dim="part").isel(at)
            axis.axhline(float(best), color="#999999", linewidth=0.8, zorder=0.5)
    what = "mean and 95 % interval" if replicate is None else f"replicate {replicate} alone"
    return drawing.finish(panels.figure, what + panels.left_out + left_out, panels.axes[0, 0], of=posterior)


class _Panels:
    """A column of panels for each learner, and a row for each agent and part that has `values`.

    Iterating gives every panel with its learner, and with its agent and part for `isel`.
    """

    def __init__(self, values: xr.DataArray, learners: list[str], size: tuple[float, float], **shared: Any) -> None:
        having = values.notnull().any([dim for dim in values.dims if dim not in ("agent", "part")])
        pairs = np.argwhere(having.transpose("agent", "part").to_numpy()).tolist()
        self.learners, self.rows = learners, pairs[:MAX_ROWS]
        self.left_out = drawing.not_shown(len(pairs), MAX_ROWS, "more rows")
        self.figure, self.axes = drawing.panels(len(self.rows), len(learners), size, **shared)
        drawing.titles(self.axes[0], learners)

    def __iter__(self) -> Iterator[tuple[Axes, str, dict[str, int]]]:
        for (i, j), axis in np.ndenumerate(self.axes):
            yield axis, self.learners[j], dict(zip(("agent", "part"), self.rows[i], strict=True))

    def name_rows(self, name: Callable[[int, int], str]) -> None:
        """Name rows at the left, by agent and part."""
        for axes, row in zip(self.axes, self.rows, strict=True):
            axes[0].set_ylabel(name(*row))


def _over_time(
    panels: _Panels, curves: xr.Dataset, looks: Looks, bounds: tuple[float, float], replicate: int | None = None
) -> None:
    """Mean and 95 % interval, or one replicate alone, of curves `learner x replicate x step x agent x part`."""
    x, label = drawing.time_axis(curves)
    for axis, learner, at in panels:
        for name, values in curves.sel(learner=learner).isel(at).items():
            here = as_array(values, "replicate", "step")
            if not np.isnan(here).all():
                band = mean_band(here if replicate is None else here[[replicate]], bounds=bounds)
                drawing.draw_band(axis, x, band, **looks[name])
        if bounds == PROBABILITY:
            axis.set_ylim(drawing.PROBABILITY_AXIS)
    drawing.label_time(panels.axes, x, label)


def tracked_beliefs(posterior: xr.Dataset) -> xr.Dataset:
    """What `beliefs` follows: every belief, `learner x replicate x step x agent x part`."""
    found = by_part(posterior)
    if posterior.attrs["kind"] == "continuous":
        return found.mean(["draw", "state"], keep_attrs=True)
    if "optimal_opponent_action" in posterior:
        probabilities = {name: optimum_probability(posterior, str(name)) for name in found}
        return xr.Dataset(probabilities, attrs=posterior.attrs).expand_dims(part=1)
    return found.isel(opponent_action=0, drop=True).mean("state", keep_attrs=True)


def by_part(posterior: xr.Dataset) -> xr.Dataset:
    """The beliefs about opponents; `part` is the dimension of their actions, one for discrete ones."""
    found = posterior[[name for name in drawing.ROLES if name in posterior]]
    return found.expand_dims(part=1) if posterior.attrs["kind"] == "discrete" else found.rename(opponent_dim="part")


def range_of(posterior: xr.Dataset) -> tuple[float, float]:
    """Range of `tracked_beliefs`: that of probabilities, or of continuous actions."""
    return PROBABILITY if posterior.attrs["kind"] == "discrete" else (posterior.attrs["low"], posterior.attrs["high"])


def _tracked_name(posterior: xr.Dataset, agent: int, part: int) -> str:
    if posterior.attrs["kind"] == "continuous":
        return "opponents' mean action" + (f" (dim {part})" if posterior.sizes["opponent_dim"] > 1 else "")
    names, best = posterior["opponent_action"].to_numpy(), posterior.get("optimal_opponent_action")
    followed = names[:1] if best is None else names[best.isel(agent=agent).to_numpy().astype(bool)]
    return f"P(opponent plays {' or '.join(map(str, followed))})"


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
    having = values.notnull().any([dim for dim in values.dims if dim != "learner"])
    if not having.any():
        raise InspectError("opponent_type: got no learner whose prior has types, expected at least one")
    learners, left_out = drawing.some_of(having["learner"].to_numpy()[having.to_numpy()].tolist())
    panels = _Panels(values.expand_dims(part=1), learners, (3.0, 2.0))
    names = opponent_types(posterior)
    likeliest = values.isel(step=-1).mean([dim for dim in values.dims if dim not in ("step", "type")])
    shown = sorted(np.argsort(-likeliest.fillna(0).to_numpy())[:MAX_LINES].tolist())
    curves = xr.Dataset({kind: values.isel(type=kind, drop=True).mean("state") for kind in shown}).expand_dims(part=1)
    looks = {kind: {**drawing.look(i), "label": names[kind]} for i, kind in enumerate(shown)}
    _over_time(panels, curves.assign_attrs(posterior.attrs), looks, PROBABILITY)
    panels.name_rows(lambda agent, _: f"agent {agent}\nP(opponents' type)")
    cut = drawing.not_shown(len(names), MAX_LINES, "less likely types") + panels.left_out + left_out
    return drawing.finish(panels.figure, f"mean and 95 % interval{cut}", *panels.axes.flat, of=posterior)


@drawing.styled
def opponent_action_bars(posterior: xr.Dataset, learners: list[str] | None = None) -> Figure:
    """Opponent model, prior and the opponents' actual policy at the last record, a column per learner.

    Discrete: bars, means over replicates with 95 % intervals. Continuous: densities of all replicates' draws.
    Averaged over states.

    Args:
        posterior: as in `posterior.nc`.
        learners: which arms; up to `MAX_LEARNERS` of those that have an opponent model if `None`.

    Raises:
        InspectError: if no such learner has an opponent model.
    """
    shown, left_out = drawing.modellers(posterior, learners)
    discrete, limits = posterior.attrs["kind"] == "discrete", range_of(posterior)
    last = by_part(posterior).isel(step=-1)
    panels = _Panels(last["opponent_model"].sel(learner=shown), shown, (2.7, 1.9), sharey=discrete)
    for axis, learner, at in panels:
        for i, (name, values) in enumerate(last.sel(learner=learner).isel(at).items()):
            if discrete:
                draw_bars(axis, values, 0.27 * (i - 1), 0.25, drawing.ROLES[str(name)])
            else:
                draw_density(axis, values, limits, drawing.ROLES[str(name)], filled=name == "opponent_model")
        if not discrete:
            axis.set(xlim=limits, ylim=(0, None))
    for axis in panels.axes[-1]:
        axis.set_xlabel("opponents' action")
    unit, dims = "probability" if discrete else "density", last.sizes["part"]
    panels.name_rows(lambda agent, part: f"agent {agent}{f', dim {part}' if dims > 1 else ''}\n{unit}")
    what = f"at the end, {'mean and 95 % interval' if discrete else 'all draws'}{panels.left_out}{left_out}"
    return drawing.finish(panels.figure, what, panels.axes[0, 0], of=posterior)


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
    shown, left_out = drawing.modellers(posterior, learners, MAX_LINES)
    found = {learner: change for learner in shown if (change := belief_change(posterior, learner)) is not None}
    if not found:
        raise InspectError("step: got one record, expected two or more to see a change between them")
    figure, ((left, right),) = drawing.panels(1, 2, (3.4, 2.6), sharey=False)
    times, label = drawing.time_axis(posterior)
    every = posterior["learner"].to_numpy().tolist()
    # As in the other figures, unless there are more learners than colours.
    look = drawing.looks(every if len(every) <= len(drawing.PALETTE) else shown)
    for learner, change in found.items():
        drawing.draw_band(left, times[1:], mean_band(change.curve, bounds=POSITIVE), **look[learner])
        come = (change.at[:, None] <= change.steps).mean(0)
        right.step(times[1:], come, where="post", **look[learner])
    unit = "total variation" if posterior.attrs["kind"] == "discrete" else "1-Wasserstein distance"
    left.set(ylabel=f"change of $\\rho$\nsince the last record\n({unit})", ylim=(0, None))
    right.set(ylabel="share of seeds whose\nlargest change has come", ylim=drawing.PROBABILITY_AXIS)
    drawing.label_time([[left, right]], times, label)
    return drawing.finish(figure, "mean and 95 % interval" + left_out, left, of=posterior)


def draw_bars(axis: Axes, values: xr.DataArray, shift: float, width: float, look: Mapping[str, Any]) -> FloatArray:
    """Bars of actions' probabilities, `replicate x state x opponent_action`; returns where they stand."""
    band = mean_band(as_array(values.mean("state"), "replicate", "opponent_action"), bounds=PROBABILITY)
    x, names = np.arange(len(band.mean)), values["opponent_action"].to_numpy().tolist()
    ends: dict[str, Any] = {"ecolor": "#888888", "elinewidth": 1.0, "capsize": 2}
    looks = {"color": look["color"], "label": look.get("label"), "yerr": drawing.error_lengths(band), "error_kw": ends}
    axis.bar(x + shift, band.mean, width, **looks)
    every = -(-len(names) // 16)  # as many names as there is room for
    axis.set_xticks(x[::every], names[::every])
    axis.grid(False, axis="x")
    axis.set_ylim(0, 1.03)
    return x + shift


def draw_density(
    axis: Axes, values: xr.DataArray, limits: tuple[float, float], look: Mapping[str, Any], filled: bool = False
) -> None:
    """Histogram of all draws."""
    draws = values.to_numpy()[np.isfinite(values)]
    if draws.size:
        density, edges = histogram(draws, limits[1] - limits[0])
        if filled:
            axis.stairs(density, edges, fill=True, color=look["color"], alpha=0.25)
        axis.stairs(density, edges, **look)


def histogram(draws: FloatArray, span: float) -> tuple[FloatArray, FloatArray]:
    """Density of finite draws, `bins`, in equal bins over their own range, and edges of the bins, `bins + 1`.

    Their number is Rice's, `2 n^(1/3)`, or less, so that none is narrower than 1 / 100 of the axis' span.
    """
    low, high = float(draws.min()), float(draws.max())
    narrowest = span / 100
    if high - low < narrowest:
        low, high = (low + high - narrowest) / 2, (low + high + narrowest) / 2
    count = max(1, min(round(2 * len(draws) ** (1 / 3)), int((high - low) / narrowest + 1e-9)))
    density, edges = np.histogram(draws, count, (low, high), density=True)
    return density, edges
