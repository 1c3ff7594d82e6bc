"""Heat maps of cross tables: learners by opponents, arms by games."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inference_marl.analysis.plots import drawing
from inference_marl.analysis.plots.states import SHADES
from inference_marl.analysis.tables import number
from inference_marl.statistics.beliefs import Numbers

CELL = (0.62, 0.34)
"""Width and height of a cell, in inches."""

LETTER = 0.066
"""Width of a letter of an axis' labels, in inches."""

DARK = 0.55
"""Fraction of the colour range above which text is white."""


@drawing.styled
def heat_map(
    means: pd.DataFrame,
    title: str,
    note: str = "",
    limits: tuple[float, float] | None = None,
    failed: Collection[tuple[str, str]] = (),
    apart: int = 0,
) -> Figure:
    """A cell for each number; grey where there is none.

    Args:
        means: numbers by row and column; their axes are named after what they are.
        title: what is drawn.
        note: in small grey letters at the top.
        limits: of the colours; if `None`, every column has its own, from 0 (or its smallest number, if that is
            negative) to its largest number.
        failed: rows and columns of cells that say so.
        apart: how many of the first columns summarise the others, and are set apart by a gap.
    """
    numbers = means.to_numpy(np.float64)
    low, high = limits or (np.minimum(_least(numbers), 0), -_least(-numbers))
    shade = (numbers - low) / np.maximum(high - np.asarray(low), 1e-12)
    names = max(map(len, means.columns)) * LETTER
    above = 0.5 + (names * 0.71 if names > CELL[0] else 0.2)
    width = CELL[0] * len(means.columns) + LETTER * max(map(len, means.index)) + 1.2
    figure, ((axis,),) = drawing.panels(1, 1, (width, CELL[1] * len(means) + above))
    shades = SHADES.with_extremes(bad="#f0f0f0")
    picture = axis.imshow(np.ma.masked_invalid(shade), cmap=shades, vmin=0, vmax=1, aspect="auto")
    _fill(axis, means, shade, failed, apart)
    _label(axis, means, slanted=names > CELL[0])
    if limits:
        bar = figure.colorbar(picture, ax=axis, aspect=16, fraction=0.06)
        ticks = np.linspace(0, 1, 3)
        bar.set_ticks(ticks.tolist(), labels=[number(limits[0] + tick * (limits[1] - limits[0]), 2) for tick in ticks])
        bar.outline.set_visible(False)
    own = "" if limits else "every column has its own range of colours"
    drawing.name_above(figure, f"{title}\n{'; '.join(part for part in (note, own) if part)}")
    return figure


def _fill(axis: Axes, means: pd.DataFrame, shade: Numbers, failed: Collection[tuple[str, str]], apart: int) -> None:
    """The number of every cell, and white lines between cells, a broad one beside columns that are set apart."""
    rows, columns = list(means.index), list(means.columns)
    for (i, j), mean in np.ndenumerate(means.to_numpy(np.float64)):
        text = "failed" if (rows[i], columns[j]) in failed else number(mean, 2)
        colour = "white" if shade[i, j] > DARK else "#333333"
        axis.text(j, i, text, ha="center", va="center", fontsize=8, color=colour)
    for j in range(1, len(means.columns)):
        axis.axvline(j - 0.5, color="white", linewidth=6 if j == apart else 1)
    for i in range(1, len(means)):
        axis.axhline(i - 0.5, color="white", linewidth=1)


def _label(axis: Axes, means: pd.DataFrame, slanted: bool) -> None:
    """Names of rows at the left and of columns at the top."""
    axis.set_yticks(range(len(means)), list(means.index))
    axis.set_xticks(range(len(means.columns)), list(means.columns))
    axis.xaxis.tick_top()
    axis.xaxis.set_label_position("top")
    if slanted:
        for label in axis.get_xticklabels():
            label.set(rotation=45, ha="left", rotation_mode="anchor")
    axis.set(ylabel=means.index.name, xlabel=means.columns.name)
    axis.tick_params(length=0)
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _least(values: Numbers) -> Numbers:
    """The smallest number of every column; 0 where there is none."""
    return np.array([np.nanmin(column) if np.isfinite(column).any() else 0.0 for column in values.T])
