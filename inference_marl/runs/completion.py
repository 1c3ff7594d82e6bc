"""Completes runs: plays the arms that are missing, and writes the results."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from inference_marl.config.build import SpecError
from inference_marl.config.files import Overrides, find_classes_in, load
from inference_marl.experiment import Experiment
from inference_marl.runs import checksums, sources
from inference_marl.runs.datasets import write_results
from inference_marl.runs.errors import ArmError, RunError
from inference_marl.runs.executors import Executor, Processes, Serial
from inference_marl.runs.folder import SPEC, is_finished, revise
from inference_marl.runs.job import Job, jobs_of, resolved
from inference_marl.runs.lease import RENEWAL, Lease, leased
from inference_marl.runs.meanwhile import meanwhile
from inference_marl.runs.progress import progress_bar
from inference_marl.runs.recorder import check_files
from inference_marl.runs.records import Records, remove
from inference_marl.runs.sources import FOLDER
from inference_marl.runs.versions import versions


def complete(
    runs: Mapping[Path, Experiment], progress: bool = True, jobs: int | Executor = 1, other_versions: bool = False
) -> dict[Path, ArmError]:
    """Play the missing arms of several runs, and write the results of each run as soon as its last arm is done.

    Finished runs are left unchanged; failed arms are tried again.

    Args:
        runs: the experiments by run folder, as in each one's `spec.yaml`.
        progress: whether to show a progress bar for all runs, with the time left.
        jobs: number of jobs of all runs to play in parallel, each in a separate process if it is more than one; or an
            executor.
        other_versions: whether to resume checkpoints that were written under other versions.

    Returns:
        An error for each run with arms that could not be played to their end.

    Raises:
        RunError: if a checkpoint is invalid, a file is damaged, or another process is working on a run.
    """
    check_jobs(jobs)
    todo = {}
    for folder, experiment in runs.items():
        checksums.check(folder, [SPEC])
        if is_finished(folder, experiment.steps):
            remove(folder)  # in case the process was stopped just before
        else:
            todo[folder] = experiment
    if not todo:
        return {}
    with ExitStack() as held:
        leases = {folder: held.enter_context(leased(folder)) for folder in todo}

        def renew() -> None:
            for lease in leases.values():
                lease.renew()

        held.enter_context(meanwhile(renew, RENEWAL))
        return _complete(todo, leases, progress, jobs, other_versions)


def begun_as(folder: Path, overrides: Overrides = (), other_versions: bool = False) -> Experiment:
    """The experiment of a run, with overrides, checked to be resumable; nothing is written.

    Args:
        folder: the folder of the run.
        overrides: see `inference_marl.runs.run.resume`.
        other_versions: see `inference_marl.runs.run.resume`.

    Raises:
        RunError: if the folder is not a run's, a file has been edited or damaged, or the run cannot be resumed like
            this.
        SpecError: if the experiment cannot be built.
    """
    spec = folder / SPEC
    if not spec.is_file():
        raise RunError(f"{folder}: got no {SPEC} there, expected the folder of a run")
    find_classes_in(folder / FOLDER)
    edited = checksums.altered(folder, [SPEC])
    try:
        experiment = load(spec, overrides)
        if edited or overrides:
            checksums.check(folder, sources.listed(folder))
            for job in jobs_of(experiment, folder, other_versions=other_versions):
                job.check_resumable()  # its message says what differs in the experiment
    except SpecError:
        if not edited:
            raise
    if edited:
        raise RunError(
            f"{spec}: got another content than was written there, expected it unchanged: undo the edit, or start a new "
            f"run with: inference-marl run {spec}. To change what may change: inference-marl resume {folder} --KEY "
            "VALUE"
        )
    checksums.check(folder)
    if overrides:
        before = load(spec)
        for arm in before.arms:
            if arm not in experiment.arms:
                raise RunError(f"arms.{arm}: got null, expected every arm that the run was begun with")
        if is_finished(folder, before.steps) and experiment.steps == before.steps:
            raise RunError(f"{folder}: got a finished run, expected an unfinished one, or steps above {before.steps}")
    return experiment


def revise_all(runs: Mapping[Path, Experiment]) -> None:
    """Rewrite the `spec.yaml` of runs with revised experiments.

    Raises:
        RunError: if another process is working on one of them.
    """
    with ExitStack() as held:
        for folder in runs:
            held.enter_context(leased(folder))
        for folder, experiment in runs.items():
            revise(folder, experiment)


def check_jobs(jobs: int | Executor, *experiments: Experiment) -> None:
    """Check the number of jobs and, if they are to be played on this machine, the device.

    Raises:
        RunError: if the number is not positive, or the machine lacks the device.
    """
    if isinstance(jobs, int):
        if jobs < 1:
            raise RunError(f"jobs: got {jobs}, expected a positive integer")
        for experiment in experiments:
            resolved(experiment.device)


def _complete(
    experiments: Mapping[Path, Experiment],
    leases: Mapping[Path, Lease],
    progress: bool,
    jobs: int | Executor,
    other_versions: bool,
) -> dict[Path, ArmError]:
    runs = {folder: _Run(experiments[folder], folder, leases[folder], other_versions) for folder in experiments}
    every = [job for run in runs.values() for job in run.jobs]
    ended = [job for job in every if job.has_ended()]
    errors, started = {}, time.time()

    def conclude() -> None:
        for folder in [folder for folder, run in runs.items() if all(job in ended for job in run.jobs)]:
            error = runs.pop(folder).conclude(started)
            if error is not None:
                errors[folder] = error

    with progress_bar(every, ended, progress):
        conclude()
        while todo := [job for job in every if job not in ended]:
            executor = _of_this_machine(min(jobs, len(todo))) if isinstance(jobs, int) else jobs
            for job in todo:
                job.log.unlink(missing_ok=True)  # of an earlier attempt
            with closing(executor.submit(todo)) as playing:
                for job, why in playing:
                    if why is not None and len(job.stands_for) > 1:
                        every[every.index(job) : every.index(job) + 1] = alone = runs[job.folder].take_apart(job)
                        ended += [each for each in alone if each.has_ended()]
                    else:
                        ended.append(job)
                        runs[job.folder].note(job, why)
                    conclude()
    return errors


def _of_this_machine(number: int) -> Executor:
    return Processes(number) if number > 1 else Serial()


class _Run:
    """A run while its jobs are played.

    Attributes:
        jobs: all of its jobs.
        failed: the reasons why arms could not be played to their end, by name.
    """

    def __init__(self, experiment: Experiment, folder: Path, lease: Lease, other_versions: bool) -> None:
        self.experiment, self.folder = experiment, folder
        self.jobs = jobs_of(experiment, folder, lease, other_versions)
        self.failed: dict[str, str] = {}

    def take_apart(self, job: Job) -> list[Job]:
        """Replace a failed job of several arms by jobs of single arms, since not all of them need fail."""
        alone = [replace(job, experiment=self.experiment, arm=arm, stands_for=(arm,)) for arm in job.stands_for]
        at = self.jobs.index(job)
        self.jobs[at : at + 1] = alone
        return alone

    def note(self, job: Job, why: str | None) -> None:
        """Record how a job has ended."""
        self.failed |= {} if why is None else dict.fromkeys(job.stands_for, why)

    def conclude(self, started: float) -> ArmError | None:
        """Write the results, those of failed arms up to their failure; return an error for failed arms, if any."""
        done = [job for job in self.jobs if _index(job)["counts"].get("metrics")]
        failed = {arm: self.failed[arm] for arm in self.experiment.arms if arm in self.failed}
        if done:
            found = {arm: records for job in done for arm, records in _recorded(job)}
            recorded = {arm: found[arm] for arm in self.experiment.arms if arm in found}
            said = [job.said() for job in done]
            began = max(started, min(each["began"] for each in said))
            device = " and ".join(sorted({each["device"] for each in said}))
            how: dict[str, Any] = {"seconds": round(time.time() - began, 3), "device": device}
            *before, last = [each for one in said for each in one["versions"]]
            how["versions"] = versions() | last
            if others := [each for n, each in enumerate(before) if each not in (last, *before[:n])]:
                how["versions_before"] = others
            lost = {arm: why for job in done for arm, why in _failed_replicates(job) if why}
            write_results(self.experiment, self.folder, recorded, failed, lost, how)
        if not failed:
            remove(self.folder)
            return None
        first, *others = failed.values()
        also = f"; {len(others)} more failed: {', '.join(list(failed)[1:])}" if others else ""
        error = ArmError(f"{first}{also}")
        error.folder = self.folder if done else None
        arm = next(iter(failed))
        error.traceback = next(job for job in self.jobs if arm in job.stands_for).said().get("traceback", "")
        return error


def _index(job: Job) -> dict[str, Any]:
    """The index of a job's records, to its end or until it failed."""
    said = job.said()
    index: dict[str, Any] = said.get("index") or said.get("until") or {"counts": {}}
    return index


def _recorded(job: Job) -> Iterator[tuple[str, Records]]:
    """The records of each of a job's arms."""
    each = job.experiment.replicates // len(job.stands_for)
    check_files(job.records, _index(job))
    for number, arm in enumerate(job.stands_for):
        yield arm, Records(job.records, _index(job), slice(number * each, (number + 1) * each))


def _failed_replicates(job: Job) -> Iterator[tuple[str, dict[str, str]]]:
    """The reasons why replicates have failed, by number, for each of a job's arms."""
    each = job.experiment.replicates // len(job.stands_for)
    lost = {int(replicate): why for replicate, why in job.said().get("failed_replicates", {}).items()}
    for number, arm in enumerate(job.stands_for):
        its = range(number * each, (number + 1) * each)
        yield arm, {str(replicate - its.start): why for replicate, why in lost.items() if replicate in its}
