"""Reports of runs as plain text and figures, for the command `inference-marl inspect`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from inference_marl.analysis.comparison import check_comparable, comparison, run_names
from inference_marl.analysis.recorded import Recorded, read
from inference_marl.analysis.report.findings import findings, overview
from inference_marl.analysis.report.tables import Report, ablation_report, run_report
from inference_marl.analysis.report.tournament import tournament_report
from inference_marl.analysis.tables import as_text
from inference_marl.experiment import is_tournament
from inference_marl.statistics.beliefs import modelling


def report_of(run: Path | str | Recorded, compare: bool = False) -> Report:
    """The tables of a run: those of a tournament, of an ablation (or of any run with `compare`), or its results.

    Raises:
        InspectError: if the folder is not a finished run.
    """
    recorded = read(run)
    if is_tournament(recorded.spec.get("levels")):
        return tournament_report(recorded)
    return ablation_report(recorded) if compare or recorded.spec.get("levels") else run_report(recorded)


def inspect_run(
    run: Path | str | Recorded, full: bool = False, print: Callable[[str], object] = print, known: bool = False
) -> None:
    """Print the beliefs of a run's learners and write its figures to its folder.

    For a run without opponent models, its results are printed first.

    Args:
        run: the folder of a finished run, or the result of `read`.
        full: whether to answer every question with its own table, instead of an overview on one screen.
        print: called with the text, a block of lines at a time, at most about 120 columns wide.
        known: whether the results have been printed already.

    Raises:
        InspectError: if the folder is not a finished run.
    """
    from inference_marl.analysis.plots import write_all  # matplotlib, which the tables do not need

    recorded = read(run)
    believing = recorded.posterior is not None and bool(modelling(recorded.posterior))
    head = recorded.title if believing or known else report_of(recorded).text()
    print(f"{head}\n\n{as_text(findings(recorded) if full else overview(recorded))}")
    try:
        paths = write_all(recorded)
    except OSError as error:  # for a read-only folder
        print(f"\nNo figures: {error.filename2 or error.filename or recorded.folder}: {error.strerror or error}")
        return
    print(f"\nFigures in {paths[0].parent}: {', '.join(path.name for path in paths)}")


def compare_runs(runs: Sequence[Path | str], print: Callable[[str], object] = print) -> None:
    """Print comparisons of runs with the first, and write figures of their beliefs to the first one's folder.

    Args:
        runs: folders of finished runs, two or more.
        print: see `inspect_run`.

    Raises:
        InspectError: if a folder is not a finished run, or if runs cannot be compared.
    """
    from inference_marl.analysis.plots.writing import write_comparison

    first, *others = [read(run) for run in runs]
    for other in others:
        check_comparable(first, other)  # before anything is printed
    for other in others:
        print(f"{' and '.join(run_names(first, other))}\n\n{as_text(comparison(first, other))}")
        path = write_comparison(first, other)
        print(f"\nFigure: {path}\n" if path else "")
