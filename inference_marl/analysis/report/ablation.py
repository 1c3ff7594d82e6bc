"""What an ablation found: one table and two figures, from the run's folder. The command `inference-marl ablate`.

A cell of the table is an arm of the run; its levels are the run's `levels`, or, for arms that were written one by one,
the arm's name. The first cell is the one that the others are compared with.
"""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from inference_marl.analysis.plots import save
from inference_marl.analysis.plots.drawing import (
    PALETTE,
    draw_band,
    heading,
    label_time,
    looks,
    panels,
    shared_legend,
    styled,
    time_axis,
    title,
)
from inference_marl.analysis.posterior import Recorded, read
from inference_marl.analysis.report.matrix import entry_text
from inference_marl.analysis.report.tables import Section, number
from inference_marl.runs.results import write_text
from inference_marl.statistics.beliefs import per_replicate
from inference_marl.statistics.intervals import metric_band

Levels = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        header: as printed.
        metric: as in `summary.json`.
        form: of a printed entry, see `entry_text`.
        digits: decimals as printed.
        difference: from the first cell.
    """

    header: str
    metric: str
    form: str
    digits: int
    difference: bool = False

    @property
    def name(self) -> str:
        """In `ablation.csv`."""
        return f"{self.metric}_difference" if self.difference else self.metric

    def text(self, found: Mapping[str, Any] | None) -> str:
        """An entry as printed; a median that was not reached is more than the last step."""
        return entry_text(found, self.metric, self.form, self.digits)


REACHED = (
    Column("reward", "reward", "half", 2),
    Column("P(optimum)", "joint_optimum_probability", "ends", 3),
    Column("success rate", "success_rate", "ends", 3),
    Column("steps", "steps_to_success", "alone", 0),
)
COMPARED = (
    Column("reward vs first", "reward", "half", 2, difference=True),
    Column("P(optimum) vs first", "joint_optimum_probability", "half", 3, difference=True),
    Column("success vs first", "success_rate", "ends", 3, difference=True),
    Column("ELBO", "elbo", "half", 2),
    Column("ELBO gap", "elbo_gap", "half", 3),
)

BLOCKS = {
    "What was reached: reward per step, the joint policy's probability of the game's optimum, and the median number "
    "of environment steps to lasting success. Means over agents and replicates; ± is half of the 95 % interval "
    "(Student's), brackets hold its ends (for the success rate Wilson's); replicates that are all alike give "
    "none.": REACHED,
    "The paired difference from the first cell, replicate by replicate (Student's interval, for success Newcombe's); "
    "and how far inference came: the ELBO, in units of reward, and what it lacks of the evidence, where the learner "
    "can compute that. Where models or critics differ, a higher ELBO is not better inference: compare the "
    "gap.": COMPARED,
}
"""The blocks that the table is printed in, since one is too wide, by what they say."""


FIGURES = ("ablation_curves", "ablation_elbo")
"""Names of the figures' files, without their ending."""


def write(run: Path | str | Recorded) -> list[Path]:
    """Write `ablation.csv` and the figures `ablation_curves.png` and `ablation_elbo.png` into a run's folder.

    Returns:
        The files.

    Raises:
        InspectError: if the folder is not a run, or the run has no results.
    """
    recorded = run if isinstance(run, Recorded) else read(run)
    table = write_text(recorded.folder / "ablation.csv", as_csv(recorded))
    levels = levels_of(recorded)
    curves, bars = FIGURES
    figures = {curves: learning_curves(recorded.metrics, levels)}
    if "elbo" in recorded.metrics:
        figures[bars] = elbo_bars(recorded.metrics, levels)
    return [table, *(save(figure, recorded.folder / "figures" / f"{name}.png") for name, figure in figures.items())]


def levels_of(recorded: Recorded) -> Levels:
    """The level of each factor, by arm; the arm's name is the only one where the run says nothing of levels."""
    levels: Levels = recorded.spec.get("levels") or {arm: {"arm": arm} for arm in recorded.spec["arms"]}
    return levels


def table(run: Path | str | Recorded) -> str:
    """The table as text, for 120 columns.

    Raises:
        InspectError: if the folder is not a run, or the run has no results.
    """
    shown = sections(run if isinstance(run, Recorded) else read(run))
    return "\n\n".join(section.text().strip("\n") for section in shown)


