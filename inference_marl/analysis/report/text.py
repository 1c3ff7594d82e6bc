"""Runs as plain text and figures: the command `inference-marl inspect`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from inference_marl.analysis.comparison import check_comparable, comparison, run_names
from inference_marl.analysis.recorded import Recorded, read
from inference_marl.analysis.report.agents import Row, has_own_learners, name_of, of_agents, published_value
from inference_marl.analysis.report.findings import findings
from inference_marl.analysis.tables import CENSORED, NAMES, NO_INTERVAL, Section, ends, interval_of, number
from inference_marl.statistics.metrics import is_zero_sum


def inspect_run(run: Path | str | Recorded, print: Callable[[str], object] = print) -> None:
    """Print what a run found and draw its figures into its folder.

    Args:
        run: the folder of a finished run, or what `read` made of it.
        print: where the text goes, a block of lines at a time, at most about 100 columns wide.

    Raises:
        InspectError: if the folder is not a run, or the run is not finished.
    """
    from inference_marl.analysis.plots import write_all  # matplotlib, which the tables do not need

    recorded = read(run)
    print(results_table(recorded))
    for section in findings(recorded):
        print("\n" + section.text())
    paths = write_all(recorded)
    print(f"\nFigures in {paths[0].parent}:\n" + "\n".join(f"  {path.name}" for path in paths))


def compare_runs(runs: Sequence[Path | str], print: Callable[[str], object] = print) -> None:
    """Print runs side by side, each with the first, and draw their beliefs into the first one's folder.

    Args:
        runs: folders of finished runs, two or more.
        print: as for `inspect_run`.

    Raises:
        InspectError: if a folder is not a run or not finished, or if runs cannot be compared.
    """
    from inference_marl.analysis.plots.writing import write_comparison

    first, *others = [read(run) for run in runs]
    for other in others:
        check_comparable(first, other)  # before anything is printed
    for other in others:
        print(" and ".join(run_names(first, other)))
        for section in comparison(first, other):
            print("\n" + section.text())
        path = write_comparison(first, other)
        print(f"\nFigure: {path}\n" if path else "")


def results_table(run: Path | str | Recorded) -> str:
    """The results at the last step, every learner under every metric, with published values beside them.

    Args:
        run: the folder of a finished run, or what `read` made of it.

    Raises:
        InspectError: if the folder is not a run, or the run is not finished.
    """
    return results(read(run)).text()


def results(recorded: Recorded) -> Section:
    """`results_table` as a section.

    Below the mean over agents stand the agents one by one where the arm has a learner per seat; in zero-sum games,
    where the mean says nothing, they stand in its place.
    """
    found, last = recorded.summary, recorded.last_step
    published = found.get("published") or {}
    present = {row["metric"] for row in found["results"]}
    names = NAMES | {metric: metric.replace("_", " ") for metric in sorted(present - NAMES.keys())}
    zero_sum = is_zero_sum(recorded.metrics)
    lines: list[Sequence[str]] = []
    for metric, name in names.items():
        rows = [row for row in found["results"] if row["metric"] == metric and row["step"] == last]
        lines += [[name]] if rows else []
        for row in rows:
            own = of_agents(found, row) if zero_sum or has_own_learners(recorded.spec, row["learner"]) else []
            for each in own if zero_sum and own else [row, *own]:
                reference = published_value(found, each, zero_sum, apart=bool(own))
                beside = [] if reference is None else [number(reference)]
                lines.append([f"  {name_of(each)}", *_estimate(each, last), str(each["replicates"]), *beside])
    header = ["", "mean", "95 % interval", "replicates", *(["published"] if published else [])]
    notes = [NO_INTERVAL] if any(len(line) > 2 and line[2] == "-" for line in lines) else []
    if published:
        source = found.get("source") or "source not given"
        notes.append(f"published: at the last step of the published experiment, which may not be this one's; {source}")
    return Section(recorded.title, "", header, lines, " ".join(notes), ("learning_curves", "elbo_parts"))


def _estimate(row: Row, last: int) -> list[str]:
    """Estimate and interval of a results row; a step that was not reached is more than the last one."""
    interval, digits = interval_of(row, row["metric"]), 1 if row["metric"].startswith(CENSORED) else 3
    return [number(interval.mean, digits, last), ends(interval, digits, last)]
