"""Runs and resumes suites: several experiments under one name, such as the same learners on several games.

A suite's folder has an ordinary run folder for each of its runs, and `suite.json`, which lists them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from inference_marl.config.check import check
from inference_marl.config.files import Overrides
from inference_marl.described import first_line, within
from inference_marl.experiment import Experiment, Suite, entrants
from inference_marl.runs import checksums
from inference_marl.runs.completion import begun_as, complete, revise_all
from inference_marl.runs.errors import ArmError, RunError
from inference_marl.runs.executors import Executor
from inference_marl.runs.files import write_text
from inference_marl.runs.folder import begin, begun, failed_replicates_of, is_finished

INDEX = "suite.json"
"""Name of the file that lists the runs of a suite."""


def run(suite: Suite, out: str | Path, name: str, progress: bool, jobs: int | Executor) -> Path:
    """See `inference_marl.runs.run.run`."""
    folder = Path(out) / name
    if (folder / "spec.yaml").exists():
        raise RunError(f"{folder}: got the folder of a single run, expected room for a suite; choose another place")
    found = {run: begun(experiment, folder, run) for run, experiment in suite.runs.items()}
    for run, experiment in suite.runs.items():
        if found[run] is None:
            with within(f"runs.{run}"):
                check(experiment)
    folders = {run: found[run] or begin(experiment, folder, run) for run, experiment in suite.runs.items()}
    index = {
        "runs": {run: {"folder": where.name, "arms": entrants(suite.runs[run])} for run, where in folders.items()},
        "show": suite.show,
    }
    with checksums.listing(folder, [INDEX]):
        write_text(folder / INDEX, json.dumps(index, indent=1))
    return _complete(folder, folders, suite.runs, progress, jobs)


def resume(
    folder: Path, progress: bool, jobs: int | Executor, overrides: Overrides = (), other_versions: bool = False
) -> Path:
    """See `inference_marl.runs.run.resume`."""
    folders = {run: folder / at["folder"] for run, at in read_index(folder)["runs"].items()}
    its = {run: _of_run(run, overrides, folders) for run in folders}
    runs = {run: begun_as(where, its[run], other_versions) for run, where in folders.items()}
    revise_all({where: runs[run] for run, where in folders.items() if its[run]})
    return _complete(folder, folders, runs, progress, jobs, other_versions)


def _of_run(run: str, overrides: Overrides, known: Iterable[str]) -> list[tuple[str, Any]]:
    """The overrides for one run of a suite: those for all runs, and those with its name as prefix.

    Raises:
        RunError: if an override names an unknown run.
    """
    found = []
    for key, value in overrides:
        room, _, rest = key.partition(".")
        name, _, inner = rest.partition(".")
        if room != "runs":
            found.append((key, value))
        elif name not in known or not inner:
            raise RunError(f"{key}: got no key of a run, expected runs.NAME.KEY with one of {', '.join(known)}")
        elif name == run:
            found.append((inner, value))
    return found


def finished(suite: Suite, out: str | Path, name: str) -> list[str]:
    """Names of the runs that are finished already, in the folder in which `run` would continue."""
    folder = Path(out) / name
    found = {run: begun(experiment, folder, run) for run, experiment in suite.runs.items()}
    return [run for run, where in found.items() if where is not None and is_finished(where, suite.runs[run].steps)]


def _complete(
    folder: Path,
    folders: Mapping[str, Path],
    runs: Mapping[str, Experiment],
    progress: bool,
    jobs: int | Executor,
    other_versions: bool = False,
) -> Path:
    """Play the missing runs of a suite, given their folders and experiments by name, and return the suite's folder."""
    try:
        played = {folders[run]: experiment for run, experiment in runs.items()}
        failed = complete(played, progress, jobs, other_versions)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"resume {folder}") from None
    if not failed:
        return folder
    first, *others = [run for run, where in folders.items() if where in failed]
    also = f" (arms of {', '.join(others)} failed as well)" if others else ""
    error = ArmError(f"runs.{first}.{failed[folders[first]]}{also}")
    error.folder, error.traceback = folder, failed[folders[first]].traceback
    raise error


def is_suite(folder: Path | str) -> bool:
    """Whether a folder is a suite's."""
    return (Path(folder) / INDEX).is_file()


def check_none(folders: Iterable[Path | str]) -> None:
    """Check that no folder is a suite's, where runs are compared with each other.

    Raises:
        RunError: if one is.
    """
    for folder in folders:
        if is_suite(folder):
            one = next(iter(read_index(Path(folder))["runs"].values()))["folder"]
            raise RunError(
                f"{folder}: got a suite among several folders, expected those of runs, such as {Path(folder) / one}; "
                "inspect a suite by itself"
            )


def failed_replicates(folder: Path) -> list[str]:
    """Messages about the failed replicates of a run, or of a suite's current runs, one for each arm that has any."""
    if not is_suite(folder):
        return failed_replicates_of(folder)
    runs = read_index(folder)["runs"].values()
    return [line for at in runs for line in failed_replicates_of(folder / at["folder"])]


def read_index(folder: Path) -> dict[str, Any]:
    """Read `suite.json`: `runs`, with the `folder` and the `arms` of each by name, and `show`.

    Raises:
        RunError: if the folder is not a suite's, or the file cannot be read.
    """
    path = folder / INDEX
    if not path.is_file():
        raise RunError(f"{folder}: got no {INDEX} there, expected the folder of a suite")
    try:
        if checksums.altered(folder, [INDEX]):
            raise ValueError("it is not what was written there")
        content: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise RunError(
            f"{path}: got a file that cannot be read ({first_line(error)}), expected that of a suite: run the suite's "
            "file again, which plays nothing twice"
        ) from error
    return content
