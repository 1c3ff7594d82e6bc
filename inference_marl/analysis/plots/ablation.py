"""Figures of an ablation: learning curves and ELBOs of its cells, in panels of a few cells each."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from inference_marl.analysis.levels import groups
from inference_marl.analysis.plots import drawing
from inference_marl.analysis.tables import number
from inference_marl.experiment import Levels
from inference_marl.statistics.metrics import metric_band, per_replicate

CURVES = {
    "reward": "reward per step",
    "joint_optimum_probability": "joint probability\nof the optimum",
    "success_rate": "success rate",
}
"""Labels of what is drawn over time; success where the game's optimum is unknown."""

PARTS = (
    (r"expected value $Q$ under $\rho$ and $\pi$", "elbo_reward", 1, drawing.PALETTE[2]),
    ("weighted entropy (relative to uniform)", "elbo_entropy", 1, drawing.PALETTE[1]),
    (r"$-$ weighted KL from the model", "elbo_kl", -1, drawing.PALETTE[0]),
)
"""The parts of the ELBO, both weights included: label, metric, sign and colour."""

READABLE = 10.0
"""Cells that reach beyond so many times the smallest of a panel are cut off, so that the smallest can be read."""


@drawing.styled
def ablation_curves(metrics: xr.Dataset, levels: Levels) -> Figure:
    """Reward and the joint probability of the optimum (or the success rate) over time, in panels of a few cells each.

    Args:
        metrics: as in `metrics.nc`; cells that it lacks are left out.
        levels: by arm and factor.
    """
    probability = "joint_optimum_probability" if "joint_optimum_probability" in metrics else "success_rate"
    shown = [name for name in ("reward", probability) if name in metrics]
    grouped = groups(levels)
    columns = min(len(grouped), 4)
    bands = -(-len(grouped) // columns)
    figure, grid = drawing.panels(bands * len(shown), columns, (3.4, 2.2), sharey=False)
    x, label = drawing.time_axis(metrics)
    for row, name in enumerate(shown):
        every = [axis for axes in grid[row :: len(shown)] for axis in axes]
        axes = every[: len(grouped)]
        for axis, (panel, cells) in zip(axes, grouped.items(), strict=True):
            _curves(axis, metrics, name, cells)
            if row == 0 and panel:
                drawing.title(axis, textwrap.fill(panel, 44))
        for axis in axes[::columns]:
            axis.set_ylabel(CURVES[name])
        for axis in every[len(grouped) :]:
            axis.set_visible(False)
        _share_y(axes, drawing.PROBABILITY_AXIS if name == probability else None, columns)
    lowest = axes
    drawing.label_time([[axis for row_axes in grid for axis in row_axes], lowest], x, label)
    for axis in lowest:
        axis.tick_params(labelbottom=True)
    _legends(figure, lowest, grouped, bands)
    drawing.heading(figure, metrics, "mean and 95 % interval")
    return figure


def _curves(axis: Axes, metrics: xr.Dataset, name: str, cells: Mapping[str, str]) -> None:
    """One metric of some cells, by arm and label."""
    x, known = drawing.time_axis(metrics)[0], metrics["learner"].to_numpy().tolist()
    for (arm, _), look in zip(cells.items(), drawing.looks(cells.values()).values(), strict=True):
        values = per_replicate(metrics, name, arm) if arm in known else None
        if values is None:
            axis.plot([], [], **look)  # for the legend
        else:
            drawing.draw_band(axis, x, metric_band(name, values), **look)


def _legends(figure: Figure, lowest: Sequence[Axes], grouped: Mapping[str, Mapping[str, str]], bands: int) -> None:
    """One legend if all panels have the same cells, else one below each column of panels."""
    if len({tuple(cells.values()) for cells in grouped.values()}) == 1:
        drawing.shared_legend(figure, lowest[0])
        return
    figure.set_figheight(figure.get_figheight() + bands * 0.19 * max(map(len, grouped.values())))
    for axis in lowest:
        below = axis.transAxes + ScaledTranslation(0, -0.45, figure.dpi_scale_trans)
        axis.legend(loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=below, borderaxespad=0, handlelength=2.8)


def _share_y(axes: Sequence[Axes], limits: tuple[float, float] | None, columns: int) -> None:
    """One range for all panels of a metric, with its numbers at the left only."""
    low, high = limits or (min(axis.get_ylim()[0] for axis in axes), max(axis.get_ylim()[1] for axis in axes))
    for i, axis in enumerate(axes):
        axis.set_ylim(low, high)
        axis.tick_params(labelleft=i % columns == 0)


@drawing.styled
def elbo_bars(metrics: xr.Dataset, levels: Levels) -> Figure:
    """The ELBO of every cell at the last record, and the three parts that add up to it.

    Each part starts where the one before it ends, so that the last one ends at the ELBO. Where the learner can compute
    the evidence, it is marked too: the distance between the two is the guide's gap.

    ELBOs of different models or critics do not compare inference, and may differ a hundredfold: every panel has its own
    range, and a cell that reaches more than `READABLE` times as far as the panel's smallest is cut off, with its ELBO
    above the panel.

    Args:
        metrics: as in `metrics.nc`; cells that it lacks, or that have no ELBO, are left out.
        levels: by arm and factor.
    """
    known = metrics["learner"].to_numpy().tolist()
    grouped = groups(levels)
    columns = min(len(grouped), 2)
    counts = [len(cells) for cells in grouped.values()]
    tallest = [max(counts[start : start + columns]) for start in range(0, len(counts), columns)]
    size = (5.6, 0.36 * sum(tallest) / len(tallest) + 0.4)
    heights = [count + 1 for count in tallest]
    figure, axes, lowest = drawing.tiles(len(grouped), columns, size, sharex=False, heights=heights)
    notes = []
    for i, (axis, cells) in enumerate(zip(axes, grouped.values(), strict=True)):
        spans = {
            arm: span for y, arm in enumerate(cells) if arm in known and (span := _decomposition(axis, y, metrics, arm))
        }
        axis.set_yticks(range(len(cells)), list(cells.values()))
        axis.set_ylim(tallest[i // columns] - 0.4, -0.6)
        axis.grid(False, axis="y")
        axis.axvline(0, color="#999999", linewidth=0.7, zorder=0.5)
        notes.append(_cut_off(axis, metrics, cells, spans))
    for axis, panel, note in zip(axes, grouped, notes, strict=True):
        drawing.title(axis, panel, note if any(notes) else None)
    for axis in lowest:
        axis.set_xlabel("in units of reward")
    drawing.shared_legend(figure, max(axes, key=lambda axis: len(axis.get_legend_handles_labels()[1])))
    drawing.heading(figure, metrics, f"at step {int(metrics['step'][-1])}, mean over agents and replicates")
    return figure


def _decomposition(axis: Axes, y: int, metrics: xr.Dataset, arm: str) -> tuple[float, float] | None:
    """Draw one cell's parts and marks; returns the ends of what they span, `None` if it has no ELBO."""
    elbo = _last(metrics, "elbo", arm)
    if elbo is None:
        return None
    seen = axis.get_legend_handles_labels()[1]
    start, ends = 0.0, [0.0, elbo]
    for i, (label, name, sign, colour) in enumerate(PARTS):
        part = sign * (_last(metrics, name, arm) or 0.0)
        here = y + 0.26 * (i - 1)
        axis.barh(here, part, 0.24, left=start, color=colour, label=None if label in seen else label)
        start += part
        ends.append(start)
    solid = {"marker": "D", "markersize": 4.5, "color": "black"}
    marks: list[tuple[str, float, dict[str, Any]]] = [("ELBO", elbo, solid)]
    gap = _last(metrics, "elbo_gap", arm)
    if gap is not None:
        hollow = {"marker": "o", "markersize": 8.5, "markerfacecolor": "none", "markeredgecolor": "black"}
        marks.append(("evidence (the ELBO of the best guide)", elbo + gap, hollow))
    for label, x, look in marks:
        axis.plot(x, y + 0.26, linestyle="none", label=None if label in seen else label, **look)
        ends.append(x)
    return min(ends), max(ends)


def _cut_off(
    axis: Axes, metrics: xr.Dataset, cells: Mapping[str, str], spans: Mapping[str, tuple[float, float]]
) -> str:
    """Fit the x axis to cells that can be read beside each other; returns words about the others."""
    if not spans:
        return ""
    reach = {arm: max(-low, high) for arm, (low, high) in spans.items()}
    smallest = min((far for far in reach.values() if far > 0), default=1.0)
    shown = [arm for arm in spans if reach[arm] <= READABLE * smallest]
    low, high = min(spans[arm][0] for arm in shown), max(spans[arm][1] for arm in shown)
    margin = 0.03 * ((high - low) or 1.0)
    axis.set_xlim(low - margin, high + margin)
    beyond = [f"{cells[arm]} {number(_last(metrics, 'elbo', arm) or 0.0, 2)}" for arm in spans if arm not in shown]
    more = f" and {len(beyond) - 2} more" if len(beyond) > 2 else ""
    return f"beyond the axis: ELBO of {', '.join(beyond[:2])}{more}" if beyond else ""


def _last(metrics: xr.Dataset, name: str, arm: str) -> float | None:
    """Mean over agents and replicates at the last record."""
    values = per_replicate(metrics, name, arm)
    return None if values is None or not np.isfinite(values[:, -1]).all() else float(values[:, -1].mean())