def sections(recorded: Recorded) -> list[Section]:
    """The blocks of the table, each saying what its columns are; then what failed."""
    levels, failed = levels_of(recorded), recorded.summary.get("failed") or {}
    metrics, last = recorded.metrics, int(recorded.metrics["step"][-1])
    found = _found(recorded)
    names = _names(levels)
    rows = {
        column: [
            "failed" if arm in failed and not column.difference else column.text(found[column].get(arm))
            for arm in levels
        ]
        for column in found
    }
    count = metrics.sizes["replicate"]
    what = f"{metrics.attrs.get('experiment', recorded.folder.name)}: {metrics.attrs.get('game', 'a game')}, "
    what += f"{len(levels)} cells, {count} replicate{'s' if count > 1 else ''} each, at step {last}"
    lacking = f"no differences: the first cell failed ({first})" if (first := next(iter(levels))) in failed else ""
    tables = [Section(what)]
    for explanation, columns in BLOCKS.items():
        block = [column for column in columns if column in found]
        header = [*names[0], *(column.header for column in block)]
        entries = [[*name, *(rows[column][i] for column in block)] for i, name in enumerate(names[1:])]
        note = lacking if any(column.difference for column in columns) else ""
        figures = FIGURES if columns is COMPARED else ()
        tables.append(Section("", explanation, header, entries, note, figures, len(names[0])))
    why = "\n".join(f"failed  {arm}: {reason}" for arm, reason in failed.items())
    return [*tables, *([Section(why)] if why else [])]


def as_csv(recorded: Recorded) -> str:
    """The table with full precision: a row per cell, a column per factor, and three per number."""
    levels, failed, found = levels_of(recorded), recorded.summary.get("failed") or {}, _found(recorded)
    ends = ("mean", "low", "high")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    factors = list(next(iter(levels.values())))
    numbers = [column.name if end == "mean" else f"{column.name}_{end}" for column in found for end in ends]
    writer.writerow(["cell", *factors, *numbers, "replicates", "failed"])
    for arm, at in levels.items():
        entries = [found[column].get(arm, {}).get(end) for column in found for end in ends]
        count = 0 if arm in failed else recorded.metrics.sizes["replicate"]
        writer.writerow([arm, *at.values(), *entries, count, failed.get(arm, "")])
    return text.getvalue()


def _found(recorded: Recorded) -> dict[Column, dict[str, dict[str, Any]]]:
    """Rows of `summary.json` at the last step, by column and arm, for columns that some arm has."""
    last = int(recorded.metrics["step"][-1])
    found: dict[Column, dict[str, dict[str, Any]]] = {}
    for column in (*REACHED, *COMPARED):
        rows = recorded.summary.get("differences", []) if column.difference else recorded.summary["results"]
        mine = {row["learner"]: row for row in rows if row["metric"] == column.metric and row["step"] == last}
        if mine:
            found[column] = mine
    return found


def _names(levels: Levels) -> list[list[str]]:
    """The first columns of the table, their header first: a cell's levels or, where few differ, those that do."""
    if _is_grid(levels):
        return [list(next(iter(levels.values()))), *([*at.values()] for at in levels.values())]
    rows = [["factor", "level"]]
    for changed in (_changes(levels, arm) for arm in levels):
        rows.append([" + ".join(changed) or "-", " + ".join(changed.values()) or "reference"])
    return rows


def _changes(levels: Levels, arm: str) -> dict[str, str]:
    """The levels of an arm that are not those of the first."""
    first = next(iter(levels.values()))
    return {factor: level for factor, level in levels[arm].items() if level != first[factor]}


def _is_grid(levels: Levels) -> bool:
    """Whether every combination of levels is there."""
    columns = zip(*(at.values() for at in levels.values()), strict=True)
    return prod(len(set(column)) for column in columns) == len(levels)


def groups(levels: Levels) -> dict[str, dict[str, str]]:
    """Which arms share a panel, and what they are called there: `{title: {arm: label}}`.

    Of a grid, those that differ in the last factor only. Of other designs a panel per factor: the first arm, and those
    that differ from it in that factor alone; then one of the rest.
    """
    found: dict[str, dict[str, str]] = {}
    if _is_grid(levels):
        for arm, at in levels.items():
            *others, last = at
            found.setdefault(", ".join(f"{factor}: {at[factor]}" for factor in others), {})[arm] = at[last]
        return found
    first, *rest = levels
    for arm in rest:
        changed = _changes(levels, arm)
        panel = next(iter(changed)) if len(changed) == 1 else "several changes"
        found.setdefault(panel, {first: "reference"})[arm] = " + ".join(changed.values())
    return found


