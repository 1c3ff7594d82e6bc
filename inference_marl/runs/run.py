"""Runs experiments and suites, and resumes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference_marl.config.check import check
from inference_marl.config.files import Overrides
from inference_marl.config.overrides import as_pairs
from inference_marl.experiment import Experiment, Suite
from inference_marl.runs import suite
from inference_marl.runs.completion import begun_as, check_jobs, complete, revise_all
from inference_marl.runs.executors import Executor
from inference_marl.runs.folder import begin, begun, is_finished


def run(
    experiment: Experiment | Suite,
    out: str | Path = "runs",
    name: str = "experiment",
    progress: bool = True,
    jobs: int | Executor = 1,
) -> Path:
    """Run all arms of an experiment, or the missing runs of a suite, and write the results to a folder.

    Args:
        experiment: the experiment or suite. The runs of a suite are subfolders; each continues in the newest folder in
            which that very experiment was begun, so a suite that was stopped, or changed in some of its runs, plays
            nothing twice.
        out: the parent of run folders.
        name: name of the folder. If it exists, a number is added for an experiment, and a suite continues there.
        progress: whether to show a progress bar with the time left.
        jobs: number of arms to play in parallel, each in a separate process if it is more than one. A script then needs
            the guard `if __name__ == "__main__":`, since the processes import it. Or an `Executor`, such as the queue
            of a cluster.

    Returns:
        The folder.

    Raises:
        ArmError: if some arms could not be played to their end; the results of the others have been written.
        RunError: if the folder cannot be written to or belongs to something else, or a run cannot continue.
        ValueError: if an experiment cannot be played; nothing has been played. For a suite, the message names the run.
    """
    check_jobs(jobs, *(experiment.runs.values() if isinstance(experiment, Suite) else [experiment]))
    if isinstance(experiment, Suite):
        return suite.run(experiment, out, name, progress, jobs)
    check(experiment)
    return _complete(experiment, begin(experiment, out, name), progress, jobs)


def run_or_resume(
    experiment: Experiment, out: str | Path, name: str, progress: bool = True, jobs: int | Executor = 1
) -> tuple[Path, bool]:
    """As `run`, but continue in the newest folder of that name in which this very experiment was begun, if any.

    Returns:
        The folder, and whether it was finished already.

    Raises:
        ArmError, RunError, ValueError: as for `run`.
    """
    folder = begun(experiment, out, name)
    if folder is None:
        return run(experiment, out, name, progress, jobs), False
    before = is_finished(folder, experiment.steps)
    return _complete(experiment, folder, progress, jobs), before


def resume(
    folder: str | Path,
    progress: bool = True,
    jobs: int | Executor = 1,
    overrides: Overrides | Mapping[str, Any] = (),
    other_versions: bool = False,
) -> Path:
    """Resume a run, or all runs of a suite, from the last checkpoints.

    Finished runs are left unchanged. Failed arms are tried again with the same classes; after a class has changed, a
    new run is needed. A checkpoint is never resumed with another experiment, other classes or other versions.

    Args:
        folder: the folder of a run or a suite.
        progress: whether to show a progress bar with the time left.
        jobs: as for `run`.
        overrides: changes from now on, values by dotted key. With more `steps`, a run, even a finished one, gives the
            same results as if it had been begun with that number. Otherwise only settings that do not affect results,
            such as `checkpoint_every`, and arms without a checkpoint may change.
        other_versions: whether to resume even if the versions of this package, torch, Pyro or NumPy have changed; the
            results then say so.

    Returns:
        `folder`.

    Raises:
        ArmError: as for `run`.
        RunError: if the folder is neither a run's nor a suite's, a file is damaged or edited, or a run cannot continue.
        SpecError: if a `spec.yaml` cannot be read, or an override is invalid.
    """
    folder, overrides = Path(folder), as_pairs(overrides)
    if suite.is_suite(folder):
        return suite.resume(folder, progress, jobs, overrides, other_versions)
    experiment = begun_as(folder, overrides, other_versions)
    if overrides:
        revise_all({folder: experiment})
    return _complete(experiment, folder, progress, jobs, other_versions)


def _complete(
    experiment: Experiment, folder: Path, progress: bool, jobs: int | Executor, other_versions: bool = False
) -> Path:
    """Play the missing arms of one run, and return its folder."""
    try:
        failed = complete({folder: experiment}, progress, jobs, other_versions)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"resume {folder}") from None
    if failed:
        raise failed[folder]
    return folder
