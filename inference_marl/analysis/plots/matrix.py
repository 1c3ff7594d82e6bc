"""Heat maps of one metric of everything by everything: learners by opponents, arms by games."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from inference_marl.analysis.plots.drawing import panels, styled
from inference_marl.analysis.plots.states import SHADES
from inference_marl.analysis.report.matrix import Matrix
from inference_marl.analysis.report.tables import number

CELL = (0.62, 0.34)
"""Width and height of a cell, in inches."""

LETTER = 0.066
"""Width of a letter of an axis' labels, in inches."""

DARK = 0.55
"""Share of the colours from which letters on them are white."""


@styled
def heat_map(matrix: Matrix, note: str = "", limits: tuple[float, float] | None = None) -> Figure:
    """A cell for each entry, with its number; grey where there is none.

    Args:
        matrix: what is drawn; its first columns are set apart by a gap if they sum up the others.
        note: in small grey letters on top.
        limits: of the colours; if there are none, every column has its own, from 0 (or its smallest number, if that is
            below) to its largest.
    """
    means = matrix.means()
    low, high = limits or (np.minimum(_least(means), 0), -_least(-means))
    span = np.maximum(high - np.asarray(low), 1e-12)
    shade = (means - low) / span
    letters = max(map(len, matrix.rows))
    slanted = max(map(len, matrix.columns)) * LETTER > CELL[0]
    above = 0.5 + (max(map(len, matrix.columns)) * LETTER * 0.71 if slanted else 0.2)
    size = (CELL[0] * len(matrix.columns) + LETTER * letters + 1.2, CELL[1] * len(matrix.rows) + above)
    figure, ((axis,),) = panels(1, 1, size)
    shades = SHADES.with_extremes(bad="#f0f0f0")
    picture = axis.imshow(np.ma.masked_invalid(shade), cmap=shades, vmin=0, vmax=1, aspect="auto")
    for i, row in enumerate(matrix.rows):
        for j, column in enumerate(matrix.columns):
            missing = np.isnan(means[i, j])
            text = matrix.text(row, column, "alone") if missing else number(means[i, j], 2)
            axis.text(
                j, i, text, ha="center", va="center", fontsize=8, color="white" if shade[i, j] > DARK else "#333333"
            )
    axis.set_yticks(range(len(matrix.rows)), list(matrix.rows))
    axis.set_xticks(range(len(matrix.columns)), list(matrix.columns))
    axis.xaxis.tick_top()
    axis.xaxis.set_label_position("top")
    if slanted:
        for label in axis.get_xticklabels():
            label.set(rotation=45, ha="left", rotation_mode="anchor")
    axis.set(ylabel=matrix.corner, xlabel=matrix.across)
    axis.tick_params(length=0)
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    # White lines between the cells, a broad one beside those that are set apart.
    for j in range(1, len(matrix.columns)):
        axis.axvline(j - 0.5, color="white", linewidth=6 if j == matrix.apart else 1)
    for i in range(1, len(matrix.rows)):
        axis.axhline(i - 0.5, color="white", linewidth=1)
    if limits:
        bar = figure.colorbar(picture, ax=axis, aspect=16, fraction=0.06)
        ticks = np.linspace(0, 1, 3)
        bar.set_ticks(ticks.tolist(), labels=[number(low + tick * (high - low), 2) for tick in ticks])
        bar.outline.set_visible(False)
    own = "" if limits else "every column has its own range of colours"
    what = "; ".join(part for part in (note, own) if part)
    figure.suptitle(f"{matrix.title}\n{what}", x=0.01, ha="left", fontsize=8, color="#666666")
    return figure


def _least(values: np.ndarray) -> np.ndarray:
    """The smallest number of every column; 0 where there is none."""
    return np.array([np.nanmin(column) if np.isfinite(column).any() else 0.0 for column in values.T])
