"""Jobs: what is played by itself, on any machine that sees the folder of the run.

A job goes on from its checkpoint if it has one, so whatever stopped it, playing it again ends in the same result. What
it has to say, to whoever waits for it, is in its log: how far it is, and in the end what it has recorded, or why not.
"""

from __future__ import annotations

import hashlib
import json
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyro
import torch

from inference_marl.config.together import together
from inference_marl.described import first_line
from inference_marl.experiment import Experiment
from inference_marl.inference.conditional import local_parameters
from inference_marl.runs import checkpoint, sources
from inference_marl.runs.arm import Arm
from inference_marl.runs.common_numbers import CommonNumbers
from inference_marl.runs.errors import ArmError, RunError
from inference_marl.runs.files import write_text
from inference_marl.runs.lease import Lease
from inference_marl.runs.restoring import restore
from inference_marl.runs.versions import PACKAGES, versions
from inference_marl.types import ForeignGame, kept_streams

LOG_EVERY = 0.5
"""Seconds between what a job says of its progress."""

ASIDE = {"arms", "checkpoint_every", "device", "levels", "published", "source", "steps", "success_window", "threads"}
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
        other_versions: whether it may be resumed under other versions of what its numbers depend on.
    """

    experiment: Experiment
    arm: str
    folder: Path
    stands_for: tuple[str, ...]
    lease: Lease | None = None
    other_versions: bool = False

    @classmethod
    def of(
        cls, experiment: Experiment, arm: str, folder: Path, lease: Lease | None = None, other_versions: bool = False
    ) -> Job:
        """The job of a single arm."""
        return cls(experiment, arm, folder, (arm,), lease, other_versions)

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
    def content(self) -> dict[str, Any]:
        """All that its results depend on but for versions, as plain data."""
        described = self.experiment.describe()["init_args"]
        content = {key: value for key, value in described.items() if key not in ASIDE}
        if isinstance(game := self.experiment.game, ForeignGame):
            given = {key: value for key, value in described["game"]["init_args"].items() if key not in game.aside}
            content["game"] = described["game"] | {"init_args": given}
        content[f"arms.{self.arm}"] = described["arms"][self.arm]
        content["sources"] = sources.digests(self.folder)
        return {key: _normal(value) for key, value in content.items()}

    @cached_property
    def identity(self) -> str:
        """Tells it from jobs whose results would be others."""
        return hashlib.sha256(json.dumps(self.content, sort_keys=True).encode()).hexdigest()

    def saved(self) -> dict[str, Any] | None:
        """Its checkpoint; `None` if there is none.

        Raises:
            RunError: if what is in its place is none, or that of another job, with the keys that differ.
        """
        if not self.checkpoint.exists():
            return None
        saved = checkpoint.read(self.checkpoint)
        if saved.get("job") != self.identity:
            raise RunError(
                f"{self.checkpoint}: got a checkpoint of another experiment ({_differences(self.content, saved)}), "
                "expected one of this: leave that as it was, or start a new run"
            )
        if saved["step"] > self.experiment.steps:
            raise RunError(
                f"steps: got {self.experiment.steps}, expected at least {saved['step']}, which were played before "
                f"({self.checkpoint})"
            )
        return saved

    def check_resumable(self) -> None:
        """Refuse what `execute` would refuse (`RunError`)."""
        saved = self.saved()
        sources.check(self.experiment, self.folder)
        _versions(self, saved)
        resolved(self.experiment.device, None if saved is None else saved["device"])

    @property
    def is_to_be_restored(self) -> bool:
        """Whether its records are in the results only, since the run was finished before."""
        return not self.records.exists() and (self.folder / "metrics.nc").exists()

    def check(self) -> None:
        """Stop if the folder is somebody else's by now (`RunError`)."""
        if self.lease is not None:
            self.lease.check()

    def has_ended(self) -> bool:
        """Whether it was played to its end."""
        return "index" in self.said()

    def said(self) -> dict[str, Any]:
        """What its log says, nothing if there is none of this very job, or a damaged one: see `execute`."""
        try:
            content: dict[str, Any] = json.loads(self.log.read_text())
            said: dict[str, Any] = content["said"]
            whole = content["checksum"] == _checksum(said)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return {}
        return said if whole and (said["job"], said["steps"]) == (self.identity, self.experiment.steps) else {}

    def say(self, said: Mapping[str, Any]) -> None:
        """Write its log."""
        said = {"job": self.identity, "steps": self.experiment.steps, **said}
        write_text(self.log, json.dumps({"said": said, "checksum": _checksum(said)}))


