"""Suites: several experiments under one name, such as the same learners on several games.

A suite's folder has a folder for each of its runs, which is like any other run's, and `suite.json`, which says which
they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from inference_marl.config.tournament import entrants
from inference_marl.described import first_line, within
from inference_marl.runs.results import write_text
from inference_marl.runs.run import (
    ArmError,
    Experiment,
    RunError,
    begin,
    begun,
    check_jobs,
    complete_all,
    is_finished,
    is_metric,
    metric_names,
)

INDEX = "suite.json"
"""Name of the file that says which runs a suite's folder has."""


class Suite:
    """Several experiments, played and tabulated together: the content of a file with the key `runs`.

    Args:
        runs: the experiments, by name (letters, digits, `_` and `-`).
        show: metrics to tabulate over all runs, or scores of a game's own; if there are none, what says most about the
            games at hand.

    Raises:
        ValueError: if there is no run, one cannot be called so, or a metric is unknown.
    """

    def __init__(self, runs: Mapping[str, Experiment], show: Sequence[str] = ()) -> None:
        if not runs:
            raise ValueError("runs: got none, expected at least one")
        Experiment.check_names(runs, "runs", "a run")
        games = [experiment.game for experiment in runs.values()]
        for metric in show:
            if not any(is_metric(metric, game) for game in games):
                raise ValueError(f"show: got {metric}, expected one of {', '.join(metric_names(*games))}")
        self.runs, self.show = dict(runs), list(show)

    def describe(self) -> dict[str, Any]:
        """As plain data, in the form of an experiment file."""
        return {
            "runs": {name: experiment.describe()["init_args"] for name, experiment in self.runs.items()},
            "show": list(self.show),
        }

    def tournament(self) -> Suite:
        """The tournaments of all experiments, see `Experiment.tournament`.

        Raises:
            ValueError: as there, naming the run.
        """
        played = {}
        for name, experiment in self.runs.items():
            with within(f"runs.{name}"):
                played[name] = experiment.tournament()
        return Suite(played, self.show)

    def finished(self, out: str | Path = "runs", name: str = "suite") -> list[str]:
        """Names of the runs that were played to their end before, in a folder that `run` would go on with."""
        folder = Path(out) / name
        found = {run: begun(experiment, folder, run) for run, experiment in self.runs.items()}
        return [run for run, where in found.items() if where is not None and is_finished(where)]

    def run(self, out: str | Path = "runs", name: str = "suite", progress: bool = True, jobs: int = 1) -> Path:
        """Play what is missing of every run, each in a folder of its own within the suite's.

        A run goes on in the newest folder in which that very experiment was begun, and starts a new one if there is
        none; so a suite that was stopped, or changed in some of its runs, plays nothing twice. A run's results are
        written as soon as it is done.

        Args:
            out: where the suite's folder goes.
            name: of the suite's folder.
            progress: show a bar with the time left.
            jobs: arms that are played at once, of whichever run, as for `Experiment.run`.

        Returns:
            The suite's folder.

        Raises:
            ArmError: if arms could not be played to their end; the results of the others are written then.
            RunError: if a run cannot go on, or the suite's folder is that of a single run.
            ValueError: if an experiment cannot be played, naming the run; nothing is played then.
        """
        check_jobs(jobs)
        folder = Path(out) / name
        if (folder / "spec.yaml").exists():
            raise RunError(f"{folder}: got the folder of a single run, expected room for a suite; choose another place")
        found = {run: begun(experiment, folder, run) for run, experiment in self.runs.items()}
        for run, experiment in self.runs.items():
            if found[run] is None:
                with within(f"runs.{run}"):
                    experiment.check()
        folders = {run: found[run] or begin(experiment, folder, run) for run, experiment in self.runs.items()}
        index = {
            "runs": {run: {"folder": where.name, "arms": entrants(self.runs[run])} for run, where in folders.items()},
            "show": self.show,
        }
        write_text(folder / INDEX, json.dumps(index, indent=1))
        return _complete(folder, folders, self.runs, progress, jobs)


def resume(folder: str | Path, progress: bool = True, jobs: int = 1) -> Path:
    """Go on with every run of a suite from its last checkpoints; finished runs are left, failed arms tried again.

    Args:
        folder: the suite's.
        progress: show a bar with the time left.
        jobs: as for `Suite.run`.

    Returns:
        `folder`.

    Raises:
        ArmError: as for `Suite.run`.
        RunError: if the folder is not that of a suite, or a run cannot go on.
        SpecError: if a run's `spec.yaml` cannot be read.
    """
    from inference_marl.config.files import load

    folder = Path(folder)
    folders = {run: folder / at["folder"] for run, at in read_index(folder)["runs"].items()}
    runs = {run: load(where / "spec.yaml") for run, where in folders.items()}
    return _complete(folder, folders, runs, progress, jobs)


def _complete(
    folder: Path, folders: Mapping[str, Path], runs: Mapping[str, Experiment], progress: bool, jobs: int
) -> Path:
    """Play what is missing of a suite's runs, given their folders and experiments by name; returns the suite's."""
    try:
        failed = complete_all({folders[run]: experiment for run, experiment in runs.items()}, progress, jobs)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"resume {folder}") from None
    if not failed:
        return folder
    first, *others = [run for run, where in folders.items() if where in failed]
    also = f" (arms of {', '.join(others)} failed as well)" if others else ""
    error = ArmError(f"runs.{first}.{failed[folders[first]]}{also}")
    error.folder = folder
    raise error


def is_suite(folder: Path | str) -> bool:
    """Whether a folder is a suite's."""
    return (Path(folder) / INDEX).is_file()


def check_none(folders: Iterable[Path | str]) -> None:
    """Refuse suites where runs are compared with each other.

    Raises:
        RunError: if one of the folders is a suite's.
    """
    for folder in folders:
        if is_suite(folder):
            one = next(iter(read_index(Path(folder))["runs"].values()))["folder"]
            raise RunError(
                f"{folder}: got a suite among several folders, expected those of runs, such as {Path(folder) / one}; a "
                "suite is looked at by itself"
            )


def read_index(folder: Path) -> dict[str, Any]:
    """What `suite.json` says: `runs`, with the `folder` and the `arms` of each by its name, and `show`.

    Raises:
        RunError: if the folder is not that of a suite, or the file cannot be read.
    """
    path = folder / INDEX
    if not path.is_file():
        raise RunError(f"{folder}: got no {INDEX} there, expected the folder of a suite")
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise RunError(
            f"{path}: got a file that cannot be read ({first_line(error)}), expected that of a suite: run the suite's "
            "file again, which plays nothing twice"
        ) from error
    return content
