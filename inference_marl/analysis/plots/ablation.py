"""Figures of an ablation: learning curves and ELBOs of its cells, in panels of a few cells each."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from inference_marl.analysis.levels import groups
from inference_marl.analysis.plots import drawing
from inference_marl.analysis.plots.learning import ELBO, elbo_part, metric_curves
from inference_marl.analysis.tables import NAMES, number
from inference_marl.experiment import Levels
from inference_marl.statistics.beliefs import Numbers

CURVES = {
    "reward": NAMES["reward"],
    "joint_optimum_probability": "joint probability\nof the optimum",
    "success": NAMES["success_rate"],
}
"""Labels of what is drawn over time; success where the game's optimum is unknown."""

PARTS = {
    "elbo_reward": r"expected value $Q$ under $\rho$ and $\pi$",
    "elbo_entropy": "weighted entropy (relative to uniform)",
    "elbo_kl": ELBO["elbo_kl"]["label"],
}
"""What the parts of the ELBO are called, both weights included."""

READABLE = 10.0
"""Cells that reach beyond so many times the smallest of a panel are cut off, so that the smallest can be read."""


@drawing.styled
def ablation_curves(metrics: xr.Dataset, levels: Levels) -> Figure:
    """Reward and the joint probability of the optimum (or the success rate) over time, in panels of a few cells each.

    Args:
        metrics: as in `metrics.nc`; cells that it lacks are left out.
        levels: by arm and factor.
    """
    probability = "joint_optimum_probability" if "joint_optimum_probability" in metrics else "success"
    shown = [name for name in ("reward", probability) if name in metrics]
    grouped = groups(levels)
    columns = min(len(grouped), 4)
    figure, grid = drawing.tiles((len(shown), len(grouped)), columns, (3.4, 2.2))
    for name, axes in zip(shown, grid, strict=True):
        for axis, cells in zip(axes, grouped.values(), strict=True):
            looks = drawing.looks(cells.values()).values()
            metric_curves(axis, metrics, name, dict(zip(cells, looks, strict=True)))
        for axis in axes[::columns]:
            axis.set_ylabel(CURVES[name])
        _share_y(axes, columns, drawing.PROBABILITY_AXIS if name == probability else None)
    drawing.titles(grid[0], [textwrap.fill(panel, 44) for panel in grouped])
    drawing.label_time(grid, *drawing.time_axis(metrics))
    _legends(figure, grid[-1], columns, grouped)
    return drawing.finish(figure, metrics, "mean and 95 % interval")


def _share_y(axes: Sequence[Axes], columns: int, limits: tuple[float, float] | None) -> None:
    """One range for all panels of a metric, with its numbers at the left only."""
    ends = limits or [axis.get_ylim() for axis in axes]
    for i, axis in enumerate(axes):
        axis.set_ylim(np.min(ends), np.max(ends))
        axis.tick_params(labelleft=i % columns == 0)


def _legends(figure: Figure, axes: Sequence[Axes], columns: int, grouped: Mapping[str, Mapping[str, str]]) -> None:
    """One legend if all panels have the same cells, else one below each."""
    if len({tuple(cells.values()) for cells in grouped.values()}) == 1:
        drawing.shared_legend(figure, axes[0])
        return
    bands = -(-len(grouped) // columns)
    figure.set_figheight(figure.get_figheight() + bands * 0.19 * max(map(len, grouped.values())))
    for axis in axes:
        below = axis.transAxes + ScaledTranslation(0, -0.45, figure.dpi_scale_trans)
        axis.legend(loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=below, borderaxespad=0)


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
    grouped = groups(levels)
    columns = min(len(grouped), 2)
    counts = [len(cells) for cells in grouped.values()]
    tallest = [max(counts[start : start + columns]) for start in range(0, len(counts), columns)]
    size = (5.6, 0.36 * sum(tallest) / len(tallest) + 0.4)
    heights = [count + 1 for count in tallest]
    figure, (axes,) = drawing.tiles((1, len(grouped)), columns, size, sharex=False, height_ratios=heights)
    notes = []
    for i, (axis, cells) in enumerate(zip(axes, grouped.values(), strict=True)):
        axis.set_yticks(range(len(cells)), list(cells.values()))
        axis.set_ylim(tallest[i // columns] - 0.4, -0.6)
        axis.grid(False, axis="y")
        axis.axvline(0, color="#999999", linewidth=0.7, zorder=0.5)
        notes.append(_decompositions(axis, metrics, cells))
    drawing.titles(axes, list(grouped), notes)
    for axis in axes[-columns:]:
        axis.set_xlabel("in units of reward")
    what = f"at step {int(metrics['step'][-1])}, mean over agents and replicates"
    return drawing.finish(figure, metrics, what, *axes)


def _decompositions(axis: Axes, metrics: xr.Dataset, cells: Mapping[str, str]) -> str:
    """Draw the parts and marks of cells that have an ELBO, a row each; returns words about those that are cut off."""
    rows = np.flatnonzero(np.isfinite(_last(metrics, "elbo", cells)))
    if not len(rows):
        return ""
    elbo, gap = _last(metrics, "elbo", cells)[rows], _last(metrics, "elbo_gap", cells)[rows]
    ends = [np.zeros(len(rows))]
    for i, (name, label) in enumerate(PARTS.items()):
        part = np.nan_to_num(_last(metrics, name, cells)[rows])
        axis.barh(rows + 0.26 * (i - 1), part, 0.24, left=ends[-1], color=ELBO[name]["color"], label=label)
        ends.append(ends[-1] + part)
    axis.plot(elbo, rows + 0.26, "kD", markersize=4.5, label="ELBO")
    if np.isfinite(gap).any():
        label = "evidence (the ELBO of the best guide)"
        axis.plot(elbo + gap, rows + 0.26, "ko", markersize=8.5, markerfacecolor="none", label=label)
    low, high = (end([*ends, elbo, elbo + gap], axis=0) for end in (np.nanmin, np.nanmax))
    beyond = _cut_off(axis, low, high)
    labels = np.array(list(cells.values()))[rows]
    words = [f"{label} {number(value, 2)}" for label, value in zip(labels[beyond], elbo[beyond], strict=True)]
    more = f" and {len(words) - 2} more" if len(words) > 2 else ""
    return f"beyond the axis: ELBO of {', '.join(words[:2])}{more}" if words else ""


def _cut_off(axis: Axes, low: Numbers, high: Numbers) -> Numbers:
    """Fit the x axis to rows that can be read beside each other; returns which of them cannot."""
    reach = np.maximum(-low, high)
    readable = reach <= READABLE * reach[reach > 0].min(initial=np.inf)
    start, end = low[readable].min(), high[readable].max()
    margin = 0.03 * ((end - start) or 1.0)
    axis.set_xlim(start - margin, end + margin)
    return ~readable


def _last(metrics: xr.Dataset, name: str, cells: Mapping[str, str]) -> Numbers:
    """Means over agents and replicates at the last record, by cell; NaN where there is none."""
    known = metrics["learner"].to_numpy()
    found = [elbo_part(metrics, name, arm) if arm in known else None for arm in cells]
    means: Numbers = np.array([np.nan if values is None else values[:, -1].mean() for values in found])
    means[~np.isfinite(means)] = np.nan
    return means
