"""The progress bar of runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from inference_marl.experiment import Experiment
from inference_marl.runs.executors import Report


@contextmanager
def progress_bar(runs: Mapping[Path, Experiment], left: Mapping[Path, list[str]], progress: bool) -> Iterator[Report]:
    """One bar for all arms of all runs, by what they report; `left` are those that have not ended."""
    steps = sum(experiment.steps * len(experiment.arms) for experiment in runs.values())
    arms = sum(len(experiment.arms) for experiment in runs.values())
    made: dict[tuple[Path, str], int] = {}
    over: set[tuple[Path, str]] = set()
    with tqdm(total=steps, unit="step", disable=not progress, dynamic_ncols=True, mininterval=_refresh()) as bar:

        def report(folder: Path, name: str, before: int, since: int) -> None:
            arm = folder, name
            if arm not in made:
                bar.total = (bar.total or 0) - before  # so that the time left is that of the steps to come
            if before + since == runs[folder].steps:
                over.add(arm)
            at = next((f"{each.name}, " for each, names in left.items() if names), "") if len(runs) > 1 else ""
            bar.set_description(f"{at}{len(over)} of {arms} arms done", refresh=False)
            bar.update(since - made.get(arm, 0))
            made[arm] = since

        yield report


def _refresh() -> float:
    """Seconds between updates of the progress bar: rare where they pile up, as in a log file."""
    return 0.2 if sys.stderr.isatty() else 10.0
