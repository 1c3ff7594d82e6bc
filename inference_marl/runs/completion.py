"""What is missing of runs is played, and their results are written."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from inference_marl.experiment import Experiment
from inference_marl.runs.datasets import write_results
from inference_marl.runs.errors import ArmError, RunError
from inference_marl.runs.executors import Executor, Processes, Serial
from inference_marl.runs.folder import is_finished
from inference_marl.runs.job import Job, resolved
from inference_marl.runs.lease import RENEWAL, Lease, leased
from inference_marl.runs.progress import progress_bar
from inference_marl.runs.records import Records, remove


def complete(runs: Mapping[Path, Experiment], progress: bool = True, jobs: int | Executor = 1) -> dict[Path, ArmError]:
    """Play what is missing of several runs, and write each one's results as soon as its last arm is done.

    Finished runs are left as they are; failed arms are tried again.

    Args:
        runs: the experiments by their folders, as in each one's `spec.yaml`.
        progress: show one bar for all, with the time left.
        jobs: how many are played at once, of whichever run, each in a process of its own if there is more than one; or
            who plays them.

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
    with ExitStack() as held:
        leases = {folder: held.enter_context(leased(folder)) for folder in todo}
        held.enter_context(_renewed(leases.values()))
        return _complete(todo, leases, progress, jobs)


def check_jobs(jobs: int | Executor, *experiments: Experiment) -> None:
    """Refuse numbers of jobs that are none and, if they are to be played on this machine, devices that it lacks.

    Raises:
        RunError: if there is not at least one, or no such device.
    """
    if isinstance(jobs, int):
        if jobs < 1:
            raise RunError(f"jobs: got {jobs}, expected a positive integer")
        for experiment in experiments:
            resolved(experiment.device)


def _complete(
    runs: Mapping[Path, Experiment], leases: Mapping[Path, Lease], progress: bool, jobs: int | Executor
) -> dict[Path, ArmError]:
    every = [job for folder in runs for job in _jobs(runs[folder], folder, leases[folder])]
    ended = [job for job in every if "index" in job.said()]
    for job in every:
        if job not in ended:
            job.log.unlink(missing_ok=True)  # of another try
    todo = [job for job in every if job not in ended]
    if isinstance(jobs, int):
        executor: Executor = Serial() if min(jobs, len(todo)) <= 1 else Processes(min(jobs, len(todo)))
    else:
        executor = jobs
    started, why, errors = time.time(), dict[Job, str](), {}
    left = {folder: [job for job in todo if job.folder == folder] for folder in runs}

    def conclude(folder: Path) -> None:
        of_run = [job for job in every if job.folder == folder]
        error = _conclude(runs[folder], folder, of_run, {job: why[job] for job in of_run if job in why}, started)
        if error is not None:
            errors[folder] = error

    with progress_bar(every, ended, progress):
        for folder in [folder for folder in runs if not left[folder]]:
            conclude(folder)
        with closing(executor.submit(todo)) as playing:
            for job, reason in playing:
                ended.append(job)
                left[job.folder].remove(job)
                if reason is not None:
                    why[job] = reason
                if not left[job.folder]:
                    conclude(job.folder)
    return errors


def _jobs(experiment: Experiment, folder: Path, lease: Lease) -> list[Job]:
    """The jobs of a run."""
    return [Job.of(experiment, arm, folder, lease) for arm in experiment.arms]


def _conclude(
    experiment: Experiment, folder: Path, jobs: Sequence[Job], why: Mapping[Job, str], started: float
) -> ArmError | None:
    """Write the results of the arms that did not fail; returns what to say of those that did."""
    failed = {arm: why[job] for job in jobs if job in why for arm in job.stands_for}
    said = {job: job.said() for job in jobs if job not in why}
    if said:
        found = {arm: records for job in said for arm, records in _recorded(job, said[job]["index"])}
        recorded = {arm: found[arm] for arm in experiment.arms if arm in found}
        how = {
            "seconds": round(time.time() - max(started, min(each["began"] for each in said.values())), 3),
            "device": " and ".join(sorted({each["device"] for each in said.values()})),
        }
        write_results(experiment, folder, recorded, failed, how)
    if not failed:
        remove(folder)
        return None
    first, *others = failed.values()
    also = f"; {len(others)} more failed: {', '.join(list(failed)[1:])}" if others else ""
    error = ArmError(f"{first}{also}")
    error.folder = folder if said else None
    return error


def _recorded(job: Job, index: Mapping[str, Any]) -> Iterator[tuple[str, Records]]:
    """The records of each arm that a job stands for."""
    each = job.experiment.replicates // len(job.stands_for)
    for number, arm in enumerate(job.stands_for):
        yield arm, Records(job.records, index, slice(number * each, (number + 1) * each))


@contextmanager
def _renewed(leases: Iterable[Lease]) -> Iterator[None]:
    """Renew leases for as long as they are held."""
    over = threading.Event()

    def renew() -> None:
        while not over.wait(RENEWAL):
            for lease in leases:
                lease.renew()

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
