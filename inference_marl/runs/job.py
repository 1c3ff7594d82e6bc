"""Jobs: what is played by itself, on any machine that sees the folder of the run.

A job goes on from its checkpoint if it has one, so whatever stopped it, playing it again ends in the same result. What
it has to say, to whoever waits for it, is in its log: how far it is, and in the end what it has recorded, or why not.
"""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyro
import torch

from inference_marl.described import first_line
from inference_marl.experiment import Experiment
from inference_marl.inference.conditional import local_parameters
from inference_marl.runs import checkpoint
from inference_marl.runs.arm import Arm
from inference_marl.runs.common_numbers import CommonNumbers
from inference_marl.runs.errors import ArmError, RunError
from inference_marl.runs.files import write_text
from inference_marl.runs.lease import Lease
from inference_marl.types import kept_streams

LOG_EVERY = 0.5
"""Seconds between what a job says of its progress."""

ASIDE = {"arms", "checkpoint_every", "device", "levels", "published", "source", "success_window", "threads"}
"""Keys of an experiment on which what one of its arms has played so far does not depend."""


@dataclass(frozen=True)
class Job:
    """One arm of a run, or several that are played as one.

    Attributes:
        experiment: has the arm.
        arm: its name there.
        folder: the run's.
        stands_for: names of the run's arms. Of several, each has as many of the experiment's replicates, in order.
        lease: what its player holds on the folder; `None` if nobody else could want to play it.
    """

    experiment: Experiment
    arm: str
    folder: Path
    stands_for: tuple[str, ...]
    lease: Lease | None = None

    @classmethod
    def of(cls, experiment: Experiment, arm: str, folder: Path, lease: Lease | None = None) -> Job:
        """The job of a single arm."""
        return cls(experiment, arm, folder, (arm,), lease)

    @property
    def name(self) -> str:
        """That of its files: the arm's, or the first one's and how many more there are."""
        first, *others = self.stands_for
        return f"{first}+{len(others)}" if others else first

    @property
    def checkpoint(self) -> Path:
        """Where its checkpoint is."""
        return checkpoint.checkpoint_of(self.folder, self.name)

    @property
    def records(self) -> Path:
        """The folder of its records, until the run's results are written."""
        return self.folder / "records" / self.name

    @property
    def log(self) -> Path:
        """The file that says how far it is, and how it ended."""
        return self.folder / "records" / f"{self.name}.json"

    @cached_property
    def identity(self) -> str:
        """Tells it from jobs whose results would be others: a digest of all that they depend on."""
        described = self.experiment.describe()["init_args"]
        content = {key: value for key, value in described.items() if key not in ASIDE}
        content["arm"] = described["arms"][self.arm]
        return hashlib.sha256(json.dumps(_normal(content), sort_keys=True).encode()).hexdigest()

    def check(self) -> None:
        """Stop if the folder is somebody else's by now (`RunError`)."""
        if self.lease is not None:
            self.lease.check()

    def has_ended(self) -> bool:
        """Whether it was played to its end."""
        return "index" in self.said()

    def said(self) -> dict[str, Any]:
        """What its log says, nothing if there is none of this very job: see `execute`."""
        try:
            content: dict[str, Any] = json.loads(self.log.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return content if content.get("job") == self.identity else {}


def execute(job: Job, report: Callable[[int, int], object] | None = None) -> str | None:
    """Play a job to its end, on the device and with the threads that its experiment names and that there are here.

    Its log has `found` and `made`, the steps that were made before and since, `began` in seconds since 1970, `device`,
    and in the end either `index`, what is in its records, or `why` it could not be played to its end, with the
    `traceback` of what was raised.

    Args:
        job: what is played.
        report: is told of every step, as the log.

    Returns:
        Why it could not be played to its end, whatever its parts raised, with its last checkpoint kept; `None` if it
        was.

    Raises:
        RunError: if it cannot be played here, what is in the checkpoint's place is none of it, or another process has
            taken over.
    """
    experiment = job.experiment
    saved = checkpoint.read(job.checkpoint) if job.checkpoint.exists() else None
    if saved is not None and saved.get("job") != job.identity:
        raise RunError(
            f"{job.checkpoint}: got a checkpoint of another experiment, expected one of this: undo what was changed in "
            "spec.yaml, or delete the checkpoint to start the arm anew"
        )
    device = resolved(experiment.device, None if saved is None else saved["device"])
    said = {"job": job.identity, "began": time.time(), "device": device.type}
    written = 0.0

    def tell(found: int, made: int, **more: Any) -> None:
        nonlocal written
        if report is not None and not more:
            report(found, made)
        if more or time.monotonic() - written > LOG_EVERY:
            job.check()
            write_text(job.log, json.dumps(said | {"found": found, "made": made} | more))
            written = time.monotonic()

    found = 0 if saved is None else saved["step"]
    arm = None
    try:
        with (
            kept_streams(device),
            pyro.validation_enabled(False),
            local_parameters(),
            _threads(experiment.threads),
            _as_if_alone(job),
        ):
            tell(found, 0)
            with _as_arm_error(f"arms.{job.arm}"):
                arm = _begun(job, device, saved)
            del saved
            while arm.step < experiment.steps:
                before = arm.step // experiment.checkpoint_every
                with _as_arm_error(f"arms.{job.arm}, step {arm.step + 1}"):
                    arm.advance()
                if arm.step // experiment.checkpoint_every > before or arm.step == experiment.steps:
                    job.check()
                    checkpoint.write(job.checkpoint, arm.state_dict() | {"job": job.identity})
                tell(found, arm.step - found)
    except ArmError as error:
        raised = "".join(traceback.format_exception(error.__cause__ or error))
        tell(found, arm.step - found if arm else 0, why=str(error), traceback=raised)
        return str(error)
    lost = {str(replicate): why for replicate, why in sorted(arm.failures.why.items())}
    tell(found, arm.step - found, index=arm.recorder.index(), failed_replicates=lost)
    return None


def resolved(device: str, before: str | None = None) -> torch.device:
    """The device that `auto`, `cpu` or `cuda` means here.

    Args:
        device: what an experiment says.
        before: the device of the checkpoint that is gone on with, which `auto` then means.

    Raises:
        RunError: if it is not there, or is another than before, on which the result would be another.
    """
    there = torch.cuda.is_available()
    kind = device if device != "auto" else before or ("cuda" if there else "cpu")
    if before not in (None, kind):
        raise RunError(f"device: got {kind}, expected {before}, on which the checkpoint was written")
    if kind == "cuda" and not there:
        raise RunError("device: got cuda, but torch sees none here; expected cpu or auto")
    return torch.device(kind)


def _begun(job: Job, device: torch.device, saved: Mapping[str, Any] | None) -> Arm:
    """The arm as its checkpoint says, or at its start if there is none."""
    arm = Arm.start(job.experiment, job.arm, records=job.records, device=device, before_writing=job.check)
    if saved is None:
        arm.recorder.cut()  # what was recorded before the first checkpoint
        return arm
    try:
        arm.load_state_dict(saved)
    except RunError:  # of the records
        raise
    except Exception as error:
        raise checkpoint.no_checkpoint(job.checkpoint, error) from error
    return arm


def _normal(value: Any) -> Any:
    """Plain data with one form for each number: files may say 1 where Python says 1.0."""
    if isinstance(value, Mapping):
        return {key: _normal(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_normal(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


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