@styled
def learning_curves(metrics: xr.Dataset, levels: Levels) -> Figure:
    """Reward and the joint probability of the optimum (or the success rate) over time, in panels of a few cells each.

    Args:
        metrics: as in `metrics.nc`; cells that it lacks are left out.
        levels: by arm and factor.
    """
    probability = "joint_optimum_probability" if "joint_optimum_probability" in metrics else "success"
    shown = {"reward": "reward per step", probability: "success rate"}
    if probability != "success":
        shown[probability] = "joint probability\nof the optimum"
    shown = {name: label for name, label in shown.items() if name in metrics}
    known = set(metrics["learner"].to_numpy().tolist())
    grouped = groups(levels)
    look = {panel: looks(cells.values()) for panel, cells in grouped.items()}
    columns = min(len(grouped), 4)
    bands = -(-len(grouped) // columns)
    figure, grid = panels(bands * len(shown), columns, (3.4, 2.2), sharey=False)
    x, label = time_axis(metrics)
    for row, (name, what) in enumerate(shown.items()):
        axes: list[Axes] = []
        for i, (panel, cells) in enumerate(grouped.items()):
            axis = grid[i // columns * len(shown) + row][i % columns]
            for arm, called in cells.items():
                values = per_replicate(metrics, name, arm) if arm in known else None
                if values is None:
                    axis.plot([], [], **look[panel][called])  # for the legend
                else:
                    draw_band(axis, x, metric_band(name, values), **look[panel][called])
            if row == 0 and panel:
                title(axis, _wrapped(panel))
            if i % columns == 0:
                axis.set_ylabel(what)
            axes.append(axis)
        _share_y(axes, (-0.03, 1.03) if name == probability else None, columns)
    for i in range(len(grouped), bands * columns):
        for row in range(len(shown)):
            grid[i // columns * len(shown) + row][i % columns].set_visible(False)
    lowest = [grid[i // columns * len(shown) + len(shown) - 1][i % columns] for i in range(len(grouped))]
    label_time([[axis for row_axes in grid for axis in row_axes], lowest], x, label)
    for axis in lowest:
        axis.tick_params(labelbottom=True)
    if len({tuple(cells.values()) for cells in grouped.values()}) == 1:
        shared_legend(figure, grid[0][0])
    else:
        figure.set_figheight(figure.get_figheight() + bands * 0.19 * max(map(len, grouped.values())))
        for axis in lowest:
            below = axis.transAxes + ScaledTranslation(0, -0.45, figure.dpi_scale_trans)
            axis.legend(
                loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=below, borderaxespad=0, handlelength=2.8
            )
    heading(figure, metrics, "mean and 95 % interval")
    return figure


def _share_y(axes: Sequence[Axes], limits: tuple[float, float] | None, columns: int) -> None:
    """One range for all panels of a metric, with its numbers at the left only."""
    low, high = limits or (min(axis.get_ylim()[0] for axis in axes), max(axis.get_ylim()[1] for axis in axes))
    for i, axis in enumerate(axes):
        axis.set_ylim(low, high)
        axis.tick_params(labelleft=i % columns == 0)


PARTS = (
    (r"expected value $Q$ under $\rho$ and $\pi$", "elbo_reward", 1, PALETTE[2]),
    ("weighted entropy (relative to uniform)", "elbo_entropy", 1, PALETTE[1]),
    (r"$-$ weighted KL from the model", "elbo_kl", -1, PALETTE[0]),
)
"""The parts of the ELBO, both weights included: label, metric, sign and colour."""

READABLE = 10.0
"""Times what the smallest cell of a panel reaches, what is beyond is cut off, so that the smallest can be read."""


@styled
def elbo_bars(metrics: xr.Dataset, levels: Levels) -> Figure:
    """The ELBO of every cell at the last record, and the three parts that add up to it.

    Each part starts where the one before it ends, so that the last one ends at the ELBO. Where the learner can compute
    the evidence, it is marked as well: what lies between is the guide's gap.

    ELBOs of different models or critics are no measure of inference, and may differ a hundredfold: every panel has a
    range of its own, and a cell that reaches more than `READABLE` times as far as the panel's smallest runs out of it,
    with its ELBO above the panel.

    Args:
        metrics: as in `metrics.nc`; cells that it lacks, or that have no ELBO, are left out.
        levels: by arm and factor.
    """
    known = metrics["learner"].to_numpy().tolist()
    grouped = groups(levels)
    columns = min(len(grouped), 2)
    rows = -(-len(grouped) // columns)
    counts = [len(cells) for cells in grouped.values()]
    tallest = [max(counts[row * columns : (row + 1) * columns]) for row in range(rows)]
    size = (5.6, 0.36 * sum(tallest) / rows + 0.4)
    figure, grid = panels(rows, columns, size, sharex=False, sharey=False, heights=[count + 1 for count in tallest])
    axes = [axis for row in grid for axis in row]
    notes = []
    for i, (axis, cells) in enumerate(zip(axes, grouped.values(), strict=False)):
        spans = {
            arm: span for y, arm in enumerate(cells) if arm in known and (span := _decomposition(axis, y, metrics, arm))
        }
        axis.set_yticks(range(len(cells)), [cells[arm] for arm in cells])
        axis.set_ylim(tallest[i // columns] - 0.4, -0.6)
        axis.grid(False, axis="y")
        axis.axvline(0, color="#999999", linewidth=0.7, zorder=0.5)
        beyond = [
            f"{cells[arm]} {number(_last(metrics, 'elbo', arm) or 0.0, 2)}" for arm in _readable_range(axis, spans)
        ]
        more = f" and {len(beyond) - 2} more" if len(beyond) > 2 else ""
        notes.append(f"beyond the axis: ELBO of {', '.join(beyond[:2])}{more}" if beyond else "")
    for axis, panel, note in zip(axes, grouped, notes, strict=False):
        title(axis, panel, note if any(notes) else None)
    for axis in axes[len(grouped) :]:
        axis.set_visible(False)
    for axis in axes[: len(grouped)][-columns:]:
        axis.set_xlabel("in units of reward")
    fullest = max(axes, key=lambda axis: len(axis.get_legend_handles_labels()[1]))
    shared_legend(figure, fullest)
    heading(figure, metrics, f"at step {int(metrics['step'][-1])}, mean over agents and replicates")
    return figure


def _decomposition(axis: Axes, y: int, metrics: xr.Dataset, arm: str) -> tuple[float, float] | None:
    """Draw one cell's parts and marks; returns from where to where they go, `None` if it has no ELBO."""
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
    marks: list[tuple[str, float, dict[str, Any]]] = [
        ("ELBO", elbo, {"marker": "D", "markersize": 4.5, "color": "black"})
    ]
    gap = _last(metrics, "elbo_gap", arm)
    if gap is not None:
        hollow = {"marker": "o", "markersize": 8.5, "markerfacecolor": "none", "markeredgecolor": "black"}
        marks.append(("evidence (the ELBO of the best guide)", elbo + gap, hollow))
    for label, x, look in marks:
        axis.plot(x, y + 0.26, linestyle="none", label=None if label in seen else label, **look)
        ends.append(x)
    return min(ends), max(ends)


def _readable_range(axis: Axes, spans: Mapping[str, tuple[float, float]]) -> list[str]:
    """Fit the x axis to cells that can be read beside each other; returns those that run out of it."""
    if not spans:
        return []
    reach = {arm: max(-low, high) for arm, (low, high) in spans.items()}
    smallest = min((far for far in reach.values() if far > 0), default=1.0)
    shown = [arm for arm in spans if reach[arm] <= READABLE * smallest]
    low, high = min(spans[arm][0] for arm in shown), max(spans[arm][1] for arm in shown)
    margin = 0.03 * ((high - low) or 1.0)
    axis.set_xlim(low - margin, high + margin)
    return [arm for arm in spans if arm not in shown]


def _last(metrics: xr.Dataset, name: str, arm: str) -> float | None:
    """Mean over agents and replicates at the last record."""
    values = per_replicate(metrics, name, arm)
    return None if values is None or not np.isfinite(values[:, -1]).all() else float(values[:, -1].mean())


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 44)
