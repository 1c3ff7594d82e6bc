"""Common code of figures: style, panels, selections, time axes, bands and legends, without pyplot's global state."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from inference_marl.described import InspectError
from inference_marl.statistics.beliefs import modelling
from inference_marl.statistics.intervals import Band, FloatArray

Panels = npt.NDArray[Any]  # `rows x columns` of Axes
Records = npt.NDArray[np.bool_]  # `steps`
Look = Mapping[str, Any]  # colour, dashes and so on of a line, and its label
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
    "legend.handlelength": 2.8,
    "figure.facecolor": "white",
    "text.usetex": False,  # needs LaTeX
}
styled = mpl.rc_context(STYLE)
"""Decorator that draws figures with `STYLE` on top of the user's settings, without changing those."""

# Okabe and Ito's colour-blind-safe palette without yellow, which is too light for lines; then, for many lines, wine and
# olive of Tol's muted scheme, grey, brown and indigo.
PALETTE = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
    *("#882255", "#999933", "#8C8C8C", "#8C564B", "#332288"),
)
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
GAPS = (0.0, 0.23, 0.44, 0.29)
"""Fraction of a line that is not drawn, for each dash style."""

ROLES: dict[str, dict[str, Any]] = {
    "opponent_model": {"color": PALETTE[0], "label": r"opponent model $\rho$", "linewidth": 2.0},
    "opponent_prior": {"color": PALETTE[4], "label": "opponent prior $P$", "linestyle": DASHES[2]},
    "opponent_policy": {"color": PALETTE[6], "label": "opponents' actual policy", "linestyle": DASHES[1]},
}
"""Style of each belief about the opponents, the same in all figures."""

MIN_WIDTH, MAX_WIDTH = 5.4, 14.0
"""Width limits of a figure in inches: enough for a legend in two columns, and at most that of a screen."""

PROBABILITY_AXIS = (-0.03, 1.03)
"""Limits of probability axes."""

MAX_LEARNERS = 5
"""Maximum number of learners in a figure unless they are named; evenly spaced ones if there are more."""

NOTE = "#666666"
"""Colour of notes."""


