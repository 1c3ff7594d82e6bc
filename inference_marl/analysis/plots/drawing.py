"""What all figures share: style, colours, time axes, bands and axis limits. No pyplot, so no global state."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, Literal, ParamSpec

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from inference_marl.statistics.intervals import Band, FloatArray

Arguments = ParamSpec("Arguments")

Share = bool | Literal["row", "col", "all", "none"]
"""Which panels share an axis."""

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "legend.fontsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "figure.facecolor": "white",
}

# Okabe and Ito's colour-blind-safe palette without its yellow, which is too light for lines; then, for figures of many
# lines, wine and olive of Tol's muted scheme, grey, brown and indigo.
PALETTE = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
    *("#882255", "#999933", "#8C8C8C", "#8C564B", "#332288"),
)
MIN_WIDTH, MAX_WIDTH = 5.4, 14.0
"""Of a figure, in inches: what a legend in two columns needs, and what a screen shows without shrinking it."""

LEGEND_ROW = 0.22
"""Height of one row of a legend, in inches."""

PROBABILITY_AXIS = (-0.03, 1.03)
"""Limits of axes of probabilities."""

GREY = {"fontsize": 8, "color": "#666666"}
"""Look of notes."""

DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
INK = (1.0, 0.77, 0.56, 0.71)
"""Share of a line that is drawn, with each of the dashes."""

ROLES: dict[str, dict[str, Any]] = {
    "opponent_model": {"color": "#0072B2", "label": r"opponent model $\rho$", "linewidth": 2.0},
    "opponent_prior": {"color": "#E69F00", "label": "opponent prior $P$", "linestyle": (0, (1.5, 1.2))},
    "opponent_policy": {"color": "#000000", "label": "opponents' actual policy", "linestyle": (0, (5, 1.5))},
}
"""Look of each belief about the opponents, the same in every figure."""


def styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Draw with `STYLE` on top of the user's settings, and leave those alone."""

    @wraps(draw)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapped


def panels(
    rows: int,
    columns: int,
    size: tuple[float, float],
    sharex: Share = True,
    sharey: Share = True,
    heights: Sequence[float] | None = None,
) -> tuple[Figure, list[list[Axes]]]:
    """A figure with `rows x columns` axes, each about `size` (width, height) in inches if they fit.

    `heights` are the relative heights of the rows, all the same if `None`.
    """
    width = min(max(size[0] * columns + 0.4, MIN_WIDTH), MAX_WIDTH)
    figure = Figure(figsize=(width, size[1] * rows + 0.8), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=sharex, sharey=sharey, squeeze=False, height_ratios=heights)
    return figure, [list(row) for row in grid]


