"""What an ablation found: one table and two figures, from the run's folder. The command `inference-marl ablate`.

A cell of the design is an arm of the run; its levels are the run's `levels` or, for arms that were written one by one,
the arm's name. The other cells are compared with the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_marl.analysis.cross_table import entry_text
from inference_marl.analysis.levels import levels_of, names_of
from inference_marl.analysis.plots import ablation_curves, elbo_bars
from inference_marl.analysis.plots.writing import write_figures
from inference_marl.analysis.recorded import Recorded, read
from inference_marl.analysis.tables import Section, as_csv, as_text, failures
from inference_marl.runs.files import write_text


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
"""The blocks of the printed table, which would be too wide as one, by their explanations."""

CURVES, BARS = "ablation_curves", "ablation_elbo"
"""Names of the figures' files, without suffix."""


def write(run: Path | str | Recorded) -> list[Path]:
    """Write `ablation.csv` and the figures `ablation_curves.png` and `ablation_elbo.png` into a run's folder.

    Returns:
        The files.

    Raises:
        InspectError: if the folder is not a run, or the run has no results.
    """
    recorded = read(run)
    metrics, levels = recorded.metrics, levels_of(recorded)
    figures = {CURVES: ablation_curves(metrics, levels)}
    if "elbo" in metrics:
        figures[BARS] = elbo_bars(metrics, levels)
    table = write_text(recorded.folder / "ablation.csv", as_csv(records(recorded)))
    return [table, *write_figures(recorded.folder, figures)]


def table(run: Path | str | Recorded) -> str:
    """The table as text, for 120 columns.

    Raises:
        InspectError: if the folder is not a run, or the run has no results.
    """
    return as_text(sections(read(run)))


def sections(recorded: Recorded) -> list[Section]:
    """The blocks of the table, each saying what its columns are; then what failed."""
    levels, failed, found = levels_of(recorded), recorded.failed, _found(recorded)
    header, names = names_of(levels)
    count = recorded.replicates
    what = f"{len(levels)} cells, {count} each, at step {recorded.last_step}"
    tables = [Section(f"{recorded.name}: {recorded.metrics.attrs.get('game', 'a game')}, {what}")]
    first = next(iter(levels))
    for explanation, columns in BLOCKS.items():
        block = [column for column in columns if column in found]
        rows = [
            [
                *name,
                *(
                    "failed" if arm in failed and not column.difference else column.text(found[column].get(arm))
                    for column in block
                ),
            ]
            for arm, name in zip(levels, names, strict=True)
        ]
        compared = columns is COMPARED
        note = f"no differences: the first cell failed ({first})" if compared and first in failed else ""
        figures = (CURVES, BARS) if compared else ()
        headers = [*header, *(column.header for column in block)]
        tables.append(Section("", explanation, headers, rows, note, figures, len(header)))
    return [*tables, *failures(failed)]


def records(recorded: Recorded) -> list[dict[str, Any]]:
    """The table with full precision, for `as_csv`: a row per cell, a column per factor, and three per number."""
    found, rows = _found(recorded), []
    for arm, at in levels_of(recorded).items():
        numbers = {
            column.name if end == "mean" else f"{column.name}_{end}": found[column].get(arm, {}).get(end)
            for column in found
            for end in ("mean", "low", "high")
        }
        failed = recorded.failed.get(arm, "")
        count = 0 if failed else recorded.metrics.sizes["replicate"]
        rows.append({"cell": arm, **at, **numbers, "replicates": count, "failed": failed})
    return rows


def _found(recorded: Recorded) -> dict[Column, dict[str, dict[str, Any]]]:
    """Rows of `summary.json` at the last step, by column and arm, for columns that some arm has."""
    found: dict[Column, dict[str, dict[str, Any]]] = {}
    for column in (*REACHED, *COMPARED):
        rows = recorded.summary.get("differences", []) if column.difference else recorded.summary["results"]
        mine = {
            row["learner"]: row for row in rows if row["metric"] == column.metric and row["step"] == recorded.last_step
        }
        if mine:
            found[column] = mine
    return found