def panels(rows: int, count: int, size: tuple[float, float], columns: int = 0, **shared: Any) -> tuple[Figure, Panels]:
    """A figure with `rows x count` panels, each about `size` (width, height) in inches if they fit.

    With `columns`, each row is wrapped after that many panels. All share both axes unless `shared`, which is passed to
    `Figure.subplots`, says otherwise.
    """
    columns = columns or count
    bands = -(-count // columns)
    width = min(max(size[0] * columns + 0.4, MIN_WIDTH), MAX_WIDTH)
    figure = Figure(figsize=(width, size[1] * bands * rows + 0.8), layout="constrained")
    grid = figure.subplots(bands * rows, columns, squeeze=False, **{"sharex": True, "sharey": True, **shared})
    axes = grid.reshape(bands, rows, columns).swapaxes(0, 1).reshape(rows, -1)
    for axis in axes[:, count:].flat:
        axis.set_visible(False)
    return figure, axes[:, :count]


def columns_of(count: int, most: int) -> int:
    """Number of panels side by side, at most `most`, such that rows are few and about equally long."""
    return -(-count // -(-count // most))


def not_shown(count: int, most: int, what: str) -> str:
    """Describe how many items beyond `most` are omitted."""
    return f"; {count - most} {what} not shown" if count > most else ""


def some_of(every: list[str], named: list[str] | None = None, most: int = MAX_LEARNERS) -> tuple[list[str], str]:
    """The named learners, or evenly spaced ones (so that levels of a grid vary), and a description of those omitted."""
    if named is not None:
        return named, ""
    count = min(most, len(every))
    shown = [every[i * len(every) // count] for i in range(count)]
    return shown, f"; {count} of {len(every)} learners, evenly spaced" if count < len(every) else ""


def modellers(posterior: xr.Dataset, named: list[str] | None, most: int = MAX_LEARNERS) -> tuple[list[str], str]:
    """`some_of` the learners with an opponent model; raises `InspectError` for others, and for runs without any."""
    having = modelling(posterior)
    wanted = having if named is None else named
    if not wanted or not set(wanted) <= set(having):
        raise InspectError(
            f"learners: got {named or 'a run'} without an opponent model, expected "
            + (f"some of {', '.join(having)}" if having else "a run in which some learner has one")
        )
    return some_of(having, named, most)


def finish(figure: Figure, what: str, *legend: Axes, of: xr.Dataset | None = None) -> Figure:
    """Add a title with the run and what the figure shows, and a legend for the labels of some panels below."""
    if of is not None:
        count = of.sizes["replicate"]
        game = [str(of.attrs["game"])] if "game" in of.attrs else []
        what = ", ".join([*game, f"{count} replicate{'s' if count > 1 else ''}", what])
    figure.suptitle(what, x=0.01, ha="left", fontsize=8, color=NOTE)
    if legend:
        _legend(figure, *legend)
    return figure


def _legend(figure: Figure, *axes: Axes) -> None:
    """Add one legend below all panels, with the labels of some of them, in as many columns as fit.

    The figure grows with each further row of the legend, so that the panels keep their size.
    """
    found = [axis.get_legend_handles_labels() for axis in axes]
    unique = {label: handle for handles, labels in found for label, handle in zip(labels, handles, strict=True)}
    letters = [len(re.sub(r"\\[a-z]+", "x", label).replace("$", "")) for label in unique]
    widths = [0.95 + 0.062 * count for count in letters]  # inches: the handle, the gaps and the letters
    room = figure.get_figwidth() + 0.35  # the last column has no gap after it
    fit = len(unique) if sum(widths) < room else int(room / max(widths))
    rows = -(-len(unique) // max(1, fit))
    figure.set_figheight(figure.get_figheight() + 0.22 * (rows - 1))  # inches a row
    place: dict[str, Any] = {"loc": "outside lower center", "ncols": -(-len(unique) // rows), "labelspacing": 0.6}
    figure.legend(list(unique.values()), list(unique), **place)


def titles(axes: Iterable[Axes], texts: Sequence[str], notes: Sequence[str] = ()) -> None:
    """Set a title for every panel and, if there are any, a note below it in small grey letters."""
    for axis, text, note in zip(axes, texts, notes or [""] * len(texts), strict=True):
        axis.set_title(text, loc="left", pad=16 if any(notes) else 6)
        note_above(axis, note, 0, fontsize=7.5, color=NOTE)


def note_above(axis: Axes, text: str, x: float, **look: Any) -> None:
    """Write small letters right above a panel, starting at a fraction of its width."""
    if text:
        axis.annotate(text, (x, 1), (0, 4), xycoords="axes fraction", textcoords="offset points", **look)


def look(i: int) -> dict[str, Any]:
    """Colour and dashes of line `i`; both differ, so that lines are distinct in greyscale. There are 48 styles."""
    return {"color": PALETTE[i % len(PALETTE)], "linestyle": DASHES[(i + i // len(PALETTE)) % len(DASHES)]}


def looks(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Styles of labelled lines, with more dashed ones drawn on top, so that coinciding lines are both visible."""
    found = {label: {**look(i), "label": label} for i, label in enumerate(labels)}
    return {label: {**each, "zorder": 2 + GAPS[DASHES.index(each["linestyle"])]} for label, each in found.items()}


def time_axis(dataset: xr.Dataset) -> tuple[FloatArray, str]:
    """Positions and axis label of the records: in episodes, if there are several of several steps, or in steps."""
    steps = dataset["step"].to_numpy().astype(np.float64)
    length = int(dataset.attrs.get("steps_per_episode", 1))
    if 1 < length < steps[-1]:
        return steps / length, f"episode ({length} steps each)"
    return steps, "environment step"


def label_time(rows: Iterable[Iterable[Axes]], x: FloatArray, label: str) -> None:
    """Label the time axis below the last row and fit every panel to it."""
    start = 0 if x[0] < 0.05 * x[-1] else float(x[0])  # from 0 if the first record is early
    for row in rows:
        for axis in row:
            axis.set_xlim(start, float(x[-1]) if x[-1] > x[0] else float(x[0]) + 1)
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    for axis in row:
        axis.set_xlabel(label)
        axis.tick_params(labelbottom=True)


def settled(panels: Iterable[Sequence[FloatArray]], share: float = 0.02) -> int:
    """The first record from which every curve, `steps`, stays near its end, within a fraction of its panel's range.

    A curve counts as away from its end until it begins.
    """
    first = 0
    for curves in panels:
        stacked = np.stack(curves)
        known = stacked[np.isfinite(stacked)]
        if len(known):
            away = np.abs(stacked - stacked[:, -1:]) > share * np.ptp(known)
            away |= np.arange(stacked.shape[1]) < np.isfinite(stacked).argmax(1)[:, None]
            first = max([first, *(np.flatnonzero(away.any(0)) + 1).tolist()])
    return first


def draw_band(axis: Axes, x: FloatArray, band: Band, at: Records | None = None, **look: Any) -> FloatArray:
    """Draw the mean over replicates and its 95 % interval, shaded; returns the mean, `steps`.

    The line joins the records `at`, bool `steps`, at which something was measured (`None` for all), and is interrupted
    by NaN; a single value is a marker with an error bar.
    """
    shown = slice(None) if at is None else at
    x, mean, low, high = x[shown], band.mean[shown], band.low[shown], band.high[shown]
    single = np.isfinite(mean).sum() == 1
    marker: dict[str, Any] = {"marker": "o", "markersize": 4, "clip_on": False} if single else {}
    axis.plot(x, mean, **marker, **look)
    if single:
        axis.vlines(x, low, high, color=look.get("color"), alpha=0.4, clip_on=False)
    elif np.isfinite(low).any():
        axis.fill_between(x, low, high, color=look.get("color"), alpha=0.15, linewidth=0)
    return band.mean


def error_lengths(band: Band) -> FloatArray:
    """Lengths of an interval below and above its mean, `2 x ...`; 0 where there is none."""
    lengths: FloatArray = np.nan_to_num(np.stack([band.mean - band.low, band.high - band.mean])).clip(0)
    return lengths


def readable_limits(axis: Axes, curves: Sequence[FloatArray], share: float = 0.1) -> str:
    """Fit the y axis to curves, each `steps`, without the first `share` of the records if these double the range.

    With an annealed temperature the entropy term is initially hundreds of times larger. Returns a note on values cut
    off.
    """
    stacked = np.stack(curves)
    early, late = (part[np.isfinite(part)] for part in (stacked, stacked[:, int(share * stacked.shape[1]) :]))
    if not len(late):
        return ""
    fitted = late if np.ptp(late) < np.ptp(early) / 2 else early
    low, high = float(fitted.min()), float(fitted.max())
    margin = 0.06 * max(high - low, 1e-3 * max(1.0, abs(high)))
    axis.set_ylim(low - margin, high + margin)
    beyond = [end for end in (early.min(), early.max()) if not low - margin <= end <= high + margin]
    return "first records reach " + " and ".join(f"{end:,.0f}" for end in beyond) if beyond else ""
