"""Execution of jobs: play, checkpoint and log one arm until it ends or fails."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import pyro
import torch

from inference_marl.described import first_line
from inference_marl.inference.conditional import local_parameters
from inference_marl.runs import checkpoint, sources
from inference_marl.runs.arm import Arm
from inference_marl.runs.common_numbers import CommonNumbers
from inference_marl.runs.errors import ArmError, RunError
from inference_marl.runs.job import Job, resolved
from inference_marl.runs.restoring import restore
from inference_marl.types import kept_streams

LOG_EVERY = 0.5
"""Seconds between what a job says of its progress."""


def execute(job: Job, report: Callable[[int, int], object] | None = None) -> str | None:
    """Play a job to its end, on the device and with the number of threads that its experiment names.

    Its log holds `found` and `made`, the steps played before and since; when it `began`, in seconds since 1970; the
    `device`; and the `versions` with which it was played, one after another. In the end it also holds `index`, a
    description of the records, or, if the job failed, `why`, the `traceback`, and what was recorded `until` then.

    Args:
        job: the job.
        report: called after every step with `found` and `made`.

    Returns:
        Why it failed, whatever its parts raised; its last checkpoint is kept. `None` if it was played to its end.

    Raises:
        RunError: if it cannot be played on this machine or with these versions, if the checkpoint is not one of this
            job, if its classes have changed, or if another process has taken over.
    """
    saved = job.saved()
    sources.check(job.experiment, job.folder)
    versions = job.versions(saved)
    device = resolved(job.experiment.device, None if saved is None else saved["device"])
    found = 0 if saved is None else saved["step"]
    log = _Log(job, {"began": time.time(), "device": device.type, "versions": versions, "found": found}, report)
    arm = None
    try:
        with _settings(job, device):
            log.tell(found)
            with _as_arm_error(f"arms.{job.arm}"):
                arm = Arm.start(job.experiment, job.arm, None, job.records, device, job.check)
                _restore(job, arm, saved)
            del saved
            _play(job, arm, log)
    except ArmError as error:
        raised = "".join(traceback.format_exception(error.__cause__ or error))
        until = {"until": arm.recorder.index()} if arm else {}
        log.tell(arm.step if arm else found, why=str(error), traceback=raised, **until)
        return str(error)
    finally:
        if arm is not None:
            arm.close()
    failed = {str(replicate): why for replicate, why in sorted(arm.failures.why.items())}
    log.tell(arm.step, index=arm.recorder.index(), failed_replicates=failed)
    return None


@dataclass
class _Log:
    """The log of a job that is being played.

    Attributes:
        job: the job.
        said: the entries that do not change while it is played.
        report: see `execute`.
    """

    job: Job
    said: Mapping[str, Any]
    report: Callable[[int, int], object] | None
    _written: float = 0.0

    def tell(self, step: int, **more: Any) -> None:
        """Write the log, at most every `LOG_EVERY` seconds unless there are `more` entries."""
        found, made = self.said["found"], step - self.said["found"]
        if self.report is not None and not more:
            self.report(found, made)
        if more or time.monotonic() - self._written > LOG_EVERY:
            self.job.check()
            self.job.say({**self.said, "made": made, **more})
            self._written = time.monotonic()


def _play(job: Job, arm: Arm, log: _Log) -> None:
    """Play an arm to its end, with a checkpoint every `checkpoint_every` steps."""
    experiment = job.experiment
    whose = {"job": job.identity, "content": json.dumps(job.content, sort_keys=True), "versions": log.said["versions"]}
    while arm.step < experiment.steps:
        before = arm.step // experiment.checkpoint_every
        with _as_arm_error(f"arms.{job.arm}, step {arm.step + 1}"):
            arm.advance()
        if arm.step // experiment.checkpoint_every > before or arm.step == experiment.steps:
            job.check()
            checkpoint.write(job.checkpoint, arm.state_dict() | whose)
        log.tell(arm.step)


@contextmanager
def _settings(job: Job, device: torch.device) -> Iterator[None]:
    """Global settings while an arm is played, restored afterwards."""
    with (
        kept_streams(device),
        pyro.validation_enabled(False),
        local_parameters(),
        _threads(job.experiment.threads),
        _as_if_alone(job),
    ):
        yield


def _restore(job: Job, arm: Arm, saved: Mapping[str, Any] | None) -> None:
    """Restore the arm from its checkpoint, if there is one."""
    if saved is None:
        arm.recorder.cut()  # what was recorded before the first checkpoint
        return
    if job.is_to_be_restored:
        saved = {**saved, "recorder": restore(job.folder, job.stands_for, job.records, saved["recorder"])}
    try:
        arm.load_state_dict(saved)
    except RunError:  # of the records
        raise
    except Exception as error:
        raise checkpoint.no_checkpoint(job.checkpoint, error) from error


def _as_if_alone(job: Job) -> AbstractContextManager[Any]:
    """Where each of several arms draws the random numbers that it would draw alone."""
    number = len(job.stands_for)
    return CommonNumbers(number, job.experiment.replicates) if number > 1 else nullcontext()


@contextmanager
def _as_arm_error(where: str) -> Iterator[None]:
    """What the parts of an arm raise is the arm's failure; the other arms can still be played."""
    try:
        yield
    except RunError:
        raise
    except ValueError as error:  # a part that refuses what the game has led to, in words of its own
        raise ArmError(f"{where}: {first_line(error)}") from error
    except Exception as error:
        raise ArmError(f"{where}: {type(error).__name__}: {first_line(error)}") from error


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
