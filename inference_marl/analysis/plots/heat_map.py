"""Heat maps of cross tables: learners by opponents, arms by games."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inference_marl.analysis.cross_table import CrossTable
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
def heat_map(table: CrossTable, note: str = "", limits: tuple[float, float] | None = None) -> Figure:
    """A cell for each entry, with its number; grey where there is none.

    Args:
        table: what is drawn; its first columns are set apart by a gap if they summarise the others.
        note: in small grey letters at the top.
        limits: of the colours; if `None`, every column has its own, from 0 (or its smallest number, if that is
            negative) to its largest number.
    """
    means = table.means()
    low, high = limits or (np.minimum(_least(means), 0), -_least(-means))
    shade = (means - low) / np.maximum(high - np.asarray(low), 1e-12)
    names = max(map(len, table.columns)) * LETTER
    above = 0.5 + (names * 0.71 if names > CELL[0] else 0.2)
    width = CELL[0] * len(table.columns) + LETTER * max(map(len, table.rows)) + 1.2
    figure, ((axis,),) = drawing.panels(1, 1, (width, CELL[1] * len(table.rows) + above))
    shades = SHADES.with_extremes(bad="#f0f0f0")
    picture = axis.imshow(np.ma.masked_invalid(shade), cmap=shades, vmin=0, vmax=1, aspect="auto")
    _fill(axis, table, means, shade)
    _label(axis, table, slanted=names > CELL[0])
    if limits:
        bar = figure.colorbar(picture, ax=axis, aspect=16, fraction=0.06)
        ticks = np.linspace(0, 1, 3)
        bar.set_ticks(ticks.tolist(), labels=[number(limits[0] + tick * (limits[1] - limits[0]), 2) for tick in ticks])
        bar.outline.set_visible(False)
    own = "" if limits else "every column has its own range of colours"
    drawing.name_above(figure, f"{table.title}\n{'; '.join(part for part in (note, own) if part)}")
    return figure


def _fill(axis: Axes, table: CrossTable, means: Numbers, shade: Numbers) -> None:
    """The number of every cell, and white lines between cells, a broad one beside columns that are set apart."""
    for (i, j), mean in np.ndenumerate(means):
        text = table.text(table.rows[i], table.columns[j], "alone") if np.isnan(mean) else number(mean, 2)
        colour = "white" if shade[i, j] > DARK else "#333333"
        axis.text(j, i, text, ha="center", va="center", fontsize=8, color=colour)
    for j in range(1, len(table.columns)):
        axis.axvline(j - 0.5, color="white", linewidth=6 if j == table.apart else 1)
    for i in range(1, len(table.rows)):
        axis.axhline(i - 0.5, color="white", linewidth=1)


def _label(axis: Axes, table: CrossTable, slanted: bool) -> None:
    """Names of rows at the left and of columns at the top."""
    axis.set_yticks(range(len(table.rows)), list(table.rows))
    axis.set_xticks(range(len(table.columns)), list(table.columns))
    axis.xaxis.tick_top()
    axis.xaxis.set_label_position("top")
    if slanted:
        for label in axis.get_xticklabels():
            label.set(rotation=45, ha="left", rotation_mode="anchor")
    axis.set(ylabel=table.corner, xlabel=table.across)
    axis.tick_params(length=0)
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _least(values: Numbers) -> Numbers:
    """The smallest number of every column; 0 where there is none."""
    return np.array([np.nanmin(column) if np.isfinite(column).any() else 0.0 for column in values.T])
