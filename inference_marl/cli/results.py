"""What commands print of the folders of runs and suites, and the files they write there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inference_marl.analysis.recorded import Recorded
    from inference_marl.analysis.report.suite import RunOfSuite


def report(folder: Path) -> None:
    """Print what a run found: the table of an ablation or a tournament, or else its results."""
    from inference_marl.analysis.recorded import read
    from inference_marl.analysis.report.text import results_table
    from inference_marl.experiment import is_tournament

    recorded = read(folder)
    levels = recorded.spec.get("levels")
    if levels and is_tournament(levels):
        _crosstable(recorded)
    elif levels:
        compare(recorded)
    else:
        print(results_table(recorded))
        print(f"\nResults are in {folder}; look at them with: inference-marl inspect {folder}")


def compare(run: Path | Recorded) -> None:
    """Print and write the table that compares the arms of a run."""
    from inference_marl.analysis.recorded import Recorded, read
    from inference_marl.analysis.report.ablation import table, write

    recorded = run if isinstance(run, Recorded) else read(run)
    print(table(recorded))
    files = _relative(recorded.folder, write(recorded))
    where = recorded.folder
    print(f"\nResults are in {where}: {files}; look further with: inference-marl inspect {where}")


def _crosstable(recorded: Recorded) -> None:
    from inference_marl.analysis.report.tournament import table, write

    print(table(recorded))
    print(f"\nResults are in {recorded.folder}: {_relative(recorded.folder, write(recorded))}")


def report_suite(folder: Path, write: Callable[[RunOfSuite], list[Path]]) -> None:
    """Print the tables of all runs together and, when its files are written, a line on each run."""
    from inference_marl.analysis.report import suite

    played = suite.read(folder)
    print(suite.table(played))
    print(f"\nResults of all runs together are in {folder}: {_relative(folder, suite.write(played))}\n")
    for run in played.runs:
        files = _relative(run.folder, write(run)) if run.summary else "no results"
        print(f"{run.name} is in {run.folder}{files and f': {files}'}", flush=True)
    print("Look into one with: inference-marl inspect FOLDER")


def _relative(folder: Path, paths: Sequence[Path]) -> str:
    return ", ".join(str(path.relative_to(folder)) for path in paths)


def write_tables(run: RunOfSuite) -> list[Path]:
    """The tables and figures that tournaments and ablations have instead of a table of results; else nothing."""
    from inference_marl.analysis.report import ablation, tournament
    from inference_marl.experiment import is_tournament

    levels = run.summary["levels"]
    if not levels:
        return []
    return tournament.write(run.folder) if is_tournament(levels) else ablation.write(run.folder)


def draw(run: RunOfSuite) -> list[Path]:
    """`write_tables`, and the figures of a run that is no tournament."""
    from inference_marl.analysis.plots import write_all
    from inference_marl.experiment import is_tournament

    paths = write_tables(run)
    return paths if is_tournament(run.summary["levels"]) else [*paths, *write_all(run.folder)]


def look_into(folder: Path) -> None:
    """Print what a run found and believed, and draw its figures; of a suite its tables, with figures for each run."""
    from inference_marl.analysis.recorded import read
    from inference_marl.analysis.report.text import inspect_run
    from inference_marl.experiment import is_tournament
    from inference_marl.runs.suite import is_suite

    if is_suite(folder):
        report_suite(folder, draw)
        return
    recorded = read(folder)
    if is_tournament(recorded.spec.get("levels")):
        _crosstable(recorded)
    else:
        inspect_run(recorded)
    datasets = ("metrics.nc", "posterior.nc", "actions.nc", "surface.nc")
    kept = ("spec.yaml", "summary.json", *datasets, "checkpoints", "figures")
    print(f"\nThe run is in {folder}: {', '.join(name for name in kept if (folder / name).exists())}")