def tiles(
    count: int,
    columns: int,
    size: tuple[float, float],
    sharex: Share = True,
    heights: Sequence[float] | None = None,
) -> tuple[Figure, list[Axes], list[Axes]]:
    """As many `panels` as are asked for, in rows of so many columns, and those of them with none below."""
    figure, grid = panels(-(-count // columns), columns, size, sharex, False, heights)
    axes = [axis for row in grid for axis in row]
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes[:count], axes[:count][-columns:]


def name_above(figure: Figure, text: str) -> None:
    """What the figure is of, in small grey letters at the top."""
    figure.suptitle(text, x=0.01, ha="left", **GREY)


def name_columns(grid: Sequence[Sequence[Axes]], names: Iterable[str]) -> None:
    """A title for every column of panels."""
    for axis, name in zip(grid[0], names, strict=True):
        title(axis, name)


def heading(figure: Figure, dataset: xr.Dataset, extra: str = "") -> None:
    """Game and number of replicates at the top, so that a figure can leave its folder."""
    count = dataset.sizes["replicate"]
    parts = [str(dataset.attrs["game"])] if "game" in dataset.attrs else []
    parts += [f"{count} replicates" if count > 1 else "1 replicate", *([extra] if extra else [])]
    name_above(figure, ", ".join(parts))


def looks(learners: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour and dashes of every learner; both differ, so that figures survive greyscale. There are 48 different looks.

    Lines with more gaps are drawn above those with fewer, so that of two that coincide both are seen.
    """
    found = {}
    for i, learner in enumerate(learners):
        k = (i + i // len(PALETTE)) % len(DASHES)
        colour = PALETTE[i % len(PALETTE)]
        found[learner] = {"color": colour, "linestyle": DASHES[k], "zorder": 3 - INK[k], "label": learner}
    return found


def time_axis(dataset: xr.Dataset) -> tuple[FloatArray, str]:
    """Positions of the records: in episodes if an episode has several steps and the run several episodes.

    Returns:
        Positions, `steps`, and the label of the axis.
    """
    steps = dataset["step"].to_numpy().astype(np.float64)
    length = int(dataset.attrs.get("steps_per_episode", 1))
    if 1 < length < steps[-1]:
        return steps / length, f"episode ({length} steps each)"
    return steps, "environment step"


def label_time(grid: Sequence[Sequence[Axes]], x: FloatArray, label: str) -> None:
    """Label the time axis below the last row and fit every panel to it."""
    for axis in grid[-1]:
        axis.set_xlabel(label)
    for axis in (axis for row in grid for axis in row):
        # From 0 on if the first record is early.
        axis.set_xlim(0 if x[0] < 0.05 * x[-1] else float(x[0]), float(x[-1]) if x[-1] > x[0] else float(x[0]) + 1)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))


def settled(panels: Iterable[Sequence[FloatArray]], share: float = 0.02) -> int:
    """The first record from which every curve stays where it ends, within a fraction of its panel's range.

    Args:
        panels: the curves of each, each `steps`; NaN where one has none.
        share: fraction of the range of the panel's curves.
    """
    first = 0
    for curves in panels:
        stacked = np.stack(curves)
        known = stacked[np.isfinite(stacked)]
        if len(known):
            away = np.abs(stacked - stacked[:, -1:]) > share * np.ptp(known)
            first = max(first, int(np.max(np.nonzero(away.any(0))[0], initial=-1)) + 1)
    return first


def draw_band(axis: Axes, x: FloatArray, band: Band, **look: Any) -> FloatArray:
    """The mean over replicates and its 95 % interval, shaded; a single replicate has no band.

    Args:
        axis: where.
        x: positions, `steps`.
        band: fields of shape `steps`.
        **look: colour, dashes, label and so on of the line.

    Returns:
        The mean, `steps`.
    """
    marker: dict[str, Any] = {"marker": "o", "markersize": 4} if len(x) == 1 else {}
    axis.plot(x, band.mean, **marker, **look)
    if np.isfinite(band.low).any():
        axis.fill_between(x, band.low, band.high, color=look.get("color"), alpha=0.15, linewidth=0)
    return band.mean


def draw_bars(axis: Axes, x: FloatArray, width: float, band: Band, **look: Any) -> None:
    """Bars of means over replicates, with 95 % intervals."""
    axis.bar(x, band.mean, width, **look)
    axis.errorbar(x, band.mean, error_lengths(band), fmt="none", ecolor="#888888", elinewidth=1.0, capsize=2)


def error_lengths(band: Band) -> FloatArray:
    """How far an interval reaches below and above its mean, `2 x ...`; 0 where there is none."""
    lengths: FloatArray = np.nan_to_num(np.stack([band.mean - band.low, band.high - band.mean])).clip(0)
    return lengths


def name_actions(axis: Axes, names: Sequence[str]) -> None:
    """Name the bars of actions' probabilities, at most 16 of them."""
    every = max(1, -(-len(names) // 16))
    axis.set_xticks(range(0, len(names), every), names[::every])
    axis.grid(False, axis="x")
    axis.set_ylim(0, 1.03)


def readable_limits(axis: Axes, curves: Sequence[FloatArray], share: float = 0.1) -> str:
    """Fit the y axis to curves whose first records may be huge.

    An annealed temperature multiplies the entropy term by hundreds at first. If leaving out the first `share` of the
    records more than halves the range, the axis is fitted to the rest.

    Args:
        axis: where the curves are drawn.
        curves: each `steps`.
        share: fraction of the records that may be cut off.

    Returns:
        What is cut off, in words, possibly empty.
    """
    stacked = np.stack([np.asarray(curve, dtype=np.float64) for curve in curves])
    early = stacked[np.isfinite(stacked)]
    late = stacked[:, int(share * stacked.shape[1]) :]
    late = late[np.isfinite(late)]
    if not len(late):
        return ""
    cut = np.ptp(late) < np.ptp(early) / 2
    low, high = (late.min(), late.max()) if cut else (early.min(), early.max())
    margin = 0.06 * max(high - low, 1e-3 * max(1.0, abs(high)))
    low, high = low - margin, high + margin
    axis.set_ylim(low, high)
    ends = [end for end, beyond in ((early.min(), early.min() < low), (early.max(), early.max() > high)) if beyond]
    return "first records reach " + " and ".join(f"{end:,.0f}" for end in ends) if ends else ""


def title(axis: Axes, text: str, note: str | None = None) -> None:
    """A panel's title with, in small grey letters below it, a note; an empty note takes room too."""
    axis.set_title(text, loc="left", pad=6 if note is None else 16)
    if note:
        at = axis.annotate(note, (0, 1), (0, 4), xycoords="axes fraction", textcoords="offset points")
        at.set(fontsize=7.5, color="#666666")


def histogram(draws: FloatArray, span: float) -> tuple[FloatArray, FloatArray]:
    """Density of draws in equal bins over their own range, none too narrow to see.

    Args:
        draws: finite numbers, at least one.
        span: range of the axis.

    Returns:
        Densities, `bins`, and edges, `bins + 1`. The number of bins is Rice's, `2 n^(1/3)`, or less, so that no bin is
        narrower than 1 / 100 of the axis.
    """
    low, high = float(draws.min()), float(draws.max())
    narrowest = span / 100
    if high - low < narrowest:
        low, high = (low + high - narrowest) / 2, (low + high + narrowest) / 2
    count = max(1, min(round(2 * len(draws) ** (1 / 3)), int((high - low) / narrowest + 1e-9)))
    density, edges = np.histogram(draws, count, (low, high), density=True)
    return density, edges


def shared_legend(figure: Figure, *axes: Axes) -> None:
    """One legend below all panels, with the labels of some of them, in as many columns as fit.

    The figure grows with each further row of the legend, so that the panels keep their size.
    """
    found = [axis.get_legend_handles_labels() for axis in axes]
    unique = {label: handle for handles, labels in found for label, handle in zip(labels, handles, strict=True)}
    letters = [len(re.sub(r"\\[a-z]+", "x", label).replace("$", "")) for label in unique]
    widths = [0.95 + 0.062 * count for count in letters]  # inches: the handle, the gaps and the letters
    room = figure.get_figwidth() + 0.35  # the last column has no gap after it
    fit = len(unique) if sum(widths) < room else int(room / max(widths))
    rows = -(-len(unique) // max(1, fit))
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW * (rows - 1))
    figure.legend(
        list(unique.values()),
        list(unique),
        loc="outside lower center",
        ncols=-(-len(unique) // rows),
        handlelength=2.8,
        labelspacing=0.6,
    )
