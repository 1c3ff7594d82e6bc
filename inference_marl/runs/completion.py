"""What is missing of runs is played, and their results are written."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path

from inference_marl.experiment import Experiment
from inference_marl.runs import checkpoint
from inference_marl.runs.datasets import write_results
from inference_marl.runs.errors import ArmError, RunError
from inference_marl.runs.executors import play_in_processes, play_in_turn
from inference_marl.runs.folder import is_finished, locked
from inference_marl.runs.progress import progress_bar
from inference_marl.runs.recorder import Recorder, records_of, remove


def complete(runs: Mapping[Path, Experiment], progress: bool = True, jobs: int = 1) -> dict[Path, ArmError]:
    """Play what is missing of several runs, and write each one's results as soon as its last arm is done.

    Finished runs are left as they are; failed arms are tried again.

    Args:
        runs: the experiments by their folders, as in each one's `spec.yaml`.
        progress: show one bar for all, with the time left.
        jobs: arms that are played at once, of whichever run, each in a process of its own if there is more than one.

    Returns:
        What became of the runs whose arms could not all be played to their end.

    Raises:
        RunError: if what is in a checkpoint's place is none, or another process is at work on a run.
    """
    check_jobs(jobs)
    todo = {}
    for folder, experiment in runs.items():
        if is_finished(folder):
            remove(folder)  # in case the run was cut off just before
        else:
            todo[folder] = experiment
    if not todo:
        return {}
    with ExitStack() as locks:
        for folder in todo:
            locks.enter_context(locked(folder))
        return _complete(todo, progress, jobs)


def check_jobs(jobs: int) -> None:
    """Refuse numbers of arms to be played at once that are none.

    Raises:
        RunError: if there is not at least one.
    """
    if jobs < 1:
        raise RunError(f"jobs: got {jobs}, expected a positive integer")


def _complete(runs: Mapping[Path, Experiment], progress: bool, jobs: int) -> dict[Path, ArmError]:
    started = {next(iter(runs)): time.monotonic()}
    left = {folder: list(experiment.arms) for folder, experiment in runs.items()}
    failed: dict[Path, dict[str, str]] = {folder: {} for folder in runs}
    errors = {}
    with progress_bar(runs, left, progress) as advance:

        def report(folder: Path, name: str, before: int, since: int) -> None:
            started.setdefault(folder, time.monotonic())
            advance(folder, name, before, since)

        jobs = min(jobs, sum(map(len, left.values())))
        playing = play_in_turn(runs, report) if jobs == 1 else play_in_processes(runs, jobs, report)
        with closing(playing):
            for folder, name, why in playing:
                left[folder].remove(name)
                if why is not None:
                    failed[folder][name] = why
                if not left[folder]:
                    seconds = time.monotonic() - started.get(folder, time.monotonic())
                    error = _conclude(runs[folder], folder, failed[folder], seconds)
                    if error is not None:
                        errors[folder] = error
    return errors


def _recorded(experiment: Experiment, folder: Path, name: str) -> Recorder:
    """The records of an arm that was played to its end."""
    found = Recorder(records_of(folder, name), experiment.metrics, experiment.replicates, experiment.game.agents)
    found.load_state_dict(checkpoint.read(checkpoint.checkpoint_of(folder, name))["recorder"])
    return found


def _conclude(experiment: Experiment, folder: Path, why: Mapping[str, str], seconds: float) -> ArmError | None:
    """Write the results of the arms that did not fail; returns what to say of those that did."""
    failed = {name: why[name] for name in experiment.arms if name in why}
    done = [name for name in experiment.arms if name not in failed]
    if done:
        recorders = {name: _recorded(experiment, folder, name) for name in done}
        write_results(experiment, folder, recorders, seconds, failed)
    if not failed:
        remove(folder)
        return None
    first, *others = failed.values()
    also = f"; {len(others)} more failed: {', '.join(list(failed)[1:])}" if others else ""
    error = ArmError(f"{first}{also}")
    error.folder = folder if done else None
    return error