def jobs_of(
    experiment: Experiment, folder: Path, lease: Lease | None = None, other_versions: bool = False
) -> list[Job]:
    """The jobs of a run: its arms, of which some are played as one."""
    return [
        Job(group.experiment, group.arms[0], folder, group.arms, lease, other_versions)
        for group in together(experiment)
    ]


def execute(job: Job, report: Callable[[int, int], object] | None = None) -> str | None:
    """Play a job to its end, on the device and with the threads that its experiment names and that there are here.

    Its log has `found` and `made`, the steps that were made before and since, `began` in seconds since 1970, `device`,
    the `versions` with which it was played, one after another, and in the end either `index`, what is in its records,
    or `why` it could not be played to its end, with the `traceback` of what was raised and what was recorded `until`
    then.

    Args:
        job: what is played.
        report: is told of every step, as the log.

    Returns:
        Why it could not be played to its end, whatever its parts raised, with its last checkpoint kept; `None` if it
        was.

    Raises:
        RunError: if it cannot be played here or with these versions, what is in the checkpoint's place is none of it,
            its classes have changed, or another process has taken over.
    """
    experiment, saved = job.experiment, job.saved()
    sources.check(experiment, job.folder)
    made_with = _versions(job, saved)
    device = resolved(experiment.device, None if saved is None else saved["device"])
    said = {"began": time.time(), "device": device.type, "versions": made_with}
    written = 0.0

    def tell(found: int, made: int, **more: Any) -> None:
        nonlocal written
        if report is not None and not more:
            report(found, made)
        if more or time.monotonic() - written > LOG_EVERY:
            job.check()
            job.say(said | {"found": found, "made": made} | more)
            written = time.monotonic()

    whose = {"job": job.identity, "content": json.dumps(job.content, sort_keys=True), "versions": made_with}
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
                    checkpoint.write(job.checkpoint, arm.state_dict() | whose)
                tell(found, arm.step - found)
    except ArmError as error:
        raised = "".join(traceback.format_exception(error.__cause__ or error))
        until = {"until": arm.recorder.index()} if arm else {}
        tell(found, arm.step - found if arm else 0, why=str(error), traceback=raised, **until)
        return str(error)
    finally:
        if arm is not None:
            arm.close()
    lost = {str(replicate): why for replicate, why in sorted(arm.failures.why.items())}
    tell(found, arm.step - found, index=arm.recorder.index(), failed_replicates=lost)
    return None


def resolved(device: str, before: str | None = None) -> torch.device:
    """The device that `auto`, `cpu` or `cuda` means here.

    Args:
        device: what an experiment says.
        before: the device of the checkpoint that is resumed, which `auto` then means.

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
    if job.is_to_be_restored:
        saved = {**saved, "recorder": restore(job.folder, job.stands_for, job.records, saved["recorder"])}
    try:
        arm.load_state_dict(saved)
    except RunError:  # of the records
        raise
    except Exception as error:
        raise checkpoint.no_checkpoint(job.checkpoint, error) from error
    return arm


def _versions(job: Job, saved: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """With which versions an arm has been played so far, and will be, one after another.

    Raises:
        RunError: if these are others than the last ones, unless the job accepts that.
    """
    now = {name: each for name, each in versions().items() if name in PACKAGES}
    before: list[dict[str, str]] = [] if saved is None else saved["versions"]
    if not before or before[-1] == now:
        return before or [now]
    if not job.other_versions:
        last = before[-1]
        differ = [f"{name} {each} instead of {last.get(name)}" for name, each in now.items() if each != last.get(name)]
        raise RunError(
            f"{job.checkpoint}: got {' and '.join(differ)}, expected the versions with which it was played before, "
            "without which numbers may differ: install those, start a new run, or go on nevertheless, as the results "
            f"will say: inference-marl resume {job.folder} --other-versions"
        )
    return [*before, now]


def _differences(content: Mapping[str, Any], saved: Mapping[str, Any]) -> str:
    """What is another in a checkpoint than in the experiment, key by key."""
    here, there = _flat(content), _flat(json.loads(saved.get("content", "{}")))
    keys = [key for key in sorted(here.keys() | there.keys()) if here.get(key) != there.get(key)]
    shown = [f"{key} is {here.get(key, 'not there')}, and was {there.get(key, 'not there')}" for key in keys[:3]]
    return "; ".join([*shown, *([f"and {len(keys) - 3} more"] if len(keys) > 3 else [])])


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """Plain data by dotted keys, as overrides have them."""
    if isinstance(value, Mapping):
        items = [(name if name != "init_args" else "", each) for name, each in value.items()]
    elif isinstance(value, list):
        items = [(str(number), each) for number, each in enumerate(value)]
    else:
        return {key: value}
    return {at: each for name, item in items for at, each in _flat(item, f"{key}.{name}".strip(".")).items()}


def _checksum(said: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(said).encode())


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
