"""Printed results of runs and suites, and the files that commands write to their folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def show_run(folder: Path, compare: bool = False) -> None:
    """Print and write the tables of a run; with `compare`, those that compare its arms."""
    from inference_marl.analysis.report.text import report_of

    report = report_of(folder, compare)
    print(report.text())
    print(f"\nResults are in {folder}: {_names(folder, report.write())}")
    if report.name != "tournament":  # for which inspect prints the same
        print(f"Look further with: inference-marl inspect {folder}")


def show_suite(folder: Path, write: Callable[[Path], list[Path]]) -> None:
    """Print the tables of all runs of a suite together and, when its files have been written, a line for each run."""
    from inference_marl.analysis.report.suite import read, suite_report

    played = read(folder)
    report = suite_report(played)
    print(report.text())
    print(f"\nResults of all runs together are in {folder}: {_names(folder, report.write())}\n")
    for run in played.runs:
        files = _names(run.folder, write(run.folder)) if run.recorded else "no results"
        print(f"{run.name} is in {run.folder}: {files}", flush=True)
    print("Look into one with: inference-marl inspect FOLDER")


def write_tables(folder: Path, compare: bool = False) -> list[Path]:
    """Write the tables of a run, with the figures that belong to them."""
    from inference_marl.analysis.report.text import report_of

    return report_of(folder, compare).write()


def write_figures(folder: Path) -> list[Path]:
    """Write the tables of a run and, unless it is a tournament, its figures."""
    from inference_marl.analysis.plots import write_all
    from inference_marl.analysis.report.text import report_of

    report = report_of(folder)
    return report.write() if report.name == "tournament" else [*report.write(), *write_all(folder)]


def look_into(folder: Path, full: bool = False, known: bool = False) -> None:
    """Print the beliefs of a run's learners and draw its figures; for a suite or a tournament its tables and figures.

    `full` and `known` as for `inspect_run`.
    """
    from inference_marl.analysis.report.text import inspect_run, report_of
    from inference_marl.runs.suite import is_suite

    if is_suite(folder):
        show_suite(folder, write_figures)
    elif report_of(folder).name == "tournament":
        show_run(folder)
    else:
        inspect_run(folder, full, known=known)


def _names(folder: Path, paths: list[Path]) -> str:
    return ", ".join(str(path.relative_to(folder)) for path in paths)
