"""Running an experiment or a suite, and going on with what was stopped."""

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
    """Run every arm of an experiment, or what is missing of a suite, and write its folder.

    Args:
        experiment: what is run. A suite's runs are folders within its own: each goes on in the newest one in which that
            very experiment was begun, so a suite that was stopped, or changed in some of its runs, plays nothing twice.
        out: where run folders go.
        name: of the folder. If it exists, a number is added for an experiment; a suite goes on there.
        progress: show a bar with the time left.
        jobs: arms that are played at once, each in a process of its own if there is more than one. A script must
            then guard what it does with `if __name__ == "__main__":`, since processes import it. Or who plays them,
            such as a cluster's queue: an `Executor`.

    Returns:
        The folder.

    Raises:
        ArmError: if arms could not be played to their end; the results of the others are written then.
        RunError: if the folder cannot be written to or is another's, or a run cannot go on.
        ValueError: if an experiment cannot be played, of a suite naming the run; nothing is played then.
    """
    check_jobs(jobs, *(experiment.runs.values() if isinstance(experiment, Suite) else [experiment]))
    if isinstance(experiment, Suite):
        return suite.run(experiment, out, name, progress, jobs)
    check(experiment)
    return _complete(experiment, begin(experiment, out, name), progress, jobs)


def run_or_resume(
    experiment: Experiment, out: str | Path, name: str, progress: bool = True, jobs: int | Executor = 1
) -> tuple[Path, bool]:
    """As `run`, but in the newest folder of that name in which this very experiment was begun, if there is one.

    Returns:
        The folder, and whether it was finished before.

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
    """Go on with a run, or all runs of a suite, from the last checkpoints.

    Finished runs are left as they are. Failed arms are tried again, with the same classes: one whose class was mended
    needs a new run. A checkpoint is never resumed as something else: not as another experiment, with other classes, or
    under other versions.

    Args:
        folder: of a run or of a suite.
        progress: show a bar with the time left.
        jobs: as for `run`.
        overrides: what changes from now on, values by dotted key. With more `steps`, a run ends as if it had been begun
            with so many, also one that was finished. Otherwise only what no result depends on, such as
            `checkpoint_every`, or what concerns arms without a checkpoint.
        other_versions: go on also if this package, torch, Pyro or numpy are of other versions than before. The results
            then say so.

    Returns:
        `folder`.

    Raises:
        ArmError: as for `run`.
        RunError: if the folder is neither a run's nor a suite's, a file is damaged or edited, or a run cannot go on.
        SpecError: if a `spec.yaml` cannot be read, or an override is wrong.
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
    """Play what is missing of one run; returns its folder."""
    try:
        failed = complete({folder: experiment}, progress, jobs, other_versions)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"resume {folder}") from None
    if failed:
        raise failed[folder]
    return folder
